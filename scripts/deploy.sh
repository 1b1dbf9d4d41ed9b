#!/usr/bin/env bash
# Upgrades the pod that setup.sh deployed: a health gate, and the way back if it is not passed.
set -euo pipefail
umask 077

usage() {
    cat <<'TEXT'
usage: scripts/deploy.sh [--images DIR] [--gate SECONDS] [SETUP OPTIONS...]
       scripts/deploy.sh --rollback
       scripts/deploy.sh --status

  --images DIR    the new static binaries (scripts/build-static.sh); without it they are built here
  --gate SECONDS  how long every unit must stay up and healthy after the first completion [default: 20]
  --rollback      go back to the version of before the last deploy
  --status        which version runs, which one is kept
  -h, --help      this text

Other options go to scripts/setup.sh, which does the installing. What happens:
  1 keep     the images (as :previous), units and configuration of now, and a copy of the jobs
  2 install  setup.sh with the new binaries: running jobs are drained, queued ones stay
  3 gate     /ready, a completion, then SECONDS without a restart, every health check passing
  4 or back  if 2 or 3 fails: images, units and configuration of before are put back and started.
             Jobs accepted meanwhile stay; only if the old version cannot read the new store is the
             copy of step 1 put back, and the newer store is kept beside it.

exit codes: 0 the new version serves, 1 it does not and the old one serves again,
            2 wrong usage, 3 neither serves
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
gate_s=20 mode=deploy setup_options=()
while [ $# -gt 0 ]; do
    case $1 in
        --gate) gate_s=${2:?--gate needs seconds}; shift ;;
        --rollback) mode=rollback ;;
        --status) mode=status ;;
        -h | --help) usage; exit 0 ;;
        --uninstall | --dry-run | --check) echo "error: $1 belongs to scripts/setup.sh" >&2; exit 2 ;;
        *) setup_options+=("$1") ;;
    esac
    shift
done
case $gate_s in '' | *[!0-9]*) echo "error: --gate needs a number of seconds" >&2; exit 2 ;; esac

home=$HOME/.local/share/ai-semble
kept=$home/previous
volume=ai-semble-data
url=http://127.0.0.1:8080
# What setup.sh writes, relative to the account's home.
places=(.config/ai-semble .config/systemd/user/ai-semble.socket .config/systemd/user/ai-semble-pod.service.d
    .config/containers/systemd/ai-semble .config/containers/containers.conf.modules/ai-semble.conf
    .local/bin/ai-semble)

say() { printf '%s\n' "$*" >&2; }
step() { printf '== %s (%s s)\n' "$1" "$SECONDS" >&2; }

images() { podman image ls --format '{{.Repository}}:{{.Tag}}' | grep "^localhost/ai-semble-.*:$1\$" || true; }

version_of() { # IMAGE
    podman image inspect --format \
        '{{index .Labels "org.opencontainers.image.version"}} ({{index .Labels "org.opencontainers.image.revision"}})' "$1"
}

status() {
    local image
    for image in $(images current); do say "serves  ${image%:current} $(version_of "$image")"; done
    if [ -e "$kept/complete" ]; then
        say "kept    of $(date -r "$kept/complete" '+%F %T')"
        for image in $(images previous); do say "        ${image%:previous} $(version_of "$image")"; done
    else
        say 'kept    nothing: there was no deploy yet'
    fi
    systemctl --user --no-pager --no-legend list-units 'ai-semble*' >&2
}

# The socket too: a client that connects meanwhile would start the pod again.
stop() { systemctl --user stop ai-semble.socket ai-semble-pod.service 2>/dev/null || true; }

# --- step 1 -----------------------------------------------------------------------------------

keep() {
    local image place present=()
    [ -n "$(images current)" ] || {
        say 'error: there is no pod to upgrade'
        say 'hint: scripts/setup.sh deploys it'
        exit 2
    }
    rm -rf "$kept"
    mkdir -p "$kept"
    for image in $(images previous); do podman untag "$image" "$image"; done
    for image in $(images current); do podman tag "$image" "${image%:current}:previous"; done
    # What was kept the time before has no name any more.
    podman image prune --force --filter 'label=io.containers.capabilities=' >/dev/null
    for place in "${places[@]}"; do
        if [ -e "$HOME/$place" ]; then present+=("$place"); fi
    done
    tar -C "$HOME" -cf "$kept/configuration.tar" "${present[@]}"
    say 'stopping the pod: running jobs are drained'
    stop
    podman volume export --output "$kept/data.tar" "$volume"
    touch "$kept/complete"
}

