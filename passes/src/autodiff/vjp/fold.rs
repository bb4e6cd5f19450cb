//! Reverse rules of reductions, running sums and contractions.

use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{Axes, Axis, Dims, DotDims, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Type};

/// `y = fold(x)` over `axes`.
///
/// The elements that share a largest or smallest value share its cotangent. A product's slope is the product of the other
/// elements, whatever they are, and so are its own slopes: n multiplications an element. (To divide the product by the
/// element is fewer, and wrong beside zeros, above all in second derivatives.)
pub fn reduce(
    b: &mut Build<'_>,
    kind: ReduceKind,
    axes: &Axes,
    x: Value,
    (y, ct): (Value, Value),
) -> Result<Value, Diagnostic> {
    let ty = b.ty(x);
    let each = b.unreduce(ct, &ty, axes)?;
    match kind {
        ReduceKind::Sum => Ok(each),
        ReduceKind::Max | ReduceKind::Min => {
            let top = b.unreduce(y, &ty, axes)?;
            let is_top = b.compare(ScalarOp::Eq {}, x, top)?;
            let counted = b.cast(is_top, ty.dtype)?;
            let count = b.sum(counted, axes.clone())?;
            let count = b.unreduce(count, &ty, axes)?;
            let (share, zero) = (b.div(each, count)?, b.full(&ty, 0.0)?);
            b.select(is_top, share, zero)
        }
        ReduceKind::Prod => {
            let slope = others(b, x, axes)?;
            b.mul(each, slope)
        }
    }
}

/// For each element of `x` the product of all others along `axes`: those axes once more behind the rest, with 1 in place of
/// the element itself.
fn others(b: &mut Build<'_>, x: Value, axes: &Axes) -> Result<Value, Diagnostic> {
    let Type { dtype, mut shape } = b.ty(x);
    let rank = shape.len();
    let stays: Axes = (0..rank).filter(|a| !axes.contains(a)).collect();
    let sizes: Dims = axes.iter().map(|&a| shape[a].clone()).collect();
    shape.extend(sizes);
    let last = b.transpose(x, stays.iter().chain(axes).copied().collect())?;
    let dims = stays.into_iter().chain(rank..rank + axes.len()).collect();
    let all = b.push(GraphOp::Broadcast { shape: shape.clone(), dims }, &[last])?;
    let one = b.full(&Type::new(dtype, shape.clone()), 1.0)?;
    let mut elsewhere = None;
    for (at, &axis) in axes.iter().enumerate() {
        let position = |axis| GraphOp::Iota { axis, shape: shape.clone(), dtype: DType::I64 };
        let (row, column) = (b.push(position(axis), &[])?, b.push(position(rank + at), &[])?);
        let differ = b.compare(ScalarOp::Ne {}, row, column)?;
        elsewhere = Some(match elsewhere {
            Some(before) => b.map(ScalarOp::Or {}, &[before, differ])?,
            None => differ,
        });
    }
    // Without axes there are no others.
    let kept = elsewhere.map_or(Ok(one), |mask| b.select(mask, all, one))?;
    b.fold(ReduceKind::Prod, kept, (rank..rank + axes.len()).collect())
}

/// `y = cumsum(x)`: the running sum from the other end.
pub fn cumsum(b: &mut Build<'_>, axis: Axis, ct: Value) -> Result<Value, Diagnostic> {
    let back = b.push(GraphOp::Flip { axes: vec![axis] }, &[ct])?;
    let sums = b.push(GraphOp::Cumsum { axis }, &[back])?;
    b.push(GraphOp::Flip { axes: vec![axis] }, &[sums])
}

/// Axes of `x`, in order, that a contraction neither batches nor folds.
fn free(rank: usize, batch: &[Axis], contract: &[Axis]) -> Axes {
    (0..rank).filter(|a| !batch.contains(a) && !contract.contains(a)).collect()
}

/// `y = dot(l, r)`: the cotangent of one side is the product of `ct` and the other side over the other side's free axes.
pub fn dot(
    b: &mut Build<'_>,
    dims: &DotDims,
    (l, r): (Value, Value),
    ct: Value,
    left: bool,
) -> Result<Value, Diagnostic> {
    let (x, other) = if left { (l, r) } else { (r, l) };
    let side = |pair: &(Axes, Axes), own: bool| if own == left { pair.0.clone() } else { pair.1.clone() };
    let (own_batch, own_folded) = (side(&dims.batch, true), side(&dims.contract, true));
    let (batch, folded) = (side(&dims.batch, false), side(&dims.contract, false));
    let own_free = free(b.f.ty(x).rank(), &own_batch, &own_folded);
    let other_free = free(b.f.ty(other).rank(), &batch, &folded);
    // Axes of ct: batch, free of the left, free of the right.
    let n = own_batch.len();
    let (start, end) =
        if left { (n + own_free.len(), n + own_free.len() + other_free.len()) } else { (n, n + other_free.len()) };
    let ct_axes = ((0..n).collect::<Axes>(), (start..end).collect::<Axes>());
    // The folded axes come out in the order in which the other side has them.
    let mut order: Vec<(Axis, Axis)> = folded.iter().copied().zip(own_folded).collect();
    order.sort_unstable();
    let back = order.into_iter().map(|(_, own)| own);
    // In the order of the operands, so that products of matrices need no transpose.
    let (result, made): (Value, Vec<Axis>) = if left {
        let product = DotDims { batch: (ct_axes.0, batch), contract: (ct_axes.1, other_free) };
        (
            b.push(GraphOp::Dot { dims: product }, &[ct, other])?,
            own_batch.into_iter().chain(own_free).chain(back).collect(),
        )
    } else {
        let product = DotDims { batch: (batch, ct_axes.0), contract: (other_free, ct_axes.1) };
        (
            b.push(GraphOp::Dot { dims: product }, &[other, ct])?,
            own_batch.into_iter().chain(back).chain(own_free).collect(),
        )
    };
    let mut perm = vec![0; made.len()];
    for (at, own) in made.into_iter().enumerate() {
        perm[own] = at;
    }
    b.transpose(result, perm)
}
