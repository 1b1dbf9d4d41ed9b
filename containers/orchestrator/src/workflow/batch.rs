//! Batches as OpenAI has them: lines of requests in, lines of answers out, over the same chunks as
//! maps. A line that was answered stays answered, whatever becomes of the batch.

use std::collections::HashSet;

use aisemble_jobs::{ClaimedJob, JobContext, JobFailure, JobState};
use aisemble_protocol::file::Purpose;
use aisemble_protocol::job::JobError;
use aisemble_protocol::workflow::{MAP_CONCURRENCY_DEFAULT, RowsFormat, TableSource};
use aisemble_protocol::{ErrorCode, FileId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::chunk::{Chunk, Task};
use super::map::{Chunks, Done, Split, done};
use super::table::{Row, TableReader, TableWriter};
use super::{Engine, cancelled, encode, store_failure, unreadable};
use crate::app::now_ms;

/// Lines of one batch.
pub(super) const LINES_MAX: u64 = 100_000;
/// Faults of a file that are told.
const FAULTS_MAX: usize = 100;
/// Bytes of a `custom_id`.
const CUSTOM_ID_BYTES_MAX: usize = 512;
/// Lines of one chunk.
const CHUNK_LINES: usize = 32;
/// How long lines may wait and run, milliseconds: `24h`.
const WINDOW_MS: u64 = 24 * 3_600_000;
/// The routes that lines may ask.
pub(super) const ENDPOINTS: [&str; 3] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// `POST /v1/batches`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// An uploaded file of lines: `custom_id`, `method`, `url`, `body`.
    pub input_file_id: String,
    /// `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`: the `url` of every line.
    pub endpoint: String,
    /// `24h`.
    pub completion_window: String,
    /// The caller's own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// When the files it makes are deleted by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expires_after: Option<OutputExpiry>,
}

/// When the files of a batch are deleted by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputExpiry {
    /// `created_at`.
    pub anchor: String,
    /// Seconds from then.
    pub seconds: u64,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Batch {
    /// `batch_` and the id of its job.
    pub id: String,
    /// Always `batch`.
    pub object: &'static str,
    /// The route that its lines ask.
    pub endpoint: String,
    /// What is wrong with its file.
    pub errors: Option<BatchErrors>,
    /// The file of lines.
    pub input_file_id: String,
    /// `24h`.
    pub completion_window: String,
    /// `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling` or
    /// `cancelled`.
    pub status: &'static str,
    /// The answers, once it has ended.
    pub output_file_id: Option<FileId>,
    /// The lines that failed, once it has ended.
    pub error_file_id: Option<FileId>,
    /// Seconds since 1970, as all times below.
    pub created_at: u64,
    /// When its lines began.
    pub in_progress_at: Option<u64>,
    /// When lines that have not ended do so.
    pub expires_at: Option<u64>,
    /// When its files began to be written.
    pub finalizing_at: Option<u64>,
    /// When it ended with all lines done.
    pub completed_at: Option<u64>,
    /// When it failed.
    pub failed_at: Option<u64>,
    /// When it ended because its time was over.
    pub expired_at: Option<u64>,
    /// When it was asked to stop.
    pub cancelling_at: Option<u64>,
    /// When it had stopped.
    pub cancelled_at: Option<u64>,
    /// Its lines.
    pub request_counts: BatchCounts,
    /// The caller's own data.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

/// Lines of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchCounts {
    /// All.
    pub total: u64,
    /// Answered.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
}

/// What is wrong with a batch's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchErrors {
    /// Always `list`.
    pub object: String,
    /// The faults, up to 100.
    pub data: Vec<BatchError>,
}

/// One fault of a batch's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchError {
    /// For a machine.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// Its line, from 1.
    pub line: Option<u64>,
}

/// A page of batches.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BatchList {
    /// Always `list`.
    pub object: &'static str,
    /// The batches, newest first.
    pub data: Vec<Batch>,
    /// The first one's id.
    pub first_id: Option<String>,
    /// The last one's id: give it as `after` to read on.
    pub last_id: Option<String>,
    /// There are more.
    pub has_more: bool,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Completed,
    Failed,
    Expired,
    Cancelled,
}

