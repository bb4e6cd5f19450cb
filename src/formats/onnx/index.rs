//! Places chosen by values: gathers and scatters. Negative places count from the end; others outside are errors at run
//! time, as in the primitives.

use super::call::{Call, integers};
use super::shape::extreme_of;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// Places of an axis of size `n` without negative ones.
fn from_start(ids: &Tensor, n: i64) -> Tensor {
    if ids.dtype().is_unsigned() {
        return ids.clone();
    }
    // n may not fit in a narrow integer.
    let ids = ids.cast(DType::I64);
    ids.lt(0i64).select(&ids + n, &ids)
}

/// The places of operand `index`, as constants where they are known.
fn places(c: &Call, index: usize, n: i64) -> Built {
    let ids = c.tensor(index)?;
    let Some(array) = c.known(index) else { return Ok(from_start(&ids, n)) };
    let list = integers(array).ok_or_else(|| c.wrong("onnx-input", format!("needs integers as operand {index}")))?;
    let fixed: Vec<i64> = list.iter().map(|&i| if i < 0 { i.saturating_add(n) } else { i }).collect();
    Ok(c.graph.constant(Array::from_i64(array.shape(), &fixed)?))
}

pub(super) fn gather(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", 0)?, shape.len())?;
    let n = shape[axis];
    let one = c.known(1).filter(|a| a.len() == 1).and_then(integers).and_then(|v| v.first().copied());
    let one = one.map(|i| if i < 0 { i.saturating_add(n) } else { i }).filter(|i| (0..n).contains(i));
    if let Some(at) = one {
        // One known place is a slice, which fuses.
        let rank: usize = c.shape(&c.tensor(1)?)?.len();
        let out = [&shape[..axis], &vec![1; rank], &shape[axis + 1..]].concat();
        return Ok(x.slice(axis as i64, at, at + 1).reshape(out));
    }
    Ok(x.take(&places(c, 1, n)?, axis as i64))
}

/// The part of `x` that starts at 0 and has the size of `ids` on every axis but `axis`.
fn cut(c: &Call, x: &Tensor, ids: &[i64], axis: usize) -> Built {
    let shape = c.shape(x)?;
    let mut out = x.clone();
    for i in (0..shape.len()).filter(|&i| i != axis && ids.get(i) != Some(&shape[i])) {
        let most = shape[i];
        let size = ids.get(i).copied().filter(|n| *n <= most);
        let size = size.ok_or_else(|| c.misfit(format!("needs indices of shape at most {shape:?}, found {ids:?}")))?;
        out = out.slice(i as i64, 0, size);
    }
    Ok(out)
}

pub(super) fn gather_elements(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", 0)?, shape.len())?;
    let ids = c.shape(&c.tensor(1)?)?;
    Ok(cut(c, &x, &ids, axis)?.take_along(&places(c, 1, shape[axis])?, axis as i64))
}

/// Tuples of places `ids` `[.., k]` of axes of the sizes `sizes` as places of these axes merged; where one of a tuple
/// is outside, so is the result.
fn merged(c: &Call, ids: &Tensor, sizes: &[i64]) -> Built {
    let last = ids.rank() as i64 - 1;
    let ids = ids.cast(DType::I64);
    let mut parts: Vec<Tensor> = Vec::new();
    for (i, &n) in sizes.iter().enumerate() {
        parts.push(from_start(&ids.slice(last, i as i64, i as i64 + 1).squeeze(last), n));
    }
    let inside = |t: &Tensor, n: i64| t.ge(0i64) & t.lt(n);
    let Some((first, rest)) = parts.split_first() else {
        // Tuples of nothing name the only place there is.
        let shape = c.shape(&ids)?;
        return Ok(c.graph.full(DType::I64, shape[..shape.len() - 1].to_vec(), 0i64));
    };
    let mut place = first.clone();
    let mut valid = inside(first, sizes[0]);
    for (part, &n) in rest.iter().zip(&sizes[1..]) {
        place = place * n + part;
        valid = valid & inside(part, n);
    }
    Ok(valid.select(place, -1i64))
}

