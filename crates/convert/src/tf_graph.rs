//! TensorFlow graphs (`GraphDef`, a frozen `.pb`): the floating-point constants, under their nodes'
//! names. Whole numbers and texts are settings of the graph, which is not kept.
//! Source: tensorflow/core/framework, `graph.proto`, `attr_value.proto`, `tensor.proto`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::budget::Budget;
use crate::error::ConvertError;
use crate::limits::{NODES_MAX, RANK_MAX};
use crate::protobuf::{Fields, fields};
use crate::tensor::{Element, Tensor, bytes_of};

/// Reads the constants.
///
/// # Errors
/// When the file is no graph, or a constant of it cannot be taken.
pub(crate) fn read<'a>(
    source: &'a [u8],
    budget: &mut Budget,
) -> Result<Vec<Tensor<'a>>, ConvertError> {
    let (mut tensors, mut names, mut nodes) = (Vec::new(), BTreeSet::new(), 0_usize);
    for field in fields(source) {
        let (1, value) = field? else { continue };
        nodes += 1;
        if nodes > NODES_MAX {
            return Err(ConvertError::Limit { what: "nodes", limit: NODES_MAX as u64 });
        }
        let Some(message) = value.bytes() else { continue };
        let Some((name, constant)) = constant(message)? else { continue };
        if !names.insert(name) {
            return Err(ConvertError::tensor(name, "it is there twice"));
        }
        tensors.extend(read_tensor(name, constant, budget)?);
    }
    if nodes == 0 {
        return Err(ConvertError::Kind { wanted: "a TensorFlow graph", why: "it has no nodes" });
    }
    Ok(tensors)
}

/// Name and `TensorProto` of a `Const` node.
fn constant(node: &[u8]) -> Result<Option<(&str, &[u8])>, ConvertError> {
    let (mut name, mut operator, mut tensor) = ("", "", None);
    for field in fields(node) {
        match field? {
            (1, value) => name = value.text().unwrap_or_default(),
            (2, value) => operator = value.text().unwrap_or_default(),
            // An entry of the map of attributes: 1 is its key, 2 its value.
            (5, value) => {
                let entry = fields(value.bytes().unwrap_or_default());
                tensor = value_of(entry)?.or(tensor);
            }
            _ => {}
        }
    }
    Ok(tensor.filter(|_| operator == "Const").map(|tensor| (name, tensor)))
}

/// The tensor in an attribute called `value`.
fn value_of(entry: Fields<'_>) -> Result<Option<&[u8]>, ConvertError> {
    let (mut key, mut attribute) = ("", None);
    for field in entry {
        match field? {
            (1, value) => key = value.text().unwrap_or_default(),
            (2, value) => attribute = value.bytes(),
            _ => {}
        }
    }
    let Some(attribute) = attribute.filter(|_| key == "value") else { return Ok(None) };
    for field in fields(attribute) {
        if let (8, value) = field? {
            return Ok(value.bytes());
        }
    }
    Ok(None)
}

/// A constant; none when its elements are of a type that no weight has.
fn read_tensor<'a>(
    name: &str,
    message: &'a [u8],
    budget: &mut Budget,
) -> Result<Option<Tensor<'a>>, ConvertError> {
    let (mut kind, mut shape, mut content) = (0, Vec::new(), None);
    let (mut fixed, mut numbers) = (Vec::new(), Vec::new());
    for field in fields(message) {
        let (number, value) = field?;
        match number {
            1 => kind = value.varint().unwrap_or(0),
            2 => shape = read_shape(name, value.bytes().unwrap_or_default())?,
            4 => content = value.bytes(),
            5 => value.fixed(4, &mut fixed)?,
            6 => value.fixed(8, &mut fixed)?,
            // 16-bit floats are listed by their bits.
            13 => value.varints(&mut numbers)?,
            _ => {}
        }
    }
    let Some(element) = float(kind) else { return Ok(None) };
    let width = element.bytes();
    let bytes = bytes_of(name, element, &shape)?;
    budget.charge(bytes / width as u64, width)?;
    if let Some(content) = content.filter(|content| !content.is_empty()) {
        return Tensor::new(name, element, shape, Cow::Borrowed(content)).map(Some);
    }
    let mut listed = fixed;
    if listed.is_empty() {
        let lowest = |number: &u64| number.to_le_bytes().into_iter().take(width);
        listed = numbers.iter().flat_map(lowest).collect();
    }
    // Elements that are left out are like the last one that is there, or 0.
    let bytes = usize::try_from(bytes)
        .map_err(|_| ConvertError::tensor(name, "it is too large for this machine"))?;
    if listed.len() > bytes || !listed.len().is_multiple_of(width) {
        return Err(ConvertError::tensor(name, "its data is not as long as its shape says"));
    }
    let last = listed.len().checked_sub(width).map(|at| listed[at..].to_vec());
    let last = last.unwrap_or_else(|| vec![0; width]);
    listed.reserve_exact(bytes - listed.len());
    while listed.len() < bytes {
        listed.extend_from_slice(&last);
    }
    Tensor::new(name, element, shape, Cow::Owned(listed)).map(Some)
}

fn read_shape(name: &str, message: &[u8]) -> Result<Vec<u64>, ConvertError> {
    let mut shape = Vec::new();
    for field in fields(message) {
        let (2, dimension) = field? else { continue };
        let mut size = 0;
        for field in fields(dimension.bytes().unwrap_or_default()) {
            if let (1, value) = field? {
                size = value.varint().unwrap_or(0);
            }
        }
        shape.push(size);
        if shape.len() > RANK_MAX {
            return Err(ConvertError::tensor(name, "it has more than 8 dimensions"));
        }
    }
    Ok(shape)
}

fn float(kind: u64) -> Option<Element> {
    match kind {
        1 => Some(Element::F32),
        2 => Some(Element::F64),
        14 => Some(Element::Bf16),
        19 => Some(Element::F16),
        _ => None,
    }
}