/// What a batch's job has as its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    pub(super) output_file_id: Option<FileId>,
    pub(super) error_file_id: Option<FileId>,
    pub(super) counts: BatchCounts,
    pub(super) errors: Option<BatchErrors>,
    pub(super) finalizing_at_ms: Option<u64>,
}

/// Runs a batch.
pub(super) async fn run(
    engine: &Engine,
    job: ClaimedJob,
    context: JobContext,
) -> Result<Vec<u8>, JobFailure> {
    let request: BatchRequest = serde_json::from_slice(&job.payload).map_err(|e| unreadable(&e))?;
    let work = follow(engine, &job, &context, &request);
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = context.cancel.cancelled() => Err(cancelled()),
    };
    match outcome {
        Err(failure) if failure.code == ErrorCode::Cancelled => {
            if super::stops_for_good(engine, job.id).await {
                engine.jobs.cancel_children(job.id).await.map_err(|e| store_failure(&e))?;
            }
            Err(failure)
        }
        outcome => encode(&outcome?),
    }
}

async fn follow(
    engine: &Engine,
    job: &ClaimedJob,
    context: &JobContext,
    request: &BatchRequest,
) -> Result<Outcome, JobFailure> {
    let table = open(engine, job, request).await?;
    let (total, faults) = validate(table, &request.endpoint).await?;
    if !faults.is_empty() {
        let errors = Some(BatchErrors { object: "list".to_owned(), data: faults });
        let (ending, counts) = (Ending::Failed, BatchCounts::default());
        let (output_file_id, error_file_id, finalizing_at_ms) = (None, None, None);
        return Ok(Outcome {
            ending,
            output_file_id,
            error_file_id,
            counts,
            errors,
            finalizing_at_ms,
        });
    }
    tell(context, json!({"phase": "in_progress", "total": total})).await?;
    let split = split(engine, job, context, request).await?;
    let table = open(engine, job, request).await?;
    let chunks = split.submit(table, |_, _| Ok(())).await?;
    if is_cancelled(engine, job).await? {
        // Asked while they were still being submitted: those that came after are asked now.
        engine.jobs.cancel_children(job.id).await.map_err(|error| store_failure(&error))?;
    }
    let mut ending = Ending::Completed;
    split
        .wait(&chunks, |view| {
            match view.state {
                JobState::Cancelled => ending = Ending::Cancelled,
                JobState::Expired if ending == Ending::Completed => ending = Ending::Expired,
                JobState::Expired
                | JobState::Failed
                | JobState::Pending
                | JobState::Scheduled
                | JobState::Queued
                | JobState::Running
                | JobState::Succeeded => {}
            }
            Ok(())
        })
        .await?;
    let finalizing_at_ms = Some(now_ms());
    tell(context, json!({"phase": "finalizing"})).await?;
    let expiry = request.output_expires_after.as_ref().map(|expiry| expiry.seconds);
    let written = write(engine, job, &chunks, (ending, expiry)).await?;
    Ok(Outcome { ending, errors: None, finalizing_at_ms, ..written })
}

async fn open(
    engine: &Engine,
    job: &ClaimedJob,
    request: &BatchRequest,
) -> Result<TableReader, JobFailure> {
    let file = request.input_file_id.parse().ok();
    let source = TableSource { file, format: Some(RowsFormat::Ndjson), rows: None };
    TableReader::open(engine, &job.owner, source).await
}

async fn tell(context: &JobContext, data: Value) -> Result<(), JobFailure> {
    context.events.emit("phase", data).await.map(drop).map_err(|error| store_failure(&error))
}

