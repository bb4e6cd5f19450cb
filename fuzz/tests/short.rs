//! A short run of every target, and every input that once failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;
use tilewright_fuzz::driver::{Limits, Settings, fuzz, run, skeleton};
use tilewright_fuzz::targets::{self, Outcome, Target};

/// Memory is counted for the whole process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs all seeds and some mutations; counts acceptances and outcomes, so that a target that sees nothing fails.
fn short(name: &str, mutations: u64, outcomes: usize) {
    let _alone = alone();
    let target = targets::all().into_iter().find(|t| t.name() == name).unwrap();
    let runs = mutations + target.seeds().len() as u64;
    let report = fuzz(&*target, &mut Settings { runs, ..Settings::default() }).unwrap();
    let show = |f: &tilewright_fuzz::driver::Failure| format!("{}\n{}", f.reason, String::from_utf8_lossy(&f.input));
    let failures: Vec<String> = report.failures.iter().map(show).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(report.accepted > 0 && report.outcomes >= outcomes, "{report:?}");
}

#[test]
fn graph_text() {
    short("tw", 3000, 100);
}

#[test]
fn lowering() {
    short("lower", 40, 20);
}

#[test]
fn kernel_text() {
    short("kernel", 1000, 30);
}

#[test]
fn op_programs() {
    short("op-program", 2000, 100);
}

#[test]
fn rules() {
    short("rules", 1500, 50);
}

#[test]
fn gguf() {
    short("gguf", 3000, 20);
}

#[test]
fn safetensors() {
    short("safetensors", 3000, 20);
}

#[test]
fn tokenizer() {
    short("tokenizer", 1000, 50);
}

#[test]
fn inputs_that_failed_once() {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for target in targets::all() {
        for entry in std::fs::read_dir(folder.join(target.name())).into_iter().flatten() {
            let path = entry.unwrap().path();
            let found = run(&*target, &std::fs::read(&path).unwrap(), Limits::default());
            assert!(found.outcome.is_ok(), "{}: {:?}", path.display(), found.outcome);
        }
    }
}

/// Panics where an input holds an `x`, holds much memory for an `m`, and breaks a property for a `p`.
struct Fragile;

impl Target for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }
    fn seeds(&self) -> Vec<Vec<u8>> {
        vec![b"abc def".to_vec()]
    }
    fn words(&self) -> Vec<String> {
        ["x", "m", "p"].map(String::from).to_vec()
    }
    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        assert!(!input.contains(&b'x'), "an x among {} bytes", input.len());
        if input.contains(&b'p') {
            return Err("property".into());
        }
        let held: Vec<u8> = vec![1; if input.contains(&b'm') { 1 << 21 } else { 1 }];
        Ok(Outcome { accepted: true, signature: held.len().to_string() })
    }
}

#[test]
fn failures_are_found_and_made_short() {
    let _alone = alone();
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let report = fuzz(&Fragile, &mut Settings { runs: 2000, limits, ..Settings::default() }).unwrap();
    let mut found: Vec<(String, Vec<u8>)> =
        report.failures.iter().map(|f| (skeleton(&f.reason), f.input.clone())).collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let inputs: Vec<&[u8]> = found.iter().map(|f| &f.1[..]).collect();
    assert_eq!(inputs, [b"m", b"p", b"x"], "{found:?}");
    assert!(found[0].0.starts_with("too much memory") && found[2].0.contains("an x among # bytes"), "{found:?}");
}
