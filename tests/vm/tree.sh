#!/usr/bin/env bash
# Builds the virtual machine once, into a cache: the Debian 13 root of the host tier, with a kernel,
# SELinux (Debian's policy, enforcing), auditd and sshd added, as a labelled disk image.
# usage: tests/vm/tree.sh CACHE_FOLDER    prints the folder: tree/, disk.img, vmlinuz, initrd.img, key
set -euo pipefail

cache=${1:?usage: tests/vm/tree.sh CACHE_FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
host_root=$("$here/../host/root.sh" "$cache/host")
packages=(
    linux-image-cloud-amd64 initramfs-tools openssh-server udev kmod
    selinux-policy-default policycoreutils policycoreutils-python-utils checkpolicy semodule-utils
    selinux-utils setools auditd stress-ng
)
# Grown by what podman, the model and two copies of the binaries take.
disk_bytes=$((6 * 1024 * 1024 * 1024))
recipe=$(cat "$0" <(basename "$host_root") | sha256sum | cut -c1-12)
folder=$cache/vm/$recipe
tree=$folder/tree

install_packages() {
    cp /etc/resolv.conf "$tree/etc/resolv.conf"
    # Nothing is started while it is installed.
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod +x "$tree/usr/sbin/policy-rc.d"
    mount -t proc proc "$tree/proc"
    chroot "$tree" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive chroot "$tree" \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
    umount "$tree/proc"
    rm -f "$tree/usr/sbin/policy-rc.d"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
}

configure() {
    echo '/dev/vda / ext4 defaults,noatime 0 1' >"$tree/etc/fstab"
    printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' >"$tree/etc/selinux/config"
    printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/10-eth0.network"
    ln -sf /usr/lib/systemd/system/systemd-networkd.service \
        "$tree/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    local unit
    for unit in systemd-network-generator.service systemd-networkd-wait-online.service \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        fstrim.timer e2scrub_reap.service systemd-firstboot.service serial-getty@ttyS0.service; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/key"
    install -d -m 0700 "$tree/root/.ssh" "$tree/home/clinic/.ssh"
    install -m 0600 "$folder/key.pub" "$tree/root/.ssh/authorized_keys"
    install -m 0600 "$folder/key.pub" "$tree/home/clinic/.ssh/authorized_keys"
    chown -R 1000:1000 "$tree/home/clinic/.ssh"
    echo vm >"$tree/etc/hostname"
}

make_disk() {
    chroot "$tree" setfiles -F /etc/selinux/default/contexts/files/file_contexts / 2>&1 |
        grep -v -e 'conflicting specifications' || true
    cp -L "$tree"/boot/vmlinuz-* "$folder/vmlinuz"
    cp -L "$tree"/boot/initrd.img-* "$folder/initrd.img"
    truncate -s "$disk_bytes" "$folder/disk.img"
    mkfs.ext4 -q -F -O ^has_journal -d "$tree" "$folder/disk.img"
}

if [ ! -e "$folder/ready" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    cp -a "$host_root" "$tree"
    {
        install_packages
        configure
        make_disk
    } >"$folder/build.log" 2>&1 || {
        umount "$tree/proc" 2>/dev/null || true
        tail -n 20 "$folder/build.log" >&2
        exit 1
    }
    : >"$folder/ready"
fi
echo "$folder"
