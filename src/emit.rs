//! The stages of a compilation as text: one list of names for the command line, tests and snapshots.

use crate::compile::{Options, lower};
use std::fmt::Write;
use tilewright_codegen::cpu::clif::{asm_text, clif_text};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Kernel, text::print_program};

/// What can be shown of a compilation, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Stage {
    /// The graph, verified
    Graph,
    /// Programs: buffers, steps and kernels
    Kernel,
    /// Cranelift code of every kernel
    Clif,
    /// Machine code of every kernel, for this processor
    Asm,
}

/// The text of `stage`. It depends on the module and the options alone, but for [`Stage::Asm`].
///
/// Errors: those of the compilation up to that stage.
pub fn emit(module: &Module, stage: Stage, options: &Options) -> Result<String, Diagnostic> {
    let mut out = String::new();
    match stage {
        Stage::Graph => {
            tilewright_ir::verify::verify(module)?;
            out.push_str(&tilewright_ir::text::print(module));
        }
        Stage::Kernel => lower(module, options)?.iter().for_each(|p| out.push_str(&print_program(p))),
        Stage::Clif => each_kernel(module, options, &mut out, |k| clif_text(k, options.isa))?,
        Stage::Asm => each_kernel(module, options, &mut out, |k| asm_text(k, options.isa))?,
    }
    Ok(out)
}

fn each_kernel(
    module: &Module,
    options: &Options,
    out: &mut String,
    text: impl Fn(&Kernel) -> Result<String, Diagnostic>,
) -> Result<(), Diagnostic> {
    for program in lower(module, options)? {
        for kernel in &program.kernels {
            // Writing to a string does not fail.
            let _ = writeln!(out, "; @{} {}\n{}", program.name, kernel.name, text(kernel)?);
        }
    }
    Ok(())
}
