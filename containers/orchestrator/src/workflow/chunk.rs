//! A chunk: some rows of a table, each computed once. A row's answer is recorded as it comes; the
//! next attempt begins with those that have none.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aisemble_jobs::{ClaimedJob, EventSink, JobContext, JobFailure, RowResult};
use aisemble_protocol::job::JobError;
use aisemble_protocol::workflow::{StepKind, fill};
use aisemble_protocol::{ErrorCode, JobId};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::call::{Answer, Caller};
use super::cancelled;
use super::gate::Gate;
use super::resume;
use super::{Engine, encode, store_failure, unreadable};

/// Tries of one row within one attempt at its chunk.
const ROW_TRIES_MAX: u32 = 8;
/// Wait before the second try; doubles up to [`ROW_WAIT_MAX`].
const ROW_WAIT: Duration = Duration::from_millis(250);
const ROW_WAIT_MAX: Duration = Duration::from_secs(10);
/// Attempts at a chunk; those that a crash ended do not count.
pub(super) const CHUNK_ATTEMPTS_MAX: u32 = 10;

/// What a chunk's job has as its payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// The step or batch that it is a part of.
    pub(super) of: JobId,
    /// Number of its first row within the table.
    pub(super) first: u64,
    /// What is done with each row.
    pub(super) task: Task,
    /// Rows of the whole table that run at the same time.
    pub(super) concurrency: u32,
    /// Rows of the whole table that may begin in a minute.
    pub(super) rows_per_minute: Option<u32>,
    /// A failed row fails the chunk.
    pub(super) fail_fast: bool,
    /// The rows.
    pub(super) rows: Vec<Map<String, Value>>,
    /// The chunks of this place in earlier runs: a row of theirs that was asked the same has its
    /// answer.
    #[serde(default)]
    pub(super) earlier: Vec<JobId>,
}

/// What is done with each row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    /// A request made from a template.
    Step {
        /// Whose request.
        kind: StepKind,
        /// The template.
        input: Value,
        /// What of the answer is kept.
        take: Vec<String>,
    },
    /// The row is a request of a batch: `custom_id` and `body`.
    Line {
        /// Whose request.
        endpoint: String,
    },
}

