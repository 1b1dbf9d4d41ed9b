# shellcheck shell=bash disable=SC2016,SC2154  # scripts for the guest; variables of run.sh
# The checks of the vm tier, sourced by run.sh after those of the host tier, whose table and helpers
# it uses: what only SELinux enforcing and cgroup v2 show.

# The pod as it is deployed; in a machine of an earlier run it is there already.
find_members() {
    local service
    members=("$llm" ai-semble-orchestrator)
    for service in nlp vision data-processor; do
        if as_user test -e "/home/clinic/.config/containers/systemd/ai-semble/ai-semble-$service.container"; then
            members+=("ai-semble-$service")
        fi
    done
}

setup_command='bash ai-semble/scripts/setup.sh --images release --model-file model.gguf'

# Denials of the audit log since `mark`, of the pod's types.
mark() { as_root bash -c 'wc -l </var/log/audit/audit.log >/root/mark'; }
denials() {
    as_root bash -c 'tail -n "+$(($(cat /root/mark) + 1))" /var/log/audit/audit.log |
        grep -E "type=(AVC|USER_AVC|SELINUX_ERR)" | grep -E "ai_semble" || true'
}
# What was denied, short: {permission} class of type.
denied() { denials | sed -e 's/.*denied  //' -e 's/ for .*scontext=[^:]*:[^:]*:/ /' -e 's/ tcontext=[^:]*:[^:]*:/ -> /' -e 's/ permissive=.*//' | sort | uniq -c | sort -rn; }

# As on the host tier, with the patience that emulation needs: the job is asked about until it ends.
complete() {
    as_user bash -c 'key=$(cat ~/.local/share/ai-semble/client-key)
        ask() { curl --silent --max-time 60 -H "Authorization: Bearer $key" "$@"; }
        id=$(ask -H "Content-Type: application/json" -d "{\"prompt\": \"The capital of France is\", \"max_tokens\": 4}" \
            http://127.0.0.1:8080/ai/llm/completion | jq -r .id)
        for _ in $(seq 600); do
            state=$(ask "http://127.0.0.1:8080/jobs/$id" | jq -r .state)
            case $state in succeeded) break ;; failed | cancelled | expired) echo "$state"; exit ;; esac
            sleep 1
        done
        ask "http://127.0.0.1:8080/jobs/$id/result" -w "\n%{http_code}"' >"$work/answer" 2>&1 || true
    tail -n 1 "$work/answer"
}

stage_deploy() {
    expect 46a 'getenforce; Landlock and SELinux in the kernel' 'Enforcing landlock selinux' \
        "$(as_root getenforce) $(as_root cat /sys/kernel/security/lsm | tr ',' '\n' | grep -x -e landlock -e selinux | paste -sd' ')"
    expect 49g 'setup.sh without root: names the mode that it would have' '.*SELinux types.*' \
        "$(as_user bash -c "$setup_command --dry-run" 2>&1 | grep -o 'would, as root.*' | head -n 1)"
    expect 43 'setup-root.sh loads the modules; a second time changes nothing' '0 .*load.* 0 0' \
        "$(code_of as_root bash /home/clinic/ai-semble/scripts/setup-root.sh clinic) $(grep root: "$work/out") $(code_of as_root bash /home/clinic/ai-semble/scripts/setup-root.sh clinic) $(grep -c load "$work/out" || true)"
    mark
    expect 4a 'setup.sh as the user, to the first completion' 0 "$(code_of as_user bash -c "$setup_command")"
    quote 'setup.sh as the user' <"$work/out"
    find_members
    if ! as_user systemctl --user --quiet is-active ai-semble-orchestrator.service "$llm_unit"; then
        denied >&2
        as_root journalctl --no-pager --lines=60 --output=cat >&2
        finish
        exit 1
    fi
    expect 49h 'setup.sh says the mode' 'mode: full' "$(grep '^mode:' "$work/out" || true)"
}

stage_labels() {
    local seen
    seen=$(as_root ps -eo label,args | grep 'ai_semble_' | grep -v grep)
    quote 'ps -eZ, the pod' <<<"$seen"
    expect 46b 'ps -eZ: orchestrator' 1 "$(grep -c 'ai_semble_orchestrator_t:s0:c901.c904 .*orchestrator.toml' <<<"$seen")"
    expect 46b 'ps -eZ: llm' 1 "$(grep -c 'ai_semble_llm_t:s0:c901 .*llm.toml' <<<"$seen")"
    expect 46b 'ps -eZ: infra' 1 "$(grep -c 'ai_semble_infra_t:s0:c900 ' <<<"$seen")"
    expect 46b 'podman inspect ProcessLabel of llm' 'system_u:system_r:ai_semble_llm_t:s0:c901' \
        "$(as_user podman inspect --format '{{.ProcessLabel}}' "$llm")"
    expect 46b 'ls -Z: the socket of llm, the jobs, the model, the settings' \
        'ai_semble_llm_run_t:s0:c901 ai_semble_data_t:s0:c901.c904 ai_semble_model_t:s0 ai_semble_config_t:s0' \
        "$(as_root bash -c 'stat -c %C /run/user/1000/ai-semble/llm-*/llm.sock /home/clinic/.local/share/containers/storage/volumes/ai-semble-data/_data/jobs.db /home/clinic/.local/share/ai-semble/models/*/*.gguf /home/clinic/.config/ai-semble/orchestrator.toml' | sed -e 's/^[^:]*:[^:]*://' | paste -sd' ')"
}

