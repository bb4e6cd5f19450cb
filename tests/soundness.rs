//! What keeps machine code inside its buffers: indices that data chooses are checked, sizes of a call are checked, and
//! every kernel that the lowering makes passes the verifier.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use std::path::Path;
use tilewright::compile::{MAX_OPT_LEVEL, Options, compile, lower};
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright::models::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, gpt2, llama};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::RopeLayout;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::verify::verify;
use tilewright_ir::kernel::{Expr, Level, Stmt};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};
use tilewright_runtime::executable::Executable;

fn module(text: &str) -> Module {
    let module = parse("soundness.tw", text).unwrap_or_else(|d| panic!("{d}"));
    tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
    module
}

fn interpret(module: &Module, inputs: &[Array], symbols: &Bindings) -> Result<Vec<Array>, Diagnostic> {
    interp::run(module, &module.entry().unwrap().name, inputs, symbols, Mode::Meaning)
}

/// Runs on the CPU at every level with 1, 2 and 3 threads; all must agree to the letter.
fn on_cpu(module: &Module, inputs: &[Array], symbols: &Bindings) -> Result<Vec<Array>, Diagnostic> {
    let mut last: Option<Result<Vec<Array>, Diagnostic>> = None;
    for opt_level in 0..=MAX_OPT_LEVEL {
        let mut at_level: Option<Result<Vec<Array>, Diagnostic>> = None;
        for threads in 1..=3 {
            let options = Options { opt_level, threads, ..Options::host().unwrap() };
            let executable = compile(module, &options).unwrap_or_else(|d| panic!("{d}"));
            let found = executable.run(inputs, symbols);
            if let Some(before) = &at_level {
                match (before, &found) {
                    (Ok(a), Ok(b)) => assert!(a.iter().zip(b).all(|(a, b)| a.bytes()[..] == b.bytes()[..])),
                    (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
                    (Ok(_), Err(d)) | (Err(d), Ok(_)) => panic!("an error with some numbers of threads: {d}"),
                }
            }
            at_level = Some(found);
        }
        if let (Some(Ok(_)), Some(Err(d))) | (Some(Err(d)), Some(Ok(_))) = (&last, &at_level) {
            panic!("an error at some levels: {d}");
        }
        last = at_level;
    }
    last.unwrap()
}

/// Integers of a dtype; too large ones wrap.
fn integers(dtype: DType, shape: &[usize], values: &[i64]) -> Array {
    let size = dtype.block().1;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect();
    Array::new(dtype, shape, tilewright_ir::array::Bytes::new(bytes)).unwrap()
}

fn floats(shape: &[usize]) -> Array {
    let n = shape.iter().product::<usize>();
    Array::from_f32(shape, &(0..n).map(|i| i as f32 * 0.5).collect::<Vec<_>>()).unwrap()
}

/// Shapes of the operands of `take`, `take_along`, `scatter_add` in a text with the index dtype `I`.
const GATHERS: &[(&str, [&[usize]; 3])] = &[
    ("func @main(%x: f32[9], %i: I[7]) -> f32[7] { %0 = take %x, %i axis=0\n return %0 }", [&[9], &[7], &[]]),
    ("func @main(%x: f32[9, 5], %i: I[3, 2]) -> f32[3, 2, 5] { %0 = take %x, %i axis=0\n return %0 }", [
        &[9, 5],
        &[3, 2],
        &[],
    ]),
    ("func @main(%x: f32[4, 9, 300], %i: I[3]) -> f32[4, 3, 300] { %0 = take %x, %i axis=1\n return %0 }", [
        &[4, 9, 300],
        &[3],
        &[],
    ]),
    ("func @main(%x: f32[4, 9], %i: I[300]) -> f32[4, 300] { %0 = take %x, %i axis=1\n %1 = neg %0\n return %1 }", [
        &[4, 9],
        &[300],
        &[],
    ]),
    ("func @main(%x: f32[4, 9], %i: I[4, 6]) -> f32[4, 6] { %0 = take_along %x, %i axis=1\n return %0 }", [
        &[4, 9],
        &[4, 6],
        &[],
    ]),
    ("func @main(%x: f32[9, 4], %i: I[5, 4]) -> f32[5, 4] { %0 = take_along %x, %i axis=0\n return %0 }", [
        &[9, 4],
        &[5, 4],
        &[],
    ]),
    (
        "func @main(%x: f32[9, 4], %i: I[5, 4], %s: f32[5, 4]) -> f32[9, 4] { %0 = scatter_add %x, %i, %s axis=0\n return %0 }",
        [&[9, 4], &[5, 4], &[5, 4]],
    ),
    (
        "func @main(%x: f32[2, 9], %i: I[2, 5], %s: f32[2, 5]) -> f32[2, 9] { %0 = scatter_add %x, %i, %s axis=1\n return %0 }",
        [&[2, 9], &[2, 5], &[2, 5]],
    ),
    // Nothing is taken, so no index is looked at.
    ("func @main(%x: f32[9, 0], %i: I[3]) -> f32[3, 0] { %0 = take %x, %i axis=0\n return %0 }", [&[9, 0], &[3], &[]]),
    // An empty table.
    ("func @main(%x: f32[0, 600], %i: I[3]) -> f32[3, 600] { %0 = take %x, %i axis=0\n return %0 }", [
        &[0, 600],
        &[3],
        &[],
    ]),
    // What is taken is cut and padded: all indices count all the same.
    (
        "func @main(%x: f32[9], %i: I[8]) -> f32[6] { %0 = take %x, %i axis=0\n %1 = slice %0 start=[2] limit=[4] stride=[1]
          %2 = constant f32[] = 0.0\n %3 = pad %1, %2 amounts=[(2, 2)]\n return %3 }",
        [&[9], &[8], &[]],
    ),
];

