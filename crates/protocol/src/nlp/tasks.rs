//! What each task does with its request and its results: the checks, the gRPC task, the answer.

use super::{
    Aggregation, AnswerFacts, ClassifiedText, ClassifyRequest, ClassifyResult, CustomPattern,
    EmbedRequest, EmbedResult, EmbeddedText, EntitiesRequest, EntitiesResult, NlpTask,
    RankedDocument, RedactRequest, RedactResult, RedactRule, RedactedText, Replacement,
    Representation, RerankRequest, RerankResult, TextEntities, check_bytes, check_count,
    check_labels, check_share, check_texts, result,
};
use crate::error::{ApiError, ErrorCode};
use crate::job::JobOptions;
use crate::v1::nlp_request::Task;
use crate::v1::text_result;
use crate::{limits, v1};

fn count(value: Option<u32>, param: &str) -> Result<u32, ApiError> {
    match value {
        Some(0) => Err(ApiError::invalid(param, format!("{param} is 0; it must be at least 1"))),
        Some(value) => Ok(value),
        None => Ok(0),
    }
}

fn only_labels(labels: Option<&Vec<String>>, param: &str) -> Result<Vec<String>, ApiError> {
    let labels = labels.cloned().unwrap_or_default();
    check_labels(param, &labels)?;
    Ok(labels)
}

impl EmbedRequest {
    fn check_tokens(lists: &[Vec<u32>]) -> Result<Vec<v1::TokenIds>, ApiError> {
        check_count("tokens", lists.len(), limits::NLP_TEXTS_MAX)?;
        if let Some(index) = lists.iter().position(Vec::is_empty) {
            return Err(ApiError::invalid("tokens", format!("tokens[{index}] is empty")));
        }
        let (given, limit) = (lists.iter().map(Vec::len).sum::<usize>(), limits::NLP_TOKENS_MAX);
        if given > limit {
            let message = format!("tokens has {given} ids; the limit is {limit}");
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("tokens"));
        }
        Ok(lists.iter().map(|ids| v1::TokenIds { ids: ids.clone() }).collect())
    }
}

impl NlpTask for EmbedRequest {
    const JOB_KIND: &'static str = "nlp.embed";
    const TASK: &'static str = "embed";
    type Item = EmbeddedText;
    type Result = EmbedResult;

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn job(&self) -> Option<&JobOptions> {
        self.job.as_ref()
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn to_task(&self) -> Result<Task, ApiError> {
        let (texts, tokens) = match (&self.texts, &self.tokens) {
            (Some(texts), None) => {
                check_texts("texts", texts.as_slice())?;
                (texts.as_slice().to_vec(), Vec::new())
            }
            (None, Some(tokens)) => (Vec::new(), Self::check_tokens(tokens)?),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("tokens", "give texts or tokens, not both"));
            }
            (None, None) => return Err(ApiError::invalid("texts", "texts or tokens is required")),
        };
        let sparse = self.representation == Representation::Sparse;
        let dimensions = count(self.dimensions, "dimensions")?;
        if dimensions > limits::NLP_DIMENSIONS_MAX {
            let limit = limits::NLP_DIMENSIONS_MAX;
            let message = format!("dimensions is {dimensions}; it must be at most {limit}");
            return Err(ApiError::invalid("dimensions", message));
        }
        if sparse && dimensions > 0 {
            let message = "a sparse embedding has no dimensions; terms_max bounds it";
            return Err(ApiError::invalid("dimensions", message));
        }
        if !sparse && self.terms_max.is_some() {
            let message = "terms_max needs representation: sparse";
            return Err(ApiError::invalid("terms_max", message));
        }
        Ok(Task::Embed(v1::EmbedTask {
            texts,
            tokens,
            dimensions,
            normalize: self.normalize.unwrap_or(true),
            sparse,
            terms_max: count(self.terms_max, "terms_max")?,
        }))
    }

    fn item(&self, of: v1::TextResult) -> Option<EmbeddedText> {
        let (embedding, sparse) = match of.result? {
            text_result::Result::Dense(dense) => (Some(dense.values), None),
            text_result::Result::Sparse(sparse) => (None, Some(result::terms(sparse))),
            text_result::Result::Relevance(_)
            | text_result::Result::Labels(_)
            | text_result::Result::Entities(_)
            | text_result::Result::Redacted(_) => return None,
        };
        let (index, tokens, windows) = (of.index, of.tokens, of.windows);
        Some(EmbeddedText { index, embedding, sparse, tokens, windows })
    }

    fn assemble(&self, results: Vec<EmbeddedText>, facts: AnswerFacts) -> EmbedResult {
        let AnswerFacts { model, model_sha256, usage, timings } = facts;
        EmbedResult { job_id: None, model, model_sha256, results, usage, timings }
    }
}

