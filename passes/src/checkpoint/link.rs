//! What lies between two values of a function, as a view of its nodes: nothing is copied until a link becomes a function.

use super::chain::Origin;
use crate::extract::plain_role;
use std::collections::{BTreeSet, BinaryHeap};
use tilewright_ir::graph::{Function, Node, NodeId, Param, Role, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Type;

/// The nodes that `to` needs beside `from`, parameters and integers. Links are equal that do the same, whatever values they do it
/// to: those of which [`extract`](crate::extract::extract) makes functions of the same ops.
pub(super) struct Link<'f> {
    f: &'f Function,
    /// What it is made of: the first value, and parameters and integers in the order of their use.
    pub(super) given: Vec<Value>,
    /// Its nodes, in order.
    nodes: Vec<NodeId>,
    /// Operands of all of its nodes and the result, numbered as those of a function of `given`.
    numbered: Vec<Value>,
}

impl<'f> Link<'f> {
    pub(super) fn new(f: &'f Function, origins: &[Origin], from: Value, to: Value) -> Link<'f> {
        let (nodes, operands) = between(f, origins, Some(from), to);
        // Each with the place of its first use: sorted by value, then by use.
        let mut own: Vec<(Value, usize)> =
            std::iter::once(from).chain(operands).enumerate().map(|(i, v)| (v, i)).collect();
        own.sort_unstable();
        own.dedup_by_key(|(v, _)| *v);
        own.sort_unstable_by_key(|(_, first)| *first);
        let given: Vec<Value> = own.iter().map(|(v, _)| *v).collect();
        own.iter_mut().enumerate().for_each(|(i, (_, number))| *number = i);
        own.sort_unstable();
        let number = |i: usize, index: u32| Value { node: NodeId(i as u32), index };
        // Nodes of a link are most often neighbours, which says where a node is.
        let near = |v: &Value| (nodes.len() + v.node.index()).checked_sub(to.node.index() + 1);
        let local = |v: &Value| match near(v).filter(|&i| *v != from && nodes.get(i) == Some(&v.node)) {
            Some(i) => number(given.len() + i, v.index),
            None => match own.binary_search_by_key(v, |(v, _)| *v) {
                Ok(i) => number(own[i].1, 0),
                // Each operand is given or made by a node of the link.
                Err(_) => number(given.len() + nodes.binary_search(&v.node).unwrap_or(nodes.len()), v.index),
            },
        };
        let operands = nodes.iter().flat_map(|n| &f.nodes[n.index()].args).chain([&to]);
        let numbered = operands.map(local).collect();
        Link { f, given, nodes, numbered }
    }

    /// The number of its nodes.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it does more than elementwise work.
    pub(super) fn works(&self) -> bool {
        let works = |n: &Node| matches!(n.op, GraphOp::Dot { .. }) || !n.callees().is_empty();
        self.nodes.iter().any(|n| works(&self.f.nodes[n.index()]))
    }

    fn param(&self, v: Value) -> (&Type, Role) {
        (self.f.ty(v), self.f.params.get(v.node.index()).map_or(Role::Input, |p: &Param| plain_role(p)))
    }
}

impl PartialEq for Link<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&NodeId, &NodeId)| {
            let (a, b) = (&self.f.nodes[a.index()], &other.f.nodes[b.index()]);
            a.args.len() == b.args.len() && a.op == b.op && a.types == b.types
        };
        self.given.len() == other.given.len()
            && self.nodes.len() == other.nodes.len()
            && self.numbered == other.numbered
            && self.given.iter().zip(&other.given).all(|(&a, &b)| self.param(a) == other.param(b))
            && self.nodes.iter().zip(&other.nodes).all(same)
    }
}

/// The nodes that `to` needs beside `from`, parameters and integers, and their operands of these kinds, in order of nodes.
fn between(f: &Function, origins: &[Origin], from: Option<Value>, to: Value) -> (Vec<NodeId>, Vec<Value>) {
    let ends = |v: &Value| {
        let i = v.node.index();
        let passes = matches!(origins[i], Origin::Integers | Origin::Cast { shared: true });
        i < f.params.len() || Some(*v) == from || passes
    };
    // Operands precede users, so the last node that is open has no user among those to come.
    let mut open: BinaryHeap<NodeId> = Some(to).iter().filter(|v| !ends(v)).map(|v| v.node).collect();
    let mut nodes: Vec<NodeId> = Vec::new();
    while let Some(node) = open.pop() {
        if nodes.last() != Some(&node) {
            nodes.push(node);
            open.extend(f.nodes[node.index()].args.iter().filter(|v| !ends(v)).map(|v| v.node));
        }
    }
    nodes.reverse();
    let operands = nodes.iter().flat_map(|n| &f.nodes[n.index()].args).copied().filter(ends).collect();
    (nodes, operands)
}

/// What `to` is made of, from the beginning of the function on: parameters of floats.
pub(super) fn reads(f: &Function, origins: &[Origin], to: Value) -> BTreeSet<Value> {
    let of_params = |v: &Value| v.node.index() < f.params.len() && f.ty(*v).dtype.is_float();
    between(f, origins, None, to).1.into_iter().filter(of_params).collect()
}
