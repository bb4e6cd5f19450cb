//! Phase one of the import: axis variables, unions and splits, one node after the other.

use super::axes::{Coalescer, Var};
use super::{Refusal, is_stored};
use crate::agree::is_identity;
use std::collections::BTreeMap;
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::{DotDims, GraphOp};
use tilewright_ir::types::Dim;

/// How a slice or flip reads one dim of its operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// All of it.
    Whole,
    /// The atoms of `fixed` at position `at`; they are the minor ones or the major ones.
    Fixed { fixed: Var, at: i64, minor: bool },
    /// start + stride * position.
    Affine { start: i64, stride: i64 },
}

/// What phase one decided about a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Planned {
    /// Axis variables of each result.
    pub dims: Vec<Vec<Var>>,
    /// `dot`: dims of the right operand as they are read. `concat` of equal parts: the axes (part, position).
    pub target: Vec<Var>,
    /// Per dim of a slice or flip.
    pub cuts: Vec<Cut>,
}

pub(super) struct Planner<'a> {
    pub function: &'a Function,
    pub axes: Coalescer,
    pub plans: Vec<Planned>,
    pub barriers: &'a BTreeMap<NodeId, String>,
}

/// Why a node has no index form whatever its operands are.
pub(super) fn refusal(f: &Function, node: &Node) -> Option<&'static str> {
    match &node.op {
        GraphOp::Reshape { .. } if is_identity(f, node) => Some("what agrees with itself is computed once"),
        GraphOp::Take { .. } if node.types.iter().any(|t| t.dtype.is_block()) => None,
        // A sum over one hot position would be a form, but reads nothing, not an error, for an index outside.
        GraphOp::Take { .. } | GraphOp::TakeAlong { .. } => Some("its indices are checked where they are read"),
        GraphOp::Argmax { .. } | GraphOp::Argmin { .. } => Some("positions of extremes have no term"),
        GraphOp::Cumsum { .. } => Some("running sums have no term"),
        GraphOp::ScatterAdd { .. } | GraphOp::UpdateSlice { .. } => Some("writes at places have no term"),
        GraphOp::Call { .. } | GraphOp::Cond { .. } | GraphOp::Scan { .. } => {
            Some("functions are compiled on their own")
        }
        GraphOp::Parameter { .. }
        | GraphOp::Constant { .. }
        | GraphOp::Iota { .. }
        | GraphOp::Size { .. }
        | GraphOp::Map { .. }
        | GraphOp::Reduce { .. }
        | GraphOp::Dot { .. }
        | GraphOp::Broadcast { .. }
        | GraphOp::Reshape { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Slice { .. }
        | GraphOp::Pad { .. }
        | GraphOp::Concat { .. }
        | GraphOp::Flip { .. } => None,
    }
}

