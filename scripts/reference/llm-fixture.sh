#!/usr/bin/env bash
# Makes the llm service's reference outputs again: greedy tokens of llama.cpp on the same model file.
# usage: scripts/reference/llm-fixture.sh MODEL.gguf > containers/ai-services/llm/tests/data/NAME.json
# Needs npm, pip, gcc and access to the package registries; nothing in the build or the tests does.
set -euo pipefail

model=$(realpath "${1:?usage: llm-fixture.sh MODEL.gguf}")
here=$(cd "$(dirname "$0")" && pwd)
prompts="$here/../../containers/ai-services/llm/tests/data/prompts"
tokens=96
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/llama-tools.sh" "$work"
cd "$work"
lib="$work/package/bins/linux-x64"
./llama_greedy "$lib" "$model" "$tokens" "$prompts"/*.txt > cases.json
python3 - cases.json "$model" <<'PYTHON'
import hashlib, json, platform, sys
cases, model = sys.argv[1:]
document = {
    "made_by": "scripts/reference/llm-fixture.sh",
    "reference": "llama.cpp v0.5.0, prebuilt in npm @node-llama-cpp/linux-x64@3.22.1",
    "settings": "1 thread, f16 KV cache, flash attention automatic, greedy, end tokens ignored",
    "cpu": next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if "model name" in l), ""),
    "model_sha256": hashlib.sha256(open(model, "rb").read()).hexdigest(),
    "cases": json.load(open(cases))["cases"],
}
text = json.dumps(document, ensure_ascii=False, indent=1)
# Numbers on one line: a token a line would make the file unreadable.
import re
print(re.sub(r"\[[\s\d.,-]+\]", lambda m: re.sub(r"\s+", " ", m.group()), text))
PYTHON
