//! A `TensorProto`: data type, dimensions, and elements either raw or in the field of their type.
//! Source: onnx/onnx, `onnx.proto`.

use std::borrow::Cow;

use crate::budget::Budget;
use crate::error::ConvertError;
use crate::limits::RANK_MAX;
use crate::protobuf::fields;
use crate::tensor::{Element, Tensor, bytes_of};

/// A tensor as the file describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Description<'a> {
    pub(super) name: &'a str,
    shape: Vec<u64>,
    data_type: u64,
    raw: Option<&'a [u8]>,
    /// `float_data` or `double_data`, little-endian.
    fixed: Vec<u8>,
    /// `int32_data`, `int64_data` or `uint64_data`.
    numbers: Vec<u64>,
    is_external: bool,
}

impl<'a> Description<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, ConvertError> {
        let mut found = Self::default();
        for field in fields(message) {
            let (number, value) = field?;
            match number {
                1 => value.varints(&mut found.shape)?,
                2 => found.data_type = value.varint().unwrap_or(0),
                4 => value.fixed(4, &mut found.fixed)?,
                10 => value.fixed(8, &mut found.fixed)?,
                5 | 7 | 11 => value.varints(&mut found.numbers)?,
                8 => found.name = value.text().unwrap_or_default(),
                9 => found.raw = value.bytes(),
                13 => found.is_external = true,
                14 => found.is_external |= value.varint() == Some(1),
                _ => {}
            }
        }
        if found.shape.len() > RANK_MAX {
            return Err(ConvertError::tensor(found.name, "it has more than 8 dimensions"));
        }
        Ok(found)
    }

    /// Whether its elements are of a type that safetensors has; text and 4-bit numbers are not.
    pub(super) fn element(&self) -> Option<Element> {
        match self.data_type {
            1 => Some(Element::F32),
            2 => Some(Element::U8),
            3 => Some(Element::I8),
            4 => Some(Element::U16),
            5 => Some(Element::I16),
            6 => Some(Element::I32),
            7 => Some(Element::I64),
            9 => Some(Element::Bool),
            10 => Some(Element::F16),
            11 => Some(Element::F64),
            12 => Some(Element::U32),
            13 => Some(Element::U64),
            16 => Some(Element::Bf16),
            _ => None,
        }
    }

    /// The tensor, under `name`.
    pub(super) fn tensor(
        &self,
        name: &str,
        budget: &mut Budget,
    ) -> Result<Tensor<'a>, ConvertError> {
        if self.is_external {
            let why = "its data lies in another file; ONNX files must hold their data themselves";
            return Err(ConvertError::tensor(name, why));
        }
        let why = "its elements are of a type that is not taken";
        let element = self.element().ok_or_else(|| ConvertError::tensor(name, why))?;
        let bytes = bytes_of(name, element, &self.shape)?;
        budget.charge(bytes / element.bytes() as u64, element.bytes())?;
        let data = match self.raw {
            Some(raw) => Cow::Borrowed(raw),
            None => Cow::Owned(self.listed(element)),
        };
        Tensor::new(name, element, self.shape.clone(), data)
    }

    /// The elements from the field of their type. Narrow ones lie in `int32_data`, the lowest bytes
    /// of each number.
    fn listed(&self, element: Element) -> Vec<u8> {
        match element {
            Element::F32 | Element::F64 => self.fixed.clone(),
            Element::F16 | Element::Bf16 | Element::Bool => self.narrowed(element.bytes()),
            Element::I64 | Element::I32 | Element::I16 | Element::I8 => {
                self.narrowed(element.bytes())
            }
            Element::U64 | Element::U32 | Element::U16 | Element::U8 => {
                self.narrowed(element.bytes())
            }
        }
    }

    fn narrowed(&self, width: usize) -> Vec<u8> {
        let lowest = |number: &u64| number.to_le_bytes().into_iter().take(width);
        self.numbers.iter().flat_map(lowest).collect()
    }
}
