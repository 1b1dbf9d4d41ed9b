//! What a pickle may be made of. Objects lie in one list and name each other by number, so that a
//! file can build a cycle or a deep nest without harm.

use crate::tensor::Element;

/// Number of an object in its pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u32);

/// A name that a weight file may mention. What it means is this crate's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Size,
    Storage(Element),
    UntypedStorage,
}

impl Global {
    /// The name, if it is on the list.
    pub(crate) fn named(module: &str, name: &str) -> Option<Self> {
        let storage = |element| Some(Self::Storage(element));
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensorV2),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "DoubleStorage") => storage(Element::F64),
            ("torch", "FloatStorage") => storage(Element::F32),
            ("torch", "HalfStorage") => storage(Element::F16),
            ("torch", "BFloat16Storage") => storage(Element::Bf16),
            ("torch", "LongStorage") => storage(Element::I64),
            ("torch", "IntStorage") => storage(Element::I32),
            ("torch", "ShortStorage") => storage(Element::I16),
            ("torch", "CharStorage") => storage(Element::I8),
            ("torch", "ByteStorage") => storage(Element::U8),
            ("torch", "BoolStorage") => storage(Element::Bool),
            ("torch.storage", "UntypedStorage") => Some(Self::UntypedStorage),
            _ => None,
        }
    }
}

/// A tensor as the pickle describes it; offset and strides in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorView {
    /// The persistent id of its storage: a tuple.
    pub(crate) storage: Id,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object<'a> {
    None,
    Bool,
    Int(i64),
    /// A whole number of more than 8 bytes, little-endian.
    LongInt(&'a [u8]),
    Float,
    Text(&'a str),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A reference to what lies outside the pickle; the id is a tuple.
    Persistent(Id),
    Tensor(TensorView),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(crate) objects: Vec<Object<'a>>,
    pub(crate) root: Id,
    /// Where it ended in the bytes that it was read from.
    pub(crate) end: usize,
}

impl<'a> Pickle<'a> {
    pub(crate) fn get(&self, id: Id) -> &Object<'a> {
        // Every id was made by the machine for an object that it had just stored.
        &self.objects[id.0 as usize]
    }

    pub(crate) fn text(&self, id: Id) -> Option<&'a str> {
        if let Object::Text(text) = self.get(id) { Some(text) } else { None }
    }

    pub(crate) fn int(&self, id: Id) -> Option<u64> {
        if let Object::Int(number) = self.get(id) { u64::try_from(*number).ok() } else { None }
    }

    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        if let Object::Tuple(items) | Object::List(items) = self.get(id) {
            Some(items)
        } else {
            None
        }
    }
}
