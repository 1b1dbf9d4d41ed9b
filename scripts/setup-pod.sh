#!/usr/bin/env bash
# Deploys the pod for the account that runs it: rootless Podman, Quadlet units, user systemd.
# Called by setup.sh; nothing here needs root but the one step that is marked so, and without that
# step the pod runs in a reduced mode with a name. Running it twice changes nothing the second time.
set -euo pipefail
umask 077

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [OPTIONS]

  --images DIR      take the static binaries in DIR (what scripts/build-static.sh made) instead of
                    building them here with Rust
  --model NAME      the model to serve (default: the catalogue's default)
  --model-file FILE the model's file, instead of fetching it; its digest is checked all the same
  --models-from DIR also take the models that lie in DIR, a folder each, as `ai-semble models pull` makes
                    them; their digests are checked
  --no-root         do not call sudo for the one step that needs root (scripts/setup-root.sh); what it
                    would have given is left out: the pod then runs in the mode `reduced`
  --check           only check this host
  --dry-run         say what would be done, do nothing
  --uninstall       stop the pod and remove everything that this script made: units, images,
                    configuration, secrets, jobs, models
  --keep-data       with --uninstall: leave the job volume, the models and the keys
  -h, --help        this text
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
images='' model='' model_file='' models_from='' dry_run=0 mode=install keep_data=0 by_root=1
while [ $# -gt 0 ]; do
    case $1 in
        --images) images=$(cd "${2:?--images needs a folder}" && pwd); shift ;;
        --model) model=${2:?--model needs a name}; shift ;;
        --model-file) model_file=$(realpath "${2:?--model-file needs a file}"); shift ;;
        --models-from) models_from=$(realpath "${2:?--models-from needs a folder}"); shift ;;
        --no-root) by_root=0 ;;
        --check) mode=check ;;
        --dry-run) dry_run=1 ;;
        --uninstall) mode=uninstall ;;
        --keep-data) keep_data=1 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "error: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

config=$HOME/.config/ai-semble
home=$HOME/.local/share/ai-semble
units=$HOME/.config/systemd/user
quadlets=$HOME/.config/containers/systemd/ai-semble
module=$HOME/.config/containers/containers.conf.modules/ai-semble.conf
command_path=$HOME/.local/bin/ai-semble
every_service=(orchestrator llm nlp vision data-processor)
# Those that are deployed here; choose_services says which.
services=(orchestrator llm)
# none: no SELinux here; types: every service has its own; reduced: as the policy has it for any
# container, because the module is not loaded.
selinux=none
changes=0

say() { printf '%s\n' "$*" >&2; }

fail() { # MESSAGE HINT
    say "error: $1"
    say "hint: $2"
    exit 1
}

# Does a thing, or says that it would be done. Counts it as a change.
change() { # WHAT COMMAND...
    local what=$1
    shift
    changes=$((changes + 1))
    if [ "$dry_run" = 1 ]; then
        say "would: $what"
    else
        say "doing: $what"
        "$@"
    fi
}

# --- the host ---------------------------------------------------------------------------------

missing=0

check() { # NAME SEEN OK HINT     OK is 1, 0, or ! for what is weaker but works
    local verdict='ok  '
    case $3 in
        1) ;;
        '!') verdict='weak' ;;
        *) verdict='MISSING'; missing=$((missing + 1)) ;;
    esac
    printf '%-7s %-22s %s\n' "$verdict" "$1" "$2" >&2
    if [ "$3" != 1 ]; then say "        hint: $4"; fi
}

