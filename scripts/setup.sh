#!/usr/bin/env bash
# From a fresh clone to an answer: checks the machine, builds, installs, fetches the model, starts,
# and asks a first question. Run it again at any time: what is done already is not done twice.
set -euo pipefail

# Without --local it is the pod that is deployed: rootless Podman, Quadlet units, user systemd.
case " $* " in
    *' --local '* | *' --help '* | *' -h '*) ;;
    *) exec "$(dirname "$0")/setup-pod.sh" "$@" ;;
esac

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh --local [--home DIR] [--listen ADDRESS] [--without SERVICES] [--dry-run]
       scripts/setup.sh [OPTIONS OF THE POD]    see scripts/setup-pod.sh --help

  --local           run on this machine without containers (`ai-semble up`): the quick start
  --home DIR        where programs, models, keys, jobs and logs go
                    [default: $AISEMBLE_HOME, else ~/.local/share/ai-semble]
  --listen ADDRESS  where the HTTP API listens [default: 127.0.0.1:8080]
  --without LIST    services that are not wanted, as nlp,vision,data: data leaves out the longest build
  --dry-run         check the machine and show the steps, change nothing
  -h, --help        this text

The core (orchestrator, llm, command) comes first and gives a first answer; then come texts (nlp),
pictures (vision) and tables (data) in a second build, and it starts again with them.

Without --local the rootless Podman pod is deployed (docs/deployment.md).

Needs Rust (rust-toolchain.toml says which), a C compiler, python3 with pip, curl, and Linux 6.7 or
newer with Landlock. Nothing is installed outside the home and the build folder
($CARGO_TARGET_DIR, default target/).

exit codes: 0 done, 1 a step failed or something is missing, 2 wrong usage
TEXT
}

dry_run=0
home=${AISEMBLE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/ai-semble}
listen=127.0.0.1:8080
without=
while [ $# -gt 0 ]; do
    case $1 in
        --local) ;;
        --dry-run) dry_run=1 ;;
        --home | --listen | --without)
            if [ $# -lt 2 ]; then
                echo "error: $1 needs a value" >&2
                exit 2
            fi
            case $1 in
                --home) home=$2 ;;
                --listen) listen=$2 ;;
                --without) without=$2 ;;
            esac
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "error: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

cd "$(dirname "$0")/.."
case $home in /*) ;; *) home=$PWD/$home ;; esac
target=${CARGO_TARGET_DIR:-$PWD/target}
disk_kb_min=6000000

IFS=, read -ra left_out <<<"$without"
for service in "${left_out[@]}"; do
    case $service in
        nlp | vision | data) ;;
        *) echo "error: --without takes nlp, vision, data; not $service" >&2; exit 2 ;;
    esac
done
wants() { case ",$without," in *",$1,"*) return 1 ;; esac; }

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS" >&2; }
say() { printf '   %s\n' "$1" >&2; }

# -- what the machine must have ---------------------------------------------------------------------

missing=0
need() { # NAME, how to get it
    printf 'missing: %s\n   get it: %s\n' "$1" "$2" >&2
    missing=1
}

version_at_least() { # HAVE WANT, dotted numbers
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_machine() {
    local wanted have kernel free folder tool
    [ "$(uname -s)" = Linux ] || need "Linux" "the sandbox is made of Linux's own parts: use a Linux machine"
    wanted=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    if ! command -v cargo >/dev/null; then
        need "Rust $wanted (cargo)" "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    elif ! have=$(rustc --version 2>/dev/null | awk '{ print $2 }') || [ -z "$have" ]; then
        need "Rust $wanted" "rustup toolchain install $wanted"
    elif ! version_at_least "$have" "$wanted"; then
        need "Rust $wanted (there is $have)" "rustup toolchain install $wanted"
    fi
    if ! command -v cc >/dev/null; then
        need "a C compiler (cc)" "Debian: apt-get install gcc libc6-dev; Fedora: dnf install gcc"
    fi
    if ! command -v python3 >/dev/null; then
        need "python3" "Debian: apt-get install python3 python3-pip; Fedora: dnf install python3-pip"
    elif ! python3 -m pip --version >/dev/null 2>&1; then
        need "pip for python3" "Debian: apt-get install python3-pip; or: python3 -m ensurepip --user"
    fi
    for tool in curl install awk sed sort; do
        command -v "$tool" >/dev/null || need "$tool" "Debian: apt-get install curl coreutils gawk sed"
    done
    kernel=$(uname -r)
    version_at_least "${kernel%%-*}" 6.7 ||
        need "Linux 6.7 (there is $kernel)" "a newer kernel: the sandbox needs its Landlock rules"
    # Not every machine shows this file; where it does, Landlock must be in it.
    if [ -r /sys/kernel/security/lsm ] && ! grep -q landlock /sys/kernel/security/lsm; then
        need "Landlock" "add landlock to the lsm= boot parameter (now: $(cat /sys/kernel/security/lsm))"
    fi
    grep -q '^Seccomp:' /proc/self/status || need "seccomp" "a kernel with CONFIG_SECCOMP_FILTER=y"
    folder=$target
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$disk_kb_min" ] || need "6 GB of disk in $folder (there are $((free / 1000)) MB)" \
        "make room, or set CARGO_TARGET_DIR to another disk"
    if [ "$missing" = 1 ]; then
        echo "error: something is missing, see above" >&2
        exit 1
    fi
    say "Rust, C compiler, Python with pip, curl, kernel $kernel, disk: there"
}

# -- steps ------------------------------------------------------------------------------------------

build() { # PACKAGE...
    local package arguments=()
    for package in "$@"; do arguments+=(-p "$package"); done
    CARGO_TARGET_DIR=$target cargo build --release --locked "${arguments[@]}"
}

changed=0
install_programs() { # PROGRAM...
    local program
    mkdir -p "$home"
    chmod 700 "$home"
    mkdir -p "$home/bin"
    for program in "$@"; do
        if ! cmp -s "$target/release/$program" "$home/bin/$program"; then
            changed=1
            # A new file beside the old one: a running program is not written to.
            install -m 0755 "$target/release/$program" "$home/bin/.$program.new"
            mv -f "$home/bin/.$program.new" "$home/bin/$program"
            say "installed $home/bin/$program"
        fi
    done
}

start() {
    if "$cli" --home "$home" --quiet status >/dev/null 2>&1; then
        if [ "$changed" = 0 ]; then
            say "runs already"
            return
        fi
        say "there is something new: starting again"
        "$cli" --home "$home" down
    fi
    "$cli" --home "$home" up --detach --listen "$listen"
    changed=0
}

# The services after the core, in one build: cargo builds what they share once, with one set of
# features, and the core serves meanwhile.
more_services() {
    local service packages=() programs=() models=() found
    for service in nlp vision data; do
        wants "$service" || continue
        if [ "$service" = data ]; then service=data-processor; fi
        packages+=("aisemble-$service")
        programs+=("ai-semble-$service")
        mapfile -t found < <("$cli" --json models list | default_models "$service")
        models+=("${found[@]}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    step "build the other services"
    say "${programs[*]}"
    if wants data; then say "polars is the longest part (--without data leaves it out)"; fi
    build "${packages[@]}"
    install_programs "${programs[@]}"
    if [ ${#models[@]} -gt 0 ]; then
        step "their models"
        "$cli" --home "$home" models pull "${models[@]}"
    fi
    step "start again, with them"
    start
}

# Names of the default models of a service, out of `models list`.
default_models() { # SERVICE
    python3 -c 'import json, sys
for model in json.load(sys.stdin)["catalog"]:
    if model["default"] and model["capability"] == sys.argv[1]:
        print(model["name"])' "$1"
}

first_answer() {
    local question='What is the capital of France? Answer in one sentence.'
    say "asking: $question"
    printf '\n' >&2
    # On a terminal it streams, and says how fast it was.
    "$cli" --home "$home" complete --temperature 0 --max-tokens 60 "$question"
}

next_steps() {
    local url
    url=$("$cli" --home "$home" --json status | sed -n 's/^{"url":"\([^"]*\)".*/\1/p')
    cat <<TEXT

