//! Runs a plan with polars' streaming engine: the result goes to a file, or by in batches, and is
//! never held as a whole. Counts meanwhile how many rows have been read.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{ProcessResult, TableFormat};
use polars::prelude::{DataFrame, Engine, IntoLazy as _, LazyFrame, PolarsResult};
use polars_stream::{PhysNodeKind, StreamingQuery};

use super::{Task, columns, error, preview, profile, write};

/// How often the rows that were read are counted.
const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// How far a query is; read by whoever tells the caller.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows that came out of tables.
    pub rows_read: AtomicU64,
    /// Bytes of the output.
    pub bytes_written: AtomicU64,
    phase: Mutex<&'static str>,
}

impl Counters {
    /// What is being done.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

/// Runs the plan and describes what came out.
pub(super) fn execute(
    task: &Task,
    mut frame: LazyFrame,
    counters: &Counters,
) -> Result<ProcessResult, ApiError> {
    let failed = |source: polars::error::PolarsError| error::of_polars("query", &source);
    let schema = frame.collect_schema().map_err(failed)?;
    let mut result = ProcessResult { schema: columns(&schema), ..ProcessResult::default() };
    let native = task
        .output
        .as_ref()
        .filter(|(format, _)| matches!(format, TableFormat::Parquet | TableFormat::Arrow));
    let described = if let Some((format, path)) = native {
        run(frame, counters, |frame| write::native(frame, *format, path)).map_err(failed)?;
        let written = write::reopen(*format, path).map_err(failed)?;
        let (rows, first) = write::look(&written, task.preview_rows).map_err(failed)?;
        result.rows = rows;
        result.preview = preview::rows(&first);
        written
    } else {
        let mut batches = None;
        let again = frame.clone();
        run(frame, counters, |frame| {
            let new = Arc::new(Mutex::new(write::Batches::create(task)?));
            write::batched(frame, batches.insert(new))
        })
        .map_err(failed)?;
        if let Some(batches) = batches {
            let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.finish().map_err(failed)?;
            result.rows = batches.rows();
            result.preview = preview::rows(&batches.first(&schema));
        }
        again
    };
    result.preview_truncated = (result.preview.len() as u64) < result.rows;
    if task.profile {
        counters.enter("profiling");
        let begin = Instant::now();
        result.profile = Some(profile::profile(&described, &schema, result.rows)?);
        result.timings.profile_ms = begin.elapsed().as_secs_f64() * 1e3;
    }
    Ok(result)
}

/// Runs a plan into the sink that `end` puts on it. What the streaming engine has not learnt yet,
/// it answers with a panic; the other engine then computes the result, in memory, and a new sink
/// takes it.
fn run(
    frame: LazyFrame,
    counters: &Counters,
    mut end: impl FnMut(LazyFrame) -> PolarsResult<LazyFrame>,
) -> PolarsResult<()> {
    let again = frame.clone();
    let sink = end(frame)?;
    match catch_unwind(AssertUnwindSafe(|| stream(sink, counters))) {
        Ok(outcome) => outcome,
        Err(panic) if is_not_implemented(&panic) => {
            let table = again.collect_with_engine(Engine::InMemory)?.unwrap_single();
            stream(end(table.lazy())?, counters)
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// The whole result of a plan, which must be small.
pub(super) fn collect(frame: LazyFrame) -> PolarsResult<DataFrame> {
    let again = frame.clone();
    let streamed = catch_unwind(AssertUnwindSafe(|| frame.collect_with_engine(Engine::Streaming)));
    let result = match streamed {
        Ok(outcome) => outcome,
        Err(panic) if is_not_implemented(&panic) => again.collect_with_engine(Engine::InMemory),
        Err(panic) => resume_unwind(panic),
    };
    Ok(result?.unwrap_single())
}

/// Whether a panic is one of `todo!` and `unimplemented!`.
fn is_not_implemented(panic: &Box<dyn Any + Send>) -> bool {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    said.starts_with("not implemented") || said.starts_with("not yet implemented")
}

/// Runs a plan that ends in a sink.
fn stream(frame: LazyFrame, counters: &Counters) -> PolarsResult<()> {
    let mut plan = frame.with_streaming(true).to_alp_optimized()?;
    plan.ensure_root_node_is_sink();
    let query = StreamingQuery::build(plan.lp_top, &mut plan.lp_arena, &mut plan.expr_arena)?;
    let Some(metrics) = query.metrics.clone() else {
        return query.execute().map(drop);
    };
    let sources: Vec<_> = query
        .phys_sm
        .iter()
        .filter(|(_, node)| is_source(node.kind()))
        .filter_map(|(key, _)| query.phys_to_graph.get(key).copied())
        .collect();
    let pipes = query.graph.pipes.clone();
    let before = counters.rows_read.load(Ordering::Relaxed);
    let count = || {
        // A copy, because counting it up empties it.
        let mut seen = metrics.lock().clone();
        seen.flush(&pipes);
        let rows = |key: &_| seen.get(*key).map_or(0, |node| node.rows_sent);
        let rows: u64 = sources.iter().map(rows).sum();
        counters.rows_read.store(before + rows, Ordering::Relaxed);
    };
    let (done, wait) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(COUNT_INTERVAL)
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                count();
            }
            count();
        });
        let outcome = query.execute().map(drop);
        drop(done);
        outcome
    })
}

fn is_source(kind: &PhysNodeKind) -> bool {
    matches!(kind, PhysNodeKind::MultiScan { .. } | PhysNodeKind::InMemorySource { .. })
}
