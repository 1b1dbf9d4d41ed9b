#!/usr/bin/env bash
# Fuzzes what reads foreign bytes: requests, pictures, weights, tables, settings, SQL, templates, schemas.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/fuzz.sh [--seconds N] [--seed N] [--plain] [--list] [TARGET...]

  --seconds N   time for each target (default 60)
  --seed N      where the random numbers begin (default 1)
  --plain       take the build that the tests made, which counts no edges
  --list        the targets
  TARGET        these only (default: all)

One JSON line a target on standard output. An input that breaks a target is kept in $AISEMBLE_FUZZ_DIR (default
fuzz-found in the build folder), and the script ends with 1. Needs no other toolchain than the project's: our crates
are built with LLVM's edge counters (fuzz/rustc-counting), their dependencies as always.
TEXT
}

seconds=60 seed=1 list=0 plain=0 targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2:?--seconds needs a number}; shift ;;
        --seed) seed=${2:?--seed needs a number}; shift ;;
        --plain) plain=1 ;;
        --list) list=1 ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) targets+=("$1") ;;
    esac
    shift
done
cd "$(dirname "$0")/.."
CARGO_BUILD_TARGET=${CARGO_BUILD_TARGET:-$(rustc -vV | awk '/^host:/ { print $2 }')}
export CARGO_BUILD_TARGET
if [ "$plain" = 0 ]; then export RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc-counting; fi
program=$(cargo test --quiet -p aisemble-fuzz --test fuzz --no-run --locked --message-format json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "error: the fuzzer was not built" >&2; exit 1; }
if [ "$list" = 1 ]; then exec "$program" --list; fi
if [ ${#targets[@]} -eq 0 ]; then mapfile -t targets < <("$program" --list); fi
found=${AISEMBLE_FUZZ_DIR:-$(dirname "$program")/../fuzz-found}
mkdir -p "$found"

failed=0
# What asks for more memory than this has found a bomb.
ulimit -v $((8 * 1024 * 1024))
for target in "${targets[@]}"; do
    status=0
    nice -n 15 "$program" --seconds "$seconds" --seed "$seed" --folder "$found" "$target" || status=$?
    if [ "$status" -ge 128 ]; then
        cp "$found/$target.last" "$found/$target.broken"
        echo "error: $target ended with status $status; the input is $found/$target.broken" >&2
    fi
    if [ "$status" != 0 ]; then failed=1; fi
done
exit "$failed"