async fn split<'e>(
    engine: &'e Engine,
    job: &'e ClaimedJob,
    context: &'e JobContext,
    request: &BatchRequest,
) -> Result<Split<'e>, JobFailure> {
    let made = engine.jobs.get(job.id).await.map_err(|error| store_failure(&error))?;
    let created_at_ms = made.map_or_else(now_ms, |made| made.view.created_at_ms);
    let chunk = Chunk {
        of: job.id,
        first: 0,
        task: Task::Line { endpoint: request.endpoint.clone() },
        concurrency: MAP_CONCURRENCY_DEFAULT,
        rows_per_minute: None,
        fail_fast: false,
        rows: Vec::new(),
        earlier: Vec::new(),
    };
    let (chunk_rows, deadline_at_ms) = (CHUNK_LINES, Some(created_at_ms + WINDOW_MS));
    Ok(Split { engine, job, context, chunk, chunk_rows, earlier: &[], deadline_at_ms })
}

async fn is_cancelled(engine: &Engine, job: &ClaimedJob) -> Result<bool, JobFailure> {
    let chunks = engine.jobs.children(job.id).await.map_err(|error| store_failure(&error))?;
    Ok(chunks.iter().any(|one| one.cancel_requested || one.state == JobState::Cancelled))
}

/// Reads all lines once: how many there are, and what is wrong with them.
async fn validate(
    mut table: TableReader,
    endpoint: &str,
) -> Result<(u64, Vec<BatchError>), JobFailure> {
    let mut faults = Vec::new();
    let mut seen = HashSet::new();
    let mut line = 0;
    loop {
        let batch = match table.next().await {
            Ok(batch) => batch,
            Err(failure) if failure.code == ErrorCode::InvalidRequest => {
                faults.push(fault("invalid_json_line", failure.message, None, None));
                return Ok((line, faults));
            }
            Err(failure) => return Err(failure),
        };
        if batch.is_empty() {
            break;
        }
        for row in &batch {
            line += 1;
            if faults.len() < FAULTS_MAX
                && let Err((code, param, message)) = check_line(row, endpoint, &mut seen)
            {
                faults.push(fault(code, message, Some(param), Some(line)));
            }
        }
        if line > LINES_MAX {
            let message = format!("the file has over {LINES_MAX} lines");
            faults.push(fault("too_many_requests", message, None, None));
            return Ok((line, faults));
        }
    }
    if line == 0 {
        faults.push(fault("empty_file", "the file has no lines".to_owned(), None, None));
    }
    Ok((line, faults))
}

fn fault(code: &str, message: String, param: Option<&str>, line: Option<u64>) -> BatchError {
    BatchError { code: code.to_owned(), message, param: param.map(str::to_owned), line }
}

type LineFault = (&'static str, &'static str, String);

fn check_line(row: &Row, endpoint: &str, seen: &mut HashSet<String>) -> Result<(), LineFault> {
    let id = row.get("custom_id").and_then(Value::as_str).unwrap_or_default();
    if id.is_empty() || id.len() > CUSTOM_ID_BYTES_MAX {
        let message = format!("custom_id must be a text of 1 to {CUSTOM_ID_BYTES_MAX} bytes");
        return Err(("missing_required_parameter", "custom_id", message));
    }
    if !seen.insert(id.to_owned()) {
        let message = "another line has the same custom_id".to_owned();
        return Err(("duplicate_custom_id", "custom_id", message));
    }
    if row.get("method").and_then(Value::as_str).is_some_and(|method| method != "POST") {
        return Err(("invalid_method", "method", "method must be POST".to_owned()));
    }
    if row.get("url").and_then(Value::as_str) != Some(endpoint) {
        return Err(("mismatched_url", "url", format!("url must be {endpoint}")));
    }
    let Some(body) = row.get("body").and_then(Value::as_object) else {
        return Err(("missing_required_parameter", "body", "body must be an object".to_owned()));
    };
    if body.get("stream").is_some_and(|stream| *stream == Value::Bool(true)) {
        return Err(("invalid_request", "body.stream", "a line cannot be streamed".to_owned()));
    }
    Ok(())
}

