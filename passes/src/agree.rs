//! Values that must agree with themselves. A comparison of numbers with the largest of them, which the gradient of a maximum is made
//! of, holds somewhere only if both of its sides see the same bits. Kernels may compute a value where they read it, and add its
//! sums in two orders; rules may regroup one side and not the other. Such values are computed once, and the arithmetic between them
//! and the comparison stands as it is written.
//!
//! Below a comparison, and what else jumps, lie the nodes that each of its sides is made of, down to sums and products, whose
//! roundings no program relies on. A value agrees with itself if both sides are made of it, and it is moved, or one of several is
//! taken, on the way: the nearest such values are enough, as all that lies below them is seen through them.

use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::{Family, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// What [`agreeing`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreeing {
    /// The first node of each value that is to be computed once.
    pub once: BTreeSet<NodeId>,
    /// Arithmetic between these values and what jumps, which no rule may change on one side only.
    pub as_it_is: BTreeSet<NodeId>,
    /// Nodes between these values and what jumps. They are of one run: whoever keeps one of them, and computes the values below it
    /// again, compares two runs.
    pub between: BTreeSet<NodeId>,
    /// The first node of the same op and operands, for each node; empty where nothing is to be computed once.
    pub first: Vec<NodeId>,
}

/// How a value gets to where it is read, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// At its own position, by arithmetic.
    Straight,
    /// At its own position, as one of two.
    Chosen,
    /// From another position.
    Moved,
    /// As an extreme of many.
    Extreme,
}

/// The values of a function that must agree with themselves, for what the `live` nodes among its nodes ask.
///
/// Cost: O(nodes) for each comparison of two computed values.
pub fn agreeing(f: &Function, live: &[bool]) -> Agreeing {
    let asks = |n: &Node| matches!(n.op, GraphOp::Map { .. } | GraphOp::Reduce { .. });
    if !f.nodes.iter().zip(live).any(|(n, live)| *live && asks(n)) {
        return Agreeing::default();
    }
    let mut search = Search::new(f);
    let mut ends = Vec::new();
    for (i, live) in live.iter().enumerate() {
        if *live && search.first[i].index() == i {
            search.decision(i, &mut ends);
        }
    }
    search.jumps(&ends);
    search.handed_over(live);
    Agreeing { first: search.first, ..search.out }
}

/// Sums and products of floats, whose roundings depend on the order. Not those of encoded values, which exist only between a load and
/// a cast.
pub fn folds<'f>(f: &'f Function, live: &'f [bool]) -> impl Iterator<Item = NodeId> + 'f {
    let encoded = |v: &Value| f.node(*v).args.iter().any(|&a| f.ty(a).dtype.is_block());
    let nodes = (0u32..).map(NodeId).zip(&f.nodes).filter(|(id, _)| live[id.index()]);
    nodes.filter(move |(_, node)| is_sum(node) && !node.args.iter().any(encoded)).map(|(id, _)| id)
}

/// Whether a node is the identity that stands behind a value which is computed once.
pub fn is_identity(f: &Function, node: &Node) -> bool {
    matches!((&node.op, &node.args[..]), (GraphOp::Reshape { shape }, &[x]) if *shape == f.ty(x).shape)
}

/// Whether an op on floats may round.
fn is_arithmetic(node: &Node) -> bool {
    let exact = matches!(
        node.op,
        GraphOp::Map {
            op: ScalarOp::Max {} | ScalarOp::Min {} | ScalarOp::Select {} | ScalarOp::Neg {} | ScalarOp::Abs {}
        }
    );
    matches!(node.op, GraphOp::Map { .. }) && !exact && node.types.iter().all(|t| t.dtype.is_float())
}

fn is_sum(node: &Node) -> bool {
    let sums = match &node.op {
        GraphOp::Dot { .. } => true,
        GraphOp::Reduce { kind, .. } => matches!(kind, ReduceKind::Sum | ReduceKind::Prod),
        _other => false,
    };
    sums && node.types.iter().all(|t| t.dtype.is_float())
}

