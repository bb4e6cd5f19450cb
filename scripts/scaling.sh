#!/usr/bin/env bash
# What the optimiser takes as graphs grow: time and peak memory of compiling blocks, unrolled models of 1 to 96 layers and random
# graphs, and whether 20 runs print the same kernels: scaling.sh [--runs 20]
# Every run is a process of its own, so that hash tables of the standard library have another seed in each; the number of threads alternates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --quiet
exec python3 scripts/scaling.py "$@"
