# shellcheck shell=bash disable=SC2016,SC2154  # awk programs; variables of run.sh
# Backups, and the pod by `podman kube play`, on the host tier; sourced by run.sh after checks.sh.

backup_script() { as_user bash /home/clinic/ai-semble/scripts/backup.sh "$@"; }

group_backup() {
    complete >/dev/null
    jobs_known >"$work/jobs-then"
    expect 57a 'backup.sh create while it runs' 0 "$(code_of backup_script create /home/clinic/backup.tar)"
    tail -n 1 "$work/out" | sed -e 's/^/    /'
    expect 57b 'backup.sh verify' '0 600' \
        "$(code_of backup_script verify /home/clinic/backup.tar) $(as_user stat -c %a /home/clinic/backup.tar)"
    # A byte in the middle of the job store.
    as_user bash -c 'cd; cp backup.tar damaged.tar; at=$(grep -abo "SQLite format 3" damaged.tar | head -n 1 | cut -d: -f1)
        printf XXXX | dd of=damaged.tar bs=1 seek=$((at + 4200)) conv=notrunc status=none'
    expect 57c 'a damaged archive is refused, and nothing changes' '1 200' \
        "$(code_of backup_script restore /home/clinic/damaged.tar --yes) $(complete)"
    # A job that the archive does not have, then the way back to before it.
    complete >/dev/null
    expect 57d 'backup.sh restore' 0 "$(code_of backup_script restore /home/clinic/backup.tar --yes)"
    if grep -q '^error' "$work/out"; then cat "$work/out"; fi
    jobs_known >"$work/jobs-now"
    expect 57e 'the jobs are those of the archive' same \
        "$(cmp -s "$work/jobs-then" "$work/jobs-now" && echo same || echo "$(wc -l <"$work/jobs-then") $(wc -l <"$work/jobs-now")")"
    expect 57f 'a completion with the key of before' 200 "$(complete)"
    as_user bash -c 'rm -f ~/backup.tar* ~/damaged.tar*'
}

# --- kube play --------------------------------------------------------------------------------

pod_yaml=/home/clinic/ai-semble/pods/ai-semble-test.yaml

# Fills a volume with a folder's content that belongs to the orchestrator's user and the group of
# all members; a member of the group reads by the group's mode, not by that of others.
fill() { # VOLUME FOLDER MODE
    as_user bash -c "podman volume create ai-semble-kube-$1 >/dev/null &&
        tar -C $2 --owner=10001 --group=10000 --mode=$3 -cf - . | podman volume import ai-semble-kube-$1 -"
}

kube_pid() { as_user podman inspect --format '{{.State.Pid}}' "ai-semble-$1"; }

group_kube() {
    local member pid
    stop_pod
    as_user bash -c 'scripts=~/ai-semble/scripts; $scripts/build-images.sh ~/release door >/dev/null
        mkdir -p ~/kube/keys ~/kube/profiles && cp ~/.local/share/ai-semble/keys/keys.json ~/kube/keys/
        cp ~/ai-semble/security/seccomp/*.json ~/kube/profiles/'
    fill config /home/clinic/.config/ai-semble u=rwX,go=rX
    fill keys /home/clinic/kube/keys u=rX,go=
    fill models /home/clinic/.local/share/ai-semble/models u=rwX,go=rX
    # This tier has no cgroup controllers, and the files have limits of memory.
    as_user bash -c 'printf "[containers]\ncgroups = \"disabled\"\npids_limit = 0\nkeyring = false\n" >~/kube/containers.conf'
    expect 41a 'podman kube play --network=pasta pods/ai-semble-test.yaml' 0 \
        "$(code_of as_user env CONTAINERS_CONF_OVERRIDE=/home/clinic/kube/containers.conf podman kube play --network=pasta --seccomp-profile-root /home/clinic/kube/profiles "$pod_yaml")"
    sed -e 's/^/    /' "$work/out" | tail -n 6
    if [ "$(as_user podman ps --quiet --filter name=ai-semble-door | wc -l)" = 0 ]; then
        as_user podman ps --all
        start_pod
        return
    fi
    expect 41b 'ready' '[0-9]+ tenths of a second' "$(until_ready 90)"
    expect 41c 'a completion through the door' 200 "$(complete)"
    for member in llm orchestrator door; do
        pid=$(kube_pid "$member")
        expect 41d "$member: CapEff CapBnd, NoNewPrivs, Seccomp and its filters beside the parent's, uid" \
            '0000000000000000 0000000000000000 1 2 5 [1-9][0-9]*' \
            "$(for key in CapEff CapBnd NoNewPrivs Seccomp; do status_of "$pid" "$key"; done | paste -sd' ') $(filters_of "$pid") $(status_of "$pid" Uid | awk '{ print $1 }')"
        expect 41d "$member: its root is mounted read-only" ro \
            "$(as_root awk '$5 == "/" { split($6, of, ","); print of[1] }' "/proc/$pid/mountinfo")"
    done
    expect 41e 'users of the members' 3 \
        "$(for member in llm orchestrator door; do status_of "$(kube_pid "$member")" Uid | awk '{ print $1 }'; done | sort -u | wc -l)"
    expect 41f 'internet sockets that the members hold' 'door 1' \
        "$(for member in llm orchestrator door; do
            count=$(sockets_of "$(kube_pid "$member")")
            if [ "$count" != 0 ]; then echo "$member $count"; fi
        done)"
    expect 41g 'podman kube down' 0 "$(code_of as_user podman kube down "$pod_yaml")"
    as_user bash -c 'podman volume rm --force ai-semble-kube-{config,keys,models,data,files} {llm,http}-socket >/dev/null 2>&1; rm -rf ~/kube
        podman image rm --force localhost/ai-semble-door:current >/dev/null' || true
    start_pod
    expect 41h 'the units serve again afterwards' '[0-9]+ tenths of a second' "$(until_ready 90)"
}

# Listening internet sockets of a process, out of its own network namespace.
sockets_of() { # PID
    as_root bash -c 'cd /proc/$1/fd && for fd in *; do readlink "$fd"; done' - "$1" | sed -n 's/^socket:\[\(.*\)\]$/\1/p' |
        while read -r inode; do
            as_root awk -v inode="$inode" '$4 == "0A" && $10 == inode' "/proc/$1/net/tcp" "/proc/$1/net/tcp6"
        done | wc -l
}
