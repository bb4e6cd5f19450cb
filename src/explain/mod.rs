//! Why a program has the kernels that it has: the answer of `tilewright explain`, as data, text and a page.

mod html;
mod layout;
mod report;
pub(crate) mod text;

use crate::compile::{Options, Target, blocks, explained, programs};
use report::function;
use serde::Serialize;
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::kernel::{Program, text::print_program};
use tilewright_ir::types::Bindings;
use tilewright_passes::Explained;
use tilewright_passes::egraph::explain::Replay;
use tilewright_runtime::plan::plan_programs;

pub(crate) use html::escaped;
pub use html::page;
pub use text::text;

/// What kernels cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Kernels that are started.
    pub launches: usize,
    /// Operations on numbers; none where a kernel does not say.
    pub flops: Option<i64>,
    /// Bytes read and written; none where a kernel does not say.
    pub bytes: Option<i64>,
    /// Seconds that the model of the device expects, without what runs other functions (calls, scans); none where it has no price.
    pub seconds: Option<f64>,
}

/// One use of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name.
    pub rule: String,
    /// What it keeps of the numbers, as `rules list` has it.
    pub class: String,
    /// The line of a rule file, `algebra.rules:51`; none for a rule that is built in.
    pub line: Option<String>,
    /// Whether it goes from the left side of the rule to the right one.
    pub forward: bool,
    /// What is replaced.
    pub before: String,
    /// What replaces it.
    pub after: String,
    /// Values of the graph that it is about.
    pub values: Vec<String>,
    /// Their scopes in the model.
    pub scopes: Vec<String>,
    /// The lines that made them.
    pub places: Vec<String>,
}

/// The uses of rules behind a value that a kernel stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// The value of the graph; none for one that only rules made.
    pub value: Option<String>,
    /// Its name in terms of other kernels.
    pub stored_as: String,
    /// The uses of rules; none where they could not be found again.
    pub steps: Option<Vec<Step>>,
}

/// What came second for a kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Its template, with axes.
    pub template: String,
    /// What it reads from other kernels.
    pub reads: Vec<String>,
    /// Seconds by which the program would be slower.
    pub loss: f64,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// Names of its kernels in the program: one, but for variants and parts.
    pub names: Vec<String>,
    /// Its template, with axes.
    pub template: String,
    /// Its terms, a line for each value that is stored or used twice.
    pub terms: String,
    /// What bounds it: products, elementwise work, memory or launch.
    pub bound_by: &'static str,
    /// What it takes.
    pub cost: Cost,
    /// What levels 0 and 1 take for the same work.
    pub before: [Cost; 2],
    /// Operations of the graph whose work it does.
    pub replaces: Vec<String>,
    /// What it stores, and how it comes to compute that.
    pub chains: Vec<Chain>,
    /// What it reads from other kernels.
    pub reads: Vec<String>,
    /// The second choice; none where nothing else computes what it stores.
    pub second: Option<Second>,
}

/// The kernels of an operation that no rule changes: it has no terms, or under `exact` one order of its sums.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Barrier {
    /// The operation.
    pub operation: String,
    /// Why there are no terms for it.
    pub why: String,
    /// Names of its kernels in the program.
    pub names: Vec<String>,
    /// What bounds it: products, elementwise work, memory or launch.
    pub bound_by: &'static str,
    /// What it takes.
    pub cost: Cost,
}

/// A node of a picture. Operands come first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// What it does.
    pub label: String,
    /// Its name, type and place.
    pub detail: Vec<String>,
    /// Numbers of nodes.
    pub operands: Vec<usize>,
    /// Kernels that do its work.
    pub kernels: Vec<usize>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Why it is lowered at level 1 and has nothing to explain.
    pub beyond: Option<String>,
    /// Limits that the search met, and what else a reader should know.
    pub notes: Vec<String>,
    /// The sizes that numbers are for.
    pub sizes: BTreeMap<String, i64>,
    /// What levels 0, 1 and 2 take.
    pub levels: [Cost; 3],
    /// No choice among the kernels that were looked at takes fewer seconds.
    pub bound: f64,
    /// Bytes of the arena at levels 0, 1 and 2, callees included; none on a GPU.
    pub peak: Option<[i64; 3]>,
    /// Rules that kernels come from.
    pub used: Vec<String>,
    /// Rules that fired and no kernel comes from.
    pub unused: Vec<String>,
    /// Kernels, producers first.
    pub kernels: Vec<Kernel>,
    /// Kernels of operations that no rule changes, which every level has.
    pub barriers: Vec<Barrier>,
    /// The graph as it was given.
    pub graph: Vec<Node>,
    /// The terms of the kernels.
    pub chosen: Vec<Node>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What it was compiled for.
    pub target: String,
    /// The device that prices are for.
    pub device: String,
    /// Which rules may fire.
    pub numerics: String,
    /// The functions, in the order of the module.
    pub functions: Vec<FunctionReport>,
}

