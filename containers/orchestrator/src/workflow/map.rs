//! A map: splits a table into chunks, waits for them, and puts the rows together again in their
//! order. Splitting again after a crash gives the same chunks, and those that have ended stay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aisemble_jobs::{ClaimedJob, JobContext, JobFailure, JobState, JobView, NewJob};
use aisemble_protocol::file::Purpose;
use aisemble_protocol::job::JobError;
use aisemble_protocol::workflow::{
    CHUNK_ROWS_DEFAULT, MAP_CONCURRENCY_DEFAULT, MapInput, MapOutput, OnRowError, Progress,
    RowsFormat, StepKind, columns,
};
use aisemble_protocol::{ErrorCode, JobId};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};

use super::cancelled;
use super::chunk::{CHUNK_ATTEMPTS_MAX, Chunk, Task};
use super::table::{Row, TableReader, TableWriter, invalid};
use super::{CHUNK_KIND, CHUNKS, Engine, encode, store_failure, unreadable};

/// Bytes of rows after which a chunk is full.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Chunks that are submitted at the same time.
const SUBMITS_MAX: usize = 32;
/// Chunks of one table.
const CHUNKS_MAX: usize = 100_000;
/// Shortest time between two events that tell how far it is.
const PROGRESS_MIN: Duration = Duration::from_millis(500);
/// Longest such time: a job has room for so many events only.
const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// How long one wait for a chunk lasts before it is begun anew.
const WAIT_ROUND: Duration = Duration::from_secs(600);

/// A table that is worked on in chunks.
pub(super) struct Split<'e> {
    pub(super) engine: &'e Engine,
    /// The step or batch.
    pub(super) job: &'e ClaimedJob,
    pub(super) context: &'e JobContext,
    /// What every chunk has in common; its rows are filled in.
    pub(super) chunk: Chunk,
    pub(super) chunk_rows: usize,
    /// Steps of earlier runs whose rows may be taken over.
    pub(super) earlier: &'e [JobId],
    /// Chunks that are not done by then have expired, milliseconds since 1970.
    pub(super) deadline_at_ms: Option<u64>,
}

/// The chunks of a table, in order.
pub(super) struct Chunks {
    pub(super) ids: Vec<JobId>,
    pub(super) rows: u64,
}

