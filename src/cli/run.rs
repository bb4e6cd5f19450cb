//! `tilewright run`: run a graph on random or given inputs.

use super::compare::{Rounding, Worst, check, name, verdict, worse};
use super::inputs::{self, InputArgs};
use super::options::CompileArgs;
use super::progress::stage;
use crate::compile::{self, MAX_WORK, MAX_WORK_INTERPRETED, compile_cuda, lower};
use crate::formats::check_writable;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::Module;
use tilewright_ir::interp;
use tilewright_ir::text::element_text;
use tilewright_ir::types::Bindings;
use tilewright_ir::work::Work;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    #[command(flatten)]
    compile: CompileArgs,
    /// Run this function; `main`, else the last one, if absent
    #[arg(long)]
    function: Option<String>,
    /// Compare with the interpreter, in f64 and, where that is not near, in strict mode: an element must be near one of
    /// them, or between. Near is equal for integers and bools; floats may differ by 1e-9 (f64) or 1e-4 (f32) times
    /// 1 + |x|, or by 8 units in the last place (f16, bf16) of 1 + the largest |x|; the coarsest float computed on the
    /// way to a result counts. An element that moves by as much as it differs when the inputs move by that tolerance is not
    /// determined by them, which is said, and is no error
    #[arg(long)]
    check: bool,
    /// Find the first node that makes a NaN of operands without one, or an infinity of finite operands, in the interpreter:
    /// its line, those of the calls around it, and what its operands are. For gradients there is `grad --nan-hunt`
    #[arg(long, conflicts_with_all = ["check", "json", "profile", "output"])]
    nan_hunt: bool,
    /// How the interpreter rounds, for `--device interpreter` (strict if absent) and for `--check` (both if absent)
    #[arg(long, value_enum)]
    interpreter: Option<Rounding>,
    /// Write the results to this .safetensors file, as `result0`, `result1`, ...
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// One JSON object: results, times in seconds, differences. Numbers that JSON has not are "nan", "inf", "-inf"
    #[arg(long)]
    json: bool,
    /// Print the time of each kernel of a second run
    #[arg(long)]
    profile: bool,
    /// Refuse a run of more operations than this, before it begins: 1e13 if absent, 1e11 where the interpreter runs (--check
    /// too), none for any number. An operation computes, folds or moves one element, or is 16 multiplications of `dot`, and
    /// each node that runs has 1000 more
    #[arg(long, value_name = "OPERATIONS", value_parser = most)]
    max_work: Option<Most>,
}

/// A limit of work, or none.
#[derive(Clone, Copy)]
struct Most(Option<u64>);

fn most(text: &str) -> Result<Most, String> {
    if text == "none" {
        return Ok(Most(None));
    }
    let number: Option<f64> = text.parse().ok().filter(|n: &f64| *n >= 0.0 && *n <= 1e19);
    // Up to 1e19 fits in 64 bits; what is beyond 2^53 need not be exact.
    number.map(|n| Most(Some(n as u64))).ok_or_else(|| "expected a number up to 1e19, such as 1e15, or none".into())
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    Interpreter,
    Cpu,
    Cuda,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.input.file, args.function.as_deref())?;
    let entry = module.entry().map_err(|d| d.at(Place::Named(args.input.file.display().to_string().into()), ""))?;
    let given = inputs::given(&args.input, entry)?;
    let bindings = inputs::symbols(&args.input, entry, given.as_deref())?;
    bounded(&module, args, &bindings)?;
    args.output.as_deref().map_or(Ok(()), check_writable)?;
    let inputs = given.map_or_else(|| inputs::random(&module, args.input.seed, &bindings), Ok)?;
    let options = args.compile.options()?;
    if args.nan_hunt {
        let mode = args.interpreter.unwrap_or(Rounding::Strict).mode();
        return hunt(&module, &inputs, &bindings, mode);
    }
    let interpret = |mode, inputs: &[Array]| interp::run(&module, &entry.name, inputs, &bindings, mode);
    let mut report = serde_json::Map::new();
    let start = Instant::now();
    let outputs = match args.device {
        Device::Interpreter => {
            stage("interpreting");
            interpret(args.interpreter.unwrap_or(Rounding::Strict).mode(), &inputs)?
        }
        Device::Cpu => {
            stage("choosing kernels");
            let programs = lower(&module, &options)?;
            stage("writing machine code");
            let mut executable = compile::executable(&module, programs, &options)?;
            report.insert("compile_s".into(), start.elapsed().as_secs_f64().into());
            let start = Instant::now();
            stage("running");
            let outputs = executable.run(&inputs, &bindings)?;
            report.insert("run_s".into(), start.elapsed().as_secs_f64().into());
            if args.profile {
                executable.enable_profile();
                executable.run(&inputs, &bindings)?;
                executable.profile().iter().for_each(|p| super::note(&p.to_string()));
            }
            outputs
        }
        Device::Cuda => {
            stage("compiling");
            let executable = compile_cuda(&module, &options)?;
            report.insert("compile_s".into(), start.elapsed().as_secs_f64().into());
            // The first run loads code and memory; the time is that of the launches of the second.
            stage("running");
            executable.run(&inputs, &bindings)?;
            let (outputs, time) = executable.run_timed(&inputs, &bindings)?;
            report.insert("run_s".into(), time.as_secs_f64().into());
            outputs
        }
    };
    if let Some(path) = &args.output {
        let names: Vec<String> = (0..outputs.len()).map(|i| format!("result{i}")).collect();
        let tensors: Vec<(&str, &Array)> = names.iter().map(String::as_str).zip(&outputs).collect();
        crate::formats::safetensors::write(path, &tensors, &BTreeMap::new())?;
    }
    let mut results: Vec<serde_json::Value> = outputs.iter().map(describe).collect();
    let mut passed = Ok(());
    if args.check {
        stage("interpreting");
        let differences = check(&module, &outputs, args.interpreter, &inputs, interpret)?;
        for (result, d) in results.iter_mut().zip(&differences) {
            result["error"] = number(d.error);
            result["tolerance"] = number(d.tolerance);
            result["undetermined"] = d.undetermined.into();
            result["worst"] = d.worst.as_ref().map_or(serde_json::Value::Null, place);
        }
        report.insert("error".into(), number(differences.iter().map(|d| d.error).fold(0.0, worse)));
        passed = verdict(&differences, &outputs);
        if args.device == Device::Cpu {
            passed = passed.map_err(|d| d.note("`tilewright bisect` looks for what makes it so"));
        }
        report.insert("passed".into(), passed.is_ok().into());
    }
    report.insert("results".into(), results.into());
    super::print(&if args.json {
        format!("{}\n", serde_json::Value::from(report))
    } else {
        readable(&report, &outputs)
    })?;
    passed
}

