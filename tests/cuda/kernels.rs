//! Every kernel is verified, and runs on the kernel interpreter in the order of the plan.

use crate::models::{cases, compare, levels};
use tilewright_ir::array::Array;
use tilewright_ir::interp_kernel::{self, Data, Tensor};
use tilewright_ir::kernel::verify::verify;
use tilewright_ir::kernel::{Expr, Kernel, Program};
use tilewright_ir::types::{Bindings, DType};
use tilewright_runtime::device::plan::{Origin, Plan, PlannedStep};

fn fresh(dtype: DType, count: usize) -> Data {
    match dtype {
        DType::Bool => Data::Bool(vec![false; count]),
        d if d.is_float() || d.is_block() => Data::Float(vec![f64::NAN; count]),
        _integer => Data::Int(vec![0; count]),
    }
}

fn size(e: &Expr, bindings: &Bindings) -> usize {
    let symbol = |name: &str| bindings.get(name).copied();
    usize::try_from(tilewright_codegen::cpu::clif::eval(e, &symbol).unwrap()).unwrap()
}

fn run(programs: &[Program], plan: &Plan, inputs: &[Array]) -> Result<Vec<Vec<f64>>, String> {
    let load = |a: &Array| Some(Tensor::from_array(a).unwrap().data);
    let mut memory: Vec<Option<Data>> = plan
        .buffers
        .iter()
        .map(|b| match &b.origin {
            Origin::Input(i) => load(&inputs[*i]),
            Origin::Constant(a) => load(a),
            Origin::Work => None,
        })
        .collect();
    for step in &plan.steps {
        match step {
            PlannedStep::Copy { from, to } => memory[*to] = memory[*from].clone(),
            PlannedStep::Launch { program, kernel, arguments, symbols, .. } => {
                let kernel: &Kernel = &programs[*program].kernels[*kernel];
                let bindings: Bindings =
                    kernel.symbols.iter().map(|s| s.name.clone()).zip(symbols.iter().copied()).collect();
                let mut tensors = Vec::new();
                for (buffer, &id) in kernel.arguments.iter().zip(arguments) {
                    let shape: Vec<usize> = buffer.axes.iter().map(|(_, e)| size(e, &bindings)).collect();
                    let count = shape.iter().product();
                    let data = memory[id].clone().unwrap_or_else(|| fresh(buffer.dtype, count));
                    tensors.push(Tensor { shape, data });
                }
                interp_kernel::run(kernel, &mut tensors, &bindings).map_err(|d| format!("{d}\n{kernel}"))?;
                for (tensor, &id) in tensors.into_iter().zip(arguments) {
                    memory[id] = Some(tensor.data);
                }
            }
        }
    }
    let floats = |d: &Data| match d {
        Data::Float(v) => v.clone(),
        Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
        Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
    };
    Ok(plan.results.iter().map(|(id, _)| floats(memory[*id].as_ref().unwrap())).collect())
}

#[test]
fn programs_on_the_kernel_interpreter_compute_what_the_graph_means() {
    for case in cases() {
        let inputs = case.inputs();
        let expected = case.expected(&inputs);
        for level in levels() {
            let (programs, plan) = case.lowered(level);
            let found = run(&programs, &plan, &inputs).unwrap_or_else(|e| panic!("{} level {level}: {e}", case.name));
            compare(&format!("{} level {level}", case.name), &found, &expected, 1e-4);
        }
    }
}

/// Scores of halves are never stored: one kernel has both products, by matrix instructions.
#[test]
fn attention_of_halves_is_one_kernel() {
    for case in cases().into_iter().filter(|c| c.name.starts_with("attention_")) {
        let (programs, plan) = case.lowered(2);
        let launches = plan.steps.iter().filter(|s| matches!(s, PlannedStep::Launch { .. })).count();
        let text: String = programs.iter().flat_map(|p| &p.kernels).map(ToString::to_string).collect();
        let products = text.matches(" via mma_m16n8k16").count();
        assert_eq!((launches, products), (1, 2), "{}\n{text}", case.name);
    }
}

#[test]
fn every_kernel_is_verified() {
    let mut failures = Vec::new();
    let mut count = 0;
    for case in cases() {
        for level in levels() {
            for program in case.lowered(level).0 {
                for kernel in &program.kernels {
                    count += 1;
                    match verify(kernel) {
                        Ok(report) if report.complete() => {}
                        Ok(report) => failures.push(format!("{}: {:?}\n{kernel}", case.name, report.outputs)),
                        Err(d) => failures.push(format!("{}: {d}\n{kernel}", case.name)),
                    }
                }
            }
        }
    }
    failures.iter().for_each(|f| println!("{f}"));
    assert!(failures.is_empty(), "{} of {count} kernels are not proved", failures.len());
}
