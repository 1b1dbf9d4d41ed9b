#!/usr/bin/env bash
# Builds the root folder of a Debian 13 host with rootless Podman, once, into a cache.
# usage: tests/host/root.sh CACHE_FOLDER    prints the root's path
set -euo pipefail

cache=${1:?usage: tests/host/root.sh CACHE_FOLDER}
packages=(
    systemd-sysv dbus dbus-user-session libpam-systemd podman crun passt netavark aardvark-dns uidmap
    fuse-overlayfs catatonit iproute2 procps curl jq ca-certificates python3-minimal
)
# A mirror that is too slow is no mirror.
patience_s=900
recipe=$(printf '%s\n' trixie "${packages[@]}" | sha256sum | cut -c1-12)
root=$cache/root-$recipe

if [ ! -e "$root.ready" ]; then
    # The mirror is the one that this machine's own apt uses.
    mirror=$(find /etc/apt/sources.list /etc/apt/sources.list.d -type f -exec cat {} + 2>/dev/null |
        awk '/^(URIs:|deb) / && /debian\/?( |$)/ && !/security/ && !found { found = $2 } END { print found }') || true
    : "${mirror:?no apt mirror found in /etc/apt}"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    rm -rf "$root"
    mkdir -p "$cache"
    include=$(IFS=,; echo "${packages[*]}")
    timeout --kill-after=30 "$patience_s" debootstrap --variant=minbase --keyring="$keyring" --include="$include" \
        trixie "$root" "$mirror" >"$cache/debootstrap.log" 2>&1 || {
        tail -n 20 "$cache/debootstrap.log" >&2
        exit 1
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb
    # The services' user: sub-ids for its containers, and a manager that runs without a login.
    chroot "$root" useradd --create-home --shell /bin/bash clinic
    chroot "$root" usermod --add-subuids 200000-265535 --add-subgids 200000-265535 clinic
    mkdir -p "$root/var/lib/systemd/linger"
    touch "$root/var/lib/systemd/linger/clinic"
    : >"$root.ready"
fi
echo "$root"
