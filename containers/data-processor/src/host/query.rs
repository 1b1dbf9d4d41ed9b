//! One query: from its request to its outcome. Its process is ended when the caller goes, when it
//! takes too long, and when its output is too large.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_protocol::data::{OutputView, ProcessResult, TableFormat};
use aisemble_protocol::{ApiError, ErrorCode, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::ending::{self, Held};
use super::{Host, Inside, Running};
use crate::fork::{Child, ChildLimits};
use crate::output::OutputFolder;
use crate::worker::{Message, Order, Origin};

/// Bytes of a message of a worker; a preview of 1000 rows and a profile fit.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Addresses beside the memory and the mapped files: code, stacks, what allocators reserve.
const ADDRESS_BYTES_BESIDE: u64 = 16 << 30;
/// Memory that a process has before its query begins, stacks included.
const MEMORY_BYTES_BESIDE: u64 = 160 << 20;

/// A request that was checked.
#[derive(Debug)]
pub struct Query {
    /// What the worker is told; the folder is filled in here.
    pub order: Order,
    /// The bytes of tables that came with the request, in the order of the tables.
    pub inline: Vec<Vec<u8>>,
    /// Digests of stored tables, by the position of the table.
    pub blobs: Vec<(usize, String)>,
    /// Limits that the request asks for; 0 = the service's.
    pub limits: v1::ProcessLimits,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Event {
    /// It is on its way.
    Progress(v1::Progress),
    /// It is done.
    Outcome(Box<v1::Outcome>),
}

/// Where events go.
pub type Reporter = mpsc::Sender<Result<Event, ApiError>>;

/// Runs the query and reports, until it ends or nobody listens any more.
async fn run(host: Arc<Host>, inside: Inside, query: Query, to: Reporter) {
    let outcome = tokio::select! {
        outcome = go(&host, query, &to) => outcome,
        // Dropping the work ends the process and removes its folder.
        () = to.closed() => {
            host.cancelled();
            drop(inside);
            return;
        }
    };
    // The caller may go in the very moment.
    let _ = to.send(outcome.map(|outcome| Event::Outcome(Box::new(outcome)))).await;
    drop(inside);
}

impl Host {
    /// Runs a query on a task of its own; its events come out of `to`'s other end.
    pub fn start(self: &Arc<Self>, inside: Inside, query: Query, to: Reporter) {
        tokio::spawn(run(Arc::clone(self), inside, query, to));
    }
}

/// The parts of one query that runs.
struct Work<'a> {
    child: Child,
    to: &'a Reporter,
    held: Held,
    input_bytes: u64,
    began: Instant,
}

async fn go(host: &Arc<Host>, mut query: Query, to: &Reporter) -> Result<v1::Outcome, ApiError> {
    let began = Instant::now();
    report(to, "queued", 0, 0, 0);
    let running = place(host, query.deadline).await?;
    let queued = began.elapsed();
    report(to, "starting", 0, 0, 0);
    let input_bytes = find_blobs(host, &mut query)?;
    let folder = make_folder(host, &mut query)?;
    let held = held(host, query.limits);
    query.order.output_bytes_max = held.output_bytes;
    query.order.threads = host.threads;
    let child = host.forks.child(child_limits(held, input_bytes)).await.map_err(|error| {
        tracing::error!(%error, "a query's process cannot be made");
        ApiError::new(ErrorCode::Unavailable, "no process can be made for the query")
            .with_retry_after_ms(1000)
    })?;
    let mut work = Work { child, to, held, input_bytes, began };
    let deadline = host.wall(query.limits.wall_ms_max);
    let told = Instant::now();
    let format = query.order.output_format;
    let answered = {
        let until = query.deadline.map_or(told + deadline, |caller| caller.min(told + deadline));
        tokio::time::timeout_at(until.into(), work.talk(query)).await
    };
    let said = match answered {
        Ok(said) => said,
        Err(_elapsed) => {
            work.child.kill();
            work.child.ended().await;
            Err(ending::too_long(held))
        }
    };
    drop(running);
    let (mut result, ending) = said?;
    result.memory_peak_bytes = ending;
    result.timings.queue_ms = milliseconds(queued);
    let inside = result.timings.open_ms + result.timings.compute_ms + result.timings.profile_ms;
    result.timings.start_ms = (milliseconds(told.elapsed()) - inside).max(0.0);
    let output = hand_over(folder, format, &mut result).await?;
    result.timings.total_ms = milliseconds(work.began.elapsed());
    let result_json = serde_json::to_string(&result)
        .map_err(|_never| ApiError::new(ErrorCode::Internal, "the result is not JSON"))?;
    Ok(v1::Outcome { result_json, output })
}

async fn place(host: &Arc<Host>, deadline: Option<Instant>) -> Result<Running, ApiError> {
    let place = host.place();
    let placed = match deadline {
        None => Ok(place.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), place).await,
    };
    match placed {
        Ok(Ok(running)) => Ok(running),
        Ok(Err(_closed)) => Err(ApiError::new(ErrorCode::Unavailable, "the service goes down")),
        Err(_elapsed) => {
            let message = "the deadline passed before a worker was free";
            Err(ApiError::new(ErrorCode::Timeout, message))
        }
    }
}

/// Puts paths in the place of digests; gives the bytes of all tables.
fn find_blobs(host: &Host, query: &mut Query) -> Result<u64, ApiError> {
    let mut bytes: u64 = query.inline.iter().map(|table| table.len() as u64).sum();
    for (at, sha256) in &query.blobs {
        let param = format!("tables[{at}]");
        let missing = || {
            let message = format!("{param}: the stored file is not there");
            ApiError::new(ErrorCode::NotFound, message).with_param(&param)
        };
        let path = host.blob(sha256).ok_or_else(missing)?;
        let found = std::fs::metadata(&path).map_err(|_absent| missing())?;
        bytes += found.len();
        query.order.tables[*at].origin = Origin::File { path };
    }
    Ok(bytes)
}

