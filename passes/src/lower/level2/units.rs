//! What a function does, step by step, before it is put in order.

use super::order::{Place, Unit};
use super::{Lower, Plan, Source};
use crate::lower::control::Sharing;
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};

/// What a unit does.
pub(super) enum Work {
    Cut(usize),
    Root(usize),
    Barrier(NodeId),
}

/// Units with what they do, and the place of every root.
pub(super) struct Units {
    pub(super) units: Vec<Unit>,
    pub(super) work: Vec<Work>,
    /// By value: where a root lies.
    pub(super) places: BTreeMap<Value, Place>,
    /// Classes and copies by number.
    pub(super) stored: Vec<Id>,
}

/// The units of a function: cuts, roots that are written out, nodes without index form.
pub(super) fn units(plan: &Plan<'_>, sources: &[Source], lower: &Lower<'_>) -> Result<Units, Diagnostic> {
    let mut out = Units { units: Vec::new(), work: Vec::new(), places: BTreeMap::new(), stored: Vec::new() };
    let mut class_place: BTreeMap<Id, Place> = BTreeMap::new();
    for (number, cut) in plan.cuts.iter().enumerate() {
        let mut writes = Vec::new();
        for &class in &cut.outputs {
            let place = Place::Class(out.stored.len());
            out.stored.push(class);
            class_place.insert(class, place);
            writes.push(place);
        }
        let mut reads = plan.loads(&cut.nodes);
        for class in &cut.inputs {
            reads.push(
                *class_place.get(class).ok_or_else(|| Diagnostic::bug("a cut reads what no cut before it stores"))?,
            );
        }
        let key = (cut.outputs.iter().map(|&c| plan.first_value(c)).min().unwrap_or(usize::MAX), 0);
        out.units.push(Unit { key, reads, writes, ..Unit::default() });
        out.work.push(Work::Cut(number));
    }
    for (number, (root, source)) in plan.import.roots.iter().zip(sources).enumerate() {
        let known = |class: &Id| {
            class_place.get(class).copied().ok_or_else(|| Diagnostic::bug("no cut stores the class of a root"))
        };
        let place = match source {
            Source::There(place) => *place,
            Source::Cut(class) => known(class)?,
            Source::Node(class, _) | Source::Copy(class) => {
                let reads = match source {
                    Source::Node(class, node) => plan.loads(&BTreeMap::from([(*class, node.clone())])),
                    Source::There(_) | Source::Cut(_) | Source::Copy(_) => vec![known(class)?],
                };
                let place = Place::Class(out.stored.len());
                out.stored.push(*class);
                let key = (root.value.node.index(), 1);
                out.units.push(Unit { key, reads, writes: vec![place], ..Unit::default() });
                out.work.push(Work::Root(number));
                place
            }
        };
        out.places.insert(root.value, place);
    }
    for (number, stored) in plan.import.stored.iter().enumerate() {
        out.places.insert(stored.value, Place::Tensor(number));
    }
    barriers(plan, lower, &mut out)?;
    Ok(out)
}

/// Units of nodes without index form.
fn barriers(plan: &Plan<'_>, lower: &Lower<'_>, out: &mut Units) -> Result<(), Diagnostic> {
    let read = |place: &Place| {
        let root = plan.import.roots.iter().any(|r| out.places.get(&r.value) == Some(place));
        root || out.units.iter().any(|u| u.reads.contains(place))
    };
    let known = |number: &usize| !read(&Place::Tensor(*number));
    let needless: BTreeSet<NodeId> = plan
        .sizes
        .keys()
        .filter(|n| known(n))
        .filter_map(|n| plan.import.stored.get(*n))
        .map(|s| s.value.node)
        .collect();
    for &node in plan.import.barriers.keys().filter(|n| !needless.contains(n)) {
        let what = &plan.f.nodes[node.index()];
        let place =
            |v: &Value| out.places.get(v).copied().ok_or_else(|| Diagnostic::bug("a barrier's value has no place"));
        let reads = what.args.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let writes =
            (0..what.types.len()).map(|k| place(&Lower::value(node.index(), k))).collect::<Result<Vec<_>, _>>()?;
        let Sharing { overwrites, shares, updates } = lower.sharing(node.index())?;
        let key = (node.index(), 0);
        out.units.push(Unit { key, reads, writes, barrier: Some(node), overwrites, shares, updates });
        out.work.push(Work::Barrier(node));
    }
    Ok(())
}
