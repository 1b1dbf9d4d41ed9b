//! Calls that are answered by a stream of events, of whatever service: sent to the instance with
//! the least to do, to another when that one is gone, metered. Dropping one cancels it in the
//! service.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::instances::Permit;
use super::pool::Need;
use super::rate::Rate;
use super::{Call, Dispatch, TRIES_MAX, generation};
use crate::capability::Capability;
use crate::metrics::CallMeter;

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) capability: Capability,
    /// What is done: `embed`, ...
    pub(super) task: &'static str,
    /// The model, by name; `None` = any instance does.
    pub(super) model: Option<&'a str>,
}

/// A call under way.
#[derive(Debug)]
pub struct Flow<E> {
    stream: Streaming<E>,
    permit: Permit,
    meter: CallMeter,
    deadline: Instant,
    finished: Arc<Rate>,
}

impl<E> Flow<E> {
    /// The next event; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// `timeout` past the deadline, `unavailable` when the service goes away or stops, or what the
    /// service says. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<E>, ApiError> {
        let received = tokio::time::timeout_at(self.deadline.into(), self.stream.message()).await;
        let event = match received {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(status)) => Err(generation::failure(status, &self.permit.instance)),
            Err(_) => Err(generation::timed_out()),
        };
        match &event {
            Ok(Some(_)) => {}
            Ok(None) => self.ended(None),
            Err(error) => self.ended(Some(error.code)),
        }
        event
    }

    fn ended(&mut self, error: Option<ErrorCode>) {
        self.meter.ended(error);
        self.finished.ended(Instant::now());
    }
}

impl Dispatch {
    /// Sends a call; its answer begins.
    ///
    /// # Errors
    /// `unavailable` when no instance takes work or it goes away, `overloaded` when all are full,
    /// `timeout`, or what the service says.
    pub(super) async fn open<R, E, W>(
        &self,
        route: Route<'_>,
        call: &Call<R>,
        send: impl Fn(Channel, tonic::Request<R>) -> W,
    ) -> Result<Flow<E>, ApiError>
    where
        R: Clone,
        W: Future<Output = Result<Response<Streaming<E>>, Status>>,
    {
        let pool = self.pool(route.capability)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = pool.acquire(Need { model: route.model, prefix: None }, call.class)?;
            let mut meter = self.metrics.call(route.capability, route.task);
            let (request, left) = call.to_grpc();
            let sent = send(permit.instance.channel.clone(), request);
            let failed = match tokio::time::timeout(left, sent).await {
                Ok(Ok(answer)) => {
                    let (stream, deadline) = (answer.into_inner(), call.deadline);
                    return Ok(Flow { stream, permit, meter, deadline, finished: pool.finished() });
                }
                Ok(Err(status)) => generation::failure(status, &permit.instance),
                Err(_) => generation::timed_out(),
            };
            meter.ended(Some(failed.code));
            if failed.code != ErrorCode::Unavailable || tries == TRIES_MAX {
                return Err(failed);
            }
        }
    }

    /// Sends a task to an nlp service that hosts its `model`, or to any when it names none.
    ///
    /// # Errors
    /// As [`Dispatch::generate`].
    pub async fn nlp(
        &self,
        task: &'static str,
        call: Call<v1::NlpRequest>,
    ) -> Result<Flow<v1::NlpEvent>, ApiError> {
        let model = Some(call.request.model.as_str()).filter(|name| !name.is_empty());
        let route = Route { capability: Capability::Nlp, task, model };
        self.open(route, &call, |channel, request| async {
            let mut client = super::clients::nlp(channel);
            client.run(request).await
        })
        .await
    }

    /// Sends pictures to a vision service that hosts the model of the first task.
    ///
    /// # Errors
    /// As [`Dispatch::generate`].
    pub async fn vision(
        &self,
        call: Call<v1::AnalyzeRequest>,
    ) -> Result<Flow<v1::AnalyzeEvent>, ApiError> {
        let first = call.request.tasks.first();
        let named = first.map(|task| task.model.as_str()).filter(|name| !name.is_empty());
        let task = first.map(|task| task.task.as_str());
        let model = self.resolve(Capability::Vision, named, task)?.name;
        let route = Route { capability: Capability::Vision, task: "analyze", model: Some(&model) };
        self.open(route, &call, |channel, request| async {
            let mut client = super::clients::vision(channel);
            client.analyze(request).await
        })
        .await
    }

    /// Sends a query to a data processor.
    ///
    /// # Errors
    /// As [`Dispatch::generate`].
    pub async fn data(
        &self,
        call: Call<v1::ProcessRequest>,
    ) -> Result<Flow<v1::ProcessEvent>, ApiError> {
        let route = Route { capability: Capability::Data, task: "process", model: None };
        self.open(route, &call, |channel, request| async {
            let mut client = super::clients::data(channel);
            client.process(request).await
        })
        .await
    }
}
