//! Memory that calls of a pool reuse, so that a step of a model allocates nothing once warm.

use crate::activations::Activations;

/// Scratch of the matrix products and of attention.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Activations, arranged for the matrix kernel.
    pub(crate) activations: Activations,
    /// Results of parts of long contexts, before they are merged.
    pub(crate) partials: Vec<f32>,
}
