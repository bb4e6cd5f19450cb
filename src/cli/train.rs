//! `tilewright train`: a language model from text.

use super::options::CompileArgs;
use super::progress;
use crate::explain::text::bytes;
use crate::train::{Config, Run, export};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;

/// Arguments of `train`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What to train: a TOML file, with the keys of the chapter `docs/book/training.md`; `train.checkpoint` is a budget of the memory of a
    /// step: "sqrt", "500 MB", "25 %" of what it takes without, "min"
    config: PathBuf,
    /// Stop after this step of the run, with a checkpoint, from which the same command goes on; 0 writes the first weights
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    /// Instead of training write the model of the checkpoint after this step, or of the `last` one
    #[arg(long, value_name = "STEP", value_parser = which, conflicts_with_all = ["until", "json"])]
    export: Option<Which>,
    /// Keep a copy of the state before each step. Where a step makes a NaN or an infinity in its loss, its gradients or its state, run it
    /// again in the interpreter, name the first node, forward or gradient, that made one, with its line and what its operands are, and
    /// stop. Steps that a scaled loss skips are none of these
    #[arg(long, conflicts_with = "export")]
    nan_hunt: bool,
    #[command(flatten)]
    compile: CompileArgs,
    /// A line of JSON for each line of the metrics instead of text
    #[arg(long)]
    json: bool,
}

/// A checkpoint.
#[derive(Clone, Copy)]
enum Which {
    Last,
    After(u64),
}

fn which(text: &str) -> Result<Which, String> {
    match text.parse() {
        Ok(step) => Ok(Which::After(step)),
        Err(_) if text == "last" => Ok(Which::Last),
        Err(_) => Err("expected a number of steps, or `last`".into()),
    }
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let config = Config::open(&args.config)?;
    let options = args.compile.options()?;
    if let Some(which) = args.export {
        progress::stage("reading the data and the checkpoint");
        let step = if let Which::After(step) = which { Some(step) } else { None };
        let (step, out) = (export(&config, step, &options)?, config.out.display());
        progress::done();
        super::note(&format!("{out} has the model after step {step}\n"));
        return Ok(());
    }
    let (every, out) = (config.save.metrics, config.out.clone());
    progress::stage("reading the data and compiling");
    let mut run = Run::open(config, &options)?;
    let (steps, first) = (run.steps(), run.step());
    let size = bytes(i64::try_from(run.step_bytes()?).unwrap_or(i64::MAX));
    super::note(&format!("{} weights that learn; a step takes {size} beside them\n", run.parameters()));
    if let Some(within) = run.within() {
        super::note(&within.to_string());
    }
    if first > 0 {
        super::note(&format!("going on after step {first}\n"));
    }
    if let Some(planned) = run.planned() {
        super::note(&format!(
            "the run was to have {planned} steps and has {steps} now, and so has its schedule of rates\n"
        ));
    }
    if args.nan_hunt {
        run.hunt()?;
    }
    progress::steps("training", usize::try_from(steps).unwrap_or(usize::MAX));
    let mut printed = Ok(());
    let ended = run.finish(args.until, |m| {
        let scale = m.loss_scale.map_or(String::new(), |scale| format!("  scale {scale}"));
        let tested = m.validation.map_or(String::new(), |loss| format!("  validation {loss:.4}"));
        let used = m.mfu.map_or(String::new(), |part| format!("  MFU {:.1} %", 100.0 * part));
        let text =
            format!("step {:>6}  loss {:.4}{tested}  {:.0} tokens/s{used}{scale}", m.step, m.loss, m.tokens_per_s);
        progress::reached(&text, m.step, steps);
        if m.step.is_multiple_of(every) || m.step == 1 || m.step == steps || m.validation.is_some() {
            let line = if args.json { serde_json::to_string(m).unwrap_or_default() } else { text };
            let told = super::print(&(line + "\n"));
            if printed.is_ok() {
                printed = told;
            }
        }
    });
    if ended.is_err() && args.nan_hunt {
        progress::stage("interpreting the step");
    }
    let done = ended.map_err(|ended| run.hunted(ended))?;
    printed?;
    progress::done();
    let (out, at) = (out.display(), run.step());
    super::note(&match done {
        true => format!("{out} has the model: tilewright generate --model {out} --prompt \"..\"\n"),
        false => format!("stopped after step {at} of {steps}; the same command goes on\n"),
    });
    Ok(())
}
