#!/usr/bin/env bash
# Makes the base image of `containers/Containerfile --target from-source` as an archive for
# `podman import`: the host tier's Debian 13 with a C compiler, this machine's Rust, and the crates
# that cargo has fetched, so that the build needs no network.
# usage: tests/host/builder.sh HOST_ROOT CACHE_FOLDER    prints the archive's path
set -euo pipefail

host_root=${1:?usage: tests/host/builder.sh HOST_ROOT CACHE_FOLDER}
cache=${2:?usage: tests/host/builder.sh HOST_ROOT CACHE_FOLDER}
repository=$(cd "$(dirname "$0")/../.." && pwd)
packages=(gcc g++ libc6-dev make)
tree=$cache/builder-$(basename "$host_root")
sysroot=$(cd "$repository" && rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
archive=$cache/builder-$(cat "$0" "$repository/Cargo.lock" <(rustc --version) | sha256sum | cut -c1-12).tar

if [ ! -e "$tree.ready" ]; then
    rm -rf "$tree"
    cp -a "$host_root" "$tree"
    cp /etc/resolv.conf "$tree/etc/resolv.conf"
    mount -t proc proc "$tree/proc"
    {
        chroot "$tree" apt-get update -qq
        DEBIAN_FRONTEND=noninteractive chroot "$tree" \
            apt-get install -y -qq --no-install-recommends "${packages[@]}"
    } >"$cache/builder.log" 2>&1 || {
        umount "$tree/proc"
        tail -n 20 "$cache/builder.log" >&2
        exit 1
    }
    umount "$tree/proc"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    : >"$tree.ready"
fi
if [ ! -e "$archive" ]; then
    rm -f "$cache"/builder-*.tar
    (cd "$repository" && cargo fetch --locked --quiet)
    tar --sort=name --owner=0 --group=0 --exclude=./dev --exclude=./home -C "$tree" -cf "$archive.part" .
    tar --owner=0 --group=0 --transform 's|^\.|./usr/local/rust|' -C "$sysroot" \
        --exclude=./share --append -f "$archive.part" ./bin ./lib
    tar --owner=0 --group=0 --transform 's|^\.|./usr/local/cargo|' -C "$cargo_home" \
        --append -f "$archive.part" ./registry/index ./registry/cache
    mv "$archive.part" "$archive"
fi
echo "$archive"