impl NlpTask for RerankRequest {
    const JOB_KIND: &'static str = "nlp.rerank";
    const TASK: &'static str = "rerank";
    type Item = RankedDocument;
    type Result = RerankResult;

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn job(&self) -> Option<&JobOptions> {
        self.job.as_ref()
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn to_task(&self) -> Result<Task, ApiError> {
        if self.query.is_empty() {
            return Err(ApiError::invalid("query", "query is empty"));
        }
        check_bytes("query", self.query.len())?;
        check_texts("documents", &self.documents)?;
        count(self.top_n, "top_n")?;
        let (query, documents) = (self.query.clone(), self.documents.clone());
        Ok(Task::Rerank(v1::RerankTask { query, documents }))
    }

    fn item(&self, of: v1::TextResult) -> Option<RankedDocument> {
        let text_result::Result::Relevance(score) = of.result? else { return None };
        let document = self.documents.get(of.index as usize).filter(|_| self.return_documents);
        let document = document.cloned();
        Some(RankedDocument { index: of.index, score, document, windows: of.windows })
    }

    fn assemble(&self, mut results: Vec<RankedDocument>, facts: AnswerFacts) -> RerankResult {
        // Stable: equal scores stay in the order of the request.
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        results.truncate(self.top_n.map_or(usize::MAX, |top_n| top_n as usize));
        let AnswerFacts { model, model_sha256, usage, timings } = facts;
        RerankResult { job_id: None, model, model_sha256, results, usage, timings }
    }
}

impl NlpTask for ClassifyRequest {
    const JOB_KIND: &'static str = "nlp.classify";
    const TASK: &'static str = "classify";
    type Item = ClassifiedText;
    type Result = ClassifyResult;

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn job(&self) -> Option<&JobOptions> {
        self.job.as_ref()
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn to_task(&self) -> Result<Task, ApiError> {
        let texts = self.texts.as_slice();
        check_texts("texts", texts)?;
        let top_k = count(self.top_k, "top_k")?;
        Ok(Task::Classify(v1::ClassifyTask { texts: texts.to_vec(), top_k }))
    }

    fn item(&self, of: v1::TextResult) -> Option<ClassifiedText> {
        let text_result::Result::Labels(labels) = of.result? else { return None };
        let labels = labels.labels.into_iter().map(Into::into).collect();
        Some(ClassifiedText { index: of.index, labels, windows: of.windows })
    }

    fn assemble(&self, results: Vec<ClassifiedText>, facts: AnswerFacts) -> ClassifyResult {
        let AnswerFacts { model, model_sha256, usage, timings } = facts;
        ClassifyResult { job_id: None, model, model_sha256, results, usage, timings }
    }
}

impl Aggregation {
    /// The aggregation as it goes to the service.
    #[must_use]
    pub fn to_grpc(self) -> v1::Aggregation {
        match self {
            Self::None => v1::Aggregation::None,
            Self::Simple => v1::Aggregation::Simple,
            Self::First => v1::Aggregation::First,
            Self::Average => v1::Aggregation::Average,
            Self::Max => v1::Aggregation::Max,
        }
    }
}

impl NlpTask for EntitiesRequest {
    const JOB_KIND: &'static str = "nlp.entities";
    const TASK: &'static str = "entities";
    type Item = TextEntities;
    type Result = EntitiesResult;

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn job(&self) -> Option<&JobOptions> {
        self.job.as_ref()
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn to_task(&self) -> Result<Task, ApiError> {
        let texts = self.texts.as_slice();
        check_texts("texts", texts)?;
        Ok(Task::Entities(v1::EntitiesTask {
            texts: texts.to_vec(),
            aggregation: self.aggregation.to_grpc().into(),
            score_min: check_share("score_min", self.score_min.unwrap_or(0.0))?,
            labels: only_labels(self.labels.as_ref(), "labels")?,
        }))
    }

    fn item(&self, of: v1::TextResult) -> Option<TextEntities> {
        let text_result::Result::Entities(entities) = of.result? else { return None };
        let entities = entities.entities.into_iter().map(Into::into).collect();
        Some(TextEntities { index: of.index, entities, windows: of.windows })
    }

    fn assemble(&self, results: Vec<TextEntities>, facts: AnswerFacts) -> EntitiesResult {
        let AnswerFacts { model, model_sha256, usage, timings } = facts;
        EntitiesResult { job_id: None, model, model_sha256, results, usage, timings }
    }
}

impl Replacement {
    /// The replacement as it goes to the service.
    #[must_use]
    pub fn to_grpc(self) -> v1::Replacement {
        match self {
            Self::Label => v1::Replacement::Label,
            Self::Numbered => v1::Replacement::Numbered,
            Self::Mask => v1::Replacement::Mask,
            Self::Remove => v1::Replacement::Remove,
        }
    }
}

impl RedactRequest {
    fn check_patterns(&self) -> Result<Vec<v1::CustomPattern>, ApiError> {
        let (given, limit) = (self.patterns.len(), limits::NLP_PATTERNS_MAX);
        if given > limit {
            let message = format!("{given} patterns are given; at most {limit} are taken");
            return Err(ApiError::invalid("patterns", message));
        }
        let of = |CustomPattern { label, pattern }: &CustomPattern| v1::CustomPattern {
            label: label.clone(),
            pattern: pattern.clone(),
        };
        for (index, CustomPattern { label, pattern }) in self.patterns.iter().enumerate() {
            let (labels, bytes) = (limits::NLP_LABEL_BYTES_MAX, limits::NLP_PATTERN_BYTES_MAX);
            let named = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if label.is_empty() || label.len() > labels || !named {
                let message =
                    format!("patterns[{index}].label must be 1 to {labels} letters, digits and _");
                return Err(ApiError::invalid("patterns", message));
            }
            if pattern.is_empty() || pattern.len() > bytes {
                let message =
                    format!("patterns[{index}].pattern must have between 1 and {bytes} bytes");
                return Err(ApiError::invalid("patterns", message));
            }
        }
        Ok(self.patterns.iter().map(of).collect())
    }

