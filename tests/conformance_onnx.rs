//! Foreign graphs, a part of the reference data: ONNX's node tests and models by NNSmith, on the interpreter and, at
//! every level, as machine code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::Path;
use tilewright::compile::{MAX_OPT_LEVEL, UserRules};
use tilewright::conformance::{Device, Forced, Options, run_set};
use tilewright::formats::Safetensors;
use tilewright::formats::onnx::{OnnxGraph, left_out};
use tilewright_ir::types::DType;
use tilewright_passes::egraph::Numerics;

/// Sets with the number of their cases in `tests/data`.
const SETS: &[(&str, usize)] = &[("onnx_node", 60), ("nnsmith", 40)];

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

fn passes(device: Device, opt_level: u8) {
    for (set, cases) in SETS {
        let numerics = Numerics::default();
        let options = Options {
            device,
            grads: false,
            checkpoint: Forced::Nothing,
            opt_level,
            numerics,
            float: DType::F32,
            threads: Some(2),
            rules: UserRules::default(),
        };
        let report = run_set(set, data(), &options).unwrap();
        report.failures.iter().for_each(|f| println!("{f}"));
        assert_eq!((report.passed, report.failures.len(), report.skipped), (*cases, 0, 0), "{report}");
        // Something was compared, and not only with itself.
        assert!(report.largest_part > 0.0 && report.largest_part <= 1.0);
    }
}

#[test]
fn on_the_interpreter() {
    passes(Device::Interpreter, 0);
}

#[test]
fn in_machine_code() {
    (0..=MAX_OPT_LEVEL).for_each(|level| passes(Device::Cpu, level));
}

/// The copies cover most of the table, and nothing that is left out.
#[test]
fn the_cases_are_a_spread() {
    let mut ops = std::collections::BTreeSet::new();
    for (set, _) in SETS {
        for entry in std::fs::read_dir(data().join(set)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "safetensors") {
                let graph = OnnxGraph::from_file(&Safetensors::open(&path).unwrap()).unwrap();
                assert_eq!(left_out(&graph), None, "{}", path.display());
                ops.extend(graph.nodes.into_iter().map(|n| n.op));
            }
        }
    }
    assert!(ops.len() > 90, "{} ops", ops.len());
}

/// A wrong expected value is a failure: the runner compares.
#[test]
fn wrong_results_are_failures() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("onnx_node");
    std::fs::create_dir(&set).unwrap();
    let name = "test_abs.safetensors";
    let mut bytes = std::fs::read(data().join("onnx_node").join(name)).unwrap();
    // The last byte of the data is the exponent of an element of one of the tensors.
    let last = bytes.len() - 1;
    bytes[last] ^= 0x01;
    std::fs::write(set.join(name), bytes).unwrap();
    let options = Options {
        device: Device::Interpreter,
        grads: false,
        checkpoint: Forced::Nothing,
        opt_level: 0,
        numerics: Numerics::default(),
        float: DType::F32,
        threads: None,
        rules: UserRules::default(),
    };
    let report = run_set("onnx_node", folder.path(), &options).unwrap();
    assert_eq!((report.passed, report.failures.len()), (0, 1), "{report}");
}
