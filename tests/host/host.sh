#!/usr/bin/env bash
# A real Debian 13 host with rootless Podman and a user systemd, in a container of its own.
#   host.sh start ROOT NAME      boots a throw-away copy of ROOT (overlay), prints nothing
#   host.sh root NAME COMMAND…   runs a command in it as root
#   host.sh user NAME COMMAND…   runs a command in it as its user `clinic`, with a user systemd
#   host.sh reboot NAME          powers it off as `systemctl poweroff` does, and boots it again
#   host.sh stop NAME            powers it off and removes what it wrote
set -euo pipefail

state=${AISEMBLE_HOST_STATE:-/run/ai-semble-hosts}
boot_patience_s=90
# A pod that drains takes its time.
end_patience_s=90
# A host's services sandbox themselves; nspawn's own filter of Debian 12 refuses Landlock.
sandbox_calls='landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp'

leader() { cat "$state/$1/leader"; }

inside() { # NAME COMMAND…
    local name=$1
    shift
    nsenter -t "$(leader "$name")" -m -u -i -n -p -C -- "$@"
}

as_user() { # NAME COMMAND…
    local name=$1 id
    shift
    id=$(inside "$name" id -u clinic)
    inside "$name" setpriv --reuid clinic --regid clinic --init-groups --inh-caps=-all \
        env -i HOME=/home/clinic USER=clinic LOGNAME=clinic SHELL=/bin/bash LANG=C.UTF-8 \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TERM=dumb \
        XDG_RUNTIME_DIR="/run/user/$id" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$id/bus" "$@"
}

# The control groups in which a host's processes are counted: its own, so that two hosts do not
# wait for each other's.
cgroups() { # NAME
    local hierarchy
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        if [ -e "$hierarchy/cgroup.procs" ]; then echo "$hierarchy/ai-semble-host-$1"; fi
    done
}

enter_cgroup() { # NAME
    local group
    for group in $(cgroups "$1"); do
        mkdir -p "$group"
        echo "$BASHPID" >"$group/cgroup.procs"
    done
}

start() { # ROOT NAME
    local root=$1 name=$2 dir="$state/$2"
    if [ -e "$dir" ]; then
        echo "error: the host $name is there already: host.sh stop $name" >&2
        exit 1
    fi
    mkdir -p "$dir"/{upper,work,tree,home}
    # For everybody, as udev makes them on a host; this machine's own may be for root alone.
    mknod -m 0666 "$dir/tun" c 10 200
    mknod -m 0666 "$dir/fuse" c 10 229
    # Podman keeps its images in the home: on the disk itself, as an overlay cannot carry another's upper.
    cp -a "$root/home/." "$dir/home"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/tree"
    boot "$name"
}

boot() { # NAME
    local name=$1 dir="$state/$1" nspawn waited=0
    : >"$dir/leader"
    (
        enter_cgroup "$name"
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=1
        exec systemd-nspawn --quiet --register=no --keep-unit -D "$dir/tree" --boot \
            --capability=all --private-network --system-call-filter="$sandbox_calls" \
            --bind="$dir/tun:/dev/net/tun" --bind="$dir/fuse:/dev/fuse" --bind="$dir/home:/home" \
            --machine="$name"
    ) >"$dir/console.log" 2>&1 </dev/null &
    nspawn=$!
    echo "$nspawn" >"$dir/nspawn"
    while :; do
        pgrep -P "$nspawn" -x systemd >"$dir/leader" || true
        if [ -s "$dir/leader" ] && [ -S "/proc/$(leader "$name")/root/run/user/1000/bus" ]; then break; fi
        if [ "$waited" -ge "$boot_patience_s" ] || ! kill -0 "$nspawn" 2>/dev/null; then
            echo "error: the host $name did not boot" >&2
            tail -n 30 "$dir/console.log" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
    inside "$name" ip link set lo up
}

power_off() { # NAME
    local dir="$state/$1" nspawn waited=0
    nspawn=$(cat "$dir/nspawn")
    inside "$1" systemctl poweroff >/dev/null 2>&1 || true
    while kill -0 "$nspawn" 2>/dev/null && [ "$waited" -lt "$end_patience_s" ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "$nspawn" 2>/dev/null || true
    local group
    for group in $(cgroups "$1"); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

reboot() { # NAME
    power_off "$1"
    boot "$1"
}

stop() { # NAME
    local dir="$state/$1"
    power_off "$1"
    umount "$dir/tree"
    rm -rf "$dir"
}

verb=${1:?usage: host.sh start|root|user|stop …}
shift
case $verb in
    start) start "$@" ;;
    root) inside "$@" ;;
    user) as_user "$@" ;;
    reboot) reboot "$@" ;;
    stop) stop "$@" ;;
    *) echo "error: unknown verb $verb" >&2; exit 2 ;;
esac
