//! Ops that move values: every result element is one of the operands'.

use super::value::{Data, Tensor, allowed, plain_data, strides, walk};
use crate::array::Bytes;
use crate::diag::Diagnostic;
use crate::op::{Axes, Axis, PadAmounts};
use crate::types::Dim;

/// The elements of `x` at `start + index * steps` for every index of `shape`.
fn gather(x: &Tensor, shape: &[usize], steps: &[isize], start: isize) -> Result<Data, Diagnostic> {
    let n = allowed(x.dtype, shape)?;
    plain_data!(&*x.data, v => {
        let mut out = Vec::with_capacity(n);
        walk(shape, steps, start, |at| out.push(v[at]));
        out
    })
}

/// Puts `from`, of `shape`, into `into` at `start + index * steps`.
fn place(into: &mut Data, from: &Data, shape: &[usize], steps: &[isize], start: isize) -> Result<(), Diagnostic> {
    fn put<T: Copy>(into: &mut [T], from: &[T], shape: &[usize], steps: &[isize], start: isize) {
        let mut values = from.iter();
        walk(shape, steps, start, |at| {
            if let Some(&v) = values.next() {
                into[at] = v;
            }
        });
    }
    match (into, from) {
        (Data::Float(i), Data::Float(f)) => put(i, f, shape, steps, start),
        (Data::Int(i), Data::Int(f)) => put(i, f, shape, steps, start),
        (Data::Bool(i), Data::Bool(f)) => put(i, f, shape, steps, start),
        _ => return Err(Diagnostic::bug("values of different kinds were joined")),
    }
    Ok(())
}

/// A position that type inference has checked to be known and inside.
fn position(dim: &Dim) -> Result<isize, Diagnostic> {
    let v = dim.as_const().and_then(|v| isize::try_from(v).ok()).filter(|&v| v >= 0);
    v.ok_or_else(|| Diagnostic::bug(format!("the position `{dim}` is not known")))
}

pub(super) fn broadcast(x: &Tensor, shape: &[usize], dims: &Axes) -> Result<Data, Diagnostic> {
    let own = strides(&x.shape);
    let mut steps = vec![0isize; shape.len()];
    for (i, &d) in dims.iter().enumerate() {
        steps[d] = if x.shape[i] == 1 { 0 } else { own[i] };
    }
    gather(x, shape, &steps, 0)
}

pub(super) fn transpose(x: &Tensor, shape: &[usize], perm: &Axes) -> Result<Data, Diagnostic> {
    let own = strides(&x.shape);
    gather(x, shape, &perm.iter().map(|&i| own[i]).collect::<Vec<_>>(), 0)
}

pub(super) fn slice(x: &Tensor, shape: &[usize], start: &[Dim], stride: &[i64]) -> Result<Data, Diagnostic> {
    let own = strides(&x.shape);
    let mut first = 0isize;
    for (s, step) in start.iter().zip(&own) {
        first += position(s)?.saturating_mul(*step);
    }
    // A stride beyond the axis is used once at most, so its size does not matter.
    let step = |(own, s): (&isize, &i64)| own.saturating_mul(isize::try_from(*s).unwrap_or(isize::MAX));
    let mut steps: Vec<isize> = own.iter().zip(stride).map(step).collect();
    for (step, n) in steps.iter_mut().zip(shape) {
        if *n <= 1 {
            *step = 0;
        }
    }
    gather(x, shape, &steps, first)
}

pub(super) fn flip(x: &Tensor, axes: &Axes) -> Result<Data, Diagnostic> {
    let mut steps = strides(&x.shape);
    let mut first = 0isize;
    if !x.shape.contains(&0) {
        for &a in axes {
            first += steps[a] * (x.shape[a] as isize - 1);
            steps[a] = -steps[a];
        }
    }
    gather(x, &x.shape, &steps, first)
}

