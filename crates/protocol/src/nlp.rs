//! `/ai/nlp/*`: the requests as JSON, their check into the gRPC request, and the answers.
//!
//! Every task is an [`NlpTask`]: a door needs its path and this trait, nothing of the task itself.
//! The way of a call: [`NlpTask::to_run`] -> `Nlp.Run` -> [`Gathered::push`] for each event (and
//! [`NlpTask::item`] for each result that is shown as it comes) -> [`NlpTask::result`].

mod gathered;
mod request;
mod result;
mod tasks;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{ApiError, ErrorCode};
use crate::job::JobOptions;
use crate::{limits, v1};

pub use gathered::Gathered;
pub use request::{
    Aggregation, ClassifyRequest, CustomPattern, EmbedRequest, EntitiesRequest, RedactRequest,
    RedactRule, Replacement, Representation, RerankRequest,
};
pub use result::{
    ClassifiedText, ClassifyResult, EmbedResult, EmbeddedText, EntitiesResult, Entity, LabelScore,
    NlpTimings, NlpUsage, RankedDocument, RedactResult, RedactedSpan, RedactedText, RerankResult,
    SparseTerm, TextEntities,
};

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Texts {
    /// The texts.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// A task of the nlp service, from its JSON request to its JSON result.
pub trait NlpTask: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind of its jobs.
    const JOB_KIND: &'static str;
    /// The task's name in a model's `tasks`.
    const TASK: &'static str;
    /// What is known of one text.
    type Item: Serialize + Send + 'static;
    /// The whole answer.
    type Result: Serialize + DeserializeOwned + Send + 'static;

    /// The model that was asked for.
    fn model(&self) -> Option<&str>;

    /// How the job is to be run.
    fn job(&self) -> Option<&JobOptions>;

    /// Whether server-sent events were asked for in the body.
    fn stream(&self) -> bool;

    /// The task itself, every field checked.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    fn to_task(&self) -> Result<v1::nlp_request::Task, ApiError>;

    /// One text's result as JSON. `None` when it is of another task: a defect of the service.
    fn item(&self, result: v1::TextResult) -> Option<Self::Item>;

    /// The whole answer from its items, in the order of the request.
    fn assemble(&self, items: Vec<Self::Item>, facts: AnswerFacts) -> Self::Result;

    /// Checks every field and gives the request as the service takes it.
    ///
    /// # Errors
    /// As [`NlpTask::to_task`].
    fn to_run(&self) -> Result<v1::NlpRequest, ApiError> {
        Ok(v1::NlpRequest {
            request_id: String::new(),
            job_id: String::new(),
            model: check_model(self.model())?,
            priority: self.job().map(|job| job.priority).unwrap_or_default().to_grpc().into(),
            task: Some(self.to_task()?),
        })
    }

    /// The whole answer from what was gathered.
    ///
    /// # Errors
    /// `unavailable` when the stream ended too early, `internal` when a result is of another task.
    fn result(&self, gathered: Gathered) -> Result<Self::Result, ApiError> {
        let (results, facts) = gathered.complete()?;
        let items: Option<Vec<_>> = results.into_iter().map(|result| self.item(result)).collect();
        let items = items.ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, "the service answered another task")
        })?;
        Ok(self.assemble(items, facts))
    }
}

/// What an answer says beside its items.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerFacts {
    /// The model that answered; empty when none was needed.
    pub model: String,
    /// Digest of its weights.
    pub model_sha256: String,
    /// What was computed.
    pub usage: NlpUsage,
    /// Where the time went.
    pub timings: NlpTimings,
}

fn check_model(model: Option<&str>) -> Result<String, ApiError> {
    let (name, limit) = (model.unwrap_or_default(), limits::MODEL_NAME_BYTES_MAX);
    if name.len() > limit {
        let message = format!("model has {} bytes; the limit is {limit}", name.len());
        return Err(ApiError::invalid("model", message));
    }
    Ok(name.to_owned())
}

/// Number and size of texts. Text without a letter is no error: an empty one is.
fn check_texts(param: &str, texts: &[String]) -> Result<(), ApiError> {
    check_count(param, texts.len(), limits::NLP_TEXTS_MAX)?;
    if let Some(index) = texts.iter().position(String::is_empty) {
        return Err(ApiError::invalid(param, format!("{param}[{index}] is empty")));
    }
    check_bytes(param, texts.iter().map(String::len).sum())
}

fn check_bytes(param: &str, bytes: usize) -> Result<(), ApiError> {
    let limit = limits::NLP_TEXTS_BYTES_MAX;
    if bytes > limit {
        let message = format!("{param} has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(param));
    }
    Ok(())
}

/// Between 1 and `limit` things.
fn check_count(param: &str, given: usize, limit: usize) -> Result<(), ApiError> {
    if given == 0 || given > limit {
        let message = format!("{given} {param} are given; between 1 and {limit} are taken");
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

/// Names of labels: at most [`limits::NLP_LABELS_MAX`], none empty or long.
fn check_labels(param: &str, labels: &[String]) -> Result<(), ApiError> {
    let (given, limit) = (labels.len(), limits::NLP_LABELS_MAX);
    if given > limit {
        let message = format!("{given} {param} are given; at most {limit} are taken");
        return Err(ApiError::invalid(param, message));
    }
    let bytes = limits::NLP_LABEL_BYTES_MAX;
    if labels.iter().any(|label| label.is_empty() || label.len() > bytes) {
        let message = format!("each of {param} must have between 1 and {bytes} bytes");
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

fn check_share(param: &str, value: f32) -> Result<f32, ApiError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::invalid(param, format!("{param} is {value}; it must be between 0 and 1")))
}