/// `--nan-hunt`. Errors: `not-finite` where something is found.
pub(super) fn hunt(
    module: &Module,
    inputs: &[Array],
    bindings: &Bindings,
    mode: interp::Mode,
) -> Result<(), Diagnostic> {
    stage("interpreting");
    let entry = module.entry()?;
    let infinite = |a: &Array| a.dtype().is_float() && a.to_f64().is_some_and(|v| v.iter().any(|x| !x.is_finite()));
    for (p, _) in entry.params.iter().zip(inputs).filter(|(_, a)| infinite(a)) {
        super::note(&format!("warning[not-finite]: the input `%{}` has a NaN or an infinity\n", p.name));
    }
    interp::hunt(module, &entry.name, inputs, bindings, mode)?;
    super::print("no node makes a NaN or an infinity\n")
}

/// Refuses what would take too long, or what the interpreter would refuse in the end.
fn bounded(module: &Module, args: &Args, bindings: &Bindings) -> Result<(), Diagnostic> {
    let work = Work::of(module, &module.entry()?.name, bindings)?;
    let interpreted = args.check || args.nan_hunt || args.device == Device::Interpreter;
    if interpreted {
        interp::fits(&work)?;
    }
    let usual = if interpreted { MAX_WORK_INTERPRETED } else { MAX_WORK };
    let Some(most) = args.max_work.map_or(Some(usual), |Most(most)| most) else { return Ok(()) };
    work.check(most).map_err(|d| d.note("`--max-work N` allows N operations, `--max-work none` any number"))
}

/// A number, or the name of one that JSON has not.
fn number(x: f64) -> serde_json::Value {
    match x {
        x if x.is_nan() => "nan".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        x => x.into(),
    }
}

/// The element that differs most, with its numbers as text.
fn place(worst: &Worst) -> serde_json::Value {
    let expected: serde_json::Map<_, _> =
        worst.expected.iter().map(|(mode, text)| (name(*mode).to_string(), text.as_str().into())).collect();
    serde_json::json!({
        "at": worst.at, "found": worst.found, "expected": expected,
        "absolute": number(worst.absolute), "relative": number(worst.relative),
        "text": worst.to_string(),
    })
}

/// How many elements of a result are shown.
const SHOWN: usize = 6;

/// The first elements in the shortest text of their dtype; none of block encodings.
fn first_texts(a: &Array) -> Vec<String> {
    (0..a.len().min(SHOWN)).map_while(|i| element_text(a, i)).collect()
}

/// The first elements as JSON has them: numbers, `true` and `false`; names of what JSON has not.
fn first_values(a: &Array) -> Vec<serde_json::Value> {
    let value = |text: String| match text.parse::<f64>() {
        Ok(x) if a.dtype().is_float() => number(x),
        Ok(_) | Err(_) => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
    };
    first_texts(a).into_iter().map(value).collect()
}

fn describe(a: &Array) -> serde_json::Value {
    let first = first_values(a);
    let more = a.len() > first.len();
    serde_json::json!({ "dtype": a.dtype().to_string(), "shape": a.shape(), "first": first, "more": more })
}

fn readable(report: &serde_json::Map<String, serde_json::Value>, outputs: &[Array]) -> String {
    let seconds = |key: &str| report.get(key).and_then(serde_json::Value::as_f64);
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let error = |v: &serde_json::Value| v.as_f64().map_or_else(|| text(v), |x| format!("{x:.3e}"));
    let mut out = String::new();
    if let (Some(compiled), Some(ran)) = (seconds("compile_s"), seconds("run_s")) {
        out += &format!("compiled in {:.1} ms, ran in {:.3} ms\n", compiled * 1e3, ran * 1e3);
    }
    let results = report.get("results").and_then(|r| r.as_array()).into_iter().flatten();
    for (i, (result, output)) in results.zip(outputs).enumerate() {
        let first = first_texts(output);
        let more = if result["more"] == true { ", ..." } else { "" };
        out += &format!("result {i}: {}{} [{}{more}]", text(&result["dtype"]), result["shape"], first.join(", "));
        if let (Some(found), Some(most)) = (result.get("error"), result.get("tolerance")) {
            out += &format!(", differs from the interpreter by {}, may by {}", error(found), error(most));
        }
        if let Some(n) = result.get("undetermined").and_then(serde_json::Value::as_u64).filter(|n| *n > 0) {
            out += &format!("; {n} of {} are not determined by inputs of this precision", output.len());
        }
        if let Some(worst) = result.get("worst").and_then(|w| w["text"].as_str()) {
            out += &format!("; most at {worst}");
        }
        out += "\n";
    }
    if let Some(found) = report.get("error") {
        out += &format!("largest difference from the interpreter: {}\n", error(found));
    }
    out
}
