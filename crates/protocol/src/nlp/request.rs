//! The requests of `/ai/nlp/*` as JSON; `tasks.rs` checks them.

use serde::{Deserialize, Serialize};

use super::Texts;
use crate::job::JobOptions;

/// Texts to embed. Give `texts` or `tokens`, not both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// The model; absent = the first that embeds so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Texts>,
    /// Lists of token ids of the model's vocabulary, in place of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<Vec<u32>>>,
    /// The leading values only, normalised again; for models that are trained for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// To length 1; default true. Sparse embeddings never are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// `dense` (the default) or `sparse`.
    #[serde(default)]
    pub representation: Representation,
    /// The heaviest terms only, of a sparse embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_max: Option<u32>,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// What an embedding looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Representation {
    /// One vector.
    #[default]
    Dense,
    /// Weights of terms of the vocabulary.
    Sparse,
}

/// Documents to order by how well they answer a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RerankRequest {
    /// The model; absent = the first that reranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is looked for.
    pub query: String,
    /// Where.
    pub documents: Vec<String>,
    /// The best ones only; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_n: Option<u32>,
    /// Give the documents back.
    #[serde(default)]
    pub return_documents: bool,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// Texts to put labels on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClassifyRequest {
    /// The model; absent = the first that classifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts.
    pub texts: Texts,
    /// The best labels only; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// Texts to find entities in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EntitiesRequest {
    /// The model; absent = the first that finds entities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts.
    pub texts: Texts,
    /// How the tags of word pieces become entities.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// Leave out what is less sure; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<f32>,
    /// Only these labels; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// How the tags of word pieces become entities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Every token that is not `O`, with its tag as it is.
    None,
    /// Neighbours of one label are one entity; pieces of a word may disagree.
    #[default]
    Simple,
    /// A word has the tag of its first piece.
    First,
    /// A word has the tag with the best mean score over its pieces.
    Average,
    /// A word has the tag of its surest piece.
    Max,
}

/// Texts to hide personal data in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedactRequest {
    /// The model that finds entities; absent = the first that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts.
    pub texts: Texts,
    /// The built-in rules to apply; absent = all, `[]` = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RedactRule>>,
    /// Patterns of your own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<CustomPattern>,
    /// Hide what a model finds as well.
    #[serde(default)]
    pub entities: bool,
    /// Only these labels of the model; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_labels: Option<Vec<String>>,
    /// Leave entities that are less sure; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<f32>,
    /// What stands where something was hidden.
    #[serde(default)]
    pub replacement: Replacement,
    /// The character of `replacement: mask`; default `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// A built-in rule of redaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RedactRule {
    /// E-mail addresses.
    Email,
    /// Telephone numbers, international or written with separators.
    Phone,
    /// Bank account numbers with a right length for their country and a right checksum.
    Iban,
    /// Payment card numbers with a right Luhn digit.
    CreditCard,
    /// IPv4 and IPv6 addresses.
    IpAddress,
    /// Hardware addresses of network cards.
    MacAddress,
    /// Web addresses.
    Url,
    /// Social security numbers of the United States, written with separators.
    UsSsn,
}

impl RedactRule {
    /// Every rule.
    pub const ALL: [Self; 8] = [
        Self::Email,
        Self::Phone,
        Self::Iban,
        Self::CreditCard,
        Self::IpAddress,
        Self::MacAddress,
        Self::Url,
        Self::UsSsn,
    ];

    /// The rule's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Iban => "iban",
            Self::CreditCard => "credit_card",
            Self::IpAddress => "ip_address",
            Self::MacAddress => "mac_address",
            Self::Url => "url",
            Self::UsSsn => "us_ssn",
        }
    }

    /// The label of what it finds.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Email => "EMAIL",
            Self::Phone => "PHONE",
            Self::Iban => "IBAN",
            Self::CreditCard => "CREDIT_CARD",
            Self::IpAddress => "IP_ADDRESS",
            Self::MacAddress => "MAC_ADDRESS",
            Self::Url => "URL",
            Self::UsSsn => "US_SSN",
        }
    }

    /// The rule of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == text)
    }
}

/// A pattern of the caller's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CustomPattern {
    /// What it finds: letters, digits and `_`.
    pub label: String,
    /// A regular expression, without look-around and back-references.
    pub pattern: String,
}

/// What stands where something was hidden.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Replacement {
    /// `[EMAIL]`.
    #[default]
    Label,
    /// `[EMAIL_1]`: the same text has the same number within a text.
    Numbered,
    /// As many mask characters as the text had.
    Mask,
    /// Nothing.
    Remove,
}
