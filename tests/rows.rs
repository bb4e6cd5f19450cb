//! Rows that several passes need: held in a buffer where that pays, of every dtype and length, computed again elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tilewright::compile::{Options, compile, lower};
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::verify::verify;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

fn module(text: &str) -> Module {
    let module = tilewright_ir::text::parse("rows.tw", text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
    module
}

/// Softmax of rows of `n` elements in a dtype, `n` up to `most`.
fn softmax(dtype: &str, most: i64) -> String {
    format!(
        "func @main(%p: f32[3, n]) -> f32[3, n] where n in 1..={most} {{
  %x = cast %p to={dtype}
  %0 = reduce_max %x axes=[1]
  %1 = broadcast %0 shape=[3, n] dims=[0]
  %2 = sub %x, %1
  %3 = exp %2
  %4 = sum %3 axes=[1]
  %5 = broadcast %4 shape=[3, n] dims=[0]
  %6 = div %3, %5
  %7 = cast %6 to=f32
  return %7
}}
"
    )
}

/// What is left of rows without their mean, over the root of their mean square; rows are computed at some cost.
const NORM: &str = "func @main(%p: f32[3, n], %q: f32[n]) -> (f32[3, n], f32[3]) where n in 1..=2000 {
  %a = broadcast %q shape=[3, n] dims=[1]
  %b = add %p, %a
  %x = tanh %b
  %0 = sum %x axes=[1]
  %1 = broadcast %0 shape=[3, n] dims=[0]
  %2 = sub %x, %1
  %3 = mul %2, %2
  %4 = sum %3 axes=[1]
  %5 = constant f32[] = 0.5
  %6 = broadcast %5 shape=[3] dims=[]
  %7 = add %4, %6
  %8 = rsqrt %7
  %9 = broadcast %8 shape=[3, n] dims=[0]
  %10 = mul %2, %9
  return %10, %8
}
";

fn inputs(module: &Module, bindings: &Bindings) -> Vec<Array> {
    let mut state = 5u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 21) as f32 - 4.0
    };
    let make = |ty: &tilewright_ir::types::Type| {
        let shape = ty.concrete(bindings).unwrap();
        let values: Vec<f32> = std::iter::repeat_with(&mut next).take(shape.iter().product()).collect();
        Array::from_f32(&shape, &values).unwrap()
    };
    module.entry().unwrap().params.iter().map(|p| &p.ty).map(make).collect()
}

/// Each level with 1 and 2 threads against the interpreter; gives the elements of held rows at each level.
fn check(text: &str, near: f64) -> Vec<usize> {
    let module = module(text);
    let mut held = Vec::new();
    for opt_level in 0..=2 {
        let options = |threads| Options { opt_level, threads, ..Options::host().unwrap() };
        let programs = lower(&module, &options(1)).unwrap();
        let kernels: Vec<_> = programs.iter().flat_map(|p| &p.kernels).collect();
        kernels.iter().for_each(|k| drop(verify(k).unwrap_or_else(|d| panic!("{d}\n{k}"))));
        let long = kernels.iter().filter(|k| !k.name.ends_with("_few"));
        held.push(long.map(|k| k.to_string().matches("cache row").count()).sum());
        let executables = [1, 2].map(|threads| compile(&module, &options(threads)).unwrap());
        for n in [1, 2, 255, 256, 257, 1000] {
            let bindings: Bindings = [("n".into(), n)].into_iter().collect();
            let inputs = inputs(&module, &bindings);
            let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
            let [one, two] = [0, 1].map(|i| executables[i].run(&inputs, &bindings).unwrap());
            assert!(one == two, "level {opt_level}, {n}: the number of threads changes bits");
            for (found, expected) in one.iter().zip(&expected) {
                assert_eq!(found.dtype(), DType::F32);
                for (a, b) in found.to_f64().unwrap().iter().zip(&expected.to_f64().unwrap()) {
                    assert!((a - b).abs() / (1.0 + b.abs()) < near, "level {opt_level}, n = {n}: {a} for {b}\n{text}");
                }
            }
        }
    }
    held
}

#[test]
fn rows_of_exponentials_are_held() {
    // Halves are rounded one by one, so that it pays to hold the rounded input too.
    for (dtype, near, rows) in [("f32", 1e-6, 1), ("f64", 1e-6, 1), ("f16", 4e-3, 2), ("bf16", 3e-2, 2)] {
        assert_eq!(check(&softmax(dtype, 4096), near)[..2], [0, rows], "{dtype}");
    }
}

