#!/usr/bin/env bash
# Runs the unsafe code that Miri can run; minutes, since it interprets. Needs: rustup toolchain install nightly --component miri rust-src
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/miri}
# Without vector instructions the portable micro-kernels are the only ones that there are.
cargo +nightly miri test -p tilewright-codegen --lib -- cpu::pack cpu::ukernel::tests::products_of_blocks cpu::ukernel::tests::strips_are_ggmls
cargo +nightly miri test -p tilewright-runtime --no-default-features --lib -- threads::
