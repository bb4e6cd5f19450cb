//! Lookups along the last axis move toward what is stored: a few elements are computed, instead of all of them stored.
//!
//! before: `%1 = dot %x, %w`, `%2 = add %1, %b`, `%3 = take_along %2, %ids`
//! after:  `%1 = take %w, %ids`, `%2 = dot %x, %1`, `%3 = take %b, %ids`, `%4 = add %2, %3`
//! keeps: types, places; what an index outside is refused for, as a lookup at the same indices along an axis of the same
//! size is left; values bit for bit but for products, which add in another order and move only where that may be.
//! cost: O(nodes), and a visit of what is above each lookup.
//!
//! It pays where a loss over classes then needs its logits for folds along the classes alone: a kernel of level 2 makes
//! these on the way, and nobody stores them. A product that is stored anyway stays.

use super::rewrite::Rewrite;
use crate::agree::is_identity;
use std::collections::BTreeSet;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::{DotDims, GraphOp, ScalarOp};
use tilewright_ir::types::Dim;

/// A lookup reads at most this part of its axis.
const FEWEST: i64 = 8;
/// Most values above a lookup that it moves past.
const MOST_VISITS: usize = 64;

/// `f` with its lookups moved, or `None` if none moves. `reorders`: products may add in another order.
pub(super) fn moved(module: &Module, f: &Function, reorders: bool) -> Result<Option<Function>, Diagnostic> {
    let few: BTreeSet<NodeId> = (0u32..).map(NodeId).zip(&f.nodes).filter(|(_, n)| is_few(f, n)).map(|n| n.0).collect();
    if few.is_empty() {
        return Ok(None);
    }
    let folded = if reorders { folded(f, &few) } else { BTreeSet::new() };
    let moves = |id: &&NodeId| {
        let mut above = Above { f, folded: &folded, visits: 0, looks: false, computed: 0 };
        f.nodes[id.index()].args.first().is_some_and(|x| above.passes(*x, true)) && above.pays()
    };
    let moving: BTreeSet<NodeId> = few.iter().filter(moves).copied().collect();
    if moving.is_empty() {
        return Ok(None);
    }
    let mut lookups = Lookups { f, folded: &folded, new: Rewrite::of(module, f) };
    for (id, node) in (0u32..).map(NodeId).zip(&f.nodes) {
        let new = match node.args[..] {
            [x, ids] if moving.contains(&id) => {
                let ids = lookups.new.at(ids)?;
                lookups.look(x, ids, node)?.node
            }
            _ => {
                let args = lookups.new.operands(node)?;
                lookups.new.copy(node, args)?
            }
        };
        lookups.new.became(new);
    }
    lookups.new.finish(f).map(Some)
}

fn last(f: &Function, v: Value) -> Option<(usize, &Dim)> {
    f.ty(v).shape.iter().enumerate().next_back()
}

/// Whether a node looks up few elements of a computed value along its last axis.
fn is_few(f: &Function, node: &Node) -> bool {
    let (GraphOp::TakeAlong { axis }, [x, ids]) = (&node.op, &node.args[..]) else { return false };
    let (Some((at, all)), Some((_, few))) = (last(f, *x), last(f, *ids)) else { return false };
    let sizes = (all.as_const(), few.as_const());
    at == *axis && matches!(sizes, (Some(all), Some(few)) if few.checked_mul(FEWEST).is_some_and(|n| n <= all))
}

/// Whether a node keeps the last axis of its first operand whole, and works at each position of it alone.
fn keeps_last(f: &Function, node: &Node) -> bool {
    let (Some(&x), Some(ty)) = (node.args.first(), node.types.first()) else { return false };
    let whole = || last(f, x).zip(ty.shape.last()).is_some_and(|((_, from), to)| from == to);
    match &node.op {
        GraphOp::Map { .. } => true,
        GraphOp::Reshape { .. } => whole() && !is_identity(f, node),
        GraphOp::Slice { stride, .. } => whole() && stride.iter().all(|s| *s == 1),
        GraphOp::Broadcast { dims, shape } => whole() && dims.last().is_some_and(|d| d + 1 == shape.len()),
        _other => false,
    }
}

