//! Cotangents of neighbouring slices are joined.

use super::tests::{check, f64s, module};
use super::{Form, differentiate};
use tilewright_ir::text::print;

/// The gradient of a function of `%x: f64[2, 3]` and `%y`, checked against differences.
fn gradient(body: &str) -> String {
    let text = format!("func @main(%x: f64[2, 3], %y: f64[2, 3]) -> f64[] {{\n{body}\n}}\n");
    let m = module(&text);
    check(&m, &[f64s(&[2, 3], 1), f64s(&[2, 3], 2)]);
    print(&differentiate(&m, &["x", "y"], Form::Gradient).unwrap().module)
}

#[test]
fn cotangents_of_neighbours_are_joined() {
    let cut = |parts: [(usize, usize); 3]| {
        let slice = |(i, (from, to)): (usize, &(usize, usize))| {
            format!("  %s{i} = slice %x start=[0, {from}] limit=[2, {to}] stride=[1, 1]\n")
        };
        let slices: String = parts.iter().enumerate().map(slice).collect();
        gradient(&format!(
            "{slices}  %0 = tanh %s0\n  %1 = exp %s1\n  %2 = mul %s2, %s2\n  %3 = mul %0, %1\n  %4 = mul %3, %2
  %5 = sum %4 axes=[0, 1]\n  return %5"
        ))
    };
    let text = cut([(0, 1), (1, 2), (2, 3)]);
    assert!(text.contains("concat") && !text.contains("pad"), "{text}");
    assert_eq!(text.matches("concat").count(), 1, "{text}");
    // What overlaps is added, and what is left out is filled.
    assert!(!cut([(0, 1), (0, 1), (0, 1)]).contains("concat"));
    let text = cut([(1, 2), (2, 3), (2, 3)]);
    assert!(text.contains("pad"), "{text}");
}
