//! The choice of cuts as an integer program, for a solver that knows nothing of covers: the yardstick of our own search.
//!
//! A variable for each cut says whether it is taken. A class is stored by at most one cut, a root by exactly one; for each
//! class and each input, no more cuts of the class that read it are taken than cuts that store it. Where classes could wait
//! for each other they have places, and a cut that is taken comes after what it reads.

use super::enumerate::Candidates;
use super::problem::{Class, Problem};
use microlp::{ComparisonOp, OptimizationDirection, Problem as Program, SolveOptions, TerminationReason, Variable};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;

/// Microseconds: numbers of a size that the solver is made for.
const SCALE: f64 = 1e6;

/// What an integer program says of a cover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Integer {
    /// Seconds of the cover that is chosen.
    pub chosen: f64,
    /// Cuts to choose from.
    pub cuts: usize,
    /// Seconds of the best choice that the solver found, if it found one.
    pub best: Option<f64>,
    /// No choice takes fewer seconds, by the solver.
    pub low: f64,
    /// Nodes of its search, each a linear program.
    pub nodes: u64,
    /// Whether it proved that `best` is the least.
    pub ended: bool,
}

/// Solves the integer program of a problem, within a number of nodes. `chosen` are seconds of a cover.
///
/// Errors: `ilp-solver` where the solver fails.
pub(super) fn solve(
    problem: &Problem<'_>,
    candidates: &Candidates,
    chosen: f64,
    nodes: u64,
) -> Result<Integer, Diagnostic> {
    let mut program = Program::new(OptimizationDirection::Minimize);
    let taken: Vec<Variable> = candidates.all.iter().map(|c| program.add_binary_var(c.price.seconds * SCALE)).collect();
    for (class, of) in candidates.of.iter().enumerate().filter(|(_, of)| !of.is_empty()) {
        let once: Vec<(Variable, f64)> = of.iter().map(|&n| (taken[n], 1.0)).collect();
        let exactly = if problem.classes[class].root { ComparisonOp::Eq } else { ComparisonOp::Le };
        program.add_constraint(once, exactly, 1.0);
        for (input, readers) in readers(candidates, class) {
            let mut row: BTreeMap<usize, f64> = readers.into_iter().map(|n| (n, 1.0)).collect();
            candidates.of[input].iter().for_each(|&n| *row.entry(n).or_default() -= 1.0);
            let row: Vec<(Variable, f64)> =
                row.into_iter().filter(|r| r.1 != 0.0).map(|(n, by)| (taken[n], by)).collect();
            program.add_constraint(row, ComparisonOp::Le, 0.0);
        }
    }
    in_order(&mut program, candidates, &taken);
    let mut options = SolveOptions::default();
    options.node_limit = Some(nodes);
    let solved = program.solve_with(options).map_err(|e| {
        let message = format!("the solver of integer programs fails: {e}");
        Diagnostic::new("ilp-solver", message).note("this says nothing of the kernels, which do not depend on it")
    })?;
    let (stats, ended) = (solved.stats(), solved.termination_reason() == TerminationReason::ProvenOptimal);
    let best = solved.solution().map(|s| s.objective() / SCALE);
    let low = stats.best_bound.map_or(0.0, |bound| bound / SCALE);
    let low = if ended { best.unwrap_or(low) } else { low.max(0.0) };
    Ok(Integer { chosen, cuts: taken.len(), best, low, nodes: stats.nodes_solved, ended })
}

/// What the cuts of a class need, each with the cuts that need it.
fn readers(candidates: &Candidates, class: Class) -> BTreeMap<Class, BTreeSet<usize>> {
    let mut found: BTreeMap<Class, BTreeSet<usize>> = BTreeMap::new();
    for &number in &candidates.of[class] {
        let candidate = &candidates.all[number];
        for &need in candidate.body.inputs.iter().chain(&candidate.after) {
            found.entry(need).or_default().insert(number);
        }
    }
    found
}

/// Places for classes that could wait for each other.
fn in_order(program: &mut Program, candidates: &Candidates, taken: &[Variable]) {
    let mut graph = DiGraph::<(), ()>::new();
    let nodes: Vec<NodeIndex> = candidates.of.iter().map(|_| graph.add_node(())).collect();
    for class in 0..nodes.len() {
        readers(candidates, class).into_keys().for_each(|need| {
            graph.add_edge(nodes[class], nodes[need], ());
        });
    }
    for group in tarjan_scc(&graph).into_iter().filter(|g| g.len() > 1) {
        let most = group.len() as f64;
        let group: BTreeSet<Class> = group.into_iter().map(NodeIndex::index).collect();
        let places: BTreeMap<Class, Variable> =
            group.iter().map(|&class| (class, program.add_var(0.0, (0.0, most)))).collect();
        for (&class, &place) in &places {
            for (input, readers) in readers(candidates, class) {
                let Some(&before) = places.get(&input) else { continue };
                for number in readers {
                    // place - before >= 1 if the cut is taken.
                    let row = [(place, 1.0), (before, -1.0), (taken[number], -(most + 1.0))];
                    program.add_constraint(row, ComparisonOp::Ge, -most);
                }
            }
        }
    }
}
