#!/usr/bin/env bash
# What llama.cpp says of a model file, for `cargo bench -p aisemble-llm --bench agreement`: the tokens of
# texts, 256 greedy tokens after each of 50 prompts, and the perplexity of a fixed text.
# usage: scripts/reference/agreement.sh MODEL.gguf BUILD_DIR [TOKENS [PROMPTS]] > reference.json
# BUILD_DIR is kept: it holds the library, its headers and the programs. Needs npm, pip, gcc, git and python3;
# nothing in the build or the tests does. On a small machine it takes the better part of an hour.
set -euo pipefail

model=$(realpath "${1:?usage: agreement.sh MODEL.gguf BUILD_DIR}")
mkdir -p "${2:?usage: agreement.sh MODEL.gguf BUILD_DIR}"
work=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
tokens=${3:-256}
prompts=${4:-50}
context=512
# The text is that of this commit for good.
commit=086c725
text_files=(docs/architecture.md docs/security.md docs/operations.md docs/llm.md docs/nlp.md docs/files.md docs/workflows.md)

"$here/llama-tools.sh" "$work"
backends=$work/package/bins/linux-x64
greedy=() number=0
rm -rf "$work/prompts" && mkdir -p "$work/prompts"
while IFS= read -r prompt; do
    number=$((number + 1))
    file=$work/prompts/$(printf %02d "$number").txt
    printf '%s' "$prompt" >"$file"
    greedy+=("$file")
done < <(head -n "$prompts" "$here/agreement-prompts.txt")
name=$(basename "$model" .gguf)
for file in "${text_files[@]}"; do
    git -C "$here" show "$commit:$file"
done >"$work/text.txt"
python3 - "$here/../../crates/weights/fixtures/smollm2-tokens.jsonl" "$work/texts.bin" "$work/text.txt" <<'PYTHON'
import json, sys
texts, out, fixed = sys.argv[1:]
texts = [json.loads(line)["text"] for line in open(texts)]
texts = list(dict.fromkeys(text for text in texts if "\0" not in text))
open(out, "wb").write(b"".join(text.encode() + b"\0" for text in texts + [open(fixed).read()]))
PYTHON
"$work/llama_check" "$backends" "$model" tokens "$work/texts.bin" >"$work/$name.tokens"
tail -n 2 "$work/$name.tokens" | sed -n 1p >"$work/$name.ids"
"$work/llama_check" "$backends" "$model" perplexity "$context" "$work/$name.ids" >"$work/$name.perplexity"
"$work/llama_greedy" "$backends" "$model" "$tokens" "${greedy[@]}" >"$work/$name.greedy"
python3 - "$work" "$name" "$model" "$context" <<'PYTHON'
import hashlib, json, sys
work, name, model, context = sys.argv[1:]
texts = open(f"{work}/texts.bin", "rb").read().split(b"\0")[:-1]
lines = [[int(id) for id in line.split()] for line in open(f"{work}/{name}.tokens")]
total, count, begin = open(f"{work}/{name}.perplexity").read().split()
print(json.dumps({
    "reference": "llama.cpp v0.5.0, 1 thread, f16 KV cache",
    "model_sha256": hashlib.sha256(open(model, "rb").read()).hexdigest(),
    "texts": [
        {"text": text.decode(), "plain": lines[2 * i], "special": lines[2 * i + 1]}
        for i, text in enumerate(texts)
    ],
    "cases": json.load(open(f"{work}/{name}.greedy"))["cases"],
    "perplexity": {"context": int(context), "tokens": lines[2 * len(texts) - 2],
                   "nll_sum": float(total), "count": int(count), "begin": int(begin)},
}))
PYTHON