impl Split<'_> {
    /// Submits the chunks of a table. `check` sees each row.
    ///
    /// # Errors
    /// Those of the table, of `check` and of the store.
    pub(super) async fn submit(
        &self,
        mut table: TableReader,
        mut check: impl FnMut(u64, &Row) -> Result<(), JobFailure>,
    ) -> Result<Chunks, JobFailure> {
        let mut chunks = Chunks { ids: Vec::new(), rows: 0 };
        let mut waiting: VecDeque<Row> = VecDeque::new();
        let mut submitting = FuturesUnordered::new();
        loop {
            let batch = table.next().await?;
            let end = batch.is_empty();
            for row in batch {
                check(chunks.rows + waiting.len() as u64, &row)?;
                waiting.push_back(row);
            }
            while waiting.len() >= self.chunk_rows || (end && !waiting.is_empty()) {
                let rows = self.take(&mut waiting);
                let number = chunks.ids.len();
                if number == CHUNKS_MAX {
                    return Err(invalid(format!("the table has over {CHUNKS_MAX} chunks")));
                }
                let first = chunks.rows;
                chunks.rows += rows.len() as u64;
                chunks.ids.push(chunk_id(self.job.id, number));
                submitting.push(self.submit_one(number, first, rows));
                if submitting.len() >= SUBMITS_MAX {
                    submitting.try_next().await?;
                }
            }
            if end {
                break;
            }
        }
        while submitting.try_next().await?.is_some() {}
        Ok(chunks)
    }

    /// The rows of one chunk: as many as it has, or fewer when they are large.
    fn take(&self, waiting: &mut VecDeque<Row>) -> Vec<Row> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < self.chunk_rows && bytes < CHUNK_BYTES_MAX {
            let Some(row) = waiting.pop_front() else { break };
            bytes += serde_json::to_string(&row).map_or(0, |text| text.len());
            rows.push(row);
        }
        rows
    }

    async fn submit_one(
        &self,
        number: usize,
        first: u64,
        rows: Vec<Row>,
    ) -> Result<(), JobFailure> {
        let earlier = self.earlier.iter().map(|step| chunk_id(*step, number)).collect();
        let chunk = Chunk { first, rows, earlier, ..self.chunk.clone() };
        let mut new = NewJob::new(CHUNK_KIND, CHUNKS, &self.job.owner, encode(&chunk)?);
        new.priority = self.job.priority;
        new.parent = Some(self.job.id);
        new.resumes = true;
        new.attempts_max = CHUNK_ATTEMPTS_MAX;
        new.deadline_at_ms = self.deadline_at_ms;
        new.trace_parent.clone_from(&self.job.trace_parent);
        let id = chunk_id(self.job.id, number);
        let submitted = self.engine.jobs.submit_as(id, new).await;
        submitted.map(drop).map_err(|error| store_failure(&error))
    }

    /// Waits until every chunk has ended, and tells how far they are. `failed` sees each chunk that
    /// has not succeeded.
    ///
    /// # Errors
    /// `cancelled`; those of `failed`.
    pub(super) async fn wait(
        &self,
        chunks: &Chunks,
        mut failed: impl FnMut(&JobView) -> Result<(), JobFailure>,
    ) -> Result<(), JobFailure> {
        let mut waits: FuturesUnordered<_> =
            chunks.ids.iter().map(|id| self.engine.jobs.wait(*id, WAIT_ROUND)).collect();
        let begun = Begun { at: Instant::now(), done: self.tally(chunks.rows).await?.rows_done };
        let mut pause = PROGRESS_MIN;
        let mut told = None;
        loop {
            let tick = tokio::time::sleep(pause);
            tokio::pin!(tick);
            tokio::select! {
                ended = waits.next() => match ended {
                    None => break,
                    Some(view) => {
                        let view = view.map_err(|error| store_failure(&error))?;
                        if !view.state.is_final() {
                            waits.push(self.engine.jobs.wait(view.id, WAIT_ROUND));
                        } else if view.state != JobState::Succeeded {
                            failed(&view)?;
                        }
                        // Most chunks end between two ticks: the tick begins anew only when it was.
                        if told.is_some_and(|at: Instant| at.elapsed() < pause) {
                            continue;
                        }
                    }
                },
                () = &mut tick => {}
                () = self.context.cancel.cancelled() => return Err(cancelled()),
            }
            told = Some(Instant::now());
            self.tell(chunks.rows, &begun).await?;
            pause = (pause.mul_f64(1.05)).min(PROGRESS_MAX);
        }
        self.tell(chunks.rows, &begun).await
    }

    async fn tally(&self, rows: u64) -> Result<Progress, JobFailure> {
        let tally = self.engine.jobs.store().row_tally(self.job.id).await;
        let tally = tally.map_err(|error| store_failure(&error))?;
        let (rows_done, rows_failed, tokens) = (tally.done, tally.failed, tally.tokens);
        Ok(Progress { rows, rows_done, rows_failed, tokens, eta_ms: None })
    }

    async fn tell(&self, rows: u64, begun: &Begun) -> Result<(), JobFailure> {
        let mut progress = self.tally(rows).await?;
        progress.eta_ms = begun.eta_ms(&progress);
        match self.context.events.emit("progress", json!(progress)).await {
            Err(error @ aisemble_jobs::JobsError::LeaseLost { .. }) => Err(store_failure(&error)),
            // That it is not told is no reason to fail.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The id of the chunk of that number of a step or batch.
fn chunk_id(of: JobId, number: usize) -> JobId {
    of.child(&format!("chunk/{number}"))
}

/// When this attempt began, and what was done before.
struct Begun {
    at: Instant,
    done: u64,
}

impl Begun {
    fn eta_ms(&self, progress: &Progress) -> Option<u64> {
        let done = progress.rows_done.checked_sub(self.done).filter(|done| *done > 0)?;
        let left = progress.rows.saturating_sub(progress.rows_done);
        let elapsed_ms = self.at.elapsed().as_millis();
        u64::try_from(elapsed_ms * u128::from(left) / u128::from(done)).ok()
    }
}

/// Runs a map step.
pub(super) async fn run(
    engine: &Engine,
    job: &ClaimedJob,
    context: &JobContext,
    (input, earlier): (Value, &[JobId]),
) -> Result<(Value, u64), JobFailure> {
    let map: MapInput = serde_json::from_value(input)
        .map_err(|error| invalid(format!("the step's input is not valid: {error}")))?;
    let table = TableReader::open(engine, &job.owner, map.table.clone()).await?;
    let names = columns(&map.step.input);
    let mut split = split(engine, job, context, &map);
    split.earlier = earlier;
    let check = |number: u64, row: &Row| match names.iter().find(|name| !row.contains_key(*name)) {
        // In the first row the column is the table's fault; later it is the row's own.
        Some(name) if number == 0 => Err(invalid(format!("the table has no column {name:?}"))),
        Some(_) | None => Ok(()),
    };
    let chunks = split.submit(table, check).await?;
    let fail_fast = split.chunk.fail_fast;
    let waited = split
        .wait(&chunks, |view| {
            let error = view.error.clone();
            match error {
                Some(error) if fail_fast => Err(JobFailure::new(error.code, error.message)),
                Some(_) | None => Ok(()),
            }
        })
        .await;
    if let Err(failure) = waited {
        if failure.code != ErrorCode::Cancelled {
            engine.jobs.cancel_children(job.id).await.map_err(|error| store_failure(&error))?;
        }
        return Err(failure);
    }
    let output = gather(engine, job, &map, &chunks).await?;
    let tokens = output.tokens;
    Ok((json!(output), tokens))
}

fn split<'e>(
    engine: &'e Engine,
    job: &'e ClaimedJob,
    context: &'e JobContext,
    map: &MapInput,
) -> Split<'e> {
    let take = match (&map.take, map.step.kind) {
        (Some(path), _) => path.split('.').map(str::to_owned).collect(),
        (None, StepKind::LlmCompletion) => vec!["text".to_owned()],
        (None, _) => Vec::new(),
    };
    let task = Task::Step { kind: map.step.kind, input: map.step.input.clone(), take };
    let chunk = Chunk {
        of: job.id,
        first: 0,
        task,
        concurrency: map.concurrency.unwrap_or(MAP_CONCURRENCY_DEFAULT),
        rows_per_minute: map.rows_per_minute,
        fail_fast: map.on_row_error == OnRowError::Fail,
        rows: Vec::new(),
        earlier: Vec::new(),
    };
    let chunk_rows = map.chunk_rows.unwrap_or(CHUNK_ROWS_DEFAULT) as usize;
    let (earlier, deadline_at_ms) = (&[][..], job.deadline_at_ms);
    Split { engine, job, context, chunk, chunk_rows, earlier, deadline_at_ms }
}