/// Writes the answers and the errors as files.
async fn write(
    engine: &Engine,
    job: &ClaimedJob,
    chunks: &Chunks,
    (ending, expires_after_s): (Ending, Option<u64>),
) -> Result<Outcome, JobFailure> {
    let mut counts = BatchCounts { total: chunks.rows, ..BatchCounts::default() };
    let (mut answers, mut errors): (Option<TableWriter>, Option<TableWriter>) = (None, None);
    for id in &chunks.ids {
        for done in done(engine, *id).await? {
            let (writer, count) = match &done.result {
                Ok(_) => (&mut answers, &mut counts.completed),
                Err(_) => (&mut errors, &mut counts.failed),
            };
            *count += 1;
            let writer = match writer {
                Some(writer) => writer,
                None => writer.insert(TableWriter::new(engine).await?),
            };
            writer.write(line_of(engine, job, done, ending)?).await?;
        }
    }
    let mut files = [None, None];
    let writers = [(answers, "output.jsonl"), (errors, "errors.jsonl")];
    for (place, (writer, name)) in writers.into_iter().enumerate() {
        if let Some(mut writer) = writer {
            writer.expires_after_s = expires_after_s;
            let named = (job.id, name);
            let file = writer.finish(engine, &job.owner, named, Purpose::BatchOutput).await?;
            files[place] = Some(file.id);
        }
    }
    let [output_file_id, error_file_id] = files;
    let (errors, finalizing_at_ms) = (None, None);
    Ok(Outcome { ending, output_file_id, error_file_id, counts, errors, finalizing_at_ms })
}

fn line_of(
    engine: &Engine,
    job: &ClaimedJob,
    done: Done,
    ending: Ending,
) -> Result<Row, JobFailure> {
    let request_id = job.id.child(&format!("line/{}", done.number));
    let (response, error) = match done.result {
        Ok(body) => {
            (json!({"status_code": 200, "request_id": request_id, "body": body}), Value::Null)
        }
        Err(error) => failed_line(engine, request_id, &error, ending)?,
    };
    let mut line = Map::new();
    line.insert("id".to_owned(), format!("batch_req_{}", request_id.0.simple()).into());
    line.insert("custom_id".to_owned(), done.row.get("custom_id").cloned().unwrap_or_default());
    line.insert("response".to_owned(), response);
    line.insert("error".to_owned(), error);
    Ok(line)
}

fn failed_line(
    engine: &Engine,
    request_id: aisemble_protocol::JobId,
    error: &JobError,
    ending: Ending,
) -> Result<(Value, Value), JobFailure> {
    let unrun =
        |code: &str, message: &str| Ok((Value::Null, json!({"code": code, "message": message})));
    match (ending, error.code) {
        (Ending::Cancelled, ErrorCode::Cancelled) => {
            unrun("batch_cancelled", "the batch was cancelled before this line was run")
        }
        (Ending::Expired, ErrorCode::Timeout) => {
            unrun("batch_expired", "the batch expired before this line was run")
        }
        (Ending::Completed | Ending::Failed | Ending::Expired | Ending::Cancelled, _) => {
            let (status, body) = engine.lines()?.error(error);
            let response = json!({"status_code": status, "request_id": request_id, "body": body});
            Ok((response, Value::Null))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_line_is_named() {
        let mut seen = HashSet::new();
        let mut check = |line: Value, expected: Option<(&str, &str)>| {
            let checked = check_line(line.as_object().unwrap(), "/v1/completions", &mut seen);
            let found = checked.err().map(|(code, param, _)| (code, param));
            assert_eq!(found, expected, "{line}");
        };
        let line = |id: &str| {
            json!({"custom_id": id, "method": "POST", "url": "/v1/completions",
            "body": {"prompt": "a"}})
        };
        check(line("a"), None);
        check(line("a"), Some(("duplicate_custom_id", "custom_id")));
        check(line(""), Some(("missing_required_parameter", "custom_id")));
        let with = |id: &str, key: &str, value: Value| {
            let mut line = line(id);
            line[key] = value;
            line
        };
        check(with("b", "url", json!("/v1/embeddings")), Some(("mismatched_url", "url")));
        check(with("c", "method", json!("GET")), Some(("invalid_method", "method")));
        check(with("d", "body", json!([])), Some(("missing_required_parameter", "body")));
        let streamed = with("e", "body", json!({"stream": true}));
        check(streamed, Some(("invalid_request", "body.stream")));
    }
}
