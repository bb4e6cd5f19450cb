//! Kernels that somebody else decides on, priced like those of a cover: what fixed orders of fusion would take.

use super::super::facts::Graph;
use super::body::{Body, written};
use super::kind::form;
use super::price::price;
use super::problem::{Class, Problem, Step};
use super::{Context, Device};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;

/// The seconds of a kernel for each class of `stored`, that computes all between it and the other stored classes as the
/// nodes of `graph` say, an e-graph without rules. What cannot be inside another kernel is one of its own and counts for
/// the first that needs it. Classes that are in memory or cost nothing take none; NaN where that is no kernel. As in a
/// cover, memory for what is stored and is none of `roots`, which may be any ids of `graph`, costs something.
///
/// Errors: those of [`super::cover`].
pub fn partition(
    graph: &Graph,
    (stored, roots): (&BTreeSet<Id>, &[Id]),
    context: &Context,
    device: &Device,
) -> Result<BTreeMap<Id, f64>, Diagnostic> {
    let asked: BTreeSet<Id> = roots.iter().map(|r| graph.find(*r)).collect();
    let roots: Vec<Id> = stored.iter().copied().collect();
    let mut problem = Problem::new(graph, &roots, context, device, true)?;
    for info in &mut problem.classes {
        info.root = asked.contains(&info.id);
    }
    let mut kernels: BTreeSet<Class> = roots.iter().filter_map(|r| problem.number.get(r)).copied().collect();
    let mut prices: BTreeMap<Id, f64> = BTreeMap::new();
    for &root in &kernels.clone() {
        let mut open = vec![root];
        while let Some(class) = open.pop() {
            if problem.classes[class].simple.is_some() {
                continue;
            }
            let body = body(&problem, class, &mut kernels, &mut open);
            let seconds = written(&problem, &body, &[class])
                .map_or(f64::NAN, |w| price(&problem, &w, &form(&problem, &w)).seconds);
            *prices.entry(problem.classes[root].id).or_default() += seconds;
        }
    }
    Ok(prices)
}

/// The kernel that stores a class. What it finds to be no part of it becomes one of `kernels`, and is left in `open`.
fn body(problem: &Problem<'_>, root: Class, kernels: &mut BTreeSet<Class>, open: &mut Vec<Class>) -> Body {
    let mut found = Body { nodes: Vec::new(), inputs: Vec::new() };
    let mut stack = vec![root];
    let mut seen = BTreeSet::from([root]);
    while let Some(class) = stack.pop() {
        let info = &problem.classes[class];
        let inside = class == root || info.simple.is_some() || !kernels.contains(&class);
        if !inside {
            found.inputs.push(class);
            continue;
        }
        // Views are pushed to the tensors that they read, where they can be.
        let view = |c: &usize| matches!(info.choices[*c].step, Step::At(_));
        let choice = info.simple.or_else(|| (0..info.choices.len()).find(|c| !view(c))).unwrap_or(0);
        found.nodes.push((class, choice));
        let Some(chosen) = info.choices.get(choice) else { continue };
        for &kid in &chosen.kids {
            if view(&choice) && problem.classes[kid].simple.is_none() && kernels.insert(kid) {
                open.push(kid);
            }
            if seen.insert(kid) {
                stack.push(kid);
            }
        }
    }
    found.nodes.sort_unstable();
    found.inputs.sort_unstable();
    found
}
