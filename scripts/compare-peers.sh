#!/usr/bin/env bash
# Runs our benches and the peers' scripts in turn, three times, and prints the ratio of the medians for every shape:
# compare-peers.sh PEERS_FOLDER [--benches gemm,elementwise,attention,gpt2,encoder,llm] [--peers torch,jax] [--rounds 3] [--threads 2]
#                  [--gguf FILE] [--minilm FOLDER] [--svg FILE] [--json FILE]
# PEERS_FOLDER has gemm.py and the others, and a Python environment in .venv (or name one by PEERS_PYTHON).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# -lt 1 ] || [ ! -d "${1:-}" ]; then sed -n '2,5s/^# //p' "$0" >&2; exit 2; fi
cargo build --release --quiet
python=${PEERS_PYTHON:-$1/.venv/bin/python}
if [ ! -x "$python" ]; then echo "compare-peers.sh: no Python at $python; see the peers' README, or set PEERS_PYTHON" >&2; exit 2; fi
exec "$python" scripts/compare_peers.py "$@"
