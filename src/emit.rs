//! The stages of a compilation as text: one list of names for the command line, tests and snapshots.

use crate::compile::{Options, Target, lower, lower_gpu, regions};
use std::fmt::Write;
use tilewright_codegen::cpu::clif::{asm_text, clif_text};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Kernel, Program, text::print_program};
use tilewright_runtime::plan::{plan_programs, print_plan};

/// What can be shown of a compilation, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Stage {
    /// The graph, verified
    Graph,
    /// The index terms that level 2 leaves of each function
    Optimized,
    /// What level 2 chooses: a body of index terms per kernel, its price, and what else was possible
    Regions,
    /// Programs: buffers, steps and kernels
    Kernel,
    /// Cranelift code of every kernel
    Clif,
    /// Machine code of every kernel, for this processor
    Asm,
    /// CUDA C of whole programs with their launches, for sm_80 unless another GPU is the target
    Cuda,
    /// Memory plans: peak, buffers with their places, steps
    Plan,
}

/// The text of `stage` for the CPU, or for `sm_80` where the stage is a GPU's. It depends on the module and the options
/// alone, but for [`Stage::Asm`].
///
/// Errors: those of the compilation up to that stage.
pub fn emit(module: &Module, stage: Stage, options: &Options) -> Result<String, Diagnostic> {
    emit_for(module, stage, options, Target::Cpu)
}

/// The text of `stage` for a target.
///
/// Errors: those of the compilation up to that stage; `stage-target` for a stage that the target has not.
pub fn emit_for(module: &Module, stage: Stage, options: &Options, target: Target) -> Result<String, Diagnostic> {
    Ok(emit_with_warnings(module, stage, options, target)?.0)
}

/// [`emit_for`], and what the lowering warns of, if the stage comes after it.
///
/// Errors: those of [`emit_for`].
pub fn emit_with_warnings(
    module: &Module,
    stage: Stage,
    options: &Options,
    target: Target,
) -> Result<(String, Vec<Diagnostic>), Diagnostic> {
    if let (Stage::Clif | Stage::Asm | Stage::Plan, Some(isa)) = (stage, target.gpu()) {
        return Err(Diagnostic::new("stage-target", format!("this stage is the CPU's, found the target {isa}")));
    }
    if stage == Stage::Graph {
        tilewright_ir::verify::verify(module)?;
        return Ok((tilewright_ir::text::print(module), Vec::new()));
    }
    if let Stage::Optimized | Stage::Regions = stage {
        return Ok((regions(module, options, target, stage == Stage::Regions)?, Vec::new()));
    }
    let gpu = target.gpu().or((stage == Stage::Cuda).then_some("sm_80"));
    let programs = match gpu {
        Some(isa) => lower_gpu(module, options.opt_level, isa)?,
        None => lower(module, options)?,
    };
    let mut out = String::new();
    match stage {
        Stage::Graph | Stage::Optimized | Stage::Regions => {}
        Stage::Kernel => programs.iter().for_each(|p| out.push_str(&print_program(p))),
        Stage::Cuda => out.push_str(&emit_programs(&programs)?.text),
        Stage::Clif => each_kernel(&programs, &mut out, |k| clif_text(k, options.isa))?,
        Stage::Asm => each_kernel(&programs, &mut out, |k| asm_text(k, options.isa))?,
        Stage::Plan => {
            let names: Vec<&str> = programs.iter().map(|p| &*p.name).collect();
            for (program, plan) in programs.iter().zip(&plan_programs(&programs)?) {
                out.push_str(&print_plan(program, plan, &names)?);
            }
        }
    }
    Ok((out, programs.into_iter().flat_map(|p| p.warnings).collect()))
}

fn each_kernel(
    programs: &[Program],
    out: &mut String,
    text: impl Fn(&Kernel) -> Result<String, Diagnostic>,
) -> Result<(), Diagnostic> {
    for program in programs {
        for kernel in &program.kernels {
            // Writing to a string does not fail.
            let _ = writeln!(out, "; @{} {}\n{}", program.name, kernel.name, text(kernel)?);
        }
    }
    Ok(())
}
