//! Values that must agree with themselves. A comparison of numbers with the largest of them, which the gradient of a maximum is made
//! of, holds somewhere only if both of its sides see the same bits. Kernels may compute a value where they read it, and add its
//! sums in two orders: such values are computed once.
//!
//! Below a comparison, and what else jumps, lie the nodes that each of its sides is made of, down to sums and products, whose
//! roundings no program relies on. A value agrees with itself if both sides are made of it, and it is moved, or one of several is
//! taken, on the way: the nearest such values are enough, as all that lies below them is seen through them.

use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::{Family, GraphOp, ReduceKind, ScalarOp};

/// What [`agreeing`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreeing {
    /// The first node of each value that is to be computed once.
    pub once: BTreeSet<NodeId>,
    /// Nodes between these values and what jumps. They are of one run: whoever keeps one of them, and computes the values below it
    /// again, compares two runs.
    pub between: BTreeSet<NodeId>,
    /// The first node of the same op and operands, for each node.
    pub first: Vec<NodeId>,
}

/// How a value gets to where it is read, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// At its own position, by arithmetic.
    Straight,
    /// From another position, or as one of two.
    Moved,
    /// As an extreme of many.
    Extreme,
}

/// The values of a function that must agree with themselves, for what the `live` nodes among its nodes ask.
///
/// Cost: O(nodes), and a visit of what is below each comparison down to sums.
pub fn agreeing(f: &Function, live: &[bool]) -> Agreeing {
    let asks = |n: &Node| matches!(n.op, GraphOp::Map { .. } | GraphOp::Reduce { .. });
    if !f.nodes.iter().zip(live).any(|(n, live)| *live && asks(n)) {
        return Agreeing::default();
    }
    let first = first_of_each(f);
    let mut search = Search { f, first: &first, once: BTreeSet::new(), between: BTreeSet::new() };
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i] && first[*i].index() == *i) {
        debug_assert!(i >= node.args.iter().map(|a| a.node.index()).max().unwrap_or(0), "nodes are in order");
        search.decision(node);
    }
    search.handed_over(live);
    let (once, between) = (search.once, search.between);
    Agreeing { once, between, first }
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

/// Sums and products of floats, whose roundings depend on the order. Not those of encoded values, which exist only between a load and
/// a cast.
pub fn folds<'f>(f: &'f Function, live: &'f [bool]) -> impl Iterator<Item = NodeId> + 'f {
    let encoded = |v: &Value| f.node(*v).args.iter().any(|&a| f.ty(a).dtype.is_block());
    let nodes = (0u32..).map(NodeId).zip(&f.nodes).filter(|(id, _)| live[id.index()]);
    let rounds = nodes.filter(move |(_, node)| {
        let sums = match &node.op {
            GraphOp::Dot { .. } => true,
            GraphOp::Reduce { kind, .. } => matches!(kind, ReduceKind::Sum | ReduceKind::Prod),
            _other => false,
        };
        sums && node.types.iter().all(|t| t.dtype.is_float()) && !node.args.iter().any(encoded)
    });
    rounds.map(|(id, _)| id)
}

/// Whether a node is the identity that stands behind a value which is computed once.
pub fn is_identity(f: &Function, node: &Node) -> bool {
    matches!((&node.op, &node.args[..]), (GraphOp::Reshape { shape }, &[x]) if *shape == f.ty(x).shape)
}

struct Search<'a> {
    f: &'a Function,
    first: &'a [NodeId],
    once: BTreeSet<NodeId>,
    between: BTreeSet<NodeId>,
}

type Cone = BTreeMap<NodeId, Way>;

