//! Runs rewrites to a fixed point or a limit, the same way every time: no clock, no random choice.

use super::compile::{Numerics, compile};
use super::facts::{Facts, Graph};
use super::rules::RuleSet;
use egg::{Runner, SimpleScheduler, StopReason};
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

/// A grown e-graph.
#[derive(Clone, Debug)]
pub struct Saturation {
    /// The e-graph, rebuilt.
    pub graph: Graph,
    /// Rounds that ran.
    pub iterations: usize,
    /// Why it stopped.
    pub stop: Stop,
}

/// Grows `graph` by the rules that `numerics` allows.
///
/// Errors: those of [`compile`]; a bug if facts contradict each other, which only a wrong rule can cause.
pub fn saturate(graph: Graph, rules: &RuleSet, numerics: Numerics, limits: Limits) -> Result<Saturation, Diagnostic> {
    let mut dtypes: Vec<DType> = graph.classes().filter_map(|c| Facts::dtype(&c.data)).collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    dtypes.retain(|d| d.is_float());
    let rewrites = compile(rules, numerics, &dtypes)?;
    let runner = Runner::<_, _, ()>::new(graph.analysis.clone())
        .with_egraph(graph)
        .with_iter_limit(limits.iterations)
        .with_node_limit(limits.nodes)
        // Results must not depend on the machine's speed.
        .with_time_limit(Duration::from_secs(u32::MAX.into()))
        .with_scheduler(SimpleScheduler)
        .run(&rewrites);
    let iterations = runner.iterations.len();
    let stop = match runner.stop_reason {
        Some(StopReason::Saturated) => Stop::Saturated,
        Some(StopReason::NodeLimit(_)) => Stop::Nodes,
        Some(StopReason::IterationLimit(_) | StopReason::TimeLimit(_) | StopReason::Other(_)) | None => {
            Stop::Iterations
        }
    };
    let mut graph = runner.egraph;
    graph.rebuild();
    if graph.analysis.conflicts > 0 {
        let count = graph.analysis.conflicts;
        return Err(Diagnostic::bug(format!("rewriting merged {count} pairs of classes whose facts contradict")));
    }
    Ok(Saturation { graph, iterations, stop })
}
