#!/usr/bin/env bash
# Runs the product under strace with real requests and prints which rules of each service's sandbox
# policy were used after lock-down, and which never: candidates to take away, or paths to test.
# usage: scripts/sandbox-usage.sh BINARIES MODEL_FILE    BINARIES holds ai-semble, the services, the probe
set -euo pipefail

binaries=$(cd "${1:?usage: scripts/sandbox-usage.sh BINARIES MODEL_FILE}" && pwd)
model_file=$(realpath "${2:?usage: scripts/sandbox-usage.sh BINARIES MODEL_FILE}")
command -v strace >/dev/null || { echo 'error: strace not found (apt-get install strace)' >&2; exit 1; }

work=$(mktemp -d)
home=$work/home
programs=$work/bin
mkdir -p "$programs"
cli() { "$binaries/ai-semble" --home "$home" --quiet "$@"; }
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    cli down >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT

# `up` starts the services that lie beside its own program: each is put behind strace.
services=()
for service in orchestrator llm nlp vision data-processor; do
    program=$binaries/ai-semble-$service
    [ -x "$program" ] || continue
    services+=("$service")
    {
        echo '#!/bin/sh'
        echo "exec strace -f -qq -e raw=all -o '$work/$service.trace' '$program' \"\$@\""
    } >"$programs/ai-semble-$service"
    chmod +x "$programs/ai-semble-$service"
done
cp "$binaries/ai-semble" "$programs/"

cli models pull --file "$model_file" >/dev/null
"$programs/ai-semble" --home "$home" --quiet up --detach >&2
cli complete --max-tokens 24 'The capital of France is' >&2
for _ in 1 2 3; do cli complete --max-tokens 4 'One, two,' >/dev/null; done
cli status >&2 || true
cli doctor >&2 || true
cli down >&2

for service in "${services[@]}"; do
    [ -s "$work/$service.trace" ] || continue
    "$binaries/ai-semble-sandbox-probe" --policy "$service" usage "$work/$service.trace" |
        jq -r '"\(.policy): \(.calls_after_lock_down) calls after lock-down; \(.used | length) rules used, \(.never_used | length) never:",
            (.never_used[] | "  \(.syscall)\t\(.rule)")'
done
