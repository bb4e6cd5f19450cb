//! Gradients of what a shift is taken out of again, and of what one stays in.

use super::tests::{check, module};
use super::{Form, differentiate};
use tilewright_ir::array::Array;
use tilewright_ir::text::print;

fn inputs(count: usize) -> Vec<Array> {
    let number = |i: usize, seed: usize| ((i * 37 + seed * 101 + 11) % 199) as f64 / 100.0 - 0.99;
    let array = |seed| Array::from_f64(&[2, 3], &(0..6).map(|i| number(i, seed)).collect::<Vec<f64>>()).unwrap();
    (0..count).map(array).collect()
}

/// The gradient of a function of `%x: f64[2, 3]` and `%y`, checked against differences.
fn gradient(body: &str) -> String {
    let text = format!("func @main(%x: f64[2, 3], %y: f64[2, 3]) -> f64[] {{\n{body}\n}}\n");
    let m = module(&text);
    check(&m, &inputs(2));
    print(&differentiate(&m, &["x", "y"], Form::Gradient).unwrap().module)
}

/// exp(x - max), which the gradient of a maximum follows.
const SHIFTED: &str = "
  %0 = reduce_max %x axes=[1]
  %1 = reshape %0 shape=[2, 1]
  %2 = broadcast %1 shape=[2, 3] dims=[0, 1]
  %3 = sub %x, %2
  %4 = exp %3
  %5 = sum %4 axes=[1]
  %6 = broadcast %5 shape=[2, 3] dims=[0]
";

/// Whether the rule of the maximum is there: it asks which elements are the largest.
fn asks(text: &str) -> bool {
    text.contains("= eq ")
}

#[test]
fn a_maximum_that_is_taken_out_again_has_no_cotangent() {
    let softmax = "%7 = div %4, %6\n  %8 = mul %7, %y\n  %9 = sum %8 axes=[0, 1]\n  return %9";
    let log_softmax = "%7 = log %6\n  %8 = sub %3, %7\n  %9 = mul %8, %y\n  %10 = sum %9 axes=[0, 1]\n  return %10";
    let log_sum = "%7 = log %5\n  %8 = add %7, %0\n  %9 = sum %8 axes=[0]\n  return %9";
    let product = "%7 = dot %4, %y contract=[1]x[1]\n  %8 = broadcast %5 shape=[2, 2] dims=[0]\n  %9 = div %7, %8
        %10 = sum %9 axes=[0, 1]\n  return %10";
    let transposed = "%7 = transpose %4 perm=[1, 0]\n  %8 = broadcast %5 shape=[3, 2] dims=[1]\n  %9 = div %7, %8
        %10 = mul %9, %9\n  %11 = sum %10 axes=[0, 1]\n  return %11";
    for rest in [softmax, log_softmax, log_sum, product, transposed] {
        let text = gradient(&format!("{SHIFTED}{rest}"));
        assert!(!asks(&text), "{text}");
    }
}

#[test]
fn a_maximum_that_stays_has_one() {
    let alone = "%7 = mul %4, %y\n  %8 = sum %7 axes=[0, 1]\n  return %8";
    let result = "%7 = div %4, %6\n  %8 = mul %7, %y\n  %9 = sum %8 axes=[0, 1]\n  %10 = sum %0 axes=[0]
        %11 = add %9, %10\n  return %11";
    // The sum of weights of different shifts.
    let across =
        "%7 = sum %4 axes=[0]\n  %8 = broadcast %7 shape=[2, 3] dims=[1]\n  %9 = div %4, %8\n  %10 = mul %9, %y
        %11 = sum %10 axes=[0, 1]\n  return %11";
    let square = "%7 = mul %4, %4\n  %8 = div %7, %6\n  %9 = mul %8, %y\n  %10 = sum %9 axes=[0, 1]\n  return %10";
    let other = "%7 = add %6, %y\n  %8 = div %4, %7\n  %9 = mul %8, %8\n  %10 = sum %9 axes=[0, 1]\n  return %10";
    // Rows of the one are divided by sums of the other.
    let crossed = "%7 = dot %4, %y contract=[1]x[1]\n  %8 = broadcast %5 shape=[2, 2] dims=[1]\n  %9 = div %7, %8
        %10 = sum %9 axes=[0, 1]\n  return %10";
    for rest in [alone, result, across, square, other, crossed] {
        let text = gradient(&format!("{SHIFTED}{rest}"));
        assert!(asks(&text), "{text}");
    }
}

/// Shifts of rows and of columns do not take each other out, whatever follows.
#[test]
fn shifts_along_other_axes_stay() {
    let text = "func @main(%x: f64[2, 2], %y: f64[2, 2]) -> f64[] {
  %0 = reduce_max %x axes=[1]\n  %1 = broadcast %0 shape=[2, 2] dims=[0]\n  %2 = broadcast %0 shape=[2, 2] dims=[1]
  %3 = sub %1, %2\n  %4 = exp %3\n  %5 = mul %4, %y\n  %6 = sum %5 axes=[0, 1]\n  return %6\n}\n";
    let m = module(text);
    let numbers = |from: f64| Array::from_f64(&[2, 2], &[from, -0.3, 0.7, 0.2]).unwrap();
    check(&m, &[numbers(0.1), numbers(0.9)]);
    let text = print(&differentiate(&m, &["x"], Form::Gradient).unwrap().module);
    assert!(asks(&text), "{text}");
}

#[test]
fn what_is_masked_stays_masked() {
    let masked = |shifted: &str, weight: &str| {
        format!(
            "  %0 = reduce_max %x axes=[1]\n  %2 = broadcast %0 shape=[2, 3] dims=[0]\n  %3 = sub %x, %2
  %m = constant bool[2, 3] = [true, true, false, false, true, true]
  %c = constant f64[] = {shifted}\n  %d = broadcast %c shape=[2, 3] dims=[]\n  %e = select %m, %3, %d\n  %4 = exp %e
  %f = constant f64[] = {weight}\n  %g = broadcast %f shape=[2, 3] dims=[]\n  %h = select %m, %4, %g
  %5 = sum %h axes=[1]\n  %6 = broadcast %5 shape=[2, 3] dims=[0]\n  %7 = div %h, %6\n  %8 = mul %7, %y
  %9 = sum %8 axes=[0, 1]\n  return %9"
        )
    };
    assert!(!asks(&gradient(&masked("-inf", "0.0"))));
    assert!(asks(&gradient(&masked("-1.0", "0.0"))));
    assert!(asks(&gradient(&masked("-inf", "0.5"))));
}

/// The second derivative has no rule of the maximum either.
#[test]
fn the_gradient_of_a_gradient_takes_it_out_too() {
    let rest = "%7 = div %4, %6\n  %8 = mul %7, %y\n  %9 = sum %8 axes=[0, 1]\n  return %9";
    let m = module(&format!("func @main(%x: f64[2, 3], %y: f64[2, 3]) -> f64[] {{\n{SHIFTED}{rest}\n}}\n"));
    let first = differentiate(&m, &["x"], Form::Gradient).unwrap().module;
    check(&first, &inputs(2));
    let second = differentiate(&first, &["x"], Form::Pullback).unwrap().module;
    assert!(!asks(&print(&second)), "{}", print(&second));
}
