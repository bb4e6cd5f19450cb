//! `tilewright mixed`: a program whose contractions compute in bf16 or f16.

use super::compile::Shown;
use super::options::Compute;
use super::progress::stage;
use crate::emit::Stage;
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::verify::Verified;
use tilewright_passes::mixed::mixed_precision;

/// Arguments of `mixed`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    file: PathBuf,
    /// The dtype of operands and results of contractions in f32; their sums, and all other ops that round, stay f32
    #[arg(long, value_enum)]
    compute: Compute,
    /// What to show: `graph` is a .tw file, which `run`, `compile`, `grad` and `vmap` take
    #[arg(long, value_enum, default_value_t = Stage::Graph)]
    emit: Stage,
    /// The function; if absent `main`, else the last
    #[arg(long)]
    function: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file, args.function.as_deref())?;
    args.shown.check()?;
    stage("casting");
    let made = match args.compute.policy()? {
        Some(policy) => mixed_precision(&module, &policy)?,
        None => module.into_inner(),
    };
    args.shown.show(Verified::new(&made)?, args.emit)
}