/// The nodes that a node is made of, as far as a comparison sees through it, and how.
struct Below {
    way: Way,
    nodes: Vec<usize>,
}

struct Search<'a> {
    f: &'a Function,
    first: Vec<NodeId>,
    below: Vec<Below>,
    /// Whether a node is made of anything that rounds.
    rounds: Vec<bool>,
    out: Agreeing,
}

impl<'a> Search<'a> {
    fn new(f: &'a Function) -> Search<'a> {
        let first = first_of_each(f);
        let at = |v: &Value| first[v.node.index()].index();
        let (mut below, mut rounds): (Vec<Below>, Vec<bool>) = (Vec::new(), Vec::new());
        for node in &f.nodes {
            let all = || node.args.iter().map(at).collect();
            let (way, nodes) = match &node.op {
                GraphOp::Map { op: ScalarOp::Max {} | ScalarOp::Min {} | ScalarOp::Select {} } => (Way::Chosen, all()),
                GraphOp::Map { .. } => (Way::Straight, all()),
                GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. } => (Way::Extreme, all()),
                // Of integers they are exact.
                GraphOp::Reduce { .. } | GraphOp::Dot { .. } if !is_sum(node) => (Way::Moved, all()),
                GraphOp::Take { .. } | GraphOp::TakeAlong { .. } | GraphOp::UpdateSlice { .. } => (Way::Moved, all()),
                _name if is_identity(f, node) => (Way::Straight, all()),
                op if op.info().family == Family::Movement => (Way::Moved, all()),
                _sums_and_what_is_in_memory => (Way::Straight, Vec::new()),
            };
            rounds.push(is_arithmetic(node) || is_sum(node) || nodes.iter().any(|&i| rounds[i]));
            below.push(Below { way, nodes });
        }
        Search { f, first, below, rounds, out: Agreeing::default() }
    }

    fn at(&self, v: Value) -> usize {
        self.first[v.node.index()].index()
    }

    /// Whether a value is a constant, perhaps moved.
    fn is_constant(&self, mut v: Value) -> bool {
        loop {
            let node = self.f.node(v);
            v = match (&node.op, &node.args[..]) {
                (GraphOp::Constant { .. } | GraphOp::Size { .. }, _) => return true,
                (GraphOp::Map { op: ScalarOp::Cast { .. } | ScalarOp::Neg {} }, &[x]) => x,
                (op, &[x]) if op.info().family == Family::Movement => x,
                _computed => return false,
            };
        }
    }

    /// What a node that jumps compares; `ends` gets what it compares with a number.
    fn decision(&mut self, i: usize, ends: &mut Vec<usize>) {
        let GraphOp::Map { op } = &self.f.nodes[i].op else { return };
        let is_float = |v: Value| self.f.ty(v).dtype.is_float();
        match (op, &self.f.nodes[i].args[..]) {
            (op, &[a, b]) if op.info().family == Family::Comparison || matches!(op, ScalarOp::Rem {}) => {
                match (self.is_constant(a), self.is_constant(b)) {
                    (true, true) => {}
                    (true, false) => ends.push(self.at(b)),
                    (false, true) => ends.push(self.at(a)),
                    (false, false) => {
                        let (a, b) = (self.at(a), self.at(b));
                        if self.rounds[a] || self.rounds[b] {
                            self.compared(a, b, Way::Chosen);
                        }
                    }
                }
            }
            // Steps, and functions with an end of their domain: a difference that is 0 must not be less.
            (
                ScalarOp::Floor {}
                | ScalarOp::Ceil {}
                | ScalarOp::Trunc {}
                | ScalarOp::Sign {}
                | ScalarOp::Sqrt {}
                | ScalarOp::Rsqrt {}
                | ScalarOp::Log {}
                | ScalarOp::Log2 {}
                | ScalarOp::Log1p {}
                | ScalarOp::Pow {},
                &[a, ..],
            ) if is_float(a) => ends.push(self.at(a)),
            (ScalarOp::Cast { to }, &[a]) if !to.is_float() && is_float(a) => ends.push(self.at(a)),
            _smooth => {}
        }
    }

