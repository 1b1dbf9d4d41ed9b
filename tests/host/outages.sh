# shellcheck shell=bash disable=SC2016,SC2154  # awk programs; variables of run.sh
# What ends or hinders the pod from outside: kill -9, a service that hangs, a full disk, a reboot.
# Sourced by run.sh after checks.sh.

restarts_of() { as_user systemctl --user show --property=NRestarts --value "$(unit_of "$1")"; }
active() { as_user systemctl --user --quiet is-active "$(unit_of "$1")"; }

group_crashes() {
    local before container orchestrator seen
    orchestrator=$(pid_of ai-semble-orchestrator)
    for container in "${members[@]}"; do
        [ "$container" != ai-semble-orchestrator ] || continue
        before=$(restarts_of "$container")
        as_root kill -KILL "$(pid_of "$container")"
        seen=$(until_ok 20 test_not_ready)
        expect 34a "kill -9 of $(policy_of "$container"): /ready 503 after, 200 again after" \
            '[0-9]+ tenths of a second, [0-9]+ tenths of a second' "$seen, $(until_ready 120)"
        expect 34b 'restarts of the unit; the orchestrator is the same process' "$((before + 1)) same" \
            "$(restarts_of "$container") $([ "$orchestrator" = "$(pid_of ai-semble-orchestrator)" ] && echo same || echo other)"
    done
    expect 34c 'a completion afterwards' 200 "$(complete)"
    as_root kill -KILL "$orchestrator"
    expect 34d 'kill -9 of the orchestrator: served again after' '[0-9]+ tenths of a second' "$(until_ready 120)"
    expect 34e 'a completion afterwards' 200 "$(complete)"
    check_hang
}

# A service that is there and answers nothing: Podman's probe notices, kills it, systemd starts it.
check_hang() {
    local before restarts
    # A hang is looked for from the first good answer on; before that a service may still load.
    expect 35 'llm: healthy after its start, as the timer finds' '.* tenths of a second' "$(until_ok 60 test_healthy)"
    restarts=$(restarts_of "$llm")
    before=$(pid_of "$llm")
    as_root kill -STOP "$before"
    # Three probes that wait for an answer, as the timer would make them over a minute and a half.
    for _ in 1 2 3; do as_user podman healthcheck run "$llm" >/dev/null 2>&1 || true; done
    expect 35 'llm hangs (SIGSTOP): three probes later another process serves, after' '.* tenths of a second, other' \
        "$(until_ok 120 test_other_llm "$before"), $([ "$before" = "$(pid_of "$llm")" ] && echo same || echo other)"
    expect 35 'a completion; how often the unit was started again' "200 $((restarts + 1))" \
        "$(complete) $(restarts_of "$llm")"
}

test_healthy() { [ "$(as_user podman inspect --format '{{.State.Health.Status}}' "$llm")" = healthy ]; }
test_other_llm() { [ "$(pid_of "$llm" 2>/dev/null || echo "$1")" != "$1" ] && test_ready; }

# --- a reboot ---------------------------------------------------------------------------------

group_reboot() {
    complete >/dev/null
    jobs_known >"$work/jobs-then"
    as_root touch /run/of-this-boot
    host reboot "$name"
    expect 34f 'the host powered off and booted again: served again, without a login, after' \
        '[0-9]+ tenths of a second' "$(until_ready 180)"
    expect 34f 'it was a boot of its own: what lay in /run, sessions of the account' 'gone 0' \
        "$(as_root test -e /run/of-this-boot && echo there || echo gone) $(as_root loginctl list-sessions --no-legend | grep clinic | grep -cv manager || true)"
    expect 34g 'jobs of before, lost, a completion' '[1-9][0-9]* 0 200' \
        "$(wc -l <"$work/jobs-then") $(jobs_lost "$work/jobs-then") $(complete)"
    as_user systemctl --user --no-pager --lines=0 --plain --no-legend list-units 'ai-semble*' | quote 'units after the reboot'
}

# --- a full disk ------------------------------------------------------------------------------

volume=/home/clinic/.local/share/containers/storage/volumes/ai-semble-data/_data
files=/home/clinic/.local/share/ai-semble/files

