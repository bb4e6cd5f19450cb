//! Kernels and nodes without index form in the order of the source, as far as what they need allows it.

use super::build::broken;
use super::{Piece, simple};
use crate::egraph::facts::Graph;
use crate::egraph::index::Import;
use crate::egraph::lang::{Attr, ENode, Head};
use egg::Id;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, NodeId, Value};

/// What is exported at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// A kernel by its number.
    Piece(usize),
    /// A node of the source.
    Barrier(NodeId),
}

/// All units, each after what it needs. Errors: a bug where they need each other or what nothing computes.
pub(super) fn order(
    source: &Function,
    import: &Import,
    graph: &Graph,
    pieces: &[Piece<'_>],
) -> Result<Vec<Unit>, Diagnostic> {
    let mut producers: BTreeMap<Id, Unit> = BTreeMap::new();
    for (number, piece) in pieces.iter().enumerate() {
        producers.extend(piece.outputs.iter().map(|&o| (graph.find(o), Unit::Piece(number))));
    }
    let barrier = |value: Value| import.barriers.contains_key(&value.node).then_some(Unit::Barrier(value.node));
    let loaded = |node: &ENode| {
        let input = node.children.first().and_then(|&c| graph[c].data.attr.clone());
        let Some(Attr::Input(number)) = input else { return None };
        barrier(import.stored.get(number as usize)?.value)
    };
    let mut first: BTreeMap<Id, u32> = BTreeMap::new();
    for (value, class) in &import.classes {
        first.entry(graph.find(*class)).or_insert(value.node.0);
    }
    let mut needs: BTreeMap<Unit, BTreeSet<Unit>> = BTreeMap::new();
    let mut keys: BTreeMap<Unit, (u32, Unit)> = BTreeMap::new();
    for (number, piece) in pieces.iter().enumerate() {
        let unit = Unit::Piece(number);
        let loads = piece.nodes.values().filter(|n| matches!(n.head, Head::Load | Head::Gather)).filter_map(loaded);
        let children = piece.nodes.values().flat_map(|n| &n.children).map(|&c| graph.find(c));
        let outside = children.filter(|c| !piece.nodes.contains_key(c));
        let read = outside.filter_map(|c| producers.get(&c).copied()).filter(|p| *p != unit);
        needs.insert(unit, loads.chain(read).collect());
        let position =
            piece.outputs.iter().filter_map(|&o| first.get(&graph.find(o)).copied()).min().unwrap_or(u32::MAX);
        keys.insert(unit, (position, unit));
    }
    for &id in import.barriers.keys() {
        let unit = Unit::Barrier(id);
        let mut before = BTreeSet::new();
        for &arg in source.nodes[id.index()].args.iter().filter(|a| a.node.index() >= source.params.len()) {
            let class = import.classes.get(&arg).map(|c| graph.find(*c));
            let class = class.ok_or_else(|| broken("an operand was not imported"))?;
            let made = barrier(arg).or_else(|| producers.get(&class).copied());
            before.extend(made.or_else(|| simple(graph, class).and_then(|n| loaded(&n))));
        }
        needs.insert(unit, before);
        keys.insert(unit, (id.0, unit));
    }
    let mut readers: BTreeMap<Unit, Vec<Unit>> = BTreeMap::new();
    for (&unit, before) in &needs {
        before.iter().for_each(|b| readers.entry(*b).or_default().push(unit));
    }
    let mut missing: BTreeMap<Unit, usize> = needs.iter().map(|(u, b)| (*u, b.len())).collect();
    let mut ready: BinaryHeap<Reverse<(u32, Unit)>> =
        missing.iter().filter(|m| *m.1 == 0).filter_map(|m| keys.get(m.0).copied().map(Reverse)).collect();
    let mut out = Vec::with_capacity(needs.len());
    while let Some(Reverse((_, unit))) = ready.pop() {
        out.push(unit);
        for reader in readers.get(&unit).into_iter().flatten() {
            let Some(left) = missing.get_mut(reader) else { continue };
            *left -= 1;
            if *left == 0 {
                ready.extend(keys.get(reader).copied().map(Reverse));
            }
        }
    }
    if out.len() == needs.len() { Ok(out) } else { Err(broken("kernels need each other")) }
}
