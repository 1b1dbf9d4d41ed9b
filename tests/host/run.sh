#!/usr/bin/env bash
# Deploys the pod on a real host (systemd, rootless Podman) from a fresh account and checks what it
# promises. One command, for a developer and for CI; needs root for the host's own container.
# usage: tests/host/run.sh [--binaries DIR] [--only GROUPS] [--report FILE.md] [--keep]
#   --binaries DIR   static binaries of scripts/build-static.sh instead of building them now
#   --only GROUPS    after the deployment only these, as backup,kube: units processes files network
#                    attacks secrets images crashes tampering disk reboot again upgrade backup kube
#                    removal; and source, which is not among the default
#   --prepare        only see whether this machine can, and build the host's files (once, cached)
#   --report FILE    where the table of checks goes: check, command, expected, seen
#                    [default: host/report.md in the cache]
#   --keep           leave the host running at the end, to look around in it
# exit codes: 0 all checks as expected, 1 one was not, 77 this machine cannot boot such a host
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export AISEMBLE_HOST_STATE=$cache/host/run
every_group=(units processes files network attacks secrets images crashes tampering disk reboot again
    upgrade backup kube removal)
asked_group=(source) # compiles: only when it is named
binaries='' keep=0 prepare=0 groups=("${every_group[@]}") report=$cache/host/report.md
usage() { sed -n '4,13p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --binaries) binaries=$(cd "${2:?--binaries needs a folder}" && pwd); shift ;;
        --only) IFS=, read -ra groups <<<"${2:?--only needs names of groups}"; shift ;;
        --report) report=$(realpath "${2:?--report needs a file}"); shift ;;
        --prepare) prepare=1 ;;
        --keep) keep=1 ;;
        *) usage ;;
    esac
    shift
done

for group in "${groups[@]}"; do
    case " ${every_group[*]} ${asked_group[*]} " in *" $group "*) ;; *) echo "error: no group $group" >&2; usage ;; esac
done
wants() { case " ${groups[*]} " in *" $1 "*) ;; *) return 1 ;; esac; }

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

# This machine cannot: says what is missing, for those who run all tests.
cannot() {
    echo "not run: $1" >&2
    exit 77
}
[ "$(id -u)" = 0 ] || cannot 'the test host is a systemd-nspawn container, which needs root'
[ -e /etc/debian_version ] || cannot 'the test host is made by debootstrap, on a Debian machine'
unshare --mount --pid --net --ipc --uts --fork mount -t tmpfs none /mnt 2>/dev/null ||
    cannot 'the test host needs namespaces and mounts, which this machine refuses'
trial=$(mktemp -d)
mknod "$trial/null" c 1 3 2>/dev/null && : >"$trial/null" && made=1 || made=0
rm -rf "$trial"
[ "$made" = 1 ] || cannot 'the test host needs device files of its own, which this machine refuses'
for device in /dev/fuse /dev/net/tun; do [ -e "$device" ] || cannot "the test host needs $device"; done
need=()
while read -r tool package; do
    command -v "$tool" >/dev/null || need+=("$package")
done <<'TEXT'
debootstrap debootstrap
systemd-nspawn systemd-container
jq jq
nsenter util-linux
setpriv util-linux
pgrep procps
TEXT
if [ ${#need[@]} -gt 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}"; } ||
        cannot "apt-get could not install: ${need[*]}"
fi

step 'the host: Debian 13 with systemd and Podman'
tree=$("$here/root.sh" "$cache/host") || cannot 'the host could not be built (see above)'
if [ "$prepare" = 1 ]; then exit; fi

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
# shellcheck source=tests/host/table.sh
. "$here/table.sh"
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    local code=$?
    # What was seen up to here, when the run was cut short.
    if [ "$code" != 0 ]; then compose || true; fi
    rm -rf "$work"
    if [ "$keep" = 1 ]; then
        echo "kept: AISEMBLE_HOST_STATE=$AISEMBLE_HOST_STATE tests/host/host.sh user $name bash"
    else
        host stop "$name" || true
    fi
    exit "$code"
}
trap clean_up EXIT
host start "$tree" "$name" || cannot 'the host did not boot'
# Nothing of the project yet: whether rootless containers run in such a host on this machine.
trial=$(as_user podman unshare cat /proc/self/uid_map 2>&1) ||
    cannot "rootless Podman does not work in a host on this machine: $trial"

# What a user has: the repository's files, a folder of binaries, a model file.
folder=$AISEMBLE_HOST_STATE/$name/home/clinic
mkdir -p "$folder/ai-semble" "$folder/release"
tar -C "$root" -cf - scripts quadlets configs pods \
    security/seccomp security/selinux containers/Containerfile | tar -C "$folder/ai-semble" -xf -
cp "$binaries"/ai-semble* "$binaries/release" "$folder/release/"
cp "$model_file" "$folder/model.gguf"
# The models of the other services: of the catalogue's default ones, those that a developer's tests
# have fetched already.
mkdir -p "$folder/models"
while read -r other; do
    if [ -e "$cache/models/$other/model.json" ] && [ "$other" != smollm2-135m-instruct ]; then
        cp -r "$cache/models/$other" "$folder/models/"
    fi
done < <("$binaries/ai-semble" --home "$cache" --json models list | jq -r '.catalog[] | select(.default) | .name')
# What this tier does not have: cgroup controllers and a kernel keyring. For the test only.
mkdir -p "$folder/.config/containers/systemd/container.d"
printf '[containers]\nkeyring = false\npids_limit = 0\n' >"$folder/.config/containers/containers.conf"
printf '[Container]\nPidsLimit=0\n' >"$folder/.config/containers/systemd/container.d/10-test.conf"
chown -R 1000:1000 "$folder"

# shellcheck source=tests/host/checks.sh
. "$here/checks.sh"
# shellcheck source=tests/host/attacks.sh
. "$here/attacks.sh"
# shellcheck source=tests/host/tampering.sh
. "$here/tampering.sh"
# shellcheck source=tests/host/outages.sh
. "$here/outages.sh"
# shellcheck source=tests/host/upgrade.sh
. "$here/upgrade.sh"
# shellcheck source=tests/host/source.sh
. "$here/source.sh"
# shellcheck source=tests/host/kube.sh
. "$here/kube.sh"

open_table 'The pod on a real host' "$(date -u +%FT%TZ), kernel $(uname -r), $(as_root sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), \
$(as_root systemctl --version | head -n 1), $(as_user podman --version), $(as_user crun --version | head -n 1); \
revision $(sed -n 's/^REVISION=//p' "$binaries/release"). Groups: ${groups[*]}."
step 'setup.sh, as the user would'
deploy
for group in "${asked_group[@]}" "${every_group[@]}"; do
    if wants "$group"; then
        step "$group"
        "group_$group"
    fi
done

step 'report'
finish
