//! ONNX models and TensorFlow graphs.

use aisemble_convert::{Format, Precision, Safetensors, convert};

use crate::sample::{f32s, wire};

fn onnx_tensor(name: &str, kind: u64, shape: &[u64], raw: &[u8]) -> Vec<u8> {
    let mut tensor = Vec::new();
    for size in shape {
        tensor.extend(wire::number(1, *size));
    }
    tensor.extend(wire::number(2, kind));
    tensor.extend(wire::bytes(8, name.as_bytes()));
    tensor.extend(wire::bytes(9, raw));
    tensor
}

fn onnx_node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node = Vec::new();
    for input in inputs {
        node.extend(wire::bytes(1, input.as_bytes()));
    }
    node.extend(wire::bytes(2, output.as_bytes()));
    node.extend(wire::bytes(4, operator.as_bytes()));
    for attribute in attributes {
        node.extend(wire::bytes(5, attribute));
    }
    node
}

fn axis(axis: i64) -> Vec<u8> {
    [wire::bytes(1, b"axis"), wire::number(3, axis.cast_unsigned())].concat()
}

fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>]) -> Vec<u8> {
    let mut graph = Vec::new();
    for node in nodes {
        graph.extend(wire::bytes(1, node));
    }
    for initializer in initializers {
        graph.extend(wire::bytes(5, initializer));
    }
    [wire::number(1, 8), wire::bytes(2, b"test"), wire::bytes(7, &graph)].concat()
}

fn onnx(model: &[u8]) -> Result<Safetensors<'_>, String> {
    assert_eq!(Format::detect(model), Some(Format::Onnx));
    convert(model, Format::Onnx, Precision::F32).map_err(|error| error.to_string())
}

fn found(file: &Safetensors<'_>) -> Vec<(String, Vec<u64>, Vec<u8>)> {
    let part = |tensor: &aisemble_convert::Tensor<'_>| {
        (tensor.name().to_owned(), tensor.shape().to_vec(), tensor.data().to_vec())
    };
    file.tensors().iter().map(part).collect()
}

#[test]
fn initializers_and_constants_keep_their_names_and_whole_numbers_stay_behind() {
    let value = onnx_tensor("", 1, &[1], &f32s(&[7.0]));
    let constant = [wire::bytes(1, b"value"), wire::bytes(5, &value)].concat();
    let source = model(
        &[onnx_node("Constant", &[], "c", &[constant])],
        &[
            onnx_tensor("w", 1, &[2], &f32s(&[1.0, 2.0])),
            onnx_tensor("shape", 7, &[1], &[1, 0, 0, 0, 0, 0, 0, 0]),
            // 16-bit floats: 1.0 and -2.0.
            onnx_tensor("h", 10, &[2], &[0x00, 0x3c, 0x00, 0xc0]),
        ],
    );
    let expect = [
        ("c".to_owned(), vec![1], f32s(&[7.0])),
        ("h".to_owned(), vec![2], f32s(&[1.0, -2.0])),
        ("w".to_owned(), vec![2], f32s(&[1.0, 2.0])),
    ];
    assert_eq!(found(&onnx(&source).unwrap()), expect);
}

#[test]
fn quantised_weights_become_floats_under_their_name() {
    // One scale for all, and one for each column; (q - z) * s by hand.
    let per_tensor = ["w_quantized", "w_scale", "w_zero_point"];
    let per_column = ["v_quantized", "v_scale", "v_zero_point"];
    let source = model(
        &[
            onnx_node("DequantizeLinear", &per_tensor, "w_dq", &[]),
            onnx_node("DequantizeLinear", &per_column, "v_dq", &[axis(-1)]),
            // An activation: its scale is no weight.
            onnx_node("QuantizeLinear", &["x", "x_scale", "x_zero_point"], "x_q", &[]),
            onnx_node("DequantizeLinear", &["x_q", "x_scale", "x_zero_point"], "x_dq", &[]),
        ],
        &[
            onnx_tensor("w_quantized", 3, &[2], &[0xff, 4]),
            onnx_tensor("w_scale", 1, &[], &f32s(&[0.5])),
            onnx_tensor("w_zero_point", 3, &[], &[1]),
            onnx_tensor("v_quantized", 2, &[2, 3], &[1, 2, 3, 4, 5, 6]),
            onnx_tensor("v_scale", 1, &[3], &f32s(&[1.0, 10.0, 100.0])),
            onnx_tensor("v_zero_point", 2, &[3], &[0, 1, 2]),
            onnx_tensor("x_scale", 1, &[], &f32s(&[0.1])),
            onnx_tensor("x_zero_point", 3, &[], &[0]),
        ],
    );
    let expect = [
        ("v".to_owned(), vec![2, 3], f32s(&[1.0, 10.0, 100.0, 4.0, 40.0, 400.0])),
        ("w".to_owned(), vec![2], f32s(&[-1.0, 1.5])),
    ];
    assert_eq!(found(&onnx(&source).unwrap()), expect);
}

