//! A derivative within a budget of memory: the candidates of [`tilewright_passes::checkpoint`], each costed as it would run.
//!
//! [`within`] is for a module, [`program_within`] for programs that the DSL builds around a gradient, such as training steps.

mod budget;
mod cost;
mod report;

pub use budget::Budget;
pub use cost::Cost;
pub(crate) use cost::arena;
pub use report::{Point, svg};
pub use tilewright_passes::checkpoint::{Checkpointing, Plan};

use crate::compile::Options;
use report::front;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops::type_bytes;
use tilewright_ir::graph::Module;
use tilewright_ir::op::Name;
use tilewright_ir::types::Bindings;
use tilewright_passes::Known;
use tilewright_passes::autodiff::{Differentiated, Form, Kept};
use tilewright_passes::checkpoint::{Candidate, MOST, add_candidates, derivative};

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

impl Curve {
    /// The point that is taken.
    pub fn point(&self) -> &Point {
        &self.points[self.chosen]
    }
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
    taken(curve(module, wrt, form, sizes, options, progress)?, budget)
}

/// The program that `build` makes with the [`Checkpointing`] that fits a budget, which is of the arena of the whole program. `build` is run
/// for each plan that the budget may take, and takes its gradients by what it is given.
///
/// ```
/// use tilewright::checkpoint::{Budget, Checkpointing, program_within};
/// use tilewright::compile::Options;
/// use tilewright::dsl::{Graph, Tensor};
/// use tilewright::types::{Bindings, DType};
///
/// let build = |checkpointing: &Checkpointing| {
///     let g = Graph::new("main");
///     let x = g.input("x", DType::F32, [64, 16]);
///     let weights: Vec<Tensor> = (0..9).map(|i| g.input(&format!("w{i}"), DType::F32, [16, 16])).collect();
///     let layer = |x: Tensor, w: &Tensor| x.matmul(w).tanh();
///     let loss = |weights: &Vec<Tensor>| weights.iter().fold(x.clone(), layer).sum(&[0, 1]);
///     let (value, gradients) = checkpointing.value_and_grad(loss)(&weights);
///     let moved = weights.iter().zip(&gradients).map(|(w, d)| w - d * 0.01);
///     let all: Vec<Tensor> = std::iter::once(value).chain(moved).collect();
///     g.finish(&all.iter().collect::<Vec<_>>())
/// };
/// let budget = (Budget::Part(0.9), &Bindings::new());
/// let curve = program_within(&build, budget, &Options::host()?, &|_done, _of| {})?;
/// assert!(10 * curve.point().cost.peak <= 9 * curve.points[0].cost.peak);
/// # Ok::<(), tilewright::diag::Diagnostic>(())
/// ```
///
/// Errors: those of [`within`] and of `build`.
pub fn program_within(
    build: &dyn Fn(&Checkpointing) -> Result<Module, Diagnostic>,
    (budget, sizes): (Budget, &Bindings),
    options: &Options,
    progress: &dyn Fn(usize, usize),
) -> Result<Curve, Diagnostic> {
    let mut made = |plan| {
        let checkpointing = Checkpointing::by(plan);
        let module = build(&checkpointing)?;
        let mut kept = checkpointing.kept();
        kept.retain(|k| module.functions.contains_key(&k.backward));
        Ok(Differentiated { module, unrelated: Vec::new(), kept })
    };
    let costing = Costing { sizes, options, progress, known: Known::default() };
    let all = match budget {
        Budget::None => few(&[Plan::PLAIN], &mut made, &costing)?,
        Budget::Sqrt => few(&[Plan::PLAIN, Plan::SQRT], &mut made, &costing)?,
        Budget::Least | Budget::Bytes(_) | Budget::Part(_) => search(&mut made, &costing)?,
    };
    taken(all, budget)
}

/// The curve with what the budget takes.
fn taken((points, mut made): (Vec<Point>, Vec<Candidate>), budget: Budget) -> Result<Curve, Diagnostic> {
    let chosen = chosen(&points, budget)?;
    let made = made.swap_remove(chosen).made;
    Ok(Curve { points, chosen, module: made.module, unrelated: made.unrelated })
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
    let costing = Costing { sizes, options, progress, known: Known::default() };
    search(&mut |plan| derivative(module, plan, wrt, form), &costing)
}

/// How candidates are costed.
struct Costing<'a> {
    sizes: &'a Bindings,
    options: &'a Options,
    /// Hears how many are done, of how many.
    progress: &'a dyn Fn(usize, usize),
    /// Functions that several have.
    known: Known,
}

