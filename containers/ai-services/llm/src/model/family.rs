//! What distinguishes the families of decoder-only models that share this decoder. A new family is
//! a new arm here and a reference check in the tests, not a copy of the decoder.

use aisemble_weights::kernels::RopeStyle;

/// A family that has been checked against a reference on real weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and what shares its layers: SmolLM2, Llama 2 and 3, Mistral without a window.
    Llama,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 1] = [Self::Llama];

    /// The family of `general.architecture`; `None` when there is no decoder for it.
    #[must_use]
    pub fn of(architecture: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == architecture)
    }

    /// The name that GGUF gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
        }
    }

    /// Which values of a head turn together. llama.cpp's converter reorders the rows of Llama's
    /// query and key matrices for neighbouring pairs; other families keep halves.
    pub(super) fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Interleaved,
        }
    }
}
