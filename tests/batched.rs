//! Batched contractions: batch axes anywhere, shared by only one operand, strides, folds and rows of any length.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::verify::verify;
use tilewright_ir::kernel::{Program, Step, Stmt};
use tilewright_ir::types::{Bindings, DType};

fn module(text: &str) -> Module {
    let module = tilewright_ir::text::parse("batched.tw", text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
    module
}

fn options(isa: Isa, threads: usize) -> Options {
    Options { opt_level: 1, threads, isa, ..Options::host().unwrap() }
}

/// As [`check_at`], with fusion in a fixed order and by the e-graph.
fn check(text: &str, symbols: &[Vec<(&str, i64)>]) {
    check_at(1, text, symbols);
    check_at(2, text, symbols);
}

/// Every value of a symbol in turn, on every instruction set with 1 and 2 threads, against the interpreter.
fn check_at(opt_level: u8, text: &str, symbols: &[Vec<(&str, i64)>]) {
    let module = module(text);
    let options = |isa, threads| Options { opt_level, ..options(isa, threads) };
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.available()) {
        for program in lower(&module, &options(isa, 1)).unwrap() {
            for kernel in &program.kernels {
                verify(kernel).unwrap_or_else(|d| panic!("{d}\n{kernel}"));
            }
        }
        let executables = [1, 2].map(|threads| compile(&module, &options(isa, threads)).unwrap());
        for values in symbols {
            let bindings: Bindings = values.iter().map(|(name, n)| ((*name).into(), *n)).collect();
            let inputs = inputs(&module, &bindings);
            let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
            let [one, two] = [0, 1].map(|i| executables[i].run(&inputs, &bindings).unwrap());
            assert!(one == two, "{isa:?} {values:?}: the number of threads changes bits");
            for (found, expected) in one.iter().zip(&expected) {
                let (found, expected) = (found.to_f64().unwrap(), expected.to_f64().unwrap());
                for (a, b) in found.iter().zip(&expected) {
                    // A NaN is near to nothing.
                    let near = (a - b).abs() / (1.0 + b.abs()) < 3e-5;
                    assert!(near, "level {opt_level}, {isa:?} {values:?}: {a} for {b}\n{text}");
                }
            }
        }
    }
}

fn inputs(module: &Module, bindings: &Bindings) -> Vec<Array> {
    let mut random = Random(7);
    let mut next = || random.signed();
    let make = |ty: &tilewright_ir::types::Type| {
        let shape = ty.concrete(bindings).unwrap();
        let n: usize = shape.iter().product();
        if ty.dtype == DType::Q4_1 {
            // Scale 1/16, minimum -1/2, quants counting.
            let block = |i: usize| [vec![0x00, 0x2c, 0x00, 0xb8], (0..16).map(|j| (i * 37 + j * 11) as u8).collect()];
            let bytes: Vec<u8> = (0..n / 32).flat_map(|i| block(i).concat()).collect();
            return Array::new(ty.dtype, &shape, tilewright_ir::array::Bytes::new(bytes)).unwrap();
        }
        let values: Vec<f32> = std::iter::repeat_with(&mut next).take(n).collect();
        let wide: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        if ty.dtype == DType::F64 { Array::from_f64(&shape, &wide) } else { Array::from_f32(&shape, &values) }.unwrap()
    };
    module.entry().unwrap().params.iter().map(|p| &p.ty).map(make).collect()
}

fn programs(text: &str) -> Vec<Program> {
    lower(&module(text), &Options { isa: Isa::Avx512, ..options(Isa::Portable, 1) }).unwrap()
}

fn products(program: &Program) -> usize {
    fn inside(block: &[Stmt]) -> usize {
        let one = |stmt: &Stmt| match stmt {
            Stmt::Mma { .. } => 1,
            Stmt::Par { body, .. } | Stmt::For { body, .. } => inside(body),
            _other => 0,
        };
        block.iter().map(one).sum()
    }
    program.kernels.iter().map(|k| inside(&k.body)).sum()
}

/// Scores of grouped queries, scaled and masked where they are made.
const SCORES: &str =
    "func @main(%q: f32[2, 3, rows, 40], %k: f32[2, keys, 40]) -> f32[2, 3, rows, keys] where rows in 1..=300, keys in 1..=300 {
  %0 = dot %q, %k batch=[0]x[0] contract=[3]x[2]
  %1 = constant f32[] = 0.125
  %2 = broadcast %1 shape=[2, 3, rows, keys] dims=[]
  %3 = mul %0, %2
  return %3 }";

