//! Metadata values, borrowed from the mapped file: a vocabulary of 50,000 strings costs nothing
//! until it is walked. It knows the encoding of values, not their meaning.

use super::cursor::Cursor;
use super::error::GgufError;
use super::limits;

/// Type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Float, 32 bits.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// Bytes that should be UTF-8.
    String,
    /// Values of one type.
    Array,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Float, 64 bits.
    F64,
}

impl ValueType {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value of fixed size; `None` for strings and arrays.
    pub(super) fn fixed_bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Bytes that should be UTF-8: see [`Value::as_str`].
    String(&'a [u8]),
    /// Values of one type.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// An integer that is not negative, of any width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            Self::Float(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// A float, or an integer as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            Self::Unsigned(_)
            | Self::Signed(_)
            | Self::Float(_)
            | Self::String(_)
            | Self::Array(_) => None,
        }
    }

    /// A string that is valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::String(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Unsigned(_)
            | Self::Signed(_)
            | Self::Float(_)
            | Self::Bool(_)
            | Self::Array(_) => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(array) => Some(array),
            Self::Unsigned(_)
            | Self::Signed(_)
            | Self::Float(_)
            | Self::Bool(_)
            | Self::String(_) => None,
        }
    }

    /// The kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }
}

/// An array value, still encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(super) element: ValueType,
    pub(super) len: u64,
    /// Exactly the encoded elements, walked once when the file was opened.
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Type of the elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // At most `limits::ARRAY_LEN_MAX`, checked when the file was opened.
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, decoded one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes);
        let element = self.element;
        // The walk at open proved that every element decodes; an error here cannot happen and would
        // end the iteration.
        (0..self.len).map_while(move |_| read(&mut cursor, element, "array element", 0).ok())
    }
}

/// Decodes a value of type `kind` at the cursor; `field` is for messages.
pub(super) fn read<'a>(
    cursor: &mut Cursor<'a>,
    kind: ValueType,
    field: &str,
    nesting: u32,
) -> Result<Value<'a>, GgufError> {
    Ok(match kind {
        ValueType::U8 => Value::Unsigned(u64::from(u8::from_le_bytes(cursor.fixed(field)?))),
        ValueType::I8 => Value::Signed(i64::from(i8::from_le_bytes(cursor.fixed(field)?))),
        ValueType::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(cursor.fixed(field)?))),
        ValueType::I16 => Value::Signed(i64::from(i16::from_le_bytes(cursor.fixed(field)?))),
        ValueType::U32 => Value::Unsigned(u64::from(u32::from_le_bytes(cursor.fixed(field)?))),
        ValueType::I32 => Value::Signed(i64::from(i32::from_le_bytes(cursor.fixed(field)?))),
        ValueType::U64 => Value::Unsigned(u64::from_le_bytes(cursor.fixed(field)?)),
        ValueType::I64 => Value::Signed(i64::from_le_bytes(cursor.fixed(field)?)),
        ValueType::F32 => Value::Float(f64::from(f32::from_le_bytes(cursor.fixed(field)?))),
        ValueType::F64 => Value::Float(f64::from_le_bytes(cursor.fixed(field)?)),
        ValueType::Bool => {
            let offset = cursor.position();
            match u8::from_le_bytes(cursor.fixed(field)?) {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => {
                    let reason = format!("a bool of {other}");
                    return Err(GgufError::Invalid { field: field.to_owned(), offset, reason });
                }
            }
        }
        ValueType::String => Value::String(cursor.string(field, limits::STRING_BYTES_MAX)?),
        ValueType::Array => Value::Array(read_array(cursor, field, nesting)?),
    })
}

fn read_array<'a>(
    cursor: &mut Cursor<'a>,
    field: &str,
    nesting: u32,
) -> Result<Array<'a>, GgufError> {
    let offset = cursor.position();
    if nesting >= limits::ARRAY_NESTING_MAX {
        let (found, limit) = (u64::from(nesting) + 1, u64::from(limits::ARRAY_NESTING_MAX));
        return Err(GgufError::Limit {
            field: format!("nesting of {field}"),
            offset,
            found,
            limit,
        });
    }
    let element = read_type(cursor, field)?;
    let len = cursor.count(&format!("length of {field}"), limits::ARRAY_LEN_MAX)?;
    let begin = *cursor;
    match element.fixed_bytes() {
        Some(_) if element == ValueType::Bool => {
            for _ in 0..len {
                read(cursor, element, field, nesting + 1)?;
            }
        }
        // `len` is limited, so the product is far from overflow.
        Some(bytes) => {
            cursor.take(len * bytes, field)?;
        }
        None => {
            for _ in 0..len {
                read(cursor, element, field, nesting + 1)?;
            }
        }
    }
    Ok(Array { element, len, bytes: begin.up_to(cursor) })
}

pub(super) fn read_type(cursor: &mut Cursor<'_>, field: &str) -> Result<ValueType, GgufError> {
    let offset = cursor.position();
    let number = u32::from_le_bytes(cursor.fixed(field)?);
    ValueType::from_number(number).ok_or_else(|| GgufError::Invalid {
        field: format!("type of {field}"),
        offset,
        reason: format!("type number {number} is unknown"),
    })
}
