//! A derivative within a budget of memory: the candidates of [`tilewright_passes::checkpoint`], each costed as it would run.

mod cost;
mod report;

pub use cost::Cost;
pub(crate) use cost::arena;
pub use report::{Point, svg};

use crate::compile::Options;
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops::type_bytes;
use tilewright_ir::graph::Module;
use tilewright_ir::op::Name;
use tilewright_ir::types::Bindings;
use tilewright_passes::autodiff::{Form, Keep, Kept};
use tilewright_passes::checkpoint::{Candidate, Segmented, candidates};

/// What is wanted of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// At most this many bytes of arena, and the fewest operations that it allows.
    Bytes(u64),
    /// About sqrt(n) segments of a chain of n blocks.
    Sqrt,
    /// As little as can be had.
    Least,
}

/// What can be had.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Each way to differentiate, the plain one first.
    pub points: Vec<Point>,
    /// The one that is taken.
    pub chosen: usize,
    /// The derivative of the chosen one.
    pub module: Module,
    /// Parameters on which no result depends.
    pub unrelated: Vec<std::sync::Arc<str>>,
}

/// Differentiates the entry of `module` by `wrt` within a budget. `progress` hears how many candidates are done, of how many.
///
/// Errors: `checkpoint-budget` for fewer bytes than the least, which it names; `no-chain` for [`Budget::Sqrt`] of a program without one;
/// those of differentiation and of the compiler.
pub fn within(
    module: &Module,
    wrt: &[&str],
    form: Form,
    (budget, sizes): (Budget, &Bindings),
    options: &Options,
    progress: &dyn Fn(usize, usize),
) -> Result<Curve, Diagnostic> {
    let mut curve = curve(module, wrt, form, sizes, options, progress)?;
    let chosen = chosen(&curve.0, budget)?;
    let made = curve.1.swap_remove(chosen).made;
    Ok(Curve { points: curve.0, chosen, module: made.module, unrelated: made.unrelated })
}

/// All that can be had, and what makes each. Errors: those of [`within`], but for budgets.
pub fn curve(
    module: &Module,
    wrt: &[&str],
    form: Form,
    sizes: &Bindings,
    options: &Options,
    progress: &dyn Fn(usize, usize),
) -> Result<(Vec<Point>, Vec<Candidate>), Diagnostic> {
    let all = candidates(module, wrt, form)?;
    let mut points = Vec::new();
    for (i, candidate) in all.iter().enumerate() {
        progress(i, all.len());
        let module = &candidate.made.module;
        let runs = runs(module)?;
        let count = |name: &Name| runs.get(name).copied().unwrap_or(0.0);
        let kept = &candidate.made.kept;
        // The sum of no floats is -0.
        let total = |one: &dyn Fn(&Kept) -> f64| 0.0 + kept.iter().map(one).sum::<f64>();
        let bytes = |k: &Kept| {
            let sizes = k.values.iter().map(|v| type_bytes(&v.ty).and_then(|d| d.eval(sizes).ok()).unwrap_or(0));
            sizes.sum::<i64>() as f64
        };
        points.push(Point {
            keep: candidate.keep,
            segments: candidate.segments,
            cost: Cost::of(module, options, sizes)?,
            kept_bytes: total(&|k| count(&k.forward) * bytes(k)),
            again: total(&|k| count(&k.backward) * k.again),
            kept: kept.iter().filter(|k| !k.values.is_empty()).cloned().collect(),
        });
    }
    Ok((points, all))
}

/// The number of the point that a budget takes. Errors: `checkpoint-budget`, `no-chain`.
pub fn chosen(points: &[Point], budget: Budget) -> Result<usize, Diagnostic> {
    let all = || points.iter().enumerate();
    let fewest = |a: &Point, b: &Point| a.cost.flops.total_cmp(&b.cost.flops).then(a.cost.peak.cmp(&b.cost.peak));
    let least = all().min_by(|(_, a), (_, b)| a.cost.peak.cmp(&b.cost.peak).then(fewest(a, b)));
    let (least, at) = least.map(|(i, p)| (p.cost.peak, i)).ok_or_else(|| Diagnostic::bug("a curve without points"))?;
    match budget {
        Budget::Least => Ok(at),
        Budget::Sqrt => {
            let found = points.iter().position(|p| p.segments == Segmented::Sqrt && p.keep == Keep::Costly);
            found.ok_or_else(|| Diagnostic::new("no-chain", "there is no chain of blocks to make segments of"))
        }
        Budget::Bytes(most) => {
            let fits = all().filter(|(_, p)| p.cost.peak as u64 <= most).min_by(|(_, a), (_, b)| fewest(a, b));
            fits.map(|(i, _)| i).ok_or_else(|| {
                let message = format!("no way to differentiate fits into an arena of {most} bytes");
                Diagnostic::new("checkpoint-budget", message).note(format!("the least takes {least} bytes"))
            })
        }
    }
}

/// How often a run of the entry runs each function; the body of a scan once for each step of known number.
pub(crate) fn runs(module: &Module) -> Result<BTreeMap<Name, f64>, Diagnostic> {
    let mut count: BTreeMap<Name, f64> = BTreeMap::from([(module.entry()?.name.clone(), 1.0)]);
    // Callees stand before their callers.
    for f in module.functions.values().rev() {
        let Some(&mine) = count.get(&f.name) else { continue };
        for node in &f.nodes {
            let times = match &node.op {
                tilewright_ir::op::GraphOp::Scan { length, .. } => length.as_const().unwrap_or(1) as f64,
                _once => 1.0,
            };
            for callee in node.callees() {
                *count.entry(callee.clone()).or_default() += mine * times;
            }
        }
    }
    Ok(count)
}