impl Search<'_> {
    fn first(&self, v: Value) -> NodeId {
        self.first[v.node.index()]
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.f.nodes[id.index()]
    }

    fn is_float(&self, v: Value) -> bool {
        self.f.ty(v).dtype.is_float()
    }

    /// Whether a value is a constant, perhaps moved.
    fn is_constant(&self, v: Value) -> bool {
        let node = self.f.node(v);
        match (&node.op, node.args.first()) {
            (GraphOp::Constant { .. }, _) => true,
            (GraphOp::Map { op: ScalarOp::Cast { .. } | ScalarOp::Neg {} }, Some(&x)) => self.is_constant(x),
            (op, Some(&x)) if op.info().family == Family::Movement && node.args.len() == 1 => self.is_constant(x),
            _computed => false,
        }
    }

    /// What a node that jumps compares.
    fn decision(&mut self, node: &Node) {
        let GraphOp::Map { op } = &node.op else { return };
        if !node.args.iter().all(|&a| self.is_float(a)) {
            return;
        }
        match (op, &node.args[..]) {
            (
                ScalarOp::Eq {}
                | ScalarOp::Ne {}
                | ScalarOp::Lt {}
                | ScalarOp::Le {}
                | ScalarOp::Gt {}
                | ScalarOp::Ge {}
                | ScalarOp::Rem {},
                &[a, b],
            ) => match (self.is_constant(a), self.is_constant(b)) {
                (true, true) => {}
                (true, false) => self.against_constant(b),
                (false, true) => self.against_constant(a),
                (false, false) => self.compared(a, b),
            },
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
            ) => self.against_constant(a),
            (ScalarOp::Cast { to }, &[a]) if !to.is_float() => self.against_constant(a),
            _smooth => {}
        }
    }

    /// What jumps at a number of one value compares the operands of the difference, or the quotient, that the value is.
    fn against_constant(&mut self, mut v: Value) {
        loop {
            let node = self.f.node(v);
            v = match (&node.op, &node.args[..]) {
                (GraphOp::Map { op: ScalarOp::Neg {} | ScalarOp::Abs {} | ScalarOp::Cast { .. } }, &[x]) => x,
                (op, &[x]) if op.info().family == Family::Movement => x,
                (GraphOp::Map { .. }, &[x, c]) if self.is_constant(c) => x,
                (GraphOp::Map { .. }, &[c, x]) if self.is_constant(c) => x,
                (GraphOp::Map { op: ScalarOp::Sub {} | ScalarOp::Div {} }, &[a, b]) => return self.compared(a, b),
                _other => return,
            };
        }
    }

    /// The operands that a node is made of, as far as a comparison sees through it, and how.
    fn below(&self, id: NodeId) -> (Way, Vec<Value>) {
        let node = self.node(id);
        let floats = || node.args.iter().copied().filter(|&a| self.is_float(a)).collect();
        match &node.op {
            GraphOp::Map { op: ScalarOp::Max {} | ScalarOp::Min {} | ScalarOp::Select {} } => (Way::Moved, floats()),
            GraphOp::Map { .. } => (Way::Straight, floats()),
            GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. } => (Way::Extreme, floats()),
            GraphOp::Take { .. } | GraphOp::TakeAlong { .. } | GraphOp::UpdateSlice { .. } => (Way::Moved, floats()),
            op if op.info().family == Family::Movement => (Way::Moved, floats()),
            _sums_and_sources => (Way::Straight, Vec::new()),
        }
    }

    /// Everything that `v` is made of, itself too; with `only_choice` as far as no arithmetic changes it.
    fn cone(&self, v: Value, only_choice: bool) -> Cone {
        let (mut cone, mut open) = (Cone::new(), vec![(self.first(v), Way::Straight)]);
        while let Some((id, way)) = open.pop() {
            if cone.get(&id).is_some_and(|known| *known >= way) {
                continue;
            }
            cone.insert(id, way);
            let (step, below) = self.below(id);
            if step > Way::Straight || !only_choice {
                open.extend(below.into_iter().map(|x| (self.first(x), way.max(step))));
            }
        }
        cone
    }

    /// Both sides of a comparison.
    fn compared(&mut self, a: Value, b: Value) {
        if self.first(a) == self.first(b) && a.index == b.index {
            return;
        }
        let (left, right) = (self.cone(a, false), self.cone(b, false));
        let common: BTreeMap<NodeId, Way> =
            left.iter().filter_map(|(id, way)| Some((*id, *way.max(right.get(id)?)))).collect();
        if common.is_empty() {
            return;
        }
        // The nodes of one side only that lead to what both are made of, and where they lead. Nodes are in order.
        let (mut leads, mut nearest) = (BTreeSet::new(), BTreeSet::new());
        nearest.extend([a, b].map(|v| self.first(v)).into_iter().filter(|id| common.contains_key(id)));
        let sides: BTreeSet<NodeId> = left.keys().chain(right.keys()).copied().collect();
        for id in sides.into_iter().filter(|id| !common.contains_key(id)) {
            for x in self.below(id).1.into_iter().map(|x| self.first(x)) {
                if common.contains_key(&x) {
                    nearest.insert(x);
                    leads.insert(id);
                } else if leads.contains(&x) {
                    leads.insert(id);
                }
            }
        }
        let found: Vec<NodeId> =
            nearest.into_iter().filter(|id| common[id] > Way::Straight).filter_map(|id| self.computed(id)).collect();
        if !found.is_empty() {
            self.once.extend(found);
            self.between.extend(leads);
        }
    }

    /// The node whose value a node only moves, if it is computed where it is read.
    fn computed(&self, mut id: NodeId) -> Option<NodeId> {
        loop {
            let node = self.node(id);
            match (&node.op, &node.args[..]) {
                (GraphOp::Map { .. } | GraphOp::Reduce { .. } | GraphOp::Dot { .. }, _) => return Some(id),
                (GraphOp::Pad { .. } | GraphOp::Concat { .. }, _) => return Some(id),
                (op, &[x]) if op.info().family == Family::Movement => id = self.first(x),
                _stored => return None,
            }
        }
    }

    /// A value and an extreme of it that both leave the function, or go to one: what compares them is elsewhere.
    fn handed_over(&mut self, live: &[bool]) {
        let to_functions = self.f.nodes.iter().zip(live).filter(|(n, live)| **live && !n.callees().is_empty());
        let handed = self.f.results.iter().chain(to_functions.flat_map(|(n, _)| &n.args));
        let handed: BTreeSet<Value> = handed.copied().filter(|&v| self.is_float(v)).collect();
        let mut ways: BTreeMap<NodeId, BTreeSet<Way>> = BTreeMap::new();
        for v in handed {
            self.cone(v, true).into_iter().for_each(|(id, way)| {
                ways.entry(id).or_default().insert(way);
            });
        }
        let both = ways.into_iter().filter(|(_, ways)| ways.len() > 1 && ways.contains(&Way::Extreme));
        let found: Vec<NodeId> = both.filter_map(|(id, _)| self.computed(id)).collect();
        self.once.extend(found);
    }
}

#[cfg(test)]
#[path = "agree_tests.rs"]
mod tests;
