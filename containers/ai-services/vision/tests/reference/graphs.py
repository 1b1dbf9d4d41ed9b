"""The vision models as ONNX graphs, written down from their papers and file layouts, with the weights of the installed
safetensors files: an implementation that shares nothing with the service. CenterFace is its own ONNX file."""

import json
import struct

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def tensors(path):
    """The tensors of a safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if entry["dtype"] == "F32"
    }


class Graph:
    """An ONNX graph that is made node by node."""

    def __init__(self, weights, inputs):
        self.weights, self.nodes, self.initializers, self.count = weights, [], [], 0
        self.inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]

    def constant(self, value):
        self.count += 1
        name = f"c{self.count}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"n{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, weight, bias=None, **attributes):
        weight = self.weights[weight] if isinstance(weight, str) else weight
        inputs = [x, self.constant(weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self.constant(self.weights[bias]))
        return self.node("Conv", *inputs, kernel_shape=weight.shape[2:], **attributes)

    def norm(self, x, names, epsilon):
        constants = [self.constant(self.weights[name]) for name in names]
        return self.node("BatchNormalization", x, *constants, epsilon=epsilon)

    def relu6(self, x):
        return self.node("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def session(self, outputs, threads=1):
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, values, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return session(model.SerializeToString(), threads)


def session(model, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def efficientnet_lite0(path, threads=1):
    """Logits and pooled features of N x 3 x 224 x 224."""
    g = Graph(tensors(path), [("x", ["n", 3, 224, 224])])

    def block(x, weight, norm, activate, **attributes):
        x = g.conv(x, f"{weight}.weight", auto_pad="SAME_UPPER", **attributes)
        x = g.norm(x, [f"{norm}.{of}" for of in ("weight", "bias", "running_mean", "running_var")], 1e-3)
        return g.relu6(x) if activate else x

    x, index, channels = block("x", "_conv_stem", "_bn0", True, strides=[2, 2]), 0, 32
    stages = [(1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320)]
    for repeats, stride, expand, output in stages:
        for repeat in range(repeats):
            name, before, step = f"_blocks.{index}.", x, stride if repeat == 0 else 1
            if expand > 1:
                x = block(x, name + "_expand_conv", name + "_bn0", True)
            inner = channels * expand
            x = block(x, name + "_depthwise_conv", name + "_bn1", True, group=inner, strides=[step, step])
            x = block(x, name + "_project_conv", name + "_bn2", False)
            if step == 1 and channels == output:
                x = g.node("Add", x, before)
            channels, index = output, index + 1
    x = g.node("GlobalAveragePool", block(x, "_conv_head", "_bn1", True))
    features = g.node("Flatten", x)
    weight, bias = g.constant(g.weights["_fc.weight"]), g.constant(g.weights["_fc.bias"])
    logits = g.node("Gemm", features, weight, bias, transB=1)
    return g.session([logits, features], threads)


def centerface(path, threads=1):
    """The package's own file, with the fixed sizes of its header taken away."""
    model = onnx.load(path)
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in list(model.graph.input) + list(model.graph.output):
        if value.name not in initializers:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if axis != 1:
                    dim.dim_param = f"{value.name}_{axis}"
    return session(model.SerializeToString(), threads)


def ssdlite(path, threads=1):
    """Six box maps and six class maps of N x 3 x 300 x 300, channels first."""
    g = Graph(tensors(path), [("x", ["n", 3, 300, 300])])

    def weight(name):
        return g.weights[name].transpose(3, 2, 0, 1)

    def norm(x, scope):
        return g.norm(x, [f"{scope}/BatchNorm/{of}" for of in ("gamma", "beta", "moving_mean", "moving_variance")], 1e-3)

    def dense(x, scope, activate=True, **attributes):
        x = norm(g.conv(x, weight(scope + "/weights"), auto_pad="SAME_UPPER", **attributes), scope)
        return g.relu6(x) if activate else x

    def depthwise(x, scope, stride=1):
        kernel = g.weights[scope + "/depthwise_weights"].transpose(2, 3, 0, 1)
        x = g.conv(x, kernel, auto_pad="SAME_UPPER", group=kernel.shape[0], strides=[stride, stride])
        return g.relu6(norm(x, scope))

    base = "FeatureExtractor/MobilenetV2/"
    x, index, channels, maps = dense("x", base + "Conv", strides=[2, 2]), 0, 32, []
    stages = [(1, 1, 1, 16), (2, 2, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320)]
    for repeats, stride, expand, output in stages:
        for repeat in range(repeats):
            name = base + "expanded_conv" + (f"_{index}" if index else "")
            before, step = x, stride if repeat == 0 else 1
            if expand > 1:
                x = dense(x, name + "/expand")
            if index == 13:
                maps.append(x)
            x = dense(depthwise(x, name + "/depthwise", step), name + "/project", activate=False)
            if step == 1 and channels == output:
                x = g.node("Add", x, before)
            channels, index = output, index + 1
    x = dense(x, base + "Conv_1")
    maps.append(x)
    for number, (narrow, wide) in enumerate([(256, 512), (128, 256), (128, 256), (64, 128)], 2):
        x = dense(x, f"{base}layer_19_1_Conv2d_{number}_1x1_{narrow}")
        name = f"{base}layer_19_2_Conv2d_{number}_3x3_s2_{wide}"
        x = dense(depthwise(x, name + "_depthwise", 2), name)
        maps.append(x)
    boxes, classes = [], []
    for number, features in enumerate(maps):
        for kind, found in (("BoxEncodingPredictor", boxes), ("ClassPredictor", classes)):
            name = f"BoxPredictor_{number}/{kind}"
            x = depthwise(features, name + "_depthwise")
            found.append(g.conv(x, weight(name + "/weights"), name + "/biases"))
    return g.session(boxes + classes, threads)


