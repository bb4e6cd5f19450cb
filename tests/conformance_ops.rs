//! All 123 op programs of the reference data on the interpreter, in both modes and both dtypes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::Path;
use tilewright::compile::UserRules;
use tilewright::conformance::{Device, Forced, Options, largest_error, run_set};
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

/// Cases of the copy in `tests/data/ops`.
const CASES: usize = 123;

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

fn passes(float: DType, grads: bool) {
    let options = Options {
        device: Device::Interpreter,
        grads,
        checkpoint: Forced::Nothing,
        opt_level: 0,
        numerics: Numerics::default(),
        float,
        threads: None,
        rules: UserRules::default(),
    };
    let report = run_set("ops", data(), &options).unwrap();
    for failure in &report.failures {
        println!("{failure}");
    }
    println!("{report}; largest error {:.3} of the tolerance", report.largest_part);
    assert_eq!((report.passed, report.failures.len(), report.skipped), (CASES, 0, 0));
}

#[test]
fn in_f64() {
    passes(DType::F64, false);
}

#[test]
fn in_f32() {
    passes(DType::F32, false);
}

/// Every gradient that torch has of them.
#[test]
fn gradients_in_f64() {
    passes(DType::F64, true);
}

#[test]
fn gradients_in_f32() {
    passes(DType::F32, true);
}

/// Strict f32 keeps the tolerance of f32 devices: each op rounds, as theirs do.
#[test]
fn in_strict_f32() {
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data().join("ops/index.json")).unwrap()).unwrap();
    let cases = index.as_array().unwrap();
    assert_eq!(cases.len(), CASES);
    let mut rounded = 0;
    for case in cases {
        let file = Safetensors::open(data().join("ops").join(case["file"].as_str().unwrap())).unwrap();
        let program = OpProgram::from_file(&file, DType::F32).unwrap();
        let inputs = program.read_inputs(&file).unwrap();
        let results = run(&program.module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap();
        let exact = run(&program.module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        let tolerance = 16.0 * number("torch_f32_out_err") + 1e-6 * number("out_abs_max").max(1.0);
        for ((name, found), exact) in program.outputs.iter().zip(&results).zip(&exact) {
            let error = largest_error(found, &file.tensor(&format!("out.{name}")).unwrap()).unwrap();
            assert!(error <= tolerance, "{}: {error} above {tolerance}", case["name"]);
            rounded += usize::from(largest_error(found, exact).unwrap() > 0.0);
        }
    }
    // The two modes are not the same thing.
    assert!(rounded > 40, "{rounded} outputs differ");
}

#[test]
fn unknown_sets_and_absent_data_are_errors() {
    let options = Options {
        device: Device::Interpreter,
        grads: false,
        checkpoint: Forced::Nothing,
        opt_level: 0,
        numerics: Numerics::default(),
        float: DType::F64,
        threads: None,
        rules: UserRules::default(),
    };
    assert_eq!(run_set("none", data(), &options).unwrap_err().code, "conformance-set");
    assert_eq!(run_set("ops", Path::new("/nowhere"), &options).unwrap_err().code, "file");
}

/// The copy has the files of its index and no others.
#[test]
fn files_are_those_of_the_index() {
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data().join("ops/index.json")).unwrap()).unwrap();
    let mut known: Vec<&str> = index.as_array().unwrap().iter().map(|case| case["file"].as_str().unwrap()).collect();
    known.push("index.json");
    known.sort_unstable();
    let entries = std::fs::read_dir(data().join("ops")).unwrap();
    let mut found: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, known);
}
