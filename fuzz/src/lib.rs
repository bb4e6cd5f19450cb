//! Fuzzing of every reader of Tilewright on stable Rust: mutated files, one target per format.
//!
//! `cargo run --release -p tilewright-fuzz -- TARGET --runs N --seed S` mutates real files ([`seeds`], [`mutate`]), gives
//! each input to the target ([`targets`]) and fails on a panic, an abort, a broken property, or more memory or time than
//! [`driver::Limits`] allow. There is no coverage to steer by; instead an input whose outcome is new (another
//! error, other ops) joins the corpus and is mutated in turn. The same seed and number of runs give the same inputs.

pub mod driver;
pub mod interpret;
pub mod memory;
pub mod minimise;
pub mod mutate;
pub mod seeds;
pub mod targets;

#[path = "../../tests/support/files.rs"]
mod files;
// Its `next` is meant for tests, which see no trait.
#[allow(clippy::should_implement_trait)]
#[path = "../../tests/support/random.rs"]
pub mod random;
