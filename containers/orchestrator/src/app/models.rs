//! The models, as `GET /v1/models` shows them.

use aisemble_protocol::model::{ModelDetail, ModelObject};
use aisemble_protocol::{ApiError, ErrorCode};

use super::App;
use crate::capability::Capability;
use crate::dispatch::Model;

impl App {
    /// Every model that a service hosts or hosted since the orchestrator started, without the names
    /// of its labels. What a data processor works with is no model.
    #[must_use]
    pub fn models(&self) -> Vec<ModelObject> {
        let short = |mut object: ModelObject| {
            object.detail.labels.clear();
            object
        };
        self.all_models().map(short).collect()
    }

    fn all_models(&self) -> impl Iterator<Item = ModelObject> {
        let models = self.dispatch.models().into_iter();
        models.filter(|model| model.capability != Capability::Data).map(object)
    }

    /// One of them.
    ///
    /// # Errors
    /// `not_found`, naming those there are.
    pub fn model(&self, id: &str) -> Result<ModelObject, ApiError> {
        let mut models: Vec<_> = self.all_models().collect();
        if let Some(at) = models.iter().position(|model| model.id == id) {
            return Ok(models.swap_remove(at));
        }
        let names: Vec<_> = models.iter().map(|model| model.id.as_str()).collect();
        let shown: String = id.chars().take(100).collect();
        let message = format!("there is no model {shown:?}; there is {}", names.join(", "));
        Err(ApiError::new(ErrorCode::NotFound, message).with_param("model"))
    }
}

fn object(model: Model) -> ModelObject {
    let Model { info, capability, ready, since_s } = model;
    ModelObject {
        id: info.name,
        object: "model".to_owned(),
        created: since_s,
        owned_by: "ai-semble".to_owned(),
        detail: ModelDetail {
            capability: capability.as_str().to_owned(),
            tasks: info.tasks,
            labels: info.labels,
            family: info.family,
            quantization: info.quantization,
            sha256: info.sha256,
            license: info.license,
            device: info.device,
            parameters: info.parameters,
            context_length: info.limits.map_or(0, |limits| limits.context_tokens_max),
            ready,
        },
    }
}