/// Products whose last axis is free in the right operand, all of whose uses are folds over that axis and `few` lookups.
fn folded(f: &Function, few: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let live = f.live();
    let mut kept = vec![false; f.nodes.len()];
    for r in &f.results {
        kept[r.node.index()] = true;
    }
    for (i, node) in f.nodes.iter().enumerate().rev().filter(|n| live[n.0]) {
        let id = NodeId(i as u32);
        let passes = keeps_last(f, node) && !kept[i];
        for (position, v) in node.args.iter().enumerate() {
            let folds = match &node.op {
                GraphOp::Reduce { axes, .. } => last(f, *v).is_some_and(|(at, _)| axes.contains(&at)),
                GraphOp::TakeAlong { .. } => few.contains(&id) && position == 0,
                _other => passes,
            };
            kept[v.node.index()] |= !folds;
        }
    }
    let candidate = |id: &NodeId| live[id.index()] && !kept[id.index()] && classes(f, &f.nodes[id.index()]).is_some();
    (0..f.nodes.len() as u32).map(NodeId).filter(candidate).collect()
}

/// The axis of the right operand that is the last of a product, for products without batch that add something.
fn classes(f: &Function, node: &Node) -> Option<usize> {
    let (GraphOp::Dot { dims }, [x, w]) = (&node.op, &node.args[..]) else { return None };
    let adds = dims.contract.0.iter().all(|&d| f.ty(*x).shape[d].as_const().is_some_and(|n| n > 0));
    let mut free = (0..f.ty(*w).shape.len()).filter(|d| !dims.contract.1.contains(d));
    let one = free.next().filter(|_| free.next().is_none());
    let plain = !f.ty(*w).dtype.is_block() && !f.ty(*x).dtype.is_block();
    one.filter(|_| dims.batch.0.is_empty() && adds && plain)
}

/// What is above a lookup.
struct Above<'a> {
    f: &'a Function,
    folded: &'a BTreeSet<NodeId>,
    visits: usize,
    /// Whether a lookup with its indices is left.
    looks: bool,
    /// Lookups in what the function computes.
    computed: usize,
}

impl Above<'_> {
    /// One stored value at most takes the place of the one that was stored.
    fn pays(&self) -> bool {
        self.looks && self.computed <= 1
    }

    /// Whether the lookup can be made above `v`, which is where it stands if it is the `first`.
    fn passes(&mut self, v: Value, first: bool) -> bool {
        self.visits += 1;
        let node = self.f.node(v);
        match step(self.f, self.folded, v) {
            Step::Through(args) => self.visits < MOST_VISITS && args.into_iter().all(|a| self.passes(a, false)),
            Step::Beside => true,
            Step::Product(_) | Step::Row => {
                self.looks = true;
                true
            }
            Step::Here => {
                self.looks = true;
                self.computed += usize::from(!matches!(node.op, GraphOp::Parameter { .. } | GraphOp::Constant { .. }));
                !first
            }
        }
    }
}

/// How a lookup moves past the node of a value.
enum Step {
    /// To these operands.
    Through(Vec<Value>),
    /// It vanishes: nothing depends on the position, or only the position counts.
    Beside,
    /// It chooses along this axis of the right operand of a product.
    Product(usize),
    /// It chooses elements of a vector.
    Row,
    /// It does not.
    Here,
}

fn step(f: &Function, folded: &BTreeSet<NodeId>, v: Value) -> Step {
    let node = f.node(v);
    let Some((at, size)) = last(f, v) else { return Step::Here };
    // Elements of blocks are not looked up one by one.
    if node.args.iter().any(|a| f.ty(*a).dtype.is_block()) {
        return Step::Here;
    }
    match &node.op {
        GraphOp::Map { .. } => Step::Through(node.args.clone()),
        GraphOp::Reshape { .. } | GraphOp::Slice { .. } if keeps_last(f, node) => Step::Through(node.args.clone()),
        GraphOp::Broadcast { dims, .. } => match dims.iter().position(|d| *d == at) {
            None => Step::Beside,
            Some(i) if f.ty(node.args[0]).shape[i] != *size => Step::Beside,
            Some(_) if dims.len() == 1 => Step::Row,
            Some(_) => Step::Here,
        },
        GraphOp::Iota { .. } => Step::Beside,
        GraphOp::Dot { .. } if folded.contains(&v.node) => classes(f, node).map_or(Step::Here, Step::Product),
        _other => Step::Here,
    }
}

struct Lookups<'a> {
    f: &'a Function,
    folded: &'a BTreeSet<NodeId>,
    new: Rewrite<'a>,
}