#[test]
fn indices_outside_are_errors_at_every_level_with_any_number_of_threads() {
    let mut random = Random(1);
    let (mut refused, mut taken) = (0, 0);
    for (text, [x, ids, source]) in GATHERS {
        for (name, dtype) in [("i64", DType::I64), ("i32", DType::I32), ("u8", DType::U8), ("u64", DType::U64)] {
            let module = module(&text.replace("I[", &format!("{name}[")));
            for round in 0..4 {
                let count = ids.iter().product::<usize>();
                let mut values: Vec<i64> = (0..count).map(|_| random.below(9) as i64).collect();
                let bad = [-1, 9, i64::MAX, i64::MIN, 100, i64::from(i32::MIN), 1 << 40][random.below(7)];
                if round > 0 && count > 0 {
                    values[random.below(count)] = bad;
                }
                let mut inputs = vec![floats(x), integers(dtype, ids, &values)];
                inputs.extend((!source.is_empty()).then(|| floats(source)));
                let (want, found) =
                    (interpret(&module, &inputs, &Bindings::new()), on_cpu(&module, &inputs, &Bindings::new()));
                match (want, found) {
                    (Ok(a), Ok(b)) => {
                        assert!(a.iter().zip(&b).all(|(a, b)| a.to_f64() == b.to_f64()), "{text} {values:?}");
                        taken += 1;
                    }
                    (Err(a), Err(b)) => {
                        assert_eq!((a.code, b.code), ("index-out-of-range", "index-out-of-range"), "{a}\n{b}");
                        let shown = b.to_string();
                        assert!(shown.contains("`x`") || shown.contains("`out`") || shown.contains("`n"), "{b}");
                        assert!(shown.contains("0..9") || shown.contains("0..0"), "{b}");
                        assert!(matches!(b.labels.first(), Some((tilewright_ir::diag::Place::Text { .. }, _))), "{b}");
                        refused += 1;
                    }
                    (a, b) => panic!("{text} {name} {values:?}\ninterpreter {a:?}\ncpu {b:?}"),
                }
            }
        }
    }
    assert!(refused > 60 && taken > 30, "{refused} refused, {taken} taken");
}

#[test]
fn sizes_of_a_call_that_leave_a_tensor_are_errors() {
    let texts = [
        // A cache that is too small, a table that is too short, a negative amount.
        "func @main(donated %x: f32[16, 3], %u: f32[n, 3], %p: f32[past]) -> f32[16, 3] where n in 1..=16, past in 0..=16 {
           %0 = update_slice %x, %u start=[past, 0]\n return %0 }",
        "func @main(%x: f32[16, 3], %u: f32[n, 3], %p: f32[past]) -> f32[n, 3] where n in 1..=16, past in 0..=16 {
           %0 = slice %x start=[past, 0] limit=[past + n, 3] stride=[1, 1]\n %1 = add %0, %u\n return %1 }",
        "func @f(%x: f32[16, 3], %u: f32[m, 3], %p: f32[at]) -> f32[m, 3] where m in 1..=16, at in 0..=12 {
           %0 = slice %x start=[at, 0] limit=[at + m, 3] stride=[1, 1]\n return %0 }
         func @main(%x: f32[16, 3], %u: f32[n, 3], %p: f32[past]) -> f32[n, 3] where n in 1..=16, past in 0..=16 {
           %0 = call %x, %u, %p function=@f\n return %0 }",
        "func @main(%x: f32[16, 3], %u: f32[n, 3], %p: f32[past]) -> f32[past - n + 3] where n in 1..=16, past in 0..=16 {
           %0 = constant f32 0.0\n %1 = reduce_sum %u axes=[1]\n return %1 }",
    ];
    for text in &texts[..3] {
        let module = module(text);
        for (n, past) in [(1, 0), (16, 0), (4, 12), (5, 12), (1, 16), (16, 16), (3, 14), (2, 14), (1, 13)] {
            let inputs = [floats(&[16, 3]), floats(&[n, 3]), floats(&[past])];
            let (want, found) =
                (interpret(&module, &inputs, &Bindings::new()), on_cpu(&module, &inputs, &Bindings::new()));
            match (want, found) {
                (Ok(a), Ok(b)) => assert!(a.iter().zip(&b).all(|(a, b)| a.to_f64() == b.to_f64()), "{n} {past} {text}"),
                (Err(_), Err(d)) => {
                    assert!(n + past > 16 || past > 12, "{d}");
                    assert_eq!(d.code, "symbol", "{d}");
                }
                (a, b) => panic!("{n} {past} {text}\ninterpreter {a:?}\ncpu {b:?}"),
            }
        }
    }
}