#[test]
fn scores_of_grouped_queries() {
    let sizes = [(1, 1), (1, 70), (2, 33), (15, 5), (16, 64), (17, 65), (61, 130)];
    check(SCORES, &sizes.map(|(s, t)| vec![("rows", s), ("keys", t)]));
}

/// Symbols may have the names that templates use.
#[test]
fn symbols_of_any_name() {
    let others = [("t", "p"), ("r", "mt"), ("n", "m"), ("i0", "j"), ("kb", "acc"), ("v1", "in0"), ("b0", "k")];
    for (a, b) in others {
        let text = SCORES.replace("rows", a).replace("keys", b);
        check(&text, &[(1, 1), (3, 40), (20, 7)].map(|(x, y)| vec![(a, x), (b, y)]));
    }
}

#[test]
fn few_rows_pack_nothing() {
    let program = &programs(SCORES)[0];
    assert_eq!((program.kernels.len(), products(program)), (2, 1));
    let conditions = program.steps.iter().filter(|step| match step {
        Step::Launch(l) => l.when.is_some(),
        Step::Pack(p) => p.when.is_some(),
        _other => false,
    });
    assert_eq!(conditions.count(), 3);
}

/// Few rows read values where they lie if these fill panels, many read panels; the fold has any length.
#[test]
fn folds_of_symbolic_length() {
    for width in [64, 33, 8] {
        let text = format!(
            "func @main(%p: f32[2, 3, rows, keys], %v: f32[2, keys, {width}]) -> f32[2, 3, rows, {width}] where rows in 1..=300, keys in 1..=2000 {{
  %0 = dot %p, %v batch=[0]x[0] contract=[3]x[1]
  return %0 }}"
        );
        let sizes = [(1, 1), (1, 511), (3, 512), (4, 513), (17, 31), (70, 1100), (129, 600)];
        check(&text, &sizes.map(|(s, t)| vec![("rows", s), ("keys", t)]));
        let program = &programs(&text)[0];
        assert_eq!((program.steps.len(), products(program)), (3, if width == 64 { 2 } else { 1 }), "{width}");
    }
}

/// A part of a longer buffer, in the order of a cache, with the queries' rows apart.
#[test]
fn slices_with_strides() {
    let text = "func @main(%x: f32[rows, 3, 2, 16], %k: f32[2, 90, 16]) -> f32[2, rows, keys] where rows in 1..=40, keys in 1..=90 {
  %0 = slice %x start=[0, 1, 0, 0] limit=[rows, 2, 2, 16] stride=[1, 1, 1, 1]
  %1 = reshape %0 shape=[rows, 2, 16]
  %2 = slice %k start=[0, 0, 0] limit=[2, keys, 16] stride=[1, 1, 1]
  %3 = dot %1, %2 batch=[1]x[0] contract=[2]x[2]
  return %3 }";
    let sizes = [(1, 1), (5, 90), (16, 33), (40, 64)];
    check(text, &sizes.map(|(s, t)| vec![("rows", s), ("keys", t)]));
}

/// Encoded weights whose rows are two axes of the result.
#[test]
fn heads_of_encoded_weights() {
    for (heads, width) in [(3, 64), (6, 32), (12, 16)] {
        let text = format!(
            "func @main(%x: f32[rows, 64], weight %w: q4_1[192, 64]) -> f32[{heads}, rows, {width}] where rows in 1..=60 {{
  %0 = cast %w to=f32
  %1 = dot %x, %0 batch=[]x[] contract=[1]x[1]
  %2 = reshape %1 shape=[rows, {heads}, {width}]
  %3 = transpose %2 perm=[1, 0, 2]
  return %3 }}"
        );
        check(&text, &[1, 5, 60].map(|n| vec![("rows", n)]));
    }
}