at_least() { # FOUND WANTED
    [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

truth() { if "$@" >/dev/null 2>&1; then echo 1; else echo 0; fi; }

# Whether SELinux is on here, and knows the types in the version that this folder has.
find_selinux() {
    [ -e /sys/fs/selinux/enforce ] || return 0
    selinux=reduced
    # The kernel is asked whether the type exists.
    if [ "$(cat /etc/ai-semble/selinux.sha256 2>/dev/null)" = "$("$root/scripts/setup-root.sh" --digest)" ] &&
        printf 'system_u:object_r:ai_semble_model_t:s0' 2>/dev/null >/sys/fs/selinux/context; then
        selinux=types
    fi
}

# THE ONE STEP THAT NEEDS ROOT: sub-ids, linger, the SELinux module. By sudo, where this account may
# use it; else its command is shown, and the pod is deployed without what is missing.
root_step() {
    local wanted=()
    [ "$(awk -F: -v user="$(id -un)" '$1 == user { sum += $3 } END { print sum + 0 }' /etc/subuid)" -ge 20000 ] ||
        wanted+=('sub-ids')
    [ -e "/var/lib/systemd/linger/$(id -un)" ] || wanted+=(linger)
    [ "$selinux" != reduced ] || wanted+=('SELinux types')
    [ ${#wanted[@]} -gt 0 ] || return 0
    if [ "$dry_run" = 1 ] || [ "$mode" != install ]; then
        say "would, as root: $root/scripts/setup-root.sh $(id -un)    (${wanted[*]})"
    elif [ "$by_root" = 1 ] && { sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; }; then
        change "as root: ${wanted[*]}" sudo "$root/scripts/setup-root.sh" "$(id -un)"
        find_selinux
    else
        say "not done, for it needs root: ${wanted[*]}"
        say "hint: an administrator runs: $root/scripts/setup-root.sh $(id -un)"
    fi
}

check_host() {
    local release podman subids controllers lsm
    check account "$(id -un) ($(id -u))" "$(truth test "$(id -u)" != 0)" \
        'run this as the account that is to own the pod, not as root'
    release=$(uname -r)
    check kernel "$release" "$(truth at_least "${release%%-*}" 6.7)" \
        'Linux 6.7 or newer is needed: Landlock must refuse TCP'
    lsm=$(cat /sys/kernel/security/lsm 2>/dev/null || true)
    case ,$lsm, in
        ,,) check landlock 'not visible here' '!' \
            'the services check it themselves and refuse to start without it' ;;
        *,landlock,*) check landlock 'in /sys/kernel/security/lsm' 1 '' ;;
        *) check landlock "not in: $lsm" 0 'boot with lsm=landlock,... ' ;;
    esac
    podman=$(podman version --format '{{.Client.Version}}' 2>/dev/null || echo none)
    check podman "$podman" "$(truth at_least "${podman/none/0}" 5.4)" \
        'Podman 5.4 or newer is needed: Debian 13, Fedora 41, RHEL 10'
    check quadlet /usr/lib/systemd/user-generators/podman-user-generator \
        "$(truth test -e /usr/lib/systemd/user-generators/podman-user-generator)" \
        'the package podman has it'
    check 'user systemd' "$(systemctl --user is-system-running 2>/dev/null || true)" \
        "$(truth systemctl --user show-environment)" \
        'log in by ssh or at the console, not by su: systemd must run for this account'
    check linger "$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null || true)" \
        "$(if [ -e "/var/lib/systemd/linger/$(id -un)" ]; then echo 1; else echo '!'; fi)" \
        "as root: loginctl enable-linger $(id -un); without it the pod ends when you log out"
    subids=$(awk -F: -v user="$(id -un)" '$1 == user { sum += $3 } END { print sum + 0 }' /etc/subuid)
    check 'sub-ids' "$subids" "$(truth test "$subids" -ge 20000)" \
        "as root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 $(id -un)"
    check 'cgroup v2' "$(stat -fc %T /sys/fs/cgroup)" \
        "$(truth test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs)" \
        'boot with systemd.unified_cgroup_hierarchy=1'
    controllers=$(cat "/sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/cgroup.controllers" \
        2>/dev/null || true)
    case " $controllers " in
        *' memory '*) check 'memory and pids limits' "delegated: $controllers" 1 '' ;;
        *) check 'memory and pids limits' "delegated: ${controllers:-none}" '!' \
            'MemoryMax= and TasksMax= of the units have no effect here' ;;
    esac
    case $selinux:$(cat /sys/fs/selinux/enforce 2>/dev/null) in
        types:1) check selinux 'enforcing, a type for each service' 1 '' ;;
        types:*) check selinux 'permissive: types are there and refuse nothing' '!' 'as root: setenforce 1' ;;
        reduced:*) check selinux 'the module ai_semble is not loaded, or is another version' '!' \
            "as root: $root/scripts/setup-root.sh $(id -un)" ;;
        *) check selinux 'not enabled' '!' 'the pod relies on the other layers' ;;
    esac
    if [ "$missing" -gt 0 ]; then
        say "error: $missing things are missing on this host"
        exit 1
    fi
}

# --- pieces -----------------------------------------------------------------------------------

