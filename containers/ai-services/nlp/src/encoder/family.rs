//! The families of encoders.

/// A family: which tensors there are and what is computed of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT, and what has its shape (MiniLM, BGE, E5, GTE).
    Bert,
    /// DistilBERT: BERT without token types.
    DistilBert,
    /// RoBERTa and XLM-RoBERTa: positions count from behind the padding id.
    Roberta,
    /// ModernBERT: rotary positions, gated feed-forward, normalisation first, local attention.
    ModernBert,
}

impl Family {
    /// The family that a `model_type` (or a configured architecture) names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bert" => Some(Self::Bert),
            "distilbert" => Some(Self::DistilBert),
            "roberta" | "xlm-roberta" | "camembert" => Some(Self::Roberta),
            "modernbert" => Some(Self::ModernBert),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::DistilBert => "distilbert",
            Self::Roberta => "roberta",
            Self::ModernBert => "modernbert",
        }
    }
}
