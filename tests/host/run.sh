#!/usr/bin/env bash
# Deploys the pod on a real host (systemd, rootless Podman) from a fresh account and checks what it
# promises. One command, for a developer and for CI; needs root for the host's own container.
# usage: tests/host/run.sh [--binaries DIR] [--keep]
#   --binaries DIR   static binaries of scripts/build-static.sh instead of building them now
#   --keep           leave the host running at the end, to look around in it
# exit codes: 0 all checks as expected, 1 one was not, 77 this machine cannot boot such a host
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export AISEMBLE_HOST_STATE=$cache/host/run
binaries='' keep=0
while [ $# -gt 0 ]; do
    case $1 in
        --binaries) binaries=$(cd "${2:?--binaries needs a folder}" && pwd); shift ;;
        --keep) keep=1 ;;
        *) sed -n '2,8p' "$0" >&2; exit 2 ;;
    esac
    shift
done

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

if [ "$(id -u)" != 0 ]; then
    echo 'error: the test host is a systemd-nspawn container, which needs root' >&2
    exit 77
fi
if ! unshare --mount --pid --net --ipc --uts --fork mount -t tmpfs none /mnt || [ ! -e /dev/fuse ] || [ ! -e /dev/net/tun ]; then
    echo 'error: the test host needs namespaces, mounts, /dev/fuse and /dev/net/tun' >&2
    exit 77
fi
need=()
command -v debootstrap >/dev/null || need+=(debootstrap)
command -v systemd-nspawn >/dev/null || need+=(systemd-container)
if [ ${#need[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}"
fi

step 'the host: Debian 13 with systemd and Podman'
tree=$("$here/root.sh" "$cache/host")

if [ -z "$binaries" ]; then
    step 'static binaries'
    binaries=$cache/dist
    "$root/scripts/build-static.sh" "$binaries"
fi
step 'the model'
"$binaries/ai-semble" --home "$cache" models pull >/dev/null
model_file=$(find "$cache/models/smollm2-135m-instruct" -name '*.gguf')

step 'boot'
name=pod-$$
host() { "$here/host.sh" "$@"; }
as_root() { host root "$name" "$@"; }
as_user() { host user "$name" "$@"; }
work=$(mktemp -d)
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    local code=$?
    rm -rf "$work"
    if [ "$keep" = 1 ]; then
        echo "kept: AISEMBLE_HOST_STATE=$AISEMBLE_HOST_STATE tests/host/host.sh user $name bash"
    else
        host stop "$name" || true
    fi
    exit "$code"
}
trap clean_up EXIT
host start "$tree" "$name" || exit 77

# What a user has: the repository's files, a folder of binaries, a model file.
folder=$AISEMBLE_HOST_STATE/$name/home/clinic
mkdir -p "$folder/ai-semble" "$folder/release"
tar -C "$root" -cf - scripts quadlets configs pods \
    security/seccomp security/selinux containers/Containerfile | tar -C "$folder/ai-semble" -xf -
cp "$binaries"/ai-semble* "$binaries/release" "$folder/release/"
cp "$model_file" "$folder/model.gguf"
# The models of the other services, those that a developer's tests have fetched already.
mkdir -p "$folder/models"
for other in "$cache"/models/*/; do
    if [ -e "$other/model.json" ] && [ "$(basename "$other")" != smollm2-135m-instruct ]; then
        cp -r "$other" "$folder/models/"
    fi
done
# What this tier does not have: cgroup controllers and a kernel keyring. For the test only.
mkdir -p "$folder/.config/containers/systemd/container.d"
printf '[containers]\nkeyring = false\npids_limit = 0\n' >"$folder/.config/containers/containers.conf"
printf '[Container]\nPidsLimit=0\n' >"$folder/.config/containers/systemd/container.d/10-test.conf"
chown -R 1000:1000 "$folder"

report=$cache/host/report.txt
# shellcheck source=tests/host/checks.sh
. "$here/checks.sh"
# shellcheck source=tests/host/tampering.sh
. "$here/tampering.sh"
# shellcheck source=tests/host/upgrade.sh
. "$here/upgrade.sh"
# shellcheck source=tests/host/kube.sh
. "$here/kube.sh"

step 'setup.sh, as the user would'
deploy
step 'checks'
check_units
check_processes
check_files_and_devices
check_network
check_attacks
check_secrets
check_images
step 'crashes and restarts'
check_crashes
step 'tampering'
check_tampering
check_hang
step 'setup.sh again'
check_repetition
step 'upgrades and the way back'
check_upgrade
step 'backup and restore'
check_backup
step 'podman kube play'
check_kube
step 'uninstall'
check_removal

step 'report'
finish
