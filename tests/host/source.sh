# shellcheck shell=bash disable=SC2154  # variables of run.sh
# An image built wholly inside the builder stage; sourced by run.sh after checks.sh. Compiles, so it
# runs only when it is asked for: --only source.

# The smallest program; another by its name: door, llm, orchestrator...
source_service=${AISEMBLE_SOURCE_SERVICE:-sandbox-probe}

build_from_source() { # TAG
    as_user podman build --quiet --pull=never --network=none --format oci --layers=false --timestamp 0 \
        --file /home/clinic/source/containers/Containerfile --target from-source \
        --ignorefile /home/clinic/source/containers/containerignore \
        --build-arg BUILDER=localhost/ai-semble-builder:current \
        --build-arg "SERVICE=$source_service" --build-arg SERVICE_UID=10009 \
        --build-arg VERSION=test --build-arg REVISION=test --tag "$1" /home/clinic/source
}

group_source() {
    local archive first second
    archive=$("$here/builder.sh" "$tree" "$cache/host")
    ln "$archive" "$folder/builder.tar" 2>/dev/null || cp "$archive" "$folder/builder.tar"
    expect 53a 'a builder made of Debian, a C compiler, Rust and the fetched crates: podman import' 0 \
        "$(code_of as_user podman import --change ENV=PATH=/usr/local/rust/bin:/usr/bin:/bin \
            --change ENV=CARGO_HOME=/usr/local/cargo --change ENV=CARGO_NET_OFFLINE=true \
            --change ENV=HOME=/root /home/clinic/builder.tar localhost/ai-semble-builder:current)"
    rm -f "$folder/builder.tar"
    mkdir -p "$folder/source"
    git -C "$root" ls-files -z | tar -C "$root" --null --files-from=- -cf - | tar -C "$folder/source" -xf -
    chown -R 1000:1000 "$folder/source"
    expect 53b "podman build --target from-source, no network: $source_service" 0 \
        "$(code_of build_from_source localhost/from-source:first)"
    tail -n 5 "$work/out"
    expect 53c 'files in it' '-r-xr-xr-x ai-semble-service -r--r--r-- sbom.cdx.json' \
        "$(files_in localhost/from-source:first)"
    expect 53d 'built once more: one digest' 'same .*' \
        "$(build_from_source localhost/from-source:second >/dev/null
            first=$(as_user podman image inspect --format '{{.Digest}}' localhost/from-source:first)
            second=$(as_user podman image inspect --format '{{.Digest}}' localhost/from-source:second)
            [ "$first" = "$second" ] && echo "same $first" || echo "$first $second")"
    as_user podman image rm --force localhost/from-source:first localhost/from-source:second \
        localhost/ai-semble-builder:current >/dev/null 2>&1 || true
    rm -rf "$folder/source"
}
