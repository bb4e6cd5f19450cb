//! Products: matmul, attention, rotary positions.

use super::attrs::{Attrs, axis, wrong};
use super::builder::Builder;
use super::ops::softmax;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{DotDims, GraphOp, ScalarOp};

type Built = Result<Value, Diagnostic>;

/// torch.matmul: vectors get an axis of size 1 that leaves again, batch axes broadcast.
pub(super) fn matmul(b: &mut Builder, x: Value, y: Value) -> Built {
    let (mut xs, mut ys) = (b.shape(x)?, b.shape(y)?);
    if xs.is_empty() || ys.is_empty() {
        return Err(wrong("`matmul` needs operands of rank 1 or more"));
    }
    let (row, column) = (xs.len() == 1, ys.len() == 1);
    if row {
        xs.insert(0, 1);
    }
    if column {
        ys.push(1);
    }
    let (mut x, mut y) = (b.reshape(x, &xs)?, b.reshape(y, &ys)?);
    let batched = ys.len() > 2;
    if batched {
        let split = |s: &[i64]| s.split_at(s.len() - 2).0.to_vec();
        let common = broadcast_sizes(&split(&xs), &split(&ys))?;
        let with = |s: &[i64]| common.iter().chain(&s[s.len() - 2..]).copied().collect::<Vec<i64>>();
        (xs, ys) = (with(&xs), with(&ys));
        (x, y) = (b.broadcast(x, &xs)?, b.broadcast(y, &ys)?);
    }
    let batch: Vec<usize> = if batched { (0..ys.len() - 2).collect() } else { Vec::new() };
    let contract = (vec![xs.len() - 1], vec![ys.len() - 2]);
    let out = b.dot(x, y, DotDims { batch: (batch.clone(), batch), contract })?;
    let mut shape = b.shape(out)?;
    if column {
        shape.pop();
    }
    if row {
        shape.remove(shape.len() - if column { 1 } else { 2 });
    }
    b.reshape(out, &shape)
}

fn broadcast_sizes(x: &[i64], y: &[i64]) -> Result<Vec<i64>, Diagnostic> {
    let rank = x.len().max(y.len());
    let size = |s: &[i64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |at| s[at]);
    let join = |i: usize| match (size(x, i), size(y, i)) {
        (a, b) if a == b || b == 1 => Ok(a),
        (1, b) => Ok(b),
        _ => Err(wrong(format!("cannot broadcast the batch {x:?} to {y:?}"))),
    };
    (0..rank).map(join).collect()
}

/// q [b, h, t, d], k and v [b, g, s, d] with h a multiple of g -> [b, h, t, d]; query head i reads head i / (h / g).
pub(super) fn attention(b: &mut Builder, args: &[Value], attrs: &Attrs<'_>) -> Built {
    let (q, k, v) = (b.shape(args[0])?, b.shape(args[1])?, b.shape(args[2])?);
    let (&[batch, heads, rows, width], &[_, groups, columns, _], &[_, _, _, out]) =
        (q.as_slice(), k.as_slice(), v.as_slice())
    else {
        return Err(wrong("`attention` needs operands of rank 4"));
    };
    if groups == 0 || heads % groups != 0 {
        return Err(wrong(format!("`attention` needs a multiple of {groups} query heads, found {heads}")));
    }
    let grouped = [batch, groups, heads / groups, rows];
    let query = b.reshape(args[0], &[&grouped[..], &[width]].concat())?;
    let both = (vec![0, 1], vec![0, 1]);
    let dims = DotDims { batch: both.clone(), contract: (vec![4], vec![3]) };
    let scores = b.dot(query, args[1], dims)?;
    let scores = b.reshape(scores, &[batch, heads, rows, columns])?;
    let scale = attrs.number("scale", Some((width as f64).powf(-0.5)))?;
    let mut scores = b.with(ScalarOp::Mul {}, scores, scale)?;
    if let Some(&mask) = args.get(3) {
        scores = b.add(scores, mask)?;
    }
    if attrs.flag("causal")? {
        let shape = b.shape(scores)?;
        let visible = band(b, &shape, columns - rows, true)?;
        let hidden = b.like(scores, f64::NEG_INFINITY)?;
        scores = b.map(ScalarOp::Select {}, &[visible, scores, hidden])?;
    }
    let weights = softmax(b, scores, 3)?;
    let weights = b.reshape(weights, &[&grouped[..], &[columns]].concat())?;
    let result = b.dot(weights, args[2], DotDims { batch: both, contract: (vec![4], vec![2]) })?;
    b.reshape(result, &[batch, heads, rows, out])
}

/// Where, in the last two axes of `shape`, column <= row + k (`lower`) or column >= row + k.
pub(super) fn band(b: &mut Builder, shape: &[i64], k: i64, lower: bool) -> Built {
    let rank = shape.len();
    if rank < 2 {
        return Err(wrong("expected an operand of rank 2 or more"));
    }
    let (row, column) = (b.iota(rank - 2, shape)?, b.iota(rank - 1, shape)?);
    let k = b.push(GraphOp::Constant { value: Array::from_i64(&[], &[k])?.into() }, &[])?;
    let edge = b.add(row, k)?;
    let compare = if lower { ScalarOp::Le {} } else { ScalarOp::Ge {} };
    b.map(compare, &[column, edge])
}

/// x [.., t, d], cos and sin [t, d / 2]; pairs (i, i + d / 2) or (2i, 2i + 1) are rotated.
pub(super) fn rope(b: &mut Builder, args: &[Value], style: &str) -> Built {
    let (x, cos, sin) = (args[0], args[1], args[2]);
    let shape = b.shape(x)?;
    let last = axis(-1, shape.len())?;
    let width = shape[last];
    if width % 2 != 0 {
        return Err(wrong(format!("`rope` needs an even last size, found {width}")));
    }
    let (first, second) = match style {
        "half" => (b.slice(x, last, 0, width / 2, 1)?, b.slice(x, last, width / 2, width, 1)?),
        // The second slice starts at 1; of nothing it must start at 0.
        "interleaved" => (b.slice(x, last, 0, width, 2)?, b.slice(x, last, width.min(1), width, 2)?),
        other => return Err(wrong(format!("the style of `rope` is half or interleaved, found `{other}`"))),
    };
    let (ac, bs) = (b.mul(first, cos)?, b.mul(second, sin)?);
    let (bc, as_) = (b.mul(second, cos)?, b.mul(first, sin)?);
    let (left, right) = (b.sub(ac, bs)?, b.add(bc, as_)?);
    if style == "half" {
        return b.push(GraphOp::Concat { axis: last }, &[left, right]);
    }
    let mut pair = b.shape(left)?;
    pair.push(1);
    let (left, right) = (b.reshape(left, &pair)?, b.reshape(right, &pair)?);
    let joined = b.push(GraphOp::Concat { axis: last + 1 }, &[left, right])?;
    b.reshape(joined, &shape)
}
