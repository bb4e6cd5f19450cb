//! The order of kernels and barriers, and which barriers may write into the memory of an operand.

use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::graph::NodeId;

/// Memory that a unit reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A stored tensor of the import, by number.
    Tensor(usize),
    /// A constant that is filled before the program runs, by its node.
    Constant(NodeId),
    /// A class or a copy of one, by number.
    Class(usize),
}

/// A kernel, or a node that is lowered on its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    /// Its position where nothing else decides.
    pub key: (usize, usize),
    /// Memory that it reads; for a barrier, in the order of its operands.
    pub reads: Vec<Place>,
    /// Memory that it makes.
    pub writes: Vec<Place>,
    /// The node of a barrier.
    pub barrier: Option<NodeId>,
    /// Operands whose memory a barrier would like to write into.
    pub overwrites: Vec<usize>,
    /// Results that are the memory of an operand in any case: (result, operand).
    pub shares: Vec<(usize, usize)>,
    /// Whether the first result takes the memory of an operand that is overwritten.
    pub updates: bool,
}

/// What was decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// Units, each after what it needs.
    pub units: Vec<usize>,
    /// Barriers with the operands that they may overwrite.
    pub in_place: BTreeSet<(NodeId, usize)>,
}

/// The memory that `place` is in the end.
fn base(mut place: Place, bases: &BTreeMap<Place, Place>) -> Place {
    // Units are in no circle, so neither are these.
    while let Some(&of) = bases.get(&place) {
        place = of;
    }
    place
}

struct Graph {
    next: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn reaches(&self, from: usize, to: usize) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                open.extend(&self.next[at]);
            }
        }
        false
    }
}

/// Orders units. `owned`: whether memory belongs to the program or was given to it; `kept`: memory that the function
/// returns. `None` if units need each other in a circle.
pub(super) fn order(units: &[Unit], owned: &dyn Fn(Place) -> bool, kept: &[Place]) -> Option<Order> {
    let mut makers = BTreeMap::new();
    for (i, unit) in units.iter().enumerate() {
        makers.extend(unit.writes.iter().map(|&p| (p, i)));
    }
    let mut graph = Graph { next: vec![BTreeSet::new(); units.len()] };
    for (i, unit) in units.iter().enumerate() {
        for maker in unit.reads.iter().filter_map(|p| makers.get(p)) {
            graph.next[*maker].insert(i);
        }
    }
    let mut order = Order { units: topological(units, &graph)?, in_place: BTreeSet::new() };
    // The memory that a place is part of. What is the memory of an operand in any case is known before anything is
    // overwritten: a result may be the memory of a value by a unit that comes later.
    let mut bases: BTreeMap<Place, Place> = BTreeMap::new();
    for unit in units {
        for &(result, operand) in &unit.shares {
            if let (Some(&to), Some(&from)) = (unit.writes.get(result), unit.reads.get(operand)) {
                bases.insert(to, from);
            }
        }
    }
    for i in order.units.clone() {
        let unit = &units[i];
        let Some(node) = unit.barrier else { continue };
        for &operand in &unit.overwrites {
            let Some(&place) = unit.reads.get(operand) else { continue };
            let mine = base(place, &bases);
            let shared = unit.reads.iter().enumerate().any(|(k, &p)| k != operand && base(p, &bases) == mine);
            if shared || !owned(mine) || kept.iter().any(|&p| base(p, &bases) == mine) {
                continue;
            }
            let reads = |u: &Unit| u.reads.iter().any(|&p| base(p, &bases) == mine);
            let readers: Vec<usize> = (0..units.len()).filter(|&r| r != i && reads(&units[r])).collect();
            if readers.iter().any(|&r| graph.reaches(i, r)) {
                continue;
            }
            for r in readers {
                graph.next[r].insert(i);
            }
            order.in_place.insert((node, operand));
            if let (true, Some(&to)) = (unit.updates, unit.writes.first()) {
                bases.insert(to, mine);
            }
        }
    }
    order.units = topological(units, &graph)?;
    Some(order)
}

