//! Benchmarks: the work of the peers' scripts, built in the DSL and run through [`compile`], in the same units.
//!
//! A row names its work by the strings `bench` and `shape`, and `check` is made from the result, so rows of peers on the
//! same inputs (see [`numpy`]) can be told to have done the same.

mod attention;
mod blocks;
mod calibrate;
mod checkpoint;
mod elementwise;
mod encoder;
mod gemm;
mod gpt2;
mod levels;
mod llm;
pub mod machine;
pub mod numpy;
mod schedules;
mod train;

pub use attention::attention;
pub use blocks::{Block, Lora, Moe, Vit, blocks, lora, moe, vit};
pub use calibrate::{Calibration, calibrate};
pub use checkpoint::{CheckpointRow, checkpoint};
pub use elementwise::elementwise;
pub use encoder::encoder;
pub use gemm::{Gemm, gemm};
pub use gpt2::gpt2;
pub use levels::{Variant, levels};
pub use llm::llm;
pub use schedules::{Judged, SCHEDULES_HEAD, Schedule, schedules};
pub use train::train;

use crate::compile::{Options, Precision, compile};
use machine::Others;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::types::Bindings;
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::Executable;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How to compile.
    pub options: Options,
    /// Whether the time of each kernel is printed to standard error, of one more run.
    pub profile: bool,
}

/// One measurement. Keys and units are those of the peers' scripts; what does not apply is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What kind of work.
    pub bench: &'static str,
    /// Who did it.
    pub peer: &'static str,
    /// Its size.
    pub shape: String,
    /// Threads of the pool.
    pub threads: usize,
    /// Seconds of the median run.
    pub median_s: f64,
    /// Seconds of the fastest run.
    pub min_s: f64,
    /// What else is known.
    #[serde(flatten)]
    pub more: More,
    /// Precision of products.
    pub precision: Precision,
    /// Level of optimisation.
    pub opt_level: u8,
    /// Features of the processor.
    pub machine: String,
    /// Cores that others used meanwhile; above 0.1 or so the machine was not quiet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_cores: Option<f64>,
}

/// What only some rows have.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it, units included")]
pub struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gb_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentences_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_result_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_mb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bench, shape, threads) = (self.bench, &self.shape, self.threads);
        write!(f, "{bench:<16} {shape:<24} {threads} threads  {:>10.4} ms", self.median_s * 1e3)?;
        write!(f, "  (least {:.4})", self.min_s * 1e3)?;
        let more = &self.more;
        let rates = [
            (more.gflops, "GFLOP/s"),
            (more.gb_s, "GB/s"),
            (more.tokens_s, "tokens/s"),
            (more.sentences_s, "sentences/s"),
            (more.first_result_s, "s to the first result"),
        ];
        for (value, unit) in rates {
            if let Some(value) = value {
                write!(f, "  {value} {unit}")?;
            }
        }
        match self.other_cores {
            Some(cores) if cores > 0.1 => write!(f, "  (others used {cores:.2} cores)"),
            Some(_) | None => Ok(()),
        }
    }
}

/// Times of runs, and what others did meanwhile.
struct Times {
    median: f64,
    least: f64,
    others: Option<f64>,
}

impl Times {
    fn of(mut times: Vec<Duration>, others: &Others) -> Times {
        times.sort_unstable();
        let at = |i: usize| times.get(i).map_or(f64::NAN, Duration::as_secs_f64);
        Times { median: at(times.len() / 2), least: at(0), others: others.cores() }
    }
}

/// Two runs to warm up, then at least 7, and more of short ones until they fill `budget`.
fn measure(budget: Duration, mut run: impl FnMut() -> Result<(), Diagnostic>) -> Result<Times, Diagnostic> {
    run()?;
    run()?;
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    let others = Others::watch();
    while times.len() < 7 || (spent < budget && times.len() < 500) {
        let start = Instant::now();
        run()?;
        let time = start.elapsed();
        spent += time;
        times.push(time);
    }
    Ok(Times::of(times, &others))
}

/// A row of these times.
fn row(bench: &'static str, shape: String, times: &Times, setup: &Setup, more: More) -> Row {
    let options = &setup.options;
    Row {
        bench,
        peer: "tilewright",
        shape,
        threads: options.threads,
        median_s: digits(times.median, 6),
        min_s: digits(times.least, 6),
        more,
        precision: options.precision,
        opt_level: options.opt_level,
        machine: machine::features(options.isa),
        other_cores: times.others.map(|c| (c * 100.0).round() / 100.0),
    }
}

/// `x` with `count` significant digits.
fn digits(x: f64, count: usize) -> f64 {
    format!("{x:.*e}", count.saturating_sub(1)).parse().unwrap_or(x)
}

/// Billions a second, with one digit behind the point.
fn giga(count: f64, seconds: f64) -> Option<f64> {
    Some((count / seconds / 1e8).round() / 10.0)
}

/// A rate a second, with one digit behind the point.
fn rate(count: usize, seconds: f64) -> Option<f64> {
    Some((count as f64 / seconds * 10.0).round() / 10.0)
}

/// The mean size of an element, which rows of peers agree on.
fn mean_size(a: &Array) -> Option<f64> {
    let values = a.to_f64()?;
    Some(digits(values.iter().map(|x| x.abs()).sum::<f64>() / values.len().max(1) as f64, 6))
}

/// A module with its inputs, compiled.
struct Prepared {
    executable: Executable,
    buffers: Vec<Buffer>,
    /// Of a first run.
    results: Vec<Array>,
    profile: bool,
}

impl Prepared {
    /// Compiles `module` and runs it once. No size is symbolic, no input donated.
    fn new(module: &Module, inputs: &[Array], setup: &Setup) -> Result<Prepared, Diagnostic> {
        let executable = compile(module, &setup.options)?;
        let results = executable.run(inputs, &Bindings::new())?;
        let buffers = inputs.iter().map(|a| executable.share(a)).collect::<Result<_, _>>()?;
        Ok(Prepared { executable, buffers, results, profile: setup.profile })
    }

    fn result(&self) -> Result<&Array, Diagnostic> {
        self.results.first().ok_or_else(|| Diagnostic::bug("a bench without a result"))
    }

    fn measure(&mut self, budget: Duration) -> Result<Times, Diagnostic> {
        let bindings = Bindings::new();
        let times = measure(budget, || self.executable.run_buffers(&self.buffers, &bindings).map(drop))?;
        if self.profile {
            self.executable.enable_profile();
            self.executable.run_buffers(&self.buffers, &bindings)?;
            self.executable.profile().iter().for_each(|p| crate::cli::note(&p.to_string()));
        }
        Ok(times)
    }
}

/// Whether there is memory for the `bytes` that a bench of `what` holds at the same time. Asked for at once and before any
/// of it is made, since much of it is made by what cannot fail.
///
/// Errors: `out-of-memory`.
fn room(bytes: usize, what: &str) -> Result<(), Diagnostic> {
    let refused = |_| Diagnostic::new("out-of-memory", format!("no memory for {bytes} bytes of {what}"));
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(refused)
}

/// How long short runs are repeated.
const SECOND: Duration = Duration::from_secs(1);