stage_load() {
    local seen
    expect 46c 'POST /ai/llm/completion, three times' '200 200 200' "$(complete) $(complete) $(complete)"
    expect 46c 'podman healthcheck run llm' 0 "$(code_of as_user podman healthcheck run "$llm")"
    expect 46c 'GET /health /ready' '200 200' "$(http /health) $(http /ready)"
    expect 46c 'logs of llm and orchestrator in the journal' '[1-9][0-9]* [1-9][0-9]*' \
        "$(for part in llm orchestrator; do as_root journalctl --no-pager --output=cat | grep -c "\"service.name\":\"$part\""; done | paste -sd' ')"
    as_root bash -c 'ausearch --input-logs -m avc,user_avc,selinux_err -ts boot 2>&1 | grep ai_semble || echo "no record of the types of the pod"' |
        quote 'ausearch -m avc,user_avc,selinux_err -ts boot | grep ai_semble, after setup and load'
    seen=$(as_root bash -c 'ausearch --input-logs -m avc,user_avc,selinux_err -ts boot 2>&1 | grep -c ai_semble || true')
    expect 46c 'ausearch -m avc -ts boot: records of the pod'"'"'s types, setup and load' 0 "$seen"
    expect 46c 'denials since setup.sh began, quoted' '' "$(denied)"
}

# A process with a service's type and level, as root of its user namespace, with every capability
# that Podman gives, no seccomp profile and the whole of the pod's folders: SELinux alone is in the way.
as_type() { # SERVICE_TYPE LEVEL ARGUMENTS OF THE PROBE...
    local type=$1 level=$2
    shift 2
    as_user podman run --rm --pull=never --network=host --user=0 --security-opt=seccomp=unconfined \
        --security-opt="label=type:$type" --security-opt="label=level:$level" \
        --security-opt=label=filetype:ai_semble_image_t \
        --volume="/run/user/1000/ai-semble/llm-$model:/socket" --volume=/home/clinic/objects:/objects \
        localhost/ai-semble-sandbox-probe:current --stage 0 "$@"
}

# What the probe saw, and what SELinux logged for it.
refused() { # SERVICE LEVEL ARGUMENTS...
    local service=$1
    mark
    as_type "ai_semble_${service}_t" "$2" "${@:3}" >"$work/probe" 2>"$work/probe-complaints" || true
    printf '%s; %s' "$(jq -r '[.results[].observed] | unique | join(",")' "$work/probe" 2>/dev/null || tail -n 1 "$work/probe-complaints")" \
        "$(denied | sed -e 's/^ *[0-9]* //' | paste -sd' ')"
}

