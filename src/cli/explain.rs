//! `tilewright explain`: why a program has the kernels that it has.

use super::inputs;
use super::options::CompileArgs;
use crate::compile::Target;
use crate::explain::{Explanation, FunctionReport, page, text};
use crate::formats::{check_writable, write_whole};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;

/// Arguments of `explain`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    file: PathBuf,
    /// Only this kernel: its number, or its name in the program
    #[arg(long, conflicts_with = "html")]
    kernel: Option<String>,
    /// Only this function and those that it calls; every function if absent
    #[arg(long)]
    function: Option<String>,
    /// The size of a symbol for which kernels are chosen and priced, such as seq=1024; may be repeated. Other symbols have
    /// the size that compilations take for the usual one: 256, or what is next to that in the range
    #[arg(long = "set", value_name = "SYMBOL=VALUE")]
    set: Vec<String>,
    /// What to compile for; the CPU if absent
    #[arg(long, value_enum, default_value_t = Target::Cpu)]
    target: Target,
    #[command(flatten)]
    compile: CompileArgs,
    /// One JSON object instead of text
    #[arg(long, conflicts_with_all = ["html", "kernel"])]
    json: bool,
    /// Write one page with the graph before and after side by side to this file
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Compute both sides of every use of a rule on random inputs, in f64, and say whether all hold. Symbols that --set does
    /// not say are 4, or what their range has next to that
    #[arg(long)]
    replay: bool,
    /// Ask a solver of integer programs for the cheapest choice among the same kernels, by a search of at most so many
    /// nodes, and say to standard error what it says
    #[cfg(feature = "ilp")]
    #[arg(long, value_name = "NODES", num_args = 0..=1, default_missing_value = "20000")]
    ilp: Option<u64>,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file, args.function.as_deref())?;
    args.html.as_deref().map_or(Ok(()), check_writable)?;
    let likely = inputs::chosen(&args.set, &module)?;
    super::progress::stage("choosing kernels");
    let found = Explanation::new(&module, &args.compile.options()?, args.target, &likely)?;
    let report = &found.report;
    let kernel = args.kernel.as_deref().map(|name| kernel(&report.functions, name)).transpose()?;
    if let Some(path) = &args.html {
        let title = args.file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        write_whole(path, |out| out.write_all(page(report, &title).as_bytes()))?;
    } else if args.json {
        let json = serde_json::to_string(report).map_err(|e| Diagnostic::bug(e.to_string()))?;
        super::print(&format!("{json}\n"))?;
    } else {
        super::print(&text(report, kernel))?;
    }
    #[cfg(feature = "ilp")]
    if let Some(nodes) = args.ilp {
        integer(args, &module, &likely, nodes)?;
    }
    if args.replay { replay(args, &module, &found) } else { Ok(()) }
}

/// The function and the number of a kernel. Errors: `kernel` for one that there is not.
fn kernel(functions: &[FunctionReport], name: &str) -> Result<(usize, usize), Diagnostic> {
    let named = |k: &crate::explain::Kernel| k.names.iter().any(|n| n == name);
    let by_name = functions.iter().enumerate().find_map(|(i, f)| Some((i, f.kernels.iter().position(named)?)));
    let entry = functions.iter().rposition(|f| f.name == "main").or(functions.len().checked_sub(1));
    let by_number = || {
        let (entry, number) = (entry?, name.parse::<usize>().ok()?);
        (number < functions.get(entry)?.kernels.len()).then_some((entry, number))
    };
    by_name.or_else(by_number).ok_or_else(|| {
        let each = |f: &FunctionReport| {
            let names: Vec<String> = f.kernels.iter().flat_map(|k| k.names.first().cloned()).collect();
            format!("`@{}` has {}", f.name, if names.is_empty() { "no kernels".into() } else { names.join(", ") })
        };
        let message = format!("there is no kernel {}", crate::formats::shown(name));
        functions.iter().map(each).fold(Diagnostic::new("kernel", message), Diagnostic::note)
    })
}

/// Says how the kernels of every function compare with what an integer program finds.
#[cfg(feature = "ilp")]
fn integer(
    args: &Args,
    module: &Module,
    likely: &tilewright_ir::types::Bindings,
    nodes: u64,
) -> Result<(), Diagnostic> {
    super::progress::stage("solving integer programs");
    let all = crate::compile::integer(module, &args.compile.options()?, args.target, likely, nodes)?;
    for (f, found) in module.functions.values().zip(all) {
        let found = match found {
            Ok(found) => found,
            Err(warning) => {
                super::note(&format!("{warning}\n"));
                continue;
            }
        };
        let us = |seconds: f64| format!("{:.2} us", seconds * 1e6);
        let (chosen, cuts, nodes) = (us(found.chosen), found.cuts, found.nodes);
        let says = match found.best {
            Some(best) if found.ended => format!("{} is the least of all covers, after {nodes} nodes", us(best)),
            best => {
                let best = best.map_or("no cover is found".into(), |b| format!("{} is the best found", us(b)));
                format!("not decided after {nodes} nodes: {best}, none takes less than {}", us(found.low))
            }
        };
        super::note(&format!("@{} takes {chosen}; by the integer program of its {cuts} kernels, {says}\n", f.name));
    }
    Ok(())
}

/// Replays the chains of every function. What is said goes to standard error: the answer is on standard output.
fn replay(args: &Args, module: &Module, found: &Explanation) -> Result<(), Diagnostic> {
    let (mut uses, mut skipped) = (0, 0);
    for f in module.functions.values() {
        let bindings = inputs::sizes_of(&args.set, module, f)?;
        let inputs = inputs::random_for(module, f, 0, &bindings)?;
        super::progress::stage("replaying");
        let looked = found.replay(module, f, &bindings, &inputs).map_err(|d| d.note(format!("in `@{}`", f.name)))?;
        uses += looked.map_or(0, |l| l.steps - l.skipped);
        skipped += looked.map_or(0, |l| l.skipped);
    }
    let but = if skipped > 0 { format!(", {skipped} more are too large to compute") } else { String::new() };
    super::note(&format!("replayed {uses} uses of rules: all hold{but}\n"));
    Ok(())
}
