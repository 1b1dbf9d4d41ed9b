//! Work on tables: uploaded files are named to the service by their digest, and the file that it
//! writes becomes the owner's.

use std::collections::BTreeMap;

use aisemble_jobs::JobFailure;
use aisemble_protocol::data::{ProcessRequest, ProcessResult};
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::v1::process_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use serde_json::json;

use super::progress::Progress;
use super::{Attempt, Work};
use crate::capability::Capability;
use crate::dispatch::Dispatch;

/// When to come again after a service went away in the middle.
const GONE_RETRY_MS: u64 = 1_000;

/// A query or pipeline over tables.
#[derive(Debug)]
pub struct Processing;

impl Work for Processing {
    const KIND: &'static str = "data.process";
    const CAPABILITY: Capability = Capability::Data;
    type Request = ProcessRequest;
    type Answer = ProcessResult;

    fn options(request: &ProcessRequest) -> Option<&JobOptions> {
        request.job.as_ref()
    }

    fn streams(_request: &ProcessRequest) -> bool {
        false
    }

    fn set_streams(_request: &mut ProcessRequest, _streams: bool) {}

    fn check(request: &ProcessRequest) -> Result<(), ApiError> {
        request.validate()
    }

    fn resolve(_request: &ProcessRequest, dispatch: &Dispatch) -> Result<(), ApiError> {
        dispatch.ready(Self::CAPABILITY)
    }

    fn files(request: &ProcessRequest) -> Vec<(String, String)> {
        let tables = request.tables.iter().enumerate();
        let named = tables.filter_map(|(at, table)| Some((at, table.file.clone()?)));
        named.map(|(at, id)| (format!("tables[{at}].file"), id)).collect()
    }

    async fn run(attempt: Attempt, request: ProcessRequest) -> Result<ProcessResult, JobFailure> {
        let mut blobs = BTreeMap::new();
        for id in request.files() {
            blobs.insert(id.to_owned(), attempt.blob(id).await?);
        }
        let mut process = request.to_process(&blobs)?;
        process.job_id = attempt.id.to_string();
        let call = attempt.call(process);
        let dispatch = &attempt.bench.dispatch;
        let mut flow = attempt.patiently(|| dispatch.data(call.clone())).await?;
        drop(call);
        let mut progress = Progress::new(attempt.events.clone());
        let mut outcome = None;
        while let Some(event) = attempt.unless_cancelled(flow.next()).await? {
            match event.event {
                Some(Event::Progress(now)) => progress.note(|| progress_of(&now)).await?,
                Some(Event::Outcome(end)) => outcome = Some(end),
                None => {}
            }
        }
        let Some(outcome) = outcome else {
            let message = "the service went away before the answer was complete";
            let mut failure = JobFailure::new(ErrorCode::Unavailable, message);
            failure.retry_after_ms = Some(GONE_RETRY_MS);
            return Err(failure);
        };
        finish(&attempt, &request, outcome).await
    }
}

fn progress_of(now: &v1::Progress) -> serde_json::Value {
    json!({
        "phase": now.phase,
        "rows_read": now.rows_read,
        "bytes_read": now.bytes_read,
        "bytes_written": now.bytes_written,
    })
}

/// The answer, its file taken over.
async fn finish(
    attempt: &Attempt,
    request: &ProcessRequest,
    outcome: v1::Outcome,
) -> Result<ProcessResult, JobFailure> {
    let mut result: ProcessResult =
        serde_json::from_str(&outcome.result_json).map_err(|error| {
            let line = error.line();
            tracing::error!(job.id = %attempt.id, error.line = line, "a data result is malformed");
            JobFailure::new(ErrorCode::Internal, "the service's answer cannot be read")
        })?;
    if let (Some(file), Some(view)) = (outcome.output, result.output.as_mut()) {
        let name = request.output_name().unwrap_or_else(|| view.name.clone());
        view.file = Some(attempt.import(&file, &name).await?);
        view.name = name;
    }
    Ok(result)
}
