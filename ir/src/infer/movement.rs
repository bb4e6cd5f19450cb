//! Types of movement ops.

use super::{axis_of, one, plain, shapes_differ};
use crate::diag::Diagnostic;
use crate::op::{Axes, Axis, PadAmounts};
use crate::types::{Dim, Type};

fn bad(message: String) -> Diagnostic {
    Diagnostic::new("bad-attribute", message)
}

pub(super) fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "a size does not fit in 64 bits")
}

pub(super) fn broadcast(x: &Type, shape: &[Dim], dims: &Axes) -> Result<Vec<Type>, Diagnostic> {
    plain("broadcast", x.dtype)?;
    if dims.len() != x.rank() || dims.windows(2).any(|w| w[0] >= w[1]) || dims.iter().any(|&d| d >= shape.len()) {
        let rank = shape.len();
        return Err(bad(format!("`broadcast` of {x} needs {} increasing axes below {rank}, found {dims:?}", x.rank())));
    }
    let out = Type { dtype: x.dtype, shape: shape.to_vec() };
    for (i, &d) in dims.iter().enumerate() {
        if x.shape[i] != shape[d] && !x.shape[i].is(1) {
            return Err(shapes_differ("broadcast", x, &out, Some((i, d))));
        }
    }
    one(out)
}

pub(super) fn reshape(x: &Type, shape: &[Dim]) -> Result<Vec<Type>, Diagnostic> {
    plain("reshape", x.dtype)?;
    let out = Type { dtype: x.dtype, shape: shape.to_vec() };
    let (a, b) = (x.elements().ok_or_else(overflow)?, out.elements().ok_or_else(overflow)?);
    if a != b {
        return Err(Diagnostic::new("shape-mismatch", format!("`reshape` of {x} to {out}: {a} elements against {b}")));
    }
    one(out)
}

pub(super) fn transpose(x: &Type, perm: &Axes) -> Result<Vec<Type>, Diagnostic> {
    plain("transpose", x.dtype)?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().ne(0..x.rank()) {
        return Err(bad(format!("`transpose` of {x} needs a permutation of its {} axes, found {perm:?}", x.rank())));
    }
    one(Type { dtype: x.dtype, shape: perm.iter().map(|&i| x.shape[i].clone()).collect() })
}

pub(super) fn slice(x: &Type, start: &[Dim], limit: &[Dim], stride: &[i64]) -> Result<Vec<Type>, Diagnostic> {
    plain("slice", x.dtype)?;
    if [start.len(), limit.len(), stride.len()].iter().any(|&n| n != x.rank()) || stride.iter().any(|&s| s < 1) {
        return Err(bad(format!("`slice` of {x} needs {} starts, limits and positive strides", x.rank())));
    }
    let mut shape = Vec::new();
    for i in 0..x.rank() {
        let span = limit[i].checked_sub(&start[i]).ok_or_else(overflow)?;
        let known = [start[i].as_const(), limit[i].as_const(), x.shape[i].as_const()];
        let outside = known[0].is_some_and(|s| s < 0)
            || span.as_const().is_some_and(|s| s < 0)
            || matches!((known[1], known[2]), (Some(l), Some(n)) if l > n);
        if outside {
            let n = &x.shape[i];
            return Err(bad(format!("`slice` takes {}..{} of axis {i}, whose size is {n}", start[i], limit[i])));
        }
        shape.push(span.ceil_div(stride[i]));
    }
    one(Type { dtype: x.dtype, shape })
}

pub(super) fn pad(x: &Type, value: &Type, amounts: &PadAmounts) -> Result<Vec<Type>, Diagnostic> {
    plain("pad", x.dtype)?;
    if *value != Type::scalar(x.dtype) {
        return Err(Diagnostic::new(
            "dtype-mismatch",
            format!("`pad` of {x} needs a scalar {}, found {value}", x.dtype),
        ));
    }
    if amounts.len() != x.rank() {
        return Err(bad(format!("`pad` of {x} needs {} pairs, found {}", x.rank(), amounts.len())));
    }
    let mut shape = Vec::new();
    for (n, (low, high)) in x.shape.iter().zip(amounts) {
        if low.as_const().is_some_and(|v| v < 0) || high.as_const().is_some_and(|v| v < 0) {
            return Err(bad(format!("`pad` by a negative amount ({low}, {high})")));
        }
        shape.push(n.checked_add(low).and_then(|s| s.checked_add(high)).ok_or_else(overflow)?);
    }
    one(Type { dtype: x.dtype, shape })
}

pub(super) fn concat(axis: Axis, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    let first = args[0];
    plain("concat", first.dtype)?;
    let mut total = axis_of(first, axis)?.clone();
    for b in &args[1..] {
        if b.dtype != first.dtype {
            return Err(Diagnostic::new("dtype-mismatch", format!("`concat` of {first} and {b}: the dtypes differ")));
        }
        if b.rank() != first.rank() {
            return Err(shapes_differ("concat", first, b, None));
        }
        if let Some(i) = (0..b.rank()).find(|&i| i != axis && b.shape[i] != first.shape[i]) {
            return Err(shapes_differ("concat", first, b, Some((i, i))));
        }
        total = total.checked_add(&b.shape[axis]).ok_or_else(overflow)?;
    }
    let mut ty = first.clone();
    ty.shape[axis] = total;
    one(ty)
}
