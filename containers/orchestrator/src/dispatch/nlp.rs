//! Which model a task on texts needs.

use aisemble_protocol::nlp::NlpTask;
use aisemble_protocol::v1::nlp_request::Task;
use aisemble_protocol::{ApiError, v1};

use super::Dispatch;
use crate::capability::Capability;

/// What a model that finds entities has among its tasks.
const ENTITIES: &str = "entities";
/// What a model that makes sparse embeddings has among its tasks.
const SPARSE: &str = "embed_sparse";

impl Dispatch {
    /// The model that does the task: the one it names, or the first one that does such tasks; none
    /// when it needs none (redaction by rules).
    ///
    /// # Errors
    /// As [`Dispatch::resolve`].
    pub fn resolve_nlp<T: NlpTask>(
        &self,
        request: &v1::NlpRequest,
    ) -> Result<Option<v1::ModelInfo>, ApiError> {
        let name = Some(request.model.as_str()).filter(|name| !name.is_empty());
        let task = match &request.task {
            Some(Task::Redact(redact)) if !redact.entities && name.is_none() => {
                return self.ready(Capability::Nlp).map(|()| None);
            }
            Some(Task::Redact(_)) => ENTITIES,
            Some(Task::Embed(embed)) if embed.sparse => SPARSE,
            Some(Task::Embed(_) | Task::Rerank(_) | Task::Classify(_) | Task::Entities(_))
            | None => T::TASK,
        };
        self.resolve(Capability::Nlp, name, Some(task)).map(Some)
    }
}
