//! The families of decoder-only models that share one decoder, and what an architecture's name
//! means beyond the numbers in its file. It knows names and conventions, not tensors.

use aisemble_kernels::RopeStyle;

/// What stands between the gate and the product with the other half of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x / (1 + e^-x)`.
    Silu,
    /// The tanh form of GELU.
    Gelu,
}

/// A family that has been checked against a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and what shares its layers: SmolLM2, Llama 2 and 3; in GGUF, Mistral too.
    Llama,
    /// Llama's layers, each with a window where the file says so.
    Mistral,
    /// Llama's layers with biases on query, key and value: Qwen2, Qwen2.5.
    Qwen2,
    /// A norm on each head's queries and keys, heads of a width of their own.
    Qwen3,
    /// Norms behind the layers too, windows in every other layer, soft caps.
    Gemma2,
    /// As Gemma 2 with norms on queries and keys for the cap on scores; five windowed layers, with
    /// a rotary base of their own, for each that sees everything.
    Gemma3,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Gemma2, Self::Gemma3];

    /// The family of a GGUF file's `general.architecture`.
    pub fn of_gguf(architecture: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.gguf_name() == Some(architecture))
    }

    /// The family of a `config.json`'s `model_type`.
    pub fn of_huggingface(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.huggingface_name() == model_type)
    }

    /// What GGUF calls it; `None` for what comes under another's name there.
    pub fn gguf_name(self) -> Option<&'static str> {
        match self {
            Self::Llama => Some("llama"),
            Self::Mistral => None,
            Self::Qwen2 => Some("qwen2"),
            Self::Qwen3 => Some("qwen3"),
            Self::Gemma2 => Some("gemma2"),
            Self::Gemma3 => Some("gemma3"),
        }
    }

    /// What `config.json` calls it.
    pub fn huggingface_name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// Which values of a head turn together in GGUF files: their converter reorders the rows of
    /// Llama's query and key matrices for neighbouring pairs. Safetensors have halves.
    pub(crate) fn gguf_rope_style(self) -> RopeStyle {
        match self {
            Self::Llama | Self::Mistral => RopeStyle::Interleaved,
            Self::Qwen2 | Self::Qwen3 | Self::Gemma2 | Self::Gemma3 => RopeStyle::Halves,
        }
    }

    /// Whether each head's queries and keys are normalised before they turn.
    pub(crate) fn has_head_norms(self) -> bool {
        match self {
            Self::Qwen3 | Self::Gemma3 => true,
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Gemma2 => false,
        }
    }

    /// Gemma's: norms behind attention and feed-forward, GELU, an embedding that is scaled, the
    /// table as output layer.
    pub(crate) fn is_gemma(self) -> bool {
        match self {
            Self::Gemma2 | Self::Gemma3 => true,
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => false,
        }
    }

    pub(crate) fn gate(self) -> Gate {
        if self.is_gemma() { Gate::Gelu } else { Gate::Silu }
    }

    /// Of how many layers the last sees everything, when the file gives a window and does not say;
    /// `None`: every layer has the window.
    pub(crate) fn window_period(self) -> Option<usize> {
        match self {
            Self::Gemma2 => Some(2),
            Self::Gemma3 => Some(6),
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => None,
        }
    }
}
