//! `tilewright bisect`: which rule, pass, schedule or code computes a result wrongly, and a small program that shows it.

mod case;
mod culprit;
mod rebuild;
mod shrink;
#[cfg(test)]
mod tests;

use super::compare::verdict;
use super::inputs::{self, InputArgs};
use super::options::CompileArgs;
use super::progress::stage;
use crate::compile::{MAX_WORK_INTERPRETED, Options, Work, blocks};
use crate::formats::{safetensors, write_whole};
use case::{Case, Pipeline, Real};
use culprit::Culprit;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp;
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::print;

/// Arguments of `bisect`.
#[derive(clap::Args)]
#[command(
    after_help = "Exit code 0 where no result differs from the interpreter, as `run --check` compares them; 1 where one does."
)]
pub(super) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    compile: CompileArgs,
    /// Look at this function; `main`, else the last one, if absent
    #[arg(long)]
    function: Option<String>,
    /// Write the small program and its inputs to this folder
    #[arg(long, value_name = "FOLDER", default_value = "bisect")]
    out: PathBuf,
    /// How many smaller programs are tried
    #[arg(long, value_name = "N", default_value_t = 2000)]
    tries: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was found of a result that differs.
struct Found {
    /// The first difference, in words.
    difference: Diagnostic,
    /// The smallest program that is still wrong.
    small: Case,
    /// The stage that makes it so.
    culprit: Culprit,
}

/// Makes a case small whose results differ from the interpreter's, and finds the wrong stage. None if no result differs.
///
/// Errors: those of the stages.
fn bisect(pipeline: &dyn Pipeline, case: &Case, options: &Options, budget: usize) -> Result<Option<Found>, Diagnostic> {
    stage("comparing");
    // The stages that are looked at are those of the functions that are lowered.
    let case = &Case { module: blocks(&case.module, options)?.into_owned(), ..case.clone() };
    let programs = pipeline.lower(&case.module, options)?;
    let results = pipeline.run(case, programs, options)?;
    let Some(differences) = case.differences(&results)? else { return Ok(None) };
    let Err(difference) = verdict(&differences, &results) else { return Ok(None) };
    stage("making the program small");
    // What cannot be compiled or run is another fault.
    let wrong = |case: &Case| case.by_code(pipeline, options).is_ok_and(|found| found.is_some());
    let small = shrink::shrink(case.clone(), budget, &wrong);
    stage("looking for the wrong stage");
    let culprit = culprit::find(pipeline, &small, options)?;
    Ok(Some(Found { difference, small, culprit }))
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.input.file, args.function.as_deref())?;
    let entry = module.entry()?;
    let given = inputs::given(&args.input, entry)?;
    let bindings = inputs::symbols(&args.input, entry, given.as_deref())?;
    let work = Work::of(&module, &entry.name, &bindings)?;
    interp::fits(&work)?;
    work.check(MAX_WORK_INTERPRETED)
        .map_err(|d| d.note("the interpreter runs the whole program: choose smaller sizes"))?;
    let inputs = given.map_or_else(|| inputs::random(&module, args.input.seed, &bindings), Ok)?;
    let options = args.compile.options()?;
    let total = module.functions.values().map(computed).sum();
    let case = Case { module: module.into_inner(), inputs, bindings };
    let Some(found) = bisect(&Real, &case, &options, args.tries)? else {
        let none = if args.json { "{\"differs\":false}\n" } else { "no result differs from the interpreter\n" };
        return super::print(none);
    };
    let written = write(args, &found)?;
    super::print(&report(args, &found, total, &written))?;
    Err(Diagnostic::new("miscompiled", format!("wrong: {}", found.culprit)))
}

/// Nodes that compute something.
fn computed(f: &Function) -> usize {
    let source = |op: &GraphOp| matches!(op, GraphOp::Parameter { .. } | GraphOp::Constant { .. });
    f.nodes.iter().zip(f.live()).filter(|(n, live)| *live && !source(&n.op)).count()
}

