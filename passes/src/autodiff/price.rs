//! What to keep of a way forward and what to compute again, as a minimum cut: Jain et al., "Checkmate", 2020, pose the question for
//! whole schedules; between one way forward and one way back it is a cut.
//!
//! A node of the way forward is a vertex `run`, each of its values a vertex `read`. What lies on the side of the way back is run, or read,
//! there. Edges: into `run` from the source, by what it costs to run again; from `run` to `read`, by what it costs to keep the value;
//! from the operands' `read` to `run`, not to be cut, as what runs reads them; from `read` to the sink for what backward reads.
//! Cost: that of the largest flow, in practice near linear in nodes.

use super::cut::Cut;
use crate::agree::agreeing;
use petgraph::algo::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::flops::{cost, type_bytes};
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::{Bindings, Dim, Type};

/// Units of the flow for an operation: prices of bytes may be small.
const UNIT: f64 = 256.0;
/// An edge that no cut has, above all sums of others.
const NEVER: u128 = 1 << 100;
/// The size of a symbol that prices are for, if its range allows it.
const USUAL: i64 = 256;

/// A cut at a price.
pub(super) struct Price<'a> {
    pub cut: &'a Cut<'a>,
    /// Operations that a byte is worth.
    pub per_byte: f64,
}

type Network = DiGraph<(), u128>;

impl Price<'_> {
    /// The nodes of the way forward that backward runs again, where it reads `wanted`.
    pub fn again(&self, wanted: &BTreeSet<Value>) -> BTreeSet<NodeId> {
        let mut graph = Network::new();
        let (source, sink) = (graph.add_node(()), graph.add_node(()));
        let mut runs: BTreeMap<NodeId, NodeIndex> = BTreeMap::new();
        let mut reads: BTreeMap<Value, NodeIndex> = BTreeMap::new();
        let sizes = usual_sizes(self.cut.joint);
        // Its results are not yet those of the derivative.
        let one_run = agreeing(self.cut.joint, &vec![true; self.cut.joint.nodes.len()]).between;
        let mut open: Vec<Value> = wanted.iter().copied().filter(|&v| !self.cut.has(v)).collect();
        while let Some(v) = open.pop() {
            if reads.contains_key(&v) {
                continue;
            }
            let read = *reads.entry(v).or_insert_with(|| graph.add_node(()));
            let node = self.cut.joint.node(v);
            let kept = units(self.per_byte * bytes(self.cut.joint.ty(v), &sizes));
            if v.node.index() < self.cut.params {
                // Lost: nothing makes it again.
                graph.add_edge(source, read, kept);
                continue;
            }
            let run = match runs.get(&v.node) {
                Some(&run) => run,
                None => {
                    let run = graph.add_node(());
                    runs.insert(v.node, run);
                    let ops = again(self.cut.module, self.cut.joint, v.node, &sizes);
                    graph.add_edge(source, run, units(ops));
                    run
                }
            };
            // A constant is no value that is kept, and what a comparison meets beside itself is of the run that compares.
            let never = is_free(&node.op) || one_run.contains(&v.node);
            graph.add_edge(run, read, if never { NEVER } else { kept });
            open.extend(node.args.iter().filter(|&&a| !self.cut.has(a)));
        }
        for (v, run) in
            runs.iter().flat_map(|(n, run)| self.cut.joint.nodes[n.index()].args.iter().map(move |a| (a, run)))
        {
            if let Some(&read) = reads.get(v) {
                graph.add_edge(read, *run, NEVER);
            }
        }
        for v in wanted {
            if let Some(&read) = reads.get(v) {
                graph.add_edge(read, sink, NEVER);
            }
        }
        let kept = source_side(&graph, source, sink);
        runs.into_iter().filter(|(_, run)| !kept.contains(run)).map(|(node, _)| node).collect()
    }
}

/// Vertices that the source reaches where the flow leaves room: of all least cuts, the one that runs most again.
fn source_side(graph: &Network, source: NodeIndex, sink: NodeIndex) -> BTreeSet<NodeIndex> {
    let (_, flows) = dinics(graph, source, sink);
    let (mut side, mut open) = (BTreeSet::from([source]), vec![source]);
    while let Some(v) = open.pop() {
        let forth = graph.edges(v).filter(|e| flows[e.id().index()] < *e.weight()).map(|e| e.target());
        let back = graph.edges_directed(v, petgraph::Direction::Incoming);
        let back = back.filter(|e| flows[e.id().index()] > 0).map(|e| e.source());
        for next in forth.chain(back).collect::<Vec<_>>() {
            if side.insert(next) {
                open.push(next);
            }
        }
    }
    side
}

fn units(operations: f64) -> u128 {
    (operations * UNIT).ceil().clamp(0.0, 1e24) as u128
}

/// Sizes for which something is priced: those of the middle of a range.
fn usual_sizes(f: &Function) -> Bindings {
    let usual = |s: &tilewright_ir::types::SymbolDecl| (s.name.clone(), s.low.max(1).max(s.high.min(USUAL)));
    f.symbols.iter().map(usual).collect()
}

fn number(dim: Option<Dim>, sizes: &Bindings) -> f64 {
    // What cannot be counted is too much.
    dim.and_then(|d| d.eval(sizes).ok()).map_or(1e18, |n| n as f64)
}

/// Bytes of a value.
fn bytes(ty: &Type, sizes: &Bindings) -> f64 {
    number(type_bytes(ty), sizes)
}

fn is_free(op: &GraphOp) -> bool {
    matches!(op, GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. })
}

/// Operations to run a node of `f` again, for usual sizes.
pub(super) fn operations(module: &Module, f: &Function, node: NodeId) -> f64 {
    again(module, f, node, &usual_sizes(f))
}

/// Operations to run a node again. What a kernel computes for each element that it reads anyway is free; sums and products are
/// not, nor functions.
fn again(module: &Module, f: &Function, node: NodeId, sizes: &Bindings) -> f64 {
    let node = &f.nodes[node.index()];
    match &node.op {
        GraphOp::Call { function } => whole(module, function, sizes),
        GraphOp::Cond { yes, no } => whole(module, yes, sizes).max(whole(module, no, sizes)),
        GraphOp::Scan { body, length, .. } => whole(module, body, sizes) * number(Some(length.clone()), sizes),
        GraphOp::Map { .. } => 0.0,
        op => {
            let args: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
            number(cost(op, &args, &node.types).map(|c| c.flops), sizes)
        }
    }
}

/// Operations of a function, of usual sizes of its own symbols where the caller's have other names.
fn whole(module: &Module, name: &str, sizes: &Bindings) -> f64 {
    let Some(f) = module.functions.get(name) else { return 0.0 };
    let mut own = usual_sizes(f);
    own.extend(sizes.iter().filter(|(s, _)| f.symbols.iter().any(|d| d.name == **s)).map(|(s, n)| (s.clone(), *n)));
    (0..f.nodes.len()).map(|i| again(module, f, NodeId(i as u32), &own)).sum()
}
