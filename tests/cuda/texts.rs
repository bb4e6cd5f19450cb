//! The text of programs as snapshots, and through NVRTC for every target.

use crate::models::{cases, halves, level_options, levels, swiglu};
use std::path::Path;
use std::process::Command;
use tilewright::compile::{Options, Target};
use tilewright::emit::{Stage, emit, emit_for};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::types::DType;
use tilewright_passes::egraph::Numerics;
use tilewright_runtime::device::cuda::{Nvrtc, per_kernel};

/// The text of a program whose lines are those of a file, not of a test.
fn snapshot(name: &str) {
    let path = format!("{}/tests/data/programs/{name}.tw", env!("CARGO_MANIFEST_DIR"));
    let module = &tilewright_ir::text::parse(&format!("{name}.tw"), &std::fs::read_to_string(path).unwrap()).unwrap();
    let options = Options { opt_level: 1, ..Options::host().unwrap() };
    let text = emit(module, Stage::Cuda, &options).unwrap();
    assert_eq!(text, emit_for(module, Stage::Cuda, &options, Target::Sm80).unwrap());
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn text_of_pointwise() {
    snapshot("pointwise");
}

#[test]
fn text_of_softmax() {
    snapshot("softmax");
}

#[test]
fn text_of_layer_norm() {
    snapshot("layer_norm");
}

#[test]
fn text_of_swiglu() {
    snapshot("swiglu");
}

#[test]
fn text_of_attention() {
    snapshot("attention");
}

/// Every kernel of every program for every target: registers, no spills, shared memory.
#[test]
fn every_program_compiles_under_nvrtc() {
    let nvrtc = match Nvrtc::load() {
        Ok(nvrtc) => nvrtc,
        Err(d) => {
            assert_eq!(d.code, "nvrtc-missing");
            println!("SKIPPED: {}", d.message);
            return;
        }
    };
    for case in cases() {
        // Level 0 has the same templates, many times.
        for level in levels().skip(1) {
            for isa in ["sm_80", "sm_89", "sm_90a"] {
                let programs = tilewright::compile::lower_gpu(&case.module, &case.options(level), isa).unwrap();
                let emitted = emit_programs(&programs).unwrap();
                let start = std::time::Instant::now();
                let done = nvrtc.compile(&case.name, &emitted.text, isa).unwrap_or_else(|d| panic!("{d}"));
                let ms = start.elapsed().as_secs_f64() * 1e3;
                let kernels = per_kernel(&done.log);
                println!("{} level {level} {isa}: {} kernels in {ms:.0} ms", case.name, kernels.len());
                assert_eq!(kernels.len(), emitted.kernels.iter().flatten().count(), "{}", done.log);
                for (name, u) in kernels {
                    println!("  {name:24} {:3} registers, {:5} B shared", u.registers, u.shared_bytes);
                    assert_eq!((u.spill_stores, u.spill_loads), (0, 0), "{} {isa} {name}", case.name);
                }
            }
        }
    }
}

/// The machine code of a cubin, if `nvdisasm` lies where `scripts/install-nvrtc.sh` puts it, or on the path.
fn machine_code(cubin: &[u8]) -> Option<String> {
    let beside = std::env::var_os("TILEWRIGHT_NVRTC").map(|folder| Path::new(&folder).join("../bin/nvdisasm"));
    let program = beside.filter(|p| p.exists()).unwrap_or_else(|| "nvdisasm".into());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels.cubin");
    std::fs::write(&file, cubin).unwrap();
    let out = Command::new(program).arg(&file).output().ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Products of 16-bit floats, whatever their sizes and layouts, are matrix instructions fed by asynchronous copies.
#[test]
fn products_of_halves_are_matrix_instructions() {
    for (dtype, name) in [(DType::Bf16, "bf16"), (DType::F16, "f16")] {
        let module = halves(dtype);
        for level in levels().skip(1) {
            for isa in ["sm_80", "sm_89", "sm_90a"] {
                let programs = tilewright::compile::lower_gpu(&module, &level_options(level), isa).unwrap();
                let products =
                    programs.iter().flat_map(|p| &p.kernels).map(|k| k.to_string().matches("mma acc").count());
                let text = emit_programs(&programs).unwrap().text;
                let instruction = format!("mma_m16n8k16_{name}(acc");
                // At level 2 scores and their use are one kernel of folds, and by the H100's prices softmax and its product with values.
                let least = if level == 1 { 6 } else { 4 - usize::from(isa == "sm_90a") };
                assert!(products.sum::<usize>() >= least && text.matches(&instruction).count() >= least, "{text}");
                // It may also leave out a rounding, and then factors are no 16-bit floats.
                assert!(level != 1 || !text.contains("fmaf("), "a product without matrix instructions\n{text}");
                let Ok(nvrtc) = Nvrtc::load() else {
                    println!("SKIPPED: machine code, there is no NVRTC");
                    continue;
                };
                let cubin = nvrtc.compile(name, &text, isa).unwrap_or_else(|d| panic!("{d}")).cubin;
                let Some(code) = machine_code(&cubin) else {
                    println!("SKIPPED: machine code, there is no nvdisasm");
                    continue;
                };
                let suffix = if dtype == DType::Bf16 { ".BF16" } else { "" };
                for what in
                    [&format!("HMMA.16816.F32{suffix} "), "LDSM.16.M88.4 ", "LDSM.16.MT88.4 ", "LDGSTS.E.BYPASS.128"]
                {
                    assert!(code.contains(what), "{name} level {level} {isa}: no {what}");
                }
            }
        }
    }
}

#[test]
fn programs_for_gpus_obey_the_numerics() {
    let kernels = |numerics| {
        let options = Options { numerics, ..Options::host().unwrap() };
        emit_for(&swiglu(), Stage::Kernel, &options, Target::Sm80).unwrap()
    };
    assert_ne!(kernels(Numerics::by_name("exact").unwrap()), kernels(Numerics::by_name("approx").unwrap()));
}
