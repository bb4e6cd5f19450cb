//! The stages of a compilation as text: one list of names for the command line, tests and snapshots.

use crate::compile::{Options, Target, optimized_with_notes, regions, verified_programs};
use std::fmt::Write;
use tilewright_codegen::cpu::clif::{asm_text, clif_text};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Kernel, Program, text::print_program};
use tilewright_ir::op::GraphOp;
use tilewright_ir::verify::Verified;
use tilewright_runtime::plan::{plan_programs, print_plan};

/// What can be shown of a compilation, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Stage {
    /// The graph, verified
    Graph,
    /// The graph that level 2 leaves, with comments where its kernels begin
    Optimized,
    /// What level 2 chooses: a body of index terms per kernel, its price, and what else was possible
    Regions,
    /// Programs: buffers, steps and kernels
    Kernel,
    /// Cranelift code of every kernel
    Clif,
    /// Machine code of every kernel, for this processor
    Asm,
    /// CUDA C of whole programs with their launches; the target is sm_80 unless another GPU is named. A `cond` or `scan`,
    /// which a device cannot run, is a comment and a warning
    Cuda,
    /// Memory plans: peak, buffers with their places, steps
    Plan,
}

impl Stage {
    /// Its name on the command line and in cases.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Graph => "graph",
            Stage::Optimized => "optimized",
            Stage::Regions => "regions",
            Stage::Kernel => "kernel",
            Stage::Clif => "clif",
            Stage::Asm => "asm",
            Stage::Cuda => "cuda",
            Stage::Plan => "plan",
        }
    }

    /// What is done to show it once there are programs.
    fn written(self) -> &'static str {
        match self {
            Stage::Graph | Stage::Optimized | Stage::Regions | Stage::Kernel => "printing",
            Stage::Clif | Stage::Asm => "writing machine code",
            Stage::Cuda => "writing CUDA C",
            Stage::Plan => "planning memory",
        }
    }

    /// What the stage is shown for where nobody names a target: `sm_80` for a stage of GPUs, else the CPU.
    pub fn default_target(self) -> Target {
        if self == Stage::Cuda { Target::Sm80 } else { Target::Cpu }
    }

    /// Errors: `stage-target` where `target` does not come through this stage.
    pub(crate) fn check_target(self, target: Target) -> Result<(), Diagnostic> {
        let only = match self {
            Stage::Clif | Stage::Asm | Stage::Plan if target.gpu().is_some() => "cpu",
            Stage::Cuda if target.gpu().is_none() => "sm_80, sm_89 or sm_90a",
            _every_target => return Ok(()),
        };
        let (stage, found) = (self.name(), target.name());
        let message = format!("the stage `{stage}` needs the target {only}, found `{found}`");
        Err(Diagnostic::new("stage-target", message))
    }
}

/// The text of `stage` for the CPU, or for `sm_80` where the stage is a GPU's. It depends on the module and the options
/// alone, but for [`Stage::Asm`].
///
/// Errors: those of the compilation up to that stage.
pub fn emit(module: &Module, stage: Stage, options: &Options) -> Result<String, Diagnostic> {
    emit_for(module, stage, options, stage.default_target())
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
    emit_saying(Verified::new(module)?, stage, options, target, &|_| {})
}

/// [`emit_with_warnings`]; `say` hears what is done next.
pub(crate) fn emit_saying(
    module: Verified<&Module>,
    stage: Stage,
    options: &Options,
    target: Target,
    say: &dyn Fn(&'static str),
) -> Result<(String, Vec<Diagnostic>), Diagnostic> {
    stage.check_target(target)?;
    say("choosing kernels");
    if stage == Stage::Graph {
        return Ok((tilewright_ir::text::print(&module), Vec::new()));
    }
    if stage == Stage::Optimized {
        return Ok((optimized_with_notes(&module, options, target)?.1, Vec::new()));
    }
    if stage == Stage::Regions {
        return Ok((regions(&module, options, target)?, Vec::new()));
    }
    let programs = verified_programs(module, options, target)?;
    say(stage.written());
    let text = program_text(stage, &programs, options)?;
    let mut warnings: Vec<Diagnostic> = programs.into_iter().flat_map(|p| p.warnings).collect();
    if stage == Stage::Cuda {
        warnings.extend(host_steps(&module));
    }
    Ok((text, warnings))
}

/// A warning if there is a `cond` or `scan`: the text has their kernels, but the host would have to be between them.
fn host_steps(module: &Module) -> Option<Diagnostic> {
    let mut found = Vec::new();
    for f in module.functions.values() {
        let live = f.nodes.iter().zip(f.live()).filter(|(_, live)| *live);
        found.extend(live.map(|(n, _)| n).filter(|n| matches!(n.op, GraphOp::Cond { .. } | GraphOp::Scan { .. })));
    }
    let first = found.first()?;
    let op = first.op.info().name;
    let message = format!("programs on a device have no `{op}`: it is a comment beside the kernels of its functions");
    let d = Diagnostic::warning("device-unsupported", message);
    let d = first.places.iter().take(1).fold(d, |d, p| d.at(p.clone(), format!("in this `{op}`")));
    Some(if found.len() > 1 { d.note(format!("and in {} more", found.len() - 1)) } else { d })
}

/// The text of a stage that comes after the lowering.
pub(crate) fn program_text(stage: Stage, programs: &[Program], options: &Options) -> Result<String, Diagnostic> {
    let mut out = String::new();
    match stage {
        Stage::Graph | Stage::Optimized | Stage::Regions => {
            return Err(Diagnostic::bug("a stage before the lowering is no text of programs"));
        }
        Stage::Kernel => programs.iter().for_each(|p| out.push_str(&print_program(p))),
        Stage::Cuda => out.push_str(&emit_programs(programs)?.text),
        Stage::Clif => each_kernel(programs, &mut out, |k| clif_text(k, options.isa))?,
        Stage::Asm => each_kernel(programs, &mut out, |k| asm_text(k, options.isa))?,
        Stage::Plan => {
            let names: Vec<&str> = programs.iter().map(|p| &*p.name).collect();
            for (program, plan) in programs.iter().zip(&plan_programs(programs)?) {
                out.push_str(&print_plan(program, plan, &names)?);
            }
        }
    }
    Ok(out)
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

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::{Stage, Target};
    use clap::ValueEnum;

    #[test]
    fn stages_and_targets_have_their_names_on_the_command_line() {
        for stage in Stage::value_variants() {
            let name = stage.to_possible_value().map(|v| v.get_name().to_string());
            assert_eq!(name.as_deref(), Some(stage.name()));
        }
        for target in Target::value_variants() {
            let name = target.to_possible_value().map(|v| v.get_name().to_string());
            assert_eq!(name.as_deref(), Some(target.name()));
        }
    }
}
