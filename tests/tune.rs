//! Measured schedules: no choice changes a result beyond the order of sums, a file of them is used and checked, predictions are there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use tilewright::compile::{Options, compile};
use tilewright::tune::{Effort, tune, tuned};
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::text::print_kernel;
use tilewright_ir::types::Bindings;
use tilewright_passes::schedule::Choice;
use tilewright_passes::tuned::{Best, Tuned};
use tilewright_passes::{Target, tunables, walk};

/// A product with something done to it, a softmax, a sum over columns, a chain: each kind of template that has choices.
const TEXT: &str = "func @main(%x: f32[n, 100], weight %w: f32[100, 70], %b: f32[70]) -> (f32[n, 70], f32[n, 100], f32[100], f32[n, 100]) where n in 1..=600 {
  %0 = dot %x, %w contract=[1]x[0]
  %1 = broadcast %b shape=[n, 70] dims=[1]
  %2 = add %0, %1
  %3 = reduce_max %x axes=[1]
  %4 = broadcast %3 shape=[n, 100] dims=[0]
  %5 = sub %x, %4
  %6 = exp %5
  %7 = sum %6 axes=[1]
  %8 = broadcast %7 shape=[n, 100] dims=[0]
  %9 = div %6, %8
  %10 = sum %x axes=[0]
  %11 = tanh %x
  return %2, %9, %10, %11
}";

fn module() -> Module {
    tilewright_ir::text::parse("t.tw", TEXT).unwrap_or_else(|d| panic!("{d}"))
}

fn inputs(n: usize) -> Vec<Array> {
    let numbers = |shape: &[usize], by: f32| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * by).collect();
        Array::from_f32(shape, &values).unwrap()
    };
    vec![numbers(&[n, 100], 0.03), numbers(&[100, 70], 0.01), numbers(&[70], 0.1)]
}

#[test]
fn no_choice_changes_a_result() {
    let module = module();
    let host = Options::host().unwrap();
    let target = Target { isa: host.isa.name() };
    let all = tunables(&module, 2u8, &target).unwrap();
    let kinds: BTreeSet<String> = all.iter().map(|t| t.choices[0].to_string()).collect();
    assert!(kinds.iter().any(|k| k.starts_with("product")) && kinds.iter().any(|k| k.starts_with("row")), "{kinds:?}");
    assert!(kinds.iter().any(|k| k.starts_with("pointwise")), "{kinds:?}");
    let rounds = all.iter().map(|t| t.choices.len()).max().unwrap();
    let mut texts = BTreeSet::new();
    for n in [1, 37, 300] {
        let (inputs, bindings) = (inputs(n), Bindings::from([("n".into(), n as i64)]));
        let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
        for round in 0..rounds {
            let mut chosen = Tuned::default();
            for tunable in &all {
                let choice = tunable.choices[round % tunable.choices.len()];
                let best = Best { kernel: tunable.kernel.to_string(), choice, seconds: 0.0, usual: 0.0 };
                chosen.regions.insert(tunable.region.clone(), best);
            }
            let options = Options { tuned: Some(Arc::new(chosen)), verify: true, ..host.clone() };
            let programs = tilewright::compile::lower(&module, &options).unwrap();
            for kernel in programs.iter().flat_map(|p| &p.kernels) {
                texts.insert(print_kernel(kernel));
                let device = tilewright_passes::egraph::Device::named("cpu-avx512").unwrap();
                let seconds = walk::predict(kernel, &bindings, &device, 2);
                assert!(seconds.is_some_and(|s| s > 0.0 && s < 1.0), "{seconds:?}: {}", print_kernel(kernel));
            }
            let found = compile(&module, &options).unwrap().run(&inputs, &bindings).unwrap();
            for (x, y) in found.iter().zip(&expected) {
                let near = x
                    .to_f64()
                    .unwrap()
                    .into_iter()
                    .zip(y.to_f64().unwrap())
                    .all(|(x, y)| (x - y).abs() < 1e-4 * (1.0 + y.abs()));
                assert!(near, "round {round} at n = {n}");
            }
        }
    }
    // Choices are seen: more kernels than one for each region.
    assert!(texts.len() > 20, "{}", texts.len());
}

#[test]
fn what_is_measured_is_used() {
    let module = module();
    let (inputs, bindings) = (inputs(64), Bindings::from([("n".into(), 64)]));
    let options = Options { threads: 1, ..Options::host().unwrap() };
    let measured = |most| {
        let effort = Effort { sweeps: 1, runs: 1, most, keep: false };
        tune(&module, (&inputs, &bindings), &options, effort, &|_, _| {}).unwrap()
    };
    let regions = measured(None);
    assert!(!regions.is_empty());
    // Of all choices the usual, and those that are predicted to be the fastest.
    for (few, all) in measured(Some(3)).iter().zip(&regions) {
        assert_eq!((few.choices.len(), few.choices[0].choice), (3, all.choices[0].choice));
        let slowest = few.choices[1..].iter().filter_map(|t| t.predicted).fold(0.0, f64::max);
        let faster = all.choices[1..].iter().filter(|t| t.predicted.is_some_and(|p| p < slowest)).count();
        assert!(faster <= 1, "{few:?}");
    }
    for region in &regions {
        assert!(region.choices.iter().all(|t| t.seconds > 0.0 && t.seconds.is_finite()), "{region:?}");
        let different: BTreeSet<Choice> = region.choices.iter().map(|t| t.choice).collect();
        assert_eq!(different.len(), region.choices.len());
    }
    let found = tuned(&regions, &options);
    let text = serde_json::to_string_pretty(&found).unwrap();
    assert_eq!(Tuned::parse("t.json", &text).unwrap(), found);
}

/// To the last bit, which a fast reader of decimals may miss.
#[test]
fn times_come_back_as_they_were_written() {
    let seconds = 2.506_700_000_000_000_2e-5_f64;
    assert_eq!(
        serde_json::from_str::<f64>(&serde_json::to_string(&seconds).unwrap()).unwrap().to_bits(),
        seconds.to_bits()
    );
}

#[test]
fn a_file_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("g.tw"), TEXT).unwrap();
    let run = |arguments: &[&std::ffi::OsStr]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(arguments).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (graph, file) = (path("g.tw"), path("t.json"));
    let word = std::ffi::OsStr::new;
    let (code, out, err) = run(&[
        word("tune"),
        graph.as_os_str(),
        word("--sweeps"),
        word("1"),
        word("--runs"),
        word("1"),
        word("-o"),
        file.as_os_str(),
    ]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("regions:") && out.contains("predictions:"), "{out}");
    let with = || run(&[word("run"), graph.as_os_str(), word("--check"), word("--tuned"), file.as_os_str()]);
    assert_eq!(with().0, Some(0), "{}", with().2);
    // A choice that the region has not, and a file that is none.
    let target = Target { isa: Options::host().unwrap().isa.name() };
    let tunable = tunables(&module(), 2u8, &target).unwrap().remove(0);
    let mut wrong = Tuned { isa: target.isa.into(), ..Tuned::default() };
    let best = Best { kernel: "main.k".into(), choice: Choice::Fixed, seconds: 0.0, usual: 0.0 };
    wrong.regions.insert(tunable.region, best);
    std::fs::write(&file, serde_json::to_string(&wrong).unwrap()).unwrap();
    let (code, _, err) = with();
    assert!(code == Some(1) && err.contains("tuned-choice"), "{err}");
    std::fs::write(&file, "{\n  \"isa\": 3\n}").unwrap();
    let (code, _, err) = with();
    assert!(code == Some(1) && err.contains("tuned-syntax") && err.contains("t.json:2"), "{err}");
}
