//! Whole programs for GPUs, without one: kernel by kernel on the kernel interpreter, their CUDA C on the host under a
//! small prelude, and through NVRTC for every target; against the reference interpreter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod device;
mod host;
mod kernels;
mod models;
mod products;
#[path = "../support/random.rs"]
mod random;
mod texts;
mod train;
