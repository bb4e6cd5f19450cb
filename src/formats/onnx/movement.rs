//! Ops that move elements: reshape, slice, pad, join, repeat.

use super::call::{Call, int_array};
use super::shape::sizes;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Tensor, concat};

type Built = Result<Tensor, Diagnostic>;

/// 0 keeps a size unless `allowzero`; -1 stands for what is left.
pub(super) fn reshape(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let (own, mut shape, allow_zero) = (c.shape(&x)?, c.ints(1)?, c.flag("allowzero", false)?);
    for (i, d) in shape.iter_mut().enumerate().filter(|(_, d)| **d == 0) {
        if !allow_zero {
            let kept = own.get(i).copied();
            *d = kept.ok_or_else(|| c.misfit(format!("keeps the size of axis {i} of {}", x.ty())))?;
        }
    }
    if let Some(at) = shape.iter().position(|d| *d == -1) {
        let (all, rest) = (c.product(&own)?, c.product(&[&shape[..at], &shape[at + 1..]].concat())?);
        if rest <= 0 || all % rest != 0 {
            return Err(c.misfit(format!("cannot reshape {} to {shape:?}", x.ty())));
        }
        shape[at] = all / rest;
    }
    if shape.iter().any(|d| *d < 0) {
        return Err(c.misfit(format!("needs sizes of at least 0, and -1 once, found {shape:?}")));
    }
    Ok(x.reshape(shape))
}

pub(super) fn flatten(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.int("axis", 1)?;
    // The axis may be one behind the last.
    let axis = if axis == shape.len() as i64 { shape.len() } else { c.axis(axis, shape.len())? };
    Ok(x.reshape([c.product(&shape[..axis])?, c.product(&shape[axis..])?]))
}

pub(super) fn transpose(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let reversed = || (0..x.rank() as i64).rev().collect();
    Ok(x.permute(&c.int_list("perm")?.unwrap_or_else(reversed)))
}

pub(super) fn unsqueeze(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let axes = c.ints_of(1, "axes")?.ok_or_else(|| c.wrong("onnx-input", "needs axes"))?;
    let mut shape = c.shape(&x)?;
    for axis in c.axes(&axes, shape.len() + axes.len())? {
        shape.insert(axis, 1);
    }
    Ok(x.reshape(shape))
}

/// Without `axes`, or all axes of size 1.
pub(super) fn squeeze(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axes = match c.ints_of(1, "axes")? {
        Some(axes) => c.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(c.misfit(format!("takes away axis {axis} of {}, whose size is not 1", x.ty())));
    }
    let kept: Vec<i64> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    Ok(x.reshape(kept))
}

/// Both shapes broadcast: sizes of 1 in the wanted shape keep those of the operand.
pub(super) fn expand(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let (own, mut shape) = (c.shape(&x)?, sizes(c, 1)?);
    while shape.len() < own.len() {
        shape.insert(0, 1);
    }
    let new = shape.len() - own.len();
    for (d, &o) in shape[new..].iter_mut().zip(&own) {
        if *d == 1 {
            *d = o;
        }
    }
    Ok(x.broadcast_to(shape))
}

pub(super) fn tile(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let (own, repeats) = (c.shape(&x)?, sizes(c, 1)?);
    if own.len() != repeats.len() {
        return Err(c.misfit(format!("needs a number of repeats for each axis of {}, found {repeats:?}", x.ty())));
    }
    let pairs = |first: &[i64]| first.iter().zip(&own).flat_map(|(&r, &d)| [r, d]).collect::<Vec<i64>>();
    let out = own.iter().zip(&repeats).map(|(&d, &r)| c.product(&[d, r])).collect::<Result<Vec<i64>, _>>()?;
    Ok(x.reshape(pairs(&vec![1; own.len()])).broadcast_to(pairs(&repeats)).reshape(out))
}

pub(super) fn concatenate(c: &Call) -> Built {
    let all = c.tensors()?;
    let axis = c.axis(c.needed_int("axis")?, c.tensor(0)?.rank())? as i64;
    let joined = concat(&all.iter().collect::<Vec<_>>(), axis);
    joined.ok_or_else(|| c.wrong("onnx-input", "needs at least one operand"))
}

/// Parts of given sizes, or of the same size but for the last.
pub(super) fn split(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", 0)?, shape.len())?;
    let size = shape[axis];
    let parts = c.int("num_outputs", c.results() as i64)?;
    let lengths = match c.ints_of(1, "split")? {
        Some(lengths) => lengths,
        None if parts != c.results() as i64 || parts == 0 => {
            let message = format!("has `num_outputs` {parts}, but names {} results", c.results());
            return Err(c.wrong("onnx-attribute", message));
        }
        None => {
            let each = size / parts + i64::from(size % parts != 0);
            (0..parts).map(|i| each.min((size - i * each).max(0))).collect()
        }
    };
    let total = lengths.iter().try_fold(0i64, |sum, &n| if n < 0 { None } else { sum.checked_add(n) });
    if total != Some(size) || lengths.len() != c.results() {
        let message = format!("splits {size} elements into {lengths:?} for {} results", c.results());
        return Err(c.misfit(message));
    }
    let mut at = 0;
    let part = |n: i64| {
        at += n;
        x.slice(axis as i64, at - n, at)
    };
    Ok(lengths.into_iter().map(part).collect())
}

