//! Folds: reductions, argmax, argmin, running sums.

use super::Mode;
use super::map::rounded;
use super::scalar::{max, min};
use super::value::{Data, Tensor, round, strides, walk, wide, wrap};
use crate::diag::Diagnostic;
use crate::op::{Axis, ReduceKind};
use crate::types::DType;

/// Offsets of the elements along `axes` of `x`, in row-major order.
fn offsets(x: &Tensor, keep: impl Fn(usize) -> bool) -> Vec<usize> {
    let all = strides(&x.shape);
    let axes: Vec<usize> = (0..x.shape.len()).filter(|&i| keep(i)).collect();
    let shape: Vec<usize> = axes.iter().map(|&i| x.shape[i]).collect();
    let steps: Vec<isize> = axes.iter().map(|&i| all[i]).collect();
    let mut out = Vec::new();
    walk(&shape, &steps, 0, |at| out.push(at));
    out
}

/// Folds `axes` left to right in row-major order.
pub(super) fn reduce(mode: Mode, kind: ReduceKind, axes: &[Axis], x: &Tensor) -> Result<Data, Diagnostic> {
    let outer = offsets(x, |i| !axes.contains(&i));
    let inner = offsets(x, |i| axes.contains(&i));
    let dtype = x.dtype;
    fn fold<T: Copy>(outer: &[usize], inner: &[usize], v: &[T], first: T, f: impl Fn(T, T) -> T) -> Vec<T> {
        outer.iter().map(|o| inner.iter().fold(first, |a, i| f(a, v[o + i]))).collect()
    }
    Ok(match &*x.data {
        Data::Float(v) => {
            let step = |y: f64| if mode == Mode::Strict { round(dtype.folded(), y) } else { y };
            let folded = Data::Float(match kind {
                // -0 is what changes no number: the sum of nothing is then made +0.
                ReduceKind::Sum if inner.is_empty() => vec![0.0; outer.len()],
                ReduceKind::Sum => fold(&outer, &inner, v, -0.0, |a, b| step(a + b)),
                ReduceKind::Prod => fold(&outer, &inner, v, 1.0, |a, b| step(a * b)),
                ReduceKind::Max => fold(&outer, &inner, v, f64::NEG_INFINITY, max),
                ReduceKind::Min => fold(&outer, &inner, v, f64::INFINITY, min),
            });
            rounded(mode, dtype, folded)
        }
        Data::Int(v) => {
            let (low, high) = limits(dtype);
            let least = |a: i64, b: i64| if wide(dtype, b) < wide(dtype, a) { b } else { a };
            let most = |a: i64, b: i64| if wide(dtype, b) > wide(dtype, a) { b } else { a };
            Data::Int(match kind {
                ReduceKind::Sum => fold(&outer, &inner, v, 0, |a, b| wrap(dtype, a.wrapping_add(b).into())),
                ReduceKind::Prod => fold(&outer, &inner, v, 1, |a, b| wrap(dtype, a.wrapping_mul(b).into())),
                ReduceKind::Max => fold(&outer, &inner, v, low, most),
                ReduceKind::Min => fold(&outer, &inner, v, high, least),
            })
        }
        // Sum and maximum of truth values are "any", product and minimum "all".
        Data::Bool(v) => Data::Bool(match kind {
            ReduceKind::Sum | ReduceKind::Max => fold(&outer, &inner, v, false, |a, b| a | b),
            ReduceKind::Prod | ReduceKind::Min => fold(&outer, &inner, v, true, |a, b| a & b),
        }),
        Data::Block(_) => return Err(Diagnostic::bug("a block encoding was reduced")),
    })
}

/// Smallest and largest value of an integer dtype, as stored.
fn limits(dtype: DType) -> (i64, i64) {
    let bits = 8 * dtype.block().1 as u32;
    if dtype.is_signed() { (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)) } else { (0, wrap(dtype, -1)) }
}

/// Position of the first largest or smallest element along `axis`. Errors: `empty-axis` where there is none.
pub(super) fn arg(kind: ReduceKind, axis: Axis, x: &Tensor) -> Result<Data, Diagnostic> {
    let outer = offsets(x, |i| i != axis);
    let inner = offsets(x, |i| i == axis);
    if inner.is_empty() && !outer.is_empty() {
        return Err(Diagnostic::new("empty-axis", format!("axis {axis} of {} has no largest or smallest", x.ty())));
    }
    let largest = matches!(kind, ReduceKind::Max);
    fn first<T: Copy>(outer: &[usize], inner: &[usize], v: &[T], better: impl Fn(T, T) -> bool) -> Vec<i64> {
        let best =
            |o: &usize| (1..inner.len()).fold(0, |b, i| if better(v[o + inner[i]], v[o + inner[b]]) { i } else { b });
        outer.iter().map(|o| best(o) as i64).collect()
    }
    let float = |a: f64, b: f64| !b.is_nan() && (a.is_nan() || if largest { a > b } else { a < b });
    let (dtype, pick) = (x.dtype, |a: i128, b: i128| if largest { a > b } else { a < b });
    Ok(Data::Int(match &*x.data {
        Data::Float(v) => first(&outer, &inner, v, float),
        Data::Int(v) => first(&outer, &inner, v, |a, b| pick(wide(dtype, a), wide(dtype, b))),
        Data::Bool(v) => first(&outer, &inner, v, |a, b| pick(a.into(), b.into())),
        Data::Block(_) => return Err(Diagnostic::bug("a block encoding has no largest element")),
    }))
}

/// Running sum along `axis`.
pub(super) fn cumsum(mode: Mode, axis: Axis, x: &Tensor) -> Result<Data, Diagnostic> {
    let outer = offsets(x, |i| i != axis);
    let inner = offsets(x, |i| i == axis);
    let dtype = x.dtype;
    fn run<T: Copy>(outer: &[usize], inner: &[usize], v: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut out = v.to_vec();
        for o in outer {
            for pair in inner.windows(2) {
                out[o + pair[1]] = f(out[o + pair[0]], out[o + pair[1]]);
            }
        }
        out
    }
    let step = |y: f64| if mode == Mode::Strict { round(dtype.folded(), y) } else { y };
    Ok(match &*x.data {
        Data::Float(v) => rounded(mode, dtype, Data::Float(run(&outer, &inner, v, |a, b| step(a + b)))),
        Data::Int(v) => Data::Int(run(&outer, &inner, v, |a, b| wrap(dtype, a.wrapping_add(b).into()))),
        Data::Bool(v) => Data::Bool(run(&outer, &inner, v, |a, b| a | b)),
        Data::Block(_) => return Err(Diagnostic::bug("a block encoding was summed")),
    })
}
