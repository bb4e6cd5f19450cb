//! `tilewright tune`: time the schedules of every kernel on this machine, and write the best.

use super::inputs::{self, InputArgs};
use super::options::CompileArgs;
use super::progress;
use crate::compile::MAX_WORK;
use crate::formats::{check_writable, write_whole};
use crate::tune::{Effort, Region, Timed, tune, tuned};
use std::fmt::Write;
use std::path::PathBuf;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::work::Work;

/// Arguments of `tune`.
#[derive(clap::Args)]
#[command(
    after_help = "Only the schedule is chosen: which kernels there are is not, nor what they compute, but for the order of \
    sums. `--tuned FILE` of the other commands uses what was written, for the regions that it names and no others."
)]
pub(super) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    compile: CompileArgs,
    /// How often all schedules are gone through; the median beside the others of a sweep counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sweeps: u16,
    /// Runs with each schedule, each time; the least time counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=10000))]
    runs: u16,
    /// Schedules of a kernel that are timed: the usual one, and those that are predicted to be the fastest
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    most: u16,
    /// Time all schedules, to judge the predictions
    #[arg(long, conflicts_with = "most")]
    all: bool,
    /// Write the schedules that are faster than the usual ones to this file
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// One JSON object a region
    #[arg(long)]
    json: bool,
}

/// Times that differ by less say nothing.
const NOISE: f64 = 0.05;

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.input.file, None)?;
    let entry = module.entry().map_err(|d| d.at(Place::Named(args.input.file.display().to_string().into()), ""))?;
    let given = inputs::given(&args.input, entry)?;
    let bindings = inputs::symbols(&args.input, entry, given.as_deref())?;
    Work::of(&module, &entry.name, &bindings)?.check(MAX_WORK)?;
    args.output.as_deref().map_or(Ok(()), check_writable)?;
    let inputs = given.map_or_else(|| inputs::random(&module, args.input.seed, &bindings), Ok)?;
    let options = args.compile.options()?;
    let effort = Effort {
        sweeps: args.sweeps.into(),
        runs: args.runs.into(),
        most: (!args.all).then_some(args.most.into()),
        keep: false,
    };
    let say = |done: usize, all: usize| {
        if done == 0 {
            progress::steps("measuring", all);
        } else {
            progress::step();
        }
    };
    let regions = tune(&module, (&inputs, &bindings), &options, effort, &say)?;
    super::print(&if args.json { json(&regions) } else { table(&regions) })?;
    let found = tuned(&regions, &options);
    let Some(path) = &args.output else { return Ok(()) };
    let no_json = |e: serde_json::Error| Diagnostic::bug(format!("measured schedules have no JSON: {e}"));
    let text = format!("{}\n", serde_json::to_string_pretty(&found).map_err(no_json)?);
    write_whole(path, |out| out.write_all(text.as_bytes()))
}

fn json(regions: &[Region]) -> String {
    let timed = |t: &Timed| serde_json::json!({ "choice": t.choice.to_string(), "predicted_s": t.predicted, "measured_s": t.seconds });
    let row = |r: &Region| {
        let all: Vec<_> = r.choices.iter().map(timed).collect();
        let row = serde_json::json!({
            "kernel": r.kernel, "region": r.text, "choices": all, "rank_correlation": r.correlation(0.0), "concordance": r.concordance(NOISE),
            "best": r.best().map(|t| timed(&t)), "picked": r.picked().map(|t| timed(&t)),
        });
        format!("{row}\n")
    };
    regions.iter().map(row).collect()
}

/// A line a region, then how good the predictions are.
fn table(regions: &[Region]) -> String {
    let mut out = String::new();
    let us = |t: f64| format!("{:.2}", t * 1e6);
    let _ = writeln!(
        out,
        "{:>10} {:>10} {:>10}  {:>5}  kernel: best schedule, where it is not the usual",
        "usual, us", "best", "predicted", "rank"
    );
    let (mut usual, mut best) = (0.0, 0.0);
    for region in regions {
        let (Some(first), Some(found)) = (region.choices.first(), region.best()) else { continue };
        usual += first.seconds;
        best += found.seconds;
        let predicted = first.predicted.map_or_else(|| "-".into(), us);
        let rank = region.correlation(0.0).map_or_else(|| "-".into(), |r| format!("{r:.2}"));
        let other = if found.choice == first.choice { String::new() } else { format!(": {}", found.choice) };
        let (first, found) = (us(first.seconds), us(found.seconds));
        let _ = writeln!(out, "{first:>10} {found:>10} {predicted:>10}  {rank:>5}  {}{other}", region.kernel);
    }
    let _ = writeln!(
        out,
        "{} regions: {} us with the usual schedules, {} with the best",
        regions.len(),
        us(usual),
        us(best)
    );
    let mean = |each: fn(&Region) -> Option<f64>| {
        let all: Vec<f64> = regions.iter().filter_map(each).collect();
        (all.len(), all.iter().sum::<f64>() / all.len().max(1) as f64)
    };
    let (ranked, rank) = mean(|r| r.correlation(0.0));
    let (ordered, order) = mean(|r| r.concordance(NOISE));
    let least = |r: &Region| r.choices.iter().map(|t| t.seconds).fold(f64::INFINITY, f64::min);
    let picks: Vec<(f64, f64)> = regions.iter().filter_map(|r| Some((r.picked()?.seconds, least(r)))).collect();
    let near = picks.iter().filter(|(picked, least)| *picked <= 1.1 * least).count();
    let _ = writeln!(
        out,
        "predictions: rank correlation {rank:.2} in the mean of {ranked} regions; {order:.2} (gamma) over pairs that differ by more than {:.0} %, of {ordered};\n\
        the schedule predicted to be the fastest is within 10 % of the fastest in {near} of {}",
        100.0 * NOISE,
        picks.len()
    );
    out
}
