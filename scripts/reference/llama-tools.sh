#!/usr/bin/env bash
# Builds the programs that ask llama.cpp: llama_greedy and llama_check, beside the prebuilt library.
# usage: scripts/reference/llama-tools.sh BUILD_DIR
# Needs npm, pip, gcc and access to the package registries.
set -euo pipefail

mkdir -p "${1:?usage: llama-tools.sh BUILD_DIR}"
work=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
# llama.cpp as a prebuilt library, and its headers (the library's package has none).
library=@node-llama-cpp/linux-x64@3.22.1
headers=llama-cpp-python==0.3.36

cd "$work"
if [ ! -d package ]; then
    npm pack --silent "$library" >/dev/null
    tar xzf ./*.tgz
fi
if [ ! -d headers ]; then
    pip download --quiet --no-deps --no-binary llama-cpp-python "$headers" >&2
    mkdir headers
    tar xzf llama_cpp_python-*.tar.gz --wildcards '*/vendor/llama.cpp/include/*.h' \
        '*/vendor/llama.cpp/ggml/include/*.h'
    cp llama_cpp_python-*/vendor/llama.cpp/{include,ggml/include}/*.h headers/
fi
lib=$work/package/bins/linux-x64
for program in llama_greedy llama_check; do
    gcc -O2 -Iheaders "$here/$program.c" -o "$program" \
        "$lib"/libllama.v*.so "$lib"/libggml.v*.so "$lib/libggml-base.so" -lm \
        -Wl,-rpath,"$lib" -Wl,-rpath-link,"$lib"
done
