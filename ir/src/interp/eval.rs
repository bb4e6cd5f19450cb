//! The match over graph ops. Attributes lose their symbols first, so that type inference checks known sizes.

use super::frame::{Frame, Machine};
use super::value::{Data, Tensor, allowed, strides, walk};
use super::{control, dot, indexing, map, movement, reduce};
use crate::diag::Diagnostic;
use crate::infer;
use crate::op::{Dims, GraphOp, ReduceKind};
use crate::types::{Bindings, DType, Dim};

/// The results of `op` on `args`.
pub(super) fn node(
    machine: &Machine<'_>,
    frame: &Frame<'_>,
    op: &GraphOp,
    args: &[Tensor],
) -> Result<Vec<Tensor>, Diagnostic> {
    match op {
        GraphOp::Call { function } => return control::call(machine, frame, function, args),
        GraphOp::Cond { yes, no } => return control::cond(machine, frame, yes, no, args),
        GraphOp::Scan { body, carries, length } => {
            return control::scan(machine, frame, body, *carries, size(length, &frame.bindings)?, args);
        }
        GraphOp::Parameter { .. } => return Err(Diagnostic::bug("a parameter was evaluated like an op")),
        GraphOp::Size { dim } => {
            let v = dim.eval(&frame.bindings).map_err(unbound)?;
            return Ok(vec![Tensor::new(DType::I64, Vec::new(), Data::Int(vec![v]))]);
        }
        GraphOp::Constant { value } => return Ok(vec![Tensor::from_array(&value.0)?]),
        GraphOp::Iota { .. }
        | GraphOp::Map { .. }
        | GraphOp::Reduce { .. }
        | GraphOp::Argmax { .. }
        | GraphOp::Argmin { .. }
        | GraphOp::Cumsum { .. }
        | GraphOp::Dot { .. }
        | GraphOp::Broadcast { .. }
        | GraphOp::Reshape { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Slice { .. }
        | GraphOp::Pad { .. }
        | GraphOp::Concat { .. }
        | GraphOp::Flip { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. }
        | GraphOp::ScatterAdd { .. }
        | GraphOp::UpdateSlice { .. } => {}
    }
    let op = known(op, &frame.bindings)?;
    let types: Vec<_> = args.iter().map(Tensor::ty).collect();
    let result = infer::infer(machine.module, &op, &types.iter().collect::<Vec<_>>())?;
    let result = result.first().ok_or_else(|| Diagnostic::bug("an op without a result"))?;
    let shape = result.concrete(&Bindings::new()).map_err(|e| Diagnostic::new("shape-mismatch", e))?;
    if !result.dtype.is_block() {
        allowed(result.dtype, &shape)?;
    }
    if let GraphOp::Reshape { .. } = op {
        return Ok(vec![Tensor { dtype: result.dtype, shape, data: args[0].data.clone() }]);
    }
    let data = single(machine, &op, args, result.dtype, &shape)?;
    Ok(vec![Tensor::new(result.dtype, shape, data)])
}

/// The elements of the one result of an op whose operands fit.
fn single(
    machine: &Machine<'_>,
    op: &GraphOp,
    args: &[Tensor],
    dtype: DType,
    shape: &[usize],
) -> Result<Data, Diagnostic> {
    let mode = machine.mode;
    match op {
        GraphOp::Iota { axis, .. } => iota(mode, *axis, dtype, shape),
        GraphOp::Map { op } => map::map(mode, op, args, dtype),
        GraphOp::Reduce { kind, axes } => reduce::reduce(mode, *kind, axes, &args[0]),
        GraphOp::Argmax { axis } => reduce::arg(ReduceKind::Max, *axis, &args[0]),
        GraphOp::Argmin { axis } => reduce::arg(ReduceKind::Min, *axis, &args[0]),
        GraphOp::Cumsum { axis } => reduce::cumsum(mode, *axis, &args[0]),
        GraphOp::Dot { dims } => dot::dot(mode, dims, &args[0], &args[1]),
        GraphOp::Broadcast { dims, .. } => movement::broadcast(&args[0], shape, dims),
        GraphOp::Transpose { perm } => movement::transpose(&args[0], shape, perm),
        GraphOp::Slice { start, stride, .. } => movement::slice(&args[0], shape, start, stride),
        GraphOp::Pad { amounts } => movement::pad(&args[0], &args[1], shape, amounts),
        GraphOp::Concat { axis } => movement::concat(args, shape, *axis),
        GraphOp::Flip { axes } => movement::flip(&args[0], axes),
        GraphOp::Take { axis } => indexing::take(&args[0], &args[1], *axis),
        GraphOp::TakeAlong { axis } => indexing::take_along(&args[0], &args[1], *axis),
        GraphOp::ScatterAdd { axis } => indexing::scatter_add(mode, args, *axis),
        GraphOp::UpdateSlice { start } => movement::update_slice(&args[0], &args[1], start),
        GraphOp::Parameter { .. }
        | GraphOp::Constant { .. }
        | GraphOp::Size { .. }
        | GraphOp::Reshape { .. }
        | GraphOp::Call { .. }
        | GraphOp::Cond { .. }
        | GraphOp::Scan { .. } => Err(Diagnostic::bug("an op without elements of its own reached the element ops")),
    }
}

fn iota(mode: super::Mode, axis: usize, dtype: DType, shape: &[usize]) -> Result<Data, Diagnostic> {
    // Divides positions out of the row-major number of an element.
    let below = strides(shape)[axis] as usize;
    let mut positions = Vec::with_capacity(allowed(DType::I64, shape)?);
    walk(shape, &strides(shape), 0, |at| positions.push((at / below % shape[axis]) as i64));
    map::cast(mode, &Tensor::new(DType::I64, shape.to_vec(), Data::Int(positions)), dtype)
}

fn unbound(message: String) -> Diagnostic {
    Diagnostic::new("unbound-symbol", message)
}

/// A size that must not be negative.
pub(super) fn size(dim: &Dim, bindings: &Bindings) -> Result<usize, Diagnostic> {
    let v = dim.eval(bindings).map_err(unbound)?;
    usize::try_from(v).map_err(|_| Diagnostic::new("shape-mismatch", format!("the size `{dim}` is {v}")))
}

fn known_dim(dim: &Dim, bindings: &Bindings) -> Result<Dim, Diagnostic> {
    dim.eval(bindings).map(Dim::constant).map_err(unbound)
}

fn known_dims(dims: &[Dim], bindings: &Bindings) -> Result<Dims, Diagnostic> {
    dims.iter().map(|d| known_dim(d, bindings)).collect()
}

/// `op` with values instead of symbols.
fn known(op: &GraphOp, b: &Bindings) -> Result<GraphOp, Diagnostic> {
    Ok(match op {
        GraphOp::Iota { axis, shape, dtype } => {
            GraphOp::Iota { axis: *axis, shape: known_dims(shape, b)?, dtype: *dtype }
        }
        GraphOp::Broadcast { shape, dims } => GraphOp::Broadcast { shape: known_dims(shape, b)?, dims: dims.clone() },
        GraphOp::Reshape { shape } => GraphOp::Reshape { shape: known_dims(shape, b)? },
        GraphOp::Slice { start, limit, stride } => {
            GraphOp::Slice { start: known_dims(start, b)?, limit: known_dims(limit, b)?, stride: stride.clone() }
        }
        GraphOp::Pad { amounts } => {
            let known = |(l, h): &(Dim, Dim)| Ok((known_dim(l, b)?, known_dim(h, b)?));
            GraphOp::Pad { amounts: amounts.iter().map(known).collect::<Result<_, Diagnostic>>()? }
        }
        GraphOp::UpdateSlice { start } => GraphOp::UpdateSlice { start: known_dims(start, b)? },
        GraphOp::Parameter { .. }
        | GraphOp::Constant { .. }
        | GraphOp::Size { .. }
        | GraphOp::Map { .. }
        | GraphOp::Reduce { .. }
        | GraphOp::Argmax { .. }
        | GraphOp::Argmin { .. }
        | GraphOp::Cumsum { .. }
        | GraphOp::Dot { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Concat { .. }
        | GraphOp::Flip { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. }
        | GraphOp::ScatterAdd { .. }
        | GraphOp::Call { .. }
        | GraphOp::Cond { .. }
        | GraphOp::Scan { .. } => op.clone(),
    })
}
