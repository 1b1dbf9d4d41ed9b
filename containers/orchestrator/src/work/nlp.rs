//! Work on texts: every task of the nlp service is a kind of job, all done in the same way.

use std::marker::PhantomData;
use std::sync::Arc;

use aisemble_jobs::JobFailure;
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EntitiesRequest, Gathered, NlpTask, RedactRequest, RerankRequest,
};
use aisemble_protocol::v1::nlp_event::Event;
use aisemble_protocol::{ApiError, v1};
use serde_json::json;

use super::progress::Progress;
use super::{Attempt, Work, stream_field};
use crate::capability::Capability;
use crate::dispatch::{Call, Dispatch, Flow};
use crate::live::Feed;

/// A task of the nlp service as work.
#[derive(Debug)]
pub struct Nlp<T>(PhantomData<T>);

macro_rules! nlp_work {
    ($($request:ty),*) => {$(
        impl Work for Nlp<$request> {
            const KIND: &'static str = <$request as NlpTask>::JOB_KIND;
            const CAPABILITY: Capability = Capability::Nlp;
            type Request = $request;
            type Answer = <$request as NlpTask>::Result;

            stream_field!();

            fn options(request: &$request) -> Option<&JobOptions> {
                request.job.as_ref()
            }

            fn check(request: &$request) -> Result<(), ApiError> {
                request.to_run().map(drop)
            }

            fn resolve(request: &$request, dispatch: &Dispatch) -> Result<(), ApiError> {
                let run = request.to_run()?;
                dispatch.resolve_nlp::<$request>(&run).map(drop)
            }

            async fn run(attempt: Attempt, request: $request) -> Result<Self::Answer, JobFailure> {
                attempt_at(attempt, request).await
            }
        }
    )*};
}

nlp_work!(EmbedRequest, RerankRequest, ClassifyRequest, EntitiesRequest, RedactRequest);

async fn attempt_at<T: NlpTask>(attempt: Attempt, request: T) -> Result<T::Result, JobFailure> {
    let mut run = request.to_run()?;
    run.job_id = attempt.id.to_string();
    run.priority = attempt.priority.to_grpc().into();
    let call = attempt.call(run);
    let dispatch = &attempt.bench.dispatch;
    let mut flow = attempt.patiently(|| start::<T>(dispatch, call.clone())).await?;
    let feed = attempt.bench.live.feed(attempt.id);
    feed.begin(attempt.number);
    let mut progress = Progress::new(attempt.events.clone());
    let mut gathered = Gathered::default();
    while let Some(event) = attempt.unless_cancelled(flow.next()).await? {
        if request.stream() {
            show(&request, &event, &feed);
        }
        gathered.push(event)?;
        let (done, total) = gathered.progress();
        progress.note(|| json!({"done": done, "total": total})).await?;
    }
    Ok(request.result(gathered)?)
}

/// Shows the results of an event to those who look on.
fn show<T: NlpTask>(request: &T, event: &v1::NlpEvent, feed: &Arc<Feed>) {
    let Some(Event::Part(part)) = &event.event else { return };
    for result in &part.results {
        let item = request.item(result.clone()).map(|item| serde_json::to_string(&item));
        if let Some(Ok(item)) = item {
            feed.push_item(item);
        }
    }
}

/// Begins a task.
///
/// # Errors
/// As [`Dispatch::resolve`] and [`Dispatch::generate`].
pub(crate) async fn start<T: NlpTask>(
    dispatch: &Dispatch,
    mut call: Call<v1::NlpRequest>,
) -> Result<Flow<v1::NlpEvent>, ApiError> {
    let model = dispatch.resolve_nlp::<T>(&call.request)?;
    if let Some(model) = &model {
        call.request.model.clone_from(&model.name);
    }
    dispatch.nlp(T::TASK, call).await
}

/// Reads a task's answer to its end.
///
/// # Errors
/// As [`Flow::next`].
pub(crate) async fn collect<T: NlpTask>(
    request: &T,
    mut flow: Flow<v1::NlpEvent>,
) -> Result<T::Result, ApiError> {
    let mut gathered = Gathered::default();
    while let Some(event) = flow.next().await? {
        gathered.push(event)?;
    }
    request.result(gathered)
}
