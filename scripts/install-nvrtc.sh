#!/bin/sh
# Installs NVIDIA's runtime compiler from its PyPI wheel and prints the folder of the library. Needs pip, no GPU.
# Usage: scripts/install-nvrtc.sh [folder]     (default target/nvrtc; then set TILEWRIGHT_NVRTC to the printed folder)
set -eu
target=${1:-target/nvrtc}
mkdir -p "$target"
python3 -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target "$target" nvidia-cuda-nvrtc >&2
library=$(find "$target" -name 'libnvrtc.so.*' | sort | head -n 1)
if [ -z "$library" ]; then
    echo "the wheel has no libnvrtc.so" >&2
    exit 1
fi
cd "$(dirname "$library")"
pwd