impl Lookups<'_> {
    /// `v` at the positions `ids`, a new value, along its last axis; `of` is the lookup that moves.
    fn look(&mut self, v: Value, ids: Value, of: &Node) -> Result<Value, Diagnostic> {
        let (f, node) = (self.f, self.f.node(v));
        let shape = self.new.out.ty(ids).shape.clone();
        let axis = shape.len().saturating_sub(1);
        match step(f, self.folded, v) {
            Step::Through(args) => match &node.op {
                GraphOp::Map { op } => {
                    let args = args.into_iter().map(|a| self.look(a, ids, of)).collect::<Result<Vec<_>, _>>()?;
                    self.new.push(GraphOp::Map { op: op.clone() }, &args, node)
                }
                GraphOp::Slice { start, .. } => self.sliced((args[0], start), ids, (node, of)),
                _reshape => {
                    let mut wide = f.ty(args[0]).shape.clone();
                    wide.pop();
                    wide.extend(shape.last().cloned());
                    let ids = self.new.push(GraphOp::Reshape { shape: wide }, &[ids], of)?;
                    let there = self.look(args[0], ids, of)?;
                    self.new.push(GraphOp::Reshape { shape }, &[there], node)
                }
            },
            Step::Beside => match &node.op {
                GraphOp::Iota { axis: along, dtype, .. } if *along == axis => {
                    self.new.push(GraphOp::Map { op: ScalarOp::Cast { to: *dtype } }, &[ids], node)
                }
                GraphOp::Iota { axis, dtype, .. } => {
                    self.new.push(GraphOp::Iota { axis: *axis, shape, dtype: *dtype }, &[], node)
                }
                other => {
                    let dims = if let GraphOp::Broadcast { dims, .. } = other { dims.clone() } else { Vec::new() };
                    let x = self.new.at(node.args[0])?;
                    self.new.push(GraphOp::Broadcast { shape, dims }, &[x], node)
                }
            },
            Step::Product(class) => self.product(node, class, ids, of),
            Step::Row => {
                let x = self.new.at(node.args[0])?;
                self.new.push(GraphOp::Take { axis: 0 }, &[x, ids], of)
            }
            Step::Here => {
                let x = self.new.at(v)?;
                self.new.push(GraphOp::TakeAlong { axis }, &[x, ids], of)
            }
        }
    }

    /// Of a slice: what the slice leaves out is looked up at position 0, and left out again.
    fn sliced(
        &mut self,
        (x, start): (Value, &[Dim]),
        ids: Value,
        (node, of): (&Node, &Node),
    ) -> Result<Value, Diagnostic> {
        let (shape, mut wide) = (self.new.out.ty(ids).shape.clone(), self.f.ty(x).shape.clone());
        wide.pop();
        let overflow = || Diagnostic::new("dim-overflow", "a size does not fit in 64 bits");
        let mut amounts = Vec::with_capacity(shape.len());
        for ((full, from), size) in wide.iter().zip(start).zip(&shape) {
            let after = full.checked_sub(from).and_then(|rest| rest.checked_sub(size)).ok_or_else(overflow)?;
            amounts.push((from.clone(), after));
        }
        amounts.push((Dim::constant(0), Dim::constant(0)));
        let starts: Vec<Dim> = amounts.iter().map(|a| a.0.clone()).collect();
        let ends = starts.iter().zip(&shape).map(|(s, n)| s.checked_add(n)).collect::<Option<Vec<Dim>>>();
        let dtype = self.new.out.ty(ids).dtype;
        let zero = Array::new(dtype, &[], Bytes::new(vec![0; dtype.bytes(1).unwrap_or(0)]))?;
        let zero = self.new.push(GraphOp::Constant { value: zero.into() }, &[], of)?;
        let ids = self.new.push(GraphOp::Pad { amounts }, &[ids, zero], of)?;
        let there = self.look(x, ids, of)?;
        let stride = vec![1; shape.len()];
        self.new.push(GraphOp::Slice { start: starts, limit: ends.ok_or_else(overflow)?, stride }, &[there], node)
    }

    /// Of a product: `ids` choose the columns, and each row meets its own.
    fn product(&mut self, node: &Node, class: usize, ids: Value, of: &Node) -> Result<Value, Diagnostic> {
        let GraphOp::Dot { dims } = &node.op else { return Err(Diagnostic::bug("a product that is none")) };
        let (x, w) = (self.new.at(node.args[0])?, self.new.at(node.args[1])?);
        let columns = self.new.push(GraphOp::Take { axis: class }, &[w, ids], of)?;
        let rank = self.new.out.ty(ids).shape.len();
        let rows = (0..self.new.out.ty(x).shape.len()).filter(|d| !dims.contract.0.contains(d)).collect();
        let over = dims.contract.1.iter().map(|&d| if d < class { d } else { d + rank - 1 }).collect();
        let batch = (rows, (class..class + rank - 1).collect());
        let dims = DotDims { batch, contract: (dims.contract.0.clone(), over) };
        self.new.push(GraphOp::Dot { dims }, &[x, columns], node)
    }
}