def craft(path, threads=1):
    """Region and affinity of N x 3 x H x W, channels first, half the size."""
    g = Graph(tensors(path), [("x", ["n", 3, "h", "w"])])

    def conv(x, name, normed=None, **attributes):
        x = g.conv(x, f"module.{name}.weight", f"module.{name}.bias", **attributes)
        if normed:
            x = g.norm(x, [f"module.{normed}.{of}" for of in ("weight", "bias", "running_mean", "running_var")], 1e-5)
        return x

    # torchvision's vgg16_bn: activations work in place, so that slices 1 to 3 hand on activated maps.
    plan = {1: [0, 3, "pool", 7, 10], 2: ["pool", 14, 17], 3: [20, "pool", 24, 27], 4: [30, "pool", 34, 37]}
    x, sources = "x", []
    for number, layers in plan.items():
        for at, layer in enumerate(layers):
            if layer == "pool":
                x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
                continue
            name = f"basenet.slice{number}."
            x = conv(x, f"{name}{layer}", f"{name}{layer + 1}", pads=[1, 1, 1, 1])
            if number < 4 or at + 1 < len(layers):
                x = g.node("Relu", x)
        sources.append(x)
    x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = conv(x, "basenet.slice5.1", pads=[6, 6, 6, 6], dilations=[6, 6])
    x = conv(x, "basenet.slice5.2")
    for number, source in enumerate(reversed(sources), 1):
        if number > 1:
            size = g.node("Concat", g.node("Shape", x, start=0, end=2), g.node("Shape", source, start=2), axis=0)
            x = g.node("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")
        x, name = g.node("Concat", x, source, axis=1), f"upconv{number}.conv."
        x = g.node("Relu", conv(x, name + "0", name + "1"))
        x = g.node("Relu", conv(x, name + "3", name + "4", pads=[1, 1, 1, 1]))
    for layer in (0, 2, 4):
        x = g.node("Relu", conv(x, f"conv_cls.{layer}", pads=[1, 1, 1, 1]))
    x = conv(g.node("Relu", conv(x, "conv_cls.6")), "conv_cls.8")
    return g.session([x], threads)


def crnn(path, threads=1):
    """Scores of the letters of N x 1 x 64 x W: N x columns x 97."""
    g = Graph(tensors(path), [("x", ["n", 1, 64, "w"])])
    name = "module.FeatureExtraction.ConvNet."

    def conv(x, number, bias=True, **attributes):
        x = g.conv(x, f"{name}{number}.weight", f"{name}{number}.bias" if bias else None, **attributes)
        if not bias:
            norm = f"{name}{number + 1}."
            x = g.norm(x, [norm + of for of in ("weight", "bias", "running_mean", "running_var")], 1e-5)
        return g.node("Relu", x)

    def pool(x, size):
        return g.node("MaxPool", x, kernel_shape=size, strides=size)

    pads = {"pads": [1, 1, 1, 1]}
    x = pool(conv("x", 0, **pads), [2, 2])
    x = pool(conv(x, 3, **pads), [2, 2])
    x = pool(conv(conv(x, 6, **pads), 8, **pads), [2, 1])
    x = pool(conv(conv(x, 11, False, **pads), 14, False, **pads), [2, 1])
    x = g.node("ReduceMean", conv(x, 18), axes=[2], keepdims=0)
    x = g.node("Transpose", x, perm=[2, 0, 1])
    for layer in (0, 1):
        rnn = f"module.SequenceModeling.{layer}.rnn."

        def gates(value):
            # PyTorch: input, forget, cell, output; ONNX: input, output, forget, cell.
            i, f, c, o = np.split(value, 4)
            return np.concatenate([i, o, f, c])

        def both(of):
            return [gates(g.weights[f"{rnn}{of}_l0{suffix}"]) for suffix in ("", "_reverse")]

        bias = [np.concatenate(pair) for pair in zip(both("bias_ih"), both("bias_hh"))]
        inputs = [np.stack(both("weight_ih")), np.stack(both("weight_hh")), np.stack(bias)]
        constants = [g.constant(value) for value in inputs]
        y = g.node("LSTM", x, *constants, hidden_size=256, direction="bidirectional")
        y = g.node("Transpose", y, perm=[0, 2, 1, 3])
        y = g.node("Reshape", y, g.constant(np.array([0, 0, 512], np.int64)))
        linear = f"module.SequenceModeling.{layer}.linear."
        y = g.node("MatMul", y, g.constant(g.weights[linear + "weight"].T))
        x = g.node("Add", y, g.constant(g.weights[linear + "bias"]))
    x = g.node("MatMul", x, g.constant(g.weights["module.Prediction.weight"].T))
    x = g.node("Add", x, g.constant(g.weights["module.Prediction.bias"]))
    return g.session([g.node("Transpose", x, perm=[1, 0, 2])], threads)
