#!/usr/bin/env bash
# Builds static binaries: the same source and date give the same bytes.
# usage: scripts/build-static.sh OUTPUT_FOLDER [BINARY...]   (default: all that a pod needs)
# $AISEMBLE_PROFILE names the cargo profile (default: dist).
set -euo pipefail

output=${1:?usage: scripts/build-static.sh OUTPUT_FOLDER [BINARY...]}
shift
binaries=("$@")
root=$(cd "$(dirname "$0")/.." && pwd)
if [ ${#binaries[@]} -eq 0 ]; then
    binaries=(ai-semble-orchestrator ai-semble-llm ai-semble-door ai-semble ai-semble-sandbox-probe)
    for service in ai-services/nlp ai-services/vision data-processor; do
        if [ -e "$root/containers/$service/src/main.rs" ]; then
            binaries+=("ai-semble-${service##*/}")
        fi
    done
fi
profile=${AISEMBLE_PROFILE:-dist}
target=$(rustc -vV | awk '/^host:/ { print $2 }')
target_dir=${CARGO_TARGET_DIR:-$root/target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}

package_of() { # BINARY
    case $1 in
        ai-semble) echo aisemble-cli ;;
        ai-semble-sandbox-probe) echo aisemble-sandbox ;;
        *) echo "aisemble-${1#ai-semble-}" ;;
    esac
}

arguments=()
for binary in "${binaries[@]}"; do
    arguments+=(--package "$(package_of "$binary")" --bin "$binary")
done

flags='-C target-feature=+crt-static'
folder=$profile
if [ "$profile" = dev ]; then
    folder=debug # the same build that the tests run
else
    flags+=" --remap-path-prefix=$root=/src --remap-path-prefix=$cargo_home=/cargo"
fi
# --target keeps the flags away from build scripts and procedural macros, which must be dynamic.
cd "$root"
export RUSTFLAGS=$flags
if [ "$profile" = dev ]; then
    cargo test --locked --workspace --no-run --target "$target"
else
    # Where cargo-auditable is installed, each binary also carries the list of its crates (.dep-v0), which
    # scanners read out of the file itself.
    build=(cargo build)
    if command -v cargo-auditable >/dev/null; then build=(cargo auditable build); fi
    "${build[@]}" --locked --profile "$profile" --target "$target" "${arguments[@]}"
fi
mkdir -p "$output"
for binary in "${binaries[@]}"; do
    # Without symbols: those of a test build are hundreds of megabytes.
    install -s -m 0555 "$target_dir/$target/$folder/$binary" "$output/$binary"
    # The crates in it, beside it and in its image.
    scripts/sbom.sh "$(package_of "$binary")" "$output/$binary.cdx.json"
done
# What the images' labels say; the date is the source's, not the build's.
{
    echo "VERSION=$(awk -F'"' '/^version = / { print $2; exit }' Cargo.toml)"
    echo "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    echo "SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
} >"$output/release"
