//! The wire format of protocol buffers, read without a schema: fields by number, nested messages as
//! slices of the source. Whoever calls says which fields mean what.
//! Source: protobuf.dev, "Encoding".

use crate::error::ConvertError;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2: text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// The fields of a message, one after the other. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

/// Reads `message` as fields.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { message, at: 0 }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), ConvertError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), ConvertError> {
        let tag = self.varint()?;
        let malformed = |what| ConvertError::Malformed { what, at: self.at };
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| malformed("a field without a number"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Value::Fixed32(self.array()?),
            _ => return Err(malformed("a field of an unknown wire type")),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, ConvertError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ConvertError::Malformed { what: "a number of more than 10 bytes", at: self.at })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ConvertError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.message.len());
        let end = end.ok_or(ConvertError::Ends { what: "a message", at: self.at })?;
        let taken = &self.message[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConvertError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

impl<'a> Value<'a> {
    /// A nested message or bytes.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// A text.
    pub(crate) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number, when it is one varint.
    pub(crate) fn varint(self) -> Option<u64> {
        if let Self::Varint(number) = self { Some(number) } else { None }
    }

    /// A repeated number field, packed or not: adds its numbers to `into`.
    pub(crate) fn varints(self, into: &mut Vec<u64>) -> Result<(), ConvertError> {
        match self {
            Self::Varint(number) => into.push(number),
            Self::Bytes(packed) => {
                let mut packed = fields(packed);
                while packed.at < packed.message.len() {
                    into.push(packed.varint()?);
                }
            }
            Self::Fixed32(_) | Self::Fixed64(_) => {
                return Err(ConvertError::Malformed { what: "numbers of another type", at: 0 });
            }
        }
        Ok(())
    }

    /// A repeated field of fixed width, packed or not: adds its bytes to `into`.
    pub(crate) fn fixed(self, width: usize, into: &mut Vec<u8>) -> Result<(), ConvertError> {
        match self {
            Self::Fixed32(bytes) if width == 4 => into.extend_from_slice(&bytes),
            Self::Fixed64(bytes) if width == 8 => into.extend_from_slice(&bytes),
            Self::Bytes(packed) if packed.len().is_multiple_of(width) => {
                into.extend_from_slice(packed);
            }
            Self::Fixed32(_) | Self::Fixed64(_) | Self::Bytes(_) | Self::Varint(_) => {
                return Err(ConvertError::Malformed { what: "numbers of another type", at: 0 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! Writes messages for tests.

    pub(crate) fn varint(mut number: u64, into: &mut Vec<u8>) {
        while number >= 0x80 {
            into.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        into.push(number as u8);
    }

    pub(crate) fn number(field: u32, value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(u64::from(field) << 3, &mut bytes);
        varint(value, &mut bytes);
        bytes
    }

    pub(crate) fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(u64::from(field) << 3 | 2, &mut bytes);
        varint(content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_and_a_cut_is_told() {
        let mut message = sample::number(1, 300);
        message.extend(sample::bytes(2, b"abc"));
        message.extend([3 << 3 | 5, 1, 2, 3, 4]);
        let read: Vec<_> = fields(&message).collect::<Result<_, _>>().unwrap();
        let expect =
            [(1, Value::Varint(300)), (2, Value::Bytes(b"abc")), (3, Value::Fixed32([1, 2, 3, 4]))];
        assert_eq!(read, expect);
        for cut in 1..message.len() {
            let whole = fields(&message[..cut]).filter(Result::is_ok).count();
            assert!(whole < 3, "{cut}");
        }
        let endless = [0xff; 11];
        assert!(fields(&endless).next().unwrap().is_err());
    }

    #[test]
    fn packed_and_single_numbers_are_the_same() {
        let (mut packed, mut single) = (Vec::new(), Vec::new());
        Value::Bytes(&[1, 0x80, 1]).varints(&mut packed).unwrap();
        Value::Varint(1).varints(&mut single).unwrap();
        Value::Varint(128).varints(&mut single).unwrap();
        assert_eq!(packed, single);
        assert!(Value::Bytes(&[0x80]).varints(&mut packed).is_err());
        assert!(Value::Bytes(&[1, 2, 3]).fixed(4, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let read = fields(&bytes).count();
            prop_assert!(read <= bytes.len());
            for (_, value) in fields(&bytes).flatten() {
                let _ = value.varints(&mut Vec::new());
                let _ = value.fixed(8, &mut Vec::new());
            }
        }
    }
}
