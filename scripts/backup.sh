#!/usr/bin/env bash
# Backs the deployment up while it runs, and restores it: jobs, files, keys, configuration.
set -euo pipefail
umask 077

usage() {
    cat <<'TEXT'
usage: scripts/backup.sh create FILE.tar [--home DIR]
       scripts/backup.sh verify FILE.tar
       scripts/backup.sh restore FILE.tar [--home DIR] [--yes]

create    a consistent copy while it runs: one snapshot of the job store and the contents of every
          file that it names, the keys (hashes) and the client key, the configuration, and the names and
          digests of the models. The models themselves are not in it: `ai-semble models pull` brings
          them back, and their digests are checked.
verify    every file of the archive against the digests in it, and the job store's own check.
restore   stops what runs, keeps what was there beside (FILE.before.tar), puts the archive's jobs, files,
          keys and configuration in their place, starts, and waits until it is ready.

Works on the pod and on a local home (`ai-semble up`); in local mode run `ai-semble up` again after
a restore. The archive has mode 0600 and is not encrypted: it holds prompts and results. Encrypt it with
what you use for that (age, gpg) before it leaves the machine.

exit codes: 0 done, 1 it failed and nothing was changed, 2 wrong usage, 3 a restore failed half way
TEXT
}

[ $# -gt 0 ] || { usage >&2; exit 2; }
case $1 in -h | --help) usage; exit 0 ;; esac
verb=$1
archive=${2:-}
[ -n "$archive" ] || { echo "error: $verb needs a file" >&2; usage >&2; exit 2; }
shift 2
home=${AISEMBLE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/ai-semble}
yes=0
while [ $# -gt 0 ]; do
    case $1 in
        --home) home=${2:?--home needs a folder}; shift ;;
        --yes) yes=1 ;;
        *) echo "error: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

volume=ai-semble-data
config=$HOME/.config/ai-semble
container=ai-semble-orchestrator
url=http://127.0.0.1:8080

