//! PyTorch checkpoints: the tensors that a pickle's dictionaries hold, under the names they have
//! there. The archive format (torch 1.6 and newer) and the one before it differ only in where the
//! bytes of a storage lie.

mod archive;
mod legacy;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub(crate) use archive::read as read_archive;
pub(crate) use legacy::{is_legacy, read as read_legacy};

use crate::budget::Budget;
use crate::error::ConvertError;
use crate::limits::{NAME_BYTES_MAX, NESTING_MAX, STEPS_MAX, STORAGES_MAX, TENSORS_MAX};
use crate::pickle::{Global, Id, Object, Pickle, TensorView};
use crate::tensor::{self, Element, Tensor, View, gather};

/// A storage as a persistent id describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StorageHead<'a> {
    key: &'a str,
    element: Element,
    /// Elements.
    count: u64,
}

/// Every storage that the pickle mentions, by key.
fn storages<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, StorageHead<'a>>, ConvertError> {
    let mut heads = BTreeMap::new();
    for object in &pickle.objects {
        let Object::Persistent(id) = object else { continue };
        let head = storage_head(pickle, *id)?;
        let earlier = heads.insert(head.key, head);
        if earlier.is_some_and(|earlier| earlier != head) {
            return Err(wrong("a storage that is described in two ways"));
        }
        if heads.len() > STORAGES_MAX {
            return Err(ConvertError::Limit { what: "storages", limit: STORAGES_MAX as u64 });
        }
    }
    Ok(heads)
}

/// `("storage", type, key, device, elements)`, and in legacy files a view, which must be none.
fn storage_head<'a>(pickle: &Pickle<'a>, id: Id) -> Result<StorageHead<'a>, ConvertError> {
    let parts = pickle.sequence(id).ok_or_else(|| wrong("a storage without a description"))?;
    let (kind, key, count) = match parts {
        [tag, kind, key, _device, count] if pickle.text(*tag) == Some("storage") => {
            (*kind, *key, *count)
        }
        [tag, kind, key, _device, count, view] if pickle.text(*tag) == Some("storage") => {
            if *pickle.get(*view) != Object::None {
                return Err(wrong("a storage that is a part of another one"));
            }
            (*kind, *key, *count)
        }
        _ => return Err(wrong("a storage whose description is not understood")),
    };
    let element = if let Object::Global(Global::Storage(element)) = pickle.get(kind) {
        *element
    } else if *pickle.get(kind) == Object::Global(Global::UntypedStorage) {
        Element::U8
    } else {
        return Err(wrong("a storage of an unknown type"));
    };
    let key = pickle.text(key).ok_or_else(|| wrong("a storage without a key"))?;
    let count = pickle.int(count).ok_or_else(|| wrong("a storage without a length"))?;
    Ok(StorageHead { key, element, count })
}

/// Collects the tensors of the pickle's root. `bytes_of` gives the bytes of a storage.
fn collect<'a, 'b>(
    pickle: &Pickle<'a>,
    storages: &BTreeMap<&'a str, StorageHead<'a>>,
    bytes_of: impl Fn(&str) -> Option<&'b [u8]>,
    budget: &mut Budget,
) -> Result<Vec<Tensor<'b>>, ConvertError> {
    let mut found = Vec::new();
    let mut walk = Walk { pickle, steps: 0, found: Vec::new() };
    walk.visit(state_dict(pickle), String::new(), 0)?;
    for (name, view) in walk.found {
        let key = pickle.sequence(view.storage).and_then(|parts| pickle.text(*parts.get(2)?));
        let head = key.and_then(|key| storages.get(key));
        let storage = key.and_then(&bytes_of);
        let (Some(head), Some(storage)) = (head, storage) else {
            return Err(ConvertError::tensor(&name, "its storage is not in the file"));
        };
        let bytes = tensor::bytes_of(&name, head.element, &view.shape)?;
        let width = head.element.bytes();
        budget.charge(bytes / width as u64, width)?;
        let part = View {
            element: head.element,
            offset: view.offset,
            shape: &view.shape,
            strides: &view.strides,
        };
        let data = gather(storage, &part)
            .ok_or_else(|| ConvertError::tensor(&name, "it reaches outside its storage"))?;
        found.push(Tensor::new(&name, head.element, view.shape.clone(), data)?);
    }
    Ok(found)
}

/// The dictionary with the weights: the root, or its entry `state_dict` where a training script has
/// wrapped it.
fn state_dict(pickle: &Pickle<'_>) -> Id {
    if let Object::Dict(entries) = pickle.get(pickle.root) {
        for (key, value) in entries {
            let is_dict = matches!(pickle.get(*value), Object::Dict(_));
            if is_dict && pickle.text(*key) == Some("state_dict") {
                return *value;
            }
        }
    }
    pickle.root
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    steps: usize,
    found: Vec<(String, &'p TensorView)>,
}

impl<'p> Walk<'p, '_> {
    /// Names are the keys on the way, joined by full stops. What is no tensor and holds none is
    /// passed over.
    fn visit(&mut self, id: Id, name: String, depth: usize) -> Result<(), ConvertError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(ConvertError::Limit { what: "entries", limit: STEPS_MAX as u64 });
        }
        if depth > NESTING_MAX {
            return Err(ConvertError::Limit { what: "nesting", limit: NESTING_MAX as u64 });
        }
        let pickle = self.pickle;
        match pickle.get(id) {
            Object::Tensor(view) => {
                self.found.push((name, view));
                if self.found.len() > TENSORS_MAX {
                    return Err(ConvertError::Limit { what: "tensors", limit: TENSORS_MAX as u64 });
                }
            }
            Object::Dict(entries) => {
                for (key, value) in entries {
                    let number = || pickle.int(*key).map(|number| number.to_string());
                    let key = pickle.text(*key).map(str::to_owned).or_else(number);
                    let Some(key) = key else { continue };
                    self.visit(*value, joined(&name, &key)?, depth + 1)?;
                }
            }
            Object::List(items) | Object::Tuple(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.visit(*item, joined(&name, &index.to_string())?, depth + 1)?;
                }
            }
            Object::None
            | Object::Bool
            | Object::Int(_)
            | Object::LongInt(_)
            | Object::Float
            | Object::Text(_)
            | Object::Bytes
            | Object::Global(_)
            | Object::Persistent(_) => {}
        }
        Ok(())
    }
}

fn joined(name: &str, key: &str) -> Result<String, ConvertError> {
    if name.len() + key.len() + 1 > NAME_BYTES_MAX {
        let limit = NAME_BYTES_MAX as u64;
        return Err(ConvertError::Limit { what: "bytes of a tensor's name", limit });
    }
    Ok(if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") })
}

/// Bytes of a storage, if they can be counted.
fn storage_bytes(head: &StorageHead<'_>) -> Option<usize> {
    usize::try_from(head.count).ok()?.checked_mul(head.element.bytes())
}

fn wrong(what: &'static str) -> ConvertError {
    ConvertError::Malformed { what, at: 0 }
}

/// The tensors with bytes of their own.
fn owned(tensors: Vec<Tensor<'_>>) -> Vec<Tensor<'static>> {
    let own = |tensor: Tensor<'_>| Tensor {
        name: tensor.name,
        element: tensor.element,
        shape: tensor.shape,
        data: Cow::Owned(tensor.data.into_owned()),
    };
    tensors.into_iter().map(own).collect()
}
