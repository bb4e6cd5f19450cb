//! `tilewright compile`: show a stage.

use crate::compile::{Options, lower};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;

/// Arguments of `compile`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program (.safetensors)
    file: PathBuf,
    /// What to show
    #[arg(long, value_enum, default_value_t = Stage::Kernel)]
    emit: Stage,
    /// 0: each primitive alone; 1: fusion in a fixed order
    #[arg(long, default_value_t = crate::compile::DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=1))]
    opt_level: u8,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Stage {
    /// The graph, verified
    Graph,
    /// Programs: buffers, steps and kernels
    Kernel,
    /// Cranelift code of every kernel
    Clif,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file)?;
    tilewright_ir::verify::verify(&module)?;
    let options = Options { opt_level: args.opt_level, ..Options::host()? };
    match args.emit {
        Stage::Graph => print!("{}", tilewright_ir::text::print(&module)),
        Stage::Kernel => {
            for program in lower(&module, &options)? {
                print!("{}", tilewright_ir::kernel::text::print_program(&program));
            }
        }
        Stage::Clif => {
            for kernel in lower(&module, &options)?.iter().flat_map(|p| &p.kernels) {
                println!("{}", tilewright_codegen::cpu::clif::clif_text(kernel)?);
            }
        }
    }
    Ok(())
}
