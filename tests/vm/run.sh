#!/usr/bin/env bash
# Deploys the pod on a virtual machine with SELinux enforcing and cgroup v2, and checks what only
# those show: own types and levels, no denial in normal load, what SELinux alone refuses, limits that
# bite only the offender. One command; the image is built once and cached; no hardware support is
# needed (software emulation: a boot takes minutes, so nothing is measured here).
# usage: tests/vm/run.sh [--binaries DIR] [--services LIST] [--limit SECONDS] [--keep]
#        tests/vm/run.sh --resume [--limit SECONDS] [--keep]
#        tests/vm/run.sh --policy-only
#   --binaries DIR   static binaries of scripts/build-static.sh instead of building them now
#   --services LIST  which services beside orchestrator and llm are deployed, as data-processor
#   --limit SECONDS  no stage begins after this time, no command lasts longer than what is left of it
#                    [default: 7200]
#   --keep           leave the machine running at the end, to look around in it
#   --resume         go on in the machine that an earlier run left (--keep, or the limit): with the
#                    stages that are not done. The stages: deploy labels load refusals limits
#   --policy-only    only build the modules and ask the compiled policy (checks 43 to 45)
# The table of checks and what the machine said goes to vm/report.md in the cache.
# exit codes: 0 all checks as expected, 1 one was not, 75 the limit was reached (--resume goes on),
#             77 this machine cannot do it
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export AISEMBLE_VM_STATE=$cache/vm/run
stages=(deploy labels load refusals limits)
binaries='' services='' keep=0 policy_only=0 resume=0 limit_s=7200
while [ $# -gt 0 ]; do
    case $1 in
        --binaries) binaries=$(cd "${2:?--binaries needs a folder}" && pwd); shift ;;
        --services) services=${2:?--services needs names}; shift ;;
        --limit) limit_s=${2:?--limit needs seconds}; shift ;;
        --resume) resume=1 ;;
        --policy-only) policy_only=1 ;;
        --keep) keep=1 ;;
        *) sed -n '6,19p' "$0" >&2; exit 2 ;;
    esac
    shift
done

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

if [ "$(id -u)" != 0 ]; then
    echo 'error: building the image needs root (chroot, mounts)' >&2
    exit 77
fi

# QEMU 10: the 7.2 of Debian 12 crashes the guest's kernel under multi-threaded emulation. On
# Debian 12 it comes from backports, by lists of our own: the machine's sources stay as they are.
install_emulator() {
    local version lists=$cache/vm/apt
    version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -ge 9 ]; then return; fi
    apt-get update -qq
    if apt-cache policy qemu-system-x86 | grep -q 'Candidate: 1:\(9\|1[0-9]\)'; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86
        return
    fi
    mkdir -p "$lists/partial"
    local key=/usr/share/keyrings/debian-archive-keyring.gpg suite
    for suite in bookworm bookworm-backports; do
        echo "deb [signed-by=$key] http://deb.debian.org/debian $suite main"
    done >"$cache/vm/backports.list"
    local options=(-o "Dir::Etc::sourcelist=$cache/vm/backports.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$lists")
    apt-get "${options[@]}" update -qq
    DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -y -qq --no-install-recommends \
        -t bookworm-backports qemu-system-x86
}

