#!/usr/bin/env bash
# Makes the pod's images out of static binaries, with Podman, without a registry or a network.
# usage: scripts/build-images.sh FOLDER [SERVICE...]    FOLDER holds what build-static.sh made
# Prints one line an image: name, id. The same binaries give the same ids.
set -euo pipefail

folder=$(cd "${1:?usage: scripts/build-images.sh FOLDER [SERVICE...]}" && pwd)
shift
services=("$@")
if [ ${#services[@]} -eq 0 ]; then
    for service in orchestrator llm nlp vision data-processor; do
        if [ -x "$folder/ai-semble-$service" ]; then services+=("$service"); fi
    done
fi
root=$(cd "$(dirname "$0")/.." && pwd)

# Each service is a user of its own; they share the group 10000, which owns the sockets.
uid_of() {
    case $1 in
        orchestrator) echo 10001 ;;
        llm) echo 10002 ;;
        nlp) echo 10003 ;;
        vision) echo 10004 ;;
        data-processor) echo 10005 ;;
        door) echo 10006 ;;
        *) echo "error: no service $1" >&2; return 1 ;;
    esac
}

# What the folder says of itself: VERSION, REVISION, SOURCE_DATE_EPOCH.
VERSION=unknown REVISION=unknown SOURCE_DATE_EPOCH=0
if [ -e "$folder/release" ]; then
    while IFS='=' read -r key value; do
        case $key in
            VERSION | REVISION | SOURCE_DATE_EPOCH) printf -v "$key" '%s' "$value" ;;
            *) ;;
        esac
    done <"$folder/release"
fi

for service in "${services[@]}"; do
    uid=$(uid_of "$service")
    image=localhost/ai-semble-$service
    podman build --quiet --pull=never --network=none --format oci --layers=false \
        --file "$root/containers/Containerfile" --target from-host \
        --build-arg "SERVICE=$service" --build-arg "SERVICE_UID=$uid" \
        --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" \
        --timestamp "$SOURCE_DATE_EPOCH" --tag "$image:current" "$folder" >/dev/null
    printf '%s %s\n' "$image" "$(podman image inspect --format '{{.Id}}' "$image:current")"
done
