//! Chains in the nodes of a function: blocks that repeat, each made of the value before it.
//!
//! A waist is a value through which all goes that depends on float parameters: what comes after it is made of it, of parameters,
//! perhaps in another dtype, and of what depends on integers alone, such as a mask. Between two waists is a link; a block is what repeats, one link or
//! several. Blocks that a user wrote as calls of a function are links of one node.

use super::{Segments, declared};
use crate::extract::extract;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Node, NodeId, Value};
use tilewright_ir::op::{GraphOp, ScalarOp};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// Of no parameter: it is made again where it is needed.
    Nothing,
    /// Of parameters that are no floats.
    Integers,
    /// A float parameter in another dtype, such as mixed precision makes of weights: wherever it stands, it belongs to what reads it.
    Cast {
        /// Read more than once: then it is made once, and given to all, so that its cotangents are summed in one dtype.
        shared: bool,
    },
    /// Of a float parameter.
    Floats,
}

/// Blocks, one after the other.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The value before each block, then the last one.
    ends: Vec<Value>,
    origins: Vec<Origin>,
}

impl Chain {
    /// The longest chain of the function; none of fewer than two blocks.
    pub(crate) fn of(f: &Function) -> Option<Chain> {
        let origins = origins(f);
        let mut waists = waists(f, &origins);
        let mut links: Vec<Function> =
            waists.windows(2).map(|w| link(f, &origins, w[0], w[1])).collect::<Option<_>>()?;
        // A chain may begin with a parameter.
        let first = *waists.first()?;
        let before = |&p: &Value| Some((p, link(f, &origins, p, first)?));
        let params = reads(f, &origins, first).into_iter().filter(|v| v.node.index() < f.params.len());
        let like = |(_, l): &(Value, Function)| links.iter().any(|other| other.same_ops(l));
        let begun = params.collect::<Vec<Value>>().iter().filter_map(before).find(like);
        if let Some((param, link)) = begun {
            waists.insert(0, param);
            links.insert(0, link);
        }
        let (first, length, count) = repeated(&links)?;
        let ends: Vec<Value> = (0..=count).map(|i| waists[first + i * length]).collect();
        Some(Chain { ends, origins })
    }

    pub(crate) fn blocks(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether each block is one call, on what the one before gives.
    pub(crate) fn is_of_calls(&self, f: &Function) -> bool {
        let call = |pair: &[Value]| {
            let node = f.node(pair[1]);
            matches!(node.op, GraphOp::Call { .. }) && node.args.contains(&pair[0])
        };
        self.ends.windows(2).all(call)
    }

    /// The nodes of the last values of the blocks.
    pub(super) fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.ends[1..].iter().map(|end| end.node)
    }

    /// The function with calls of segments in the place of blocks. They are differentiated by `derivative`.
    pub(crate) fn segmented(
        &self,
        module: &mut Module,
        f: &Function,
        segments: Segments,
        derivative: Derivative,
    ) -> Result<Function, Diagnostic> {
        let (blocks, count) = (self.blocks(), segments.of(self.blocks()));
        let bounds: Vec<Value> = (0..=count).map(|i| self.ends[i * blocks / count]).collect();
        let mut calls: BTreeMap<Value, GraphOp> = BTreeMap::new();
        let mut arguments = BTreeMap::new();
        for pair in bounds.windows(2) {
            let given = given(f, &self.origins, pair[0], pair[1]);
            let name = if derivative == Derivative::Checkpoint { "segment" } else { "block" };
            let made = Function { derivative: derivative.clone(), ..extract(f, name, &given, &[pair[1]])? };
            calls.insert(pair[1], GraphOp::Call { function: declared(module, made, &f.name) });
            arguments.insert(pair[1], given);
        }
        let mut out = f.clone();
        // Each waist becomes a call in its place; what lies between is not needed any more, and goes.
        for (end, op) in calls {
            let node = &mut out.nodes[end.node.index()];
            let types = vec![f.ty(end).clone()];
            *node = Node { op, args: arguments.remove(&end).unwrap_or_default(), types, ..node.clone() };
        }
        let first = |v: Value| if bounds[1..].contains(&v) { Value { index: 0, ..v } } else { v };
        out.nodes.iter_mut().for_each(|n| n.args.iter_mut().for_each(|a| *a = first(*a)));
        out.results.iter_mut().for_each(|r| *r = first(*r));
        let params: Vec<Value> = (0..out.params.len()).map(|i| out.param(i)).collect();
        let results = out.results.clone();
        let made = extract(&out, &f.name, &params, &results)?;
        Ok(Function { params: f.params.clone(), derivative: f.derivative.clone(), ..made })
    }
}

