#!/usr/bin/env bash
# The one command for a machine with an NVIDIA GPU: builds, compares the device with the CPU, records
# the driver's system calls beside the sandbox's rules, and measures. Figures go to OUTPUT_FOLDER as
# JSON lines. Not yet run on a GPU (docs/gpu.md).
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/bench-gpu.sh [--dry-run-cpu] [--device cuda:N] [--bandwidth-gb-s N] [--no-random]
                            OUTPUT_FOLDER MODEL.gguf

  MODEL.gguf         a real model, for correctness (that of the tests: smollm2-135m-instruct)
  --dry-run-cpu      the same steps with the CPU as the device and little of everything: proves the
                     script, measures nothing
  --device           default cuda:0
  --bandwidth-gb-s   the card's memory bandwidth, to compare decode with (default 4800: H200)
  --no-random        leave out the 1B and 8B models with random weights (10 GB on disk)

On the GPU machine libcublas.so.13 and libcurand.so.10 must be found (LD_LIBRARY_PATH). CARGO_TARGET_DIR
and AISEMBLE_CUDA_CACHE as for scripts/build-cuda.sh.
TEXT
}

device=cuda:0 bandwidth=4800 dry=0 random=1
places=()
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run-cpu) dry=1 device=cpu ;;
        --device) device=${2:?--device cuda:N}; shift ;;
        --bandwidth-gb-s) bandwidth=${2:?--bandwidth-gb-s N}; shift ;;
        --no-random) random=0 ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) places+=("$1") ;;
    esac
    shift
done
if [ ${#places[@]} -ne 2 ]; then usage >&2; exit 2; fi
mkdir -p "${places[0]}"
output=$(realpath "${places[0]}")
model=$(realpath "${places[1]}")
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS" >&2; }

step "the machine"
{
    date -u +%FT%TZ
    uname -r
    git rev-parse HEAD 2>/dev/null || true
    cat /proc/driver/nvidia/version 2>/dev/null || echo 'no NVIDIA driver'
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=name,uuid,driver_version,memory.total,power.limit,clocks.max.sm,ecc.mode.current \
            --format=csv
    fi
} | tee "$output/machine.txt" >&2
if [ "$dry" = 0 ] && [ ! -e /proc/driver/nvidia/version ]; then
    echo 'error: there is no NVIDIA driver here' >&2
    echo 'hint: --dry-run-cpu tries the script on the CPU' >&2
    exit 1
fi

step "build"
features=()
if [ "$dry" = 0 ]; then
    scripts/build-cuda.sh "$output/bin"
    features=(--features aisemble-llm/cuda)
    cache=${AISEMBLE_CUDA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble/cuda}
    export CUDA_HOME=$cache/toolkit/nvidia/cu13 CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
    export PATH=$CUDA_HOME/bin:$PATH CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/cuda}
    unset RUSTFLAGS CARGO_BUILD_TARGET
fi
# The profile of the dry run is the tests', so that it compiles nothing that they have not.
profile=(--profile release)
[ "$dry" = 1 ] && profile=(--profile dev)
programs=$(cargo build --locked "${profile[@]}" "${features[@]}" -p aisemble-llm --bench device \
    --message-format=json)
bench=$(python3 -c '
import json, sys
lines = (json.loads(line) for line in sys.stdin if line.startswith("{"))
found = [m["executable"] for m in lines if m.get("executable") and m["target"]["name"] == "device"]
print(found[-1])' <<<"$programs")

quick=()
[ "$dry" = 1 ] && quick=(--quick)
measure() { # MODEL OPTIONS...
    "$bench" "$1" --device "$device" --bandwidth-gb-s "$bandwidth" "${quick[@]}" "${@:2}"
}

step "the device against the CPU, and its speed: $(basename "$model")"
measure "$model" | tee "$output/real.jsonl"

if [ "$random" = 1 ] && [ "$dry" = 0 ]; then
    for size in 1b 8b; do
        step "speed with random weights: $size"
        python3 scripts/cuda/random_gguf.py "$size" "$output/random-$size.gguf"
        measure "$output/random-$size.gguf" --speed-only | tee "$output/random-$size.jsonl"
        rm "$output/random-$size.gguf"
    done
fi

step "system calls"
# What the driver does that no policy allows yet: every call with its arguments, to be compared with
# docs/gpu.md before a policy is called final.
if command -v strace >/dev/null; then
    strace -f -qq -o "$output/strace.txt" -e trace='!futex,sched_yield,clock_gettime' \
        "$bench" "$model" --device "$device" --quick >/dev/null
    sed -E 's/^[0-9]+ +//' "$output/strace.txt" | grep -oE '^[a-z0-9_]+' | sort | uniq -c | sort -rn \
        >"$output/calls.txt"
    grep -E 'ioctl\(' "$output/strace.txt" | grep -oE '(_IOC\([^)]*\)|0x[0-9a-f]+)' | sort | uniq -c | sort -rn \
        >"$output/ioctls.txt" || true
    grep -oE 'open(at)?\([^)]*' "$output/strace.txt" | grep -oE '"[^"]*"' | sort -u >"$output/opened.txt" || true
    echo "$(wc -l <"$output/calls.txt") calls, $(wc -l <"$output/ioctls.txt") ioctls," \
        "$(wc -l <"$output/opened.txt") files: see $output" >&2
else
    echo 'NOT RUN: strace is not installed' >&2
fi

step "done"
if [ "$dry" = 1 ]; then echo 'dry run on the CPU: no figure here is one of a GPU' >&2; fi
