//! Covers: which classes of a saturated e-graph are stored, and which kernel computes each.
//!
//! A *cut* is one kernel: a node for each class that it computes, and the classes that it reads from memory. `enumerate`
//! grows a bounded list of cuts for every class, children first, and `multi` adds those with several outputs; `kind` finds
//! the template by form; `price` says how long a cut takes on a device; `select` chooses cuts that produce every root, so
//! that work which several need is paid once, and `frontier` finds the cheapest choice where it can; `bound` and `path` say how
//! far a choice can be from that.
//!
//! Nothing here depends on a clock, on hash order or on the machine that compiles.

mod body;
mod bound;
mod context;
mod device;
mod draw;
mod enumerate;
mod frontier;
#[cfg(feature = "ilp")]
mod ilp;
mod kind;
mod loops;
mod multi;
mod partition;
mod path;
mod price;
mod print;
mod problem;
mod select;
#[cfg(test)]
mod tests;

pub use context::{Context, InputFacts, usual_sizes};
pub(crate) use device::json_error;
pub use device::{Capabilities, Device, Positive, Rates};
pub use draw::{Drawn, drawn};
#[cfg(feature = "ilp")]
pub use ilp::Integer;
pub use partition::partition;
pub use print::{origins, print_cover, rewritten, template, terms};
pub(super) use problem::each;
pub(crate) use problem::work;

use super::facts::Graph;
use super::lang::{AxisId, ENode};
use egg::Id;
use enumerate::Candidates;
use problem::Problem;
use select::{Found, Selection};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;

/// What a kernel's time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Micro-kernels or matrix units.
    Matrix,
    /// Elementwise code.
    Vector,
    /// Bytes.
    Memory,
    /// Starting it.
    Launch,
}

/// An estimate of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Seconds.
    pub seconds: f64,
    /// Seconds without the writing of results: orders cuts where `seconds` hides what is not the bound.
    pub rank: f64,
    /// FLOPs of products; a multiply-add is 2.
    pub flops: f64,
    /// Bytes read from and written to memory.
    pub bytes: f64,
    /// Seconds of micro-kernels or matrix units.
    pub matrix: f64,
    /// Seconds of elementwise code.
    pub vector: f64,
    /// Seconds of reading and writing.
    pub memory: f64,
    /// Seconds of launches.
    pub launch: f64,
    /// The largest of them.
    pub bound: Bound,
}

/// A sum of products inside a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The outermost sum.
    pub fold: Id,
    /// The operand with the rows.
    pub left: Id,
    /// The operand with the columns: the one that is packed.
    pub right: Id,
    /// Axes of the left operand alone.
    pub rows: Vec<AxisId>,
    /// Axes of the right operand alone.
    pub columns: Vec<AxisId>,
    /// Summed axes.
    pub depth: Vec<AxisId>,
    /// Axes of both and of the result.
    pub batch: Vec<AxisId>,
}

/// Which template computes a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values move, none is computed.
    Copy,
    /// No folds.
    Pointwise,
    /// Folds in loops, none of them a matrix product.
    Row,
    /// Matrix products on micro-kernels with elementwise work around them.
    Contraction(Vec<Product>),
    /// One-pass softmax folds (`esum`, `esum-if`) over one axis, whose key holds one product.
    Attention {
        /// The folds, all with the same key and predicate.
        folds: Vec<Id>,
        /// The product in the key.
        key: Product,
    },
    /// Anything else, in plain loops: a matrix product without a micro-kernel among it.
    Generic,
}

impl Kind {
    /// Its name in texts.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Copy => "copy",
            Kind::Pointwise => "pointwise",
            Kind::Row => "row",
            Kind::Contraction(_) => "contraction",
            Kind::Attention { .. } => "attention",
            Kind::Generic => "generic",
        }
    }
}

/// One kernel of a cover.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Classes that are stored, canonical; every grid axis is an axis of one of them.
    pub outputs: Vec<Id>,
    /// For each class computed inside, the chosen node, children canonical. Loads, constants, positions and sizes are
    /// chosen nodes too. Below an `at` lies an input, a load or a position: what follows it is not computed here.
    pub nodes: BTreeMap<Id, ENode>,
    /// Classes that other cuts compute and this one reads.
    pub inputs: BTreeSet<Id>,
    /// Its template.
    pub kind: Kind,
    /// What it takes.
    pub price: Price,
}