    fn check_mask(&self) -> Result<String, ApiError> {
        let mask = self.mask.clone().unwrap_or_default();
        if self.mask.is_some() && self.replacement != Replacement::Mask {
            return Err(ApiError::invalid("mask", "mask needs replacement: mask"));
        }
        if self.mask.is_some() && mask.chars().count() != 1 {
            return Err(ApiError::invalid("mask", "mask must be one character"));
        }
        Ok(mask)
    }
}

impl NlpTask for RedactRequest {
    const JOB_KIND: &'static str = "nlp.redact";
    const TASK: &'static str = "redact";
    type Item = RedactedText;
    type Result = RedactResult;

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn job(&self) -> Option<&JobOptions> {
        self.job.as_ref()
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn to_task(&self) -> Result<Task, ApiError> {
        let texts = self.texts.as_slice();
        check_texts("texts", texts)?;
        if !self.entities {
            for (given, param) in [
                (self.entity_labels.is_some(), "entity_labels"),
                (self.score_min.is_some(), "score_min"),
                (self.model.is_some(), "model"),
            ] {
                if given {
                    return Err(ApiError::invalid(param, format!("{param} needs entities: true")));
                }
            }
        }
        let patterns = self.check_patterns()?;
        let rules = self.rules.clone().unwrap_or_default();
        if self.rules.is_some() && rules.is_empty() && patterns.is_empty() && !self.entities {
            let message = "there is nothing to look for: no rules, no patterns, no entities";
            return Err(ApiError::invalid("rules", message));
        }
        if rules.len() > RedactRule::ALL.len() {
            return Err(ApiError::invalid("rules", "a rule is given twice"));
        }
        Ok(Task::Redact(v1::RedactTask {
            texts: texts.to_vec(),
            rules: rules.iter().map(|rule| rule.as_str().to_owned()).collect(),
            all_rules: self.rules.is_none(),
            patterns,
            entities: self.entities,
            entity_labels: only_labels(self.entity_labels.as_ref(), "entity_labels")?,
            score_min: check_share("score_min", self.score_min.unwrap_or(0.0))?,
            replacement: self.replacement.to_grpc().into(),
            mask: self.check_mask()?,
        }))
    }

    fn item(&self, of: v1::TextResult) -> Option<RedactedText> {
        let text_result::Result::Redacted(redacted) = of.result? else { return None };
        let spans = redacted.spans.into_iter().map(Into::into).collect();
        Some(RedactedText { index: of.index, text: redacted.text, spans, windows: of.windows })
    }

    fn assemble(&self, results: Vec<RedactedText>, facts: AnswerFacts) -> RedactResult {
        let AnswerFacts { model, model_sha256, usage, timings } = facts;
        let asked = |text: String| Some(text).filter(|text| !text.is_empty());
        let (model, model_sha256) = (asked(model), asked(model_sha256));
        RedactResult { job_id: None, model, model_sha256, results, usage, timings }
    }
}
