//! Training: optimisers against torch's, whole runs against recorded ones, random numbers, the command.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod conformance;
mod data;
mod diverged;
mod ends;
mod folder;
mod hunt;
mod length;
mod mixed;
mod optim;
mod random;
mod scale;
