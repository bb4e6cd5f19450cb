//! Machine code against the reference data and the interpreter: every level, every instruction set, any thread count.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use std::path::Path;
use tilewright::compile::{Options, UserRules, compile};
use tilewright::conformance::{self, Device, Forced, run_set};
use tilewright::models::{Gpt2Config, Outputs, gpt2};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

fn passes(opt_level: u8) {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    let options = conformance::Options {
        device: Device::Cpu,
        grads: false,
        checkpoint: Forced::Nothing,
        opt_level,
        numerics: Numerics::default(),
        float: DType::F32,
        threads: None,
        rules: UserRules::default(),
    };
    let report = run_set("ops", data, &options).unwrap();
    report.failures.iter().for_each(|f| println!("{f}"));
    assert_eq!((report.passed, report.failures.len(), report.skipped), (123, 0, 0));
}

#[test]
fn ops_one_kernel_each() {
    passes(0);
}

#[test]
fn ops_fused() {
    passes(1);
}

#[test]
fn ops_chosen_by_price() {
    passes(2);
}

fn small() -> Module {
    let outputs = Outputs { all_logits: true, hidden_states: true, loss: false };
    let sizes = Gpt2Config { layers: 2, width: 48, heads: 3, feed_forward: 100, ..Gpt2Config::small(33) };
    gpt2(&Gpt2Config { vocabulary: 67, context: 33, outputs, ..sizes }).unwrap()
}

fn inputs(module: &Module, bindings: &Bindings) -> Vec<Array> {
    let mut random = Random(7);
    let mut next = || random.signed();
    let make = |ty: &tilewright_ir::types::Type| {
        let shape = ty.concrete(bindings).unwrap();
        let n: usize = shape.iter().product();
        if ty.dtype == DType::I64 {
            return Array::from_i64(&shape, &(0..n as i64).map(|i| i * 31 % 67).collect::<Vec<_>>()).unwrap();
        }
        Array::from_f32(&shape, &std::iter::repeat_with(&mut next).take(n).collect::<Vec<_>>()).unwrap()
    };
    module.entry().unwrap().params.iter().map(|p| &p.ty).map(make).collect()
}

#[test]
fn a_transformer_on_every_instruction_set_agrees_with_the_interpreter() {
    let module = small();
    for (seq, past) in [(1, 0), (1, 17), (16, 0), (13, 9), (33, 0)] {
        let bindings = Bindings::from([("seq".into(), seq), ("past".into(), past)]);
        let inputs = inputs(&module, &bindings);
        let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|i| i.available()) {
            let found = compile(&module, &Options { opt_level: 2, threads: 2, isa, ..Options::host().unwrap() })
                .unwrap()
                .run(&inputs, &bindings);
            for (x, y) in found.unwrap().iter().zip(&expected) {
                let scale = y.to_f64().unwrap().into_iter().fold(1.0f64, |m, v| m.max(v.abs()));
                for (a, b) in x.to_f64().unwrap().into_iter().zip(y.to_f64().unwrap()) {
                    // A NaN is near to nothing.
                    let near = (a - b).abs() <= 2e-5 * scale;
                    assert!(near, "{isa:?}, seq {seq}, past {past}: {a} for {b} of {scale}");
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let module = small();
    let bindings = Bindings::from([("seq".into(), 16), ("past".into(), 0)]);
    let inputs = inputs(&module, &bindings);
    let run = |threads| {
        let options = Options { opt_level: 2, threads, isa: Isa::best(), ..Options::host().unwrap() };
        compile(&module, &options).unwrap().run(&inputs, &bindings).unwrap()
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn wrong_inputs_are_refused() {
    let module = small();
    let executable =
        compile(&module, &Options { opt_level: 2, threads: 1, isa: Isa::best(), ..Options::host().unwrap() }).unwrap();
    let bindings = Bindings::from([("seq".into(), 4), ("past".into(), 0)]);
    let good = inputs(&module, &bindings);
    assert_eq!(executable.run(&good[1..], &bindings).unwrap_err().code, "input-count");
    assert_eq!(executable.run(&good, &Bindings::new()).unwrap_err().code, "symbol");
    let mut wrong = good.clone();
    wrong.swap(0, 1);
    assert_eq!(executable.run(&wrong, &bindings).unwrap_err().code, "input-type");
    let late = Bindings::from([("seq".into(), 4), ("past".into(), 1000)]);
    assert_eq!(executable.run(&good, &late).unwrap_err().code, "symbol");
}
