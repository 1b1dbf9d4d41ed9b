//! The tensors of a hub's file under the names that the layers ask for: as floats, renamed, and
//! with factors multiplied into the layer before them.

use std::collections::HashMap;

use aisemble_weights::candle::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::weights_file::{Tensors, WeightsError};

/// Tensors of a file, by name.
#[derive(Debug, Default)]
pub(super) struct Named {
    tensors: HashMap<String, Tensor>,
}

impl Named {
    /// All tensors of a file; numbers of positions, which some files carry, are left out.
    pub(super) fn read(file: &Tensors<'_>) -> std::result::Result<Self, WeightsError> {
        let mut tensors = HashMap::new();
        for name in file.names().filter(|name| !name.ends_with("position_ids")) {
            let tensor = file.tensor(&name)?;
            tensors.insert(name, tensor);
        }
        Ok(Self { tensors })
    }

    /// Weights and biases.
    pub(super) fn parameters(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.elem_count() as u64).sum()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn insert(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// The one value of a tensor of one value.
    pub(super) fn scalar(&self, name: &str) -> Option<f32> {
        let values: Vec<f32> = self.get(name)?.flatten_all().ok()?.to_vec1().ok()?;
        <[f32; 1]>::try_from(values).ok().map(|[value]| value)
    }

    /// Gives each tensor the name that `rename` says; one without a name is left out.
    pub(super) fn renamed(self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let named = |(name, tensor): (String, Tensor)| Some((rename(&name)?, tensor));
        Self { tensors: self.tensors.into_iter().filter_map(named).collect() }
    }

    /// The same, where `alias` is missing and `name` is there.
    pub(super) fn tied(&mut self, alias: &str, name: &str) {
        if !self.tensors.contains_key(alias)
            && let Some(tensor) = self.tensors.get(name).cloned()
        {
            self.insert(alias, tensor);
        }
    }

    /// Multiplies each output of the linear layer `layer` by its value in `factors`, and forgets
    /// `factors`. Nothing is done where either is missing: the layer's own error names it.
    pub(super) fn fold(&mut self, factors: &str, layer: &str) -> Result<()> {
        let Some(factors) = self.tensors.remove(factors) else { return Ok(()) };
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        if let Some(found) = self.tensors.get_mut(&weight) {
            *found = found.broadcast_mul(&factors.unsqueeze(1)?)?;
        }
        if let Some(found) = self.tensors.get_mut(&bias) {
            *found = found.mul(&factors)?;
        }
        Ok(())
    }

    /// What layers take their tensors from. Tensors are shared, not copied.
    pub(super) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_tensors(self.tensors.clone(), DType::F32, &Device::Cpu)
    }
}