fn make_folder(host: &Host, query: &mut Query) -> Result<Option<OutputFolder>, ApiError> {
    if query.order.output_format.is_none() {
        return Ok(None);
    }
    let folder = OutputFolder::create(&host.config.files.exchange).map_err(|error| {
        tracing::error!(%error, "no folder can be made for an output");
        ApiError::new(ErrorCode::StorageFull, "there is no room for the output")
    })?;
    query.order.output_folder = Some(folder.path().to_owned());
    Ok(Some(folder))
}

fn held(host: &Host, asked: v1::ProcessLimits) -> Held {
    let limits = &host.config.limits;
    let least = |asked: u64, limit: u64| if asked == 0 { limit } else { asked.min(limit) };
    Held {
        wall_ms: least(asked.wall_ms_max, limits.wall_ms_max),
        memory_bytes: least(asked.memory_bytes_max, limits.memory_bytes_max),
        output_bytes: least(asked.output_bytes_max, limits.output_bytes_max),
        cpu_s: limits.cpu_s_max,
    }
}

fn child_limits(held: Held, input_bytes: u64) -> ChildLimits {
    let memory_bytes_max = held.memory_bytes.saturating_add(MEMORY_BYTES_BESIDE);
    ChildLimits {
        memory_bytes_max,
        address_bytes_max: memory_bytes_max
            .saturating_add(input_bytes.saturating_mul(2))
            .saturating_add(held.output_bytes)
            .saturating_add(ADDRESS_BYTES_BESIDE),
        cpu_s_max: held.cpu_s,
        file_bytes_max: held.output_bytes,
    }
}

async fn hand_over(
    folder: Option<OutputFolder>,
    format: Option<TableFormat>,
    result: &mut ProcessResult,
) -> Result<Option<v1::OutputFile>, ApiError> {
    let (Some(folder), Some(format)) = (folder, format) else { return Ok(None) };
    if result.explain.is_some() {
        return Ok(None);
    }
    let handed = tokio::task::spawn_blocking(move || folder.hand_over(format)).await;
    let output = handed.map_err(std::io::Error::other).and_then(|output| output);
    let output = output.map_err(|error| {
        tracing::error!(%error, "the output of a query cannot be read");
        ApiError::new(ErrorCode::Internal, "the output of the query is not there")
    })?;
    result.output = Some(OutputView {
        file: None,
        name: crate::output::file_name(format),
        format,
        bytes: output.bytes,
        sha256: output.sha256.clone(),
    });
    Ok(Some(output))
}

impl Work<'_> {
    /// Gives the order, passes progress on, and waits for the end of the process. The result comes
    /// with the most memory that the process had.
    async fn talk(&mut self, query: Query) -> Result<(ProcessResult, u64), ApiError> {
        let said = self.exchange(query).await;
        if said.is_none() {
            // It may still live, having closed its socket.
            self.child.kill();
        }
        let ending = self.child.ended().await;
        match said {
            Some(Message::Done(result)) => Ok((*result, ending.memory_peak_bytes)),
            Some(Message::Failed(error)) => Err(self.completed(error)),
            Some(Message::Progress { .. }) | None => Err(ending::explain(ending, self.held)),
        }
    }

    /// The limit, where the worker could not know it.
    fn completed(&self, error: ApiError) -> ApiError {
        match error.param.as_deref() {
            Some("limits.memory_bytes") => ending::out_of_memory(self.held),
            _ if error.message.contains("larger than its limit") => ending::too_large(self.held),
            _ => error,
        }
    }

    /// The last thing that the worker says; nothing when it ends before.
    async fn exchange(&mut self, query: Query) -> Option<Message> {
        let control = self.child.control.take()?;
        control.set_nonblocking(true).ok()?;
        let mut control = tokio::net::UnixStream::from_std(control).ok()?;
        let order = serde_json::to_vec(&query.order).ok()?;
        for frame in std::iter::once(&order).chain(&query.inline) {
            control.write_u32_le(u32::try_from(frame.len()).ok()?).await.ok()?;
            control.write_all(frame).await.ok()?;
        }
        loop {
            let length = control.read_u32_le().await.ok()? as usize;
            if length > MESSAGE_BYTES_MAX {
                return None;
            }
            let mut bytes = vec![0; length];
            control.read_exact(&mut bytes).await.ok()?;
            match serde_json::from_slice(&bytes).ok()? {
                Message::Progress { phase, rows_read, bytes_written } => {
                    let phase = known_phase(&phase);
                    report(self.to, phase, rows_read, self.input_bytes, bytes_written);
                }
                last @ (Message::Done(_) | Message::Failed(_)) => return Some(last),
            }
        }
    }
}

/// Only words of ours go on, whatever a worker says.
fn known_phase(said: &str) -> &'static str {
    ["reading", "computing", "writing", "profiling"]
        .into_iter()
        .find(|phase| *phase == said)
        .unwrap_or("computing")
}

/// Tells the caller, unless it is behind: the next figures are better anyway.
fn report(to: &Reporter, phase: &str, rows_read: u64, bytes_read: u64, bytes_written: u64) {
    let phase = phase.to_owned();
    let progress = v1::Progress { phase, rows_read, bytes_read, bytes_written };
    let _ = to.try_send(Ok(Event::Progress(progress)));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