# Puts a small file system in a folder's place, with the same content; and back.
shrink() { # FOLDER SIZE
    as_root bash -c 'set -e; cp -a "$1" "$1.kept"; mount -t tmpfs -o "size=$2" small "$1"; cp -aT "$1.kept" "$1"; rm -rf "$1.kept"' - "$1" "$2"
}
unshrink() { # FOLDER
    as_root bash -c 'set -e; cp -a "$1" "$1.kept"; umount "$1"; cp -aT "$1.kept" "$1"; rm -rf "$1.kept"' - "$1"
}
fill_up() { as_root bash -c 'cat /dev/zero >"$1/filler" 2>/dev/null; df --output=avail "$1" | tail -n 1 | tr -d " "' - "$1" || true; }

stop_pod() { as_user systemctl --user stop ai-semble.socket ai-semble-pod.service; }
# More often in five minutes than the units' start limit allows anybody; the scripts forget starts, too.
start_pod() {
    as_user bash -c 'systemctl --user reset-failed $(systemctl --user list-units --all --plain --no-legend "ai-semble*" | cut -d" " -f1)'
    as_user systemctl --user start ai-semble.socket ai-semble-pod.service
}

# What the account's key may do with a file: the status, and the body in $work/answer.
upload() { # TEXT
    as_user bash -c 'curl --silent --max-time 60 --write-out "\n%{http_code}" \
        -H "Authorization: Bearer $(cat ~/.local/share/ai-semble/client-key)" \
        -H "Content-Type: text/csv" --data-binary @- "http://127.0.0.1:8080/files?filename=rows.csv&purpose=data"' \
        <<<"$1" >"$work/answer" || true
    tail -n 1 "$work/answer"
}
download() { # ID
    as_user bash -c 'curl --silent --max-time 60 -H "Authorization: Bearer $(cat ~/.local/share/ai-semble/client-key)" \
        "http://127.0.0.1:8080/files/$1/content"' - "$1"
}

group_disk() {
    local file orchestrator before
    stop_pod
    shrink "$volume" 24m
    shrink "$files" 16m
    start_pod
    expect 57g 'the job volume and the files on small disks: ready after' '[0-9]+ tenths of a second' "$(until_ready 120)"
    expect 57g 'a completion, an upload' '200 200' "$(complete) $(upload 'name,age')"
    file=$(head -n 1 "$work/answer" | jq -r .id)
    jobs_known >"$work/jobs-then"

    expect 57h 'the disk of the files is full: kB left, an upload, a file of before, a completion' '0 507 name,age 200' \
        "$(fill_up "$files") $(upload "$(head -c 300000 /dev/zero | tr '\0' x)") $(download "$file") $(complete)"
    as_root rm "$files/filler"
    expect 57h 'room again: an upload' 200 "$(upload 'name,age,town')"

    jobs_known >"$work/jobs-then"
    expect 57i 'the disk of the jobs is full: kB left, a completion (507 or 503), /health' '0 50[37] 200' \
        "$(fill_up "$volume") $(until_refused) $(http /health)"
    quote 'a submission while the disk of the jobs is full' <"$work/answer"
    expect 57i 'jobs of before that are not known' 0 "$(jobs_lost "$work/jobs-then")"
    orchestrator=$(pid_of ai-semble-orchestrator)
    as_root rm "$volume/filler"
    expect 57j 'room again: a completion after, by the same process; jobs lost' '[0-9]+ tenths of a second same 0' \
        "$(until_ok 60 test_completion) $([ "$orchestrator" = "$(pid_of ai-semble-orchestrator)" ] && echo same || echo other) $(jobs_lost "$work/jobs-then")"

    jobs_known >"$work/jobs-then"
    fill_up "$volume" >/dev/null
    before=$(restarts_of ai-semble-orchestrator)
    as_root kill -KILL "$(pid_of ai-semble-orchestrator)"
    until_ok 30 test_restarted "$before" >/dev/null
    as_root rm "$volume/filler"
    expect 57k 'kill -9 on the full disk, then room: ready after; jobs lost' '[0-9]+ tenths of a second 0' \
        "$(until_ready 120) $(jobs_lost "$work/jobs-then")"

    stop_pod
    unshrink "$volume"
    unshrink "$files"
    start_pod
    expect 57k 'on the old disks: ready, jobs lost' '[0-9]+ tenths of a second 0' \
        "$(until_ready 120) $(jobs_lost "$work/jobs-then")"
}

test_restarted() { [ "$(restarts_of ai-semble-orchestrator)" -gt "$1" ]; }
test_completion() { [ "$(complete)" = 200 ]; }
# Submissions until one is refused: the store's own log still has a little room in it.
until_refused() {
    local code=''
    for _ in $(seq 200); do
        code=$(complete)
        case $code in 2??) ;; *) break ;; esac
    done
    echo "$code"
}
