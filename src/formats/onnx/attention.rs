//! Attention and rotary positions.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{RopeLayout, Tensor, concat};
use tilewright_ir::op::DotDims;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// `[batch, heads, positions, size]` of an operand that has this shape or `[batch, positions, heads * size]`.
fn heads(c: &Call, x: &Tensor, key: &'static str) -> Built {
    let count = c.maybe_int(key)?;
    let shape = c.shape(x)?;
    match (&shape[..], count) {
        (&[batch, positions, width], Some(count)) if count > 0 && width % count == 0 => {
            Ok(x.reshape([batch, positions, count, width / count]).permute(&[0, 2, 1, 3]))
        }
        (&[_, found, _, _], Some(count)) if count != found => {
            Err(c.misfit(format!("has `{key}` {count} for {found} heads of {}", x.ty())))
        }
        (&[_, _, _, _], _) => Ok(x.clone()),
        _ => {
            Err(c.misfit(format!("needs `{key}` that divides the width of three axes, or four axes, found {}", x.ty())))
        }
    }
}

/// What was cached before what is new.
fn joined(c: &Call, past: usize, new: Tensor) -> Built {
    let Some(past) = c.maybe(past) else { return Ok(new) };
    concat(&[&past, &new], 2).ok_or_else(|| Diagnostic::bug("nothing to join"))
}

/// Hides where a bool mask is false; adds a float mask.
fn masked(scores: &Tensor, mask: &Tensor) -> Tensor {
    if mask.dtype() == DType::Bool { mask.select(scores, f64::NEG_INFINITY) } else { scores + mask }
}

/// `[.., heads, queries, keys]` as `[.., groups, each, queries, keys]`.
fn grouped(c: &Call, mask: &Tensor, groups: i64, each: i64) -> Built {
    let mut shape = c.shape(mask)?;
    let Some(at) = shape.len().checked_sub(3) else { return Ok(mask.clone()) };
    let split = if shape[at] == 1 { [1, 1] } else { [groups, each] };
    shape.splice(at..=at, split);
    Ok(mask.reshape(shape))
}

/// The masks that the op has, to be applied one after the other: a given one, those of causality and of padding.
fn masks(c: &Call, scores: [i64; 5], offset: i64) -> Result<Vec<Tensor>, Diagnostic> {
    let [_batch, groups, each, queries, keys] = scores;
    let mut out = Vec::new();
    if let Some(mut mask) = c.maybe(3) {
        let last = c.shape(&mask)?.last().copied().unwrap_or(1);
        if last < keys && last != 1 {
            // A mask may be short: what it does not speak of is hidden.
            let hidden = if mask.dtype() == DType::Bool {
                c.graph.full(DType::Bool, (), 0i64)
            } else {
                c.graph.scalar(mask.dtype(), f64::NEG_INFINITY)
            };
            mask = mask.pad(-1, 0, keys - last, hidden);
        }
        out.push(grouped(c, &mask, groups, each)?);
    }
    let rows = c.graph.iota(DType::I64, [queries, 1], 0);
    let columns = c.graph.iota(DType::I64, [1, keys], 1);
    let lengths = match c.maybe(6) {
        Some(lengths) => {
            let [n]: [i64; 1] = c.sizes(&lengths, "lengths")?;
            Some(lengths.cast(DType::I64).reshape([n, 1, 1, 1, 1]))
        }
        None => None,
    };
    if c.flag("is_causal", false)? {
        out.push(columns.le(rows + offset));
    }
    if let Some(lengths) = lengths {
        out.push(columns.lt(lengths));
    }
    Ok(out)
}