fn origins(f: &Function) -> Vec<Origin> {
    let live = f.live();
    let mut reads = vec![0; f.nodes.len()];
    let all = f.nodes.iter().zip(&live).filter(|(_, live)| **live).flat_map(|(n, _)| &n.args);
    all.chain(&f.results).for_each(|v| reads[v.node.index()] += 1);
    let mut origins: Vec<Origin> = Vec::with_capacity(f.nodes.len());
    for (node, reads) in f.nodes.iter().zip(reads) {
        let of_args = node.args.iter().map(|a| origins[a.node.index()]).max();
        let of_param = node.args.iter().all(|a| a.node.index() < f.params.len());
        origins.push(match (&node.op, of_args) {
            (GraphOp::Parameter { .. }, _) if node.types[0].dtype.is_float() => Origin::Floats,
            (GraphOp::Parameter { .. }, _) => Origin::Integers,
            (_made, None) => Origin::Nothing,
            (GraphOp::Map { op: ScalarOp::Cast { .. } }, Some(Origin::Floats)) if of_param => {
                Origin::Cast { shared: reads > 1 }
            }
            (_made, Some(Origin::Cast { .. })) => Origin::Floats,
            (_made, Some(origin)) => origin,
        });
    }
    origins
}

/// Values through which all goes, in order.
fn waists(f: &Function, origins: &[Origin]) -> Vec<Value> {
    let live = f.live();
    let counts = |v: &Value| v.node.index() >= f.params.len() && origins[v.node.index()] == Origin::Floats;
    let mut last: BTreeMap<Value, usize> = BTreeMap::new();
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        last.extend(node.args.iter().filter(|v| counts(v)).map(|&v| (v, i)));
    }
    last.extend(f.results.iter().filter(|v| counts(v)).map(|&v| (v, usize::MAX)));
    // Values that are needed after node `i`, and those of them that are read last by it.
    let (mut crossing, mut ends): (BTreeSet<Value>, BTreeMap<usize, Vec<Value>>) = Default::default();
    last.iter().for_each(|(&v, &i)| ends.entry(i).or_default().push(v));
    let mut out: Vec<Value> = Vec::new();
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        let made = (0..node.types.len()).map(|k| Value { node: NodeId(i as u32), index: k as u32 });
        crossing.extend(made.filter(|v| last.contains_key(v)));
        let read_last = ends.get(&i).into_iter().flatten();
        crossing = &crossing - &read_last.copied().collect();
        if let (Some(&one), 1) = (crossing.first(), crossing.len())
            && f.ty(one).dtype.is_float()
            && out.last() != Some(&one)
        {
            out.push(one);
        }
    }
    out
}

/// What lies between two waists is made of: the first, and parameters and integers in the order of their use.
fn given(f: &Function, origins: &[Origin], from: Value, to: Value) -> Vec<Value> {
    let mut given = vec![from];
    for v in between(f, origins, Some(from), to) {
        if !given.contains(&v) {
            given.push(v);
        }
    }
    given
}

/// What `to` is made of, from the beginning of the function on.
fn reads(f: &Function, origins: &[Origin], to: Value) -> BTreeSet<Value> {
    between(f, origins, None, to).into_iter().filter(|v| f.ty(*v).dtype.is_float()).collect()
}

/// Operands of the nodes that `to` needs beside `from`, parameters and integers: those of these kinds, in order of nodes.
fn between(f: &Function, origins: &[Origin], from: Option<Value>, to: Value) -> Vec<Value> {
    let (mut needed, mut open) = (BTreeSet::new(), vec![to]);
    let ends = |v: Value| {
        let i = v.node.index();
        let passes = matches!(origins[i], Origin::Integers | Origin::Cast { shared: true });
        i < f.params.len() || Some(v) == from || passes
    };
    while let Some(v) = open.pop() {
        if !ends(v) && needed.insert(v.node) {
            open.extend(&f.node(v).args);
        }
    }
    needed.iter().flat_map(|n| &f.nodes[n.index()].args).copied().filter(|&v| ends(v)).collect()
}

/// A link as a function, which says what it does whatever values it does it to.
fn link(f: &Function, origins: &[Origin], from: Value, to: Value) -> Option<Function> {
    extract(f, "link", &given(f, origins, from, to), &[to]).ok()
}

/// The first link, the links of a block, and the number of blocks, of the repetition that covers most nodes; of those the one
/// with the shortest blocks. Blocks of elementwise work are not worth a function.
fn repeated(links: &[Function]) -> Option<(usize, usize, usize)> {
    let mut kinds: Vec<usize> = Vec::with_capacity(links.len());
    for (i, link) in links.iter().enumerate() {
        let known = (0..i).find(|&j| kinds[j] == j && links[j].same_ops(link));
        kinds.push(known.unwrap_or(i));
    }
    let works = |n: &Node| matches!(n.op, GraphOp::Dot { .. }) || !n.callees().is_empty();
    let works: Vec<bool> = links.iter().map(|l| l.nodes.iter().any(works)).collect();
    let nodes = |from: usize, to: usize| links[from..to].iter().map(|l| l.nodes.len() - l.params.len()).sum::<usize>();
    let mut best: Option<(usize, (usize, usize, usize))> = None;
    for length in 1..=links.len() / 2 {
        let mut run = 0;
        for i in length..links.len() {
            run = if kinds[i] == kinds[i - length] { run + 1 } else { 0 };
            let (count, first) = (run / length + 1, i + 1 - run - length);
            if count < 2 || run % length != 0 || !works[first..first + length].contains(&true) {
                continue;
            }
            let covered = nodes(first, first + length * count);
            if best.is_none_or(|(most, _)| most < covered) {
                best = Some((covered, (first, length, count)));
            }
        }
    }
    best.map(|(_, found)| found)
}
