//! Every shipped rewrite rule holds on random data, with seeds other than those of the unit tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use tilewright_passes::egraph::{check_rule, shipped};

#[test]
fn shipped_rules_hold() {
    let set = shipped().unwrap();
    assert!(set.rules.len() >= 30, "only {} rules", set.rules.len());
    let wrong: Vec<String> = set
        .rules
        .iter()
        .flat_map(|rule| (100..108).filter_map(move |seed| check_rule(rule, seed).err()))
        .map(|e| e.to_string())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
