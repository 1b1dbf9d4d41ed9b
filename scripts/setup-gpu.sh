#!/usr/bin/env bash
# Prepares an NVIDIA GPU for the pod: writes a CDI description with the least that computing needs, and
# the units' drop-in that asks for it. Not yet run on a GPU host.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/setup-gpu.sh [--cdi [FILE]] [--drop-in [FOLDER]] [--libraries DIR] [--root DIR]

  --cdi FILE         write the description (default /etc/cdi/ai-semble.yaml, which needs root; Podman from
                     5.5 on reads a user's folder too: cdi_spec_dirs in containers.conf)
  --drop-in FOLDER   write the GPU's drop-in for the llm units (default:
                     ~/.config/containers/systemd/ai-semble-llm@.container.d)
  --libraries DIR    also mount libcublas.so.13, libcublasLt.so.13 and libcurand.so.10 from there
  --root DIR         look for devices and libraries under DIR (for tests)

With neither it says what it would write, and writes nothing. The vendor's own description
(nvidia-ctk cdi generate) also mounts nvidia-smi, MPS, modeset and more, and runs hooks in the container.
TEXT
}

cdi='' drop_in='' libraries='' root=''
while [ $# -gt 0 ]; do
    case $1 in
        --cdi) cdi=/etc/cdi/ai-semble.yaml; [[ ${2:-} == [!-]* ]] && { cdi=$2; shift; } ;;
        --drop-in)
            drop_in=${XDG_CONFIG_HOME:-$HOME/.config}/containers/systemd/ai-semble-llm@.container.d
            [[ ${2:-} == [!-]* ]] && { drop_in=$2; shift; } ;;
        --libraries) libraries=${2:?--libraries DIR}; shift ;;
        --root) root=${2:?--root DIR}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

fail() { # MESSAGE HINT
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# The real file behind a soname, as the host's loader finds it.
library() { # SONAME
    local folder
    for folder in "$root"/usr/lib/x86_64-linux-gnu "$root"/usr/lib64 "$root"/usr/lib \
        "$root"/usr/lib/wsl/lib "$root"/run/opengl-driver/lib; do
        if [ -e "$folder/$1" ]; then realpath "$folder/$1"; return; fi
    done
    return 1
}

cards=()
for node in "$root"/dev/nvidia[0-9]*; do
    [ -e "$node" ] && cards+=("${node##*/nvidia}")
done
[ ${#cards[@]} -gt 0 ] || fail 'there is no /dev/nvidia0' 'load the driver; ai-semble doctor says what is there'
for node in nvidiactl nvidia-uvm; do
    [ -e "$root/dev/$node" ] || fail "there is no /dev/$node" 'nvidia-modprobe -u -c 0, as root, at each boot'
done

# What a program loads: the driver, its compiler for PTX, its figures.
mounts=()
for soname in libcuda.so.1 libnvidia-ptxjitcompiler.so.1 libnvidia-ml.so.1; do
    path=$(library "$soname") || fail "$soname is not found" 'install the driver for computing (libcuda)'
    mounts+=("$path /usr/lib/ai-semble/$soname")
done
if [ -n "$libraries" ]; then
    for soname in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do
        [ -e "$libraries/$soname" ] || fail "$libraries/$soname is not there" 'pip download nvidia-cublas nvidia-curand'
        mounts+=("$(realpath "$libraries/$soname") /usr/lib/ai-semble/$soname")
    done
fi

node() { printf '      - path: /dev/%s\n        permissions: rw\n' "$1"; }

describe() {
    printf '# Written by scripts/setup-gpu.sh: run it again after a driver update.\n'
    printf 'cdiVersion: "0.5.0"\nkind: ai-semble.local/gpu\ndevices:\n'
    local card
    for card in "${cards[@]}"; do
        printf '  - name: "%s"\n    containerEdits:\n      deviceNodes:\n' "$card"
        node "nvidia$card"
    done
    printf 'containerEdits:\n  env:\n'
    printf '    - LD_LIBRARY_PATH=/usr/lib/ai-semble\n'
    # Read-only file system: compiled kernels are not kept. All kernels are loaded before the lock-down.
    printf '    - CUDA_CACHE_DISABLE=1\n    - CUDA_MODULE_LOADING=EAGER\n'
    printf '  deviceNodes:\n'
    node nvidiactl | sed 's/^  //'
    node nvidia-uvm | sed 's/^  //'
    printf '  mounts:\n'
    local mount
    for mount in "${mounts[@]}"; do
        printf '    - hostPath: %s\n      containerPath: %s\n' "${mount%% *}" "${mount##* }"
        printf '      options: [ro, nosuid, nodev, bind]\n'
    done
}

units() {
    cat <<'TEXT'
# Written by scripts/setup-gpu.sh: the first GPU, by the description of the same script.
[Container]
AddDevice=ai-semble.local/gpu=0
TEXT
}

if [ -z "$cdi$drop_in" ]; then
    describe
    echo '---'
    units
    exit 0
fi
umask 022
if [ -n "$cdi" ]; then
    mkdir -p "$(dirname "$cdi")"
    describe >"$cdi.new"
    mv "$cdi.new" "$cdi"
    echo "written: $cdi" >&2
fi
if [ -n "$drop_in" ]; then
    mkdir -p "$drop_in"
    units >"$drop_in/10-gpu.conf"
    echo "written: $drop_in/10-gpu.conf" >&2
fi
