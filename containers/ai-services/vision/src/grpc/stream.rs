//! `Analyze`: from a request to results as they come. Dropping the stream drops the jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_protocol::{ApiError, v1, vision};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tonic::Status;

use crate::analyze::{Analyzed, Plan, Timings, analyze as analyze_image, refused};
use crate::host::{Host, IMAGES_AT_ONCE};
use crate::picture::{self, Header};

/// Checks a request; the stream is its answer.
pub(super) fn analyze(
    host: Arc<Host>,
    request: v1::AnalyzeRequest,
    deadline: Option<Instant>,
) -> Result<BoxStream<'static, Result<v1::AnalyzeEvent, Status>>, ApiError> {
    vision::check_images(&request.images)?;
    let plan = Arc::new(Plan::new(&request, &host.catalog)?);
    let priority = v1::Priority::try_from(request.priority)
        .map_err(|_| ApiError::invalid("priority", "the priority is none that exists"))?;
    // Before the headers: a full house is said at once.
    let place = host.enter()?;
    let images = inspected(&host, request.images)?;
    tracing::debug!(
        request.id = request.request_id,
        job.id = request.job_id,
        images = images.len(),
        tasks = plan.used.len(),
        "analysing"
    );
    let used = plan.used.clone();
    let results = stream::iter(images)
        .map(move |image| {
            analyze_image(Arc::clone(&host), Arc::clone(&plan), image, priority, deadline)
        })
        .buffer_unordered(IMAGES_AT_ONCE)
        .boxed();
    let answer = Answer { results, used, total: Timings::default(), place: Some(place) };
    Ok(stream::unfold(Some(answer), next).boxed())
}

/// The images with their headers, all of which are within the limits.
fn inspected(host: &Host, images: Vec<Vec<u8>>) -> Result<Vec<(usize, Vec<u8>, Header)>, ApiError> {
    let inspect = |(index, bytes): (usize, Vec<u8>)| {
        let header =
            picture::inspect(&bytes, &host.limits).map_err(|error| refused(&error, index))?;
        Ok((index, bytes, header))
    };
    images.into_iter().enumerate().map(inspect).collect()
}

/// An answer that is being read.
struct Answer {
    results: BoxStream<'static, Result<Analyzed, ApiError>>,
    used: Vec<v1::VisionModelUsed>,
    total: Timings,
    /// The request's place; free as soon as its last result is sent.
    place: Option<tokio::sync::OwnedSemaphorePermit>,
}

type Item = Result<v1::AnalyzeEvent, Status>;

async fn next(answer: Option<Answer>) -> Option<(Item, Option<Answer>)> {
    use v1::analyze_event::Event;
    let mut answer = answer?;
    let event = |event| Ok(v1::AnalyzeEvent { event: Some(event) });
    match answer.results.next().await {
        Some(Ok(Analyzed { result, timings })) => {
            answer.total.queued = answer.total.queued.max(timings.queued);
            answer.total.decode += timings.decode;
            answer.total.model += timings.model;
            Some((event(Event::Result(result)), Some(answer)))
        }
        Some(Err(error)) => Some((Err(error.into()), None)),
        None => {
            drop(answer.place.take());
            let finished = v1::AnalyzeFinished {
                models: answer.used,
                queue_us: micros(answer.total.queued),
                decode_us: micros(answer.total.decode),
                model_us: micros(answer.total.model),
            };
            Some((event(Event::Finished(finished)), None))
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
