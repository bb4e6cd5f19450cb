//! What level 2 leaves of a module is a module: it means the same, is read back from its text, compiles and runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::Path;
use std::process::Command;
use tilewright::compile::{Options, Target, compile, optimized_with_notes};
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::egraph::Numerics;

fn options() -> Options {
    let numerics = Numerics::default();
    Options { opt_level: 2, numerics, threads: 1, isa: Isa::best(), ..Options::host().unwrap() }
}

/// The optimised module, read back from its text with the comments in it.
fn optimised(module: &Module) -> Module {
    let (found, text) = optimized_with_notes(module, &options(), Target::Cpu).unwrap_or_else(|d| panic!("{d}"));
    let again = parse("optimized", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    assert_eq!(difference(&found, &again), None, "{text}");
    again
}

fn agree(found: &[Array], want: &[Array], what: &dyn Fn() -> String) {
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(want) {
        assert_eq!((found.dtype(), found.shape()), (want.dtype(), want.shape()));
        let (found, want) = (found.to_f64().unwrap(), want.to_f64().unwrap());
        let near =
            |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()) || a == b || (a.is_nan() && b.is_nan());
        assert!(found.iter().zip(&want).all(near), "{found:.4?} instead of {want:.4?}\n{}", what());
    }
}

#[test]
fn op_programs_come_back() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ops"));
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    for case in index.as_array().unwrap() {
        let file = Safetensors::open(data.join(case["file"].as_str().unwrap())).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let program = OpProgram::from_file(&file, dtype).unwrap();
            let inputs = program.read_inputs(&file).unwrap();
            let back = optimised(&program.module);
            let name = &program.module.entry().unwrap().name;
            let want = run(&program.module, name, &inputs, &Bindings::new(), Mode::Meaning).unwrap();
            let found = run(&back, name, &inputs, &Bindings::new(), Mode::Meaning);
            let found = found.unwrap_or_else(|d| panic!("{d}\n{}", print(&back)));
            agree(&found, &want, &|| format!("{}\n{}", case["name"], print(&back)));
        }
    }
}

/// Small values; of block encodings, small scales and any quants.
fn sample(seed: usize, ty: &Type, bindings: &Bindings) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    let f = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f64 / 400.0 - 0.1;
    match ty.dtype {
        DType::I64 => Array::from_i64(&shape, &(0..n).map(|i| ((i * 7 + seed) % 3) as i64).collect::<Vec<_>>()),
        DType::F32 => Array::from_f32(&shape, &(0..n).map(|i| f(i) as f32).collect::<Vec<_>>()),
        DType::F64 => Array::from_f64(&shape, &(0..n).map(f).collect::<Vec<_>>()),
        encoded => {
            let block = encoded.block().1;
            // Scale and minimum in front.
            let byte = |i: usize| if i % block < 4 { 0x18 } else { (i * 37 + seed) as u8 };
            let bytes = (0..encoded.bytes(n).unwrap()).map(byte).collect::<Vec<u8>>();
            Array::new(encoded, &shape, Bytes::new(bytes))
        }
    }
    .unwrap()
}

/// Whole models and blocks that the DSL wrote, on the interpreter and as machine code of what came back.
#[test]
fn models_come_back() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/programs"));
    for (file, sizes) in [
        ("gpt2.tw", vec![("seq", 5), ("past", 3)]),
        ("gpt2.tw", vec![("seq", 1), ("past", 0)]),
        ("llama_q4_1.tw", vec![("seq", 4), ("past", 2)]),
        ("swiglu.tw", vec![("n", 3)]),
        ("attention.tw", vec![("n", 7)]),
        ("layer_norm.tw", vec![("n", 3)]),
        ("softmax.tw", vec![("n", 2)]),
    ] {
        let module = parse(file, &std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        let back = optimised(&module);
        let bindings: Bindings = sizes.iter().map(|(n, v)| ((*n).into(), *v)).collect();
        let f = module.entry().unwrap();
        let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &bindings)).collect();
        let want = run(&module, &f.name, &inputs, &bindings, Mode::Meaning).unwrap();
        let found = run(&back, &f.name, &inputs, &bindings, Mode::Meaning);
        let text = || format!("{file}\n{}", print(&back));
        agree(&found.unwrap_or_else(|d| panic!("{d}\n{}", text())), &want, &text);
        let compiled = compile(&back, &options()).unwrap_or_else(|d| panic!("{d}\n{}", text()));
        agree(&compiled.run(&inputs, &bindings).unwrap(), &want, &text);
        let dots = |m: &Module| {
            let nodes = m.functions.values().flat_map(|f| &f.nodes);
            nodes.filter(|n| n.op.info().name == "dot").count()
        };
        assert_eq!(dots(&module), dots(&back), "{}", text());
    }
}

/// The file that `compile --emit optimized` writes is one that `run` takes.
#[test]
fn what_is_printed_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("optimized.tw");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/programs/swiglu.tw");
    let tilewright = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    tilewright(&["compile", source, "--emit", "optimized", "-o", file.to_str().unwrap()]);
    assert!(std::fs::read_to_string(&file).unwrap().contains("// kernel"));
    for level in ["0", "2"] {
        tilewright(&["run", file.to_str().unwrap(), "--set", "n=3", "--opt-level", level]);
    }
}
