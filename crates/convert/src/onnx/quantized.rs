//! Weights behind a `DequantizeLinear` node: `(quantised - zero point) * scale`, with one scale for
//! all elements or one for each index of an axis.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::tensor::Description;
use super::{Node, Scales};
use crate::budget::Budget;
use crate::error::ConvertError;
use crate::tensor::{Element, Tensor};

/// What exporters append to the name of a weight that they quantise.
const SUFFIX: &str = "_quantized";

/// One weight that becomes floats again.
#[derive(Debug, Clone)]
pub(super) struct Weight<'a> {
    /// Of the initializer.
    source: &'a str,
    /// As the weight was called before.
    name: &'a str,
    scale: &'a str,
    zero_point: Option<&'a str>,
    axis: i64,
}

/// All of them, by the initializer's name.
#[derive(Debug, Default)]
pub(super) struct Dequantized<'a> {
    weights: BTreeMap<&'a str, Weight<'a>>,
    scales: Scales<'a>,
}

impl<'a> Dequantized<'a> {
    pub(super) fn find(
        nodes: &[Node<'a>],
        weights: &BTreeMap<&'a str, Description<'a>>,
    ) -> Result<Self, ConvertError> {
        let mut found = Self::default();
        // A weight may be used as it is, too: then it stays.
        let mut otherwise_used = BTreeSet::new();
        for node in nodes {
            let is_scaling = matches!(node.operator, "DequantizeLinear" | "QuantizeLinear");
            if !is_scaling {
                otherwise_used.extend(node.inputs.iter().copied());
                continue;
            }
            found.scales.extend(node.inputs.iter().skip(1).copied());
            let (Some(source), Some(scale)) = (node.inputs.first(), node.inputs.get(1)) else {
                continue;
            };
            let is_weight = node.operator == "DequantizeLinear" && weights.contains_key(source);
            if !is_weight {
                continue;
            }
            if node.is_blocked {
                let why = "it is scaled in blocks, which is not taken";
                return Err(ConvertError::tensor(source, why));
            }
            let before = source.strip_suffix(SUFFIX).filter(|name| !weights.contains_key(name));
            let weight = Weight {
                source,
                name: before.unwrap_or(source),
                scale,
                zero_point: node.inputs.get(2).copied().filter(|name| !name.is_empty()),
                axis: node.axis.unwrap_or(1),
            };
            found.weights.insert(source, weight);
        }
        found.scales.retain(|name| !otherwise_used.contains(name));
        found.weights.retain(|name, _| !otherwise_used.contains(name));
        Ok(found)
    }

    pub(super) fn of(&self, name: &str) -> Option<&Weight<'a>> {
        self.weights.get(name)
    }

    /// Whether the name is nothing but a scale or zero point.
    pub(super) fn is_scale(&self, name: &str) -> bool {
        self.scales.contains(name)
    }
}

impl Weight<'_> {
    /// The weight in 32-bit floats.
    pub(super) fn tensor<'a>(
        &self,
        weights: &BTreeMap<&str, Description<'a>>,
        budget: &mut Budget,
    ) -> Result<Tensor<'a>, ConvertError> {
        let wrong = |why| ConvertError::tensor(self.source, why);
        let mut get = |name: &str| match weights.get(name) {
            Some(description) => description.tensor(name, budget),
            None => Err(wrong("its scale or zero point is not in the file")),
        };
        let (quantized, scale) = (get(self.source)?, get(self.scale)?);
        let zero_point = self.zero_point.map(&mut get).transpose()?;
        let numbers = whole(&quantized).ok_or_else(|| wrong("it is not of whole numbers"))?;
        let scales = singles(&scale).ok_or_else(|| wrong("its scale is not of 32-bit floats"))?;
        let zeros = match &zero_point {
            None => vec![0; scales.len()],
            Some(zeros) => {
                let why = "its zero point is not of whole numbers";
                whole(zeros).ok_or_else(|| wrong(why))?
            }
        };
        if scales.is_empty() || zeros.len() != scales.len() {
            return Err(wrong("its scale and zero point are not of the same length"));
        }
        let inner = self.inner(&quantized.shape, scales.len());
        let inner = inner.ok_or_else(|| wrong("its scales do not fit its axis"))?;
        let mut data = Vec::with_capacity(numbers.len() * 4);
        for (at, number) in numbers.iter().enumerate() {
            let which = at / inner % scales.len();
            #[expect(clippy::cast_precision_loss, reason = "32-bit biases round as onnxruntime's")]
            let value = (number - zeros[which]) as f32 * scales[which];
            data.extend_from_slice(&value.to_le_bytes());
        }
        Tensor::new(self.name, Element::F32, quantized.shape, Cow::Owned(data))
    }

    /// How many elements in a row have the same scale.
    fn inner(&self, shape: &[u64], scales: usize) -> Option<usize> {
        if scales == 1 {
            return Some(1);
        }
        let rank = i64::try_from(shape.len()).ok()?;
        let axis = if self.axis < 0 { self.axis.checked_add(rank)? } else { self.axis };
        let axis = usize::try_from(axis).ok()?;
        if *shape.get(axis)? != scales as u64 {
            return None;
        }
        let inner = shape[axis + 1..].iter().try_fold(1_u64, |inner, s| inner.checked_mul(*s))?;
        usize::try_from(inner).ok().map(|inner| inner.max(1))
    }
}

fn whole(tensor: &Tensor<'_>) -> Option<Vec<i64>> {
    let data = &tensor.data;
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these are quantised types")]
    let numbers = match tensor.element {
        Element::I8 => data.iter().map(|byte| i64::from(byte.cast_signed())).collect(),
        Element::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
        Element::I16 => wide::<2>(data, |bytes| i16::from_le_bytes(bytes).into()),
        Element::U16 => wide::<2>(data, |bytes| u16::from_le_bytes(bytes).into()),
        Element::I32 => wide::<4>(data, |bytes| i32::from_le_bytes(bytes).into()),
        _ => return None,
    };
    Some(numbers)
}

fn wide<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> i64) -> Vec<i64> {
    data.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
}

fn singles(tensor: &Tensor<'_>) -> Option<Vec<f32>> {
    let values = tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (tensor.element == Element::F32).then(|| values.collect())
}
