//! What level 2 does before it writes kernels: import, saturation, cover, each within limits that count work. Beyond some of
//! them a function is lowered at level 1, beyond others less is looked at; both are said (`level-limit`).

use super::super::{Options, Target};
use super::fixed::{Fixed, ROUNDING, seconds};
use crate::agree;
use crate::egraph::cover::{self, Context, CoverLimits, cover};
use crate::egraph::{self, Fired, Graph, Import, Limits, Numerics, Saturation, Stop};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, NodeId};
use tilewright_ir::types::Bindings;

/// Most live nodes of a function at this level; larger ones are lowered at level 1.
const MOST_NODES: usize = 4000;

/// A function's kernels as the e-graph has them.
pub(super) struct Choice {
    pub import: Import,
    /// Saturated.
    pub graph: Graph,
    pub cover: cover::Cover,
    /// If it was asked for.
    pub explanation: Option<cover::Explanation>,
    /// Limits that the search met.
    pub notes: Vec<Diagnostic>,
    /// Rules of the user that fired.
    pub added: Vec<Fired>,
    /// Rules that fired.
    pub fired: Vec<Fired>,
}

/// That a function is beyond a limit of this level, and why.
fn beyond(f: &Function, why: &str) -> Diagnostic {
    Diagnostic::warning("level-limit", format!("`@{}` is lowered at level 1: {why}", f.name))
}

/// Nodes that stand as they are, and why.
fn barred(f: &Function, options: &Options) -> BTreeMap<NodeId, String> {
    let live = f.live();
    let (nodes, why) = match options.numerics {
        Numerics::Exact => (agree::folds(f, &live).collect::<BTreeSet<NodeId>>(), "what rounds a sum has one order"),
        Numerics::Rounding | Numerics::Reassociate | Numerics::Approx => {
            (agree::agreeing(f, &live).as_it_is, "both sides of a comparison have the same arithmetic")
        }
    };
    nodes.into_iter().map(|id| (id, why.to_string())).collect()
}

/// Imports and saturates; the import keeps terms of its own if they are `kept`. A function beyond a limit of this level gives the warning that says so.
fn saturated(
    f: &Function,
    options: &Options,
    kept: bool,
) -> Result<Result<(Import, Saturation), Diagnostic>, Diagnostic> {
    let beyond = |why: String| Ok(Err(beyond(f, &why)));
    let live = f.live().iter().filter(|l| **l).count();
    if live > MOST_NODES {
        return beyond(format!("it has {live} nodes, level 2 takes up to {MOST_NODES}"));
    }
    let mut import = match egraph::import_with(f, barred(f, options)) {
        Ok(import) => import,
        Err(d) if ["too-many-axes", "too-many-barriers"].contains(&d.code) => return beyond(d.message),
        Err(d) => return Err(d),
    };
    // Encoded values exist only between a load and a cast, which is never so on both sides of a barrier.
    let encoded = |id: &NodeId| f.nodes[id.index()].types.iter().any(|t| t.dtype.is_block());
    if let Some((_, why)) = import.barriers.iter().find(|(id, _)| encoded(id)) {
        return beyond(format!("block-encoded values would be stored: {why}"));
    }
    let rules = options.rules.rules()?;
    let limits = Limits::of(import.graph.total_size());
    let terms = if kept { import.graph.clone() } else { std::mem::take(&mut import.graph) };
    match egraph::saturate(terms, &rules, options.numerics, limits) {
        Ok(saturation) => Ok(Ok((import, saturation))),
        Err(d) if d.code == "rules-contradict" => beyond(d.message),
        Err(d) => Err(d),
    }
}

/// The rules that fire in a function; none in one that is beyond a limit of this level.
///
/// Errors: those of the lowering.
pub(in crate::lower) fn fired(f: &Function, options: &Options) -> Result<Vec<Fired>, Diagnostic> {
    Ok(saturated(f, options, false)?.map_or(Vec::new(), |(_, saturation)| saturation.fired))
}

/// What a search that met a limit looked at less than it could have.
fn notes(f: &Function, saturation: &Saturation, cover: &cover::Cover) -> Vec<Diagnostic> {
    let note = |why: String| Diagnostic::warning("level-limit", format!("in `@{}` {why}", f.name));
    let mut out = Vec::new();
    if saturation.stop == Stop::Nodes {
        let (from, to) = (saturation.before, saturation.graph.total_size());
        out.push(note(format!("rules stop before their end: they made {to} terms of {from}")));
    }
    if cover.counts.narrowed > 0 {
        let (few, steps) = (cover.counts.narrowed, cover.counts.steps);
        out.push(note(format!("few kernels are looked at for {few} values, after {steps} steps")));
    }
    out
}

