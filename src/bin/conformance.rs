//! conformance.

fn main() {}