pub(super) fn gather_nd(c: &Call) -> Built {
    let (x, ids) = (c.tensor(0)?, c.tensor(1)?);
    let (shape, places) = (c.shape(&x)?, c.shape(&ids)?);
    let batch = usize::try_from(c.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let wrong = || c.misfit(format!("does not fit {} and indices {}", x.ty(), ids.ty()));
    let (&k, lead) = places.split_last().ok_or_else(wrong)?;
    let k = usize::try_from(k).map_err(|_| wrong())?;
    let fits = lead.len() >= batch && batch.checked_add(k).is_some_and(|n| n <= shape.len());
    if !fits || shape[..batch] != lead[..batch] {
        return Err(wrong());
    }
    let (merged_sizes, rest) = (&shape[batch..batch + k], &shape[batch + k..]);
    let (batches, inner) = (c.product(&shape[..batch])?, c.product(merged_sizes)?);
    let place = merged(c, &ids, merged_sizes)?;
    let per = c.product(&lead[batch..])?;
    let place = place.reshape([batches, per]);
    // Batches are merged, too: batch b starts at b * inner.
    let start = c.graph.iota(DType::I64, [batches, per], 0) * inner;
    let place = place.lt(0i64).select(-1i64, &place + start).reshape([c.product(&[batches, per])?]);
    let rows = [&[c.product(&[batches, inner])?], rest].concat();
    Ok(x.reshape(rows).take(&place, 0).reshape([lead, rest].concat()))
}

/// 1 at the chosen place of a new axis, with the two numbers of the last operand.
pub(super) fn one_hot(c: &Call) -> Built {
    let (ids, values) = (c.tensor(0)?, c.tensor(2)?);
    // A depth of any dtype, truncated.
    let depth = c.array(1)?.to_f64().filter(|d| d.len() == 1).and_then(|d| d.first().map(|&d| d as i64)).unwrap_or(-1);
    let rank = c.shape(&ids)?.len() + 1;
    let axis = c.axis(c.int("axis", -1)?, rank)?;
    let two: [i64; 1] = c.sizes(&values, "values")?;
    if depth < 0 || two != [2] {
        return Err(c.misfit(format!("needs a depth of at least 0 and two values, found {depth} and {}", values.ty())));
    }
    let place = from_start(&ids.cast(DType::I64), depth).unsqueeze(axis as i64);
    let mut shape = vec![1; rank];
    shape[axis] = depth;
    let hot = place.eq(c.graph.iota(DType::I64, shape, axis));
    let value = |i: i64| values.slice(0, i, i + 1).squeeze(0);
    Ok(hot.select(value(1), value(0)))
}

/// What a scatter does where something is already.
const REDUCTIONS: &[&str] = &["none", "add", "mul", "min", "max"];

/// `base` with `source` put or folded in at `ids`, which has its shape, along `axis`. Of several elements for one place
/// the op says nothing; here they are added.
fn scatter(c: &Call, reduction: &str, base: &Tensor, ids: &Tensor, source: &Tensor, axis: usize) -> Built {
    let dtype = base.dtype();
    let (shape, at) = (c.shape(base)?, axis as i64);
    if reduction == "add" {
        return Ok(base.scatter_add(ids, source, at));
    }
    if reduction == "none" {
        // Truth values have no sums.
        let numbers = if dtype == DType::Bool { DType::U8 } else { dtype };
        let none = |dtype: DType| c.graph.full(dtype, shape.clone(), 0i64);
        let one = c.graph.full(DType::I32, c.shape(source)?, 1i64);
        let hit = none(DType::I32).scatter_add(ids, &one, at).gt(0i64);
        let put = none(numbers).scatter_add(ids, &source.cast(numbers), at).cast(dtype);
        return Ok(hit.select(put, base));
    }
    let (kind, neutral) = match reduction {
        "mul" => (ReduceKind::Prod, c.graph.scalar(dtype, 1i64)),
        "min" => (ReduceKind::Min, extreme_of(c, dtype, true)?),
        _max => (ReduceKind::Max, extreme_of(c, dtype, false)?),
    };
    // Adding nothing at the same places finds those outside.
    let base = base.scatter_add(ids, &c.graph.full(dtype, c.shape(source)?, 0i64), at);
    let mut places = vec![1; shape.len() + 1];
    places[axis] = shape[axis];
    let here = ids.cast(DType::I64).unsqueeze(at).eq(c.graph.iota(DType::I64, places, axis));
    let folded = here.select(source.unsqueeze(at), neutral).fold(kind, &[at + 1], false);
    Ok(match kind {
        ReduceKind::Prod => base * folded,
        ReduceKind::Min => base.minimum(folded),
        ReduceKind::Max | ReduceKind::Sum => base.maximum(folded),
    })
}

pub(super) fn scatter_elements(c: &Call) -> Built {
    let (x, source) = (c.tensor(0)?, c.tensor(2)?);
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", 0)?, shape.len())?;
    let reduction = c.word("reduction", REDUCTIONS)?;
    let (ids, sizes) = (places(c, 1, shape[axis])?, c.shape(&c.tensor(1)?)?);
    if c.shape(&source)? != sizes {
        return Err(c.misfit(format!("needs updates of shape {sizes:?}, found {}", source.ty())));
    }
    let part = cut(c, &x, &sizes, axis)?;
    let done = scatter(c, reduction, &part, &ids, &source, axis)?;
    let whole = c.shape(&part)? == shape;
    Ok(if whole { done } else { x.update_slice(&done, vec![0i64; shape.len()]) })
}

pub(super) fn scatter_nd(c: &Call) -> Built {
    let (x, ids, source) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    let (shape, places) = (c.shape(&x)?, c.shape(&ids)?);
    let reduction = c.word("reduction", REDUCTIONS)?;
    let wrong = || c.misfit(format!("does not fit {}, indices {} and updates {}", x.ty(), ids.ty(), source.ty()));
    let (&k, lead) = places.split_last().ok_or_else(wrong)?;
    let k = usize::try_from(k).ok().filter(|k| *k <= shape.len()).ok_or_else(wrong)?;
    if c.shape(&source)? != [lead, &shape[k..]].concat() {
        return Err(wrong());
    }
    let (rows, row, count) = (c.product(&shape[..k])?, c.product(&shape[k..])?, c.product(lead)?);
    let place = merged(c, &ids, &shape[..k])?.reshape([count, 1]).broadcast_to([count, row]);
    let done = scatter(c, reduction, &x.reshape([rows, row]), &place, &source.reshape([count, row]), 0)?;
    Ok(done.reshape(shape))
}

/// A cache with an update of some positions of `axis`, from a position that each batch chooses.
pub(super) fn tensor_scatter(c: &Call) -> Built {
    let (past, update) = (c.tensor(0)?, c.tensor(1)?);
    let (shape, news) = (c.shape(&past)?, c.shape(&update)?);
    let axis = c.axis(c.int("axis", -2)?, shape.len())?;
    let circular = c.word("mode", &["linear", "circular"])? == "circular";
    let (n, m) = (shape[axis], news.get(axis).copied().unwrap_or_default());
    let fits = news.len() == shape.len() && axis > 0 && (0..shape.len()).all(|i| i == axis || news[i] == shape[i]);
    if !fits || m > n || m == 0 {
        return Err(c.misfit(format!("does not fit {} and an update {}", past.ty(), update.ty())));
    }
    let start = match c.maybe(2) {
        Some(start) => start.cast(DType::I64),
        None => c.graph.full(DType::I64, [shape[0]], 0i64),
    };
    let mut lead = vec![1; shape.len()];
    lead[0] = shape[0];
    let mut along = vec![1; shape.len()];
    along[axis] = n;
    let mut offset = c.graph.iota(DType::I64, along, axis) - start.reshape(lead);
    if circular {
        offset = (offset % n + n) % n;
    }
    let new = offset.ge(0i64) & offset.lt(m);
    let place = offset.maximum(0i64).minimum(m - 1).broadcast_to(shape);
    Ok(new.select(update.take_along(&place, axis as i64), past))
}