/// Imports, saturates, covers; `likely` are sizes that prices are for, where they are not the usual ones. A function beyond a limit of this level gives the warning that says so.
pub(super) fn choose(
    f: &Function,
    options: &Options,
    target: &Target,
    likely: &Bindings,
    explain: bool,
) -> Result<Result<Choice, Diagnostic>, Diagnostic> {
    // The terms without rules are kept: they may have the cheaper kernels.
    let (import, saturation) = match saturated(f, options, true)? {
        Ok(both) => both,
        Err(warning) => return Ok(Err(warning)),
    };
    let device = target.device(options)?;
    let context = Context::new(f, &import, &saturation.graph, likely)?;
    let limits = CoverLimits { budget: options.budget, ..CoverLimits::default() };
    let search = |graph: &Graph, context: &Context| {
        let roots = roots(&import, graph);
        if explain {
            cover::explained(graph, &roots, context, &device, limits).map(|(cover, e)| (cover, Some(e)))
        } else {
            cover(graph, &roots, context, &device, limits).map(|cover| (cover, None))
        }
    };
    let limit = |d: &Diagnostic| ["too-many-classes", "no-cover"].contains(&d.code);
    let (mut cover, mut explanation) = match search(&saturation.graph, &context) {
        Ok(found) => found,
        Err(d) if limit(&d) => return Ok(Err(beyond(f, &d.message))),
        Err(d) => return Err(d),
    };
    let mut notes = notes(f, &saturation, &cover);
    let Saturation { mut graph, fired, .. } = saturation;
    let fixed = Fixed::new((f, &import), options, likely, &device)?;
    let with_rules = seconds(f, &import, &graph, &cover);
    if fixed.takes_less(with_rules)? {
        let (plain, context) = fixed.terms(options, likely)?;
        match search(&plain, &context) {
            Ok(found) => {
                let without = seconds(f, &import, &plain, &found.0);
                if without < with_rules * (1.0 - ROUNDING) {
                    if explain {
                        notes.push(without_rules(f, with_rules, without));
                    }
                    ((cover, explanation), graph) = (found, plain);
                }
            }
            Err(d) if limit(&d) => {}
            Err(d) => return Err(d),
        }
    }
    let added = fired.iter().filter(|fired| options.rules.has(&fired.rule)).cloned().collect();
    Ok(Ok(Choice { import, graph, cover, explanation, notes, added, fired }))
}

/// That the kernels of a function are those without rules.
fn without_rules(f: &Function, with: f64, without: f64) -> Diagnostic {
    let [with, without] = [with, without].map(|s| format!("{:.2} us", s * 1e6));
    let why = "of the kernels that rules make not all are looked at";
    let message =
        format!("`@{}` has the kernels of its terms without rules, {without} instead of {with}: {why}", f.name);
    Diagnostic::warning("level-limit", message)
}

/// Classes that kernels have to compute: of roots, but not of those that are stored already, such as arguments of calls that are
/// parameters.
pub(super) fn roots(import: &Import, graph: &Graph) -> Vec<Id> {
    import.roots.iter().filter(|r| import.stored_at(r.value).is_none()).map(|r| graph.find(r.class)).collect()
}

/// What an integer program of at most `nodes` nodes says of the cover of a function, or the warning of the limit that it is
/// beyond.
#[cfg(feature = "ilp")]
pub(in crate::lower) fn integer(
    f: &Function,
    options: &Options,
    target: &Target,
    likely: &Bindings,
    nodes: u64,
) -> Result<Result<cover::Integer, Diagnostic>, Diagnostic> {
    let (import, saturation) = match saturated(f, options, false)? {
        Ok(both) => both,
        Err(warning) => return Ok(Err(warning)),
    };
    let (graph, device) = (&saturation.graph, target.device(options)?);
    let context = Context::new(f, &import, graph, likely)?;
    let limits = CoverLimits { budget: options.budget, ..CoverLimits::default() };
    cover::integer(graph, &roots(&import, graph), &context, &device, limits, nodes).map(Ok)
}
