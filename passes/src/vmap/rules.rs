//! What each graph op becomes for many examples, where some operand is batched. This file is the match.

use super::control::{self, Batched};
use super::{Each, plain, spread, to_front};
use crate::build::Build;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{Axes, Axis, Dims, DotDims, GraphOp, PadAmounts};
use tilewright_ir::types::{Dim, Type};

/// The results of `op` for all examples; some operand in `x` is batched.
pub(super) fn batch(
    b: &mut Build<'_>,
    batched: &mut Batched,
    op: &GraphOp,
    x: &[Each],
    size: &Dim,
) -> Result<Vec<Each>, Diagnostic> {
    // Of the only operand, or of the first.
    let first = x.first().map(|x| x.value).ok_or_else(|| Diagnostic::bug("nothing is batched"))?;
    let one = |value: Value| Ok(vec![Each { value, batched: true }]);
    let behind = |axes: &Axes| axes.iter().map(|a| a + 1).collect::<Axes>();
    let with = |first: Dim, rest: &Dims| [first].into_iter().chain(rest.iter().cloned()).collect::<Dims>();
    match op {
        GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => {
            Err(Diagnostic::bug("an op without operands has none that is batched"))
        }
        GraphOp::Map { .. } => one(all(b, op.clone(), x, size)?),
        GraphOp::Reduce { kind, axes } => one(b.push(GraphOp::Reduce { kind: *kind, axes: behind(axes) }, &[first])?),
        GraphOp::Argmax { axis } => one(b.push(GraphOp::Argmax { axis: axis + 1 }, &[first])?),
        GraphOp::Argmin { axis } => one(b.push(GraphOp::Argmin { axis: axis + 1 }, &[first])?),
        GraphOp::Cumsum { axis } => one(b.push(GraphOp::Cumsum { axis: axis + 1 }, &[first])?),
        GraphOp::Dot { dims } => one(dot(b, dims, (x[0], x[1]))?),
        GraphOp::Broadcast { shape, dims } => {
            let dims = [0].into_iter().chain(behind(dims)).collect();
            one(b.push(GraphOp::Broadcast { shape: with(size.clone(), shape), dims }, &[first])?)
        }
        GraphOp::Reshape { shape } => one(b.push(GraphOp::Reshape { shape: with(size.clone(), shape) }, &[first])?),
        GraphOp::Transpose { perm } => {
            let perm = [0].into_iter().chain(behind(perm)).collect();
            one(b.push(GraphOp::Transpose { perm }, &[first])?)
        }
        GraphOp::Slice { start, limit, stride } => {
            let (start, limit) = (with(Dim::constant(0), start), with(size.clone(), limit));
            let stride = [1].into_iter().chain(stride.iter().copied()).collect();
            one(b.push(GraphOp::Slice { start, limit, stride }, &[first])?)
        }
        GraphOp::Pad { amounts } => one(pad(b, amounts, (x[0], x[1]), size)?),
        GraphOp::Concat { axis } => one(all(b, GraphOp::Concat { axis: axis + 1 }, x, size)?),
        GraphOp::Flip { axes } => one(b.push(GraphOp::Flip { axes: behind(axes) }, &[first])?),
        GraphOp::Take { axis } => one(take(b, *axis, (x[0], x[1]), size)?),
        GraphOp::TakeAlong { axis } => one(all(b, GraphOp::TakeAlong { axis: axis + 1 }, x, size)?),
        GraphOp::ScatterAdd { axis } => one(all(b, GraphOp::ScatterAdd { axis: axis + 1 }, x, size)?),
        GraphOp::UpdateSlice { start } => {
            one(all(b, GraphOp::UpdateSlice { start: with(Dim::constant(0), start) }, x, size)?)
        }
        GraphOp::Call { function } => control::call(b, batched, function, x),
        GraphOp::Cond { yes, no } => control::cond(b, batched, (yes, no), x, size),
        GraphOp::Scan { body, carries, length } => control::scan(b, batched, (body, *carries, length), x, size),
    }
}

