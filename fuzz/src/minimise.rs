//! Shorter inputs that fail in the same way.

use crate::driver::{Limits, run, skeleton};
use crate::targets::Target;
use std::time::{Duration, Instant};

/// How long to look for shorter inputs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Removes parts of `input`, halves first, single bytes last, while the failure stays the same but for names and numbers.
pub fn minimise(target: &dyn Target, mut input: Vec<u8>, reason: &str, limits: Limits) -> Vec<u8> {
    let start = Instant::now();
    let same = skeleton(reason);
    let mut part = input.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < input.len() {
            if start.elapsed() > PATIENCE {
                return input;
            }
            let mut shorter = input.clone();
            shorter.drain(at..(at + part).min(input.len()));
            if run(target, &shorter, limits).outcome.is_err_and(|r| skeleton(&r) == same) {
                input = shorter;
            } else {
                at += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    input
}
