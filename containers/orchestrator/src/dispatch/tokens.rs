//! Text to tokens and back, by a service that hosts the model. Calls with one answer.

use std::future::Future;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::pool::Need;
use super::{Call, Dispatch, TRIES_MAX, clients, generation};
use crate::capability::Capability;

impl Dispatch {
    /// The tokens of a text or chat, as `model` has them.
    ///
    /// # Errors
    /// As [`Dispatch::generate`].
    pub async fn tokenize(
        &self,
        model: &str,
        call: Call<v1::TokenizeRequest>,
    ) -> Result<v1::TokenizeResponse, ApiError> {
        self.ask((model, "tokenize"), &call, |channel, request| async {
            clients::llm(channel).tokenize(request).await
        })
        .await
    }

    /// The text of tokens of `model`.
    ///
    /// # Errors
    /// As [`Dispatch::generate`].
    pub async fn detokenize(
        &self,
        model: &str,
        call: Call<v1::DetokenizeRequest>,
    ) -> Result<v1::DetokenizeResponse, ApiError> {
        self.ask((model, "detokenize"), &call, |channel, request| async {
            clients::llm(channel).detokenize(request).await
        })
        .await
    }

    async fn ask<R, A, W>(
        &self,
        (model, task): (&str, &'static str),
        call: &Call<R>,
        send: impl Fn(Channel, tonic::Request<R>) -> W,
    ) -> Result<A, ApiError>
    where
        R: Clone,
        W: Future<Output = Result<Response<A>, Status>>,
    {
        let pool = self.pool(Capability::Llm)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = pool.acquire(Need { model: Some(model), prefix: None }, call.class)?;
            let mut meter = self.metrics.call(Capability::Llm, task);
            let (request, left) = call.to_grpc();
            let sent = send(permit.instance.channel.clone(), request);
            let failed = match tokio::time::timeout(left, sent).await {
                Ok(Ok(answer)) => {
                    meter.ended(None);
                    return Ok(answer.into_inner());
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
}
