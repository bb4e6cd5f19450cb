//! `tilewright compile`: show a stage.

use crate::compile::Options;
use crate::emit::{Stage, emit};
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
    #[arg(long, default_value_t = crate::compile::DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=i64::from(crate::compile::MAX_OPT_LEVEL)))]
    opt_level: u8,
    /// Write to this file instead of the terminal
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file)?;
    let options = Options { opt_level: args.opt_level, ..Options::host()? };
    let text = emit(&module, args.emit, &options)?;
    match &args.output {
        Some(path) => super::write_file(path, text.as_bytes()),
        None => super::print(&text),
    }
}
