#!/usr/bin/env bash
# Builds the SELinux modules, loads them into a copy of Debian 13's policy with every assertion of
# that policy checked, and asks the result what each service may do. Needs no SELinux in the kernel
# that runs it.
# usage: tests/vm/policy.sh TREE    TREE is the folder of tests/vm/tree.sh
set -euo pipefail

tree=${1:?usage: tests/vm/policy.sh TREE}/tree
here=$(cd "$(dirname "$0")" && pwd)
modules=$here/../../security/selinux
work=$(mktemp -d)
missed=0
# shellcheck disable=SC2317  # called by the trap
clean_up() {
    umount "$work/root" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
mkdir -p "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$work/root"
mkdir "$work/root/module"
cp "$modules"/ai_semble* "$work/root/module/"
inside() { chroot "$work/root" "$@"; }

expect() { # NUMBER WHAT EXPECTED SEEN    EXPECTED is a regular expression for the whole of SEEN
    local verdict='ok  '
    if ! [[ $4 =~ ^($3)$ ]]; then
        verdict=MISS
        missed=$((missed + 1))
    fi
    printf '%s %-4s %-66s %s\n' "$verdict" "$1" "$2" "$(tr '\n' ' ' <<<"$4" | cut -c1-120)"
}

build() { # MODULE
    inside checkmodule -M -m -o "/module/$1.mod" "/module/$1.te" &&
        if [ -e "$work/root/module/$1.fc" ]; then
            inside semodule_package -o "/module/$1.pp" -m "/module/$1.mod" -f "/module/$1.fc"
        else
            inside semodule_package -o "/module/$1.pp" -m "/module/$1.mod"
        fi
}

# Without it neverallow rules are not looked at when a module is loaded.
sed -i -e '/^expand-check/d' "$work/root/etc/selinux/semanage.conf"
echo 'expand-check=1' >>"$work/root/etc/selinux/semanage.conf"

load() { inside semodule -n -s default -i "$@"; }

for module in ai_semble ai_semble_gpu; do
    expect 43 "checkmodule and semodule_package: $module" 0 \
        "$(if build $module >"$work/out" 2>&1; then echo 0; else cat "$work/out"; fi)"
done
expect 43 'semodule with expand-check=1' 0 \
    "$(if load /module/ai_semble.pp /module/ai_semble_levels.cil >"$work/out" 2>&1; then echo 0; else tail -n 3 "$work/out"; fi)"
policy=$(find "$work/root/etc/selinux/default/policy" -name 'policy.*' -printf '/etc/selinux/default/policy/%f\n')
cp "$here/policy.py" "$work/root/module/"
inside python3 /module/policy.py "$policy" || missed=$((missed + 1))
load /module/ai_semble_gpu.pp >"$work/out" 2>&1
inside python3 /module/policy.py "$policy" gpu || missed=$((missed + 1))

# Fedora and RHEL: the runtime has a domain with an attribute of its own, which Debian's policy lacks.
# A stand-in with that name puts the optional block in force; its rules are asked, no host is run.
cat >"$work/root/module/runtime.te" <<'TEXT'
module runtime 1.0;
require {
	attribute domain;
}
attribute container_runtime_domain;
type stand_in_runtime_t, domain, container_runtime_domain;
TEXT
build runtime >"$work/out" 2>&1
expect 43 'with a stand-in for the runtime domain of Fedora and RHEL' 0 \
    "$(if load /module/runtime.pp >"$work/out" 2>&1; then echo 0; else tail -n 3 "$work/out"; fi)"
inside python3 /module/policy.py "$policy" runtime || missed=$((missed + 1))
inside semodule -n -s default -r runtime

# The interfaces, expanded by m4 as the policy's own build does, and what they ask for compiled.
{
    printf '%s\n' "define(\`interface',\`define(\`\$1',\`\$2')')dnl" "define(\`gen_require',\`require {" "\$1}')dnl"
    cat "$modules/ai_semble.if"
    printf '%s\n' 'module caller 1.0;' 'require {' \
        'attribute domain;' \
        'class dir { getattr search open read lock ioctl create rename reparent rmdir setattr write add_name remove_name };' \
        'class file { getattr open read lock ioctl map create write append rename link unlink setattr };' \
        'class lnk_file { getattr read };' 'class sock_file { getattr write };' \
        'class unix_stream_socket connectto;' 'class process getattr;' '}' 'type caller_t, domain;'
    sed -n "s/^interface(\`\([a-z_]*\)'.*/\1(caller_t)/p" "$modules/ai_semble.if"
} | m4 | sed -e '/^#/d' >"$work/root/module/caller.te"
expect 43 'a module that calls every interface of ai_semble.if' '[1-9] calls, 0' \
    "$(grep -c "^interface(" "$modules/ai_semble.if") calls, $(if build caller >"$work/out" 2>&1 && load /module/caller.pp >>"$work/out" 2>&1; then echo 0; else tail -n 3 "$work/out"; fi)"
inside python3 /module/policy.py "$policy" caller || missed=$((missed + 1))
inside semodule -n -s default -r caller

# The checks can fail: a module that breaks one of the policy's own assertions is refused.
cat >"$work/root/module/wrong.te" <<'TEXT'
module wrong 1.0;
require {
	type ai_semble_llm_t;
	type shadow_t;
	class file { read };
}
allow ai_semble_llm_t shadow_t:file read;
TEXT
build wrong >"$work/out" 2>&1
expect 43 'a module that lets llm read /etc/shadow' 'refused: .*neverallow.*' \
    "$(if load /module/wrong.pp >"$work/out" 2>&1; then echo loaded; else echo "refused: $(grep -i neverallow "$work/out" | head -n 1)"; fi)"
[ "$missed" = 0 ] || { echo "$missed missed"; exit 1; }