#[test]
fn rows_that_are_too_long_are_computed_again() {
    assert_eq!(check(&softmax("f32", 1 << 24), 1e-6)[..2], [0, 0]);
}

#[test]
fn computed_rows_of_norms_are_held() {
    let held = check(NORM, 1e-5);
    assert_eq!(held[0], 0);
    assert!(held[2] > 0, "{held:?}");
}

/// Two passes along an axis of 2 share a row of `%x`, which a third reads along one of 300.
#[test]
fn a_row_is_held_along_one_axis() {
    check(
        "func @main(%x: f32[2, 300]) -> f32[] {
  %0 = sum %x axes=[0, 1]
  %1 = reduce_max %x axes=[0]
  %2 = broadcast %1 shape=[2, 300] dims=[1]
  %3 = sub %x, %2
  %4 = sum %3 axes=[0]
  %5 = sum %4 axes=[0]
  %6 = add %5, %0
  return %6
}
",
        1e-4,
    );
}

/// Sums along one axis of what has sums along the other: no pass begins inside itself.
#[test]
fn a_fold_that_waits_for_a_pass_does_not_join_one_inside_it() {
    for rows in [2, 3, 64] {
        let ty = format!("f32[{rows}, {rows}]");
        let text = format!(
            "func @main(%x: {ty}, %y: {ty}) -> f32[] {{
  %0 = sum %x axes=[1]
  %1 = broadcast %0 shape=[{rows}, {rows}] dims=[0]
  %2 = sum %x axes=[0, 1]
  %3 = broadcast %2 shape=[{rows}, {rows}] dims=[]
  %4 = sub %x, %3
  %5 = sum %4 axes=[0, 1]
  %6 = mul %1, %y
  %7 = sum %6 axes=[0, 1]
  %8 = add %5, %7
  return %8
}}
"
        );
        check(&text, 1e-4);
    }
}

/// How many of each row are its largest, `value` being made of `%x: f32[rows, 16]` and `%w: f32[16, columns]`.
fn largest(value: &str, name: &str, [rows, columns]: [usize; 2], extreme: &str) -> String {
    let all = format!("shape=[{rows}, {columns}] dims");
    format!(
        "func @main(%x: f32[{rows}, 16], %w: f32[16, {columns}]) {{
  %d = dot %x, %w contract=[1]x[0]
  {value}
  %m = reduce_{extreme} {name} axes=[1]
  %b = broadcast %m {all}=[0]
  %e = eq {name}, %b
  %c = cast %e to=f32
  %n = sum %c axes=[1]
  %s = broadcast %n {all}=[0]
  %q = div %c, %s
  return %q, %n
}}
"
    )
}

/// The gradient of a maximum asks which element it is: kernels that add the sums of a product in another order do not find it.
#[test]
fn every_row_has_a_largest_element() {
    let values =
        [("", "%d"), ("%v = mul %d, %d", "%v"), ("%k = exp %d\n  %t = tanh %k\n  %u = exp %t\n  %v = log %u", "%v")];
    for size in [[17, 5], [3, 1], [5, 33], [32, 17], [1, 100], [40, 40]] {
        for ((value, name), extreme) in values.iter().flat_map(|v| [(v, "max"), (v, "min")]) {
            let text = largest(value, name, size, extreme);
            let module = module(&text);
            let inputs = inputs(&module, &Bindings::new());
            for (opt_level, numerics) in
                [(0, Numerics::Exact), (1, Numerics::Exact), (2, Numerics::Exact), (2, Numerics::Approx)]
            {
                let options = Options { opt_level, numerics, threads: 1, ..Options::host().unwrap() };
                let code = compile(&module, &options).unwrap();
                let counts = code.run(&inputs, &Bindings::new()).unwrap()[1].to_f64().unwrap();
                assert!(counts.iter().all(|n| *n >= 1.0), "level {opt_level}, {numerics:?}: {counts:?}\n{text}");
            }
        }
    }
}

#[test]
fn a_reshape_to_its_own_shape_hinders_nothing() {
    let text = "func @main(%x: f32[40, 16], %y: f32[40, 16]) -> f32[40, 16] {
  %0 = add %x, %y
  %1 = reshape %0 shape=[40, 16]
  %2 = exp %1
  return %2
}
";
    for opt_level in [1, 2] {
        let options = Options { opt_level, ..Options::host().unwrap() };
        assert_eq!(lower(&module(text), &options).unwrap()[0].kernels.len(), 1, "level {opt_level}");
    }
}
