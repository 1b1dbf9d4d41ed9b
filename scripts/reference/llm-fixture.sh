#!/usr/bin/env bash
# Makes the llm service's reference outputs again: greedy tokens of llama.cpp on the same model file.
# usage: scripts/reference/llm-fixture.sh MODEL.gguf > containers/ai-services/llm/tests/data/NAME.json
# Needs npm, pip, gcc and access to the package registries; nothing in the build or the tests does.
set -euo pipefail

model=$(realpath "${1:?usage: llm-fixture.sh MODEL.gguf}")
here=$(cd "$(dirname "$0")" && pwd)
prompts="$here/../../containers/ai-services/llm/tests/data/prompts"
tokens=96
# llama.cpp as a prebuilt library, and its headers (the library's package has none).
library=@node-llama-cpp/linux-x64@3.22.1
headers=llama-cpp-python==0.3.36

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "$library" >/dev/null
tar xzf ./*.tgz
pip download --quiet --no-deps --no-binary llama-cpp-python "$headers" >&2
tar xzf llama_cpp_python-*.tar.gz --wildcards '*/vendor/llama.cpp/include/*.h' \
  '*/vendor/llama.cpp/ggml/include/*.h'
lib="$work/package/bins/linux-x64"
include=$(echo llama_cpp_python-*/vendor/llama.cpp)
gcc -O2 -I"$include/include" -I"$include/ggml/include" "$here/llama_greedy.c" -o llama_greedy \
  "$lib"/libllama.v*.so "$lib"/libggml.v*.so "$lib/libggml-base.so" \
  -Wl,-rpath,"$lib" -Wl,-rpath-link,"$lib"
./llama_greedy "$lib" "$model" "$tokens" "$prompts"/*.txt > cases.json
python3 - cases.json "$library" "$model" <<'PYTHON'
import hashlib, json, platform, sys
cases, library, model = sys.argv[1:]
document = {
    "made_by": "scripts/reference/llm-fixture.sh",
    "reference": "llama.cpp v0.5.0, prebuilt in npm " + library,
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
