//! Completions that keep no job: `/v1/*`. The same checks and the same dispatch, nothing stored.

use aisemble_protocol::{ApiError, v1};

use super::{App, Origin, completion};
use crate::dispatch::{self, Call, Class, Generation};

impl App {
    /// The language model that a request of that name gets.
    ///
    /// # Errors
    /// `not_found`, naming those there are; `unavailable` when it does not take work.
    pub fn resolve_model(&self, name: &str) -> Result<v1::ModelInfo, ApiError> {
        self.dispatch.resolve(Some(name).filter(|name| !name.is_empty()))
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
        completion::check_against(&request, &model)?;
        request.request_id.clone_from(&origin.request_id);
        request.priority = v1::Priority::Interactive.into();
        request.owner.clone_from(&origin.caller.key_id);
        let deadline = dispatch::deadline_in(self.limits.generation_max());
        let call = Call { request, class: Class::Interactive, trace: origin.trace, deadline };
        self.dispatch.generate(call).await
    }
}