/// Verifies every kernel of every program; gives how many.
fn verified(what: &str, module: &Module, failures: &mut Vec<String>) -> usize {
    let mut count = 0;
    for opt_level in 0..=MAX_OPT_LEVEL {
        let options = Options { opt_level, ..Options::host().unwrap() };
        for program in lower(module, &options).unwrap_or_else(|d| panic!("{what}: {d}")) {
            for kernel in &program.kernels {
                count += 1;
                match verify(kernel) {
                    Ok(report) if report.complete() => {}
                    Ok(report) => failures.push(format!("{what}, level {opt_level}: {:?}\n{kernel}", report.outputs)),
                    Err(d) => failures.push(format!("{what}, level {opt_level}: {d}\n{kernel}")),
                }
            }
        }
    }
    count
}

/// Small models of both families, with plain and with block-quantised weights.
fn models() -> Vec<(&'static str, Module)> {
    let outputs = || Outputs { all_logits: true, hidden_states: true, loss: false };
    let sizes = Gpt2Config { layers: 2, width: 48, heads: 3, feed_forward: 100, ..Gpt2Config::small(33) };
    let mut config = LlamaConfig {
        layers: 2,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        feed_forward: 96,
        vocabulary: 40,
        rope_base: 10_000.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: false,
        capacity: 32,
        dtypes: WeightTypes::new(),
        outputs: outputs(),
    };
    let plain = llama(&config).unwrap();
    for name in config.names().filter(|n| !n.contains("norm")) {
        config.dtypes.insert(name, DType::Q8_0);
    }
    let blocks = llama(&config).unwrap();
    vec![("gpt2", gpt2(&Gpt2Config { outputs: outputs(), ..sizes }).unwrap()), ("llama", plain), ("llama q8_0", blocks)]
}

#[test]
fn every_kernel_is_verified() {
    let mut failures = Vec::new();
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ops"));
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    let mut count = 0;
    for case in index.as_array().unwrap() {
        let file = Safetensors::open(data.join(case["file"].as_str().unwrap())).unwrap();
        for float in [DType::F32, DType::F64] {
            let program = OpProgram::from_file(&file, float).unwrap();
            count += verified(&case["name"].to_string(), &program.module, &mut failures);
        }
    }
    for (name, model) in models() {
        count += verified(name, &model, &mut failures);
    }
    for (text, _) in GATHERS {
        count += verified(text, &module(&text.replace("I[", "i32[")), &mut failures);
    }
    failures.iter().for_each(|f| println!("{f}"));
    assert!(failures.is_empty(), "{} of {count} kernels are not proved", failures.len());
    assert!(count > 1000, "{count}");
}

#[test]
fn a_grid_of_a_negative_size_is_an_error() {
    let module = module("func @main(%x: f32[n, 300]) -> f32[n, 300] where n in 1..=8 { %0 = neg %x\n return %0 }");
    let options = Options { opt_level: 0, threads: 1, ..Options::host().unwrap() };
    let mut programs = lower(&module, &options).unwrap();
    for statement in &mut programs[0].kernels[0].body {
        if let Stmt::Par { vars, level: Level::Grid, .. } = statement {
            vars.iter_mut().for_each(|v| v.1 = Expr::scalar(ScalarOp::Sub {}, [Expr::name("n"), Expr::Int(5)]));
        }
    }
    let executable = Executable::compile(programs, options.isa, 1).unwrap();
    let refused = executable.run(&[floats(&[2, 300])], &Bindings::new()).unwrap_err();
    assert!(refused.code == "grid-size" && refused.message.contains("-3"), "{refused}");
}
