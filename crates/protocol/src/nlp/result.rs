//! The answers of `/ai/nlp/*`, and how they are made of the service's messages.

use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::v1;

/// What was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NlpUsage {
    /// Tokens, special ones and the overlap of windows included.
    pub tokens: u32,
    /// Sequences: more than there are texts when long ones were cut into windows.
    pub windows: u32,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NlpTimings {
    /// In the service's queue, milliseconds.
    pub queue_ms: f64,
    /// From the first batch to the last result, milliseconds.
    pub compute_ms: f64,
    /// Forward passes that had a text of this request.
    pub batches: u32,
}

/// A term of a sparse embedding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SparseTerm {
    /// Token id in the model's vocabulary.
    pub index: u32,
    /// Its weight, above 0.
    pub value: f32,
}

/// A text's embedding: `embedding` or `sparse`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EmbeddedText {
    /// Place in the request.
    pub index: u32,
    /// The vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
    /// The terms, ascending indices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<Vec<SparseTerm>>,
    /// Tokens of the text.
    pub tokens: u32,
    /// Windows that it was computed in; more than 1 = their weighted mean (sparse: maximum).
    pub windows: u32,
}

/// `POST /ai/nlp/embed`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EmbedResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: String,
    /// Digest of its weights.
    pub model_sha256: String,
    /// One a text, in the order of the request.
    pub results: Vec<EmbeddedText>,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

/// A document and how well it answers the query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RankedDocument {
    /// Place in the request's documents.
    pub index: u32,
    /// Higher is better; the scale is the model's (a cross-encoder: 0 to 1).
    pub score: f32,
    /// The document, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Windows that it was computed in; more than 1 = the best one's score.
    pub windows: u32,
}

/// `POST /ai/nlp/rerank`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RerankResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: String,
    /// Digest of its weights.
    pub model_sha256: String,
    /// Best first.
    pub results: Vec<RankedDocument>,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

/// A label and how sure the model is of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
}

/// A text's labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClassifiedText {
    /// Place in the request.
    pub index: u32,
    /// Best first.
    pub labels: Vec<LabelScore>,
    /// Windows that it was computed in; more than 1 = their weighted mean.
    pub windows: u32,
}

/// `POST /ai/nlp/classify`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClassifyResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: String,
    /// Digest of its weights.
    pub model_sha256: String,
    /// One a text, in the order of the request.
    pub results: Vec<ClassifiedText>,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

/// A stretch of text that has a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entity {
    /// The label, without `B-` and `I-` unless the aggregation is `none`.
    pub label: String,
    /// The text from `start` to `end`.
    pub text: String,
    /// In characters (Unicode scalar values) of the text.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
    /// 0 to 1.
    pub score: f32,
}

/// A text's entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TextEntities {
    /// Place in the request.
    pub index: u32,
    /// In the order of the text.
    pub entities: Vec<Entity>,
    /// Windows that it was computed in.
    pub windows: u32,
}

/// `POST /ai/nlp/entities`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntitiesResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: String,
    /// Digest of its weights.
    pub model_sha256: String,
    /// One a text, in the order of the request.
    pub results: Vec<TextEntities>,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

/// A stretch of text that was replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RedactedSpan {
    /// What it is: `EMAIL`, ..., a pattern's label, or an entity's.
    pub label: String,
    /// Who found it: `rule`, `pattern` or `model`.
    pub source: String,
    /// In characters (Unicode scalar values) of the text that was given.
    pub start: u32,
    /// Exclusive.
    pub end: u32,
    /// In characters of the redacted text.
    pub redacted_start: u32,
    /// Exclusive.
    pub redacted_end: u32,
    /// 0 to 1; 1 for rules and patterns.
    pub score: f32,
}

/// A text without what was to be hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RedactedText {
    /// Place in the request.
    pub index: u32,
    /// The redacted text.
    pub text: String,
    /// What was replaced, in the order of the text; none overlap.
    pub spans: Vec<RedactedSpan>,
    /// Windows that a model looked at it in; 0 = no model was asked.
    pub windows: u32,
}

/// `POST /ai/nlp/redact`: the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RedactResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that found entities; absent when none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Digest of its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// One a text, in the order of the request.
    pub results: Vec<RedactedText>,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

impl From<v1::Entity> for Entity {
    fn from(entity: v1::Entity) -> Self {
        Self {
            label: entity.label,
            text: entity.text,
            start: entity.start,
            end: entity.end,
            score: entity.score,
        }
    }
}

impl From<v1::RedactedSpan> for RedactedSpan {
    fn from(span: v1::RedactedSpan) -> Self {
        Self {
            label: span.label,
            source: span.source,
            start: span.start,
            end: span.end,
            redacted_start: span.redacted_start,
            redacted_end: span.redacted_end,
            score: span.score,
        }
    }
}

impl From<v1::Label> for LabelScore {
    fn from(label: v1::Label) -> Self {
        Self { label: label.label, score: label.score }
    }
}

/// The terms of a sparse embedding, which the message has as parallel lists.
pub(super) fn terms(sparse: v1::Sparse) -> Vec<SparseTerm> {
    let pairs = sparse.ids.into_iter().zip(sparse.weights);
    pairs.map(|(index, value)| SparseTerm { index, value }).collect()
}