# Puts a file in place if its content differs.
place() { # SOURCE TARGET MODE
    if [ -e "$2" ] && cmp -s "$1" "$2" && [ "$(stat -c %a "$2")" = "$3" ]; then return; fi
    change "write $2" install -D -m "$3" "$1" "$2"
}

# The same with the content from standard input.
place_text() { # TARGET MODE
    local text
    text=$(mktemp)
    cat >"$text"
    place "$text" "$1" "$2"
    rm -f "$text"
}

# Takes a file away that an earlier version or another choice left.
remove() { # PATH
    if [ -e "$1" ] || [ -L "$1" ]; then change "remove $1" rm -rf "$1"; fi
}

aisemble() { # the command, on this account's home
    local binary=$command_path
    [ -x "$binary" ] || binary=$images/ai-semble
    "$binary" --home "$home" --quiet "$@"
}

find_binaries() {
    if [ -n "$images" ]; then
        local service
        for service in "${services[@]}"; do
            [ -x "$images/ai-semble-$service" ] || fail "$images/ai-semble-$service is not there" \
                'the folder must hold what scripts/build-static.sh made'
        done
        return
    fi
    images=$home/build
    if [ "$dry_run" = 1 ]; then
        say "would: build the static binaries in $images, if they are not up to date"
    elif command -v cargo >/dev/null; then
        say 'building the static binaries with cargo (the first time takes many minutes)'
        "$root/scripts/build-static.sh" "$images"
    else
        fail 'no binaries and no Rust on this host' \
            'build them elsewhere with scripts/build-static.sh DIR and give --images DIR'
    fi
}

# An image is made again only when its binary or recipe differs from what it was made from.
install_images() {
    local service image origin
    for service in "${services[@]}"; do
        image=localhost/ai-semble-$service:current
        origin=$(cat "$images/ai-semble-$service" "$images/release" "$root/containers/Containerfile" \
            2>/dev/null | sha256sum | cut -d' ' -f1)
        if podman image exists "$image" 2>/dev/null &&
            [ "$(cat "$config/images/$service" 2>/dev/null)" = "$origin" ]; then continue; fi
        change "build the image $image" "$root/scripts/build-images.sh" "$images" "$service" >&2
        place_text "$config/images/$service" 600 <<<"$origin"
    done
}

install_command() {
    if [ -x "$images/ai-semble" ]; then place "$images/ai-semble" "$command_path" 755; fi
}

install_model() {
    local arguments=(models pull)
    if [ -n "$model" ]; then arguments+=("$model"); fi
    if [ -n "$model_file" ]; then arguments+=(--file "$model_file"); fi
    if [ "$dry_run" = 1 ] && [ ! -x "$command_path" ] && [ ! -x "$images/ai-semble" ]; then
        model=${model:-the default model}
        say "would: install the model $model"
        return
    fi
    if [ -z "$model" ]; then
        model=$(aisemble --json models list | jq -r '.catalog[] | select(.default and .capability == "llm") | .name')
    fi
    if [ ! -e "$home/models/$model/model.json" ]; then
        change "install the model $model" aisemble "${arguments[@]}"
    fi
    install_more_models
    # The container's user is a sub-id, not this account: it reads the model as `others` do. Nobody
    # else reaches it, for this account's home is its own.
    local file
    for file in "$home/models" "$home/models"/* "$home/models"/*/*; do
        if [ ! -e "$file" ] || [ "${file##*/}" = model.json ]; then continue; fi
        if [ "$(stat -c %A "$file" | cut -c8)" != r ]; then
            change "let the container read $file" chmod o+rX "$file"
        fi
    done
}

