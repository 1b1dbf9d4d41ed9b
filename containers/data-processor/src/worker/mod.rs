//! A query's own process: it takes its order, gives up everything that the order does not name,
//! and runs the query. It ends with the query.

mod message;

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aisemble_protocol::{ApiError, ErrorCode};
use aisemble_sandbox::{Paths, Policy, narrow};

use crate::engine::{self, Counters, Source, Table, Task};
use crate::memory;

pub use message::{Message, Order, Origin, PlanOrder, TableOrder, read_frame, write_frame};

/// The exit code that says that memory ran out.
pub const EXIT_OUT_OF_MEMORY: i32 = 71;
/// The exit code of a worker whose order could not be read, or whose sandbox could not be made.
pub const EXIT_NOT_STARTED: i32 = 72;
/// The policy of a worker.
const POLICY: &str = "data-processor-worker";
/// How often the service hears how far the query is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// The stack of the thread that reads SQL, bytes: its trees are walked by recursion.
const STACK_BYTES: usize = 64 << 20;

/// What a panic said; there is nobody to print it for.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The whole life of a worker; the exit code.
pub(crate) fn run(control: UnixStream) -> i32 {
    memory::end_without_memory();
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload_as_str().unwrap_or("a panic");
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = said.to_owned();
    }));
    let Some((order, inline)) = message::read_order(&control) else { return EXIT_NOT_STARTED };
    let paths = Paths {
        read: order.tables.iter().filter_map(|table| table.origin.path()).collect(),
        read_write: order.output_folder.iter().cloned().collect(),
        ..Paths::default()
    };
    let confined = Policy::named(POLICY).and_then(|policy| narrow(&policy, &paths));
    if let Err(error) = confined {
        let text = format!("the query's process cannot be confined: {error}");
        let said = Message::Failed(ApiError::new(ErrorCode::Internal, text));
        let _ = message::send(&control, &said);
        return EXIT_NOT_STARTED;
    }
    settings(&order);
    // Warnings are for developers; standard error is the service's log.
    polars::error::set_warning_function(|_text, _kind| {});
    let task = task(order, inline);
    let said = work(&control, task);
    i32::from(message::send(&control, &said).is_err())
}

/// polars reads its settings from the environment.
fn settings(order: &Order) {
    let threads = order.threads.to_string();
    for (name, value) in [
        ("POLARS_MAX_THREADS", threads.as_str()),
        ("POLARS_TRACK_METRICS", "1"),
        ("POLARS_TEMP_DIR", "/nonexistent"),
        // Groups that a thread aggregates in place. A build for development would take 4 and keep
        // every other row until the end.
        ("POLARS_HOT_TABLE_SIZE", "4096"),
    ] {
        #[expect(
            unsafe_code,
            clippy::disallowed_methods,
            reason = "polars offers no other way, and there is no other thread"
        )]
        // SAFETY: this process has one thread.
        unsafe {
            std::env::set_var(name, value);
        }
    }
}

fn task(order: Order, inline: Vec<Vec<u8>>) -> Task {
    let mut inline = inline.into_iter();
    let table = |table: TableOrder| Table {
        name: table.name,
        format: table.format,
        options: table.options,
        source: match table.origin {
            Origin::Inline { .. } => Source::Bytes(inline.next().unwrap_or_default()),
            Origin::File { path } => Source::File(path),
        },
    };
    let path = |folder: PathBuf| {
        let format = order.output_format?;
        Some((format, folder.join(format!("output.{}", format.as_str()))))
    };
    Task {
        tables: order.tables.into_iter().map(table).collect(),
        plan: order.plan.into(),
        output: order.output_folder.and_then(path),
        output_bytes_max: order.output_bytes_max,
        preview_rows: order.preview_rows,
        profile: order.profile,
    }
}

/// Runs the query on a thread with a large stack, and tells meanwhile how far it is.
fn work(control: &UnixStream, task: Task) -> Message {
    let counters = Arc::new(Counters::default());
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let counted = Arc::clone(&counters);
    let started = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| engine::run(&task, &counted)));
        // The other end waits for as long as this thread lives.
        let _ = done.send(result);
    });
    if started.is_err() {
        return Message::Failed(engine::out_of_memory());
    }
    loop {
        match is_done.recv_timeout(PROGRESS_INTERVAL) {
            Ok(Ok(Ok(result))) => return Message::Done(Box::new(result)),
            Ok(Ok(Err(error))) => return Message::Failed(error),
            Ok(Err(_)) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Message::Failed(panicked(&said));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let said = Message::progress(&counters);
                if message::send(control, &said).is_err() {
                    return said;
                }
            }
        }
    }
}

/// polars panics where other code would give an error; it is one of the query all the same.
fn panicked(said: &str) -> ApiError {
    if said.contains("failed to spawn") || said.contains("Resource temporarily unavailable") {
        return engine::out_of_memory();
    }
    engine::of_text("query", &format!("polars cannot do this: {said}"))
}
