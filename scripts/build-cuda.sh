#!/usr/bin/env bash
# Builds the GPU programs: the same source with the feature `cuda`, dynamically linked to libc alone, so
# that one program starts with and without an NVIDIA driver. Needs no GPU and no CUDA installation: the
# compiler comes as Python packages. About 11 CPU minutes the first time.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/build-cuda.sh [--toolkit-only] OUTPUT_FOLDER

  --toolkit-only  fetch the compiler and make the link-time stand-ins, and stop

Environment:
  AISEMBLE_CUDA_CACHE   where the toolkit is kept (default ~/.cache/ai-semble/cuda)
  AISEMBLE_PROFILE      cargo profile (default: release)
  CUDA_COMPUTE_CAP      the GPU's compute capability (default 90: H100, H200). candle's quantised
                        kernels run on this one only
  CARGO_TARGET_DIR      default: target/cuda, apart from the CPU build: their features differ
On the GPU machine the programs find libcuda.so.1 (driver), libcublas.so.13 and libcurand.so.10 by
LD_LIBRARY_PATH or the system's own paths. Driver 580 or newer (CUDA 13.0).
TEXT
}

toolkit_only=0
output=
for argument in "$@"; do
    case $argument in
        --toolkit-only) toolkit_only=1 ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) output=$argument ;;
    esac
done
if [ "$toolkit_only" = 0 ] && [ -z "$output" ]; then usage >&2; exit 2; fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "error: the stand-ins for CUDA's libraries are written for x86-64" >&2
    exit 1
fi

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cache=${AISEMBLE_CUDA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble/cuda}
profile=${AISEMBLE_PROFILE:-release}
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
export CUDA_HOME=$cache/toolkit/nvidia/cu13

# 13.0, not newer: a driver refuses PTX of a newer version than its own, and 580 is CUDA 13.0.
wheels=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
)

toolkit() {
    if [ -e "$cache/toolkit/complete" ]; then return; fi
    echo "fetching the CUDA compiler (100 MB)" >&2
    rm -rf "$cache/toolkit"
    mkdir -p "$cache/wheels" "$cache/toolkit"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$cache/wheels" "${wheels[@]}"
    for wheel in "$cache"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$cache/toolkit"
    done
    chmod +x "$CUDA_HOME"/bin/* "$CUDA_HOME"/nvvm/bin/*
    touch "$cache/toolkit/complete"
}

# Where cudarc's build script looks last; no shared library of these names lies before it.
stand_ins() {
    local cudarc stubs=$CUDA_HOME/lib64/stubs
    cudarc=$(cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu \
        --features aisemble-llm/cuda | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(next(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == "cudarc"))')
    mkdir -p "$stubs"
    python3 scripts/cuda/shims.py "$cudarc" "$stubs"
    cp "$CUDA_HOME/lib/libcudart_static.a" "$stubs/libcudart.a"
}

# What the program must not need: it would not start without a driver.
check_needed() { # PROGRAM
    local needed
    needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    if grep -qE 'cuda|cublas|curand|nvrtc|nvidia' <<<"$needed"; then
        printf 'error: %s needs a CUDA library to start:\n%s\n' "$1" "$needed" >&2
        exit 1
    fi
    echo "$1 needs: $(tr '\n' ' ' <<<"$needed")" >&2
}

toolkit
stand_ins
"$CUDA_HOME/bin/nvcc" --version | tail -n 1 >&2
if [ "$toolkit_only" = 1 ]; then exit 0; fi

export PATH=$CUDA_HOME/bin:$PATH
export CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-2}
export NVCC_APPEND_FLAGS=${NVCC_APPEND_FLAGS:--Xfatbin=-compress-all}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/cuda}
unset RUSTFLAGS CARGO_BUILD_TARGET
cargo build --locked --profile "$profile" --features aisemble-llm/cuda \
    --package aisemble-llm --bin ai-semble-llm
folder=$profile
[ "$profile" = dev ] && folder=debug
mkdir -p "$output"
install -s -m 0555 "$CARGO_TARGET_DIR/$folder/ai-semble-llm" "$output/ai-semble-llm"
check_needed "$output/ai-semble-llm"
"$output/ai-semble-llm" --version
