//! Tests of covers: what they choose, and that every cover means what the program means.

mod choice;
mod exact;
mod meaning;
mod work;
