//! What a graph in f16 or bf16 means: every op rounds to its dtype, folds run in f32 and round once, and rules that keep more
//! fire only where `numerics` allows them.

#![allow(clippy::unwrap_used, clippy::panic)]

use tilewright::compile::{Options, compile};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

const DTYPES: [DType; 2] = [DType::Bf16, DType::F16];

/// `x / sqrt(y * y + y)`: a division by a root, which the rule `div-sqrt` of class `rounding` makes a product with `rsqrt`.
fn roots(dtype: DType) -> Module {
    let text = format!(
        "func @main(%x: {dtype}[256], %y: {dtype}[256]) -> {dtype}[256] {{
          %0 = mul %y, %y\n %1 = add %0, %y\n %2 = sqrt %1\n %3 = div %x, %2\n return %3 }}"
    );
    tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"))
}

fn numbers(dtype: DType, from: f64) -> Array {
    let element = |i: i32| Array::from_number(dtype, from + f64::from(i) * 0.37).unwrap().bytes().to_vec();
    Array::new(dtype, &[256], Bytes::new((0..256).flat_map(element).collect::<Vec<u8>>())).unwrap()
}

fn interpreted(module: &Module, inputs: &[Array], mode: Mode) -> Array {
    interp::run(module, "main", inputs, &Bindings::new(), mode).unwrap().remove(0)
}

fn compiled(module: &Module, inputs: &[Array], opt_level: u8, numerics: Numerics) -> Array {
    let options = Options { opt_level, numerics, threads: 1, ..Options::host().unwrap() };
    compile(module, &options).unwrap().run(inputs, &Bindings::new()).unwrap().remove(0)
}

#[test]
fn exact_code_rounds_every_op_as_the_strict_interpreter_does() {
    for dtype in DTYPES {
        let (module, inputs) = (roots(dtype), [numbers(dtype, -40.0), numbers(dtype, 0.5)]);
        let strict = interpreted(&module, &inputs, Mode::Strict);
        for level in [0, 1, 2] {
            assert_eq!(compiled(&module, &inputs, level, Numerics::Exact), strict, "{dtype} at level {level}");
        }
        assert_ne!(interpreted(&module, &inputs, Mode::Meaning), strict, "{dtype}: roundings show");
    }
}

#[test]
fn a_rule_of_class_rounding_changes_last_bits_only() {
    for dtype in DTYPES {
        let (module, inputs) = (roots(dtype), [numbers(dtype, -40.0), numbers(dtype, 0.5)]);
        let strict = interpreted(&module, &inputs, Mode::Strict);
        let found = compiled(&module, &inputs, 2, Numerics::Rounding);
        assert_ne!(found, strict, "{dtype}: the rule fires");
        assert_eq!(compiled(&module, &inputs, 1, Numerics::Rounding), strict, "{dtype}: rules are those of level 2");
        // Two units in the last place: one of the root, one of the quotient.
        let most = 2.0 * if dtype == DType::Bf16 { 0.0078125 } else { 0.0009765625 };
        for (x, y) in found.to_f64().unwrap().into_iter().zip(strict.to_f64().unwrap()) {
            assert!((x - y).abs() <= most * y.abs(), "{dtype}: {x} for {y}");
        }
    }
}

/// `(x + 1000) - 1000` keeps of x what is a multiple of 4 or of a half, if sums round; f32 keeps x.
#[test]
fn a_chain_runs_in_f32_from_rounding_on() {
    for dtype in DTYPES {
        let text = format!(
            "func @main(%x: {dtype}[256]) -> {dtype}[256] {{
              %0 = constant {dtype}[] = 1000.0\n %1 = broadcast %0 shape=[256] dims=[]
              %2 = add %x, %1\n %3 = sub %2, %1\n return %3 }}"
        );
        let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let inputs = [numbers(dtype, -40.0)];
        assert_eq!(compiled(&module, &inputs, 2, Numerics::Exact), interpreted(&module, &inputs, Mode::Strict));
        assert_ne!(interpreted(&module, &inputs, Mode::Strict), inputs[0]);
        for numerics in [Numerics::Rounding, Numerics::Reassociate] {
            let found = compiled(&module, &inputs, 2, numerics).to_f64().unwrap();
            for (x, y) in found.into_iter().zip(inputs[0].to_f64().unwrap()) {
                assert!((x - y).abs() < 1e-4 * y.abs().max(1.0), "{dtype} {numerics}: {x} for {y}");
            }
        }
    }
}

/// A graph that rounds by a cast is one that wants it.
#[test]
fn casts_of_the_graph_stay() {
    for dtype in DTYPES {
        let text = format!(
            "func @main(%x: f32[256]) -> f32[256] {{
              %0 = add %x, %x\n %1 = cast %0 to={dtype}\n %2 = neg %1\n %3 = cast %2 to=f32\n %4 = neg %3\n return %4 }}"
        );
        let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let inputs = [numbers(DType::F32, -40.01)];
        let strict = interpreted(&module, &inputs, Mode::Strict);
        for numerics in [Numerics::Exact, Numerics::Rounding, Numerics::Reassociate, Numerics::Approx] {
            assert_eq!(compiled(&module, &inputs, 2, numerics), strict, "{dtype} {numerics}");
        }
    }
}