/// Ops of a module with the lines of the user that they come from.
fn nodes(module: &Module) -> Vec<String> {
    let live = module.functions.values().flat_map(|f| f.nodes.iter().zip(f.live())).filter(|(_, live)| *live);
    let shown = live.filter(|(n, _)| !matches!(n.op, GraphOp::Parameter { .. } | GraphOp::Constant { .. }));
    let one = |op: &GraphOp| match op {
        GraphOp::Map { op } => op.info().name,
        GraphOp::Reduce { kind, .. } => kind.name(),
        other => other.info().name,
    };
    shown.map(|(n, _)| n.places.first().map_or(one(&n.op).to_string(), |p| format!("{} at {p}", one(&n.op)))).collect()
}

/// The command that shows the difference again.
fn again(args: &Args, program: &Path, inputs: Option<&Path>) -> String {
    let mut out = format!("tilewright run {} --check", program.display());
    if let Some(path) = inputs {
        out += &format!(" --inputs {}", path.display());
    }
    let compile = &args.compile;
    out += &format!(" --opt-level {} --numerics {}", compile.opt_level, compile.numerics);
    compile.threads.iter().for_each(|n| out += &format!(" --threads {n}"));
    compile.rules.iter().for_each(|path| out += &format!(" --rules {}", path.display()));
    if compile.unchecked_rules {
        out += " --unchecked-rules";
    }
    out
}

/// Writes the small program, and its inputs beside it.
///
/// Errors: `file`.
fn write(args: &Args, found: &Found) -> Result<(PathBuf, Option<PathBuf>), Diagnostic> {
    let out = &args.out;
    std::fs::create_dir_all(out)
        .map_err(|e| Diagnostic::new("file", format!("cannot make the folder {}: {e}", out.display())))?;
    let stem = args.input.file.file_stem().map_or("program".into(), |s| s.to_string_lossy().to_string());
    let (program, inputs) = (out.join(format!("{stem}.tw")), out.join(format!("{stem}.safetensors")));
    let entry = found.small.module.entry()?;
    let tensors: Vec<(&str, &Array)> = entry.params.iter().map(|p| &*p.name).zip(&found.small.inputs).collect();
    // The format has no block encodings; random ones show the difference too, or not.
    let plain = found.small.inputs.iter().all(|a| !a.dtype().is_block());
    let inputs = (plain && !tensors.is_empty()).then_some(inputs);
    if let Some(path) = &inputs {
        safetensors::write(path, &tensors, &BTreeMap::new())?;
    }
    let mut text = format!("// Wrong: {}\n//   {}\n", found.culprit, again(args, &program, inputs.as_deref()));
    text += &print(&found.small.module);
    write_whole(&program, |out| out.write_all(text.as_bytes()))?;
    Ok((program, inputs))
}

fn report(args: &Args, found: &Found, total: usize, (program, inputs): &(PathBuf, Option<PathBuf>)) -> String {
    let nodes = nodes(&found.small.module);
    let again = again(args, program, inputs.as_deref());
    if args.json {
        let rules = if let Culprit::Rules(rules) = &found.culprit { &rules[..] } else { &[] };
        let rules: Vec<_> = rules.iter().map(|r| serde_json::json!({ "name": r.name, "at": r.at })).collect();
        let row = serde_json::json!({
            "differs": true, "difference": found.difference.message, "kind": found.culprit.kind(),
            "culprit": found.culprit.to_string(), "rules": rules, "nodes": nodes,
            "program": program.display().to_string(),
            "inputs": inputs.as_ref().map(|p| p.display().to_string()), "again": again,
        });
        return format!("{row}\n");
    }
    let mut out = format!("{}\n", found.difference.message);
    out += &format!("made small: {} of {total} nodes: {}\n", nodes.len(), nodes.join(", "));
    out + &format!("written to {}:\n  {again}\n", program.display())
}
