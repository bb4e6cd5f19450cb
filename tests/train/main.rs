//! Training: optimisers against torch's, whole runs against recorded ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod optim;
mod random;
