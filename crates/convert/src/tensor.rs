//! One tensor on its way from a foreign file to safetensors: its elements' type, its shape, and its
//! bytes in row-major order. It knows no file format.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::error::ConvertError;
use crate::limits::{NAME_BYTES_MAX, RANK_MAX};

/// Type of a tensor's elements, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float, IEEE.
    F16,
    /// 16-bit float, the upper half of an f32.
    Bf16,
    /// 64-bit signed.
    I64,
    /// 32-bit signed.
    I32,
    /// 16-bit signed.
    I16,
    /// 8-bit signed.
    I8,
    /// 64-bit unsigned.
    U64,
    /// 32-bit unsigned.
    U32,
    /// 16-bit unsigned.
    U16,
    /// 8-bit unsigned.
    U8,
    /// A byte, 0 or 1.
    Bool,
}

/// What floating-point weights become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats: half the size; a weight beyond ±65504 is refused.
    F16,
}

impl Element {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Its name in a safetensors header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    pub(crate) fn is_float(self) -> bool {
        match self {
            Self::F64 | Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::I64 | Self::I32 | Self::I16 | Self::I8 => false,
            Self::U64 | Self::U32 | Self::U16 | Self::U8 | Self::Bool => false,
        }
    }
}

/// A tensor with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Cow<'a, [u8]>,
}

impl<'a> Tensor<'a> {
    /// A tensor whose bytes are as many as its shape says.
    pub(crate) fn new(
        name: &str,
        element: Element,
        shape: Vec<u64>,
        data: Cow<'a, [u8]>,
    ) -> Result<Self, ConvertError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ConvertError::Limit { what: "bytes of a tensor's name", limit: 512 });
        }
        let bytes = bytes_of(name, element, &shape)?;
        if data.len() as u64 != bytes {
            return Err(ConvertError::tensor(name, "its data is not as long as its shape says"));
        }
        Ok(Self { name: name.to_owned(), element, shape, data })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of its elements.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// Its dimensions, outermost first; none for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Its elements, row-major, little-endian.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The same with floats in the wanted precision; integers stay as they are.
    pub(crate) fn with_precision(self, precision: Precision) -> Result<Self, ConvertError> {
        let target = match precision {
            Precision::F32 => Element::F32,
            Precision::F16 => Element::F16,
        };
        if !self.element.is_float() || self.element == target {
            return Ok(self);
        }
        let count = self.data.len() / self.element.bytes();
        let mut data = Vec::with_capacity(count * target.bytes());
        for value in floats(self.element, &self.data) {
            match precision {
                #[expect(clippy::cast_possible_truncation, reason = "that is the conversion")]
                Precision::F32 => data.extend_from_slice(&(value as f32).to_le_bytes()),
                Precision::F16 => {
                    let narrow = f16::from_f64(value);
                    if narrow.is_infinite() && value.is_finite() {
                        let why = "a weight is too large for 16-bit floats; convert to f32";
                        return Err(ConvertError::tensor(&self.name, why));
                    }
                    data.extend_from_slice(&narrow.to_le_bytes());
                }
            }
        }
        Ok(Self { element: target, data: Cow::Owned(data), ..self })
    }
}

/// How many bytes the shape asks for.
pub(crate) fn bytes_of(name: &str, element: Element, shape: &[u64]) -> Result<u64, ConvertError> {
    if shape.len() > RANK_MAX {
        return Err(ConvertError::tensor(name, "it has more than 8 dimensions"));
    }
    let count = shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size));
    count
        .and_then(|count| count.checked_mul(element.bytes() as u64))
        .ok_or_else(|| ConvertError::tensor(name, "its shape overflows"))
}

