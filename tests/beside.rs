//! Products of the same rows, as queries, keys and values are, on GPUs: one kernel with a grid for each, chosen by price, with
//! the results of the interpreter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/program.rs"]
mod program;
#[path = "support/random.rs"]
mod random;

use random::Random;
use tilewright::compile::{Options, lower_gpu};
use tilewright::programs;
use tilewright_codegen::cuda::{emit_programs, grids};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::interp_kernel::Data;
use tilewright_ir::kernel::Program;
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};

fn options() -> Options {
    Options { opt_level: 2, verify: true, ..Options::host().unwrap() }
}

fn inputs(module: &Module, bindings: &Bindings, random: &mut Random) -> Vec<Array> {
    let f = module.entry().unwrap();
    let make = |p: &tilewright_ir::graph::Param| {
        let shape = p.ty.concrete(bindings).unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..shape.iter().product() {
            let number = Array::from_number(p.ty.dtype, f64::from(random.signed())).unwrap();
            bytes.extend_from_slice(number.bytes());
        }
        Array::new(p.ty.dtype, &shape, Bytes::new(bytes)).unwrap()
    };
    f.params.iter().map(make).collect()
}

/// Lowers for a GPU, emits, and runs the kernels on the kernel interpreter.
fn check(text: &str, n: i64, isa: &'static str, random: &mut Random) -> Vec<Program> {
    let module = parse("graph", text).unwrap();
    let bindings: Bindings = [("n".into(), n)].into_iter().collect();
    let given = inputs(&module, &bindings, random);
    let found = lower_gpu(&module, &options(), isa).unwrap_or_else(|d| panic!("{d}\n{text}"));
    emit_programs(&found).unwrap_or_else(|d| panic!("{d}\n{text}"));
    found.iter().flat_map(|p| &p.kernels).try_for_each(program::check).unwrap();
    let want = run(&module, "main", &given, &bindings, Mode::Meaning).unwrap();
    let values = programs::run(&found, "main", &given, &bindings).unwrap_or_else(|d| panic!("{d}\n{text}"));
    for (number, (found, want)) in values.iter().zip(&want).enumerate() {
        let Data::Float(found) = &found.data else { panic!("floats") };
        let (want, rounded) = (want.to_f64().unwrap(), want.dtype() != DType::F32);
        let bound = if rounded { 1.0 / 128.0 } else { 1e-4 };
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= bound * (1.0 + b.abs());
        let bad = found.iter().zip(&want).position(|p| !close(p));
        assert!(found.len() == want.len() && bad.is_none(), "{isa}, n = {n}, result {number} at {bad:?}:\n{text}");
    }
    found
}

fn kernels(programs: &[Program]) -> Vec<usize> {
    programs.iter().flat_map(|p| &p.kernels).map(|k| grids(k).len()).collect()
}

/// Three products of `rows` by `depth` with so many columns, each with work of its own on its results.
fn projections(dtype: &str, rows: &str, depth: i64, columns: [i64; 3]) -> String {
    let [a, b, c] = columns;
    format!(
        "func @main(%x: {dtype}[{rows}, {depth}], weight %q: {dtype}[{depth}, {a}], weight %k: {dtype}[{depth}, {b}], \
         weight %v: {dtype}[{depth}, {c}], weight %bias: {dtype}[{c}]) \
         -> ({dtype}[{rows}, {a}], {dtype}[{rows}, {b}], {dtype}[{rows}, {c}]) where n in 1..=4096 {{\n  \
         %0 = dot %x, %q contract=[1]x[0]\n  %1 = dot %x, %k contract=[1]x[0]\n  %2 = dot %x, %v contract=[1]x[0]\n  \
         %3 = tanh %1\n  %4 = broadcast %bias shape=[{rows}, {c}] dims=[1]\n  %5 = add %2, %4\n  return %0, %3, %5\n}}\n"
    )
}

#[test]
fn products_of_the_same_rows_are_grids_of_one_kernel() {
    let mut random = Random(11);
    for isa in ["sm_80", "sm_90a"] {
        for (dtype, columns) in [("f32", [96, 40, 8]), ("bf16", [96, 40, 8]), ("f16", [64, 64, 32])] {
            let found = check(&projections(dtype, "n", 48, columns), 5, isa, &mut random);
            assert_eq!(kernels(&found), [3], "{dtype} {isa}");
            let found = check(&projections(dtype, "70", 40, columns), 1, isa, &mut random);
            assert_eq!(kernels(&found), [3], "{dtype} {isa}");
            // One row: no tiles of rows.
            let found = check(&projections(dtype, "1", 40, columns), 1, isa, &mut random);
            assert_eq!(kernels(&found), [3], "{dtype} {isa}");
        }
    }
}

#[test]
fn random_sizes_mean_the_same() {
    let mut random = Random(23);
    let dtypes = ["f32", "bf16", "f16"];
    for case in 0..24 {
        let mut size = |most: usize| 1 + i64::try_from(random.below(most)).unwrap();
        let (rows, depth, columns) = (size(80), size(70), [size(140), size(70), size(20)]);
        let named = if case % 2 == 0 { "n".to_string() } else { rows.to_string() };
        let text = projections(dtypes[case % 3], &named, depth, columns);
        check(&text, rows, ["sm_80", "sm_89", "sm_90a"][case / 3 % 3], &mut random);
    }
}

/// Results that lie the other way round.
#[test]
fn results_may_be_stored_transposed() {
    let mut random = Random(31);
    for isa in ["sm_80", "sm_90a"] {
        for dtype in ["f32", "bf16"] {
            for (a, b) in [(true, true), (true, false), (false, true)] {
                let of = |name: &str, turned: bool, n: i64| match turned {
                    true => (format!("dot %{name}, %x contract=[0]x[1]"), format!("{dtype}[{n}, 256]")),
                    false => (format!("dot %x, %{name} contract=[1]x[0]"), format!("{dtype}[256, {n}]")),
                };
                let ((first, x), (second, y)) = (of("w", a, 96), of("v", b, 32));
                let text = format!(
                    "func @main(%x: {dtype}[256, 64], weight %w: {dtype}[64, 96], weight %v: {dtype}[64, 32]) -> ({x}, {y}) \
                     {{\n  %0 = {first}\n  %1 = {second}\n  return %0, %1\n}}\n"
                );
                check(&text, 1, isa, &mut random);
            }
        }
    }
}

/// A product of a product's rows is not beside it, nor is one of other rows.
#[test]
fn what_needs_a_product_is_no_grid_beside_it() {
    let mut random = Random(7);
    let chained = "func @main(%x: f32[n, 32], weight %a: f32[32, 32], weight %b: f32[32, 48]) -> (f32[n, 32], f32[n, 48]) \
                   where n in 1..=512 {\n  %0 = dot %x, %a contract=[1]x[0]\n  %1 = tanh %0\n  \
                   %2 = dot %1, %b contract=[1]x[0]\n  return %1, %2\n}\n";
    assert_eq!(kernels(&check(chained, 9, "sm_80", &mut random)), [1, 1]);
    let others = "func @main(%x: f32[n, 32], %y: f32[n, 32], weight %a: f32[32, 40], weight %b: f32[32, 48]) \
                  -> (f32[n, 40], f32[n, 48]) where n in 1..=512 {\n  %0 = dot %x, %a contract=[1]x[0]\n  \
                  %1 = dot %y, %b contract=[1]x[0]\n  return %0, %1\n}\n";
    assert_eq!(kernels(&check(others, 9, "sm_80", &mut random)), [1, 1]);
}
