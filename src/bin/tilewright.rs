//! tilewright.

fn main() {}
