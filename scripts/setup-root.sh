#!/usr/bin/env bash
# The one step of the deployment that needs root, for the account that owns the pod. setup.sh calls
# it by sudo where that is possible; an administrator can run it instead, at any time. Running it
# twice changes nothing the second time.
# usage: scripts/setup-root.sh [--remove] ACCOUNT
#        scripts/setup-root.sh --digest    prints what the loaded modules' record should be; no root
#   Linger and sub-ids for ACCOUNT, and, where SELinux is enabled, the module with the pod's types.
#   --remove takes the module away and leaves linger and sub-ids.
set -euo pipefail
umask 022

here=$(cd "$(dirname "$0")" && pwd)
policy=$here/../security/selinux
# What is loaded, for setup.sh, which may not ask the policy store.
record=/etc/ai-semble/selinux.sha256
say() { printf 'root: %s\n' "$*" >&2; }

has_type() { printf 'system_u:object_r:%s:s0' "$1" >/sys/fs/selinux/context; } 2>/dev/null

modules() { # the names of those that this host can take
    echo ai_semble
    echo ai_semble_levels
    if ls /dev/nvidiactl >/dev/null 2>&1 && has_type xserver_misc_device_t; then
        echo ai_semble_gpu
    fi
}

# Of what is loaded; the interfaces are for other modules.
digest() { modules | while read -r name; do cat "$policy/$name".{te,fc,cil} 2>/dev/null || true; done | sha256sum | cut -d' ' -f1; }

remove=0
if [ "${1:-}" = --remove ]; then
    remove=1
    shift
fi
if [ "${1:-}" = --digest ]; then
    digest
    exit
fi
account=${1:?usage: scripts/setup-root.sh [--remove] ACCOUNT}
if [ "$(id -u)" != 0 ]; then
    echo 'error: this step needs root: sudo scripts/setup-root.sh ACCOUNT' >&2
    exit 1
fi
id -u "$account" >/dev/null

install_module() {
    local wanted tool work name packages=()
    wanted=$(digest)
    if [ "$(cat "$record" 2>/dev/null)" = "$wanted" ] && has_type ai_semble_llm_t; then return; fi
    for tool in checkmodule semodule_package semodule restorecon; do
        if ! command -v "$tool" >/dev/null; then
            echo "error: $tool is not there" >&2
            echo 'hint: Debian: apt-get install checkpolicy semodule-utils policycoreutils; Fedora, RHEL: dnf install checkpolicy policycoreutils' >&2
            exit 1
        fi
    done
    work=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf '$work'" EXIT
    while read -r name; do
        if [ -e "$policy/$name.cil" ]; then
            packages+=("$policy/$name.cil")
            continue
        fi
        checkmodule -M -m -o "$work/$name.mod" "$policy/$name.te" >/dev/null
        if [ -e "$policy/$name.fc" ]; then
            semodule_package -o "$work/$name.pp" -m "$work/$name.mod" -f "$policy/$name.fc"
        else
            semodule_package -o "$work/$name.pp" -m "$work/$name.mod"
        fi
        packages+=("$work/$name.pp")
    done < <(modules)
    say "load the SELinux modules: $(modules | paste -sd' ')"
    semodule -i "${packages[@]}"
    mkdir -p "$(dirname "$record")"
    echo "$wanted" >"$record"
}

remove_module() {
    local name
    for name in ai_semble_gpu ai_semble_levels ai_semble; do
        if semodule -l | grep -qx "$name"; then
            say "remove the SELinux module $name"
            semodule -r "$name"
        fi
    done
    rm -f "$record"
    rmdir "$(dirname "$record")" 2>/dev/null || true
}

if [ "$remove" = 1 ]; then
    if [ -e /sys/fs/selinux/enforce ]; then remove_module; fi
    exit
fi
subids=$(awk -F: -v user="$account" '$1 == user { sum += $3 } END { print sum + 0 }' /etc/subuid)
if [ "$subids" -lt 20000 ]; then
    say "sub-ids 200000-265535 for $account"
    usermod --add-subuids 200000-265535 --add-subgids 200000-265535 "$account"
fi
if [ ! -e "/var/lib/systemd/linger/$account" ]; then
    say "linger for $account: its pod runs without a login"
    loginctl enable-linger "$account"
fi
if [ -e /sys/fs/selinux/enforce ]; then install_module; fi
