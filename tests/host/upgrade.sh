# shellcheck shell=bash disable=SC2016,SC2154  # awk programs; variables of run.sh
# Upgrades on the host tier, sourced by run.sh after checks.sh: a good one, two bad ones, a rollback.

deploy_script() { as_user bash /home/clinic/ai-semble/scripts/deploy.sh "$@"; }

revision_of() { as_user podman image inspect --format '{{index .Labels "org.opencontainers.image.revision"}}' "localhost/ai-semble-llm:current"; }

# A folder of binaries that calls itself another revision, so that its images differ.
release_named() { # NAME
    local folder=$AISEMBLE_HOST_STATE/$name/home/clinic/release-$1
    cp -r "$AISEMBLE_HOST_STATE/$name/home/clinic/release" "$folder"
    sed -i -e "s/^REVISION=.*/REVISION=$1/" "$folder/release"
    chown -R 1000:1000 "$folder"
    echo "/home/clinic/release-$1"
}

group_upgrade() {
    local folder
    complete >/dev/null
    jobs_known >"$work/jobs-then"
    expect 50 'jobs before the first deploy' '[1-9][0-9]*' "$(wc -l <"$work/jobs-then")"
    folder=$(release_named good)
    expect 50a 'deploy.sh with a good release' '0 good' \
        "$(code_of deploy_script --images "$folder" --gate 3) $(revision_of)"
    sed -e 's/^/    /' "$work/out" | tail -n 12
    expect 50b 'jobs lost, and a completion' '0 200' "$(jobs_lost "$work/jobs-then") $(complete)"
    jobs_known >"$work/jobs-then"

    # The image's program is another one: it refuses its arguments and ends.
    folder=$(release_named crashing)
    cp "$AISEMBLE_HOST_STATE/$name/home/clinic/release/ai-semble-sandbox-probe" \
        "$AISEMBLE_HOST_STATE/$name/home/clinic/release-crashing/ai-semble-llm"
    expect 50c 'deploy.sh with an llm that cannot start' '1 good' \
        "$(code_of deploy_script --images "$folder" --gate 3) $(revision_of)"
    tail -n 4 "$work/out" | sed -e 's/^/    /'
    expect 50d 'after the way back: a completion' 200 "$(complete)"

    # Another program again, which ends with a complaint about its configuration.
    folder=$(release_named mixed)
    cp "$AISEMBLE_HOST_STATE/$name/home/clinic/release/ai-semble-llm" \
        "$AISEMBLE_HOST_STATE/$name/home/clinic/release-mixed/ai-semble-orchestrator"
    expect 50e 'deploy.sh with an orchestrator that cannot start' '1 good' \
        "$(code_of deploy_script --images "$folder" --gate 3) $(revision_of)"
    expect 50f 'no job was lost on the way' 0 "$(jobs_lost "$work/jobs-then")"
    expect 50g 'deploy.sh --rollback goes to what was kept' 0 "$(code_of deploy_script --rollback)"
    expect 50h 'a completion after it' 200 "$(complete)"
    rm -rf "$AISEMBLE_HOST_STATE/$name"/home/clinic/release-*
}
