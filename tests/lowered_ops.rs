//! Every op program lowered to kernels, which run on the kernel interpreter, against the reference interpreter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::collections::BTreeMap;
use std::path::Path;
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::interp_kernel::{self, Data, Tensor};
use tilewright_ir::kernel::{Pack, Program, ProgramBuffer, Step};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::{Target, lower_module};

/// The buffers of a run; names that share memory share the tensor of the oldest.
struct Buffers<'p> {
    program: &'p Program,
    bindings: Bindings,
    data: BTreeMap<String, Data>,
}

impl Buffers<'_> {
    fn base(&self, name: &str) -> String {
        let mut at = name.to_string();
        while let Some(next) = self.program.work.iter().find(|b| *b.name == *at).and_then(|b| b.alias_of.clone()) {
            at = next.to_string();
        }
        at
    }

    fn buffer(&self, name: &str) -> &ProgramBuffer {
        let params = self.program.params.iter().map(|p| &p.buffer);
        params.chain(&self.program.work).find(|b| *b.name == *name).unwrap()
    }

    fn pack(&mut self, pack: &Pack) -> Result<(), String> {
        let Some(Data::Float(from)) = self.data.get(&self.base(&pack.from)).cloned() else {
            return Err("packs no floats".into());
        };
        let at = |d: &tilewright_ir::types::Dim| d.eval(&self.bindings).map(|v| usize::try_from(v).unwrap());
        let (k, n, ks, ns) = (at(&pack.k)?, at(&pack.n)?, at(&pack.k_stride)?, at(&pack.n_stride)?);
        let mut to = vec![0.0; n.div_ceil(pack.nr) * k * pack.nr];
        for p in 0..k {
            for j in 0..n {
                to[(j / pack.nr * k + p) * pack.nr + j % pack.nr] = from[p * ks + j * ns];
            }
        }
        self.data.insert(pack.to.to_string(), Data::Float(to));
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let launch = match step {
            Step::Launch(launch) => launch,
            Step::Pack(pack) => return self.pack(pack),
            Step::Call(call) => return Err(format!("calls {}", call.function)),
            Step::Cond(cond) => return Err(format!("calls {}", cond.yes.function)),
            Step::Scan(scan) => return Err(format!("calls {}", scan.body.function)),
        };
        let kernel = &self.program.kernels[launch.kernel];
        let text = || tilewright_ir::kernel::text::print_kernel(kernel);
        let again = tilewright_ir::kernel::text::parse_kernel("k", &text()).map_err(|d| format!("{d}\n{}", text()))?;
        assert_eq!(tilewright_ir::kernel::text::print_kernel(&again), text());
        let mut tensors = Vec::new();
        for (name, buffer) in launch.arguments.iter().zip(&kernel.arguments) {
            let shape: Vec<usize> = buffer.axes.iter().map(|(_, e)| size(e, &self.bindings)).collect();
            let count = shape.iter().product();
            let fresh = || match buffer.dtype {
                DType::Bool => Data::Bool(vec![false; count]),
                d if d.is_float() => Data::Float(vec![f64::NAN; count]),
                _integer => Data::Int(vec![0; count]),
            };
            let data = self.data.get(&self.base(name)).cloned().unwrap_or_else(fresh);
            tensors.push(Tensor { shape, data });
        }
        interp_kernel::run(kernel, &mut tensors, &self.bindings).map_err(|d| format!("{d}\n{}", text()))?;
        for (name, tensor) in launch.arguments.iter().zip(tensors) {
            self.data.insert(self.base(name), tensor.data);
        }
        Ok(())
    }
}

fn size(e: &tilewright_ir::kernel::Expr, bindings: &Bindings) -> usize {
    use tilewright_ir::kernel::{BinaryOp, Expr};
    use tilewright_ir::op::ScalarOp;
    fn eval(e: &Expr, b: &Bindings) -> i64 {
        match e {
            Expr::Int(n) => *n,
            Expr::Name(n) => b[n],
            Expr::Scalar(ScalarOp::Add {}, x) => eval(&x[0], b) + eval(&x[1], b),
            Expr::Scalar(ScalarOp::Mul {}, x) => eval(&x[0], b) * eval(&x[1], b),
            Expr::Binary(BinaryOp::Ceil, x, y) => up(eval(x, b), eval(y, b)),
            Expr::Binary(BinaryOp::Floor, x, y) => eval(x, b).div_euclid(eval(y, b)),
            other => panic!("{other:?}"),
        }
    }
    usize::try_from(eval(e, bindings)).unwrap()
}

fn check(module: &Module, inputs: &[Array], level: u8, isa: &'static str) -> Result<usize, String> {
    let programs = lower_module(module, level, &Target { isa }).map_err(|d| d.to_string())?;
    let entry = module.entry().unwrap();
    let program = programs.iter().find(|p| p.name == entry.name).unwrap();
    let exact = run(module, &entry.name, inputs, &Bindings::new(), Mode::Meaning).map_err(|d| d.to_string())?;
    let mut buffers = Buffers { program, bindings: Bindings::new(), data: BTreeMap::new() };
    for (p, array) in program.params.iter().zip(inputs) {
        for (d, n) in p.buffer.ty.shape.iter().zip(array.shape()) {
            if let Some(s) = program.symbols.iter().find(|s| tilewright_ir::types::Dim::symbol(&s.name) == *d) {
                buffers.bindings.insert(s.name.clone(), *n as i64);
            }
        }
        buffers.data.insert(p.buffer.name.to_string(), Tensor::from_array(array).map_err(|d| d.to_string())?.data);
    }
    for (name, array) in &program.constants {
        buffers.data.insert(name.to_string(), Tensor::from_array(array).map_err(|d| d.to_string())?.data);
    }
    for step in &program.steps {
        buffers.step(step)?;
    }
    for (name, want) in program.results.iter().zip(&exact) {
        let found = match &buffers.data[&buffers.base(name)] {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        };
        let want = want.to_f64().unwrap();
        let _ty = &buffers.buffer(name).ty;
        let close =
            |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()) || a == b || (a.is_nan() && b.is_nan());
        if found.len() != want.len() || !found.iter().zip(&want).all(close) {
            let bad = found.iter().zip(&want).position(|p| !close(p));
            return Err(format!("result {name} differs at {bad:?}: {found:.4?} instead of {want:.4?}"));
        }
    }
    Ok(program.kernels.len())
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

fn up(a: i64, b: i64) -> i64 {
    (a + b - 1).div_euclid(b)
}
