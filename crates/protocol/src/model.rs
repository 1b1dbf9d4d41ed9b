//! Models as `GET /v1/models` lists them.

use serde::{Deserialize, Serialize};

/// One model that a service hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelObject {
    /// What a request's `model` says.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// When the service that hosts it became ready, seconds since 1970.
    pub created: u64,
    /// Always `ai-semble`.
    pub owned_by: String,
    /// What is more than the OpenAI shape has.
    #[serde(flatten)]
    pub detail: ModelDetail,
}

/// What Ai-semble tells of a model beyond the OpenAI shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelDetail {
    /// `llm`, `nlp`, `vision`.
    pub capability: String,
    /// What it does: `chat`, `embed`, ...
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Of a classifier or tagger, its labels by class index; only where one model is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// `llama`, ...
    pub family: String,
    /// As served.
    pub quantization: String,
    /// Digest of the file that is loaded.
    pub sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Number of weights.
    pub parameters: u64,
    /// Prompt and completion together, tokens.
    pub context_length: u32,
    /// Whether an instance that hosts it can take work now.
    pub ready: bool,
}

/// `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models.
    pub data: Vec<ModelObject>,
}
