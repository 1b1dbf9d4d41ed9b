//! Sizes of an encoder whose package has no `config.json`, from the shapes of its tensors. What
//! shapes do not say is what every published model of the family has.

use super::family::Family;
use super::names::Names;
use super::shape::{ConfigJson, Sizes};
use crate::tensors::{TensorError, TensorFile};

/// Values of a head in BERT and DistilBERT.
const HEAD_DIM: usize = 64;
/// Layers that are looked for.
const LAYERS_MAX: usize = 128;

/// The configuration that the tensors imply.
///
/// # Errors
/// When a table is missing.
pub fn config(file: &TensorFile, names: &Names, family: Family) -> Result<ConfigJson, TensorError> {
    let rows = |name: &str| -> Result<usize, TensorError> {
        Ok(file.shape(&names.inner(name))?.first().copied().unwrap_or(0))
    };
    let hidden = rows("embeddings.LayerNorm.weight")?;
    let layers = (0..LAYERS_MAX).take_while(|layer| {
        let [norm, _] = names.norms(*layer);
        file.has(&format!("{norm}.weight")) || file.has(&format!("{norm}.gamma"))
    });
    let up = names.linear(file, 0, super::names::Part::Up).bias;
    let intermediate = file.shape(&up)?.first().copied().unwrap_or(0);
    Ok(ConfigJson::of_sizes(
        family,
        Sizes {
            hidden,
            layers: layers.count(),
            heads: hidden / HEAD_DIM,
            intermediate,
            vocabulary: rows("embeddings.word_embeddings.weight")?,
            positions: rows("embeddings.position_embeddings.weight")?,
        },
    ))
}
