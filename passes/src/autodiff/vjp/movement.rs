//! Reverse rules of movement: what an op copies is summed, what it drops is zero.

use crate::build::{Build, overflow};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{Axes, Axis, Dims, GraphOp, PadAmounts};
use tilewright_ir::types::Dim;

/// `y = broadcast(x)`: the sum over the axes that are new or were stretched.
pub fn broadcast(b: &mut Build<'_>, shape: &Dims, dims: &Axes, x: Value, ct: Value) -> Result<Value, Diagnostic> {
    let ty = b.ty(x);
    let kept = |axis: &Axis| dims.iter().position(|d| d == axis).is_some_and(|i| ty.shape[i] == shape[*axis]);
    let axes: Axes = (0..shape.len()).filter(|axis| !kept(axis)).collect();
    let sums = b.sum(ct, axes)?;
    b.reshape(sums, ty.shape)
}

/// `y = transpose(x)`.
pub fn transpose(b: &mut Build<'_>, perm: &Axes, ct: Value) -> Result<Value, Diagnostic> {
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    b.transpose(ct, inverse)
}

/// `y = slice(x)`: zeros where nothing was taken.
pub fn slice(
    b: &mut Build<'_>,
    (start, limit, stride): (&Dims, &Dims, &[i64]),
    x: Value,
    ct: Value,
) -> Result<Value, Diagnostic> {
    let (mut out, shape) = (ct, b.ty(x).shape);
    for axis in 0..shape.len() {
        let step = stride[axis];
        let after = shape[axis].checked_sub(&start[axis]).ok_or_else(overflow)?;
        if step == 1 {
            let rest = shape[axis].checked_sub(&limit[axis]).ok_or_else(overflow)?;
            out = b.pad_zero(out, axis, start[axis].clone(), rest)?;
            continue;
        }
        // Each element becomes `step` elements, the first is itself. The last group may end behind the end of x by at most
        // `step - 1`, so as many more zeros are appended before the end is cut off.
        let mut groups = b.ty(out).shape;
        let count = groups[axis].clone();
        groups.insert(axis + 1, Dim::constant(1));
        out = b.reshape(out, groups.clone())?;
        out = b.pad_zero(out, axis + 1, Dim::constant(0), Dim::constant(step - 1))?;
        groups.remove(axis + 1);
        groups[axis] = count.checked_mul(&Dim::constant(step)).ok_or_else(overflow)?;
        out = b.reshape(out, groups.clone())?;
        let more = after.checked_sub(&groups[axis]).and_then(|d| d.checked_add(&Dim::constant(step - 1)));
        out = b.pad_zero(out, axis, Dim::constant(0), more.ok_or_else(overflow)?)?;
        groups[axis] = after;
        let zeros = vec![Dim::constant(0); groups.len()];
        out = b.slice(out, zeros, groups)?;
        out = b.pad_zero(out, axis, start[axis].clone(), Dim::constant(0))?;
    }
    Ok(out)
}

/// `y = pad(x, fill)`: the inside for x, the sum of the outside for the fill.
pub fn pad(
    b: &mut Build<'_>,
    amounts: &PadAmounts,
    (x, ct): (Value, Value),
    want: &[bool],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let shape = b.ty(x).shape;
    let mut out = vec![None, None];
    if want[0] {
        let start: Dims = amounts.iter().map(|(low, _)| low.clone()).collect();
        let limit = start.iter().zip(&shape).map(|(s, n)| s.checked_add(n)).collect::<Option<Dims>>();
        out[0] = Some(b.slice(ct, start, limit.ok_or_else(overflow)?)?);
    }
    if want[1] {
        let (yes, no) = (Array::from_bool(&[], &[true])?, Array::from_bool(&[], &[false])?);
        let (yes, no) = (b.literal(yes)?, b.literal(no)?);
        let inside = b.spread(yes, &shape)?;
        let inside = b.push(GraphOp::Pad { amounts: amounts.clone() }, &[inside, no])?;
        let zero = b.full(&b.ty(ct), 0.0)?;
        let outside = b.select(inside, zero, ct)?;
        out[1] = Some(b.sum(outside, (0..shape.len()).collect())?);
    }
    Ok(out)
}

/// `y = concat(xs)`: each its part.
pub fn concat(
    b: &mut Build<'_>,
    axis: Axis,
    xs: &[Value],
    ct: Value,
    want: &[bool],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let whole = b.ty(ct).shape;
    let (mut at, mut out) = (Dim::constant(0), Vec::with_capacity(xs.len()));
    for (x, want) in xs.iter().zip(want) {
        let end = at.checked_add(&b.f.ty(*x).shape[axis]).ok_or_else(overflow)?;
        let (mut start, mut limit) = (vec![Dim::constant(0); whole.len()], whole.clone());
        (start[axis], limit[axis]) = (at, end.clone());
        out.push(if *want { Some(b.slice(ct, start, limit)?) } else { None });
        at = end;
    }
    Ok(out)
}

/// `y = update_slice(x, update)`: zero where x was replaced, and the box for the update.
pub fn update_slice(
    b: &mut Build<'_>,
    start: &Dims,
    update: Value,
    ct: Value,
    want: &[bool],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let ty = b.ty(update);
    let mut out = vec![None, None];
    if want[0] {
        let zeros = b.full(&ty, 0.0)?;
        out[0] = Some(b.push(GraphOp::UpdateSlice { start: start.clone() }, &[ct, zeros])?);
    }
    if want[1] {
        let limit = start.iter().zip(&ty.shape).map(|(s, n)| s.checked_add(n)).collect::<Option<Dims>>();
        out[1] = Some(b.slice(ct, start.clone(), limit.ok_or_else(overflow)?)?);
    }
    Ok(out)
}

/// `y = take(x, ids)`: each row is added where it came from.
pub fn take(b: &mut Build<'_>, axis: Axis, (x, ids): (Value, Value), ct: Value) -> Result<Value, Diagnostic> {
    let (ty, ids_ty) = (b.ty(x), b.ty(ids));
    let count = ids_ty.elements().ok_or_else(overflow)?;
    let mut shape = ty.shape.clone();
    shape[axis] = count.clone();
    let source = b.reshape(ct, shape.clone())?;
    let line = b.reshape(ids, vec![count])?;
    let ids = b.broadcast(line, shape, vec![axis])?;
    let zeros = b.full(&ty, 0.0)?;
    b.push(GraphOp::ScatterAdd { axis }, &[zeros, ids, source])
}

/// `y = take_along(x, ids)`.
pub fn take_along(b: &mut Build<'_>, axis: Axis, (x, ids): (Value, Value), ct: Value) -> Result<Value, Diagnostic> {
    let zeros = b.full(&b.ty(x), 0.0)?;
    b.push(GraphOp::ScatterAdd { axis }, &[zeros, ids, ct])
}
