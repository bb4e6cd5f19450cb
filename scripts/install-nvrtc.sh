#!/bin/sh
# Installs NVIDIA's runtime compiler from its PyPI wheel and prints the folder of the library. Needs pip, no GPU. Beside it
# goes nvdisasm, where there is a wheel of it: with it, tests look at the machine code.
# Usage: scripts/install-nvrtc.sh [folder]     (default target/nvrtc; then set TILEWRIGHT_NVRTC to the printed folder)
set -eu
target=${1:-target/nvrtc}
mkdir -p "$target"
# One call: wheels share the folder `nvidia`, which a later call would replace.
install() {
    python3 -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target "$target" "$@" >&2
}
install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm || install nvidia-cuda-nvrtc
library=$(find "$target" -name 'libnvrtc.so.*' | sort | head -n 1)
if [ -z "$library" ]; then
    echo "the wheel has no libnvrtc.so" >&2
    exit 1
fi
cd "$(dirname "$library")"
pwd