fn floats(element: Element, data: &[u8]) -> impl Iterator<Item = f64> + '_ {
    data.chunks_exact(element.bytes()).map(move |bytes| match (element, bytes) {
        (Element::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (Element::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (Element::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f64(),
        (Element::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f64(),
        _ => f64::NAN,
    })
}

/// Picks a strided view out of a storage, row-major. None when the view reaches outside.
pub(crate) fn gather<'a>(storage: &'a [u8], view: &View<'_>) -> Option<Cow<'a, [u8]>> {
    let width = view.element.bytes();
    let count = view.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size))?;
    if count == 0 {
        return Some(Cow::Borrowed(&[]));
    }
    // The last element of the view; every other one lies before it.
    let mut last = view.offset;
    for (size, stride) in view.shape.iter().zip(view.strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    if last >= (storage.len() / width) as u64 {
        return None;
    }
    let start = usize::try_from(view.offset).ok()?.checked_mul(width)?;
    let bytes = usize::try_from(count).ok()?.checked_mul(width)?;
    if is_row_major(view) {
        return storage.get(start..start.checked_add(bytes)?).map(Cow::Borrowed);
    }
    let mut data = Vec::with_capacity(bytes);
    let mut index = vec![0_u64; view.shape.len()];
    for _ in 0..count {
        let steps = index.iter().zip(view.strides).map(|(at, stride)| at * stride).sum::<u64>();
        let at = usize::try_from(view.offset + steps).ok()? * width;
        data.extend_from_slice(storage.get(at..at + width)?);
        for (at, size) in index.iter_mut().zip(view.shape).rev() {
            *at += 1;
            if *at < *size {
                break;
            }
            *at = 0;
        }
    }
    Some(Cow::Owned(data))
}

/// A strided view of a storage; offset and strides in elements.
pub(crate) struct View<'a> {
    pub(crate) element: Element,
    pub(crate) offset: u64,
    pub(crate) shape: &'a [u64],
    pub(crate) strides: &'a [u64],
}

fn is_row_major(view: &View<'_>) -> bool {
    let mut expected = 1_u64;
    for (size, stride) in view.shape.iter().zip(view.strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(*size);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn view<'a>(offset: u64, shape: &'a [u64], strides: &'a [u64]) -> View<'a> {
        View { element: Element::F32, offset, shape, strides }
    }

    #[test]
    fn a_view_is_gathered_in_row_major_order() {
        let storage = f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let check = |view: View<'_>, expect: Option<&[f32]>| {
            assert_eq!(gather(&storage, &view).map(Cow::into_owned), expect.map(f32s));
        };
        check(view(0, &[2, 3], &[3, 1]), Some(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        check(view(0, &[3, 2], &[1, 3]), Some(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        check(view(4, &[2], &[1]), Some(&[4.0, 5.0]));
        check(view(4, &[3], &[1]), None);
        check(view(5, &[], &[]), Some(&[5.0]));
        check(view(6, &[], &[]), None);
        check(view(u64::MAX, &[2], &[u64::MAX]), None);
        check(view(9, &[0, 4], &[1, 1]), Some(&[]));
        check(view(1, &[3], &[0]), Some(&[1.0, 1.0, 1.0]));
    }

    #[test]
    fn precision_changes_floats_only() {
        let tensor = |element, data: Vec<u8>, count| {
            Tensor::new("w", element, vec![count], Cow::Owned(data)).unwrap()
        };
        let wide = tensor(Element::F64, 0.5_f64.to_le_bytes().to_vec(), 1);
        assert_eq!(wide.with_precision(Precision::F32).unwrap().data, f32s(&[0.5]));
        let narrow = tensor(Element::F32, f32s(&[1.5, -2.0]), 2);
        let narrow = narrow.with_precision(Precision::F16).unwrap();
        let expect = [f16::from_f32(1.5).to_le_bytes(), f16::from_f32(-2.0).to_le_bytes()];
        assert_eq!((narrow.element, narrow.data), (Element::F16, expect.concat().into()));
        let brain = tensor(Element::Bf16, bf16::from_f32(3.0).to_le_bytes().to_vec(), 1);
        assert_eq!(brain.with_precision(Precision::F32).unwrap().data, f32s(&[3.0]));
        let large = tensor(Element::F32, f32s(&[1e9]), 1);
        assert!(
            large.with_precision(Precision::F16).unwrap_err().to_string().contains("too large")
        );
        let whole = tensor(Element::I64, 7_i64.to_le_bytes().to_vec(), 1);
        assert_eq!(whole.clone().with_precision(Precision::F16).unwrap(), whole);
    }

    #[test]
    fn data_that_does_not_fit_the_shape_is_refused() {
        let new = |shape: &[u64], bytes: usize| {
            Tensor::new("w", Element::F32, shape.to_vec(), Cow::Owned(vec![0; bytes])).is_ok()
        };
        assert!(new(&[2, 2], 16) && new(&[], 4) && new(&[0], 0));
        assert!(!new(&[2, 2], 15) && !new(&[u64::MAX, 2], 16) && !new(&[1; 9], 4));
        let long = Tensor::new(&"n".repeat(513), Element::U8, vec![1], Cow::Owned(vec![0]));
        assert!(long.is_err());
    }
}
