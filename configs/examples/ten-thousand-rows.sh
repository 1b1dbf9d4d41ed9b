#!/usr/bin/env bash
# The moods of 10,000 public texts (moods.json) through a running `ai-semble up`, twice: quietly, and
# while the orchestrator, the nlp service and queries' processes are killed (kill -9) at random moments.
# Both must give the same table. usage: ten-thousand-rows.sh [ROWS] [KILLS]
#
# The texts are rated sentences of film reviews out of vaderSentiment's sdist (MIT, C.J. Hutto); the
# script fetches them with pip and keeps them in the folder WORK, or in one that is deleted.
set -euo pipefail
rows=${1:-10000} kills=${2:-9}
here=$(cd "$(dirname "$0")" && pwd)
home=${AISEMBLE_HOME:-$HOME/.local/share/ai-semble}
work=${WORK:-}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi

table=$work/texts.csv
if [ ! -e "$table" ]; then
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary vaderSentiment \
        --dest "$work" vaderSentiment==3.3.2
    tar -xzf "$work/vaderSentiment-3.3.2.tar.gz" -C "$work"
    tar -xzf "$work/vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz" -C "$work"
    python3 - "$work" <<'PY'
import csv, pathlib, sys

folder = pathlib.Path(sys.argv[1])
lines = (folder / "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").read_text("latin-1")
with open(folder / "texts.csv", "w", newline="", encoding="utf-8") as out:
    table = csv.writer(out)
    table.writerow(["id", "rating", "text"])
    table.writerows(line.split("\t", 2) for line in lines.splitlines() if line.count("\t") >= 2)
PY
fi
head -n "$((rows + 1))" "$table" > "$work/table.csv"

# Submits the workflow, follows it, and leaves what it gave in $work/$1.*
run() {
    local id begun=$SECONDS view=$work/$1.json
    : > "$view"
    id=$(ai-semble workflow run "$here/moods.json" --file-input "table=$work/table.csv" --detach)
    echo "$1: workflow $id"
    if [ "$1" = killed ]; then kill_at_random & fi
    # The orchestrator may be away for a moment.
    until ai-semble --json workflow watch "$id" > "$view" || [ -s "$view" ]; do sleep 1; done
    echo "$1: $((SECONDS - begun)) s"
    wait
    jq -r '"\(.state): \(.steps[0].output.rows) rows, \(.steps[0].output.failed) failed"' "$view"
    ai-semble files get "$(jq -r '.steps[0].output.file' "$view")" -o "$work/$1.ndjson" --force
    ai-semble files get "$(jq -r '.steps[1].output.output.file' "$view")" -o "$work/$1.parquet" --force
    ai-semble files get "$(jq -r '.steps[2].output.markdown_file' "$view")" -o "$work/$1.md" --force
    jq -c '.steps[1].output.preview[]' "$view"
}

# The processes that the supervisor started, by the name of their program; `query`: those that the data
# processor has for its queries.
pids() {
    if [ "$1" = query ]; then
        local server
        for server in $(pgrep -P "$(pids ai-semble-data-processor)"); do pgrep -P "$server" || true; done
    else
        pgrep -P "$(jq -r .identity.pid "$home/run/up.json")" -f "/$1( |$)" || true
    fi
}

kill_at_random() {
    local count victim one
    for ((count = 0; count < kills; count++)); do
        sleep "$((1 + RANDOM % 4)).$((RANDOM % 10))"
        # The result is there: nothing is left to disturb.
        if [ -s "$work/killed.json" ]; then return; fi
        case $((RANDOM % 2)) in
            0) victim=ai-semble-nlp ;;
            *) victim=ai-semble-orchestrator ;;
        esac
        for one in $(pids "$victim"); do
            kill -9 "$one" && echo "killed $victim ($one) at $SECONDS s"
        done
    done
    # One query's process, which is there only for a moment.
    until [ -s "$work/killed.json" ]; do
        for one in $(pids query); do
            kill -9 "$one" && echo "killed a query's process ($one) at $SECONDS s" && return
        done
        sleep 0.01
    done
}

run quiet
run killed
cmp "$work/quiet.ndjson" "$work/killed.ndjson" && echo "the same table, byte for byte: $(sha256sum < "$work/quiet.ndjson")"
echo "ids that are there twice: $(jq -r .id "$work/killed.ndjson" | sort | uniq -d | wc -l)"
