# shellcheck shell=bash disable=SC2016,SC2154  # backticks of Markdown; variables of whoever sources this
# The table of checks, sourced by the host tier and the vm tier, which give `report` (a file) and
# `work` (a folder). Rows and quotations are kept beside the report as they come, so that a run that
# is cut short leaves what it saw, and a run that goes on adds to it. Knows nothing of what is checked.

# open_table TITLE ABOUT
open_table() {
    mkdir -p "$(dirname "$report")"
    {
        printf '# %s\n\n%s\n\n' "$1" "$2"
        printf '| | check | command or question | expected (a pattern) | seen |\n|---|---|---|---|---|\n'
    } >"$report.rows"
    : >"$report.quotes"
}

# A cell: one line, and no bar that would end it.
cell() { tr '\n' ' ' <<<"$1" | sed -e 's/|/\\|/g' -e 's/ *$//'; }

# expect NUMBER WHAT EXPECTED SEEN     EXPECTED is a regular expression for the whole of SEEN
expect() {
    local verdict='ok  '
    if ! [[ $4 =~ ^($3)$ ]]; then verdict=MISS; fi
    printf '| %s | %s | %s | `%s` | %s |\n' "${verdict%% *}" "$1" "$(cell "$2")" "$(cell "$3")" "$(cell "$4")" >>"$report.rows"
    printf '%s %-4s %-66s %s\n' "$verdict" "$1" "$2" "$(tr '\n' ' ' <<<"$4" | cut -c1-90)"
}

# quote TITLE    what stands on standard input, for the end of the report and for the reader now
quote() {
    cat >"$work/quoted"
    if [ -n "$(tail -c 1 "$work/quoted")" ]; then echo >>"$work/quoted"; fi
    { printf '\n## %s\n\n```\n' "$1" && cat "$work/quoted" && printf '```\n'; } >>"$report.quotes"
    sed -e 's/^/    /' "$work/quoted"
}

# Writes the report of what is known now.
compose() {
    local checks missed
    [ -e "$report.rows" ] || return 0
    checks=$(grep -c -e '^| ok |' -e '^| MISS |' "$report.rows" || true)
    missed=$(grep -c '^| MISS |' "$report.rows" || true)
    {
        cat "$report.rows"
        printf '\n%s checks, %s missed.\n' "$checks" "$missed"
        cat "$report.quotes"
    } >"$report"
    printf '%s checks, %s missed; the table is in %s\n' "$checks" "$missed" "$report"
    [ "$missed" = 0 ]
}

finish() {
    local outcome=0
    compose || outcome=$?
    rm -f "$report.rows" "$report.quotes"
    return "$outcome"
}

code_of() { if "$@" >"$work/out" 2>&1; then echo 0; else echo $?; fi; }

until_ok() { # SECONDS COMMAND...  tells how long it took, in tenths of a second
    local deadline=$((SECONDS + $1)) begin
    begin=$(date +%s%N)
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then echo never; return; fi
        sleep 0.1
    done
    echo "$((($(date +%s%N) - begin) / 100000000)) tenths of a second"
}
