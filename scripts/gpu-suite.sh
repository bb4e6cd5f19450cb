#!/usr/bin/env bash
# What to run on a machine with an NVIDIA GPU: programs on the device against the interpreter, and times of their launches.
# Usage: scripts/gpu-suite.sh [TILEWRIGHT-BINARY]   (built here if absent; NVRTC from TILEWRIGHT_NVRTC, target/nvrtc or the system)
# The folder of the binary may also have `conformance`. Prints a report; exit status 1 where something fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=${1:-}
if [ -z "$binary" ]; then
    cargo build --release --quiet || exit 1
    binary=target/release/tilewright
fi
if [ -z "${TILEWRIGHT_NVRTC:-}" ] && ! ldconfig -p 2>/dev/null | grep -q libnvrtc; then
    TILEWRIGHT_NVRTC=$(scripts/install-nvrtc.sh) || exit 1
    export TILEWRIGHT_NVRTC
fi
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw --format=csv || echo "no nvidia-smi"
failed=0

echo "== programs against the interpreter"
for level in 1 2; do
    for program in tests/data/programs/*.tw; do
        printf '%s level %s: ' "$program" "$level"
        if found=$("$binary" run "$program" --device cuda --opt-level "$level" --check 2>&1); then
            grep 'largest difference' <<<"$found"
        else
            printf 'FAILED\n%s\n' "$found"
            failed=1
        fi
    done
done

conformance=$(dirname "$binary")/conformance
if [ -x "$conformance" ]; then
    echo "== op programs"
    for level in 0 1 2; do
        "$conformance" --data tests/data --set ops --device cuda --opt-level "$level" || failed=1
    done
fi

# Times of the second run's launches, without copies; the data is random, never zeros.
echo "== times"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
emit() { # NAME TEXT
    printf '%s\n' "$2" >"$work/$1.tw"
    printf '%-24s ' "$1"
    "$binary" run "$work/$1.tw" --device cuda 2>&1 | head -n 1
}
emit matmul_4096 'func @main(%a: f32[4096, 4096], %b: f32[4096, 4096]) -> f32[4096, 4096] {
  %0 = dot %a, %b batch=[]x[] contract=[1]x[0]
  return %0
}'
emit linear_32_768_3072 'func @main(%x: f32[32, 768], weight %w: f32[3072, 768]) -> f32[32, 3072] {
  %0 = dot %x, %w batch=[]x[] contract=[1]x[1]
  return %0
}'
emit row_sum_16384_4096 'func @main(%x: f32[16384, 4096]) -> f32[16384] {
  %0 = sum %x axes=[1]
  return %0
}'
emit add_2_28 'func @main(%x: f32[268435456], %y: f32[268435456]) -> f32[268435456] {
  %0 = add %x, %y
  return %0
}'
emit softmax_65536_1000 "$(sed 's/f32\[n, 1000\]/f32[65536, 1000]/g; s/\[n, 1000\]/[65536, 1000]/g; s/\[n, 1\]/[65536, 1]/g; s/f32\[n\]/f32[65536]/g; s/ where n in 1..=4096//' tests/data/programs/softmax.tw)"
exit $failed
