//! Writes tensors as a safetensors file: an 8-byte length, a JSON header, the data. The same
//! tensors give the same bytes, on every machine and in every version of this crate's dependencies.

use std::fmt::Write as _;
use std::io::Write;

use crate::tensor::Tensor;

/// Tensors, and what is to be said of them in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safetensors<'a> {
    tensors: Vec<Tensor<'a>>,
    metadata: Vec<(&'static str, String)>,
}

impl<'a> Safetensors<'a> {
    /// Wider elements first, so that each lies on a multiple of its size; then by name.
    pub(crate) fn new(
        mut tensors: Vec<Tensor<'a>>,
        mut metadata: Vec<(&'static str, String)>,
    ) -> Self {
        tensors.sort_by(|a, b| {
            b.element.bytes().cmp(&a.element.bytes()).then_with(|| a.name.cmp(&b.name))
        });
        metadata.sort();
        Self { tensors, metadata }
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let data: u64 = self.tensors.iter().map(|tensor| tensor.data.len() as u64).sum();
        8 + self.header().len() as u64 + data
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When `sink` does not take it.
    pub fn write_to(&self, sink: &mut impl Write) -> std::io::Result<()> {
        let header = self.header();
        sink.write_all(&(header.len() as u64).to_le_bytes())?;
        sink.write_all(header.as_bytes())?;
        for tensor in &self.tensors {
            sink.write_all(&tensor.data)?;
        }
        Ok(())
    }

    /// The header, padded with spaces to a multiple of 8 bytes.
    fn header(&self) -> String {
        let mut text = String::from("{\"__metadata__\":{");
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String does not fail.
            let _ = write!(text, "{comma}{}:{}", quoted(key), quoted(value));
        }
        text.push('}');
        let mut start = 0_u64;
        for tensor in &self.tensors {
            let end = start + tensor.data.len() as u64;
            let (name, element) = (quoted(&tensor.name), tensor.element.as_str());
            let shape: Vec<_> = tensor.shape.iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                ",{name}:{{\"dtype\":\"{element}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
                shape.join(",")
            );
            start = end;
        }
        text.push('}');
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        text
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::tensor::Element;

    #[test]
    fn the_same_tensors_give_the_same_bytes_in_any_order() {
        let tensor = |name: &str, element, shape: &[u64], data: &[u8]| {
            Tensor::new(name, element, shape.to_vec(), Cow::Owned(data.to_vec())).unwrap()
        };
        let tensors = [
            tensor("b", Element::U8, &[3], &[1, 2, 3]),
            tensor("a\"é", Element::F32, &[1], &[0, 0, 128, 63]),
            tensor("n", Element::I64, &[], &[9, 0, 0, 0, 0, 0, 0, 0]),
        ];
        let write = |order: [usize; 3]| {
            let tensors = order.iter().map(|at| tensors[*at].clone()).collect();
            let metadata = vec![("source_sha256", "ab".to_owned()), ("format", "pt".to_owned())];
            let file = Safetensors::new(tensors, metadata);
            let mut bytes = Vec::new();
            file.write_to(&mut bytes).unwrap();
            assert_eq!(file.bytes(), bytes.len() as u64);
            bytes
        };
        let bytes = write([0, 1, 2]);
        assert_eq!(bytes, write([2, 1, 0]));
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let length = usize::try_from(length).unwrap();
        assert_eq!(length % 8, 0);
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        assert_eq!(header["__metadata__"]["source_sha256"], "ab");
        assert_eq!(header["a\"é"]["data_offsets"], serde_json::json!([8, 12]));
        assert_eq!(header["n"]["shape"], serde_json::json!([]));
        assert_eq!(&bytes[8 + length..], [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 63, 1, 2, 3]);
    }
}
