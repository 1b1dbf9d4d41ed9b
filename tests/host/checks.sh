# shellcheck shell=bash disable=SC2016,SC2119,SC2120,SC2154  # awk programs; variables of run.sh
# The checks of the pod on the host tier, sourced by run.sh, which gives as_root, as_user, name,
# work and report. Each is one line of the table: number (of the project's list of hardening
# checks), command, expected, seen.

model=smollm2-135m-instruct
llm=ai-semble-llm-$model
llm_unit=ai-semble-llm@$model.service
# The containers of the pod; `deploy` adds the services that setup.sh found binaries and models for.
members=("$llm" ai-semble-orchestrator)

# The process of a container, as the host's root sees it.
pid_of() { as_user podman inspect --format '{{.State.Pid}}' "$1"; }
infra() { as_user podman pod inspect --format '{{.InfraContainerID}}' ai-semble; }
status_of() { as_root awk -v key="$2:" '$1 == key { $1 = ""; print substr($0, 2) }' "/proc/$1/status"; }

# Seccomp filters of a process beside its parent's, which has those of the unit and of the host.
filters_of() { echo $(($(status_of "$1" Seccomp_filters) - $(status_of "$(status_of "$1" PPid)" Seccomp_filters))); }

setup() { as_user bash /home/clinic/ai-semble/scripts/setup.sh --images /home/clinic/release --model-file /home/clinic/model.gguf --models-from /home/clinic/models "$@"; }

unit_of() { if [ "$1" = "$llm" ]; then echo "$llm_unit"; else echo "$1.service"; fi; }
policy_of() { if [ "$1" = "$llm" ]; then echo llm; else echo "${1#ai-semble-}"; fi; }

# The status of a call through the door.
http() { # [CURL OPTIONS...] PATH
    local path=${*: -1}
    as_user curl --silent --output /dev/null --max-time 60 --write-out '%{http_code}' "${@:1:$#-1}" \
        "http://127.0.0.1:8080$path"
}

complete() { # [TEXT]  a short completion's HTTP status; its body lands in $work/answer
    local prompt=${1:-The capital of France is}
    as_user bash -c 'curl --silent --max-time 60 --write-out "\n%{http_code}" \
        -H "Authorization: Bearer $(cat ~/.local/share/ai-semble/client-key)" \
        -H "Content-Type: application/json" -H "Prefer: wait=50" \
        -d "{\"prompt\": \"$1\", \"max_tokens\": 8}" \
        http://127.0.0.1:8080/ai/llm/completion' - "$prompt" >"$work/answer" || true
    tail -n 1 "$work/answer"
}

# The jobs that the account's key sees, one id a line.
jobs_known() {
    as_user bash -c 'curl --silent --max-time 20 -H "Authorization: Bearer $(cat ~/.local/share/ai-semble/client-key)" \
        "http://127.0.0.1:8080/jobs?limit=100" | jq -r ".jobs[].id"' | sort
}

# How many of the jobs known then are not known now.
jobs_lost() { # FILE
    jobs_known >"$work/jobs-now"
    comm -23 "$1" "$work/jobs-now" | wc -l
}

test_ready() { [ "$(http /ready)" = 200 ]; }
# How long it takes until the pod is ready; when it does not become so, what its units say.
until_ready() { # SECONDS
    local took
    took=$(until_ok "$1" test_ready)
    if [ "$took" = never ]; then
        {
            as_user systemctl --user --no-pager --plain --no-legend list-units --all 'ai-semble*'
            as_root journalctl --no-pager --lines=40 --output=cat
        } | cut -c1-300 | sed -e 's/^/    /' >&2
    fi
    echo "$took"
}
test_not_ready() { [ "$(http /ready)" = 503 ]; }

