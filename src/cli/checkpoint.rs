//! `tilewright checkpoint`: the derivative of a program within a budget of memory, as a program.

use super::compile::Shown;
use super::grad::{Form, floats, unrelated};
use super::inputs::sizes_of;
use super::progress::stage;
use crate::checkpoint::{Budget, within};
use crate::emit::Stage;
use crate::formats::{check_writable, write_whole};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::verify::Verified;

/// Arguments of `checkpoint`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    file: PathBuf,
    /// Most bytes of the planned arena, such as 500000000 or 500M, or a part of what it is without, such as 25%; `sqrt`: about sqrt(n)
    /// segments of a chain of n blocks; `min`: as little as can be had; `none`
    #[arg(long, value_name = "BYTES|PART%|sqrt|min|none")]
    memory: Budget,
    /// Parameters to differentiate by, such as w,b; all floats if absent
    #[arg(long, value_delimiter = ',')]
    wrt: Vec<String>,
    /// What the program computes
    #[arg(long, value_enum, default_value_t = Form::Gradient)]
    form: Form,
    /// Value of a symbol, such as seq=16, for which memory and operations are counted; may be repeated
    #[arg(long = "set", value_name = "SYMBOL=VALUE")]
    set: Vec<String>,
    /// Write the curve of memory against operations to this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What to show after the report, which goes to standard error: `graph` is a .tw file, which `run` and `compile` take
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
    args.svg.as_deref().map_or(Ok(()), check_writable)?;
    let wrt = if args.wrt.is_empty() { floats(&module)? } else { args.wrt.clone() };
    let wrt: Vec<&str> = wrt.iter().map(String::as_str).collect();
    let sizes = sizes_of(&args.set, &module, module.entry()?)?;
    let options = args.shown.options()?;
    let progress = |done, of| stage(&format!("costing {} of {of} ways to differentiate", done + 1));
    let curve = within(&module, &wrt, args.form.one()?, (args.memory, &sizes), &options, &progress)?;
    unrelated(&curve.unrelated);
    super::note(&curve.to_string());
    if let Some(path) = &args.svg {
        write_whole(path, |out| out.write_all(curve.svg().as_bytes()))?;
    }
    args.shown.show(Verified::new(&curve.module)?, args.emit)
}