/// Puts the rows of all chunks together: those with an answer, and those with an error.
async fn gather(
    engine: &Engine,
    job: &ClaimedJob,
    map: &MapInput,
    chunks: &Chunks,
) -> Result<MapOutput, JobFailure> {
    let mut table = TableWriter::new(engine).await?;
    let mut errors: Option<TableWriter> = None;
    let mut tokens = 0;
    for id in &chunks.ids {
        for done in done(engine, *id).await? {
            tokens += done.tokens;
            match done.result {
                Ok(value) => {
                    let mut row = kept(done.row, map.keep.as_deref());
                    row.insert(map.column.clone(), value);
                    table.write(row).await?;
                }
                Err(error) => {
                    let errors = match &mut errors {
                        Some(errors) => errors,
                        None => errors.insert(TableWriter::new(engine).await?),
                    };
                    errors.write(error_row(done.number, &error, done.row)).await?;
                }
            }
        }
    }
    let (rows, sample) = (table.rows, table.sample.clone());
    let failed = errors.as_ref().map_or(0, |errors| errors.rows);
    let name = (job.id, "rows.ndjson");
    let file = table.finish(engine, &job.owner, name, Purpose::Result).await?;
    let errors_file = match errors {
        Some(errors) => {
            let name = (job.id, "errors.ndjson");
            Some(errors.finish(engine, &job.owner, name, Purpose::Result).await?.id)
        }
        None => None,
    };
    let (format, sha256) = (RowsFormat::Ndjson, file.sha256);
    Ok(MapOutput { file: file.id, format, sha256, rows, failed, errors_file, tokens, sample })
}

fn kept(mut row: Row, keep: Option<&[String]>) -> Row {
    if let Some(keep) = keep {
        row.retain(|name, _| keep.contains(name));
    }
    row
}

fn error_row(number: u64, error: &JobError, row: Row) -> Row {
    let mut line = Map::new();
    line.insert("row".to_owned(), number.into());
    line.insert("error".to_owned(), json!(error));
    line.insert("input".to_owned(), Value::Object(row));
    line
}

/// A row of a chunk that has ended.
pub(super) struct Done {
    /// Its number within the table.
    pub(super) number: u64,
    pub(super) row: Row,
    pub(super) result: Result<Value, JobError>,
    pub(super) tokens: u64,
}

/// The rows of a chunk that has ended, in order. One without an answer has the chunk's own error.
pub(super) async fn done(engine: &Engine, id: JobId) -> Result<Vec<Done>, JobFailure> {
    let job = engine.jobs.get(id).await.map_err(|error| store_failure(&error))?;
    let gone = || JobFailure::new(ErrorCode::Internal, "a part of the table is gone");
    let job = job.ok_or_else(gone)?;
    let chunk: Chunk = serde_json::from_slice(&job.payload).map_err(|error| unreadable(&error))?;
    let mut results = VecDeque::new();
    let mut from = 0;
    loop {
        let page = engine.jobs.store().rows(id, from).await.map_err(|e| store_failure(&e))?;
        let Some(last) = page.last() else { break };
        from = last.row + 1;
        results.extend(page);
    }
    let own = job.view.error.unwrap_or(JobError {
        code: ErrorCode::Cancelled,
        message: "the row was not run".to_owned(),
    });
    let mut all = Vec::with_capacity(chunk.rows.len());
    for (number, row) in (0_u32..).zip(chunk.rows) {
        let found = results.pop_front_if(|result| result.row == number);
        let tokens = found.as_ref().map_or(0, |result| result.tokens);
        let result = match found {
            Some(result) if result.failed => {
                Err(serde_json::from_slice(&result.data).map_err(|error| unreadable(&error))?)
            }
            Some(result) => {
                Ok(serde_json::from_slice(&result.data).map_err(|error| unreadable(&error))?)
            }
            None => Err(own.clone()),
        };
        all.push(Done { number: chunk.first + u64::from(number), row, result, tokens });
    }
    Ok(all)
}