/// Runs what of the chunk has not been run.
pub(super) async fn run(
    engine: &Engine,
    job: ClaimedJob,
    context: JobContext,
) -> Result<Vec<u8>, JobFailure> {
    let chunk: Chunk = serde_json::from_slice(&job.payload).map_err(|error| unreadable(&error))?;
    let mut done = recorded(engine, job.id).await?;
    for earlier in &chunk.earlier {
        resume::take_rows(engine, (&job.owner, *earlier), (&chunk, &mut done), &context.events)
            .await?;
    }
    let last_attempt = job.attempt >= job.attempts_max;
    let gate = engine.gates.gate(chunk.of, chunk.concurrency, chunk.rows_per_minute);
    let caller = Caller::new(engine, &job, &context);
    let worker = Worker { engine, chunk: &chunk, gate, caller, events: &context.events };
    let mut rows = Vec::with_capacity(chunk.rows.len());
    for (number, row) in (0_u32..).zip(&chunk.rows) {
        if !done.contains(&number) {
            rows.push(worker.row(number, row, last_attempt));
        }
    }
    let mut rows = stream::iter(rows).buffer_unordered(chunk.concurrency.max(1) as usize);
    // A row that could not be done for now is tried again with the chunk, after the others.
    let mut later = None;
    let all = async {
        while let Some(row) = rows.next().await {
            match row {
                Ok(()) => {}
                Err(failure) if failure.code.retryable() => later = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = all => ended?,
        () = context.cancel.cancelled() => return Err(cancelled()),
    }
    match later {
        Some(failure) => Err(failure),
        None => encode(&json!({"rows": chunk.rows.len()})),
    }
}

/// Numbers of the rows that have an answer.
async fn recorded(engine: &Engine, id: JobId) -> Result<HashSet<u32>, JobFailure> {
    let mut done = HashSet::new();
    let mut from = 0;
    loop {
        let page = engine.jobs.store().rows(id, from).await.map_err(|e| store_failure(&e))?;
        let Some(last) = page.last() else { return Ok(done) };
        from = last.row + 1;
        done.extend(page.iter().map(|row| row.row));
    }
}

struct Worker<'c> {
    engine: &'c Engine,
    chunk: &'c Chunk,
    gate: Arc<Gate>,
    caller: Caller,
    events: &'c EventSink,
}

impl Worker<'_> {
    /// Computes a row and records what came of it.
    async fn row(
        &self,
        number: u32,
        row: &Map<String, Value>,
        last_attempt: bool,
    ) -> Result<(), JobFailure> {
        let answered = self.compute(number, row).await;
        let result = match answered {
            Ok(answer) => RowResult {
                row: number,
                failed: false,
                tokens: answer.tokens,
                data: encode(&answer.value)?,
            },
            Err(failure) if failure.code == ErrorCode::Cancelled => return Err(failure),
            Err(failure) if failure.code.retryable() && !last_attempt => return Err(failure),
            Err(failure) => {
                let whole = self.chunk.first + u64::from(number);
                if self.chunk.fail_fast {
                    let message = format!("row {whole}: {}", failure.message);
                    return Err(JobFailure::new(failed_for_good(failure.code), message));
                }
                let error = JobError { code: failure.code, message: failure.message };
                RowResult { row: number, failed: true, tokens: 0, data: encode(&error)? }
            }
        };
        self.events.put_rows(vec![result]).await.map_err(|error| store_failure(&error))
    }

    async fn compute(&self, number: u32, row: &Map<String, Value>) -> Result<Answer, JobFailure> {
        let (mut tries, mut wait) = (1, ROW_WAIT);
        loop {
            // The permit ends with the try: others go on while this one waits, and while its answer
            // is being recorded.
            let tried = {
                let _permit = self.gate.enter().await;
                self.attempt(number, row).await
            };
            match tried {
                // Who is told that there is no room waits for it, however long.
                Err(failure)
                    if failure.code == ErrorCode::Overloaded
                        || (failure.code.retryable() && tries < ROW_TRIES_MAX) =>
                {
                    let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
                    tokio::time::sleep(wait.max(asked.min(ROW_WAIT_MAX))).await;
                    tries += u32::from(failure.code != ErrorCode::Overloaded);
                    wait = (wait * 2).min(ROW_WAIT_MAX);
                }
                tried => return tried,
            }
        }
    }

    async fn attempt(&self, number: u32, row: &Map<String, Value>) -> Result<Answer, JobFailure> {
        match &self.chunk.task {
            Task::Step { kind, input, take } => {
                let request = fill(input, row).map_err(|name| {
                    let message = format!("the row has no column {name:?}");
                    JobFailure::new(ErrorCode::InvalidRequest, message)
                })?;
                let answer = self.caller.call(&format!("row/{number}"), *kind, request).await?;
                let taken = taken(&answer.value, take);
                Ok(Answer { value: taken, tokens: answer.tokens })
            }
            Task::Line { endpoint } => {
                let body = row.get("body").and_then(Value::as_object).cloned().unwrap_or_default();
                let answered =
                    self.engine.lines()?.answer(self.caller.owner(), endpoint, body).await;
                let value = answered.map_err(JobFailure::from)?;
                let tokens = value["usage"]["total_tokens"].as_u64().unwrap_or(0);
                Ok(Answer { value, tokens })
            }
        }
    }
}

/// What a path leads to; null when there is nothing.
fn taken(value: &Value, path: &[String]) -> Value {
    let step = |at: &Value, part: &String| match part.parse::<usize>() {
        Ok(index) if at.is_array() => at[index].clone(),
        _ => at[part.as_str()].clone(),
    };
    path.iter().fold(value.clone(), |at, part| step(&at, part))
}

/// The code as one that is not tried again.
fn failed_for_good(code: ErrorCode) -> ErrorCode {
    if code.retryable() { ErrorCode::Unprocessable } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_into_lists_and_objects() {
        let value = json!({"data": [{"embedding": [1, 2]}], "0": "zero"});
        let check = |path: &[&str], expected: Value| {
            let path: Vec<_> = path.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(taken(&value, &path), expected);
        };
        check(&["data", "0", "embedding"], json!([1, 2]));
        check(&["0"], json!("zero"));
        check(&["data", "7", "x"], Value::Null);
        check(&[], value.clone());
    }
}
