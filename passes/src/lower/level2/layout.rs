//! Memory orders of stored classes: those of the values that they are, chosen so that the kernels around them see matrices
//! and few axes.

use super::Plan;
use crate::egraph::AxisId;
use crate::region::{Term, coalesce, cut};
use crate::schedule;
use egg::Id;
use tilewright_ir::diag::Diagnostic;

/// Orders that a class may have: those of its values, each once, in the order of the program.
pub(super) fn candidates(plan: &Plan<'_>, class: Id) -> Vec<Vec<AxisId>> {
    let free = plan.graph[class].data.free;
    let has = |a: &AxisId| free & crate::egraph::lang::axis_bit(*a) != 0;
    let all = free.count_ones() as usize;
    let mut found: Vec<Vec<AxisId>> = Vec::new();
    let layouts = plan.values.get(&class).into_iter().flatten().filter_map(|v| plan.import.layouts.get(v));
    for layout in layouts {
        let order: Vec<AxisId> = layout.iter().flatten().copied().filter(has).collect();
        if order.len() == all && !found.contains(&order) {
            found.push(order);
        }
    }
    if found.is_empty() {
        // A class that only rules made: the order of the first value that has all of its axes.
        let orders = plan.import.layouts.values().map(|l| l.iter().flatten().copied().filter(has).collect::<Vec<_>>());
        let order = orders.into_iter().find(|o| o.len() == all);
        found.push(order.unwrap_or_else(|| (0..AxisId::MAX).filter(has).collect()));
    }
    found
}

/// Chooses the order of every class that may have several, producers first. A root keeps its own unless that hides a
/// product of matrices; then it is a copy.
pub(super) fn choose(plan: &mut Plan<'_>) -> Result<(), Diagnostic> {
    for at in 0..plan.cuts.len() {
        for class in plan.cuts[at].outputs.clone() {
            let mut candidates = candidates(plan, class);
            let own = plan.orders.get(&class).filter(|_| plan.fixed.contains(&class)).cloned();
            candidates.retain(|c| Some(c) != own.as_ref());
            if candidates.len() + usize::from(own.is_some()) < 2 {
                continue;
            }
            let around: Vec<usize> =
                (0..plan.cuts.len()).filter(|&c| c == at || plan.cuts[c].inputs.contains(&class)).collect();
            let mut best: Option<(usize, Vec<AxisId>)> = None;
            let extra = if own.is_some() { COPY } else { 0 };
            let all = own.map(|order| (order, 0)).into_iter().chain(candidates.into_iter().map(|c| (c, extra)));
            for (order, extra) in all {
                plan.orders.insert(class, order.clone());
                let mut cost = extra;
                for &c in &around {
                    cost += price(plan, c)?;
                }
                if best.as_ref().is_none_or(|b| cost < b.0) {
                    best = Some((cost, order));
                }
            }
            if let Some((_, order)) = best {
                plan.orders.insert(class, order);
            }
        }
    }
    Ok(())
}

/// What a copy counts, and what a product counts that no micro-kernel computes: more than any number of axes.
const COPY: usize = 100;
const LOOSE: usize = 1000;

/// How far a cut's kernel is from a product of matrices, or from one long axis.
fn price(plan: &Plan<'_>, cut: usize) -> Result<usize, Diagnostic> {
    let outputs = plan.outputs(cut);
    let cut = &plan.cuts[cut];
    let part = cut::Part { outputs: &outputs, nodes: &cut.nodes, inputs: &cut.inputs };
    // Names that tell what is read apart.
    let memory =
        plan.memory(&part, &|v| Ok(format!("{}.{}", v.node.0, v.index).into()), &|c| Ok(format!("{c}").into()))?;
    let region = coalesce(cut::region(plan.graph, &memory, &part)?);
    let folds = region.terms.iter().any(|(t, _)| matches!(t, Term::Fold { .. }));
    let loose = folds && schedule::contraction(&region, &|_| false).is_none();
    Ok(region.axes.len() + if loose { LOOSE } else { 0 })
}