deploy() {
    expect 49a 'setup.sh --dry-run changes nothing' 'exit 0, units: 0' \
        "exit $(code_of setup --dry-run), units: $(as_user find /home/clinic/.config/containers/systemd -name 'ai-semble*' | wc -l)"
    expect 4a 'setup.sh from a fresh account' 0 "$(code_of setup)"
    quote 'setup.sh from a fresh account; the seconds are since its start' <"$work/out"
    local service
    for service in nlp vision data-processor; do
        if as_user test -e "/home/clinic/.config/containers/systemd/ai-semble/ai-semble-$service.container"; then
            members+=("ai-semble-$service")
        fi
    done
    if ! as_user systemctl --user --quiet is-active ai-semble-orchestrator.service "$llm_unit"; then
        as_root journalctl --no-pager --lines=60 --output=cat >&2
        finish
        exit 1
    fi
    as_user systemctl --user --no-pager --lines=0 status ai-semble.socket ai-semble-pod.service |
        quote 'systemctl --user status ai-semble.socket ai-semble-pod'
    as_user podman ps --pod --format 'table {{.Names}}\t{{.PodName}}\t{{.Status}}' | quote 'podman ps --pod'
}

group_units() {
    local text container unit flags units=()
    as_user bash -c 'QUADLET_UNIT_DIRS=~/.config/containers/systemd /usr/libexec/podman/quadlet -dryrun -user' \
        >"$work/units" 2>"$work/complaints" || true
    expect 1 'quadlet -dryrun -user: services; complaints' "$((2 + ${#members[@]})) 0" \
        "$(grep -c '^---.*\.service---$' "$work/units") $(grep -ci 'unsupported\|error' "$work/complaints")"
    expect 3 'systemd-analyze --user --generators=true verify ai-semble-pod' '0 0' \
        "$(code_of as_user systemd-analyze --user --generators=true verify ai-semble-pod.service) $(wc -l <"$work/out")"
    for container in "${members[@]}"; do
        unit=$(unit_of "$container")
        text=$(as_user systemctl --user show --property=ExecStart --value "$unit")
        flags=''
        for flag in '--read-only ' '--cap-drop all' '--security-opt=no-new-privileges' \
            '--security-opt seccomp=/home/clinic/.config/ai-semble/seccomp/' '--pull never' '--network none' \
            '--pod-id-file'; do
            [[ $text == *"$flag"* ]] || flags+="missing $flag; "
        done
        for flag in label=disable --privileged 'network host' seccomp=unconfined; do
            [[ $text != *"$flag"* ]] || flags+="has $flag; "
        done
        expect 2 "flags of ${unit%%@*}" 'all there' "${flags:-all there}"
    done
    for container in "${members[@]}"; do units+=("$(unit_of "$container")"); done
    expect 4b 'systemctl --user is-active pod, socket, every service' "(active ?){$((2 + ${#members[@]}))}" \
        "$(as_user systemctl --user is-active ai-semble-pod.service ai-semble.socket "${units[@]}" | tr '\n' ' ')"
    for container in "${members[@]}"; do
        if [ -n "$(as_user podman inspect --format '{{.Config.Healthcheck}}' "$container" | tr -d '<nil>')" ]; then
            expect 4c "podman healthcheck run ${container:0:24}" '0 healthy' \
                "$(code_of as_user podman healthcheck run "$container") $(as_user podman inspect --format '{{.State.Health.Status}}' "$container")"
        fi
    done
}

group_processes() {
    local container pid uids='' spaces='' own
    own=$(as_user id -u)
    for container in "$(infra)" "${members[@]}"; do
        pid=$(pid_of "$container")
        expect 5 "CapEff CapBnd CapAmb CapPrm CapInh of ${container:0:24}" '0{16}( 0{16}){4}' \
            "$(for set in CapEff CapBnd CapAmb CapPrm CapInh; do status_of "$pid" "$set"; done | paste -sd' ')"
        expect 6 "NoNewPrivs of ${container:0:24}" 1 "$(status_of "$pid" NoNewPrivs)"
        uids+="$(status_of "$pid" Uid | tr ' ' '\n' | sort -u | paste -sd,) "
        expect 9 "uid_map of ${container:0:24}: host ids inside the sub-ids" 'sub-ids only' \
            "$(as_root awk -v own="$own" '$2 < 1 || ($2 <= own && own < $2 + $3) { bad = 1 } END { print bad ? "others" : "sub-ids only" }' "/proc/$pid/uid_map")"
        for space in net ipc pid mnt; do spaces+="$(as_root readlink "/proc/$pid/ns/$space") "; done
    done
    for container in "${members[@]}"; do
        pid=$(pid_of "$container")
        expect 7 "Seccomp of ${container:0:24}; filters more than its parent (1 OCI, 4 its own)" '2 5' \
            "$(status_of "$pid" Seccomp) $(filters_of "$pid")"
    done
    expect 8 'Uid: not root, not the login user, one a member' 'distinct, ([1-9][0-9]{5} ?)+' \
        "$(tr ' ' '\n' <<<"$uids" | sort | uniq -d | grep -q . && echo same || echo distinct), $uids"
    for space in net ipc pid mnt; do spaces+="$(as_root readlink "/proc/1/ns/$space") "; done
    expect 10 'namespaces net ipc pid mnt of host, infra and members: all different' \
        "$((4 * (2 + ${#members[@]}))), distinct $((4 * (2 + ${#members[@]})))" \
        "$(tr ' ' '\n' <<<"$spaces" | grep -c .), distinct $(tr ' ' '\n' <<<"$spaces" | grep . | sort -u | wc -l)"
}

