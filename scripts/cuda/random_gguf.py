#!/usr/bin/env python3
"""Writes a GGUF file with the shape of a well-known model and random weights, for measuring speed where
the real weights are not at hand. What it says is noise.

usage: random_gguf.py 1b|8b OUTPUT.gguf       (Llama 3.2 1B or Llama 3.1 8B in Q8_0: 1.3 GB or 8.5 GB)
"""

import os
import struct
import sys

SHAPES = {
    "1b": {"blocks": 16, "embedding": 2048, "heads": 32, "kv_heads": 8, "feed_forward": 8192, "tied": True},
    "8b": {"blocks": 32, "embedding": 4096, "heads": 32, "kv_heads": 8, "feed_forward": 14336, "tied": False},
}
VOCABULARY = 128256
U32, F32, STRING = 4, 6, 8
TYPE_F32, TYPE_Q8_0 = 0, 8
ALIGNMENT = 32
CHUNK_BLOCKS = 1 << 15


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(shape):
    head = shape["embedding"] // shape["heads"]
    pairs = [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "random weights"),
        ("llama.block_count", U32, shape["blocks"]),
        ("llama.embedding_length", U32, shape["embedding"]),
        ("llama.feed_forward_length", U32, shape["feed_forward"]),
        ("llama.attention.head_count", U32, shape["heads"]),
        ("llama.attention.head_count_kv", U32, shape["kv_heads"]),
        ("llama.rope.dimension_count", U32, head),
        ("llama.rope.freq_base", F32, 500000.0),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.context_length", U32, 131072),
    ]
    forms = {U32: lambda v: struct.pack("<I", v), F32: lambda v: struct.pack("<f", v), STRING: text}
    return len(pairs), b"".join(text(k) + struct.pack("<I", t) + forms[t](v) for k, t, v in pairs)


def tensors(shape):
    width, inner = shape["embedding"], shape["feed_forward"]
    kv = width // shape["heads"] * shape["kv_heads"]
    yield "token_embd.weight", (VOCABULARY, width)
    for block in range(shape["blocks"]):
        for part, dims in {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv, width),
            "attn_v": (kv, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }.items():
            yield f"blk.{block}.{part}.weight", dims
    yield "output_norm.weight", (width,)
    if not shape["tied"]:
        yield "output.weight", (VOCABULARY, width)


def size(dims):
    values = 1
    for dim in dims:
        values *= dim
    # A block of Q8_0: the scale in half precision, 32 weights.
    return 4 * values if len(dims) == 1 else values // 32 * 34


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    shape = SHAPES[sys.argv[1]]
    count, pairs = metadata(shape)
    listed, infos, offset = list(tensors(shape)), b"", 0
    for name, dims in listed:
        kind = TYPE_F32 if len(dims) == 1 else TYPE_Q8_0
        # GGUF names the fastest dimension first.
        infos += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *reversed(dims))
        infos += struct.pack("<IQ", kind, offset)
        offset += -(-size(dims) // ALIGNMENT) * ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), count) + pairs + infos
    # 1/6000: products of some thousands of terms stay near one.
    scale = struct.pack("<e", 1 / 6000)
    chunk = b"".join(scale + os.urandom(32) for _ in range(CHUNK_BLOCKS))
    with open(sys.argv[2], "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for _, dims in listed:
            left = size(dims)
            if len(dims) == 1:
                file.write(struct.pack("<f", 1.0) * dims[0])
            else:
                for _ in range(left // len(chunk)):
                    file.write(chunk)
                file.write(chunk[: left % len(chunk)])
            file.write(bytes(-left % ALIGNMENT))


main()
