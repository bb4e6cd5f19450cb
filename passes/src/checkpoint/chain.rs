//! Chains in the nodes of a function: blocks that repeat, each made of the value before it.
//!
//! A waist is a value through which all goes that depends on float parameters: what comes after it is made of it, of parameters,
//! perhaps in another dtype, and of what depends on integers alone, such as a mask. Between two waists is a link; a block is what repeats, one link or
//! several. Blocks that a user wrote as calls of a function are links of one node.

use super::link::{Link, reads};
use super::{Segments, declared};
use crate::extract::{extract, extract_replaced};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Node, NodeId, Value};
use tilewright_ir::op::{GraphOp, Name, ScalarOp};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
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
        let mut links: Vec<Link<'_>> = waists.windows(2).map(|w| Link::new(f, &origins, w[0], w[1])).collect();
        // A chain may begin with a parameter.
        let first = *waists.first()?;
        let before = |p: Value| (p, Link::new(f, &origins, p, first));
        let begun = reads(f, &origins, first).into_iter().map(before).find(|(_, link)| links.contains(link));
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
        let mut functions: Vec<(Link<'_>, Name)> = Vec::new();
        // Each waist becomes a call in its place; what lies between is not needed any more, and goes.
        let mut calls: BTreeMap<NodeId, (Value, Node)> = BTreeMap::new();
        for pair in bounds.windows(2) {
            let end = pair[1];
            let link = Link::new(f, &self.origins, pair[0], end);
            let (args, types) = (link.given.clone(), vec![f.ty(end).clone()]);
            let function = match functions.iter().find(|(known, _)| *known == link) {
                Some((_, name)) => name.clone(),
                None => {
                    let name = if derivative == Derivative::Checkpoint { "segment" } else { "block" };
                    let made = Function { derivative: derivative.clone(), ..extract(f, name, &args, &[end])? };
                    let name = declared(module, made, &f.name);
                    functions.push((link, name.clone()));
                    name
                }
            };
            let Node { places, scope, .. } = f.node(end);
            let (places, scope) = (places.clone(), scope.clone());
            calls.insert(end.node, (end, Node { op: GraphOp::Call { function }, args, types, places, scope }));
        }
        let params: Vec<Value> = (0..f.params.len()).map(|i| f.param(i)).collect();
        let made = extract_replaced(f, &f.name, &params, &f.results, &calls)?;
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
    let counts = |v: &&Value| v.node.index() >= f.params.len() && origins[v.node.index()] == Origin::Floats;
    // Results of all nodes in a row: where those of a node begin, and of each the node that reads it last.
    let begins = f.nodes.iter().scan(0, |next, n| Some(std::mem::replace(next, *next + n.types.len())));
    let begins: Vec<usize> = begins.collect();
    let at = |v: &Value| begins[v.node.index()] + v.index as usize;
    let mut last: Vec<Option<usize>> = vec![None; f.nodes.iter().map(|n| n.types.len()).sum()];
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        node.args.iter().filter(counts).for_each(|v| last[at(v)] = Some(i));
    }
    f.results.iter().filter(counts).for_each(|v| last[at(v)] = Some(usize::MAX));
    // How many values are needed after node `i`, and the sum of their numbers: where it is one, that is its number.
    let (mut crossing, mut sum) = (0, 0);
    let mut out: Vec<Value> = Vec::new();
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        for number in (begins[i]..begins[i] + node.types.len()).filter(|n| last[*n].is_some()) {
            (crossing, sum) = (crossing + 1, sum + number);
        }
        for number in node.args.iter().map(at) {
            // Once, however often this node reads it.
            if last[number].take_if(|reader| *reader == i).is_some() {
                (crossing, sum) = (crossing - 1, sum - number);
            }
        }
        if crossing == 1 {
            // Most often it was made just now.
            let recent = (sum >= begins[i]).then_some(i);
            let maker = recent.unwrap_or_else(|| begins.partition_point(|begin| *begin <= sum) - 1);
            let one = Value { node: NodeId(maker as u32), index: (sum - begins[maker]) as u32 };
            if f.ty(one).dtype.is_float() && out.last() != Some(&one) {
                out.push(one);
            }
        }
    }
    out
}

/// The first link, the links of a block, and the number of blocks, of the repetition that covers most nodes; of those the one
/// with the shortest blocks. Blocks of elementwise work are not worth a function.
fn repeated(links: &[Link<'_>]) -> Option<(usize, usize, usize)> {
    let mut kinds: Vec<usize> = Vec::with_capacity(links.len());
    // Nodes, and links that do more than elementwise work, before each link.
    let (mut nodes, mut works) = (vec![0], vec![0]);
    for (i, link) in links.iter().enumerate() {
        let known = (0..i).find(|&j| kinds[j] == j && links[j] == *link);
        kinds.push(known.unwrap_or(i));
        nodes.push(nodes[i] + link.len());
        works.push(works[i] + usize::from(link.works()));
    }
    let mut best: Option<(usize, (usize, usize, usize))> = None;
    for length in 1..=links.len() / 2 {
        let mut run = 0;
        for i in length..links.len() {
            run = if kinds[i] == kinds[i - length] { run + 1 } else { 0 };
            let (count, first) = (run / length + 1, i + 1 - run - length);
            if count < 2 || run % length != 0 || works[first + length] == works[first] {
                continue;
            }
            let covered = nodes[first + length * count] - nodes[first];
            if best.is_none_or(|(most, _)| most < covered) {
                best = Some((covered, (first, length, count)));
            }
        }
    }
    best.map(|(_, found)| found)
}