    /// What jumps at a number of one value compares the operands of the sums, differences and quotients that the value is made of.
    fn jumps(&mut self, ends: &[usize]) {
        let f = self.f;
        let (mut reached, mut leads) = (vec![false; f.nodes.len()], vec![false; f.nodes.len()]);
        ends.iter().for_each(|&i| reached[i] = true);
        for i in (0..f.nodes.len()).rev() {
            if !reached[i] || !self.rounds[i] {
                reached[i] = false;
                continue;
            }
            match (&f.nodes[i].op, &f.nodes[i].args[..]) {
                // Positive whatever their operand is, and what does not jump at whole numbers.
                (GraphOp::Map { op: ScalarOp::Exp {} | ScalarOp::Exp2 {} | ScalarOp::Round {} }, _) => continue,
                (GraphOp::Map { op: ScalarOp::Sub {} | ScalarOp::Div {} | ScalarOp::Add {} }, &[a, b])
                    if !self.is_constant(a) && !self.is_constant(b) =>
                {
                    leads[i] = self.compared(self.at(a), self.at(b), Way::Moved);
                }
                _other => {}
            }
            self.below[i].nodes.iter().for_each(|&x| reached[x] = true);
        }
        for i in (0..f.nodes.len()).filter(|&i| reached[i]) {
            leads[i] |= self.below[i].nodes.iter().any(|&x| reached[x] && leads[x]);
            if leads[i] {
                self.stands_between(i, true);
            }
        }
    }

    fn stands_between(&mut self, i: usize, as_it_is: bool) {
        self.out.between.insert(self.first[i]);
        if as_it_is && is_arithmetic(&self.f.nodes[i]) {
            self.out.as_it_is.insert(self.first[i]);
        }
    }

    /// Everything that a node is made of, itself too, and how it gets there; through what `sees` says.
    fn cone(&self, top: usize, sees: impl Fn(usize) -> bool) -> Vec<Option<Way>> {
        let mut cone = vec![None; top + 1];
        cone[top] = Some(Way::Straight);
        for i in (0..=top).rev() {
            let Some(way) = cone[i].filter(|_| sees(i)) else { continue };
            for &x in &self.below[i].nodes {
                cone[x] = cone[x].max(Some(way.max(self.below[i].way)));
            }
        }
        cone
    }

    /// Both sides of a comparison. Whether they are made of a value that must agree with itself, which one of them gets in the way
    /// `least`, or a later one.
    fn compared(&mut self, a: usize, b: usize, least: Way) -> bool {
        if a == b {
            return false;
        }
        let (left, right) = (self.cone(a, |_| true), self.cone(b, |_| true));
        let count = left.len().max(right.len());
        let way = |cone: &[Option<Way>], i: usize| cone.get(i).copied().flatten();
        let common: Vec<Option<Way>> = (0..count).map(|i| Some(way(&left, i)?.max(way(&right, i)?))).collect();
        // The nodes of one side only that lead to what both are made of, and where they lead. Nodes are in order.
        let mut nearest: BTreeSet<usize> = [a, b].into_iter().filter(|&i| common[i].is_some()).collect();
        let mut leads = vec![false; count];
        for i in (0..count).filter(|&i| common[i].is_none() && way(&left, i).or(way(&right, i)).is_some()) {
            for &x in &self.below[i].nodes {
                leads[i] |= common[x].is_some() || leads[x];
                if common[x].is_some() {
                    nearest.insert(x);
                }
            }
        }
        let most = nearest.iter().filter_map(|&i| common[i]).max().unwrap_or(Way::Straight);
        if most < least {
            return false;
        }
        for &i in &nearest {
            let half = self.f.nodes[i].types.iter().any(|t| matches!(t.dtype, DType::F16 | DType::Bf16));
            let once = match common[i] {
                // Elementwise work at one position has the same bits wherever it is done, but for halves that are not rounded yet.
                Some(Way::Chosen) if !half => self.sums(i),
                None | Some(Way::Straight) => Vec::new(),
                Some(Way::Chosen | Way::Moved | Way::Extreme) => self.computed(i).into_iter().collect(),
            };
            self.out.once.extend(once);
        }
        (0..count).filter(|&i| leads[i]).for_each(|i| self.stands_between(i, most > Way::Chosen));
        true
    }

