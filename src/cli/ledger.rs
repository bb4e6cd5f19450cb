//! `tilewright ledger`: what a model computes, moves and holds, beside formulas; how long it takes; scaling laws.

use super::inputs::sizes_of;
use super::options::machine;
use super::progress::stage;
use crate::formats::{check_writable, write_whole};
use crate::ledger::{Machine, Question, Subject, ledger, optima, roofline};
use std::path::{Path, PathBuf};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Param, Role};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Device;

/// Arguments of `ledger`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A model by name (gpt2, smollm2-135m, llama-3-8b, ..), a folder with a config.json, a GGUF file, a .tw file, or an op program or
    /// an ONNX graph in a .safetensors file; none with --budget alone
    model: Option<String>,
    /// Count a step of training (gradients, clipping, AdamW) instead of the way forward
    #[arg(long)]
    train: bool,
    /// Count one token more of a sequence, whose others are in caches, as the program that generates computes it
    #[arg(long, conflicts_with_all = ["train", "precision"])]
    decode: bool,
    /// Sequences of a batch; 1 if absent. Of a program the symbol `batch`
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens of a sequence; if absent 1024, or the most of the model. Of a program the symbol `seq`
    #[arg(long)]
    seq: Option<usize>,
    /// Dtype of the weights and of what is computed; f32 if absent. With --decode that of the weights alone
    #[arg(long, value_parser = dtype)]
    dtype: Option<DType>,
    /// Dtype of products alone, with weights and the rest in --dtype: mixed precision, as `train.precision` has it
    #[arg(long, value_parser = dtype)]
    precision: Option<DType>,
    /// Compute blocks again on the way back instead of keeping what is in them
    #[arg(long, requires = "train")]
    checkpoint: bool,
    /// What predictions are for: a name (h200, cpu-avx512, ..) or a file that `calibrate` wrote. This machine's kind if absent
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,
    /// Operations to be spent on training, such as 5.76e23: what scaling laws say of them
    #[arg(long, value_name = "FLOPS", allow_negative_numbers = true)]
    budget: Option<f64>,
    /// Value of a symbol of a program, such as seq=16; may be repeated
    #[arg(long = "set", value_name = "SYMBOL=VALUE")]
    set: Vec<String>,
    /// Write a roofline to this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// JSON, with all layers
    #[arg(long)]
    json: bool,
}

fn dtype(text: &str) -> Result<DType, String> {
    let found = text.parse::<DType>().ok().filter(|d| d.is_float());
    found.ok_or_else(|| "expected f32, bf16, f16 or f64".into())
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let Some(model) = &args.model else {
        let budget = args.budget.ok_or_else(|| Diagnostic::new("usage", "expected a model, or --budget"))?;
        let found = optima(budget)?;
        return super::print(&if args.json { json(&found)? } else { found.to_string() });
    };
    args.svg.as_deref().map_or(Ok(()), check_writable)?;
    let machine = match args.machine.as_deref() {
        None => Machine::host()?,
        Some(name) if Device::names().any(|n| n == name) || !Path::new(name).exists() => Machine::named(name)?,
        Some(file) => Machine::of(machine(file)?)?,
    };
    let subject = subject(model, args)?;
    let (most, dtype) = match &subject {
        Subject::Decoder { config, .. } => (config.context, args.dtype.unwrap_or(DType::F32)),
        Subject::Program { module, .. } => (usize::MAX, floats(module)?),
    };
    let question = Question {
        train: args.train,
        decode: args.decode,
        batch: args.batch.unwrap_or(1),
        seq: args.seq.unwrap_or(most.min(1024)),
        dtype,
        precision: args.precision,
        checkpoint: args.checkpoint,
        budget: args.budget,
    };
    let found = ledger(&subject, &question, &machine, &stage)?;
    if let Some(path) = &args.svg {
        write_whole(path, |out| out.write_all(roofline(&found).as_bytes()))?;
    }
    super::print(&if args.json { json(&found)? } else { found.to_string() })
}

fn json(value: &impl serde::Serialize) -> Result<String, Diagnostic> {
    let text = serde_json::to_string_pretty(value);
    text.map(|t| t + "\n").map_err(|e| Diagnostic::bug(format!("a ledger cannot be written: {e}")))
}

/// The dtype of the floats of a program: that of its first weight, else of its first float; f32 where it has none.
fn floats(module: &Module) -> Result<DType, Diagnostic> {
    let params = &module.entry()?.params;
    let plain = |p: &&Param| p.ty.dtype.is_float();
    let found = params.iter().filter(plain).find(|p| p.role == Role::Weight).or_else(|| params.iter().find(plain));
    Ok(found.map_or(DType::F32, |p| p.ty.dtype))
}

/// A model by its name, its files, or a program.
fn subject(name: &str, args: &Args) -> Result<Subject, Diagnostic> {
    let path = Path::new(name);
    let found = if Subject::names().any(|n| n == name) || !path.exists() {
        Subject::named(name)?
    } else if path.is_dir() || path.extension().is_some_and(|e| e == "gguf") {
        Subject::open(path)?
    } else {
        let module = super::load_module(path, None)?;
        let sizes = sizes_of(&[], &module, module.entry()?)?;
        Subject::Program { name: name.into(), module: module.into_inner(), sizes }
    };
    match found {
        Subject::Program { name, module, sizes } => program(name, module, sizes, args),
        model @ Subject::Decoder { .. } => Ok(model),
    }
}

/// A program with sizes as the user says. Errors: `usage` for options of models; `symbol`.
fn program(name: String, module: Module, mut sizes: Bindings, args: &Args) -> Result<Subject, Diagnostic> {
    let chosen = [
        ("--dtype", args.dtype.is_some()),
        ("--precision", args.precision.is_some()),
        ("--checkpoint", args.checkpoint),
        ("--decode", args.decode),
    ];
    if let Some((flag, _)) = chosen.iter().find(|(_, given)| *given) {
        let message = format!("{flag} is for models by their sizes; a program says itself what it computes");
        return Err(Diagnostic::new("usage", message));
    }
    let given = [("batch", args.batch), ("seq", args.seq)];
    let given = given.iter().filter_map(|(symbol, n)| n.map(|n| format!("{symbol}={n}")));
    let set: Vec<String> = args.set.iter().cloned().chain(given).collect();
    let said = |symbol: &str| set.iter().any(|s| s.split('=').next() == Some(symbol));
    let wanted = sizes_of(&set, &module, module.entry()?)?;
    sizes.extend(wanted.into_iter().filter(|(symbol, _)| said(symbol)));
    Ok(Subject::Program { name, module, sizes })
}
