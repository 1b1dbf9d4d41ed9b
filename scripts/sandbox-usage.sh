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
port=$((20000 + RANDOM % 20000))
traced=()
cli() { "$binaries/ai-semble" --home "$home" --quiet "$@"; }
# strace ends when its service does, and the service when it is told to.
end_traced() {
    local pid
    for pid in "${traced[@]}"; do pkill -TERM -P "$pid" 2>/dev/null || true; done
    wait
    traced=()
}
trap 'end_traced; rm -rf "$work"' EXIT

start() { # SERVICE FLAGS...
    local service=$1
    shift
    strace -f -qq -e raw=all -o "$work/$service.trace" "$binaries/ai-semble-$service" "$@" \
        >>"$work/$service.log" 2>&1 &
    traced+=($!)
}

mkdir -p "$work"/{llm,store,files}
# Away from the source tree: its settings are not what is asked about.
cd "$work"
cli keys create --name usage --scope llm --scope jobs --scope metrics --output "$work/key" >/dev/null
start llm --set "model.path=$model_file" --set 'model.sha256=' --set "socket.path=$work/llm/llm.sock"
start orchestrator --set "keys.file=$home/keys/keys.json" --set "store.dir=$work/store" \
    --set "services.llm=[\"$work/llm/llm.sock\"]" --set "listen.address=127.0.0.1:$port" \
    --set "files.dir=$work/files"
ask() { # PATH OPTIONS...
    curl --silent --show-error --max-time 120 -H "Authorization: Bearer $(cat "$work/key")" \
        -H 'Content-Type: application/json' "http://127.0.0.1:$port$1" "${@:2}"
}
for _ in $(seq 300); do
    if ask /ready --fail >/dev/null 2>&1; then break; fi
    sleep 1
done
if ! ask /ready --fail >/dev/null; then
    tail -n 2 "$work"/*.log >&2
    exit 1
fi
prompt='{"prompt": "The capital of France is", "max_tokens": 16}'
ask /ai/llm/completion -H 'Prefer: wait=60' -d "$prompt" | jq -c '{text}' >&2
ask /ai/llm/completion -H 'Accept: text/event-stream' -d "$prompt" >/dev/null
ask /v1/chat/completions -d '{"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}' >/dev/null
ask /ai/llm/completion -d '{"prompt": 7}' >/dev/null
ask /jobs >/dev/null
ask /metrics >/dev/null
cli keys create --name another --scope llm --output "$work/key2" >/dev/null
end_traced
services=(llm orchestrator)

for service in "${services[@]}"; do
    [ -s "$work/$service.trace" ] || continue
    "$binaries/ai-semble-sandbox-probe" --policy "$service" usage "$work/$service.trace" |
        jq -r '"\(.policy): \(.calls_after_lock_down) calls after lock-down; \(.used | length) rules used, \(.never_used | length) never:",
            (.never_used[] | "  \(.syscall)\t\(.rule)")'
done
