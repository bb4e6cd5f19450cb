//! Ops whose places are chosen by values.

use super::Mode;
use super::map::pick;
use super::value::{Data, Tensor, allowed, round, wide, wrap};
use crate::array::Bytes;
use crate::diag::Diagnostic;
use crate::op::Axis;

/// The indices, checked against the size of `axis`. Where no element would be moved
/// none is looked at. Errors: `index-out-of-range`.
fn indices(what: &str, x: &Tensor, axis: Axis, ids: &Tensor) -> Result<Vec<usize>, Diagnostic> {
    let size = x.shape[axis];
    let check = |(i, &v): (usize, &i64)| {
        let v = wide(ids.dtype, v);
        usize::try_from(v).ok().filter(|&v| v < size).ok_or_else(|| {
            let message = format!("`{what}` needs indices in 0..{size} for axis {axis}, found {v} as element {i}");
            Diagnostic::new("index-out-of-range", message)
        })
    };
    ids.ints()?.iter().enumerate().map(check).collect()
}

/// Sizes before and after `axis`, multiplied.
fn around(shape: &[usize], axis: Axis) -> (usize, usize) {
    (shape[..axis].iter().product(), shape[axis + 1..].iter().product())
}

pub(super) fn take(x: &Tensor, ids: &Tensor, axis: Axis) -> Result<Data, Diagnostic> {
    let (outer, inner) = around(&x.shape, axis);
    let chosen = if outer == 0 || inner == 0 { Vec::new() } else { indices("take", x, axis, ids)? };
    if let Data::Block(bytes) = &*x.data {
        let size = x.dtype.bytes(inner).ok_or_else(|| Diagnostic::bug("a row does not fill blocks"))?;
        let mut out = Vec::with_capacity(allowed(x.dtype, &[outer, chosen.len(), size])?);
        for o in 0..outer {
            for &i in &chosen {
                out.extend_from_slice(&bytes[(o * x.shape[axis] + i) * size..][..size]);
            }
        }
        return Ok(Data::Block(Bytes::new(out)));
    }
    let mut places = Vec::with_capacity(allowed(x.dtype, &[outer, chosen.len(), inner])?);
    for o in 0..outer {
        for &i in &chosen {
            let first = (o * x.shape[axis] + i) * inner;
            places.extend(first..first + inner);
        }
    }
    pick(x, &places)
}

/// The place in `x` that each element of `ids` points to.
fn along(what: &str, x: &Tensor, ids: &Tensor, axis: Axis) -> Result<Vec<usize>, Diagnostic> {
    let chosen = indices(what, x, axis, ids)?;
    let (_, inner) = around(&x.shape, axis);
    let row = ids.shape[axis] * inner;
    let place = |(at, i): (usize, usize)| (at / row * x.shape[axis] + i) * inner + at % inner;
    Ok(chosen.into_iter().enumerate().map(place).collect())
}

pub(super) fn take_along(x: &Tensor, ids: &Tensor, axis: Axis) -> Result<Data, Diagnostic> {
    pick(x, &along("take_along", x, ids, axis)?)
}

pub(super) fn scatter_add(mode: Mode, args: &[Tensor], axis: Axis) -> Result<Data, Diagnostic> {
    let (base, ids, source) = (&args[0], &args[1], &args[2]);
    let places = along("scatter_add", base, ids, axis)?;
    let dtype = base.dtype;
    fn add<T: Copy>(base: &[T], places: &[usize], source: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut out = base.to_vec();
        for (&p, &s) in places.iter().zip(source) {
            out[p] = f(out[p], s);
        }
        out
    }
    let step = |y: f64| if mode == Mode::Strict { round(dtype, y) } else { y };
    Ok(match &*base.data {
        Data::Float(v) => Data::Float(add(v, &places, source.floats()?, |a, b| step(a + b))),
        Data::Int(v) => Data::Int(add(v, &places, source.ints()?, |a, b| wrap(dtype, a.wrapping_add(b).into()))),
        Data::Bool(v) => Data::Bool(add(v, &places, source.bools()?, |a, b| a | b)),
        Data::Block(_) => return Err(Diagnostic::bug("a block encoding was added to")),
    })
}
