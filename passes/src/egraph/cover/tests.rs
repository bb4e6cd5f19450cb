//! Tests of covers: what they choose, and that every cover means what the program means.

mod choice;
mod exact;
#[cfg(feature = "ilp")]
mod integer;
mod meaning;
mod work;
