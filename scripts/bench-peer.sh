#!/usr/bin/env bash
# Measures llama.cpp on a model file and prints one JSON object, as `ai-semble bench llm --peer` wants:
#   {"engine": ..., "prefill_tokens_per_s": ..., "decode_tokens_per_s": ...}
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/bench-peer.sh --model FILE [--threads N] [--prompt-tokens N] [--output-tokens N]
                             [--streams N] [--repeat N] [--lib DIR]

Without --lib, llama.cpp v0.5.0 (prebuilt, npm) and its headers (PyPI) are fetched once into
$AISEMBLE_TEST_CACHE (default ~/.cache/ai-semble). --lib names a folder with libllama*.so,
libggml*.so and the back ends; its headers are expected in DIR/include when it is not that version.
Needs gcc; npm and pip for fetching.
TEXT
}

library=@node-llama-cpp/linux-x64@3.22.1
headers=llama-cpp-python==0.3.36
model='' lib='' threads=$(nproc) prompt_tokens=256 output_tokens=64 streams=1 repeat=3
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --model | --lib | --threads | --prompt-tokens | --output-tokens | --streams | --repeat)
            if [ $# -lt 2 ]; then
                echo "error: $1 needs a value" >&2
                exit 2
            fi
            name=${1#--}
            printf -v "${name//-/_}" '%s' "$2"
            shift
            ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ ! -f "$model" ]; then
    echo "error: no model file ${model:-(--model is missing)}" >&2
    exit 2
fi

here=$(cd "$(dirname "$0")" && pwd)
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}/llama.cpp
mkdir -p "$cache"
include=$cache/headers/include
if [ -n "$lib" ] && [ -d "$lib/include" ]; then include=$lib/include; fi
if [ ! -f "$include/llama.h" ]; then
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --disable-pip-version-check "$headers" >&2) || {
        echo "error: cannot fetch the headers ($headers)" >&2
        exit 1
    }
    mkdir -p "$cache/headers/include"
    tar xzf "$work"/*.tar.gz -C "$work" --wildcards '*/vendor/llama.cpp/*.h'
    find "$work" -path '*/llama.cpp/include/*.h' -o -path '*/ggml/include/*.h' |
        while IFS= read -r header; do cp "$header" "$cache/headers/include/"; done
    rm -rf "$work"
fi
if [ -z "$lib" ]; then
    lib=$cache/package/bins/linux-x64
    if [ ! -d "$lib" ]; then
        (cd "$cache" && npm pack --silent "$library" >/dev/null && tar xzf ./*linux-x64*.tgz)
    fi
fi
program=$cache/bench_peer
gcc -O2 -I"$include" "$here/bench-peer.c" -o "$program.$$" \
    "$lib"/libllama.*so* "$lib"/libggml.*so* "$lib"/libggml-base.so \
    -Wl,-rpath,"$lib" -Wl,-rpath-link,"$lib"
mv "$program.$$" "$program"
exec "$program" "$lib" "$model" "$threads" "$prompt_tokens" "$output_tokens" "$streams" "$repeat"