# --- step 3 -----------------------------------------------------------------------------------

units() {
    systemctl --user list-units --all --plain --no-legend 'ai-semble*.service' |
        awk '$1 !~ /-volume\.service$/ { print $1 }'
}

restarts() {
    local unit sum=0
    for unit in $(units); do
        sum=$((sum + $(systemctl --user show --property=NRestarts --value "$unit")))
    done
    echo "$sum"
}

# One look: every unit active, every container that has a health check healthy.
well() {
    local unit container state
    for unit in $(units); do
        state=$(systemctl --user is-active "$unit" || true)
        [ "$state" = active ] || { say "not well: $unit is $state"; return 1; }
    done
    for container in $(podman ps --filter pod=ai-semble --filter health=unhealthy --format '{{.Names}}'); do
        say "not well: $container is unhealthy"
        return 1
    done
}

completion() {
    curl --silent --show-error --fail-with-body --max-time 120 --header '@-' \
        --header 'Content-Type: application/json' --header 'Prefer: wait=100' \
        --data '{"prompt": "The capital of France is", "max_tokens": 8}' \
        "$url/ai/llm/completion" <<<"Authorization: Bearer $(cat "$home/client-key")"
}

await_ready() {
    local waited=0
    until curl --silent --fail --max-time 5 "$url/ready" >/dev/null; do
        if [ "$waited" -ge 300 ] || systemctl --user --quiet is-failed 'ai-semble*'; then return 1; fi
        sleep 1
        waited=$((waited + 1))
    done
}

gate() {
    local before waited=0
    await_ready || { say 'not well: /ready does not answer 200'; return 1; }
    completion >/dev/null || { say 'not well: no completion'; return 1; }
    before=$(restarts)
    while [ "$waited" -lt "$gate_s" ]; do
        well || return 1
        if [ "$(restarts)" != "$before" ]; then
            say 'not well: a unit restarted'
            return 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

# --- step 4 -----------------------------------------------------------------------------------

# Starts of before do not count against this one: by name, for a pattern finds only what has failed.
forget_starts() {
    local known
    mapfile -t known < <(systemctl --user list-units --all --plain --no-legend 'ai-semble*' | awk '{ print $1 }')
    [ ${#known[@]} = 0 ] || systemctl --user reset-failed "${known[@]}" 2>/dev/null || true
}

start() {
    systemctl --user daemon-reload
    forget_starts
    systemctl --user start ai-semble.socket
    systemctl --user start ai-semble-pod.service
}

put_back() {
    local image place
    stop
    for image in $(images previous); do podman tag "$image" "${image%:previous}:current"; done
    for place in "${places[@]}"; do rm -rf "${HOME:?}/$place"; done
    tar -C "$HOME" -xpf "$kept/configuration.tar"
    start || true
    if await_ready; then return; fi
    say 'the old version does not start on the newer store: putting back the copy of before'
    stop
    podman volume export --output "$kept/data-of-the-failed-version.tar" "$volume"
    podman volume rm "$volume" >/dev/null
    podman volume create "$volume" >/dev/null
    podman volume import "$volume" "$kept/data.tar"
    start || true
    await_ready
}

go_back() { # WHY EXIT_CODE
    step "back: $1"
    [ -e "$kept/complete" ] || { say 'error: nothing is kept to go back to'; exit 3; }
    if put_back && completion >/dev/null; then
        status
        say "$1; the version of before serves again"
        exit "$2"
    fi
    say 'error: the version of before does not serve either'
    say "hint: journalctl --user -u 'ai-semble*'; what was kept is in $kept"
    exit 3
}

case $mode in
    status) status ;;
    rollback) go_back 'a rollback was asked for' 0 ;;
    deploy)
        step 'keep what is'
        keep
        step 'install'
        "$root/scripts/setup.sh" "${setup_options[@]}" || go_back 'the new version could not be installed' 1
        step "gate: $gate_s s"
        gate || go_back 'the new version did not pass the gate' 1
        step 'done'
        status
        ;;
esac
