//! `tilewright vmap`: the program of many examples, from that of one.

use super::compile::Shown;
use super::progress::stage;
use crate::emit::Stage;
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::SymbolDecl;
use tilewright_ir::verify::Verified;
use tilewright_passes::vmap::{Count, batch};

/// Arguments of `vmap`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    file: PathBuf,
    /// Parameters that get an axis of examples, and where: x,y=1; the place is 0 if absent. Others are the same for all
    /// examples
    #[arg(long, value_delimiter = ',', required = true)]
    in_axes: Vec<String>,
    /// How many examples: a number, or a size and its range
    #[arg(long, default_value = "examples=1..=1024")]
    count: String,
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
    let axes = args.in_axes.iter().map(|text| axis(text)).collect::<Result<Vec<(&str, usize)>, Diagnostic>>()?;
    let count = count(&args.count)?;
    args.shown.check()?;
    stage("batching");
    let made = batch(&module, &axes, &count).map_err(|d| match d.code {
        "duplicate-name" => d.note("`--count NAME=LOW..=HIGH` gives it one"),
        _ => d,
    })?;
    args.shown.show(Verified::new(&made)?, args.emit)
}

/// `x` or `x=1`.
fn axis(text: &str) -> Result<(&str, usize), Diagnostic> {
    let Some((name, axis)) = text.rsplit_once('=') else { return Ok((text, 0)) };
    let wrong = || Diagnostic::new("bad-argument", format!("--in-axes: expected NAME or NAME=AXIS, found `{text}`"));
    axis.parse().map(|axis| (name, axis)).map_err(|_| wrong())
}

/// `32`, or `n=1..=64`.
fn count(text: &str) -> Result<Count, Diagnostic> {
    let wrong =
        || Diagnostic::new("bad-argument", format!("--count: expected a number or NAME=LOW..=HIGH, found `{text}`"));
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= 0);
    let Some((name, range)) = text.split_once('=') else { return number(text).map(Count::Fixed).ok_or_else(wrong) };
    let (low, high) = range.split_once("..=").ok_or_else(wrong)?;
    let (low, high) = number(low).zip(number(high)).filter(|(low, high)| low <= high).ok_or_else(wrong)?;
    Ok(Count::Symbol(SymbolDecl::new(name, low, high)))
}
