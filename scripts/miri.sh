#!/usr/bin/env bash
# Runs the unsafe code that Miri can run. Needs: rustup toolchain install nightly --component miri rust-src
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/miri}
cargo +nightly miri test -p tilewright-runtime --no-default-features --lib -- threads::
cargo +nightly miri test -p tilewright-codegen --lib -- cpu::pack cpu::ukernel::tests::portable
