//! The set `train` on small runs of other sizes than those of the reference data, which its generator made.

use std::path::{Path, PathBuf};
use tilewright::conformance::{Device, Forced, Options, Report, run_set};
use tilewright_ir::types::DType;
use tilewright_passes::egraph::{Numerics, UserRules};

fn options(device: Device, opt_level: u8) -> Options {
    Options {
        device,
        grads: false,
        checkpoint: Forced::Nothing,
        opt_level,
        numerics: Numerics::default(),
        float: device.float(),
        threads: Some(2),
        rules: UserRules::default(),
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn run(data: &Path, options: &Options) -> Report {
    run_set("train", data, options).unwrap_or_else(|d| panic!("{d}"))
}

#[test]
fn runs_agree_on_the_interpreter_in_f64() {
    let report = run(&data(), &options(Device::Interpreter, 2));
    assert_eq!(report.to_string(), "train on interpreter: 2 passed, 0 failed, 0 skipped", "{:?}", report.failures);
}

#[test]
fn runs_agree_as_machine_code_in_f32() {
    for level in [1, 2] {
        let report = run(&data(), &options(Device::Cpu, level));
        assert_eq!(report.to_string(), "train on cpu: 2 passed, 0 failed, 0 skipped", "{:?}", report.failures);
    }
}

#[test]
fn runs_agree_where_blocks_are_computed_again() {
    for device in [Device::Interpreter, Device::Cpu] {
        let report = run(&data(), &Options { checkpoint: Forced::Blocks, ..options(device, 2) });
        assert!(report.passed == 2 && report.failures.is_empty(), "{:?}", report.failures);
    }
}

#[test]
fn a_run_with_another_rate_fails() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("train");
    std::fs::create_dir(&there).unwrap();
    let text = std::fs::read_to_string(data().join("train/gpt_one_layer.json")).unwrap();
    std::fs::write(there.join("a.json"), text.replace("\"lr\": 0.01,", "\"lr\": 0.0101,")).unwrap();
    std::fs::copy(data().join("train/gpt_one_layer.safetensors"), there.join("a.safetensors")).unwrap();
    let report = run(folder.path(), &options(Device::Interpreter, 2));
    assert_eq!(report.failures.len(), 1);
    let reason = &report.failures[0].reason;
    assert!(reason.contains("lr: error") && reason.contains("final.wte: error"), "{reason}");
    assert!(!reason.contains("grad0"), "{reason}");
}

#[test]
fn bad_folders_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("train")).unwrap();
    let options = Options { float: DType::F16, ..options(Device::Interpreter, 2) };
    assert_eq!(run_set("train", folder.path(), &options).unwrap_err().code, "conformance-set");
    let options = Options { float: DType::F64, ..options };
    assert_eq!(run_set("train", folder.path(), &options).unwrap_err().code, "conformance-set");
    std::fs::write(folder.path().join("train/a.json"), "{}").unwrap();
    let report = run(folder.path(), &options);
    assert!(report.failures[0].reason.contains("config"), "{:?}", report.failures);
}