group_files() {
    local container pid
    for container in "${members[@]}"; do
        pid=$(pid_of "$container")
        # Super options begin with rw on read-only mounts too: field 6 is the mount's own.
        expect 12 "writable mounts of ${container:0:24}, without /proc and /dev" '((/run/ai-semble|/run/ai-semble/http|/var/lib/ai-semble|/files|/files/incoming/data):nosuid,nodev,noexec ?)+' \
            "$(as_root awk '$6 ~ /^rw/ && $5 !~ "^/(proc|dev|sys)" { print $5 ":" ($6 ~ /nosuid/ ? "nosuid," : "") ($6 ~ /nodev/ ? "nodev," : "") ($6 ~ /noexec/ ? "noexec" : "") }' "/proc/$pid/mountinfo" | paste -sd' ')"
    done
}

group_network() {
    local container text
    for container in "${members[@]}"; do
        expect 16 "interfaces of ${container:0:24}" lo \
            "$(as_root awk -F: 'NR > 2 { gsub(" ", "", $1); print $1 }' "/proc/$(pid_of "$container")/net/dev" | paste -sd' ')"
    done
    expect 17a 'GET /health over 127.0.0.1:8080' 200 "$(http /health)"
    expect 17b 'POST /ai/llm/completion' 200 "$(complete)"
    text=$(head -n 1 "$work/answer")
    expect 17c 'the completion has text' '[0-9]+ tokens' \
        "$(jq -r 'select(.text | length > 0) | "\(.usage.completion_tokens) tokens"' <<<"$text")"
    expect 18 'ss -ltnH: the one listener, and whose it is' '127.0.0.1:8080 .*systemd.*' \
        "$(as_root ss -ltnpH | awk '{ print $4, $6 }' | paste -sd' ')"
    expect 38 'no key, a wrong key' '401 401' \
        "$(http /jobs) $(http -H 'Authorization: Bearer ais_wrong' /jobs)"
}

group_secrets() {
    local key places pid
    as_user cat /home/clinic/.local/share/ai-semble/client-key >"$work/key"
    key=$(tr -d '\n' <"$work/key")
    pid=$(pid_of ai-semble-orchestrator)
    {
        as_user podman inspect ai-semble-orchestrator "$llm"
        as_root cat "/proc/$pid/environ" "/proc/$pid/cmdline" | tr '\0' '\n'
        as_user podman history --no-trunc localhost/ai-semble-orchestrator:current
        as_root journalctl --no-pager --output=cat
    } >"$work/places"
    places=$(grep -c -F -e "$key" -e "$(as_user jq -r '.. | .hash? // empty' /home/clinic/.local/share/ai-semble/keys/keys.json | head -n 1)" "$work/places" || true)
    expect 36 'the key and its hash in inspect, environ, cmdline, history, journal' '0 in [0-9]+ lines' \
        "$places in $(wc -l <"$work/places") lines"
    expect 37 'stat /run/secrets/keys.json (mode, uid in the pod)' '400 10001' \
        "$(as_root stat -c %a "/proc/$pid/root/run/secrets/keys.json") $(as_root nsenter -t "$pid" -U -S 0 -G 0 stat -c %u "/proc/$pid/root/run/secrets/keys.json" 2>/dev/null || uid_inside "$pid" /run/secrets/keys.json)"
    expect 56 'a completion; its prompt in the journal' '200 0' \
        "$(complete 'a prompt that only this test says: heliotrope-47') $(as_root journalctl --no-pager --output=cat | grep -c heliotrope-47 || true)"
}

