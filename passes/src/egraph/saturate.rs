//! Runs rewrites to a fixed point or a limit, the same way every time: no clock, no random choice.

use super::clock::stopped;
use super::compile::{IndexRewrite, Numerics, compile};
use super::facts::{Facts, Graph, Tables};
use super::lang::{ENode, Head};
use super::rules::{Class, RuleSet};
use super::widths::is_half;
use egg::{EGraph, Language, RewriteScheduler, Runner, SearchMatches, StopReason};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// When to stop. The e-graph is valid whatever stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rounds of all rules.
    pub iterations: usize,
    /// E-nodes.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { iterations: 16, nodes: 50_000 }
    }
}

/// How many times its e-nodes a function may have after saturation; models come to less than twice.
const GROWTH: usize = 16;
/// E-nodes that every function may have.
const SMALL: usize = 2_000;

impl Limits {
    /// Limits for a function of so many e-nodes: what rules add is bounded by what there was.
    pub fn of(nodes: usize) -> Limits {
        let most = Limits::default();
        Limits { nodes: nodes.saturating_mul(GROWTH).max(SMALL).min(most.nodes), ..most }
    }
}

/// Why saturation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No rule has anything to add.
    Saturated,
    /// The limit of rounds.
    Iterations,
    /// The limit of nodes.
    Nodes,
}

/// A rule that told the e-graph something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Name of the rule.
    pub rule: Arc<str>,
    /// What it keeps of the numbers.
    pub class: Class,
    /// How many pairs of classes it made equal.
    pub times: usize,
}

/// A grown e-graph.
#[derive(Clone, Debug)]
pub struct Saturation {
    /// The e-graph, rebuilt.
    pub graph: Graph,
    /// E-nodes before.
    pub before: usize,
    /// Rounds that ran.
    pub iterations: usize,
    /// Why it stopped.
    pub stop: Stop,
    /// The rules that fired, in the order of their files.
    pub fired: Vec<Fired>,
}

/// All rules in every round, each with so many matches at most: the limit of nodes is looked at between rules only.
struct Bounded {
    matches: usize,
}

impl RewriteScheduler<ENode, Tables> for Bounded {
    fn search_rewrite<'r>(
        &mut self,
        _: usize,
        graph: &EGraph<ENode, Tables>,
        rewrite: &'r egg::Rewrite<ENode, Tables>,
    ) -> Vec<SearchMatches<'r, ENode>> {
        rewrite.search_with_limit(graph, self.matches)
    }
}

/// Removes nodes that need their own class: `a` is `(select p a a)` for every `p`, and from two such `p` rules would make
/// a third without end. A value computed from itself is none, so nothing is lost.
pub(super) fn prune(graph: &mut Graph) {
    let own = |graph: &Graph, id, node: &ENode| node.children().iter().any(|&c| graph.find(c) == id);
    let looped: Vec<_> =
        graph.classes().filter(|c| c.nodes.iter().any(|n| own(graph, c.id, n))).map(|c| c.id).collect();
    for id in looped {
        let kept = graph[id].nodes.iter().filter(|n| !own(graph, id, n)).cloned().collect();
        graph[id].nodes = kept;
    }
}

/// The rewrites that may fire in `graph`. Errors: those of [`compile`].
pub(super) fn rewrites(graph: &Graph, rules: &RuleSet, numerics: Numerics) -> Result<Vec<IndexRewrite>, Diagnostic> {
    let mut dtypes: Vec<DType> = graph.classes().filter_map(|c| Facts::dtype(&c.data)).collect();
    if dtypes.iter().any(|d| is_half(*d)) {
        dtypes.push(DType::F32);
    }
    dtypes.sort_unstable();
    dtypes.dedup();
    dtypes.retain(|d| d.is_float());
    compile(rules, numerics, &dtypes)
}

/// Grows `graph` by the rules that `numerics` allows.
///
/// Errors: those of [`compile`]; `rules-contradict` if facts contradict each other: a wrong rule, or one
/// that takes 0 and -0 for the same where a constant tells them apart.
pub fn saturate(graph: Graph, rules: &RuleSet, numerics: Numerics, limits: Limits) -> Result<Saturation, Diagnostic> {
    let before = graph.total_size();
    // Calls of blocks, and nothing between them.
    let is_leaf = |n: &ENode| matches!(n.head, Head::Load | Head::Attr(_));
    if graph.classes().all(|class| class.nodes.iter().all(is_leaf)) {
        return Ok(Saturation { graph, before, iterations: 0, stop: Stop::Saturated, fired: Vec::new() });
    }
    let rewrites = rewrites(&graph, rules, numerics)?;
    let runner = Runner::<_, _, ()>::new(Tables::default())
        .with_egraph(graph)
        .with_iter_limit(limits.iterations)
        .with_node_limit(limits.nodes)
        // Results must not depend on the machine's speed.
        .with_time_limit(Duration::from_secs(u32::MAX.into()))
        .with_scheduler(Bounded { matches: limits.nodes })
        .with_hook(|runner| {
            prune(&mut runner.egraph);
            Ok(())
        });
    let runner = stopped(|| runner.run(&rewrites));
    let iterations = runner.iterations.len();
    let stop = match runner.stop_reason {
        Some(StopReason::Saturated) => Stop::Saturated,
        Some(StopReason::NodeLimit(_)) => Stop::Nodes,
        Some(StopReason::IterationLimit(_) | StopReason::TimeLimit(_) | StopReason::Other(_)) | None => {
            Stop::Iterations
        }
    };
    // A rewrite is named `rule~variant~dtype`.
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in runner.iterations.iter().flat_map(|i| &i.applied) {
        *times.entry(name.as_str().split('~').next().unwrap_or_default()).or_default() += count;
    }
    let fired = rules.rules.iter().filter_map(|rule| {
        let times = *times.get(&*rule.name)?;
        (times > 0).then(|| Fired { rule: rule.name.clone(), class: rule.class.clone(), times })
    });
    let fired = fired.collect();
    // It is rebuilt: that is the last thing that a round does.
    let mut graph = runner.egraph;
    prune(&mut graph);
    if graph.analysis.conflicts > 0 {
        let count = graph.analysis.conflicts;
        let message = format!("rewriting merged {count} pairs of classes whose facts contradict");
        return Err(Diagnostic::new("rules-contradict", message));
    }
    Ok(Saturation { graph, before, iterations, stop, fired })
}
