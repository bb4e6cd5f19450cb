//! Rules that reorder sums keep to what the graph means where order matters most: over nothing, in f16, for signed zeros.

#![allow(clippy::unwrap_used)]

use tilewright::compile::{Options, compile};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};

/// What level 2 gives with the default rules, beside the interpreter.
fn both(text: &str, inputs: &[Array], sizes: &[(&str, i64)]) -> (Vec<f64>, Vec<f64>) {
    let module = parse("m.tw", text).unwrap();
    let bindings: Bindings = sizes.iter().map(|(s, n)| ((*s).into(), *n)).collect();
    let options = Options { opt_level: 2, threads: 1, ..Options::host().unwrap() };
    let found = compile(&module, &options).unwrap().run(inputs, &bindings).unwrap();
    let expected = interp::run(&module, "main", inputs, &bindings, Mode::Meaning).unwrap();
    (found[0].to_f64().unwrap(), expected[0].to_f64().unwrap())
}

#[test]
fn sums_over_nothing_are_zero_whatever_the_factor() {
    let scale = "func @main(%x: f32[n, m]) -> f32[n] where n in 0..=40, m in 0..=40 {
  %c = reduce_max %x axes=[1]
  %b = broadcast %c shape=[n, m] dims=[0]
  %y = mul %x, %b
  %s = sum %y axes=[1]
  return %s
}
";
    let x = Array::from_f32(&[2, 0], &[]).unwrap();
    assert_eq!(both(scale, &[x], &[("n", 2), ("m", 0)]), (vec![0.0; 2], vec![0.0; 2]));
    let norm = "func @main(%x: f32[n, m], %w: f32[m, 4]) -> f32[n, 4] where n in 0..=40, m in 0..=40 {
  %q = mul %x, %x
  %c = sum %q axes=[1]
  %r = rsqrt %c
  %b = broadcast %r shape=[n, m] dims=[0]
  %y = mul %x, %b
  %d = dot %y, %w contract=[1]x[0]
  return %d
}
";
    let (x, w) = (Array::from_f32(&[3, 0], &[]).unwrap(), Array::from_f32(&[0, 4], &[]).unwrap());
    assert_eq!(both(norm, &[x, w], &[("n", 3), ("m", 0)]), (vec![0.0; 12], vec![0.0; 12]));
}

#[test]
fn sums_of_f16_do_not_overflow_where_their_terms_are_small() {
    let halves = |value: f32, count: usize| Bytes::new(half::f16::from_f32(value).to_le_bytes().repeat(count));
    let constant = "func @main(%x: f16[n]) -> f16[n] where n in 1..=40 {
  %c = constant f16[] = 0.001
  %b = broadcast %c shape=[100000] dims=[]
  %t = sum %b axes=[0]
  %tb = broadcast %t shape=[n] dims=[]
  %r = add %x, %tb
  return %r
}
";
    let x = Array::new(DType::F16, &[2], halves(0.0, 2)).unwrap();
    let (found, expected) = both(constant, &[x], &[("n", 2)]);
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.5), "{found:?} {expected:?}");
    let mean = "func @main(%x: f16[n, m]) -> f16[n] where n in 1..=40, m in 1..=4096 {
  %s = size dim=m
  %sf = cast %s to=f16
  %b = broadcast %sf shape=[n, m] dims=[]
  %y = div %x, %b
  %t = sum %y axes=[1]
  return %t
}
";
    let x = Array::new(DType::F16, &[2, 4000], halves(60.0, 8000)).unwrap();
    let (found, expected) = both(mean, &[x], &[("n", 2), ("m", 4000)]);
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1.0), "{found:?} {expected:?}");
}

/// Rules that take 0 and -0 for the same may meet constants that tell them apart: that is no error.
#[test]
fn constants_of_signed_zeros_compile() {
    let zeros = "func @main(%x: f32[n]) -> f32[n] where n in 1..=40 {
  %k = constant f32[] = -0.0
  %kb = broadcast %k shape=[n] dims=[]
  %z = constant f32[] = 0.0
  %zb = broadcast %z shape=[n] dims=[]
  %r = add %kb, %zb
  %i = add %x, %r
  return %i
}
";
    let x = Array::from_f32(&[3], &[1.5, -2.0, 0.0]).unwrap();
    assert_eq!(both(zeros, &[x], &[("n", 3)]), (vec![1.5, -2.0, 0.0], vec![1.5, -2.0, 0.0]));
}