#[test]
fn what_cannot_be_taken_is_told_by_name() {
    let check = |nodes: &[Vec<u8>], initializers: &[Vec<u8>], part: &str| {
        let told = onnx(&model(nodes, initializers)).unwrap_err();
        assert!(told.contains(part), "{told}");
    };
    check(&[], &[onnx_tensor("w", 1, &[3], &f32s(&[1.0]))], "not as long as its shape");
    check(&[], &[onnx_tensor("w", 1, &[u64::MAX, 2], &[])], "overflows");
    check(&[], &[onnx_tensor("w", 8, &[1], b"x")], "of a type that is not taken");
    let mut outside = onnx_tensor("w", 1, &[1], &[]);
    outside.extend(wire::number(14, 1));
    check(&[], &[outside], "another file");
    let w = onnx_tensor("w", 1, &[1], &f32s(&[1.0]));
    check(&[], &[w.clone(), w], "twice");
    let dequantize = onnx_node("DequantizeLinear", &["q", "s"], "d", &[axis(0)]);
    let quantized = onnx_tensor("q", 3, &[2], &[1, 2]);
    let one = std::slice::from_ref;
    check(one(&dequantize), one(&quantized), "not in the file");
    let scale = onnx_tensor("s", 1, &[3], &f32s(&[1.0; 3]));
    check(&[dequantize], &[quantized, scale], "do not fit its axis");
    let told = convert(b"\x08\x07\x12\x01x", Format::Onnx, Precision::F32).unwrap_err();
    assert!(told.to_string().contains("no graph"));
}

fn tf_const(name: &str, tensor: &[u8]) -> Vec<u8> {
    let attribute = wire::bytes(8, tensor);
    let entry = [wire::bytes(1, b"value"), wire::bytes(2, &attribute)].concat();
    let parts = [wire::bytes(1, name.as_bytes()), wire::bytes(2, b"Const"), wire::bytes(5, &entry)];
    wire::bytes(1, &parts.concat())
}

fn tf_tensor(kind: u64, shape: &[u64], content: &[u8]) -> Vec<u8> {
    let sizes: Vec<_> =
        shape.iter().flat_map(|size| wire::bytes(2, &wire::number(1, *size))).collect();
    [wire::number(1, kind), wire::bytes(2, &sizes), content.to_vec()].concat()
}

#[test]
fn constants_of_a_graph_are_read_however_they_are_written() {
    let graph = [
        tf_const("a/weights", &tf_tensor(1, &[2], &wire::bytes(4, &f32s(&[1.0, 2.0])))),
        // One value stands for all, and the last one for those that are left out.
        tf_const("b", &tf_tensor(1, &[3], &wire::bytes(5, &f32s(&[4.0])))),
        tf_const("c", &tf_tensor(1, &[3], &wire::bytes(5, &f32s(&[5.0, 6.0])))),
        tf_const("d", &tf_tensor(1, &[2], &[])),
        tf_const("axis", &tf_tensor(3, &[], &wire::number(7, 1))),
        wire::bytes(1, &[wire::bytes(1, b"conv"), wire::bytes(2, b"Conv2D")].concat()),
    ]
    .concat();
    let file = convert(&graph, Format::TfGraph, Precision::F32).unwrap();
    let expect = [
        ("a/weights".to_owned(), vec![2], f32s(&[1.0, 2.0])),
        ("b".to_owned(), vec![3], f32s(&[4.0; 3])),
        ("c".to_owned(), vec![3], f32s(&[5.0, 6.0, 6.0])),
        ("d".to_owned(), vec![2], f32s(&[0.0, 0.0])),
    ];
    assert_eq!(found(&file), expect);
    let long = tf_const("w", &tf_tensor(1, &[1], &wire::bytes(5, &f32s(&[1.0, 2.0]))));
    let told = convert(&long, Format::TfGraph, Precision::F32).unwrap_err();
    assert!(told.to_string().contains("not as long"), "{told}");
}
