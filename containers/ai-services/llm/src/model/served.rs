//! What the weights are served as, for Describe and the log.

use std::collections::BTreeMap;

use aisemble_weights::gguf::TensorType;
use aisemble_weights::{ModelSource, Quantise};

/// The quantisation of the most values of the file's matrices, as it is served: `Q4_1`, or
/// `Q8_0 (from Q3_K)` when it is requantised at load: asked for, or no kernel takes the type.
#[must_use]
pub fn quantization(source: &dyn ModelSource) -> String {
    let mut values: BTreeMap<String, (usize, TensorType)> = BTreeMap::new();
    for name in source.tensor_names() {
        let Ok(view) = source.tensor(name) else { continue };
        if let [rows, cols] = view.dims {
            values.entry(type_name(view.kind)).or_insert((0, view.kind)).0 += rows * cols;
        }
    }
    let most = values.into_iter().max_by_key(|(_, (count, _))| *count);
    most.map_or_else(String::new, |(name, (_, kind))| {
        let is_asked = source.quantise() == Quantise::Q8_0 && kind.is_float();
        if kind.has_kernel() && !is_asked { name } else { format!("Q8_0 (from {name})") }
    })
}

/// The name as model files carry it: `Q4_K`, `Q8_0`, `BF16`.
fn type_name(kind: TensorType) -> String {
    let name = format!("{kind:?}").to_uppercase();
    match name.strip_suffix('K') {
        Some(bits) => format!("{bits}_K"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_model_files_are() {
        let names = [TensorType::Q4K, TensorType::Q8_0, TensorType::Bf16].map(type_name);
        assert_eq!(names, ["Q4_K", "Q8_0", "BF16"]);
    }
}
