#!/usr/bin/env bash
# Builds the SELinux modules, loads them into a copy of Debian 13's policy with every assertion of
# that policy checked, and asks the result what each service may do. Needs no SELinux in the kernel
# that runs it.
# usage: tests/vm/policy.sh TREE    TREE is the folder of tests/vm/tree.sh
set -euo pipefail

tree=${1:?usage: tests/vm/policy.sh TREE}/tree
here=$(cd "$(dirname "$0")" && pwd)
modules=$here/../../security/selinux
work=$(mktemp -d)
missed=0
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    umount "$work/root" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
mkdir -p "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$work/root"
mkdir "$work/root/module"
cp "$modules"/ai_semble* "$work/root/module/"
inside() { chroot "$work/root" "$@"; }

expect() { # NUMBER WHAT EXPECTED SEEN    EXPECTED is a regular expression for the whole of SEEN
    local verdict='ok  '
    if ! [[ $4 =~ ^($3)$ ]]; then
        verdict=MISS
        missed=$((missed + 1))
    fi
    printf '%s %-4s %-66s %s\n' "$verdict" "$1" "$2" "$(tr '\n' ' ' <<<"$4" | cut -c1-120)"
}

build() { # MODULE
    inside checkmodule -M -m -o "/module/$1.mod" "/module/$1.te" &&
        if [ -e "$work/root/module/$1.fc" ]; then
            inside semodule_package -o "/module/$1.pp" -m "/module/$1.mod" -f "/module/$1.fc"
        else
            inside semodule_package -o "/module/$1.pp" -m "/module/$1.mod"
        fi
}

# Without it neverallow rules are not looked at when a module is loaded.
sed -i -e '/^expand-check/d' "$work/root/etc/selinux/semanage.conf"
echo 'expand-check=1' >>"$work/root/etc/selinux/semanage.conf"

load() { inside semodule -n -s default -i "$@"; }

for module in ai_semble ai_semble_gpu; do
    expect 43 "checkmodule and semodule_package: $module" 0 \
        "$(if build $module >"$work/out" 2>&1; then echo 0; else cat "$work/out"; fi)"
done
expect 43 'semodule with expand-check=1' 0 \
    "$(if load /module/ai_semble.pp /module/ai_semble_levels.cil >"$work/out" 2>&1; then echo 0; else tail -n 3 "$work/out"; fi)"
policy=$(find "$work/root/etc/selinux/default/policy" -name 'policy.*' -printf '/etc/selinux/default/policy/%f\n')
ask() { inside sesearch "$@" "$policy" 2>/dev/null | sed -e 's/^ *//' | grep '^allow' | sort -u || true; }

# How many rules of a type, of its own or of its attributes, give one of the permissions. Not those
# that the policy gives to every domain there is.
count() { # SOURCE TARGET CLASSES PERMISSIONS    TARGET is - for any; CLASSES with commas; PERMISSIONS with |
    local arguments=(-A -s "$1" -c "$3")
    if [ "$2" != - ]; then arguments+=(-t "$2"); fi
    ask "${arguments[@]}" | grep -v '^allow domain ' | grep -c -E "[ {]($4)[ ;}]" || true
}

