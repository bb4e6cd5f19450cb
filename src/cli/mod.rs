//! The command line: one file per command. Exit code 0: done; 1: the input is wrong or the work failed; 2: usage,
//! or NVRTC is missing. `diff` has those of `diff(1)`.

mod bench;
mod bisect;
mod calibrate;
mod check_kernels;
mod checkpoint;
mod compare;
mod compile;
mod demo;
mod diff;
mod embed;
mod explain;
mod generate;
mod grad;
mod indices;
mod inputs;
mod ledger;
mod mixed;
mod ops;
pub mod options;
mod progress;
mod random;
mod rules;
mod run;
mod train;
mod tune;
mod vmap;

use crate::formats::Safetensors;
use crate::formats::onnx::{OnnxGraph, OnnxProgram};
use crate::formats::op_program::OpProgram;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;
use tilewright_ir::verify::Verified;

#[derive(Parser)]
#[command(name = "tilewright", version, about = "A tensor compiler for transformer models", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Compile and run a small transformer, and show each stage (the default)
    Demo,
    /// Answer a prompt with a language model in a GGUF file
    Generate(generate::Args),
    /// Train a GPT or a Llama as a TOML file says, and go on from its last checkpoint
    Train(train::Args),
    /// Sentence embeddings by a BERT or ALBERT: a line of numbers for each text
    Embed(embed::Args),
    /// Show a stage of the compilation of a .tw file, an op program or an ONNX graph
    Compile(compile::Args),
    /// Say why a program has its kernels: the rules behind each, what it saves, what came second
    Explain(explain::Args),
    /// Show what differs between kernel snapshots: rules, kernels, costs, schedules, text
    Diff(diff::Args),
    /// Run a .tw file, an op program or an ONNX graph on random or given inputs
    Run(run::Args),
    /// Find the rule, pass, schedule or code that makes a result differ from the interpreter's, and a small program that shows it
    Bisect(bisect::Args),
    /// Differentiate a .tw file, an op program or an ONNX graph: its gradients as a .tw file, or any stage
    Grad(grad::Args),
    /// Differentiate within a budget of memory: what is kept of the way forward, and what is computed again
    Checkpoint(checkpoint::Args),
    /// Count what a model computes and moves beside the formulas of textbooks, and predict its time
    Ledger(ledger::Args),
    /// Make the program of many examples from that of one: as a .tw file, or any stage
    Vmap(vmap::Args),
    /// Compute products of matrices in bf16 or f16, all else in f32: the program as a .tw file, or any stage
    Mixed(mixed::Args),
    /// Measure products, fused operations, attention and models
    Bench(bench::Args),
    /// Time the schedules of each kernel of a graph on this machine, and keep the best
    Tune(tune::Args),
    /// Measure this machine: the description of a device by which kernels are priced, as JSON
    Calibrate(calibrate::Args),
    /// Compile CUDA text with NVRTC, for each target
    CheckKernels(check_kernels::Args),
    /// List or check rewrite rules
    Rules(rules::Args),
    /// List the ops of graphs, kinds of reduction and scalar ops
    Ops(ops::Args),
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version also come this way, with exit code 0. Printing fails only if the pipe is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command.unwrap_or(Command::Demo) {
        Command::Demo => demo::run(),
        Command::Generate(args) => generate::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Explain(args) => explain::run(&args),
        // It says by its exit code whether something differs.
        Command::Diff(args) => return diff::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bisect(args) => bisect::run(&args),
        Command::Grad(args) => grad::run(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Vmap(args) => vmap::run(&args),
        Command::Mixed(args) => mixed::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::CheckKernels(args) => check_kernels::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Ops(args) => ops::run(&args),
    };
    progress::done();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(diagnostic) => {
            note(&format!("{diagnostic}\n"));
            // A compiler that is not installed says nothing about the input.
            ExitCode::from(if diagnostic.code == "nvrtc-missing" { 2 } else { 1 })
        }
    }
}

/// A module from a `.tw` text or a program in a safetensors file; of it what `function` needs, if one is named.
fn load_module(path: &std::path::Path, function: Option<&str>) -> Result<Verified<Module>, Diagnostic> {
    progress::stage("reading the graph");
    let module = load_all(path)?;
    match function {
        Some(name) => Verified::new(module.part(name)?),
        None => {
            // Nobody means a file without a function.
            let place = || Place::Named(path.display().to_string().into());
            module.entry().map_err(|d| d.at(place(), ""))?;
            Ok(module)
        }
    }
}

fn load_all(path: &std::path::Path) -> Result<Verified<Module>, Diagnostic> {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return Verified::new(program(&Safetensors::open(path)?)?);
    }
    tilewright_ir::text::parse_verified(&path.display().to_string(), &crate::formats::read_text(path)?)
}

/// The module of a file with an op program or an ONNX graph.
fn program(file: &Safetensors) -> Result<Module, Diagnostic> {
    if OnnxGraph::is_in(file) {
        return Ok(OnnxProgram::from_file(file)?.0.module);
    }
    Ok(OpProgram::from_file(file, DType::F32)?.module)
}

/// The inputs of such a program, which are in its file.
fn program_inputs(file: &Safetensors) -> Result<Vec<Array>, Diagnostic> {
    if OnnxGraph::is_in(file) {
        return Ok(OnnxProgram::from_file(file)?.1);
    }
    OpProgram::from_file(file, DType::F32)?.read_inputs(file)
}

/// Writes to standard output. A reader that has seen enough and closes the pipe is no error.
pub(crate) fn print(text: &str) -> Result<(), Diagnostic> {
    print_while_read(text).map(drop)
}

/// [`print`], and whether somebody still reads.
fn print_while_read(text: &str) -> Result<bool, Diagnostic> {
    let mut out = std::io::stdout().lock();
    match progress::hidden(|| out.write_all(text.as_bytes()).and_then(|()| out.flush())) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Diagnostic::new("output", format!("cannot write to standard output: {e}"))),
    }
}

/// Writes to standard error; where that is closed, nobody wants to know.
pub(crate) fn note(text: &str) {
    let _ = progress::hidden(|| std::io::stderr().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    /// No command has two options of one name, as those that all share are added to its own.
    #[test]
    fn options_have_names_of_their_own() {
        Cli::command().debug_assert();
    }
}
