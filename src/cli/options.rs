//! The options of everything that compiles.

use crate::compile::{DEFAULT_BUDGET, DEFAULT_OPT_LEVEL, Gate, MAX_OPT_LEVEL, Options, Precision, UserRules};
use crate::formats::read_text;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;
use tilewright_passes::egraph::{Device, Numerics};
use tilewright_passes::mixed::Policy;
use tilewright_passes::tuned::Tuned;

/// The dtype of contractions: of programs that are all in f32, or of mixed precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compute {
    /// f32
    F32,
    /// bf16
    Bf16,
    /// f16
    F16,
}

impl Compute {
    /// The policy; none for f32.
    pub fn policy(self) -> Result<Option<Policy>, Diagnostic> {
        match self {
            Compute::F32 => Ok(None),
            Compute::Bf16 => Policy::new(DType::Bf16).map(Some),
            Compute::F16 => Policy::new(DType::F16).map(Some),
        }
    }
}

/// More threads a core than this are a warning.
const MANY: usize = 4;

/// How to compile, on the command line.
#[derive(clap::Args, Clone, Debug)]
pub struct CompileArgs {
    /// 0: each primitive alone; 1: fusion in a fixed order; 2: kernels chosen by price
    #[arg(long, global = true, default_value_t = DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_OPT_LEVEL)))]
    pub opt_level: u8,
    /// Which rewrites may fire at level 2: exact (at every level each sum and product of floats is a kernel of its own, so that its
    /// bits do not depend on what is fused), rounding (one operation may round differently), reassociate (rules of the
    /// classes reassociates and domain too) or approx. From reassociate on sums may be reordered, numbers are taken to be
    /// finite (an infinity or NaN may come out as another of these), and products of bf16 may take numbers below the least
    /// normal f32 for 0. `tilewright rules --help` has the classes
    #[arg(long, global = true, default_value = "reassociate", value_parser = numerics)]
    pub numerics: Numerics,
    /// Threads; all cores if absent. They never change a result
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Precision of products
    #[arg(long, global = true, value_enum, default_value_t = Precision::Highest)]
    pub precision: Precision,
    /// Rewrite rules for level 2 beside the shipped ones; may be repeated. They are tested as `rules check` does, and may fire as
    /// --numerics allows their class
    #[arg(long, global = true, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// Take the rules of --rules without a test: one that is wrong makes wrong results
    #[arg(long, global = true, requires = "rules")]
    pub unchecked_rules: bool,
    /// Rules that may not fire at level 2: names of rules, or of groups of rules
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',')]
    pub without_rules: Vec<String>,
    /// What kernels are priced by at level 2: a name (cpu-avx512, h200, ..) or a file that `calibrate` wrote. The shipped
    /// description of the target if absent; it changes which kernels are chosen, never what they compute beyond --numerics
    #[arg(long, global = true, value_name = "NAME|FILE")]
    pub machine: Option<String>,
    /// How much work level 2 may do to choose the kernels of a function: covers compared and sets of values searched, never time,
    /// so that kernels do not depend on the machine that compiles. More never gives dearer kernels; a block of a model needs a
    /// few thousand
    #[arg(long, global = true, value_name = "UNITS", default_value_t = DEFAULT_BUDGET)]
    pub budget: usize,
    /// Schedules of CPU kernels that `tune` wrote
    #[arg(long, global = true, value_name = "FILE")]
    pub tuned: Option<PathBuf>,
    /// Prove that every kernel stays inside its buffers; one that is not proved is an error. Debug builds always do
    #[arg(long, global = true)]
    pub verify: bool,
}

impl CompileArgs {
    /// For this machine. Errors: `cpu-feature`; those of the rule files.
    pub fn options(&self) -> Result<Options, Diagnostic> {
        let host = Options::host()?;
        let threads = self.threads.map_or(host.threads, usize::from);
        if threads > MANY * host.threads {
            let message = format!("{threads} threads share {} cores and mostly wait for each other", host.threads);
            super::note(&format!("{}\n", Diagnostic::warning("threads", message)));
        }
        let verify = self.verify || host.verify;
        let (opt_level, numerics, precision) = (self.opt_level, self.numerics, self.precision);
        let rules = self.user_rules()?;
        let device = self.machine.as_deref().map(machine).transpose()?.map(Arc::new);
        let tuned = self.tuned.as_deref().map(|path| measured(path, &host)).transpose()?.map(Arc::new);
        Ok(Options {
            opt_level,
            numerics,
            precision,
            threads,
            verify,
            rules,
            device,
            tuned,
            budget: self.budget,
            ..host
        })
    }

    /// The shipped rules and those of `--rules`, tested unless they need not be, but not those of `--without-rules`.
    ///
    /// Errors: those of the rule files; `unknown-rule`.
    pub fn user_rules(&self) -> Result<UserRules, Diagnostic> {
        let gate = if self.unchecked_rules { Gate::Open } else { Gate::Checked };
        if !(self.rules.is_empty() && self.without_rules.is_empty()) && self.opt_level < MAX_OPT_LEVEL {
            let message = format!("rules fire at level {MAX_OPT_LEVEL}, not at level {}", self.opt_level);
            super::note(&format!("{}\n", Diagnostic::warning("unused-rules", message)));
        }
        let mut rules = UserRules::default();
        for path in &self.rules {
            let read = rules.with(&path.display().to_string(), &read_text(path)?, gate);
            rules = read.map_err(|d| match d.code {
                "wrong-rule" => {
                    d.note("`tilewright rules check` writes this as a program; --unchecked-rules takes it as it is")
                }
                _other => d,
            })?;
        }
        if self.without_rules.is_empty() { Ok(rules) } else { rules.without(&self.without_rules) }
    }
}

/// Measured schedules; a warning if they are those of another machine.
fn measured(path: &Path, host: &Options) -> Result<Tuned, Diagnostic> {
    let tuned = Tuned::parse(&path.display().to_string(), &read_text(path)?)?;
    if tuned.isa != host.isa.name() {
        let message = format!("{} was measured with {}, and this is {}", path.display(), tuned.isa, host.isa.name());
        super::note(&format!("{}\n", Diagnostic::warning("tuned-elsewhere", message)));
    }
    Ok(tuned)
}

/// A shipped description, or one in a file.
pub(super) fn machine(name: &str) -> Result<Device, Diagnostic> {
    let path = Path::new(name);
    if Device::names().any(|shipped| shipped == name) || !path.exists() {
        return Device::named(name).map_err(|d| d.note("no file has this name either"));
    }
    Device::parse(name, &read_text(path)?)
}

fn numerics(name: &str) -> Result<Numerics, String> {
    Numerics::by_name(name).ok_or_else(|| "expected exact, rounding, reassociate or approx".into())
}