/// The second choice for a cut.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// What would compute the same outputs, if anything can.
    pub cut: Option<Cut>,
    /// Seconds by which the whole cover would be slower.
    pub loss: f64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bodies made.
    pub enumerated: usize,
    /// Bodies that are no kernel or that others made needless.
    pub pruned: usize,
    /// Bodies whose price was known from an equal one.
    pub remembered: usize,
    /// Covers compared.
    pub evaluations: usize,
    /// Work of the exact search: sets of classes that it made.
    pub states: usize,
    /// Values of the bodies that were read: what time goes with.
    pub steps: usize,
    /// Classes for which few cuts were looked at, as steps were used up.
    pub narrowed: usize,
}

/// A choice of kernels.
#[derive(Clone, Debug)]
pub struct Cover {
    /// Kernels, producers before readers; every root and every input of a cut is an output of exactly one of them.
    pub cuts: Vec<Cut>,
    /// Seconds of all.
    pub price: f64,
    /// Work done.
    pub counts: Counts,
}

/// How good a cover is, for those who read it; kernels do not depend on it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// No cover by the cuts that were looked at is cheaper, in seconds.
    pub bound: f64,
    /// Per cut, the runner-up.
    pub alternatives: Vec<Alternative>,
}

/// How much to look at. All are counts, so that a result never depends on a machine's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverLimits {
    /// Cuts kept per class.
    pub keep: usize,
    /// Bodies made in all; after that each class keeps few.
    pub bodies: usize,
    /// Work of choosing among the cuts: covers compared and sets of classes that the exact search makes. More never gives a
    /// dearer cover.
    pub budget: usize,
    /// Classes below the roots; more is `too-many-classes`.
    pub classes: usize,
    /// Values of bodies read, and half as many again for kernels with several results. After that what remains is fused
    /// by price, class after class, without further candidates.
    pub steps: usize,
}

/// The usual work of choosing among cuts: ten times what a block of a model needs to be exact, most often.
pub const DEFAULT_BUDGET: usize = 60_000;

impl Default for CoverLimits {
    fn default() -> CoverLimits {
        CoverLimits { keep: 6, bodies: 100_000, budget: DEFAULT_BUDGET, classes: 20_000, steps: 4_000_000 }
    }
}

/// Chooses kernels that store every root. `graph` is rebuilt, `roots` may be any of its ids.
///
/// Errors: `too-many-classes`; `no-cover` if classes that need each other left no way; bugs.
pub fn cover(
    graph: &Graph,
    roots: &[Id],
    context: &Context,
    device: &Device,
    limits: CoverLimits,
) -> Result<Cover, Diagnostic> {
    choose(graph, roots, context, device, limits, |selection, found, counts| selection.finish(&found, counts))
}

/// The same cover with how far it can be from the best, and the second choice for each kernel.
///
/// Errors: those of [`cover`].
pub fn explained(
    graph: &Graph,
    roots: &[Id],
    context: &Context,
    device: &Device,
    limits: CoverLimits,
) -> Result<(Cover, Explanation), Diagnostic> {
    choose(graph, roots, context, device, limits, |selection, found, counts| {
        let mut cover = selection.finish(&found, counts)?;
        let explanation = selection.explain(&found, &mut cover)?;
        Ok((cover, explanation))
    })
}

/// What an integer program of at most `nodes` nodes says of the same cover.
///
/// Errors: those of [`cover`]; `ilp-solver`.
#[cfg(feature = "ilp")]
pub fn integer(
    graph: &Graph,
    roots: &[Id],
    context: &Context,
    device: &Device,
    limits: CoverLimits,
    nodes: u64,
) -> Result<Integer, Diagnostic> {
    choose(graph, roots, context, device, limits, |selection, found, _| selection.integer(&found, nodes))
}

fn choose<T>(
    graph: &Graph,
    roots: &[Id],
    context: &Context,
    device: &Device,
    limits: CoverLimits,
    finish: impl Fn(&Selection<'_, '_>, Found, Counts) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    for loose in [false, true] {
        let problem = Problem::new(graph, roots, context, device, loose)?;
        if problem.classes.len() > limits.classes {
            let (found, most) = (problem.classes.len(), limits.classes);
            return Err(Diagnostic::new("too-many-classes", format!("{found} classes, a cover takes at most {most}")));
        }
        let mut counts = Counts::default();
        let candidates = Candidates::new(&problem, limits, &mut counts)?;
        let selection = Selection::new(&problem, &candidates);
        if let Some(found) = selection.best(limits.budget, &mut counts) {
            return finish(&selection, found, counts);
        }
    }
    Err(Diagnostic::new("no-cover", "no choice among the kernels that were looked at produces every root"))
}