#[test]
fn batches_anywhere_and_in_doubles() {
    let none = [Vec::new()];
    for dtype in ["f32", "f64"] {
        let texts = [
            format!(
                "func @main(%a: {dtype}[20, 5, 33], %b: {dtype}[5, 7, 33]) -> {dtype}[5, 20, 7] {{
  %0 = dot %a, %b batch=[1]x[0] contract=[2]x[2]\n return %0 }}"
            ),
            format!(
                "func @main(%a: {dtype}[4, 20, 600], %b: {dtype}[600, 4, 32]) -> {dtype}[4, 20, 32] {{
  %0 = dot %a, %b batch=[0]x[1] contract=[2]x[0]\n return %0 }}"
            ),
            format!(
                "func @main(%a: {dtype}[4, 3, 20, 6], %b: {dtype}[4, 3, 70, 6]) -> {dtype}[4, 3, 20, 70] {{
  %0 = dot %a, %b batch=[0, 1]x[0, 1] contract=[3]x[3]\n return %0 }}"
            ),
            format!(
                "func @main(%a: {dtype}[4, 0, 6], %b: {dtype}[4, 70, 6]) -> {dtype}[4, 0, 70] {{
  %0 = dot %a, %b batch=[0]x[0] contract=[2]x[2]\n return %0 }}"
            ),
            format!(
                "func @main(%a: {dtype}[4, 30, 0], %b: {dtype}[4, 70, 0]) -> {dtype}[4, 30, 70] {{
  %0 = dot %a, %b batch=[0]x[0] contract=[2]x[2]\n return %0 }}"
            ),
        ];
        texts.iter().for_each(|text| check(text, &none));
    }
}

#[test]
fn a_fold_over_nothing_is_zero() {
    // The second product has few rows and a weight that is packed.
    let text = "func @main(%a: f32[m, n], %b: f32[n, 3, 5], weight %w: f32[33, n], %x: f32[1, n]) \
                -> (f32[m, 3, 5], f32[33, 1]) where n in 0..=43, m in 5..=56 {\n  \
                %0 = dot %a, %b batch=[]x[] contract=[1]x[0] : f32[m, 3, 5]\n  \
                %1 = dot %w, %x batch=[]x[] contract=[1]x[1] : f32[33, 1]\n  return %0, %1\n}\n";
    check_at(0, text, &[vec![("n", 0), ("m", 16)], vec![("n", 40), ("m", 16)], vec![("n", 0), ("m", 5)]]);
    check(text, &[vec![("n", 0), ("m", 16)], vec![("n", 40), ("m", 16)], vec![("n", 0), ("m", 5)]]);
}

#[test]
fn a_product_of_halves_rounds_once() {
    // Multiples of 1/8 below 2: the sum of 300 products is exact in f32, products and partial sums are not in 8 or 11 bits.
    let values: Vec<f64> = (0..7 * 300).map(|i| f64::from(i * 37 % 31 - 15) / 8.0).collect();
    for dtype in [DType::F16, DType::Bf16] {
        let text = format!(
            "func @main(%a: {dtype}[7, 300], %b: {dtype}[300, 7]) -> {dtype}[7, 7] {{\n  %0 = dot %a, %b contract=[1]x[0]\n  return %0\n}}\n"
        );
        let module = module(&text);
        let half = |shape: &[usize]| {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|&x| match dtype {
                    DType::F16 => half::f16::from_f64(x).to_le_bytes(),
                    _bf16 => half::bf16::from_f64(x).to_le_bytes(),
                })
                .collect();
            Array::new(dtype, shape, tilewright_ir::array::Bytes::new(bytes)).unwrap()
        };
        let inputs = [half(&[7, 300]), half(&[300, 7])];
        let expected = interp::run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
        for opt_level in 0..=tilewright::compile::MAX_OPT_LEVEL {
            let options = Options { opt_level, ..options(Isa::best(), 2) };
            let found = compile(&module, &options).unwrap().run(&inputs, &Bindings::new()).unwrap();
            assert!(found == expected, "{dtype} at level {opt_level}");
        }
    }
}

#[test]
fn attention_over_no_keys_is_zero() {
    // Lengths at which one kernel for all of it pays, and in which the divisor is a sum over nothing.
    let text = "func @main(%q: f32[3, m, 20], %k: f32[3, n, 20], %v: f32[3, n, 12]) -> f32[3, m, 12] \
                where m in 0..=300, n in 0..=600 {\n  \
                %0 = dot %q, %k batch=[0]x[0] contract=[2]x[2]\n  %1 = reduce_max %0 axes=[2]\n  \
                %2 = broadcast %1 shape=[3, m, n] dims=[0, 1]\n  %3 = sub %0, %2\n  %4 = exp %3\n  \
                %5 = sum %4 axes=[2]\n  %6 = broadcast %5 shape=[3, m, n] dims=[0, 1]\n  %7 = div %4, %6\n  \
                %8 = dot %7, %v batch=[0]x[0] contract=[2]x[1]\n  return %8\n}\n";
    check_at(0, text, &[vec![("m", 3), ("n", 0)], vec![("m", 20), ("n", 7)]]);
    check(text, &[vec![("m", 3), ("n", 0)], vec![("m", 20), ("n", 0)], vec![("m", 20), ("n", 7)]]);
}
