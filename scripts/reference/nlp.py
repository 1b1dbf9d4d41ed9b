#!/usr/bin/env python3
"""The nlp service's reference: BERT and its relatives written anew in numpy from their papers and published
configurations, in double precision, and the same BERT as an ONNX graph for ONNX Runtime.

usage: nlp.py fixtures MODELS OUT     the values that tests/it compares with (needs numpy, tokenizers)
       nlp.py onnx MODEL OUT.onnx     all-MiniLM-L6-v2 as ONNX, single precision (needs onnx)
       nlp.py bench MODEL FILE.onnx   sentences a second of ONNX Runtime, one thread, tokenizer included

MODELS is the folder of installed models; OUT the folder tests/data of the crate.
"""
import json
import math
import os
import struct
import sys
import time

import numpy as np

TEXTS = [
    "A man is playing a guitar on the stage.",
    "The committee met on Thursday to discuss the annual budget.",
    "hello",
    "Der Zug nach München fährt um 8:15 Uhr ab.",
    "Supercalifragilisticexpialidocious words are split into pieces.",
    "naïve café — “quotes”, 日本語 and 🍎 emoji.",
    "\x01\x02\x07",
    " ".join(f"sentence number {i} of a longer text;" for i in range(24)),
]


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Weights:
    """A safetensors file as doubles."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        size = struct.unpack("<Q", self.bytes[:8])[0]
        self.header = json.loads(self.bytes[8 : 8 + size])
        self.base = 8 + size

    def __contains__(self, name):
        return name in self.header

    def __getitem__(self, name):
        entry = self.header[name]
        start, end = entry["data_offsets"]
        kind = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
        values = np.frombuffer(self.bytes[self.base + start : self.base + end], kind)
        return values.reshape(entry["shape"]).astype(np.float64)


def norm(w, path, x, eps):
    weight = w[f"{path}.weight"] if f"{path}.weight" in w else w[f"{path}.gamma"]
    bias = 0
    for name in ("bias", "beta"):
        if f"{path}.{name}" in w:
            bias = w[f"{path}.{name}"]
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def linear(w, path, x):
    y = x @ w[f"{path}.weight"].T
    return y + w[f"{path}.bias"] if f"{path}.bias" in w else y


def heads(x, count):
    return x.reshape(x.shape[0], count, -1).transpose(1, 0, 2)


def attention(q, k, v, mask=None):
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return (softmax(scores) @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


def bert(w, config, ids, types, prefix=""):
    """BERT and RoBERTa: the hidden state of each token."""
    p = lambda name: prefix + name
    first = config.get("pad_token_id", 1) + 1 if config["model_type"] == "roberta" else 0
    n, eps, count = len(ids), config.get("layer_norm_eps", 1e-12), config["num_attention_heads"]
    x = w[p("embeddings.word_embeddings.weight")][ids]
    x = x + w[p("embeddings.position_embeddings.weight")][first : first + n]
    kinds = w[p("embeddings.token_type_embeddings.weight")]
    x = x + kinds[np.minimum(types, len(kinds) - 1)]
    x = norm(w, p("embeddings.LayerNorm"), x, eps)
    for at in range(config["num_hidden_layers"]):
        l = p(f"encoder.layer.{at}.")
        q, k, v = (heads(linear(w, f"{l}attention.self.{part}", x), count) for part in ("query", "key", "value"))
        mixed = linear(w, f"{l}attention.output.dense", attention(q, k, v))
        x = norm(w, f"{l}attention.output.LayerNorm", x + mixed, eps)
        wide = gelu(linear(w, f"{l}intermediate.dense", x))
        x = norm(w, f"{l}output.LayerNorm", x + linear(w, f"{l}output.dense", wide), eps)
    return x


def distilbert(w, config, ids, prefix="distilbert."):
    n, count = len(ids), config["n_heads"]
    x = w[prefix + "embeddings.word_embeddings.weight"][ids]
    x = x + w[prefix + "embeddings.position_embeddings.weight"][:n]
    x = norm(w, prefix + "embeddings.LayerNorm", x, 1e-12)
    for at in range(config["n_layers"]):
        l = f"{prefix}transformer.layer.{at}."
        q, k, v = (heads(linear(w, f"{l}attention.{part}_lin", x), count) for part in "qkv")
        x = norm(w, f"{l}sa_layer_norm", x + linear(w, f"{l}attention.out_lin", attention(q, k, v)), 1e-12)
        wide = gelu(linear(w, f"{l}ffn.lin1", x))
        x = norm(w, f"{l}output_layer_norm", x + linear(w, f"{l}ffn.lin2", wide), 1e-12)
    return x


def turn(x, base):
    """Rotary positions, halves: x is [heads, n, d]."""
    n, d = x.shape[1:]
    angles = np.arange(n)[:, None] * base ** (-np.arange(0, d, 2) / d)[None, :]
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def modernbert(w, config, ids, prefix="model."):
    n, eps, count = len(ids), config["norm_eps"], config["num_attention_heads"]
    x = norm(w, prefix + "embeddings.norm", w[prefix + "embeddings.tok_embeddings.weight"][ids], eps)
    near = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :]) <= config["local_attention"] // 2
    for at in range(config["num_hidden_layers"]):
        l = f"{prefix}layers.{at}."
        everything = at % config["global_attn_every_n_layers"] == 0
        y = x if at == 0 else norm(w, f"{l}attn_norm", x, eps)
        q, k, v = (heads(part, count) for part in np.split(linear(w, f"{l}attn.Wqkv", y), 3, -1))
        base = config["global_rope_theta"] if everything else config["local_rope_theta"]
        mixed = attention(turn(q, base), turn(k, base), v, None if everything else near)
        x = x + linear(w, f"{l}attn.Wo", mixed)
        into, gate = np.split(linear(w, f"{l}mlp.Wi", norm(w, f"{l}mlp_norm", x, eps)), 2, -1)
        x = x + linear(w, f"{l}mlp.Wo", gelu(into) * gate)
    return norm(w, prefix + "final_norm", x, eps)


def unit(x):
    return x / np.linalg.norm(x)


def tokenizer(folder):
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    made.no_padding()
    made.no_truncation()
    return made


def rounded(x, digits=7):
    return [float(f"{v:.{digits}g}") for v in np.asarray(x).ravel()]


# ---- real models

def minilm(folder):
    w, encode = Weights(f"{folder}/model.safetensors"), tokenizer(folder)
    config = json.load(open(f"{folder}/config.json"))
    out = []
    for text in TEXTS:
        ids = encode.encode(text).ids
        x = bert(w, config, ids, np.zeros(len(ids), int))
        out.append({"text": text, "ids": ids, "embedding": rounded(unit(x.mean(0)), 6)})
    return out


def splade(folder):
    w, encode = Weights(f"{folder}/model.safetensors"), tokenizer(folder)
    config = json.load(open(f"{folder}/config.json"))
    out = []
    for text in TEXTS[:3]:
        ids = encode.encode(text).ids
        x = bert(w, config, ids, np.zeros(len(ids), int), "bert.")
        x = gelu(linear(w, "cls.predictions.transform.dense", x))
        x = norm(w, "cls.predictions.transform.LayerNorm", x, 1e-12)
        logits = x @ w["bert.embeddings.word_embeddings.weight"].T + w["cls.predictions.bias"]
        weights = np.log1p(np.maximum(logits.max(0), 0))
        terms = np.nonzero(weights)[0]
        out.append({"text": text, "ids": terms.tolist(), "weights": rounded(weights[terms], 6)})
    return out


class Exported:
    """Weights of an ONNX export: matrices are transposed and named after the products, in the order of the graph."""

    PARTS = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"]

    def __init__(self, weights, layers):
        self.weights = weights
        products = [name for name in weights.header if name.startswith("onnx::MatMul_")]
        products.sort(key=lambda name: int(name.split("_")[1]))
        paths = [f"distilbert.transformer.layer.{at}.{part}" for at in range(layers) for part in self.PARTS]
        self.names = {f"{path}.weight": name for path, name in zip(paths + ["classifier"], products, strict=True)}

    def __contains__(self, name):
        return name in self.names or name in self.weights

    def __getitem__(self, name):
        return self.weights[self.names[name]].T if name in self.names else self.weights[name]


def quire(folder):
    w, encode = Exported(Weights(f"{folder}/model.safetensors"), 6), tokenizer(folder)
    out = []
    for text in ["She have two cats and they was hungry.", "I went to there house yesterday because its raining."]:
        ids = encode.encode(text).ids
        chances = softmax(linear(w, "classifier", distilbert(w, {"n_heads": 12, "n_layers": 6}, ids)))
        out.append({"text": text, "ids": ids, "tags": chances.argmax(1).tolist(), "scores": rounded(chances.max(1), 5)})
    return out


# ---- small random models of every family

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [f"w{i}" for i in range(28)]
SMALL = {"hidden": 32, "heads": 2, "layers": 2, "wide": 48, "positions": 40}


def small_tokenizer():
    special = lambda name: {"id": name, "ids": [VOCABULARY.index(name)], "tokens": [name]}
    cls, sep = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    seq = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "decoder": None,
        "added_tokens": [
            {"id": i, "content": VOCABULARY[i], "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i in range(4)
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [cls, seq("A", 0), sep],
            "pair": [cls, seq("A", 0), sep, seq("B", 1), {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(VOCABULARY)}, "unk_token": "[UNK]"},
    }


def save(path, tensors):
    """Half floats; deterministic bytes."""
    header, blobs, at = {}, [], 0
    for name in sorted(tensors):
        blob = tensors[name].astype(np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": list(tensors[name].shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def random_tensors(shapes, seed):
    source = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        gain = name.endswith(".weight") and len(shape) == 1 or name.endswith("gamma")
        tensors[name] = source.normal(1.0 if gain else 0.0, 0.2, shape)
    return tensors


def linear_shapes(path, rows, cols):
    return {f"{path}.weight": (rows, cols), f"{path}.bias": (rows,)}


def norm_shapes(path, old=False):
    names = ("gamma", "beta") if old else ("weight", "bias")
    return {f"{path}.{name}": (SMALL["hidden"],) for name in names}


def bert_shapes(prefix, kinds, old=False):
    h, wide = SMALL["hidden"], SMALL["wide"]
    shapes = {
        f"{prefix}embeddings.word_embeddings.weight": (len(VOCABULARY), h),
        f"{prefix}embeddings.position_embeddings.weight": (SMALL["positions"], h),
        f"{prefix}embeddings.token_type_embeddings.weight": (kinds, h),
        **norm_shapes(f"{prefix}embeddings.LayerNorm", old),
    }
    for at in range(SMALL["layers"]):
        l = f"{prefix}encoder.layer.{at}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= linear_shapes(l + part, h, h)
        shapes |= linear_shapes(l + "intermediate.dense", wide, h) | linear_shapes(l + "output.dense", h, wide)
        shapes |= norm_shapes(l + "attention.output.LayerNorm", old) | norm_shapes(l + "output.LayerNorm", old)
    return shapes


def distilbert_shapes():
    h, wide, p = SMALL["hidden"], SMALL["wide"], "distilbert."
    shapes = {
        f"{p}embeddings.word_embeddings.weight": (len(VOCABULARY), h),
        f"{p}embeddings.position_embeddings.weight": (SMALL["positions"], h),
        **norm_shapes(f"{p}embeddings.LayerNorm"),
    }
    for at in range(SMALL["layers"]):
        l = f"{p}transformer.layer.{at}."
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= linear_shapes(f"{l}attention.{part}", h, h)
        shapes |= linear_shapes(l + "ffn.lin1", wide, h) | linear_shapes(l + "ffn.lin2", h, wide)
        shapes |= norm_shapes(l + "sa_layer_norm") | norm_shapes(l + "output_layer_norm")
    return shapes


def modernbert_shapes():
    h, wide, p = SMALL["hidden"], SMALL["wide"], "model."
    only = lambda path: {f"{path}.weight": (h,)}
    shapes = {f"{p}embeddings.tok_embeddings.weight": (len(VOCABULARY), h), **only(f"{p}embeddings.norm")}
    for at in range(3):
        l = f"{p}layers.{at}."
        shapes |= {} if at == 0 else only(l + "attn_norm")
        shapes |= {l + "attn.Wqkv.weight": (3 * h, h), l + "attn.Wo.weight": (h, h)} | only(l + "mlp_norm")
        shapes |= {l + "mlp.Wi.weight": (2 * wide, h), l + "mlp.Wo.weight": (h, wide)}
    return shapes | only(p + "final_norm")


def small_config(kind, architecture, labels):
    base = {
        "model_type": kind, "architectures": [architecture], "hidden_size": SMALL["hidden"],
        "num_hidden_layers": SMALL["layers"], "num_attention_heads": SMALL["heads"],
        "intermediate_size": SMALL["wide"], "vocab_size": len(VOCABULARY),
        "max_position_embeddings": SMALL["positions"], "hidden_act": "gelu", "pad_token_id": 0,
        "id2label": {str(i): label for i, label in enumerate(labels)},
    }
    if kind == "distilbert":
        base |= {"dim": base.pop("hidden_size"), "n_layers": base.pop("num_hidden_layers"),
                 "n_heads": base.pop("num_attention_heads"), "hidden_dim": base.pop("intermediate_size"),
                 "activation": base.pop("hidden_act")}
    if kind == "roberta":
        base |= {"pad_token_id": 1, "layer_norm_eps": 1e-5}
    if kind == "modernbert":
        base |= {"num_hidden_layers": 3, "norm_eps": 1e-5, "local_attention": 6, "global_attn_every_n_layers": 2,
                 "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "classifier_pooling": "mean"}
        base["hidden_activation"] = base.pop("hidden_act")
    return base


LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SMALL_TEXTS = ["w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12", "w20", "w7 unknown w27 w0 w0 w3"]


def small_models(out):
    encode_ids = lambda text: [2] + [VOCABULARY.index(w) if w in VOCABULARY else 1 for w in text.split()] + [3]
    h, expected = SMALL["hidden"], {}

    def made(name, config, shapes, seed):
        folder = f"{out}/{name}"
        os.makedirs(folder, exist_ok=True)
        save(f"{folder}/model.safetensors", random_tensors(shapes, seed))
        json.dump(config, open(f"{folder}/config.json", "w"))
        json.dump(small_tokenizer(), open(f"{folder}/tokenizer.json", "w"), ensure_ascii=False)
        return Weights(f"{folder}/model.safetensors")

    zeros = lambda ids: np.zeros(len(ids), int)
    # BERT, token classification, with the older names of normalisations.
    config = small_config("bert", "BertForTokenClassification", LABELS)
    w = made("bert-tokens", config, bert_shapes("bert.", 2, old=True) | linear_shapes("classifier", 5, h), 1)
    logits = [linear(w, "classifier", bert(w, config, ids, zeros(ids), "bert.")) for ids in map(encode_ids, SMALL_TEXTS)]
    expected["bert-tokens"] = [rounded(softmax(x)) for x in logits]
    # BERT, cross-encoder of pairs: the first text is the query.
    config = small_config("bert", "BertForSequenceClassification", ["LABEL_0"])
    shapes = bert_shapes("bert.", 2) | linear_shapes("bert.pooler.dense", h, h) | linear_shapes("classifier", 1, h)
    w, scores = made("bert-pairs", config, shapes, 2), []
    for text in SMALL_TEXTS[1:]:
        first, second = encode_ids(SMALL_TEXTS[0]), encode_ids(text)[1:]
        types = np.array([0] * len(first) + [1] * len(second))
        x = bert(w, config, first + second, types, "bert.")
        score = linear(w, "classifier", np.tanh(linear(w, "bert.pooler.dense", x[0])))
        scores.append(float(1 / (1 + np.exp(-score[0]))))
    expected["bert-pairs"] = scores
    # RoBERTa, sequence classification.
    config = small_config("roberta", "RobertaForSequenceClassification", ["neg", "neu", "pos"])
    shapes = bert_shapes("roberta.", 1) | linear_shapes("classifier.dense", h, h) | linear_shapes("classifier.out_proj", 3, h)
    w, rows = made("roberta-labels", config, shapes, 3), []
    for ids in map(encode_ids, SMALL_TEXTS):
        x = bert(w, config, ids, zeros(ids), "roberta.")
        rows.append(rounded(softmax(linear(w, "classifier.out_proj", np.tanh(linear(w, "classifier.dense", x[0]))))))
    expected["roberta-labels"] = rows
    # DistilBERT, token classification.
    config = small_config("distilbert", "DistilBertForTokenClassification", LABELS)
    w = made("distilbert-tokens", config, distilbert_shapes() | linear_shapes("classifier", 5, h), 4)
    rows = [softmax(linear(w, "classifier", distilbert(w, config, ids))) for ids in map(encode_ids, SMALL_TEXTS)]
    expected["distilbert-tokens"] = [rounded(x) for x in rows]
    # ModernBERT, sequence classification over the mean.
    config = small_config("modernbert", "ModernBertForSequenceClassification", ["no", "yes"])
    shapes = modernbert_shapes() | {"head.dense.weight": (h, h), "head.norm.weight": (h,)} | linear_shapes("classifier", 2, h)
    w, rows = made("modernbert-labels", config, shapes, 5), []
    for ids in map(encode_ids, SMALL_TEXTS):
        x = modernbert(w, config, ids).mean(0)
        x = norm(w, "head.norm", gelu(linear(w, "head.dense", x)), 1e-5)
        rows.append(rounded(softmax(linear(w, "classifier", x))))
    expected["modernbert-labels"] = rows
    json.dump({"texts": SMALL_TEXTS, "outputs": expected}, open(f"{out}/small.json", "w"))


# ---- ONNX

def to_onnx(folder, path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w, config = Weights(f"{folder}/model.safetensors"), json.load(open(f"{folder}/config.json"))
    nodes, initial, count = [], [], [0]

    def keep(array, name):
        initial.append(numpy_helper.from_array(array, name))
        return name

    def weight(name, transpose=False):
        array = w[name].astype(np.float32)
        return keep(np.ascontiguousarray(array.T if transpose else array), name)

    def node(kind, *inputs, **attributes):
        count[0] += 1
        nodes.append(helper.make_node(kind, list(inputs), [f"t{count[0]}"], **attributes))
        return f"t{count[0]}"

    ints = lambda values: keep(np.array(values, np.int64), f"i{len(initial)}")
    number = lambda value: keep(np.array(value, np.float32), f"f{len(initial)}")
    line = lambda x, p: node("Add", node("MatMul", x, weight(f"{p}.weight", True)), weight(f"{p}.bias"))
    layer_norm = lambda x, p: node("LayerNormalization", x, weight(f"{p}.weight"), weight(f"{p}.bias"), epsilon=1e-12, axis=-1)
    h, c = config["hidden_size"], config["num_attention_heads"]
    words = node("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    length = node("Slice", node("Shape", "input_ids"), ints([1]), ints([2]))
    positions = node("Slice", weight("embeddings.position_embeddings.weight"), ints([0]), length, ints([0]))
    kind = keep(w["embeddings.token_type_embeddings.weight"][0].astype(np.float32), "kind")
    x = layer_norm(node("Add", node("Add", words, kind), positions), "embeddings.LayerNorm")
    mask = node("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias = node("Mul", node("Sub", number(1.0), node("Unsqueeze", mask, ints([1, 2]))), number(-3.4e38))
    for at in range(config["num_hidden_layers"]):
        l = f"encoder.layer.{at}."
        split = lambda x, axes: node("Transpose", node("Reshape", x, ints([0, 0, c, h // c])), perm=axes)
        q = split(line(x, f"{l}attention.self.query"), [0, 2, 1, 3])
        k = split(line(x, f"{l}attention.self.key"), [0, 2, 3, 1])
        v = split(line(x, f"{l}attention.self.value"), [0, 2, 1, 3])
        scores = node("Div", node("MatMul", q, k), number(math.sqrt(h // c)))
        mixed = node("MatMul", node("Softmax", node("Add", scores, bias), axis=-1), v)
        mixed = node("Reshape", node("Transpose", mixed, perm=[0, 2, 1, 3]), ints([0, 0, h]))
        x = layer_norm(node("Add", line(mixed, f"{l}attention.output.dense"), x), f"{l}attention.output.LayerNorm")
        wide = line(x, f"{l}intermediate.dense")
        erf_of = node("Erf", node("Div", wide, number(math.sqrt(2))))
        wide = node("Mul", node("Mul", wide, node("Add", erf_of, number(1.0))), number(0.5))
        x = layer_norm(node("Add", line(wide, f"{l}output.dense"), x), f"{l}output.LayerNorm")
    nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    side = lambda name, kind, dims: helper.make_tensor_value_info(name, kind, dims)
    graph = helper.make_graph(
        nodes, "bert",
        [side(n, TensorProto.INT64, ["batch", "tokens"]) for n in ("input_ids", "attention_mask")],
        [side("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", h])], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class Onnx:
    """ONNX Runtime on one thread: padded to the longest of the batch, mean of the tokens, length 1."""

    def __init__(self, folder, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = {entry.name for entry in self.session.get_inputs()}
        self.tokenizer = tokenizer(folder)
        self.tokenizer.enable_padding()

    def embed(self, texts):
        batch = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in batch], np.int64)
        mask = np.array([e.attention_mask for e in batch], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        x = self.session.run(None, {k: v for k, v in given.items() if k in self.names})[0]
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def bench(folder, path):
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    peer = Onnx(folder, path)
    ours = np.array([e["embedding"] for e in minilm(folder)[:3]])
    cosine = (peer.embed(TEXTS[:3]) * ours).sum(1).min()
    sets = json.loads(sys.stdin.readline())
    print(json.dumps({"cosine": float(cosine)}), flush=True)
    # A line names a set; the answer is what embedding it once took, processor time.
    for name in sys.stdin:
        texts = sets[name.strip()]
        begun, wall = time.process_time(), time.perf_counter()
        for start in range(0, len(texts), 32):
            peer.embed(texts[start : start + 32])
        print(json.dumps({"cpu_s": time.process_time() - begun, "wall_s": time.perf_counter() - wall}), flush=True)


def fixtures(models, out):
    os.makedirs(out, exist_ok=True)
    json.dump(minilm(f"{models}/all-minilm-l6-v2"), open(f"{out}/minilm.json", "w"), ensure_ascii=False)
    json.dump(splade(f"{models}/splade-tiny"), open(f"{out}/splade.json", "w"), ensure_ascii=False)
    json.dump(quire(f"{models}/quire-grammar"), open(f"{out}/quire.json", "w"))
    small_models(out)


if __name__ == "__main__":
    modes = {"fixtures": fixtures, "onnx": to_onnx, "bench": bench}
    if len(sys.argv) != 4 or sys.argv[1] not in modes:
        sys.exit(__doc__)
    modes[sys.argv[1]](*sys.argv[2:])
