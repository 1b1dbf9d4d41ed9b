#!/usr/bin/env python3
"""The same model in double precision: which token is the likeliest after each prefix of the fixture,
and by how much. Weights are widened from the file; nothing is rounded on the way. It says which of
two engines that disagree is nearer to the truth, and how far a rounding engine may be from it.

usage: exact_greedy.py MODEL.gguf FIXTURE.json > exact.json     (needs numpy; Llama family, F32, Q4_1, Q8_0)
"""
import json
import struct
import sys

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Gguf:
    def __init__(self, path):
        self.bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self.at = 4
        assert bytes(self.bytes[:4]) == b"GGUF"
        self.scalar("I")
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        self.keys = {}
        for _ in range(keys):
            name = self.string().decode()
            self.keys[name] = self.value(self.scalar("I"))
        self.tensors = {}
        for _ in range(tensors):
            name = self.string().decode()
            dims = [self.scalar("Q") for _ in range(self.scalar("I"))][::-1]
            self.tensors[name] = (dims, self.scalar("I"), self.scalar("Q"))
        align = self.keys.get("general.alignment", 32)
        self.base = -(-self.at // align) * align

    def scalar(self, kind):
        value = struct.unpack_from("<" + kind, self.bytes, self.at)[0]
        self.at += struct.calcsize("<" + kind)
        return value

    def string(self):
        length = self.scalar("Q")
        self.at += length
        return bytes(self.bytes[self.at - length : self.at])

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(count)]
        return self.scalar(SCALARS[kind])

    def tensor(self, name):
        dims, kind, offset = self.tensors[name]
        count = int(np.prod(dims))
        start = self.base + offset
        if kind == 0:
            return self.bytes[start : start + 4 * count].view(np.float32).reshape(dims).astype(float)
        size = {3: 20, 8: 34}[kind]
        blocks = self.bytes[start : start + count // 32 * size].reshape(-1, size)
        half = lambda a, b: blocks[:, a:b].copy().view(np.float16).astype(float)
        if kind == 8:
            return (blocks[:, 2:].copy().view(np.int8) * half(0, 2)).reshape(dims)
        nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        return (nibbles * half(0, 2) + half(2, 4)).reshape(dims)


class Model:
    PARTS = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
    PARTS += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]

    def __init__(self, gguf):
        key = lambda name: gguf.keys["llama." + name]
        self.heads, self.kv_heads = key("attention.head_count"), key("attention.head_count_kv")
        self.eps, self.base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base")
        self.table = gguf.tensor("token_embd.weight")
        self.norm = gguf.tensor("output_norm.weight")
        self.layers = [
            {part: gguf.tensor(f"blk.{i}.{part}.weight") for part in self.PARTS}
            for i in range(key("block_count"))
        ]

    def normal(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight

    def turn(self, x):
        rows, _, dim = x.shape
        angle = np.arange(rows)[:, None] * self.base ** (-np.arange(0, dim, 2) / dim)[None, :]
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def logits(self, tokens):
        x = self.table[tokens]
        rows, width = x.shape
        dim, group = width // self.heads, self.heads // self.kv_heads
        future = np.triu(np.full((rows, rows), -np.inf), 1)
        for w in self.layers:
            h = self.normal(x, w["attn_norm"])
            q = self.turn((h @ w["attn_q"].T).reshape(rows, self.heads, dim))
            k = self.turn((h @ w["attn_k"].T).reshape(rows, self.kv_heads, dim))
            v = (h @ w["attn_v"].T).reshape(rows, self.kv_heads, dim)
            attended = np.empty_like(q)
            for head in range(self.heads):
                s = q[:, head] @ k[:, head // group].T / np.sqrt(dim) + future
                s = np.exp(s - s.max(-1, keepdims=True))
                attended[:, head] = s / s.sum(-1, keepdims=True) @ v[:, head // group]
            x = x + attended.reshape(rows, width) @ w["attn_output"].T
            h = self.normal(x, w["ffn_norm"])
            gate = h @ w["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
        return self.normal(x, self.norm) @ self.table.T


def main():
    model = Model(Gguf(sys.argv[1]))
    cases = []
    for case in json.load(open(sys.argv[2]))["cases"]:
        prompt, output = case["prompt_tokens"], case["output_tokens"]
        logits = model.logits(prompt + output[:-1])[len(prompt) - 1 :]
        top = np.sort(logits, -1)
        cases.append({
            "likeliest": logits.argmax(-1).tolist(),
            "gaps": [round(gap, 4) for gap in (top[:, -1] - top[:, -2]).tolist()],
        })
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    print('{\n "made_by": "scripts/reference/exact_greedy.py",\n "cases": [\n' + lines + "\n ]\n}")


main()
