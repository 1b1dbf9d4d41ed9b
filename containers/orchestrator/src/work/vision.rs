//! Work on pictures. The service sees bytes only: where they come from is found out here.

use aisemble_jobs::JobFailure;
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::v1::analyze_event::Event;
use aisemble_protocol::vision::{AnalyzeRequest, AnalyzeResult, ImageResult, ImageSource};
use aisemble_protocol::{ApiError, ErrorCode, v1};
use serde_json::json;

use super::progress::Progress;
use super::{Attempt, Work};
use crate::capability::Capability;
use crate::dispatch::Dispatch;

/// When to come again after a service went away in the middle.
const GONE_RETRY_MS: u64 = 1_000;

/// Image analysis.
#[derive(Debug)]
pub struct Analysis;

impl Work for Analysis {
    const KIND: &'static str = "vision.analyze";
    const CAPABILITY: Capability = Capability::Vision;
    type Request = AnalyzeRequest;
    type Answer = AnalyzeResult;

    fn options(request: &AnalyzeRequest) -> Option<&JobOptions> {
        request.job.as_ref()
    }

    fn streams(_request: &AnalyzeRequest) -> bool {
        false
    }

    fn set_streams(_request: &mut AnalyzeRequest, _streams: bool) {}

    fn check(request: &AnalyzeRequest) -> Result<(), ApiError> {
        request.validate()?;
        if request.images.is_empty() {
            return Err(ApiError::invalid("images", "no image is given; at least one is needed"));
        }
        request.sources().map(drop)
    }

    fn resolve(request: &AnalyzeRequest, dispatch: &Dispatch) -> Result<(), ApiError> {
        for task in &request.tasks {
            let name = task.model.as_deref().or(request.model.as_deref());
            dispatch.resolve(Self::CAPABILITY, name, Some(&task.task))?;
        }
        Ok(())
    }

    fn files(request: &AnalyzeRequest) -> Vec<(String, String)> {
        let images = request.images.iter().enumerate();
        let named = images.filter_map(|(at, image)| Some((at, image.file.clone()?)));
        named.map(|(at, id)| (format!("images[{at}].file"), id)).collect()
    }

    async fn run(attempt: Attempt, request: AnalyzeRequest) -> Result<AnalyzeResult, JobFailure> {
        let images = read(&attempt, &request).await?;
        let total = images.len();
        let mut analyze = request.to_grpc(images)?;
        drop(request);
        analyze.job_id = attempt.id.to_string();
        analyze.priority = attempt.priority.to_grpc().into();
        let call = attempt.call(analyze);
        let dispatch = &attempt.bench.dispatch;
        let mut flow = attempt.patiently(|| dispatch.vision(call.clone())).await?;
        drop(call);
        let feed = attempt.bench.live.feed(attempt.id);
        feed.begin(attempt.number);
        let mut progress = Progress::new(attempt.events.clone());
        let mut results = Vec::with_capacity(total);
        let mut finished = None;
        while let Some(event) = attempt.unless_cancelled(flow.next()).await? {
            match event.event {
                Some(Event::Result(result)) => {
                    if let Ok(item) = serde_json::to_string(&ImageResult::from(result.clone())) {
                        feed.push_item(item);
                    }
                    results.push(result);
                    let done = results.len();
                    progress.note(|| json!({"done": done, "total": total})).await?;
                }
                Some(Event::Finished(end)) => finished = Some(end),
                None => {}
            }
        }
        whole(results, finished, total)
    }
}

fn whole(
    results: Vec<v1::ImageResult>,
    finished: Option<v1::AnalyzeFinished>,
    total: usize,
) -> Result<AnalyzeResult, JobFailure> {
    match finished {
        Some(finished) if results.len() == total => {
            Ok(AnalyzeResult::from_grpc(results, finished, None))
        }
        Some(_) | None => {
            let message = "the service went away before the answer was complete";
            let mut failure = JobFailure::new(ErrorCode::Unavailable, message);
            failure.retry_after_ms = Some(GONE_RETRY_MS);
            Err(failure)
        }
    }
}

/// The bytes of all pictures, in order.
async fn read(attempt: &Attempt, request: &AnalyzeRequest) -> Result<Vec<Vec<u8>>, JobFailure> {
    let mut images = Vec::with_capacity(request.images.len());
    for (index, source) in request.sources()?.into_iter().enumerate() {
        images.push(match source {
            ImageSource::Bytes(bytes) => bytes,
            ImageSource::File(id) => attempt.read_image(index, &id).await?,
        });
    }
    Ok(images)
}