/// Units after what they need, the smallest key first among those that are ready.
fn topological(units: &[Unit], graph: &Graph) -> Option<Vec<usize>> {
    let mut waits = vec![0usize; units.len()];
    graph.next.iter().flatten().for_each(|&n| waits[n] += 1);
    let ready = |i: usize| (units[i].key, i);
    let mut open: BTreeSet<((usize, usize), usize)> = (0..units.len()).filter(|&i| waits[i] == 0).map(ready).collect();
    let mut out = Vec::new();
    while let Some((_, i)) = open.pop_first() {
        out.push(i);
        for &n in &graph.next[i] {
            waits[n] -= 1;
            if waits[n] == 0 {
                open.insert(ready(n));
            }
        }
    }
    (out.len() == units.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(key: usize, reads: &[usize], writes: &[usize]) -> Unit {
        let places = |p: &[usize]| p.iter().map(|&n| Place::Class(n)).collect();
        Unit { key: (key, 0), reads: places(reads), writes: places(writes), ..Unit::default() }
    }

    fn update(key: usize, reads: &[usize], writes: &[usize]) -> Unit {
        let barrier = Some(NodeId(key as u32));
        Unit { barrier, overwrites: vec![0], updates: true, ..unit(key, reads, writes) }
    }

    #[test]
    fn readers_come_before_an_update_in_place() {
        // 1 updates place 0 with place 1; 2 reads place 0 although its key is larger.
        let units = [unit(0, &[], &[1]), update(1, &[0, 1], &[2]), unit(2, &[0], &[3])];
        let found = order(&units, &|_| true, &[]).unwrap();
        assert_eq!((found.units, found.in_place.len()), (vec![0, 2, 1], 1));
        // A reader of both versions, memory that is returned or not ours, and an update with itself need a copy.
        let both = [unit(0, &[], &[1]), update(1, &[0, 1], &[2]), unit(2, &[0, 2], &[3])];
        assert!(order(&both, &|_| true, &[]).unwrap().in_place.is_empty());
        assert!(order(&units, &|_| true, &[Place::Class(0)]).unwrap().in_place.is_empty());
        assert!(order(&units, &|_| false, &[]).unwrap().in_place.is_empty());
        assert!(order(&[update(1, &[0, 0], &[2])], &|_| true, &[]).unwrap().in_place.is_empty());
        // Two updates of the same memory: one is in place, before it the other takes its copy.
        let two = [update(1, &[0, 5], &[2]), update(2, &[0, 6], &[3])];
        let found = order(&two, &|_| true, &[]).unwrap();
        assert_eq!((found.units, found.in_place), (vec![1, 0], BTreeSet::from([(NodeId(1), 0)])));
        // A chain of updates stays in one memory.
        let chain = [update(1, &[0, 5], &[2]), update(2, &[2, 6], &[3]), unit(3, &[3], &[4])];
        assert_eq!(order(&chain, &|_| true, &[]).unwrap().in_place.len(), 2);
    }

    #[test]
    fn memory_that_is_shared_later_counts() {
        // 1 would update place 0 in place; 2, which comes after it, is place 0 under another name.
        let view = Unit { shares: vec![(0, 0)], barrier: Some(NodeId(2)), ..unit(2, &[0], &[3]) };
        let units = [unit(0, &[], &[0]), update(1, &[0, 1], &[2]), view.clone()];
        assert_eq!(order(&units, &|_| true, &[]).unwrap().in_place.len(), 1);
        assert!(order(&units, &|_| true, &[Place::Class(3)]).unwrap().in_place.is_empty(), "it is returned");
        // A reader of it comes before the update.
        let reader = [unit(0, &[], &[0]), update(1, &[0, 1], &[2]), view, unit(5, &[3], &[4])];
        let found = order(&reader, &|_| true, &[]).unwrap();
        assert_eq!((found.in_place.len(), found.units.last()), (1, Some(&1)));
    }

    #[test]
    fn a_circle_is_refused() {
        assert!(order(&[unit(0, &[1], &[0]), unit(1, &[0], &[1])], &|_| true, &[]).is_none());
    }
}
