//! Rows of a symbolic size, short and long: other kernels, the same results.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::BTreeSet;
use tilewright::compile::{Options, compile, lower};
use tilewright_ir::array::Array;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::Bindings;

/// Softmax of rows of `n`, sums over `n` columns and over rows of them, and a sum of two, one of them of another size where it ends.
const TEXT: &str = "func @main(%x: f32[5, n], %y: f32[7, n], %z: f32[7, n]) -> (f32[5, n], f32[n], f32[7], f32[7, n]) where n in 1..=600 {
  %0 = reduce_max %x axes=[1]
  %1 = broadcast %0 shape=[5, n] dims=[0]
  %2 = sub %x, %1
  %3 = exp %2
  %4 = sum %3 axes=[1]
  %5 = broadcast %4 shape=[5, n] dims=[0]
  %6 = div %3, %5
  %7 = sum %y axes=[0]
  %8 = tanh %y
  %9 = sum %8 axes=[1]
  %10 = broadcast %9 shape=[7, n] dims=[0]
  %11 = mul %y, %z
  %12 = add %11, %10
  return %6, %7, %9, %12
}";

fn inputs(n: usize) -> Vec<Array> {
    let numbers = |rows: usize, by: f32| {
        let values: Vec<f32> = (0..rows * n).map(|i| ((i * 37 % 101) as f32 - 50.0) * by).collect();
        Array::from_f32(&[rows, n], &values).unwrap()
    };
    vec![numbers(5, 0.1), numbers(7, 0.02), numbers(7, 0.3)]
}

#[test]
fn short_rows_have_kernels_of_their_own() {
    let module = tilewright_ir::text::parse("t.tw", TEXT).unwrap();
    let host = Options { threads: 1, verify: true, ..Options::host().unwrap() };
    for level in [0u8, 1, 2] {
        let options = Options { opt_level: level, ..host.clone() };
        let programs = lower(&module, &options).unwrap();
        let names: BTreeSet<&str> = programs.iter().flat_map(|p| &p.kernels).map(|k| &*k.name).collect();
        assert!(names.iter().any(|name| name.ends_with("_few")), "{names:?}");
        let mut executable = compile(&module, &options).unwrap();
        for n in [1, 3, 4, 15, 16, 63, 64, 65, 100, 255, 256, 257, 300, 511, 600] {
            let (inputs, bindings) = (inputs(n), Bindings::from([("n".into(), n as i64)]));
            let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
            executable.enable_profile();
            let found = executable.run(&inputs, &bindings).unwrap();
            for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
                let (x, y) = (x.to_f64().unwrap(), y.to_f64().unwrap());
                let near = x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-4 * (1.0 + y.abs()));
                assert!(near && x.len() == y.len(), "output {at} at level {level}, n = {n}");
            }
            let ran: Vec<String> =
                executable.profile().unwrap().rows().into_iter().map(|(name, ..)| name.1.to_string()).collect();
            let few = ran.iter().any(|name| name.ends_with("_few"));
            assert_eq!(few, n <= 64, "level {level}, n = {n}: {ran:?}");
        }
    }
}