pub(super) fn pad(x: &Tensor, value: &Tensor, shape: &[usize], amounts: &PadAmounts) -> Result<Data, Diagnostic> {
    let n = allowed(x.dtype, shape)?;
    let mut out = plain_data!(&*value.data, v => vec![v[0]; n])?;
    let steps = strides(shape);
    let mut first = 0isize;
    for ((low, _), step) in amounts.iter().zip(&steps) {
        first += position(low)?.saturating_mul(*step);
    }
    place(&mut out, &x.data, &x.shape, &steps, first)?;
    Ok(out)
}

pub(super) fn concat(args: &[Tensor], shape: &[usize], axis: Axis) -> Result<Data, Diagnostic> {
    let n = allowed(args[0].dtype, shape)?;
    let mut out = match &*args[0].data {
        Data::Float(_) => Data::Float(vec![0.0; n]),
        Data::Int(_) => Data::Int(vec![0; n]),
        Data::Bool(_) => Data::Bool(vec![false; n]),
        Data::Block(_) => return Err(Diagnostic::bug("block encodings were joined")),
    };
    let steps = strides(shape);
    let mut first = 0isize;
    for x in args {
        place(&mut out, &x.data, &x.shape, &steps, first)?;
        first += steps[axis] * x.shape[axis] as isize;
    }
    Ok(out)
}

pub(super) fn update_slice(x: &Tensor, update: &Tensor, start: &[Dim]) -> Result<Data, Diagnostic> {
    let mut out = (*x.data).clone();
    let steps = strides(&x.shape);
    let mut first = 0isize;
    for (s, step) in start.iter().zip(&steps) {
        first += position(s)?.saturating_mul(*step);
    }
    place(&mut out, &update.data, &update.shape, &steps, first)?;
    Ok(out)
}

/// Slice `index` of the leading axis.
pub(super) fn leading(x: &Tensor, index: usize) -> Result<Tensor, Diagnostic> {
    let shape = x.shape[1..].to_vec();
    let n: usize = shape.iter().product();
    let data = match &*x.data {
        Data::Block(b) => {
            let outside = || Diagnostic::bug("a slice of blocks is not inside");
            let size = x.dtype.bytes(n).ok_or_else(outside)?;
            Data::Block(b.slice(index * size, size).ok_or_else(outside)?)
        }
        plain => plain_data!(plain, v => v[index * n..(index + 1) * n].to_vec())?,
    };
    Ok(Tensor::new(x.dtype, shape, data))
}

/// Joins equal tensors along a new leading axis. Errors: `shape-mismatch` if they differ.
pub(super) fn stack(parts: &[Tensor]) -> Result<Tensor, Diagnostic> {
    let first = parts.first().ok_or_else(|| Diagnostic::bug("nothing to stack"))?;
    if let Some(other) = parts.iter().find(|p| p.ty() != first.ty()) {
        let message = format!("a scan makes slices {} and {}", first.ty(), other.ty());
        return Err(Diagnostic::new("shape-mismatch", message));
    }
    let shape: Vec<usize> = std::iter::once(parts.len()).chain(first.shape.iter().copied()).collect();
    if let Data::Block(_) = &*first.data {
        let mut bytes: Vec<u8> = Vec::new();
        for p in parts {
            if let Data::Block(b) = &*p.data {
                bytes.extend_from_slice(b);
            }
        }
        return Ok(Tensor::new(first.dtype, shape, Data::Block(Bytes::new(bytes))));
    }
    let n: usize = first.shape.iter().product();
    let mut out = concat(parts_with_axis(parts).as_slice(), &shape, 0)?;
    // `concat` fills whole rows; an empty row leaves nothing to fill.
    if n == 0 {
        out = plain_data!(&*first.data, v => v.clone())?;
    }
    Ok(Tensor::new(first.dtype, shape, out))
}

fn parts_with_axis(parts: &[Tensor]) -> Vec<Tensor> {
    let with = |p: &Tensor| Tensor {
        dtype: p.dtype,
        shape: std::iter::once(1).chain(p.shape.iter().copied()).collect(),
        data: p.data.clone(),
    };
    parts.iter().map(with).collect()
}
