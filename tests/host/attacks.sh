# shellcheck shell=bash disable=SC2154  # variables of run.sh
# The attacks of the probe, under the exact container configuration of each service; sourced by
# run.sh after checks.sh.

# The probe in a container with everything that the service's own container has.
probe() { # UNIT ARGUMENTS...
    local unit=$1 line
    shift
    line=$(as_user systemctl --user show --property=ExecStart --value "$unit" |
        sed -e 's/.*argv\[\]=//' -e 's/ ; .*//' \
            -e 's/ --name [^ ]*/ --name ai-semble-probe/' -e 's/ --cidfile=[^ ]*//' \
            -e 's/ --cgroups=split//' -e 's/ --sdnotify=[^ ]*//' -e 's/ -d / /' -e 's/ --health-[^ ]* [^ ]*//g' \
            -e 's| localhost/ai-semble-.*| localhost/ai-semble-sandbox-probe:current|')
    # shellcheck disable=SC2086  # an argument list without blanks in it
    as_user $line "$@" 2>"$work/probe-complaints" && echo 0 >"$work/probe-code" || echo $? >"$work/probe-code"
}

answers() { jq -r '.results[] | "\(.name)=\(.observed)"' <<<"$1" | paste -sd' '; }

group_attacks() {
    local container unit seen policy
    as_user podman build --quiet --pull=never --network=none --layers=false --target from-host \
        --file /home/clinic/ai-semble/containers/Containerfile --build-arg SERVICE=sandbox-probe \
        --build-arg SERVICE_UID=10009 --build-arg VERSION=test --build-arg REVISION=test \
        --tag localhost/ai-semble-sandbox-probe:current /home/clinic/release >/dev/null
    for container in "${members[@]}"; do
        unit=$(unit_of "$container")
        policy=$(policy_of "$container")
        # Stage 0: under the container's own rules only, none of the process's.
        seen=$(answers "$(probe "$unit" --stage 0 try create=/x create=/etc/x create=/models/x create=/run/x)")
        expect 11 "$policy: create files in / /etc /models /run" '(Create[^ ]*=(EROFS|ENOENT|EACCES) ?){4}' "$seen"
        seen=$(probe "$unit" --stage 0 --policy "$policy" try socket |
            jq -r '[.results[] | (if .name | startswith("socket(0x1,") then "AF_UNIX " else "others " end) + .observed] | unique | join(", ")')
        # EINVAL: the kernel was asked, and minded the type that the probe gave.
        expect 13 "$policy: socket of AF_UNIX, and of INET INET6 NETLINK PACKET VSOCK ALG" 'AF_UNIX EINVAL, others EPERM' "$seen"
        seen=$(probe "$unit" --stage 0 --policy "$policy" try ptrace process_vm_readv pidfd_getfd kcmp |
            jq -r '[.results[].observed] | unique | join(",")')
        expect 19 "$policy: ptrace process_vm_readv pidfd_getfd kcmp" EPERM "$seen"
        seen=$(probe "$unit" --stage 0 --policy "$policy" try bpf perf_event_open userfaultfd io_uring_setup keyctl add_key kexec_load init_module |
            jq -r '[.results[].observed] | unique | join(",")')
        expect 20 "$policy: bpf perf_event_open userfaultfd io_uring keyctl kexec module" EPERM "$seen"
        seen=$(probe "$unit" --stage 0 --policy "$policy" try unshare setns mount fsopen open_tree pivot_root chroot |
            jq -r '[.results[].observed] | unique | join(",")')
        expect 21 "$policy: unshare setns mount fsopen open_tree pivot_root chroot" EPERM "$seen"
        seen=$(probe "$unit" --stage 0 --policy "$policy" try clone3 | jq -r '[.results[].observed] | unique | join(",")')
        expect 22 "$policy: clone3" ENOSYS "$seen"
        # Stage 2: the process's own filters inside the container's; every rule both ways.
        seen=$(probe "$unit" --stage 2 --policy "$policy" all |
            jq -r '"\(.passed) of \(.results | length): \([.results[] | select(.passed | not) | .name] | join(" "))"')
        expect '24,26' "$policy: every rule, allowed and refused, after lock-down" 'true of [0-9]{3}: ' "$seen"
    done
    seen=$(answers "$(probe "$llm_unit" --stage 0 try unix-connect=/run/ai-semble/llm.sock)")
    expect 14 'llm: connect to the own socket' 'UnixConnect[^ ]*=ok' "$seen"
    seen=$(answers "$(probe "$llm_unit" --stage 0 try "unix-connect=/run/ai-semble/llm-$model/llm.sock")")
    expect 15 "llm: connect to another instance's socket" 'UnixConnect[^ ]*=(ENOENT|EACCES)' "$seen"
    seen=$(answers "$(probe "$llm_unit" --stage 0 try read=/run/secrets/keys.json list=/var/lib/ai-semble)")
    expect 15b "llm: read the orchestrator's keys and jobs" '.*=(ENOENT|EACCES) .*=(ENOENT|EACCES)' "$seen"
    probe "$llm_unit" --stage 0 try int80 >/dev/null
    expect 23 'llm: a 32-bit call; how the process ends (159: SIGSYS)' 159 "$(cat "$work/probe-code")"
}
