//! A slice of a product that nobody else reads is a product of slices: the last token's logits are one row.
//!
//! before: `%1 = dot %x, %w`, `%2 = add %1, %b`, `%3 = slice %2`      after: slices of `%x`, `%w`, `%b` first
//! keeps: types, places, values bit for bit.    cost: O(nodes), and a visit of what is above each slice.

use super::rewrite::{Rewrite, uses};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Dim;

/// Most values above a slice that it moves past.
const MOST_VISITS: usize = 64;

/// Positions along an axis: from, to, and every how many.
type Range = (Dim, Dim, i64);

/// `f` with its slices moved, or `None` if none moves.
pub(super) fn moved(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    let is_slice = |n: &Node| matches!(n.op, GraphOp::Slice { .. });
    if !f.nodes.iter().any(is_slice) || !f.nodes.iter().any(|n| matches!(n.op, GraphOp::Dot { .. })) {
        return Ok(None);
    }
    let uses = uses(f);
    let moves =
        |n: &Node| is_slice(n) && n.args.first().is_some_and(|&x| finds_product(f, &uses, x, &mut 0)) && narrows(f, n);
    let moving: Vec<bool> = f.nodes.iter().map(moves).collect();
    if !moving.contains(&true) {
        return Ok(None);
    }
    let mut slices = Slices { f, uses: &uses, new: Rewrite::of(module, f) };
    for (node, moves) in f.nodes.iter().zip(moving) {
        let new = match &node.op {
            GraphOp::Slice { start, limit, stride } if moves => {
                let ranges = start.iter().zip(limit).zip(stride).map(|((s, l), d)| (s.clone(), l.clone(), *d));
                slices.part(node.args[0], &ranges.collect::<Vec<Range>>(), node)?.node
            }
            _other => {
                let args = slices.new.operands(node)?;
                slices.new.copy(node, args)?
            }
        };
        slices.new.became(new);
    }
    slices.new.finish(f).map(Some)
}

/// Whether a slice leaves something out.
fn narrows(f: &Function, node: &Node) -> bool {
    node.types.first().is_some_and(|ty| ty.shape != f.ty(node.args[0]).shape)
}

/// Whether a slice of `v` can be made of slices of the operands of products.
fn finds_product(f: &Function, uses: &[usize], v: Value, visits: &mut usize) -> bool {
    *visits += 1;
    let node = f.node(v);
    if uses[v.node.index()] > 1 || *visits > MOST_VISITS {
        return false;
    }
    match &node.op {
        // Encoded values are read whole.
        GraphOp::Dot { .. } => node.args.iter().all(|&a| {
            let from = f.node(a).args.iter().map(|&b| f.ty(b).dtype);
            !f.ty(a).dtype.is_block() && !from.into_iter().any(|dtype| dtype.is_block())
        }),
        GraphOp::Map { .. } => node.args.iter().any(|&a| finds_product(f, uses, a, visits)),
        _other => false,
    }
}

struct Slices<'a> {
    f: &'a Function,
    uses: &'a [usize],
    new: Rewrite<'a>,
}

impl Slices<'_> {
    /// The `ranges` of `v`; `of` is the slice that moves.
    fn part(&mut self, v: Value, ranges: &[Range], of: &Node) -> Result<Value, Diagnostic> {
        let (f, node) = (self.f, self.f.node(v));
        let alone = self.uses[v.node.index()] == 1;
        match &node.op {
            GraphOp::Map { op } if alone => {
                let args = node.args.iter().map(|&a| self.part(a, ranges, of)).collect::<Result<Vec<_>, _>>()?;
                self.new.push(GraphOp::Map { op: op.clone() }, &args, node)
            }
            GraphOp::Broadcast { dims, .. } => {
                let shape = &f.ty(node.args[0]).shape;
                let own = |(&d, n): (&usize, &Dim)| if *n == f.ty(v).shape[d] { ranges[d].clone() } else { whole(n) };
                let own: Vec<Range> = dims.iter().zip(shape).map(own).collect();
                let x = self.new.at(node.args[0])?;
                let x = self.sliced(x, &own, of)?;
                let shape = self.size(f.ty(v).shape.as_slice(), ranges)?;
                self.new.push(GraphOp::Broadcast { shape, dims: dims.clone() }, &[x], node)
            }
            GraphOp::Dot { dims } if alone => {
                let (x, w) = (node.args[0], node.args[1]);
                let mut sides = [x, w].map(|v| f.ty(v).shape.iter().map(whole).collect::<Vec<Range>>());
                let free = |side: usize, batch: &[usize], over: &[usize]| -> Vec<usize> {
                    (0..sides[side].len()).filter(|d| !batch.contains(d) && !over.contains(d)).collect()
                };
                let left = free(0, &dims.batch.0, &dims.contract.0);
                let right = free(1, &dims.batch.1, &dims.contract.1);
                let (shared, own) = ranges.split_at(dims.batch.0.len());
                for ((&l, &r), range) in dims.batch.0.iter().zip(&dims.batch.1).zip(shared) {
                    sides[0][l] = range.clone();
                    sides[1][r] = range.clone();
                }
                let places = left.into_iter().map(|d| (0, d)).chain(right.into_iter().map(|d| (1, d)));
                places.zip(own).for_each(|((side, d), range)| sides[side][d] = range.clone());
                let (x, w) = (self.new.at(x)?, self.new.at(w)?);
                let args = [self.sliced(x, &sides[0], of)?, self.sliced(w, &sides[1], of)?];
                self.new.push(GraphOp::Dot { dims: dims.clone() }, &args, node)
            }
            _other => {
                let x = self.new.at(v)?;
                self.sliced(x, ranges, of)
            }
        }
    }

    /// Sizes of a slice of a value of this shape.
    fn size(&mut self, shape: &[Dim], ranges: &[Range]) -> Result<Vec<Dim>, Diagnostic> {
        let ty = tilewright_ir::types::Type { dtype: tilewright_ir::types::DType::F32, shape: shape.to_vec() };
        let types = tilewright_ir::infer::infer(self.new.module(), &slice(ranges), &[&ty])?;
        Ok(types.into_iter().next().map(|t| t.shape).unwrap_or_default())
    }

    /// A slice of a new value, if it leaves something out.
    fn sliced(&mut self, x: Value, ranges: &[Range], of: &Node) -> Result<Value, Diagnostic> {
        let all = self.new.out.ty(x).shape.iter().map(whole).eq(ranges.iter().cloned());
        if all { Ok(x) } else { self.new.push(slice(ranges), &[x], of) }
    }
}

/// All positions of an axis.
fn whole(size: &Dim) -> Range {
    (Dim::constant(0), size.clone(), 1)
}

fn slice(ranges: &[Range]) -> GraphOp {
    GraphOp::Slice {
        start: ranges.iter().map(|r| r.0.clone()).collect(),
        limit: ranges.iter().map(|r| r.1.clone()).collect(),
        stride: ranges.iter().map(|r| r.2).collect(),
    }
}