install_more_models() {
    local folder name taken=0
    [ -n "$models_from" ] || return 0
    for folder in "$models_from"/*/; do
        name=$(basename "$folder")
        if [ -e "$home/models/$name" ] || [ ! -e "$folder/model.json" ]; then continue; fi
        change "install the model $name from $models_from" cp -r "$folder" "$home/models/$name"
        taken=1
    done
    if [ "$taken" = 1 ] && [ "$dry_run" = 0 ]; then
        aisemble models verify >&2 || fail 'a model has another digest than the catalogue says' \
            "remove its folder in $home/models and run this again"
    fi
}

# What is installed of a capability, a JSON object a line: name, architecture, license, files.
models_of() { # CAPABILITY
    aisemble --json models list 2>/dev/null |
        jq -c --arg capability "$1" '.installed[] | select(.capability == $capability)'
}

# Language models always; the other services where there is a binary, and a model if it needs one.
choose_services() {
    local service
    for service in nlp vision; do
        if [ -x "$images/ai-semble-$service" ] && [ -n "$(models_of $service)" ]; then
            services+=("$service")
        fi
    done
    if [ -x "$images/ai-semble-data-processor" ]; then services+=(data-processor); fi
    say "services: ${services[*]}"
}

# What `models list` says of the model, by jq path.
of_model() { aisemble --json models list | jq -r --arg name "$model" ".installed[] | select(.name == \$name) | $1"; }

install_config() {
    local file sha256
    if [ "$dry_run" = 1 ] && [ ! -e "$home/models/$model/model.json" ]; then
        say "would: write $config/orchestrator.toml and $config/llm/$model.toml"
        return
    fi
    file=$(of_model ".files[0].file")
    sha256=$(of_model ".files[0].sha256")
    sed -e "s|^name = .*|name = \"$model\"|" -e "s|^path = \"/models/.*|path = \"/models/$file\"|" \
        -e "s|^sha256 = .*|sha256 = \"$sha256\"|" "$root/configs/production/llm.toml" |
        place_text "$config/llm/$model.toml" 644
    local sockets
    sockets=$(find "$config/llm" -name '*.toml' -printf '%f\n' 2>/dev/null | sort |
        sed -e 's|\(.*\)\.toml|"/run/ai-semble/llm-\1/llm.sock"|' | paste -sd, | sed -e 's/,/, /g')
    local others='' service
    for service in nlp vision data-processor; do
        if deployed "$service"; then
            others+="\n${service%-processor} = [\"/run/ai-semble/$service/$service.sock\"]"
        fi
    done
    sed -e "s|^llm = .*|llm = [$sockets]$others|" "$root/configs/production/orchestrator.toml" |
        place_text "$config/orchestrator.toml" 644
    for service in nlp vision data-processor; do
        if deployed "$service"; then
            { models_of "$service" | model_sections; cat "$root/configs/production/$service.toml"; } |
                place_text "$config/$service.toml" 644
        else
            remove "$config/$service.toml"
        fi
    done
}

# A section a model, every file of it pinned, as the services read it.
model_sections() {
    jq -r '"[[model]]\nname = \(.name | @json)\narchitecture = \(.architecture | @json)\npath = \("/models/" + .name | @json)",
        "license = \(.license | @json)\n[model.sha256]",
        (.files[] | "\(.file | @json) = \(.sha256 | @json)"), ""'
}

# The files of the tenants. In the pod they belong to the orchestrator and the group of all services;
# the data processor sees two folders of them.
install_folders() {
    local folder
    for folder in files files/blobs files/incoming files/incoming/data; do
        if [ ! -e "$home/$folder" ] && ! podman unshare test -e "$home/$folder"; then
            change "make $home/$folder" install -d -m "$(if [ "$folder" = files/incoming/data ]; then echo 2770; else echo 0750; fi)" "$home/$folder"
        fi
    done
}

install_units() {
    local unit
    for unit in ai-semble.pod ai-semble-data.volume; do
        place "$root/quadlets/$unit" "$quadlets/$unit" 644
    done
    for unit in "${every_service[@]}"; do
        if deployed "$unit"; then
            place "$root/quadlets/$(container_of "$unit")" "$quadlets/$(container_of "$unit")" 644
            place "$root/security/seccomp/$unit.json" "$config/seccomp/$unit.json" 644
        else
            remove "$quadlets/$(container_of "$unit")"
            remove "$config/seccomp/$unit.json"
        fi
    done
    install_labels
    place "$root/quadlets/ai-semble.socket" "$units/ai-semble.socket" 644
    place "$root/quadlets/ai-semble.conf" "$module" 644
    {
        echo '# Written by setup.sh: the services that the pod starts, and the socket folders of instances.'
        echo '[Unit]'
        instances | sed -e 's|.*|Wants=ai-semble-llm@&.service|'
        for unit in nlp vision data-processor; do
            if deployed "$unit"; then echo "Wants=ai-semble-$unit.service"; fi
        done
        echo '[Service]'
        instances | sed -e 's|.*|ExecStartPre=/usr/bin/mkdir -p -m 0750 %t/ai-semble/llm-&|'
    } | place_text "$units/ai-semble-pod.service.d/instances.conf" 644
}

deployed() { case " ${services[*]} " in *" $1 "*) ;; *) return 1 ;; esac; }

container_of() { if [ "$1" = llm ]; then echo ai-semble-llm@.container; else echo "ai-semble-$1.container"; fi; }

# The drop-ins with each service's type and level, and the labels of what the pod reads.
install_labels() {
    local unit target
    for unit in ai-semble.pod ai-semble-orchestrator.container ai-semble-llm@.container \
        ai-semble-nlp.container ai-semble-vision.container ai-semble-data-processor.container; do
        target=$quadlets/$unit.d/selinux.conf
        if [ "$selinux" = types ] && [ -e "$quadlets/$unit" ]; then
            place "$root/quadlets/selinux/$unit.d/selinux.conf" "$target" 644
        else
            remove "$target"
            rmdir "$quadlets/$unit.d" 2>/dev/null || true
        fi
    done
    [ "$selinux" = types ] && [ "$dry_run" = 0 ] || return 0
    label "$config" ai_semble_config_t
    label "$home/models" ai_semble_model_t
    label "$home/files" ai_semble_files_t
    label "$home/files/incoming/data" ai_semble_exchange_t
}

# Gives a folder and what is in it a type, if the folder or something in it has another.
label() { # FOLDER TYPE
    [ -e "$1" ] || return 0
    if podman unshare find "$1" -path "$home/files/incoming/data" ! -path "$1" -prune -o -print0 |
        podman unshare xargs -0 stat -c %C | grep -qv ":$2:"; then
        change "label $1 as $2" podman unshare find "$1" -path "$home/files/incoming/data" ! -path "$1" -prune \
            -o -exec chcon --type="$2" {} +
    fi
}

instances() {
    {
        if [ -d "$config/llm" ]; then
            find "$config/llm" -name '*.toml' -printf '%f\n' | sed -e 's|\.toml$||'
        fi
        if [ "$dry_run" = 1 ]; then echo "$model"; fi
    } | sort -u
}

install_keys() {
    if [ ! -e "$home/keys/keys.json" ] || [ ! -e "$home/client-key" ]; then
        change "make a first API key in $home/client-key" aisemble keys create \
            --name 'made by setup.sh' --scope llm --scope nlp --scope vision --scope data --scope jobs --scope metrics \
            --output "$home/client-key"
    fi
    if [ "$dry_run" = 1 ] && [ ! -e "$home/keys/keys.json" ]; then
        say 'would: make the podman secret ai-semble-keys of it'
        return
    fi
    [ -s "$home/keys/keys.json" ] || fail "$home/keys/keys.json is not there" \
        "remove $home/client-key and run this again"
    # The secret holds hashes of keys, not keys.
    if [ "$(podman secret inspect --showsecret --format '{{.SecretData}}' ai-semble-keys 2>/dev/null)" \
        != "$(cat "$home/keys/keys.json")" ]; then
        change 'make the podman secret ai-semble-keys' \
            podman secret create --replace ai-semble-keys "$home/keys/keys.json" >&2
    fi
}

# --- run --------------------------------------------------------------------------------------

# Starts of before do not count against this one: by name, for a pattern finds only what has failed.
forget_starts() {
    local known
    mapfile -t known < <(systemctl --user list-units --all --plain --no-legend 'ai-semble*' | awk '{ print $1 }')
    [ ${#known[@]} = 0 ] || systemctl --user reset-failed "${known[@]}" 2>/dev/null || true
}

start_pod() {
    if [ "$changes" -gt 0 ]; then
        change 'reload systemd' systemctl --user daemon-reload
        if systemctl --user --quiet is-active ai-semble-pod.service 2>/dev/null; then
            # The socket first: a client that connects meanwhile would start the pod again.
            change 'stop the pod of before' systemctl --user stop ai-semble.socket ai-semble-pod.service
        fi
        if [ "$dry_run" = 0 ]; then forget_starts; fi
    fi
    if ! systemctl --user --quiet is-enabled ai-semble.socket 2>/dev/null; then
        change 'enable the socket' systemctl --user --quiet enable ai-semble.socket
    fi
    if ! systemctl --user --quiet is-active ai-semble-pod.service 2>/dev/null; then
        change 'start the pod' systemctl --user start ai-semble-pod.service
    fi
}

wait_until_ready() {
    # What a unit may take to start, and a restart of it; a unit that gave up is seen at once.
    local waited_ms=0 patience_ms=1260000
    until curl --silent --fail --max-time 5 http://127.0.0.1:8080/ready >/dev/null; do
        if [ "$waited_ms" -ge "$patience_ms" ] ||
            systemctl --user --quiet is-failed 'ai-semble*'; then
            systemctl --user --no-pager status 'ai-semble*' >&2 || true
            fail 'the pod is not ready' 'journalctl --user -u ai-semble-llm@* -u ai-semble-orchestrator'
        fi
        sleep 0.2
        waited_ms=$((waited_ms + 200))
    done
}

first_completion() {
    local answer
    answer=$(curl --silent --show-error --fail-with-body --max-time 120 \
        --header "@-" --header 'Content-Type: application/json' --header 'Prefer: wait=100' \
        --data '{"prompt": "The capital of France is", "max_tokens": 8}' \
        http://127.0.0.1:8080/ai/llm/completion <<<"Authorization: Bearer $(cat "$home/client-key")") ||
        fail "the first completion failed: $answer" 'journalctl --user -u ai-semble-orchestrator'
    say "first completion: $(jq -c '{text, finish_reason, timings}' <<<"$answer")"
}

step() { printf '== %s (%s s)\n' "$1" "$SECONDS" >&2; }

install_all() {
    step 'this host'
    find_selinux
    root_step
    check_host
    [ "$mode" = install ] || exit 0
    step 'binaries'
    find_binaries
    install_command
    step 'models'
    install_model
    choose_services
    step 'images'
    install_images
    step 'configuration, units, keys'
    install_config
    install_folders
    install_units
    install_keys
    step 'start'
    start_pod
    if [ "$dry_run" = 1 ]; then
        say "$changes changes would be made"
        return
    fi
    wait_until_ready
    first_completion
    step 'done'
    say "$changes changes made"
    if [ "$selinux" = reduced ]; then
        say 'mode: reduced: no SELinux types (every other layer is in force)'
    else
        say 'mode: full'
    fi
    say "The pod serves http://127.0.0.1:8080; the key is in $home/client-key"
}

uninstall() {
    local unit
    if systemctl --user --quiet is-active ai-semble-pod.service 2>/dev/null; then
        change 'stop the pod' systemctl --user stop ai-semble-pod.service
    fi
    if systemctl --user --quiet is-enabled ai-semble.socket 2>/dev/null ||
        systemctl --user --quiet is-active ai-semble.socket 2>/dev/null; then
        change 'close the socket' systemctl --user --quiet disable --now ai-semble.socket
    fi
    if systemctl --user --quiet is-active ai-semble-data-volume.service 2>/dev/null; then
        change "stop the volume's unit" systemctl --user stop ai-semble-data-volume.service
    fi
    remove "$quadlets"
    # What scripts/setup-gpu.sh put beside them.
    remove "${quadlets%/*}/ai-semble-llm@.container.d/10-gpu.conf"
    rmdir "${quadlets%/*}/ai-semble-llm@.container.d" 2>/dev/null || true
    remove "$units/ai-semble.socket"
    remove "$units/ai-semble-pod.service.d"
    remove "$module"
    change 'reload systemd' systemctl --user daemon-reload
    # One that failed stays known otherwise, though its file is gone.
    systemctl --user reset-failed 'ai-semble*' 2>/dev/null || true
    # Those of now, those that deploy.sh kept, and those that lost their name to a newer one.
    local image
    for unit in "${every_service[@]}"; do
        for image in $(podman image ls --quiet --no-trunc \
            --filter "label=org.opencontainers.image.title=ai-semble-$unit" | sort -u); do
            change "remove the image ai-semble-$unit ${image:7:12}" podman image rm --force "$image" >&2
        done
    done
    remove "$config"
    remove "$command_path"
    if podman secret exists ai-semble-keys; then
        change 'remove the secret' podman secret rm ai-semble-keys >&2
    fi
    # Owned by the container's users: removed in Podman's own user namespace.
    if [ -e "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/ai-semble" ]; then
        change 'remove the socket folders' podman unshare rm -rf "$XDG_RUNTIME_DIR/ai-semble"
    fi
    if [ "$keep_data" = 0 ]; then
        if podman volume exists ai-semble-data; then
            change 'remove the jobs' podman volume rm ai-semble-data >&2
        fi
        if [ -e "$home/files" ]; then
            change 'remove the files' podman unshare rm -rf "$home/files"
        fi
        remove "$home"
    fi
    say "$changes changes"
}

if [ "$mode" = uninstall ]; then uninstall; else install_all; fi