Ready in $SECONDS s. What to try next:

  export PATH="$home/bin:\$PATH"
  ai-semble chat
  ai-semble redact "Write to eva@example.org or call +49 30 1234567."
  ai-semble see --task classify,faces,ocr PICTURE
  ai-semble data query "SELECT count(*) AS rows FROM t" t=FILE.csv
  ai-semble status
  ai-semble doctor

  KEY=\$(cat "$home/client-key")
  curl -s $url/ai/llm/completion -H "Authorization: Bearer \$KEY" \\
       -H 'Content-Type: application/json' -H 'Prefer: wait=60' \\
       -d '{"messages": [{"role": "user", "content": "What is gravity?"}], "max_tokens": 80}'
  curl -sN $url/ai/llm/completion -H "Authorization: Bearer \$KEY" \\
       -H 'Content-Type: application/json' -H 'Accept: text/event-stream' \\
       -d '{"messages": [{"role": "user", "content": "Tell me about the sea."}]}'

  # python: pip install openai
  import openai, pathlib
  key = pathlib.Path("$home/client-key").read_text().strip()
  client = openai.OpenAI(base_url="$url/v1", api_key=key)
  for chunk in client.chat.completions.create(model="smollm2-135m-instruct", stream=True,
                                              messages=[{"role": "user", "content": "Hello!"}]):
      print(chunk.choices[0].delta.content or "", end="", flush=True)

  ai-semble down          # stop it
TEXT
    if [ "$home" != "${AISEMBLE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/ai-semble}" ]; then
        printf '\nThis home is not the default one: export AISEMBLE_HOME="%s"\n' "$home"
    fi
}

step "this machine"
check_machine
if [ "$dry_run" = 1 ]; then
    step "what would be done"
    say "build the core in $target/release and install it in $home/bin"
    say "fetch the default language model with pip (93 MB) into $home/models, digest checked"
    say "make an API key in $home/client-key, if there is none"
    say "start on $listen, and ask a first question"
    if wants nlp; then say "then nlp: 4 models (143 MB to fetch, 372 MB installed)"; fi
    if wants vision; then say "then vision: 5 models (127 MB to fetch, 137 MB installed)"; fi
    if wants data; then say "then data (polars: the longest to build)"; fi
    exit 0
fi
step "build the core"
say "cargo build --release --locked (the first time takes several minutes)"
build aisemble-cli aisemble-orchestrator aisemble-llm
install_programs ai-semble ai-semble-orchestrator ai-semble-llm
cli=$home/bin/ai-semble
step "language model (93 MB to fetch)"
"$cli" --home "$home" models pull
step "start"
start
step "first answer"
first_answer
say "the core is ready after $SECONDS s; the other services follow (Ctrl-C leaves it as it is)"
more_services
next_steps