impl Planner<'_> {
    fn dims(&self, value: Value) -> Vec<Var> {
        self.plans[value.node.index()].dims.get(value.index as usize).cloned().unwrap_or_default()
    }

    fn fresh(&mut self, shape: &[Dim]) -> Vec<Var> {
        shape.iter().map(|d| self.axes.fresh(d)).collect()
    }

    /// Plans node `id`. `Err` says why it has no index form.
    pub fn node(&mut self, id: NodeId, node: &Node) -> Result<(), Refusal> {
        let refuse = |why: &str| Refusal { node: id, why: why.into() };
        let planned = if self.barriers.contains_key(&id) {
            Planned { dims: node.types.iter().map(|t| self.fresh(&t.shape)).collect(), ..Planned::default() }
        } else {
            self.plan(node).map_err(refuse)?
        };
        for dims in &planned.dims {
            if !self.axes.space(dims) {
                return Err(refuse("one axis would stand for two dims of a value"));
            }
        }
        self.plans[id.index()] = planned;
        Ok(())
    }

    fn unify_all(&mut self, from: &[Var], to: &[Var]) -> Result<(), &'static str> {
        let fits = from.iter().zip(to).all(|(&a, &b)| self.axes.unify(a, b));
        if fits { Ok(()) } else { Err("dims are split in two ways that do not factor") }
    }

    #[allow(clippy::too_many_lines, reason = "one arm per op")]
    fn plan(&mut self, node: &Node) -> Result<Planned, &'static str> {
        let shape = node.types.first().map(|t| t.shape.clone()).unwrap_or_default();
        let operand = |p: &Self, i: usize| node.args.get(i).map(|&v| p.dims(v)).unwrap_or_default();
        let mut planned = Planned::default();
        let dims = match &node.op {
            GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => {
                self.fresh(&shape)
            }
            GraphOp::Map { .. } => {
                let first = operand(self, 0);
                self.axes.space(&first);
                for i in 1..node.args.len() {
                    let other = operand(self, i);
                    self.unify_all(&other, &first)?;
                }
                first
            }
            GraphOp::Reduce { axes, .. } => {
                let x = operand(self, 0);
                (0..x.len()).filter(|i| !axes.contains(i)).map(|i| x[i]).collect()
            }
            GraphOp::Dot { dims } => {
                let (out, right) = self.dot(dims, &operand(self, 0), operand(self, 1))?;
                planned.target = right;
                out
            }
            GraphOp::Broadcast { dims, .. } => {
                let x = operand(self, 0);
                let mut out = Vec::new();
                for (axis, size) in shape.iter().enumerate() {
                    let from = dims.iter().position(|&d| d == axis).map(|i| x[i]);
                    out.push(match from.filter(|&v| self.axes.dim(v) == size) {
                        Some(var) => var,
                        None => self.axes.fresh(size),
                    });
                }
                out
            }
            GraphOp::Reshape { .. } => self.reshape(&operand(self, 0), &shape)?,
            GraphOp::Transpose { perm } => {
                let x = operand(self, 0);
                perm.iter().map(|&p| x[p]).collect()
            }
            GraphOp::Slice { start, stride, .. } => {
                let x = operand(self, 0);
                let mut out = Vec::new();
                for i in 0..x.len() {
                    let (cut, var) = self.cut(x[i], &start[i], stride[i], &shape[i])?;
                    planned.cuts.push(cut);
                    out.push(var);
                }
                out
            }
            GraphOp::Flip { axes } => self.flip(operand(self, 0), axes, &shape, &mut planned)?,
            GraphOp::Pad { amounts } => {
                let mut out = operand(self, 0);
                for (i, (before, after)) in amounts.iter().enumerate() {
                    if !before.is(0) || !after.is(0) {
                        out[i] = self.axes.fresh(&shape[i]);
                    }
                }
                out
            }
            GraphOp::Concat { axis } => self.concat(node, *axis, &shape, &mut planned)?,
            // Of encoded blocks: other gathers are barriers.
            GraphOp::Take { axis } => {
                let (x, ids) = (operand(self, 0), operand(self, 1));
                let table = node.args.first().ok_or("has no table")?;
                if !is_stored(self.function.node(*table)) && !self.barriers.contains_key(&table.node) {
                    return Err("takes from a computed value");
                }
                let mut out = x[..*axis].to_vec();
                out.extend(ids);
                out.extend(&x[axis + 1..]);
                out
            }
            GraphOp::TakeAlong { .. }
            | GraphOp::Argmax { .. }
            | GraphOp::Argmin { .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::ScatterAdd { .. }
            | GraphOp::UpdateSlice { .. }
            | GraphOp::Call { .. }
            | GraphOp::Cond { .. }
            | GraphOp::Scan { .. } => return Err("has no term"),
        };
        planned.dims = vec![dims];
        Ok(planned)
    }

    /// Result dims and the right operand's dims as read.
    fn dot(&mut self, dims: &DotDims, left: &[Var], mut right: Vec<Var>) -> Result<(Vec<Var>, Vec<Var>), &'static str> {
        let pairs = |p: &(Vec<usize>, Vec<usize>)| p.0.iter().copied().zip(p.1.iter().copied()).collect::<Vec<_>>();
        let (batch, over) = (pairs(&dims.batch), pairs(&dims.contract));
        let both: Vec<(usize, usize)> = batch.iter().chain(&over).copied().collect();
        self.axes.space(left);
        for &(l, r) in &both {
            self.unify_all(&[right[r]], &[left[l]])?;
            right[r] = left[l];
        }
        let mut space = left.to_vec();
        let mut out: Vec<Var> = batch.iter().map(|&(l, _)| left[l]).collect();
        out.extend((0..left.len()).filter(|l| !both.iter().any(|b| b.0 == *l)).map(|l| left[l]));
        for r in (0..right.len()).filter(|r| !both.iter().any(|b| b.1 == *r)) {
            let taken = self.axes.all(&space);
            if self.axes.leaves(right[r]).iter().any(|x| taken.contains(x)) {
                right[r] = self.axes.mirror(right[r]);
            }
            space.push(right[r]);
            out.push(right[r]);
        }
        if !self.axes.space(&space) {
            return Err("one axis would stand for two dims of a product");
        }
        Ok((out, right))
    }

    fn reshape(&mut self, from: &[Var], shape: &[Dim]) -> Result<Vec<Var>, &'static str> {
        let uneven = "the sizes do not factor";
        let mut left = self.axes.all(from);
        let mut out = Vec::new();
        for size in shape.iter().rev() {
            let (mut need, mut mine) = (size.clone(), Vec::new());
            while !need.is(1) {
                let leaf = left.pop().ok_or(uneven)?;
                let have = self.axes.dim(leaf).clone();
                if let Some(rest) = need.div_exact(&have) {
                    mine.push(leaf);
                    need = rest;
                } else if let Some((major, minor)) = self.axes.split(leaf, &need) {
                    left.push(major);
                    mine.push(minor);
                    need = Dim::constant(1);
                } else {
                    return Err(uneven);
                }
            }
            mine.reverse();
            out.push(match mine.as_slice() {
                [one] => *one,
                _ => self.axes.merged(size, mine),
            });
        }
        out.reverse();
        if left.is_empty() { Ok(out) } else { Err(uneven) }
    }

    fn cut(&mut self, from: Var, start: &Dim, stride: i64, length: &Dim) -> Result<(Cut, Var), &'static str> {
        let full = self.axes.dim(from).clone();
        if full == *length && stride == 1 {
            return Ok((Cut::Whole, from));
        }
        let blocks = full.div_exact(length).filter(|_| stride == 1 && !length.is(0));
        let block = start.div_exact(length).and_then(|b| b.as_const()).filter(|b| *b >= 0);
        if let (Some(blocks), Some(at)) = (blocks, block) {
            let (fixed, kept) = (self.axes.fresh(&blocks), self.axes.fresh(length));
            let whole = self.axes.merged(&full, vec![fixed, kept]);
            self.unify_all(&[from], &[whole])?;
            return Ok((Cut::Fixed { fixed, at, minor: false }, kept));
        }
        let start = start.as_const().ok_or("starts at a symbolic place")?;
        let step = Dim::constant(stride);
        if stride > 1 && start < stride && full.div_exact(&step).is_some_and(|n| n == *length) {
            let (kept, fixed) = (self.axes.fresh(length), self.axes.fresh(&step));
            let whole = self.axes.merged(&full, vec![kept, fixed]);
            self.unify_all(&[from], &[whole])?;
            return Ok((Cut::Fixed { fixed, at: start, minor: true }, kept));
        }
        Ok((Cut::Affine { start, stride }, self.axes.fresh(length)))
    }

    fn flip(
        &mut self,
        mut x: Vec<Var>,
        axes: &[usize],
        shape: &[Dim],
        out: &mut Planned,
    ) -> Result<Vec<Var>, &'static str> {
        for (i, size) in shape.iter().enumerate() {
            if !axes.contains(&i) || size.is(1) {
                out.cuts.push(Cut::Whole);
                continue;
            }
            let last = size.as_const().and_then(|n| n.checked_sub(1)).ok_or("flips a symbolic size")?;
            out.cuts.push(Cut::Affine { start: last, stride: -1 });
            x[i] = self.axes.fresh(size);
        }
        Ok(x)
    }

    fn concat(&mut self, node: &Node, axis: usize, shape: &[Dim], out: &mut Planned) -> Result<Vec<Var>, &'static str> {
        let parts: Vec<Vec<Var>> = node.args.iter().map(|&v| self.dims(v)).collect();
        let mut dims = parts.first().cloned().ok_or("joins nothing")?;
        let equal = parts.iter().all(|p| self.axes.dim(p[axis]) == self.axes.dim(dims[axis]));
        self.axes.space(&dims);
        for part in &parts[1..] {
            for i in (0..dims.len()).filter(|i| *i != axis || equal) {
                self.unify_all(&[part[i]], &[dims[i]])?;
            }
        }
        let whole = &shape[axis];
        if equal {
            let part = self.axes.fresh(&Dim::from(parts.len()));
            out.target = vec![part, dims[axis]];
            dims[axis] = self.axes.merged(whole, out.target.clone());
        } else {
            dims[axis] = self.axes.fresh(whole);
        }
        Ok(dims)
    }
}
