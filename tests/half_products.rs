//! Products and elementwise code of f16 and bf16: every instruction set and level against the interpreter, within the
//! rounding of a result, and what `--numerics` allows of the products of bf16 pairs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/random.rs"]
mod random;

use half::{bf16, f16};
use random::Random;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::Graph;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::text::print_program;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

const HALVES: [DType; 2] = [DType::Bf16, DType::F16];

fn array(dtype: DType, shape: &[usize], values: impl Iterator<Item = f32>) -> Array {
    let bits =
        |x: f32| if dtype == DType::F16 { f16::from_f32(x).to_le_bytes() } else { bf16::from_f32(x).to_le_bytes() };
    let bytes: Vec<u8> = values.take(shape.iter().product()).flat_map(bits).collect();
    Array::new(dtype, shape, Bytes::new(bytes)).unwrap()
}

/// A result is rounded once, and sums in f32 may be near a tie; `slack` roundings more in f16 or bf16 are fine.
fn check(module: &Module, inputs: &[Array], dtype: DType, slack: f64, bindings: &Bindings, what: &str) {
    let unit = if dtype == DType::F16 { f64::from(f16::EPSILON) } else { f64::from(bf16::EPSILON) };
    let expected = interp::run(module, "main", inputs, bindings, Mode::Meaning).unwrap()[0].to_f64().unwrap();
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.available()) {
        for opt_level in 0..=2 {
            let options = Options { opt_level, isa, threads: 2, ..Options::host().unwrap() };
            let found = compile(module, &options).unwrap().run(inputs, bindings).unwrap()[0].to_f64().unwrap();
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                let near = (a - b).abs() <= slack * unit * (b.abs() + 1e-2);
                assert!(near, "{what}, {dtype}, {isa:?}, level {opt_level}, element {at}: {a} for {b}");
            }
        }
    }
}

/// Weights and inputs, packed, read as they lie and row by row; folds that are odd, long, or no multiple of a vector.
#[test]
fn products_of_halves() {
    for dtype in HALVES {
        for (m, k, n) in [(1, 64, 40), (3, 33, 7), (17, 70, 65), (40, 600, 128), (20, 1, 32)] {
            for weight in [true, false] {
                for transposed in [true, false] {
                    let g = Graph::new("main");
                    let (x, shape) = (g.input("x", dtype, (m, k)), if transposed { [n, k] } else { [k, n] });
                    let w = if weight { g.weight("w", dtype, shape) } else { g.input("w", dtype, shape) };
                    let y = if transposed { x.linear(&w) } else { x.matmul(&w) };
                    let module = g.finish(&[&y]).unwrap();
                    let mut random = Random(m as u64 * 31 + k as u64);
                    let mut values =
                        || std::iter::repeat_with(|| random.signed()).take(64 * 1024).collect::<Vec<f32>>();
                    let inputs = [array(dtype, &[m, k], values().into_iter().cycle()), {
                        array(dtype, &shape, values().into_iter().cycle())
                    }];
                    let what = format!("{m}x{k}x{n}, weight {weight}, transposed {transposed}");
                    check(&module, &inputs, dtype, 1.0, &Bindings::new(), &what);
                }
            }
        }
    }
}

/// Sizes of every kind, of weights and of inputs. Rows come one by one and all at once, by one thread and by several: no bit
/// depends on either.
#[test]
fn products_of_pairs_of_any_size() {
    let (mut random, mut sizes) = (Random(11), Vec::new());
    for _ in 0..24 {
        sizes.push([0; 3].map(|_| 1 + random.below(130)));
    }
    for isa in [Isa::AmxBf16, Isa::Avx512Bf16] {
        if !isa.available() {
            eprintln!("skipped: this machine has no {}", isa.name());
            continue;
        }
        for (case, &[m, n, k]) in sizes.iter().enumerate() {
            let text = format!(
                "func @main(%x: bf16[s, {k}], {}%w: bf16[{k}, {n}]) -> bf16[s, {n}] where s in 1..=130 {{
                   %0 = dot %x, %w contract=[1]x[0]
                   return %0
                 }}",
                if case % 2 == 0 { "weight " } else { "" }
            );
            let module = tilewright_ir::text::parse("sizes.tw", &text).unwrap_or_else(|d| panic!("{d}"));
            let mut input = |shape: &[usize]| array(DType::Bf16, shape, std::iter::repeat_with(|| random.signed()));
            let inputs = [input(&[m, k]), input(&[k, n])];
            let bound = |s: usize| -> Bindings { [("s".into(), s as i64)].into_iter().collect() };
            let run = |threads: usize, inputs: &[Array], s: usize| {
                let options = Options { isa, threads, ..Options::host().unwrap() };
                compile(&module, &options).unwrap().run(inputs, &bound(s)).unwrap()[0].to_f64().unwrap()
            };
            let expected =
                interp::run(&module, "main", &inputs, &bound(m), Mode::Meaning).unwrap()[0].to_f64().unwrap();
            let found = run(1, &inputs, m);
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                let near = (a - b).abs() <= f64::from(bf16::EPSILON) * (b.abs() + 1e-2);
                assert!(near, "{isa:?} {m}x{k}x{n}, element {at}: {a} for {b}");
            }
            assert!(found == run(3, &inputs, m), "{isa:?} {m}x{k}x{n} on three threads");
            // A weight is packed whatever the rows are.
            if case % 2 == 0 {
                let last: Vec<f32> = inputs[0].to_f64().unwrap()[(m - 1) * k..].iter().map(|x| *x as f32).collect();
                let row = [array(DType::Bf16, &[1, k], last.into_iter()), inputs[1].clone()];
                assert!(found[(m - 1) * n..] == run(1, &row, 1), "{isa:?} {m}x{k}x{n}, the last row alone");
            }
        }
    }
}

