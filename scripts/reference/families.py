#!/usr/bin/env python3
"""Small models of every family, computed by two others: Hugging Face transformers in single precision
from the architecture as published, and llama.cpp from a GGUF file of the same weights. The weights come
from a formula that the tests have too (`weight`), so only configurations, tokens and logits are kept.

usage: families.py LLAMA_CHECK BACKENDS_DIR > containers/ai-services/llm/tests/data/families.json
Needs torch, transformers 4.57 and numpy; llama-tools.sh builds llama_check. Nothing in the build or
the tests needs any of them.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers

VOCABULARY = 320
ROWS = [0, 9, 21, 39]
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 32, "head_dim": 32,
         "sliding_window": 12, "tie_word_embeddings": True}
CASES = {
    "llama": {"model_type": "llama", "rope_theta": 10000.0},
    "llama3": {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": LLAMA3,
               "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "rope_theta": 10000.0, "head_dim": 32, "sliding_window": 12},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1e6},
    "qwen3": {"model_type": "qwen3", "rope_theta": 1e6, "head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "rope_theta": 10000.0, "attn_logit_softcapping": 5.0,
               "final_logit_softcapping": 3.0, **GEMMA},
    "gemma3": {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
               "num_hidden_layers": 8, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
               **GEMMA},
}
# Hugging Face's part of a layer's name, GGUF's.
PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_PARTS = {"post_attention_layernorm": "post_attention_norm",
               "pre_feedforward_layernorm": "ffn_norm",
               "post_feedforward_layernorm": "post_ffw_norm"}


def weight(name, shape, gemma):
    """Values in single precision: a hash of the name, then SplitMix64 over the index."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if len(shape) == 2:
        return (unit * np.float32(1.0 if "embed" in name else 0.25)).reshape(shape)
    if name.endswith("bias"):
        return unit * np.float32(0.5)
    return unit * np.float32(0.25) + np.float32(0.0 if gemma else 1.0)


def gguf_name(name, gemma):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    parts = {**PARTS, **(GEMMA_PARTS if gemma else {"post_attention_layernorm": "ffn_norm"})}
    return f"blk.{layer}.{parts[part]}.{kind}"


def pairs(values, heads):
    """As llama.cpp's converter orders the rows of Llama's queries and keys."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def llama3_factors(config):
    head_dim = config.hidden_size // config.num_attention_heads
    frequency = config.rope_theta ** -(np.arange(0, head_dim, 2) / head_dim)
    rope = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
    return (frequency / rope.numpy()).astype(np.float32)


def write_gguf(path, config, tensors):
    arch = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    gemma = arch.startswith("gemma")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    u32 = {
        "block_count": config.num_hidden_layers, "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size, "context_length": config.max_position_embeddings,
        "attention.head_count": config.num_attention_heads, "vocab_size": VOCABULARY,
        "attention.head_count_kv": config.num_key_value_heads, "attention.key_length": head_dim,
        "attention.value_length": head_dim, "rope.dimension_count": head_dim,
    }
    if gemma:
        u32["attention.sliding_window"] = config.sliding_window
    f32 = {"attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": config.rope_theta}
    if arch == "gemma2":
        f32["attn_logit_softcapping"] = config.attn_logit_softcapping
        f32["final_logit_softcapping"] = config.final_logit_softcapping
    text = {"general.architecture": arch, "tokenizer.ggml.model": "no_vocab"}
    if arch == "gemma3":
        text[arch + ".rope.scaling.type"] = "linear"
        f32["rope.scaling.factor"] = config.rope_scaling["factor"]
    entries = [string(key) + struct.pack("<I", 8) + string(value) for key, value in text.items()]
    entries += [string(f"{arch}.{key}") + struct.pack("<II", 4, value) for key, value in u32.items()]
    entries += [string(f"{arch}.{key}") + struct.pack("<If", 6, value) for key, value in f32.items()]
    files = {}
    for name, values in tensors.items():
        if arch == "llama" and "q_proj" in name:
            values = pairs(values, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            values = pairs(values, config.num_key_value_heads)
        if gemma and "norm" in name:
            values = values + np.float32(1)
        files[gguf_name(name, gemma)] = values
    if (getattr(config, "rope_scaling", None) or {}).get("rope_type") == "llama3":
        files["rope_freqs.weight"] = llama3_factors(config)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(files), len(entries)) + b"".join(entries)
    data = b""
    for name, values in files.items():
        header += string(name) + struct.pack("<I", values.ndim)
        header += b"".join(struct.pack("<Q", dim) for dim in reversed(values.shape))
        header += struct.pack("<IQ", 0, len(data))
        data += np.ascontiguousarray(values, dtype="<f4").tobytes()
        data += b"\0" * (-len(data) % 32)
    header += b"\0" * (-len(header) % 32)
    with open(path, "wb") as file:
        file.write(header + data)


def main():
    check, backends = sys.argv[1:]
    tokens = [(7 * i * i + 3 * i + 5) % VOCABULARY for i in range(ROWS[-1] + 1)]
    cases = []
    for name, changes in CASES.items():
        settings = {**COMMON, **changes}
        config = transformers.AutoConfig.for_model(**settings)
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        gemma = "gemma" in config.model_type
        tensors = {
            key: weight(key, tuple(value.shape), gemma)
            for key, value in model.state_dict().items()
            if not (key == "lm_head.weight" and settings["tie_word_embeddings"])
        }
        state = {key: torch.from_numpy(value) for key, value in tensors.items()}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].numpy()
        if "layer_types" not in settings and getattr(config, "layer_types", None):
            settings["layer_types"] = config.layer_types
        case = {"name": name, "config": settings}
        case["tensors"] = {key: list(value.shape) for key, value in tensors.items()}
        # llama.cpp gives Mistral's architecture no window.
        if name != "mistral":
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "model.gguf")
                write_gguf(path, config, tensors)
                command = [check, backends, path, "logits", *map(str, tokens)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            theirs = np.array([line.split() for line in out.splitlines()], dtype=np.float32)
            case["llama_cpp_largest_difference"] = round(float(np.abs(theirs - logits).max()), 6)
        case["largest_logit"] = round(float(np.abs(logits).max()), 3)
        case["logits"] = [[round(float(x), 5) for x in logits[row]] for row in ROWS]
        cases.append(case)
        print(name, case.get("llama_cpp_largest_difference"), case["largest_logit"], file=sys.stderr)
    document = {
        "made_by": "scripts/reference/families.py",
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, f32, eager attention",
        "llama_cpp": "v0.5.0, f32 weights and KV cache",
        "tokens": tokens, "rows": ROWS,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    lines.append(' "cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n ]")
    print("{\n" + ",\n".join(lines) + "\n}")


main()
