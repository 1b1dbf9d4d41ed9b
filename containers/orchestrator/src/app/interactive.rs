//! Calls that keep no job: `/v1/*`. The same checks and the same dispatch, nothing stored.

use aisemble_protocol::nlp::NlpTask;
use aisemble_protocol::{ApiError, v1};

use super::{App, Origin};
use crate::capability::Capability;
use crate::dispatch::{self, Call, Class, Generation};
use crate::work;

impl App {
    /// The language model that a request of that name gets.
    ///
    /// # Errors
    /// `not_found`, naming those there are; `unavailable` when it does not take work.
    pub fn resolve_model(&self, name: &str) -> Result<v1::ModelInfo, ApiError> {
        self.dispatch.resolve(Capability::Llm, Some(name).filter(|name| !name.is_empty()), None)
    }

    /// Begins a generation that somebody waits for. Dropping it cancels it.
    ///
    /// # Errors
    /// As the service says; `unavailable` and `overloaded` with when to come again.
    pub async fn generate(
        &self,
        origin: &Origin,
        mut request: v1::GenerateRequest,
    ) -> Result<Generation, ApiError> {
        let model = self.resolve_model(&request.model)?;
        work::check_against(&request, &model)?;
        request.request_id.clone_from(&origin.request_id);
        request.priority = priority(origin).into();
        request.owner.clone_from(&origin.caller.key_id);
        self.dispatch.generate(self.call(origin, request)).await
    }

    /// Does a task on texts that somebody waits for.
    ///
    /// # Errors
    /// What is wrong with the request; as the service says; `unavailable` and `overloaded` with
    /// when to come again.
    pub async fn nlp<T: NlpTask>(
        &self,
        origin: &Origin,
        request: &T,
    ) -> Result<T::Result, ApiError> {
        let mut run = request.to_run()?;
        run.request_id.clone_from(&origin.request_id);
        run.priority = priority(origin).into();
        let flow = work::start_nlp::<T>(&self.dispatch, self.call(origin, run)).await?;
        work::collect_nlp(request, flow).await
    }

    /// The tokens of a text or chat.
    ///
    /// # Errors
    /// As [`App::generate`].
    pub async fn tokenize(
        &self,
        origin: &Origin,
        model: &v1::ModelInfo,
        request: v1::TokenizeRequest,
    ) -> Result<v1::TokenizeResponse, ApiError> {
        self.dispatch.tokenize(&model.name, self.call(origin, request)).await
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// As [`App::generate`].
    pub async fn detokenize(
        &self,
        origin: &Origin,
        model: &v1::ModelInfo,
        request: v1::DetokenizeRequest,
    ) -> Result<v1::DetokenizeResponse, ApiError> {
        self.dispatch.detokenize(&model.name, self.call(origin, request)).await
    }

    fn call<R>(&self, origin: &Origin, request: R) -> Call<R> {
        let deadline = dispatch::deadline_in(self.limits.generation_max());
        let class = if origin.caller.waits() { Class::Interactive } else { Class::Job };
        Call { request, class, trace: origin.trace, deadline }
    }
}

fn priority(origin: &Origin) -> v1::Priority {
    if origin.caller.waits() { v1::Priority::Interactive } else { v1::Priority::Batch }
}
