#!/usr/bin/env bash
# A virtual machine with SELinux enforcing, in software emulation; the same verbs as tests/host/host.sh.
#   machine.sh start FOLDER NAME [DISK]   boots a throw-away copy of tree.sh's image; DISK is read-only
#   machine.sh root NAME COMMAND…         runs a command in it as root, over ssh
#   machine.sh user NAME COMMAND…         runs a command in it as its user `clinic`
#   machine.sh stop NAME                  powers it off and removes what it wrote
set -euo pipefail

state=${AISEMBLE_VM_STATE:-/run/ai-semble-vms}
boot_patience_s=900
memory_mb=4096

# The newest QEMU that is there: 7.2 crashes the guest's kernel under multi-threaded emulation.
# A stock guest kernel does not run under nested /dev/kvm of some clouds, so it is not tried.
# shellcheck disable=SC2054  # commas of one argument
emulator=(
    qemu-system-x86_64 -accel tcg,thread=multi,tb-size=1024 -cpu max -smp 2 -m "$memory_mb"
    -display none -nodefaults -no-reboot
)

remote() { # NAME USER COMMAND…
    local dir="$state/$1" user=$2
    shift 2
    # ssh joins its arguments with blanks and has a shell take them apart again.
    ssh -q -i "$dir/key" -p "$(cat "$dir/port")" -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=20 -o ControlMaster=auto \
        -o ControlPath="$dir/ssh-$user" -o ControlPersist=600 -o ServerAliveInterval=60 \
        "$user@127.0.0.1" "$(printf '%q ' "$@")"
}

free_port() {
    local port=$((20000 + RANDOM % 20000))
    while ss -ltnH "sport = :$port" | grep -q .; do port=$((port + 1)); done
    echo "$port"
}

start() { # FOLDER NAME [DISK]
    local folder=$1 dir="$state/$2" disk=${3:-} port begun=$SECONDS
    if [ -e "$dir" ]; then
        echo "error: the machine $2 is there already: machine.sh stop $2" >&2
        exit 1
    fi
    mkdir -p "$dir"
    chmod 700 "$dir"
    install -m 0600 "$folder/key" "$dir/key"
    port=$(free_port)
    echo "$port" >"$dir/port"
    local drives=(-drive "file=$folder/disk.img,format=raw,if=virtio,cache=unsafe,snapshot=on")
    if [ -n "$disk" ]; then
        drives+=(-drive "file=$disk,format=raw,if=virtio,readonly=on")
    fi
    TMPDIR=$dir "${emulator[@]}" "${drives[@]}" -serial "file:$dir/console.log" \
        -kernel "$folder/vmlinuz" -initrd "$folder/initrd.img" \
        -append 'root=/dev/vda rw console=ttyS0 lsm=landlock,yama,selinux selinux=1 enforcing=1 net.ifnames=0 audit=1 audit_backlog_limit=8192' \
        -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" \
        -device virtio-net-pci,netdev=net -device virtio-rng-pci \
        </dev/null >"$dir/qemu.log" 2>&1 &
    echo $! >"$dir/pid"
    until remote "$2" root true 2>/dev/null; do
        if ! kill -0 "$(cat "$dir/pid")" 2>/dev/null ||
            [ $((SECONDS - begun)) -ge "$boot_patience_s" ]; then
            echo "error: the machine $2 did not boot" >&2
            tail -n 30 "$dir/console.log" "$dir/qemu.log" >&2
            exit 1
        fi
        sleep 2
    done
}

stop() { # NAME
    local dir="$state/$1" pid waited=0
    pid=$(cat "$dir/pid")
    remote "$1" root systemctl poweroff 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt 60 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -rf "$dir"
}

verb=${1:?usage: machine.sh start|root|user|stop …}
shift
case $verb in
    start) start "$@" ;;
    root) name=$1; shift; remote "$name" root "$@" ;;
    user) name=$1; shift; remote "$name" clinic "$@" ;;
    stop) stop "$@" ;;
    *) echo "error: unknown verb $verb" >&2; exit 2 ;;
esac
