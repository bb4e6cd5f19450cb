//! `tilewright compile`: show a stage.

use super::options::CompileArgs;
use crate::compile::{Options, Target};
use crate::emit::{Stage, emit_saying};
use crate::formats::{check_writable, write_whole};
use crate::snapshot::{Settings, take};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::verify::Verified;

/// Arguments of `compile`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    file: PathBuf,
    /// What to show
    #[arg(long, value_enum, default_value_t = Stage::Kernel)]
    emit: Stage,
    /// Only this function and those that it calls; every function if absent. Symbols stay symbols: the code is for every
    /// size in their ranges
    #[arg(long)]
    function: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

/// How a stage is made and where it goes.
#[derive(clap::Args)]
pub(super) struct Shown {
    /// What to compile for; the CPU if absent, sm_80 for the stage `cuda`
    #[arg(long, value_enum)]
    target: Option<Target>,
    #[command(flatten)]
    compile: CompileArgs,
    /// Write a snapshot, which `diff` compares: the stage under a header of facts, for the instruction set avx512 whatever
    /// this machine has
    #[arg(long)]
    snapshot: bool,
    /// Write to this file instead of the terminal
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file, args.function.as_deref())?;
    args.shown.check()?;
    args.shown.show(module.by_ref(), args.emit)?;
    // The process ends: to give back each node of a large module would be work for nobody.
    std::mem::forget(module);
    Ok(())
}

impl Shown {
    /// How to compile. Errors: those of the options.
    pub(super) fn options(&self) -> Result<Options, Diagnostic> {
        self.compile.options()
    }

    /// Whether the output can be written, before any work. Errors: those of [`check_writable`].
    pub(super) fn check(&self) -> Result<(), Diagnostic> {
        self.output.as_deref().map_or(Ok(()), check_writable)
    }

    /// Shows a stage of `module`, with warnings beside it. Errors: those of the compiler and of writing.
    pub(super) fn show(&self, module: Verified<&Module>, stage: Stage) -> Result<(), Diagnostic> {
        let options = self.compile.options()?;
        let target = self.target.unwrap_or(stage.default_target());
        let text = if self.snapshot {
            let settings = Settings::of(&options).target(target).stages([stage]);
            take(&module, &settings)?.into_iter().map(|(_, snapshot)| snapshot.to_string()).collect()
        } else {
            let (text, warnings) = emit_saying(module, stage, &options, target, &super::progress::stage)?;
            warnings.iter().for_each(|w| super::note(&format!("{w}\n")));
            text
        };
        match &self.output {
            Some(path) => write_whole(path, |out| out.write_all(text.as_bytes())),
            None => super::print(&text),
        }
    }
}