/// `op` of operands that all have the new axis.
fn all(b: &mut Build<'_>, op: GraphOp, x: &[Each], size: &Dim) -> Result<Value, Diagnostic> {
    let args = x.iter().map(|&x| spread(b, x, size)).collect::<Result<Vec<Value>, Diagnostic>>()?;
    b.push(op, &args)
}

/// A batch axis of the contraction where both sides are batched, else a free axis of the one that is.
fn dot(b: &mut Build<'_>, dims: &DotDims, (l, r): (Each, Each)) -> Result<Value, Diagnostic> {
    let moved = |axes: &Axes, by: bool| axes.iter().map(|a| a + usize::from(by)).collect::<Axes>();
    let pair = |pair: &(Axes, Axes)| (moved(&pair.0, l.batched), moved(&pair.1, r.batched));
    let mut dims = DotDims { batch: pair(&dims.batch), contract: pair(&dims.contract) };
    let n = dims.batch.0.len();
    if l.batched && r.batched {
        dims.batch.0.insert(0, 0);
        dims.batch.1.insert(0, 0);
    }
    let free_left = b.f.ty(l.value).rank() - n - dims.contract.0.len();
    let product = b.push(GraphOp::Dot { dims }, &[l.value, r.value])?;
    // The result has batch axes, free axes of the left, free axes of the right, each in order.
    match (l.batched, r.batched) {
        (true, true) => Ok(product),
        (true, false) => to_front(b, product, n),
        (false, _) => to_front(b, product, n + free_left),
    }
}

/// The scalar to fill with may differ between examples: it is selected where nothing of x is.
fn pad(b: &mut Build<'_>, amounts: &PadAmounts, (x, fill): (Each, Each), size: &Dim) -> Result<Value, Diagnostic> {
    let none = (Dim::constant(0), Dim::constant(0));
    let op = GraphOp::Pad { amounts: [none].into_iter().chain(amounts.iter().cloned()).collect() };
    let x = spread(b, x, size)?;
    if !fill.batched {
        return b.push(op, &[x, fill.value]);
    }
    let shape = b.ty(x).shape;
    let (yes, no) = (Array::from_bool(&[], &[true])?, Array::from_bool(&[], &[false])?);
    let (yes, no) = (b.literal(yes)?, b.literal(no)?);
    let inside = b.spread(yes, &shape)?;
    let inside = b.push(op.clone(), &[inside, no])?;
    let zero = b.zero(&Type::scalar(b.ty(fill.value).dtype))?;
    let padded = b.push(op, &[x, zero])?;
    let shape = b.ty(padded).shape;
    let fill = b.broadcast(fill.value, shape, vec![0])?;
    b.select(inside, padded, fill)
}

/// Where x and ids are batched it is a `take_along`, which refuses the same ids: each example looks into its own x.
fn take(b: &mut Build<'_>, axis: Axis, (x, ids): (Each, Each), size: &Dim) -> Result<Value, Diagnostic> {
    if !ids.batched {
        return b.push(GraphOp::Take { axis: axis + 1 }, &[x.value, ids.value]);
    }
    if !x.batched {
        let taken = b.push(GraphOp::Take { axis }, &[x.value, ids.value])?;
        return to_front(b, taken, axis);
    }
    let (x_shape, ids_shape) = (b.ty(x.value).shape, b.ty(ids.value).shape);
    let each =
        ids_shape[1..].iter().try_fold(Dim::constant(1), |n, d| n.checked_mul(d)).ok_or_else(crate::build::overflow)?;
    let line = b.reshape(ids.value, vec![size.clone(), each.clone()])?;
    let mut along = x_shape.clone();
    along[axis + 1] = each;
    let line = b.broadcast(line, along, vec![0, axis + 1])?;
    let x = plain(b, x.value)?;
    let taken = b.push(GraphOp::TakeAlong { axis: axis + 1 }, &[x, line])?;
    let shape = [&x_shape[..=axis], &ids_shape[1..], &x_shape[axis + 2..]].concat();
    b.reshape(taken, shape)
}