# The owner of a file of a container, in the container's own numbers.
uid_inside() { # PID PATH
    local outside
    outside=$(as_root stat -c %u "/proc/$1/root$2")
    as_root awk -v id="$outside" '$2 <= id && id < $2 + $3 { print $1 + id - $2 }' "/proc/$1/uid_map"
}

# Modes and names of all files of an image.
files_in() { # IMAGE
    as_user bash -c "podman image save --format oci-dir --quiet -o /tmp/image $1 >/dev/null 2>&1
        for blob in /tmp/image/blobs/sha256/*; do tar -tvf \$blob 2>/dev/null; done; rm -rf /tmp/image" |
        awk '{ print $1, $6 }' | tr '\n' ' ' | sed -e 's/ *$//'
}

group_images() {
    local container service first second
    for container in "${members[@]}"; do
        service=$(policy_of "$container")
        expect 39a "$service image: user, entry point" '1000[1-5]:10000 \[/ai-semble-service\]' \
            "$(as_user podman image inspect --format '{{.Config.User}} {{.Config.Entrypoint}}' "localhost/ai-semble-$service:current")"
        expect 39b "$service image: all files in it" '-r-xr-xr-x ai-semble-service -r--r--r-- sbom.cdx.json' \
            "$(files_in "localhost/ai-semble-$service:current")"
        expect 52 "$service: crates in its bill of materials, crates without digest that are not ours" '[1-9][0-9]{2} 0' \
            "$(jq -r '"\(.components | length) \([.components[] | select((.hashes | not) and (.name | startswith("aisemble-") | not))] | length)"' "$folder/release/ai-semble-$service.cdx.json")"
    done
    first=$(as_user podman image inspect --format '{{.Digest}}' localhost/ai-semble-llm:current)
    as_user /home/clinic/ai-semble/scripts/build-images.sh /home/clinic/release llm >/dev/null
    second=$(as_user podman image inspect --format '{{.Digest}}' localhost/ai-semble-llm:current)
    expect 53 'build an image twice: one digest' same "$([ "$first" = "$second" ] && echo same || echo "$first $second")"
}

group_again() {
    local began
    began=$(as_user podman inspect --format '{{.State.StartedAt}}' "${members[@]}" | paste -sd' ')
    setup >"$work/again" 2>&1 || true
    expect 49b 'setup.sh a second time' '0 changes made' "$(grep 'changes made' "$work/again" || tail -n 3 "$work/again")"
    expect 49c 'the containers go on' same \
        "$([ "$began" = "$(as_user podman inspect --format '{{.State.StartedAt}}' "${members[@]}" | paste -sd' ')" ] && echo same || echo others)"
}

group_removal() {
    as_user podman image rm --force localhost/ai-semble-sandbox-probe:{current,previous} >/dev/null 2>&1 || true
    expect 49d 'setup.sh --uninstall' 0 "$(code_of setup --uninstall)"
    cat "$work/out"
    expect 49e 'files left' 0 \
        "$(as_user find /home/clinic /run/user/1000 -path /home/clinic/ai-semble -prune -o -path /home/clinic/release -prune -o -name '*ai*semble*' -print | tee "$work/left" | wc -l)"
    cat "$work/left"
    expect 49f 'containers, pods, volumes, secrets, ai-semble images left' '0 0 0 0 0' \
        "$(for what in 'ps -aq' 'pod ls -q' 'volume ls -q' 'secret ls -q'; do
            # shellcheck disable=SC2086
            as_user podman $what | wc -l
        done | paste -sd' ') $(as_user podman images --format '{{.Repository}}' | grep -c ai-semble || true)"
    expect 49g 'units left' 0 "$(as_user systemctl --user list-units --all --plain --no-legend 'ai-semble*' | wc -l)"
}