/// What these plans give.
fn few(
    plans: &[Plan],
    build: &mut dyn FnMut(Plan) -> Result<Differentiated, Diagnostic>,
    costing: &Costing<'_>,
) -> Result<(Vec<Point>, Vec<Candidate>), Diagnostic> {
    let (mut made, mut points) = (Vec::new(), Vec::new());
    add_candidates(&mut made, plans.iter().copied(), build)?;
    cost_rest(&mut points, &made, costing)?;
    Ok((points, made))
}

/// Plans whose blocks are alike, then those between neighbours on the front of these.
fn search(
    build: &mut dyn FnMut(Plan) -> Result<Differentiated, Diagnostic>,
    costing: &Costing<'_>,
) -> Result<(Vec<Point>, Vec<Candidate>), Diagnostic> {
    let plans: Vec<Plan> = Plan::all().collect();
    let (mut points, mut made) = few(&plans, build, costing)?;
    add_candidates(&mut made, between(&points), build)?;
    cost_rest(&mut points, &made, costing)?;
    Ok((points, made))
}

/// Plans between neighbours on the front, those of the widest gaps of memory first, as many as may still come.
fn between(points: &[Point]) -> Vec<Plan> {
    let front = front(points);
    let mut gaps: Vec<(usize, Plan, Plan)> = Vec::new();
    for pair in front.windows(2) {
        let (less, more) = (&points[pair[0]], &points[pair[1]]);
        gaps.push((more.cost.peak - less.cost.peak, more.plan, less.plan));
    }
    gaps.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let plans = gaps.into_iter().flat_map(|(_, more, less)| Plan::between(more, less));
    plans.take(MOST.saturating_sub(points.len())).collect()
}

/// Costs what has no point yet, as many at once as there are threads: each is lowered by itself.
fn cost_rest(points: &mut Vec<Point>, made: &[Candidate], costing: &Costing<'_>) -> Result<(), Diagnostic> {
    let Costing { sizes, options, progress, known } = costing;
    let (from, rest) = (points.len(), &made[points.len()..]);
    let next = AtomicUsize::new(0);
    let work = |begins: &dyn Fn(usize)| {
        let mut own = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = rest.get(i) else { return own };
            begins(i);
            let found = point(candidate, sizes, options, known);
            if found.is_err() {
                // No other needs to begin.
                next.store(rest.len(), Ordering::Relaxed);
            }
            own.push((i, found));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let helper = |_| Builder::new().stack_size(STACK).spawn_scoped(scope, || work(&|_| {})).ok();
        let helpers: Vec<_> = (1..options.threads.min(rest.len())).filter_map(helper).collect();
        let mut all = work(&|i| progress(from + i, made.len()));
        for helper in helpers {
            all.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    for (_, found) in all {
        points.push(found?);
    }
    Ok(())
}

/// Bytes of the stack of a thread that lowers, as those of the main one.
const STACK: usize = 8 << 20;

fn point(candidate: &Candidate, sizes: &Bindings, options: &Options, known: &Known) -> Result<Point, Diagnostic> {
    let module = &candidate.made.module;
    let runs = runs(module)?;
    let count = |name: &Name| runs.get(name).copied().unwrap_or(0.0);
    let kept = &candidate.made.kept;
    // One way forward may serve several ways back, by other parameters: what it keeps is there once.
    let mut forward = BTreeSet::new();
    let once: Vec<&Kept> = kept.iter().filter(|k| forward.insert(&k.forward)).collect();
    let bytes = |k: &Kept| {
        let sizes = k.values.iter().map(|v| type_bytes(&v.ty).and_then(|d| d.eval(sizes).ok()).unwrap_or(0));
        sizes.sum::<i64>() as f64
    };
    Ok(Point {
        plan: candidate.plan,
        cost: Cost::knowing(module, options, sizes, known)?,
        // The sum of no floats is -0.
        kept_bytes: 0.0 + once.iter().map(|k| count(&k.forward) * bytes(k)).sum::<f64>(),
        again: 0.0 + kept.iter().map(|k| count(&k.backward) * k.again).sum::<f64>(),
        kept: once.into_iter().filter(|k| !k.values.is_empty()).cloned().collect(),
    })
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
            let found = points.iter().position(|p| p.plan == Plan::SQRT);
            found.ok_or_else(|| Diagnostic::new("no-chain", "there is no chain of blocks to make segments of"))
        }
        Budget::None => Ok(0),
        Budget::Bytes(_) | Budget::Part(_) => {
            let most = budget.bytes(points.first().map_or(0, |p| p.cost.peak)).unwrap_or(u64::MAX);
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