stage_refusals() {
    local socket=/socket/llm.sock type
    as_user podman build --quiet --pull=never --network=none --layers=false --target from-host \
        --file ai-semble/containers/Containerfile --build-arg SERVICE=sandbox-probe \
        --build-arg SERVICE_UID=10009 --build-arg VERSION=test --build-arg REVISION=test \
        --tag localhost/ai-semble-sandbox-probe:current release >/dev/null
    # Files of each kind that everybody may read and write, as far as modes go.
    as_user bash -c 'mkdir -p objects && cd objects && for type in model config data files exchange llm_run nlp_run vision_run; do
            echo x >$type; chmod 666 $type; chcon -t ai_semble_${type}_t $type; done
        chcon -l s0:c902 vision_run; echo x >home; chmod 666 home; chcon -t ai_semble_image_t .'
    as_root bash -c "chmod 755 /run/user/1000/ai-semble/llm-$model; chmod 666 /run/user/1000/ai-semble/llm-$model/llm.sock"

    # Controls: the same process may do what its type allows.
    expect 46d 'as llm: read a model (allowed)' 'ok; ' "$(refused llm s0:c901 try read=/objects/model)"
    expect 46d "as orchestrator: connect to llm's socket (allowed)" 'ok; ' \
        "$(refused orchestrator s0:c901.c904 try "unix-connect=$socket")"
    # Across services.
    for type in nlp:c903 vision:c902 data_processor:c904; do
        expect 46d "as ${type%:*}: connect to llm's socket" "EACCES; .*ai_semble_${type%:*}_t:s0:${type#*:} -> ai_semble_llm_run_t:s0:c901.*" \
            "$(refused "${type%:*}" "s0:${type#*:}" try "unix-connect=$socket")"
    done
    expect 46d "as llm, with the level of vision: connect to llm's socket" 'EACCES; .*ai_semble_llm_t:s0:c902 -> ai_semble_llm_run_t:s0:c901.*' \
        "$(refused llm s0:c902 try "unix-connect=$socket")"
    expect 46d 'as llm: read jobs, files, exchange, the folder of vision, a file of the home' \
        'EACCES; ([{] read( open)? [}] ai_semble_llm_t:s0:c901 -> (ai_semble_(data|files|exchange|vision_run)|user_home)_t:s0[^ ]* tclass=file ?){5}' \
        "$(refused llm s0:c901 try read=/objects/data read=/objects/files read=/objects/exchange read=/objects/vision_run read=/objects/home)"
    expect 46d 'as llm: write a model, settings' \
        'EACCES; ([{] write( open)? [}] ai_semble_llm_t:s0:c901 -> ai_semble_(model|config)_t:s0 tclass=file ?){2}' \
        "$(refused llm s0:c901 try write=/objects/model write=/objects/config)"
    expect 46d 'as orchestrator: read a model' 'EACCES; [{] read( open)? [}] ai_semble_orchestrator_t:s0:c901.c904 -> ai_semble_model_t:s0 tclass=file' \
        "$(refused orchestrator s0:c901.c904 try read=/objects/model)"
    expect 46d 'as data processor: write a file of a tenant' 'EACCES; [{] write( open)? [}] ai_semble_data_processor_t:s0:c904 -> ai_semble_files_t:s0 tclass=file' \
        "$(refused data_processor s0:c904 try write=/objects/files)"
    for type in llm:c901 orchestrator:c901.c904 data_processor:c904; do
        expect 46d "as ${type%:*}, without seccomp and on the host's network: an internet socket" \
            "entity not found; [{] create [}] ai_semble_${type%:*}_t:s0:${type#*:} .* tclass=tcp_socket" \
            "$(refused "${type%:*}" "s0:${type#*:}" try tcp-connect=8080)"
    done
    as_root bash -c 'ausearch --input-logs -m avc -ts boot 2>/dev/null | grep "avc:  denied" | grep ai_semble | tail -n 25' |
        quote 'denials across services, from the audit log'
    as_user podman image rm --force localhost/ai-semble-sandbox-probe:current >/dev/null 2>&1 || true
}

# The control group of a service's container, as the kernel names it.
group_of() { echo "/sys/fs/cgroup$(as_root cut -d: -f3 "/proc/$(pid_of "$1")/cgroup")"; }

stage_limits() {
    local group before seen container
    for container in "${members[@]}"; do
        group=$(as_root dirname "$(group_of "$container")")
        expect 32 "memory.max memory.swap.max pids.max of ${container:0:24}" '[0-9]+ 0 [0-9]+' \
            "$(as_root cat "$group/memory.max" "$group/memory.swap.max" "$group/pids.max" | paste -sd' ')"
    done
    group=$(group_of "$llm")
    before=$(pid_of ai-semble-orchestrator)

    # A process that forks without end, inside the service's own control group.
    as_root bash -c "cat >/root/forks.py" <<'PYTHON'
import os, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
children = []
try:
    while len(children) < 4000:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
    print("no limit")
except OSError as error:
    print(f"{error.strerror} after {len(children)}", flush=True)
for child in children:
    os.kill(child, 9)
PYTHON
    expect 33 'a fork bomb in the control group of llm' 'Resource temporarily unavailable after [0-9]{1,3}' \
        "$(as_root python3 /root/forks.py "$group")"
    expect 33 'meanwhile and afterwards: /health, a completion, the same orchestrator' '200 200 same' \
        "$(http /health) $(complete) $([ "$before" = "$(pid_of ai-semble-orchestrator)" ] && echo same || echo other)"

    # A process that takes memory without end there.
    as_root bash -c "cat >/root/memory.py" <<'PYTHON'
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
kept = []
while True:
    kept.append(b"x" * (16 << 20))
PYTHON
    # The machine has less memory than the unit's limit: it is lowered to what the service uses and some.
    as_user systemctl --user set-property --runtime "$llm_unit" MemoryMax=900M
    seen=$(as_user systemctl --user show --property=NRestarts --value "$llm_unit")
    expect 33 'a memory bomb in the control group of llm: how it ends (by a signal, as ssh says it)' '137|255' "$(code_of as_root python3 /root/memory.py "$group")"
    as_root bash -c "journalctl -k --no-pager -o cat | grep 'oom-kill'" | quote 'the kernel, after the memory bomb' || true
    expect 33 'the kernel says whose group it was' '[1-9].*' \
        "$(as_root bash -c "journalctl -k --no-pager -o cat | grep -c 'oom-kill.*CONSTRAINT_MEMCG.*ai-semble-llm'" || true)"
    expect 33 'llm is served again; the orchestrator is the same process, the pod stayed' '.* tenths of a second; same active' \
        "$(until_ready 3600); $([ "$before" = "$(pid_of ai-semble-orchestrator)" ] && echo same || echo other) $(as_user systemctl --user is-active ai-semble-pod.service)"
    expect 33 'restarts of llm, of the orchestrator' '[0-9]+ -> [0-9]+, 0' \
        "$seen -> $(as_user systemctl --user show --property=NRestarts --value "$llm_unit"), $(as_user systemctl --user show --property=NRestarts --value ai-semble-orchestrator.service)"
    expect 33 'a completion afterwards' 200 "$(complete)"
}