    /// The sums and products that a node is made of.
    fn sums(&self, top: usize) -> Vec<NodeId> {
        let cone = self.cone(top, |_| true);
        let found = (0..=top).filter(|&i| cone[i].is_some() && is_sum(&self.f.nodes[i]));
        found.map(|i| self.first[i]).collect()
    }

    /// The node whose value a node only moves, if it is computed where it is read, and rounds.
    fn computed(&self, mut i: usize) -> Option<NodeId> {
        loop {
            let node = &self.f.nodes[i];
            match (&node.op, &node.args[..]) {
                (GraphOp::Map { .. } | GraphOp::Reduce { .. } | GraphOp::Dot { .. }, _)
                | (GraphOp::Pad { .. } | GraphOp::Concat { .. }, _) => {
                    return Some(self.first[i]).filter(|_| self.rounds[i]);
                }
                (op, &[x]) if op.info().family == Family::Movement => i = self.at(x),
                _in_memory => return None,
            }
        }
    }

    /// A value and an extreme of it that both leave the function, or go to one, perhaps through functions of themselves and of what is
    /// in memory: what compares them is elsewhere. Not their difference: the way forward of a softmax hands that to the way back.
    fn handed_over(&mut self, live: &[bool]) {
        let f = self.f;
        if !f.nodes.iter().zip(live).any(|(n, live)| *live && matches!(n.op, GraphOp::Reduce { .. })) {
            return;
        }
        let to_functions = f.nodes.iter().zip(live).filter(|(n, live)| **live && !n.callees().is_empty());
        let handed = f.results.iter().chain(to_functions.flat_map(|(n, _)| &n.args));
        let handed: BTreeSet<usize> = handed.map(|&v| self.at(v)).filter(|&i| self.rounds[i]).collect();
        let alone = |i: usize| {
            let computed = f.nodes[i].args.iter().filter(|&&v| self.rounds[self.at(v)]).count();
            computed < 2
        };
        let mut ways: BTreeMap<usize, BTreeSet<Way>> = BTreeMap::new();
        for top in handed {
            for (i, way) in self.cone(top, alone).into_iter().enumerate() {
                way.into_iter().for_each(|way| {
                    ways.entry(i).or_default().insert(way);
                });
            }
        }
        let both = ways.into_iter().filter(|(_, ways)| ways.len() > 1 && ways.contains(&Way::Extreme));
        let found: Vec<NodeId> = both.filter_map(|(i, _)| self.computed(i)).collect();
        self.out.once.extend(found);
    }
}

/// For each node, the first of its op and operands.
fn first_of_each(f: &Function) -> Vec<NodeId> {
    let mut known: BTreeMap<(&GraphOp, Vec<Value>), NodeId> = BTreeMap::new();
    let mut first: Vec<NodeId> = Vec::with_capacity(f.nodes.len());
    for (id, node) in (0u32..).map(NodeId).zip(&f.nodes) {
        let args = node.args.iter().map(|a| Value { node: first[a.node.index()], index: a.index }).collect();
        first.push(*known.entry((&node.op, args)).or_insert(id));
    }
    first
}

#[cfg(test)]
#[path = "agree_tests.rs"]
mod tests;
