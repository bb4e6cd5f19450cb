//! Every op program lowered to kernels, which run on the kernel interpreter, against the reference interpreter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/program.rs"]
mod program;

use std::path::Path;
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright::programs;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::interp_kernel::Data;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::{Target, lower_module};

fn check(module: &Module, inputs: &[Array], level: u8, isa: &'static str) -> Result<usize, String> {
    let programs = lower_module(module, level, &Target { isa }).map_err(|d| d.to_string())?;
    let entry = module.entry().unwrap();
    let exact = run(module, &entry.name, inputs, &Bindings::new(), Mode::Meaning).map_err(|d| d.to_string())?;
    programs.iter().flat_map(|p| &p.kernels).try_for_each(program::check)?;
    let found = programs::run(&programs, &entry.name, inputs, &Bindings::new()).map_err(|d| d.to_string())?;
    for (i, (found, want)) in found.iter().zip(&exact).enumerate() {
        let found = match &found.data {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        };
        let want = want.to_f64().unwrap();
        let close =
            |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()) || a == b || (a.is_nan() && b.is_nan());
        if found.len() != want.len() || !found.iter().zip(&want).all(close) {
            let bad = found.iter().zip(&want).position(|p| !close(p));
            return Err(format!("result {i} differs at {bad:?}: {found:.4?} instead of {want:.4?}"));
        }
    }
    Ok(programs.iter().map(|p| p.kernels.len()).sum())
}

fn all(level: u8, isa: &'static str) -> usize {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ops"));
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    let (mut kernels, mut failures) = (0, Vec::new());
    for case in index.as_array().unwrap() {
        let file = Safetensors::open(data.join(case["file"].as_str().unwrap())).unwrap();
        let program = OpProgram::from_file(&file, DType::F32).unwrap();
        let inputs = program.read_inputs(&file).unwrap();
        match check(&program.module, &inputs, level, isa) {
            Ok(n) => kernels += n,
            Err(e) => failures.push(format!("{}: {}", case["name"], e.chars().take(1800).collect::<String>())),
        }
    }
    for f in &failures {
        println!("{f}");
    }
    assert!(failures.is_empty(), "{} op programs fail", failures.len());
    kernels
}

#[test]
fn a_kernel_per_op_and_fused_kernels_compute_what_the_graph_means() {
    let (single, fused, chosen) = (all(0, "avx512"), all(1, "avx512"), all(2, "avx512"));
    println!("{single} kernels without fusion, {fused} with, {chosen} chosen by price");
    assert!(fused * 2 < single, "{fused} of {single}");
}

#[test]
fn kernels_for_gpus_compute_what_the_graph_means() {
    let (single, fused, chosen) = (all(0, "sm_80"), all(1, "sm_80"), all(2, "sm_80"));
    println!("{single} kernels without fusion, {fused} with, {chosen} chosen by price");
    assert!(fused * 2 < single, "{fused} of {single}");
}