say() { printf '%s\n' "$*" >&2; }
fail() { # MESSAGE HINT
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

is_pod() { command -v podman >/dev/null && podman volume exists "$volume" 2>/dev/null; }

work=''
clean_up() {
    local code=$?
    if [ -n "$work" ]; then rm -rf "$work"; fi
    exit "$code"
}
trap clean_up EXIT
work=$(mktemp -d)

# --- create -----------------------------------------------------------------------------------

# The orchestrator's own copy, which is consistent, into $work/backup/data.
copy_of_pod() {
    local inside=/var/lib/ai-semble/backup-$$
    [ "$(podman inspect --format '{{.State.Running}}' "$container" 2>/dev/null)" = true ] ||
        fail 'the pod does not run' 'systemctl --user start ai-semble-pod'
    podman exec "$container" /ai-semble-service --config /etc/ai-semble/orchestrator.toml \
        --backup "$inside" >&2 || fail 'the copy could not be made' 'is there room in the job volume?'
    # As root of Podman's own user namespace: the files belong to the container's users.
    local mount
    mount=$(podman volume inspect --format '{{.Mountpoint}}' "$volume")
    mkdir -p "$work/backup/data"
    podman unshare tar -C "$mount/backup-$$" -cf - . |
        tar -C "$work/backup/data" --preserve-permissions -xf -
    podman unshare rm -rf "$mount/backup-$$"
}

copy_of_local() {
    local program=$home/bin/ai-semble-orchestrator
    [ -e "$home/data/jobs.db" ] || fail "there is no pod, and no jobs in $home" 'say where with --home'
    [ -x "$program" ] || program=$(command -v ai-semble-orchestrator || true)
    [ -n "$program" ] || fail 'ai-semble-orchestrator was not found' 'put it on the PATH'
    "$program" --config "$home/run/orchestrator.toml" --backup "$work/backup/data" >&2 ||
        fail 'the copy could not be made' 'is there room on the disk?'
}

create() {
    if [ -e "$archive" ]; then fail "$archive exists" 'name a new file'; fi
    mkdir -p "$work/backup"
    if is_pod; then copy_of_pod; else copy_of_local; fi
    local name
    for name in keys client-key keys.json; do
        if [ -e "$home/$name" ]; then cp -a "$home/$name" "$work/backup/$name"; fi
    done
    if is_pod && [ -d "$config" ]; then cp -a "$config" "$work/backup/config"; fi
    if [ -d "$home/models" ]; then
        (cd "$home/models" && find . -name model.json -exec cat {} +) >"$work/backup/models"
    fi
    (cd "$work/backup" && find . -type f -exec sha256sum {} + | sort -k 2 >"$work/digests")
    mv "$work/digests" "$work/backup/DIGESTS"
    tar -C "$work/backup" -cf "$archive.part" .
    sync "$archive.part"
    mv "$archive.part" "$archive"
    say "wrote $archive: $(stat -c %s "$archive") bytes, $(wc -l <"$work/backup/DIGESTS") files"
}

# --- verify -----------------------------------------------------------------------------------

unpack() {
    [ -r "$archive" ] || fail "$archive cannot be read" 'name an archive of scripts/backup.sh create'
    mkdir -p "$work/backup"
    # No name of the archive may lead out of the folder; tar refuses `..` and takes `/` off.
    # Modes are kept whatever the umask: the containers' users read the configuration as `others`.
    tar -C "$work/backup" --no-same-owner --preserve-permissions -xf "$archive" || fail "$archive is no archive" 'is it complete?'
    if [ ! -e "$work/backup/DIGESTS" ] || [ ! -e "$work/backup/data/jobs.db" ]; then
        fail "$archive is not a backup of Ai-semble" 'name an archive of scripts/backup.sh create'
    fi
    (cd "$work/backup" && sha256sum --check --quiet --strict DIGESTS >&2) ||
        fail "$archive is damaged" 'use another backup'
    # What is not in the list is not put anywhere.
    local listed found
    listed=$(wc -l <"$work/backup/DIGESTS")
    found=$(find "$work/backup" -type f ! -name DIGESTS | wc -l)
    [ "$listed" = "$found" ] || fail "$archive holds $found files, its list $listed" 'use another backup'
}

# --- restore ----------------------------------------------------------------------------------

# Starts of before do not count against this one: by name, for a pattern finds only what has failed.
forget_starts() {
    local known
    mapfile -t known < <(systemctl --user list-units --all --plain --no-legend 'ai-semble*' | awk '{ print $1 }')
    [ ${#known[@]} = 0 ] || systemctl --user reset-failed "${known[@]}" 2>/dev/null || true
}

restore_pod() {
    systemctl --user stop ai-semble.socket ai-semble-pod.service
    mkdir -p "$work/before"
    podman volume export --output "$work/before/volume.tar" "$volume"
    if [ -d "$home/files" ]; then
        podman unshare tar -C "$home" -cf "$work/before/files.tar" files
    fi
    cp -a "$config" "$work/before/config"
    cp -a "$home/keys" "$home/client-key" "$work/before/"
    tar -C "$work/before" -cf "$archive.before.tar" .
    say "kept what was there: $archive.before.tar"

    # The unit mounts both with :U, so that they become the container's at the start.
    podman volume rm "$volume" >/dev/null
    podman volume create "$volume" >/dev/null
    tar -C "$work/backup/data" --exclude=./files -cf "$work/data.tar" .
    podman volume import "$volume" "$work/data.tar"
    podman unshare rm -rf "$home/files"
    mkdir -p "$home/files"
    if [ -d "$work/backup/data/files" ]; then cp -a "$work/backup/data/files/." "$home/files/"; fi
    # The data processor, another user of the same group, reads them, and writes in the last folder.
    find "$home/files" -type d -exec chmod 0750 {} +
    install -d -m 0750 "$home/files" "$home/files/blobs" "$home/files/incoming"
    install -d -m 2770 "$home/files/incoming/data"
    podman unshare chown -R 10001:10000 "$home/files"
    rm -rf "$home/keys" "$home/client-key" "$config"
    cp -a "$work/backup/keys" "$work/backup/client-key" "$home/"
    cp -a "$work/backup/config" "$config"
    podman secret create --replace ai-semble-keys "$home/keys/keys.json" >/dev/null
    systemctl --user daemon-reload
    forget_starts
    systemctl --user start ai-semble.socket ai-semble-pod.service
    local waited=0
    until curl --silent --fail --max-time 5 "$url/ready" >/dev/null; do
        if [ "$waited" -ge 300 ]; then
            say "error: it is not ready after the restore; what was there is in $archive.before.tar"
            exit 3
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

restore_local() {
    if [ -e "$home/run/up.json" ]; then
        fail "ai-semble runs on $home" "stop it first: ai-semble --home $home down"
    fi
    local name present=()
    for name in data files keys keys.json client-key; do
        if [ -e "$home/$name" ]; then present+=("$name"); fi
    done
    mkdir -p "$home"
    tar -C "$home" -cf "$archive.before.tar" "${present[@]}"
    say "kept what was there: $archive.before.tar"
    rm -rf "$home/data" "$home/files"
    mkdir -p "$home/data" "$home/files"
    cp -a "$work/backup/data/jobs.db" "$home/data/"
    if [ -d "$work/backup/data/files" ]; then cp -a "$work/backup/data/files/." "$home/files/"; fi
    for name in keys keys.json client-key; do
        if [ -e "$work/backup/$name" ]; then
            rm -rf "${home:?}/$name"
            cp -a "$work/backup/$name" "$home/$name"
        fi
    done
}

confirm() {
    local answer
    if [ "$yes" = 1 ]; then return; fi
    [ -t 0 ] || fail 'a restore replaces all jobs, files and keys' 'say --yes if that is meant'
    read -r -p 'Replace all jobs, files, keys and configuration by those of the archive? [y/N] ' answer
    case $answer in y | Y | yes) ;; *) fail 'nothing was changed' 'answer y to go on' ;; esac
}

case $verb in
    create) create ;;
    verify)
        unpack
        say "ok: $(wc -l <"$work/backup/DIGESTS") files"
        ;;
    restore)
        unpack
        confirm
        if is_pod; then restore_pod; else restore_local; fi
        say "restored from $archive"
        ;;
    *) echo "error: unknown verb $verb" >&2; usage >&2; exit 2 ;;
esac
