#!/usr/bin/env bash
# Sets up monitoring by Prometheus and Grafana: files to use, a key that may only read metrics, a check.
set -euo pipefail
umask 077

usage() {
    cat <<'TEXT'
usage: scripts/monitoring.sh [--output DIR] [--home DIR] [--url URL] [--renew-key] [--check] [--remove]

  --output DIR   where the files go [default: ~/.config/ai-semble/monitoring]
  --home DIR     the home of Ai-semble, with its keys
                 [default: $AISEMBLE_HOME, else ~/.local/share/ai-semble]
  --url URL      the pod's address, as Prometheus reaches it [default: http://127.0.0.1:8080]
  --renew-key    make a new key; the one of before is revoked
  --check        only check: the pod answers with the key, and has each figure that the files ask for
  --remove       revoke the key and remove the files
  -h, --help     this text

Writes prometheus.yml, ai-semble-alerts.yml, grafana-dashboard.json and ai-semble-key (mode 0600, scope
`metrics`: it can read figures, not jobs or prompts). Then:
  prometheus --config.file DIR/prometheus.yml
  Grafana: Dashboards, New, Import, DIR/grafana-dashboard.json
A second run changes nothing.
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
output=${XDG_CONFIG_HOME:-$HOME/.config}/ai-semble/monitoring
home=${AISEMBLE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/ai-semble}
url=http://127.0.0.1:8080
renew=0 mode=install
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=${2:?--output needs a folder}; shift ;;
        --home) home=${2:?--home needs a folder}; shift ;;
        --url) url=${2:?--url needs an address}; shift ;;
        --renew-key) renew=1 ;;
        --check) mode=check ;;
        --remove) mode=remove ;;
        -h | --help) usage; exit 0 ;;
        *) echo "error: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
key_file=$output/ai-semble-key
key_name='made by monitoring.sh'

fail() { # MESSAGE HINT
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

aisemble() {
    local binary
    for binary in "$home/bin/ai-semble" "$HOME/.local/bin/ai-semble" "$(command -v ai-semble || true)"; do
        if [ -x "$binary" ]; then
            "$binary" --home "$home" "$@"
            return
        fi
    done
    fail 'the command ai-semble was not found' 'run scripts/setup.sh first, or say where with --home'
}

# In the pod the orchestrator reads the keys from a Podman secret, a copy that is made anew.
hand_keys_over() {
    if command -v podman >/dev/null && podman secret exists ai-semble-keys 2>/dev/null; then
        podman secret create --replace ai-semble-keys "$home/keys/keys.json" >/dev/null
        if systemctl --user --quiet is-active ai-semble-orchestrator.service; then
            systemctl --user restart ai-semble-orchestrator.service
            curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors "$url/ready" >/dev/null
        fi
    fi
}

revoke_keys() {
    local id
    for id in $(aisemble --json keys list |
        jq -r --arg name "$key_name" '.keys[] | select(.live and .name == $name) | .id'); do
        aisemble --quiet keys revoke "$id"
    done
}

place() { # SOURCE NAME MODE
    if [ -e "$output/$2" ] && cmp -s "$1" "$output/$2"; then return; fi
    install -D -m "$3" "$1" "$output/$2"
    echo "wrote $output/$2"
}

# Every figure that the alerts and the dashboard ask for, without the suffixes that Prometheus adds.
figures_asked_for() {
    cat "$output/ai-semble-alerts.yml" "$output/grafana-dashboard.json" |
        grep -oE '\b(aisemble|process|gen_ai)_[a-z_]+' | sed -e 's/_bucket$//' | sort -u
}

check() {
    local page figure missing=0 declared
    [ -e "$key_file" ] || fail "$key_file is not there" 'run scripts/monitoring.sh without --check first'
    page=$(curl --silent --show-error --fail --max-time 10 --header '@-' "$url/metrics" \
        <<<"Authorization: Bearer $(cat "$key_file")") ||
        fail "$url/metrics did not answer with the key" 'is the pod running? a 401 means: --renew-key'
    declared=$(awk '/^# TYPE / { print $3 }' <<<"$page")
    for figure in $(figures_asked_for); do
        if ! grep -qx "$figure" <<<"$declared"; then
            # A family without a label set yet is not on the page: it must be in the documentation.
            if ! grep -q "^| \`$figure\`" "$root/docs/metrics.md"; then
                echo "not a figure of this version: $figure" >&2
                missing=1
            fi
        fi
    done
    if command -v promtool >/dev/null; then
        (cd "$output" && promtool check config prometheus.yml)
    fi
    [ "$missing" = 0 ] || fail 'the files ask for figures that the pod does not have' 'use files of the same version'
    echo "ok: $url/metrics answers, $(wc -l <<<"$declared") families"
}

case $mode in
    check) check ;;
    remove)
        revoke_keys
        hand_keys_over
        rm -rf "$output"
        echo "removed $output and its key"
        ;;
    install)
        command -v jq >/dev/null || fail 'jq was not found' 'apt-get install jq'
        mkdir -p "$output"
        chmod 0700 "$output"
        address=${url#http*://}
        scrape=$(mktemp)
        sed -e "s|127\.0\.0\.1:8080|${address%/}|" "$root/configs/monitoring/prometheus.yml" >"$scrape"
        case $url in https:*) sed -i -e 's|^\( *\)metrics_path:|\1scheme: https\n&|' "$scrape" ;; esac
        place "$scrape" prometheus.yml 0644
        rm -f "$scrape"
        place "$root/configs/monitoring/ai-semble-alerts.yml" ai-semble-alerts.yml 0644
        place "$root/configs/monitoring/grafana-dashboard.json" grafana-dashboard.json 0644
        if [ "$renew" = 1 ] || [ ! -s "$key_file" ]; then
            revoke_keys
            rm -f "$key_file"
            aisemble --quiet keys create --name "$key_name" --scope metrics --output "$key_file"
            hand_keys_over
            echo "wrote $key_file"
        fi
        check
        ;;
esac
