//! ONNX models: their initializers and constants, under their own names. Weights that were stored
//! as 8-bit integers with a `DequantizeLinear` node behind them become floats again; other whole
//! numbers are shapes and axes of the graph and stay behind with it: who uses the weights knows the
//! architecture.
//! Source: onnx/onnx, `onnx.proto` and the operator pages.

mod quantized;
mod tensor;

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::Budget;
use crate::error::ConvertError;
use crate::limits::{NODE_PARTS_MAX, NODES_MAX, TENSORS_MAX};
use crate::protobuf::fields;
use crate::tensor::{Element, Tensor};
use quantized::Dequantized;
use tensor::Description;

/// A node of the graph, as far as it says something about weights.
#[derive(Debug, Default)]
struct Node<'a> {
    operator: &'a str,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    /// The attribute `axis`.
    axis: Option<i64>,
    /// A block size: weights that are scaled in blocks.
    is_blocked: bool,
    /// The attribute `value` of a constant.
    value: Option<&'a [u8]>,
}

/// Whether the bytes begin like a `ModelProto`: its first field is the version of the format.
pub(crate) fn is_onnx(source: &[u8]) -> bool {
    matches!(source, [0x08, 3..=20, 0x12 | 0x1a | 0x3a | 0x42, ..])
}

/// Reads the weights.
///
/// # Errors
/// When the file is no ONNX model, or a weight of it cannot be taken.
pub(crate) fn read<'a>(
    source: &'a [u8],
    budget: &mut Budget,
) -> Result<Vec<Tensor<'a>>, ConvertError> {
    let graph = graph(source)?;
    let (mut weights, nodes) = parts(graph)?;
    for node in nodes.iter().filter(|node| node.operator == "Constant") {
        let (Some(value), Some(output)) = (node.value, node.outputs.first()) else { continue };
        let constant = Description::read(value)?;
        if constant.element().is_some() {
            weights.entry(output).or_insert(constant);
        }
    }
    let dequantized = Dequantized::find(&nodes, &weights)?;
    let mut tensors = Vec::new();
    for (name, description) in &weights {
        if let Some(weight) = dequantized.of(name) {
            tensors.push(weight.tensor(&weights, budget)?);
        } else if !dequantized.is_scale(name) && description.element().is_none_or(Element::is_float)
        {
            tensors.push(description.tensor(name, budget)?);
        }
    }
    Ok(tensors)
}

fn graph(source: &[u8]) -> Result<&[u8], ConvertError> {
    let mut graph = None;
    for field in fields(source) {
        if let (7, value) = field? {
            graph = value.bytes();
        }
    }
    graph.ok_or(ConvertError::Kind { wanted: "an ONNX model", why: "it has no graph" })
}

type Parts<'a> = (BTreeMap<&'a str, Description<'a>>, Vec<Node<'a>>);

fn parts(graph: &[u8]) -> Result<Parts<'_>, ConvertError> {
    let (mut weights, mut nodes) = (BTreeMap::new(), Vec::new());
    for field in fields(graph) {
        let (number, value) = field?;
        let Some(message) = value.bytes() else { continue };
        match number {
            1 => nodes.push(node(message)?),
            5 => {
                let weight = Description::read(message)?;
                if weights.insert(weight.name, weight.clone()).is_some() {
                    return Err(ConvertError::tensor(weight.name, "it is there twice"));
                }
            }
            15 => {
                let why = "it has sparse weights, which are not taken";
                return Err(ConvertError::Kind { wanted: "a dense ONNX model", why });
            }
            _ => {}
        }
        if nodes.len() > NODES_MAX {
            return Err(ConvertError::Limit { what: "nodes", limit: NODES_MAX as u64 });
        }
        if weights.len() > TENSORS_MAX {
            return Err(ConvertError::Limit { what: "tensors", limit: TENSORS_MAX as u64 });
        }
    }
    Ok((weights, nodes))
}

fn node(message: &[u8]) -> Result<Node<'_>, ConvertError> {
    let mut node = Node::default();
    for field in fields(message) {
        let (number, value) = field?;
        match number {
            1 => node.inputs.push(value.text().unwrap_or_default()),
            2 => node.outputs.push(value.text().unwrap_or_default()),
            4 => node.operator = value.text().unwrap_or_default(),
            5 => attribute(value.bytes().unwrap_or_default(), &mut node)?,
            _ => {}
        }
        if node.inputs.len().max(node.outputs.len()) > NODE_PARTS_MAX {
            let limit = NODE_PARTS_MAX as u64;
            return Err(ConvertError::Limit { what: "inputs of a node", limit });
        }
    }
    Ok(node)
}

fn attribute<'a>(message: &'a [u8], node: &mut Node<'a>) -> Result<(), ConvertError> {
    let (mut name, mut number, mut tensor) = ("", None, None);
    for field in fields(message) {
        match field? {
            (1, value) => name = value.text().unwrap_or_default(),
            // Negative numbers are written as their two's complement.
            (3, value) => number = value.varint().map(u64::cast_signed),
            (5, value) => tensor = value.bytes(),
            _ => {}
        }
    }
    match name {
        "axis" => node.axis = number,
        "block_size" => node.is_blocked = number.is_some_and(|size| size != 0),
        "value" => node.value = tensor,
        _ => {}
    }
    Ok(())
}

/// Names that only scale weights.
type Scales<'a> = BTreeSet<&'a str>;