/// Starts, ends and steps of some axes; places outside are cut to the axis.
pub(super) fn slice(c: &Call) -> Built {
    let mut x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let absent = |key: &str| c.wrong("onnx-input", format!("needs `{key}`"));
    let starts = c.ints_of(1, "starts")?.ok_or_else(|| absent("starts"))?;
    let ends = c.ints_of(2, "ends")?.ok_or_else(|| absent("ends"))?;
    let axes = c.ints_of(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = c.maybe_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        let message = "needs as many ends, axes and steps as starts";
        return Err(c.wrong("onnx-input", format!("{message}, found {starts:?} {ends:?} {axes:?} {steps:?}")));
    }
    // Each axis once.
    c.axes(&axes, shape.len())?;
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, shape.len())?;
        let (n, step) = (shape[axis], steps[i]);
        let place = |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(n) } else { at }).clamp(low, high);
        if step == 0 || step == i64::MIN {
            return Err(c.wrong("onnx-input", format!("needs steps other than {step}")));
        }
        let (start, limit) = if step > 0 {
            (place(starts[i], 0, n), place(ends[i], 0, n))
        } else if n == 0 {
            (0, 0)
        } else {
            // Backwards is forwards in the reversed axis: place p there is n - 1 - p here.
            let (start, end) = (place(starts[i], 0, n - 1), place(ends[i], -1, n - 1));
            x = x.flip(&[axis as i64]);
            (n - 1 - start, n - 1 - end)
        };
        if (start, limit, step.abs()) != (0, n, 1) {
            x = x.slice_by(axis as i64, start, limit.max(start), step.abs());
        }
    }
    Ok(x)
}

/// Elements before and after each axis; fewer than none takes elements away.
pub(super) fn pad(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let pads = c.ints_of(1, "pads")?.ok_or_else(|| c.wrong("onnx-input", "needs `pads`"))?;
    let axes = match c.maybe_ints(3)? {
        Some(axes) => axes.iter().map(|&a| c.axis(a, shape.len())).collect::<Result<Vec<usize>, _>>()?,
        None => (0..shape.len()).collect(),
    };
    let mode = c.word("mode", &["constant", "reflect", "edge", "wrap"])?;
    let value = match (c.maybe_float("value")?, c.maybe(2)) {
        (Some(x0), None) => Some(c.graph.scalar(x.dtype(), x0)),
        (_, value) => value,
    };
    if pads.len() != 2 * axes.len() {
        let message = format!("needs two amounts for each of {} axes, found {}", axes.len(), pads.len());
        return Err(c.wrong("onnx-input", message));
    }
    let mut out = x;
    for (i, &axis) in axes.iter().enumerate() {
        let (low, high, n) = (pads[i], pads[axes.len() + i], shape[axis]);
        let size = n.checked_add(low).and_then(|s| s.checked_add(high)).filter(|s| *s >= 0);
        let size = size.ok_or_else(|| c.misfit(format!("pads axis {axis} of size {n} by {low} and {high}")))?;
        if (low, high) == (0, 0) {
            continue;
        }
        let axis = axis as i64;
        if mode == "constant" {
            let (from, to) = ((-low).clamp(0, n), n.saturating_add(high.min(0)).max(0));
            if from > to {
                return Err(c.misfit(format!("takes away more of axis {axis} than its size {n}")));
            }
            if (from, to) != (0, n) {
                out = out.slice(axis, from, to);
            }
            let value = value.as_ref().map_or_else(|| c.graph.scalar(out.dtype(), 0i64), |v| v.reshape(()));
            out = out.pad(axis, low.max(0), high.max(0), value);
        } else {
            out = out.take(&c.graph.constant(int_array(&places(c, mode, n, low, size)?)?), axis);
        }
    }
    Ok(out)
}

/// Which element of an axis of size `n` stands at each place of the padded one.
fn places(c: &Call, mode: &str, n: i64, low: i64, size: i64) -> Result<Vec<i64>, Diagnostic> {
    if n == 0 && size > 0 {
        return Err(c.misfit(format!("has no elements for the mode {mode}")));
    }
    // Each place is listed here, so that their number is that of a tensor and not of a hostile attribute.
    if size > 1 << 24 {
        return Err(c.misfit(format!("pads an axis to {size} elements in the mode {mode}; at most 2^24 can be")));
    }
    let place = |i: i64| match mode {
        "edge" => i.clamp(0, n - 1),
        "wrap" => i.rem_euclid(n),
        // Back and forth without repeating the ends.
        _reflect => {
            let period = (2 * (n - 1)).max(1);
            let at = i.rem_euclid(period);
            at.min((period - at).rem_euclid(period.max(2))).min(n - 1)
        }
    };
    Ok((0..size).map(|i| place(i.saturating_sub(low))).collect())
}
