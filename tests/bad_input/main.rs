//! Bad input through the real binary: one clear error with its place, exit code 1 or 2, no panic, under 6 GB of address
//! space, in bounded time, nothing left behind. Large but good input runs.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod answers;
mod checkpoints;
mod encoders;
mod harness;
mod large;
mod programs;
#[path = "../support/random.rs"]
mod random;
mod snapshots;
mod texts;
mod usage;
mod work;