/// softmax(q k^T scale + masks) v, the keys and values with the cached ones, and one stage of the scores.
pub(super) fn attention(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let flat = c.tensor(0)?.rank() == 3;
    let q = heads(c, &c.tensor(0)?, "q_num_heads")?;
    let keys = joined(c, 4, heads(c, &c.tensor(1)?, "kv_num_heads")?)?;
    let values = joined(c, 5, heads(c, &c.tensor(2)?, "kv_num_heads")?)?;
    let dtype = q.dtype();
    let [batch, count, queries, size] = c.sizes(&q, "queries")?;
    let [_, groups, length, _] = c.sizes(&keys, "keys")?;
    let [_, _, _, width] = c.sizes(&values, "values")?;
    if groups == 0 || count % groups != 0 {
        return Err(c.misfit(format!("needs heads to be a multiple of groups, found {count} of {groups}")));
    }
    let each = count / groups;
    let past = c.maybe(4).map_or(Ok(0), |p| c.sizes(&p, "past keys").map(|[_, _, n, _]| n))?;
    let scale = c.maybe_float("scale")?.unwrap_or(1.0 / (size as f64).sqrt());
    let batches = |l: usize, r: usize| DotDims { batch: (vec![0, 1], vec![0, 1]), contract: (vec![l], vec![r]) };
    // [batch, groups, each, queries, keys]
    let product = q.reshape([batch, groups, each, queries, size]).dot(&keys, batches(4, 3)) * scale;
    let mut masked_scores = product.clone();
    for mask in masks(c, [batch, groups, each, queries, length], past)? {
        masked_scores = masked(&masked_scores, &mask);
    }
    let softcap = c.float("softcap", 0.0)?;
    let capped = if softcap > 0.0 { (&masked_scores / softcap).tanh() * softcap } else { masked_scores.clone() };
    let precision = c.maybe_int("softmax_precision")?.map_or(Ok(dtype), |code| c.dtype("softmax_precision", code))?;
    let weights = capped.cast(precision).softmax(-1).cast(dtype);
    let y = weights.dot(&values, batches(4, 2)).reshape([batch, count, queries, width]);
    let y = if flat { y.permute(&[0, 2, 1, 3]).reshape([batch, queries, c.product(&[count, width])?]) } else { y };
    let stage = match c.int("qk_matmul_output_mode", 0)? {
        0 => product,
        1 => masked_scores,
        2 => capped,
        3 => weights,
        other => {
            return Err(c.wrong("onnx-attribute", format!("needs a `qk_matmul_output_mode` of 0 to 3, found {other}")));
        }
    };
    Ok(vec![y, keys, values, stage.reshape([batch, count, queries, length])])
}

/// Rotates the first elements of each head by angles whose cosines and sines are chosen by position.
pub(super) fn rotary(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let flat = x.rank() == 3;
    let count = c.int("num_heads", 0)?;
    let heads = if flat { heads(c, &x, "num_heads")? } else { x.clone() };
    let [_, _, positions, size] = c.sizes(&heads, "the operand")?;
    let rotated = match c.int("rotary_embedding_dim", 0)? {
        0 => size,
        n => n,
    };
    let layout = if c.flag("interleaved", false)? { RopeLayout::Interleaved } else { RopeLayout::Half };
    if rotated < 0 || rotated > size || (flat && count == 0) {
        return Err(c.misfit(format!("cannot rotate {rotated} of {size} elements of {count} heads")));
    }
    // [batch, 1, positions, rotated / 2]
    let angles = |index: usize| {
        let t = c.tensor(index)?;
        let t = c.maybe(3).map_or(t.clone(), |ids| t.take(&ids, 0));
        let [batch, n, half] = c.sizes(&t, "cosines and sines by position")?;
        if n != positions {
            return Err(c.misfit(format!("has {n} positions in {}, found {positions}", t.ty())));
        }
        Ok::<Tensor, Diagnostic>(t.reshape([batch, 1, n, half]))
    };
    let mut out = heads.slice(-1, 0, rotated).rope(&angles(1)?, &angles(2)?, layout);
    if rotated < size {
        let rest = heads.slice(-1, rotated, size);
        out = concat(&[&out, &rest], -1).ok_or_else(|| Diagnostic::bug("nothing to join"))?;
    }
    let shape = c.shape(&x)?;
    Ok(if flat { out.permute(&[0, 2, 1, 3]).reshape(shape) } else { out })
}
