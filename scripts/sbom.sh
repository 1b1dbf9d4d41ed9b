#!/usr/bin/env bash
# Writes the bill of materials of one binary: every crate that is linked into it, CycloneDX 1.6 JSON.
# usage: scripts/sbom.sh PACKAGE [OUTPUT]      (PACKAGE: aisemble-llm, …; default output: standard output)
# What only a build script, a procedural macro or a test uses is not in the binary and not listed.
# The same sources give the same bytes: the serial number is made of the content, there is no date.
set -euo pipefail

package=${1:?usage: scripts/sbom.sh PACKAGE [OUTPUT]}
output=${2:-/dev/stdout}
root=$(cd "$(dirname "$0")/.." && pwd)
for tool in cargo jq; do
    command -v "$tool" >/dev/null || { echo "error: $tool not found" >&2; exit 1; }
done
cd "$root"
target=$(rustc -vV | awk '/^host:/ { print $2 }')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is linked, with the features that this package asks for: name, version.
cargo tree --locked --package "$package" --edges normal,no-proc-macro --target "$target" --prefix none \
    --format '{p}' | sed -e 's/ (.*//' | sort -u >"$work/linked"
[ -s "$work/linked" ] || { echo "error: no package $package" >&2; exit 1; }
# Digests of the sources, from the lock file.
awk -F'"' '
    /^name = / { name = $2 }
    /^version = / { version = $2 }
    /^checksum = / { print name " v" version " " $2 }' Cargo.lock >"$work/checksums"
cargo metadata --locked --format-version 1 --filter-platform "$target" >"$work/metadata"

jq --null-input --sort-keys --arg root "$package" \
    --rawfile linked "$work/linked" --rawfile checksums "$work/checksums" \
    --slurpfile metadata "$work/metadata" '
    ($checksums | split("\n") | map(select(. != "") | split(" ") | {key: (.[0] + " " + .[1]), value: .[2]})
        | from_entries) as $digest
    | ($metadata[0].packages | map({key: (.name + " v" + .version), value: .}) | from_entries) as $known
    | def component: . as $key | $known[$key] as $crate | {
          type: "library",
          name: $crate.name,
          version: $crate.version,
          "bom-ref": ("pkg:cargo/" + $crate.name + "@" + $crate.version),
          purl: ("pkg:cargo/" + $crate.name + "@" + $crate.version),
          licenses: (if $crate.license then [{expression: ($crate.license | gsub("/"; " OR "))}] else [] end)
      } + (if $digest[$key] then {hashes: [{alg: "SHA-256", content: $digest[$key]}]} else {} end);
    ($linked | split("\n") | map(select(. != ""))) as $keys
    | ($keys | map(select(startswith($root + " v"))) | .[0]) as $own
    | {
        bomFormat: "CycloneDX",
        specVersion: "1.6",
        version: 1,
        metadata: {component: (($own | component) + {type: "application"})},
        components: ($keys | map(select(. != $own)) | map(component)),
        dependencies: [{
            ref: ($own | component | .["bom-ref"]),
            dependsOn: ($keys | map(select(. != $own)) | map(component | .["bom-ref"]))
        }]
      }' >"$work/sbom"
# A serial number out of the content: version 8 of RFC 9562, made of a digest.
digest=$(sha256sum "$work/sbom" | cut -c1-32)
serial=${digest:0:8}-${digest:8:4}-8${digest:13:3}-8${digest:17:3}-${digest:20:12}
jq --sort-keys --arg serial "urn:uuid:$serial" '. + {serialNumber: $serial}' "$work/sbom" >"$output"