/// The share of predicted seconds by which a choice may be above the best one, of which a bound is known.
/// Negative if the bound is wrong; what is only rounding of both sums is 0.
pub fn gap(bound: f64, predicted: f64) -> f64 {
    let gap = if predicted > 0.0 { 1.0 - bound / predicted } else { 0.0 };
    if gap.abs() < 1e-9 { 0.0 } else { gap }
}

/// Explains a module: functions, their kernels, the rules behind them. `likely` are sizes for which kernels are chosen and
/// priced, where they are not the usual ones.
///
/// Errors: `stage-level` below level 2, which has nothing to explain; those of the verifier and of the lowering.
pub fn explain(module: &Module, options: &Options, target: Target, likely: &Bindings) -> Result<Report, Diagnostic> {
    Ok(Explanation::new(module, options, target, likely)?.report)
}

/// A report, and what it was made of.
pub struct Explanation {
    /// The report.
    pub report: Report,
    found: Vec<Result<Explained, Diagnostic>>,
}

impl Explanation {
    /// As [`explain`]. Errors: those of [`explain`].
    pub fn new(
        module: &Module,
        options: &Options,
        target: Target,
        likely: &Bindings,
    ) -> Result<Explanation, Diagnostic> {
        let module = &*blocks(module, options)?;
        let found = explained(module, options, target, likely)?;
        let compiled = programs(module, options, target)?;
        let peaks = if target.gpu().is_none() { Some(peaks(module, options, &found)?) } else { None };
        let mut functions = Vec::with_capacity(found.len());
        for (i, (f, one)) in module.functions.values().zip(&found).enumerate() {
            let mut report = function(f, one)?;
            if let (Ok(one), Some(program)) = (one, compiled.get(i))
                && print_program(&one.levels[2].program) != print_program(program)
            {
                let why = "for the usual sizes, which compilations are for, these would be other kernels";
                report.notes.push(why.into());
            }
            report.peak = peaks.as_ref().and_then(|all| peak(all, i, &report.sizes));
            functions.push(report);
        }
        let isa = target.gpu().unwrap_or(options.isa.name());
        let device = tilewright_passes::Target { isa }.device(&options.lowering())?.name.clone();
        let (target, numerics) = (target.name().into(), options.numerics.to_string());
        Ok(Explanation { report: Report { target, device, numerics, functions }, found })
    }

    /// Replays the chains of a function on `inputs`, an array for each parameter: both sides of every use of a rule are
    /// computed in f64. Gives how many uses that were; none for a function beyond a limit of level 2.
    ///
    /// Errors: `replay` for the first that does not hold; those of the interpreter.
    pub fn replay(
        &self,
        module: &Module,
        f: &Function,
        bindings: &Bindings,
        inputs: &[Array],
    ) -> Result<Option<Replay>, Diagnostic> {
        let mine = self.found.iter().flatten().find(|e| e.function.name == f.name);
        mine.map(|e| e.replay(module, bindings, inputs)).transpose()
    }
}

/// Memory plans of all functions at levels 0, 1 and 2.
fn peaks(
    module: &Module,
    options: &Options,
    found: &[Result<Explained, Diagnostic>],
) -> Result<[Vec<tilewright_runtime::plan::Plan>; 3], Diagnostic> {
    let level = |n: usize| {
        let whole: Option<Vec<Program>> =
            found.iter().map(|e| Some(e.as_ref().ok()?.levels[n].program.clone())).collect();
        // A function beyond a limit has no programs of its own here.
        let opt_level = u8::try_from(n).unwrap_or(options.opt_level);
        let lowered =
            whole.map_or_else(|| programs(module, &Options { opt_level, ..options.clone() }, Target::Cpu), Ok)?;
        plan_programs(&lowered)
    };
    Ok([level(0)?, level(1)?, level(2)?])
}

/// The peaks of one function for some sizes.
fn peak(
    plans: &[Vec<tilewright_runtime::plan::Plan>; 3],
    function: usize,
    sizes: &BTreeMap<String, i64>,
) -> Option<[i64; 3]> {
    let bindings: Bindings = sizes.iter().map(|(name, n)| (name.as_str().into(), *n)).collect();
    let one = |level: usize| plans[level].get(function)?.peak.eval(&bindings).ok();
    Some([one(0)?, one(1)?, one(2)?])
}