/// Rows of any number, with an epilogue in f32 and in halves.
#[test]
fn symbolic_rows_and_epilogues() {
    for dtype in HALVES {
        let text = format!(
            "func @main(%x: {dtype}[s, 48], %w: {dtype}[48, 96], %b: {dtype}[96]) -> {dtype}[s, 96] where s in 1..=100 {{
               %0 = dot %x, %w contract=[1]x[0]
               %1 = broadcast %b shape=[s, 96] dims=[1]
               %2 = add %0, %1
               %3 = cast %2 to=f32
               %4 = exp %3
               %5 = cast %4 to={dtype}
               return %5
             }}"
        );
        let module = tilewright_ir::text::parse("halves.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        for s in [1, 5, 33, 100usize] {
            let mut random = Random(s as u64);
            let mut next = || random.signed() / 8.0;
            let mut input = |shape: &[usize]| array(dtype, shape, std::iter::repeat_with(&mut next));
            let inputs = [input(&[s, 48]), input(&[48, 96]), input(&[96])];
            let bindings: Bindings = [("s".into(), s as i64)].into_iter().collect();
            check(&module, &inputs, dtype, 3.0, &bindings, &format!("{s} rows"));
        }
    }
}

/// Conversions of rows that a mask cuts, of slices, and of rows that are summed.
#[test]
fn rows_of_halves() {
    for dtype in HALVES {
        for n in [5usize, 16, 100, 300, 1000] {
            let g = Graph::new("main");
            let x = g.input("x", dtype, (7, n));
            let wide = x.cast(DType::F32);
            let y = (&wide / wide.abs().sum_keep(&[-1])).pad(1, 3, 2, 1.0).slice(1, 1, n + 4).cast(dtype);
            let module = g.finish(&[&y]).unwrap();
            let mut random = Random(n as u64);
            let input = array(dtype, &[7, n], std::iter::repeat_with(|| random.signed()));
            check(&module, &[input], dtype, 1.0, &Bindings::new(), &format!("rows of {n}"));
        }
    }
}

/// Sums of what is below the least normal f32: only from `reassociate` on may they be lost.
#[test]
fn exact_products_keep_subnormal_numbers() {
    let tiny = 2f32.powi(-65);
    let (m, k, n) = (16usize, 8usize, 32usize);
    let g = Graph::new("main");
    let (x, w) = (g.input("x", DType::Bf16, (m, k)), g.weight("w", DType::Bf16, (k, n)));
    let module = g.finish(&[&x.matmul(&w)]).unwrap();
    let inputs = [[m, k], [k, n]].map(|shape| array(DType::Bf16, &shape, std::iter::repeat(tiny)));
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.available()) {
        for numerics in [Numerics::Exact, Numerics::Rounding] {
            let options = Options { numerics, isa, ..Options::host().unwrap() };
            let found =
                compile(&module, &options).unwrap().run(&inputs, &Bindings::new()).unwrap()[0].to_f64().unwrap();
            assert!(found.iter().all(|&x| x == 8.0 * f64::from(tiny).powi(2)), "{isa:?} {numerics:?}: {found:?}");
        }
    }
}

/// The products of pairs are used where they may be, and nowhere else.
#[test]
fn pairs_are_for_even_folds_that_may_be_reordered() {
    let compiled = |isa: Isa, k: usize, opt_level: u8, numerics: Numerics, dtype: DType| {
        let g = Graph::new("main");
        let (x, w) = (g.input("x", dtype, (64, k)), g.weight("w", dtype, (k, 64)));
        let module = g.finish(&[&x.matmul(&w)]).unwrap();
        let options = Options { opt_level, numerics, isa, ..Options::host().unwrap() };
        lower(&module, &options).unwrap().iter().map(print_program).collect::<String>()
    };
    for (isa, kernel) in [(Isa::Avx512Bf16, "avx512_bf16_pairs"), (Isa::AmxBf16, "amx_bf16_tiles")] {
        let programs = |k, level, numerics, dtype| compiled(isa, k, level, numerics, dtype);
        only_where_allowed(kernel, programs);
    }
}

/// `programs` of folds, levels, numerics and dtypes use `kernel` where they may, else products that keep all numbers.
fn only_where_allowed(kernel: &str, programs: impl Fn(usize, u8, Numerics, DType) -> String) {
    let pairs = |text: &str| text.contains(&format!("via {kernel} "));
    assert!(pairs(&programs(64, 2, Numerics::Reassociate, DType::Bf16)));
    assert!(pairs(&programs(64, 2, Numerics::Approx, DType::Bf16)));
    for (k, level, numerics, dtype, via) in [
        (63, 2, Numerics::Reassociate, DType::Bf16, "avx512_bf16"),
        (64, 1, Numerics::Reassociate, DType::Bf16, "avx512_bf16"),
        (64, 2, Numerics::Rounding, DType::Bf16, "avx512_bf16"),
        (64, 2, Numerics::Exact, DType::Bf16, "avx512_bf16"),
        (64, 2, Numerics::Reassociate, DType::F16, "avx512_f16"),
    ] {
        let text = programs(k, level, numerics, dtype);
        let right = !pairs(&text) && text.contains(&format!("via {via} "));
        assert!(right, "{kernel} {k} {level} {numerics:?} {dtype}\n{text}");
        assert!(text.contains(&format!("dtype({dtype} to f32)")), "{text}");
    }
}