need=()
command -v debootstrap >/dev/null || need+=(debootstrap)
command -v ssh >/dev/null || need+=(openssh-client)
command -v ss >/dev/null || need+=(iproute2)
command -v mkfs.ext4 >/dev/null || need+=(e2fsprogs)
command -v jq >/dev/null || need+=(jq)
command -v m4 >/dev/null || need+=(m4)
if [ ${#need[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}"
fi

work=$(mktemp -d)
report=$cache/vm/report.md
last=$AISEMBLE_VM_STATE/last
# shellcheck source=tests/host/table.sh
. "$here/../host/table.sh"
machine() { "$here/machine.sh" "$@"; }
# No command outlives the limit, and the last one leaves a minute for the report.
left_s() { echo $((limit_s - SECONDS > 60 ? limit_s - SECONDS : 60)); }
as_root() { timeout "$(left_s)" "$here/machine.sh" root "$name" "$@"; }
as_user() { timeout "$(left_s)" "$here/machine.sh" user "$name" "$@"; }
name=''
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    local code=$?
    rm -rf "$work"
    if [ -z "$name" ]; then
        exit "$code"
    elif [ "$keep" = 1 ] || [ "$code" = 75 ]; then
        echo "kept: AISEMBLE_VM_STATE=$AISEMBLE_VM_STATE tests/vm/machine.sh user $name bash"
        echo "go on: tests/vm/run.sh --resume; end it: AISEMBLE_VM_STATE=$AISEMBLE_VM_STATE tests/vm/machine.sh stop $name"
    else
        machine stop "$name" || true
        rm -f "$last"
    fi
    exit "$code"
}
trap clean_up EXIT

prepare() {
    step 'the machine: Debian 13 with SELinux enforcing'
    mkdir -p "$cache/vm"
    image=$("$here/tree.sh" "$cache")
    if [ "$policy_only" = 1 ] || [ ! -e "$image/policy-of-$(policy_digest)" ]; then
        step 'the SELinux modules, built and asked'
        "$here/policy.sh" "$image"
        touch "$image/policy-of-$(policy_digest)"
    fi
    if [ "$policy_only" = 1 ]; then exit; fi
    step 'the emulator'
    install_emulator
    if [ -z "$binaries" ]; then
        step 'static binaries'
        binaries=$cache/dist-test
        AISEMBLE_PROFILE=dev "$root/scripts/build-static.sh" "$binaries"
    fi
    step 'the model'
    "$binaries/ai-semble" --home "$cache" models pull >/dev/null
    model_file=$(find "$cache/models/smollm2-135m-instruct" -name '*.gguf')
}

policy_digest() { cat "$root"/security/selinux/* "$here"/policy.* | sha256sum | cut -c1-12; }

# What a user has: the repository's files, a folder of binaries, a model file; on a disk of its own.
start_machine() {
    local payload=$work/payload service
    step 'boot'
    mkdir -p "$payload/ai-semble" "$payload/release"
    tar -C "$root" -cf - scripts quadlets configs security/seccomp security/selinux \
        containers/Containerfile | tar -C "$payload/ai-semble" -xf -
    cp "$binaries/release" "$binaries/ai-semble" "$payload/release/"
    for service in orchestrator llm sandbox-probe ${services//,/ }; do
        cp "$binaries/ai-semble-$service" "$binaries/ai-semble-$service.cdx.json" "$payload/release/"
    done
    cp "$model_file" "$payload/model.gguf"
    truncate -s $(($(du -sk "$payload" | cut -f1) * 1024 + 200000000)) "$work/payload.img"
    mkfs.ext4 -q -F -O ^has_journal -d "$payload" "$work/payload.img"
    rm -rf "$payload"
    name=pod-$$
    mkdir -p "$AISEMBLE_VM_STATE"
    echo "$name $binaries" >"$last"
    machine start "$image" "$name" "$work/payload.img"
    as_root mount -o ro,context=system_u:object_r:user_home_t:s0 /dev/vdb /mnt
    as_user bash -c 'cp -r /mnt/ai-semble /mnt/release /mnt/model.gguf ~ && chmod -R u+w ~/ai-semble ~/release'
    # Two emulated processors that spin for each other make no progress: one thread computes, and the
    # warm-up takes as long as it takes.
    as_user mkdir -p .config/containers/systemd/ai-semble-llm@.container.d
    as_user bash -c "printf '[Container]\nEnvironment=AISEMBLE_ENGINE__THREADS=1\n[Service]\nTimeoutStartSec=3000\n' >.config/containers/systemd/ai-semble-llm@.container.d/10-test.conf"
    open_table 'The pod with SELinux enforcing' "$(date -u +%FT%TZ), kernel $(as_root uname -r), $(as_root getenforce), \
software emulation: no time here means anything; revision $(sed -n 's/^REVISION=//p' "$binaries/release")."
}

if [ "$resume" = 1 ]; then
    [ -e "$last" ] || { echo 'error: no machine was left to go on in' >&2; exit 2; }
    read -r name binaries <"$last"
    as_root true || { echo "error: the machine $name does not answer" >&2; exit 1; }
else
    prepare
    start_machine
fi
done_file=$AISEMBLE_VM_STATE/$name/stages-done
touch "$done_file"

# shellcheck source=tests/host/checks.sh
. "$here/../host/checks.sh"
# shellcheck source=tests/vm/checks.sh
. "$here/checks.sh"

find_members
for stage in "${stages[@]}"; do
    if grep -qx "$stage" "$done_file"; then continue; fi
    if [ "$SECONDS" -ge "$limit_s" ]; then
        compose || true
        echo "not done when the limit of $limit_s s was reached: $stage and what follows" >&2
        exit 75
    fi
    step "$stage"
    "stage_$stage"
    echo "$stage" >>"$done_file"
done
step 'report'
if [ "$keep" = 1 ]; then compose; else finish; fi