internet=tcp_socket,udp_socket,rawip_socket,sctp_socket,dccp_socket,icmp_socket
other_families=packet_socket,netlink_socket,netlink_route_socket,alg_socket,vsock_socket,bluetooth_socket,xdp_socket
powers=capability,capability2,cap_userns,cap2_userns,bpf,perf_event,key,io_uring,user_namespace
change='write|append|create|unlink|rename|link|setattr|relabelto|add_name|remove_name'
services=(orchestrator llm nlp vision data_processor)
for service in "${services[@]}"; do
    type=ai_semble_${service}_t
    expect 44 "$service: make, bind, connect an internet socket" 0 \
        "$(count "$type" - $internet 'create|bind|connect|name_connect|name_bind|node_bind')"
    expect 44 "$service: make a socket of another family" 0 "$(count "$type" - $other_families create)"
    expect 44 "$service: ptrace, executable memory, change its own context" 0 \
        "$(count "$type" - process 'ptrace|transition|dyntransition|execmem|execstack|execheap|setexec|setcurrent')"
    expect 44 "$service: capabilities, bpf, perf, keys, io_uring, namespaces" 0 "$(count "$type" - $powers '[a-z_]+')"
    expect 44 "$service: run a program as its own type" 0 "$(count "$type" - file execute_no_trans)"
    for target in model config image; do
        expect 44 "$service: write, make or rename a $target file" 0 \
            "$(count "$type" ai_semble_${target}_t file,dir,lnk_file "$change")"
    done
    for target in user_home_t xdg_data_t container_file_t shadow_t sshd_key_t etc_t; do
        expect 44 "$service: open $target" 0 "$(count "$type" $target file open)"
    done
    # Of the others: the process behind a socket, and the socket's file.
    wanted='0 0'
    if [ "$service" = orchestrator ]; then wanted='1 1'; fi
    for other in llm nlp vision data_processor; do
        [ "$other" != "$service" ] || continue
        expect 44 "$service: connect to $other; write to its socket file" "$wanted" \
            "$(count "$type" "ai_semble_${other}_t" unix_stream_socket connectto) $(count "$type" "ai_semble_${other}_run_t" sock_file write)"
    done
done
for service in llm nlp vision; do
    expect 44 "$service: read a model; open jobs, files, exchange" '1 0 0 0' \
        "$(count ai_semble_${service}_t ai_semble_model_t file open) $(for target in data files exchange; do count ai_semble_${service}_t ai_semble_${target}_t file open; done | paste -sd' ')"
done
expect 44 'orchestrator, data processor, infra: open a model' '0 0 0' \
    "$(for service in orchestrator data_processor infra; do count ai_semble_${service}_t ai_semble_model_t file open; done | paste -sd' ')"
expect 44 'data processor: open jobs; open, change files; change the exchange' '0 1 0 1' \
    "$(count ai_semble_data_processor_t ai_semble_data_t file open) $(count ai_semble_data_processor_t ai_semble_files_t file open) $(count ai_semble_data_processor_t ai_semble_files_t file "$change") $(count ai_semble_data_processor_t ai_semble_exchange_t file "$change")"
expect 44 'infra: open settings, jobs, files' '0 0 0' \
    "$(for target in config data files; do count ai_semble_infra_t ai_semble_${target}_t file open; done | paste -sd' ')"
expect 44 "what reaches the journal: the pipes of the account's runtime" 1 \
    "$(count ai_semble_llm_t unconfined_t fifo_file write)"
expect 44 'constraints by level of the pod' 5 \
    "$(inside seinfo --constrain "$policy" | grep -c ai_semble_contained || true)"

expect 45 'without the GPU module: rules on the GPU devices' 0 \
    "$(count ai_semble_llm_t xserver_misc_device_t chr_file '[a-z]+')"
load /module/ai_semble_gpu.pp >"$work/out" 2>&1
expect 45 'with it: sesearch --allowxperm' 'ioctl 0x0001-0x004b;ioctl 0x4600-0x46ff' \
    "$(inside sesearch --allowxperm -s ai_semble_llm_t -t xserver_misc_device_t "$policy" | sed -e 's/.*chr_file //' -e 's/;$//' | paste -sd';')"
expect 45 'with it: rules of orchestrator and data processor' '0 0' \
    "$(for service in orchestrator data_processor; do count ai_semble_${service}_t xserver_misc_device_t chr_file '[a-z]+'; done | paste -sd' ')"

# The checks can fail: a module that breaks one of the policy's own assertions is refused.
cat >"$work/root/module/wrong.te" <<'TEXT'
module wrong 1.0;
require {
	type ai_semble_llm_t;
	type shadow_t;
	class file { read };
}
allow ai_semble_llm_t shadow_t:file read;
TEXT
build wrong >"$work/out" 2>&1
expect 43 'a module that lets llm read /etc/shadow' 'refused: .*neverallow.*' \
    "$(if load /module/wrong.pp >"$work/out" 2>&1; then echo loaded; else echo "refused: $(grep -i neverallow "$work/out" | head -n 1)"; fi)"
[ "$missed" = 0 ] || { echo "$missed missed"; exit 1; }