/// Numbers of every sign and exponent, with all digits that a half keeps and ties, and what is beside ties, behind them: in the midst of
/// an expression, in a chain of ops in halves, and stored, each rounding has the bits of the interpreter.
#[test]
fn every_number_rounds_to_the_same_bits() {
    let tails = [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001];
    let numbers: Vec<u8> =
        (0..=0xffffu32).flat_map(|high| tails.map(|tail| high << 16 | tail)).flat_map(u32::to_le_bytes).collect();
    let count = numbers.len() / 4;
    let inputs = [Array::new(DType::F32, &[count], Bytes::new(numbers)).unwrap()];
    for dtype in DTYPES {
        let text = format!(
            "func @main(%x: f32[{count}]) -> (f32[{count}], {dtype}[{count}], {dtype}[{count}]) {{
              %0 = cast %x to={dtype}\n %1 = cast %0 to=f32\n %2 = neg %1
              %3 = mul %0, %0\n %4 = add %3, %0
              return %2, %4, %0 }}"
        );
        let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let strict = interp::run(&module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap();
        for level in [1, 2] {
            let options =
                Options { opt_level: level, numerics: Numerics::Exact, threads: 1, ..Options::host().unwrap() };
            let found = compile(&module, &options).unwrap().run(&inputs, &Bindings::new()).unwrap();
            for (found, strict) in found.iter().zip(&strict) {
                let same = |(a, b): (f64, f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                let mut all = found.to_f64().unwrap().into_iter().zip(strict.to_f64().unwrap()).enumerate();
                let wrong = all.find(|(_, pair)| !same(*pair));
                assert!(wrong.is_none(), "{dtype} at level {level}: {wrong:?}");
            }
        }
    }
}

/// A half that is an integer, converted, is its own maximum: in f32 it is nothing but this half.
#[test]
fn a_half_that_no_op_in_f32_gives_is_computed() {
    for dtype in DTYPES {
        let text = format!(
            "func @main(%i: i32[256]) -> {dtype}[256] {{ %0 = cast %i to={dtype}\n %1 = max %0, %0\n return %1 }}"
        );
        let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let numbers: Vec<u8> = (-128..128i32).flat_map(i32::to_le_bytes).collect();
        let inputs = [Array::new(DType::I32, &[256], Bytes::new(numbers)).unwrap()];
        let strict = interpreted(&module, &inputs, Mode::Strict);
        assert_eq!(compiled(&module, &inputs, 2, Numerics::Rounding), strict, "{dtype}");
    }
}

/// 4096 ones: a sum that rounded every addition would end at 256 in bf16 and at 2048 in f16.
#[test]
fn sums_and_products_run_in_f32_at_every_level() {
    for dtype in DTYPES {
        let text = format!(
            "func @main(%x: {dtype}[4096]) -> ({dtype}[], {dtype}[]) {{
              %0 = sum %x axes=[0]\n %1 = dot %x, %x contract=[0]x[0]\n return %0, %1 }}"
        );
        let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let one = Array::from_number(dtype, 1.0).unwrap().bytes().to_vec();
        let ones = [Array::new(dtype, &[4096], Bytes::new(one.repeat(4096))).unwrap()];
        let values = |all: Vec<Array>| -> Vec<f64> { all.iter().flat_map(|a| a.to_f64().unwrap()).collect() };
        let strict = interp::run(&module, "main", &ones, &Bindings::new(), Mode::Strict).unwrap();
        assert_eq!(values(strict), [4096.0, 4096.0]);
        for level in [0, 1, 2] {
            let options =
                Options { opt_level: level, numerics: Numerics::Exact, threads: 1, ..Options::host().unwrap() };
            let found = compile(&module, &options).unwrap().run(&ones, &Bindings::new()).unwrap();
            assert_eq!(values(found), [4096.0, 4096.0], "{dtype} at level {level}");
        }
    }
}

#[test]
fn a_sum_over_an_axis_that_its_argument_lacks() {
    // Below `reassociate` such a sum stays, and its axis is one along which the kernel has tiles.
    let text = "func @main(%p: f16[2, 8]) -> f16[8, 4] {
        %0 = cos %p\n %1 = concat %0, %0 axis=0\n %2 = transpose %1 perm=[1, 0]
        %3 = dot %2, %2 contract=[1]x[1]\n %4 = dot %3, %2 contract=[1]x[0]\n return %4 }";
    let module = tilewright_ir::text::parse("t.tw", text).unwrap_or_else(|d| panic!("{d}"));
    let values = (0..16).flat_map(|i| Array::from_number(DType::F16, f64::from(i) * 0.2).unwrap().bytes().to_vec());
    let inputs = [Array::new(DType::F16, &[2, 8], Bytes::new(values.collect::<Vec<u8>>())).unwrap()];
    let strict = interpreted(&module, &inputs, Mode::Strict).to_f64().unwrap();
    for numerics in [Numerics::Exact, Numerics::Rounding, Numerics::Reassociate] {
        let found = compiled(&module, &inputs, 2, numerics).to_f64().unwrap();
        let most = strict.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        assert!(found.iter().zip(&strict).all(|(x, y)| (x - y).abs() <= 0.004 * most), "{numerics}: {found:?}");
    }
}
