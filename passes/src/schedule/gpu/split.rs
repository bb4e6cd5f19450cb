//! Regions whose outputs have different axes: one region for each set of axes, since a block stores tiles of one shape.

use super::super::same_row::rename;
use crate::region::{AxisId, Region, TermId};
use std::collections::BTreeSet;

/// The outputs' numbers of every part with its region, in order of the first output. What parts share is computed in each.
pub fn parts(region: &Region) -> Vec<(Vec<usize>, Region)> {
    let mut groups: Vec<(BTreeSet<AxisId>, Vec<usize>)> = Vec::new();
    for (i, output) in region.outputs.iter().enumerate() {
        let axes: BTreeSet<AxisId> = output.axes.iter().copied().collect();
        match groups.iter_mut().find(|g| g.0 == axes) {
            Some(group) => group.1.push(i),
            None => groups.push((axes, vec![i])),
        }
    }
    if groups.len() == 1 && groups.iter().all(|g| g.0.len() == region.rank) {
        return vec![((0..region.outputs.len()).collect(), region.clone())];
    }
    groups.into_iter().map(|(axes, outputs)| (outputs.clone(), part(region, &axes, &outputs))).collect()
}

/// The region of some outputs, which have exactly `axes`: those come first, in the order of the first output.
fn part(region: &Region, axes: &BTreeSet<AxisId>, outputs: &[usize]) -> Region {
    let rest = (0..region.axes.len()).filter(|a| !axes.contains(a));
    let first = outputs.first().map_or(&[][..], |&o| &region.outputs[o].axes);
    let order: Vec<AxisId> = first.iter().copied().chain(rest).collect();
    let mut to = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        to[old] = new;
    }
    let mut small = prune(region, outputs);
    small = rename(&small, &|a| to[a]);
    small.axes = order.iter().map(|&a| region.axes[a].clone()).collect();
    small.rank = axes.len();
    for output in &mut small.outputs {
        output.axes.iter_mut().for_each(|a| *a = to[*a]);
    }
    small
}

/// Only the terms that `outputs` need.
fn prune(region: &Region, outputs: &[usize]) -> Region {
    let mut needed = vec![false; region.terms.len()];
    let mut open: Vec<TermId> = outputs.iter().map(|&i| region.outputs[i].root).collect();
    while let Some(t) = open.pop() {
        if !std::mem::replace(&mut needed[t], true) {
            open.extend(region.terms[t].0.operands());
        }
    }
    let mut small = Region { terms: Vec::new(), free: Vec::new(), outputs: Vec::new(), ..region.clone() };
    let mut new = vec![0; region.terms.len()];
    for (id, (term, dtype)) in region.terms.iter().enumerate().filter(|(id, _)| needed[*id]) {
        new[id] = small.terms.len();
        small.terms.push((term.with_operands(&|t| new[t]), *dtype));
        small.free.push(region.free[id].clone());
    }
    for &i in outputs {
        let mut output = region.outputs[i].clone();
        output.root = new[output.root];
        small.outputs.push(output);
    }
    small
}
