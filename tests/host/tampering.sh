# shellcheck shell=bash disable=SC2016,SC2154  # backticks of messages; variables of run.sh
# What happens when something of the pod is not as it was made: a seccomp profile that lost a rule,
# one that is no profile, a model that is gone or has another digest. Sourced by run.sh after
# checks.sh.

llm_settings=/home/clinic/.config/ai-semble/llm/$model.toml
llm_profile=/home/clinic/.config/ai-semble/seccomp/llm.json

# Starts the llm with one of its files changed by a program, and says how that ended: the exit code
# of systemctl, how often the journal has PATTERN since, and whether the door still answers.
start_changed() { # FILE PATTERN PROGRAM...    PROGRAM reads the file and writes the changed one
    local file=$1 pattern=$2 cursor code
    shift 2
    as_user cp -p "$file" "$file.before"
    as_user cat "$file.before" | "$@" >"$work/changed"
    as_user tee "$file" <"$work/changed" >/dev/null
    cursor=$(as_root journalctl --no-pager --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
    code=$(code_of as_user systemctl --user restart "$llm_unit")
    as_user systemctl --user stop "$llm_unit" 2>/dev/null || true
    as_user mv "$file.before" "$file"
    as_user systemctl --user reset-failed "$llm_unit" 2>/dev/null || true
    as_root journalctl --no-pager --output=cat --after-cursor="$cursor" >"$work/since"
    printf '%s, %s, %s' "$([ "$code" = 0 ] && echo started || echo 'not started')" \
        "$(if grep -q -E "$pattern" "$work/since"; then echo said; else echo 'not said:'; tail -n 3 "$work/since"; fi)" \
        "$(http /health)"
    grep -E -o "$pattern" "$work/since" | head -n 1 | sed -e 's/^/    /' >&2 || true
}

group_tampering() {
    expect 28 'llm under a profile that lost accept4: it names the call' 'not started, said, 200' \
        "$(start_changed "$llm_profile" 'seccomp profile around this process, or the kernel, refuses `accept4`' \
            jq '(.syscalls[].names) -= ["accept4"] | .syscalls |= map(select(.names != []))')"
    expect 28 'llm under a profile that lost futex' 'not started, .*, 200' \
        "$(start_changed "$llm_profile" 'refuses `futex`|futex' \
            jq '(.syscalls[].names) -= ["futex"] | .syscalls |= map(select(.names != []))')"
    expect 28 'a profile that is no profile' 'not started, said, 200' \
        "$(start_changed "$llm_profile" 'seccomp' sed -e '1s/{/[/')"
    expect 28 'a model that is gone' 'not started, said, 200' \
        "$(start_changed "$llm_settings" 'No such file|no such file|cannot' sed -e 's|^path = "/models/.*|path = "/models/gone.gguf"|')"
    expect 28 'a model with another digest' 'not started, said, 200' \
        "$(start_changed "$llm_settings" 'has sha256 [0-9a-f]{8}[0-9a-f]*, expected [0-9a-f]{8}' sed -e 's|^sha256 = ".|sha256 = "0|')"
    as_user systemctl --user start "$llm_unit"
    expect 28 'as it was made: served again after' '.* tenths of a second' "$(until_ready 120)"
}
