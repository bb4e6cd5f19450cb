//! Ops that move values or choose places.

use super::attrs::{Attrs, axis, wrong};
use super::builder::{Builder, dims_of};
use super::linear::band;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::Dim;

type Built = Result<Value, Diagnostic>;

/// concat and stack.
pub(super) fn join(b: &mut Builder, stack: bool, args: &[Value], attrs: &Attrs<'_>) -> Built {
    let rank = b.rank(args[0]) + usize::from(stack);
    let dim = axis(attrs.int("dim", Some(0))?, rank)?;
    let mut parts = args.to_vec();
    if stack {
        for part in &mut parts {
            let mut shape = b.shape(*part)?;
            if shape.len() + 1 != rank {
                return Err(wrong("`stack` needs operands of one shape"));
            }
            shape.insert(dim, 1);
            *part = b.reshape(*part, &shape)?;
        }
    }
    b.push(GraphOp::Concat { axis: dim }, &parts)
}

/// Ops of one operand.
pub(super) fn movement(b: &mut Builder, op: &str, x: Value, attrs: &Attrs<'_>) -> Built {
    let shape = b.shape(x)?;
    let rank = shape.len();
    let list = |key: &str| attrs.ints(key)?.ok_or_else(|| wrong(format!("`{op}` needs a list `{key}`")));
    let axes = |dims: Vec<i64>| dims.into_iter().map(|d| axis(d, rank)).collect::<Result<Vec<usize>, Diagnostic>>();
    match op {
        "reshape" => {
            let shape = with_rest(list("shape")?, &shape)?;
            b.reshape(x, &shape)
        }
        "broadcast_to" => {
            let mut wanted = list("shape")?;
            // -1 keeps the size that is there.
            for (w, &s) in wanted.iter_mut().rev().zip(shape.iter().rev()) {
                if *w == -1 {
                    *w = s;
                }
            }
            b.broadcast(x, &wanted)
        }
        "transpose" => {
            let (i, j) = (axis(attrs.int("dim0", None)?, rank)?, axis(attrs.int("dim1", None)?, rank)?);
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(i, j);
            b.transpose(x, perm)
        }
        "permute" => {
            let perm = axes(list("dims")?)?;
            b.transpose(x, perm)
        }
        "flip" => {
            let axes = axes(list("dims")?)?;
            b.push(GraphOp::Flip { axes }, &[x])
        }
        "slice" => slice(b, x, &shape, attrs),
        "pad" => {
            let value = b.scalar(attrs.number("value", Some(0.0))?, b.dtype(x))?;
            let amounts = attrs.pairs("pads")?.into_iter().map(|(l, h)| (l.into(), h.into())).collect();
            b.push(GraphOp::Pad { amounts }, &[x, value])
        }
        _ => {
            let inside = band(b, &shape, attrs.int("k", Some(0))?, op == "tril")?;
            let zero = b.like(x, 0.0)?;
            b.map(ScalarOp::Select {}, &[inside, x, zero])
        }
    }
}

/// A shape in which one -1 stands for what is left.
fn with_rest(mut wanted: Vec<i64>, shape: &[i64]) -> Result<Vec<i64>, Diagnostic> {
    if let Some(at) = wanted.iter().position(|&d| d == -1) {
        wanted[at] = 1;
        let product = |s: &[i64]| s.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
        let rest = match (product(shape), product(&wanted)) {
            (Some(all), Some(known)) if known > 0 && all % known == 0 => all / known,
            _ => return Err(wrong(format!("cannot reshape {shape:?}: no size fits for -1"))),
        };
        wanted[at] = rest;
    }
    if wanted.iter().any(|&d| d < 0) {
        return Err(wrong(format!("a negative size in the shape {wanted:?}")));
    }
    Ok(wanted)
}

/// Negative positions count from the end, and positions beyond the ends are cut, as in Python.
fn slice(b: &mut Builder, x: Value, shape: &[i64], attrs: &Attrs<'_>) -> Built {
    let dim = axis(attrs.int("dim", None)?, shape.len())?;
    let n = shape[dim];
    let inside = |v: i64| if v < 0 { v.saturating_add(n).max(0) } else { v.min(n) };
    let start = inside(attrs.int("start", Some(0))?);
    let end = inside(attrs.int("end", Some(n))?).max(start);
    b.slice(x, dim, start, end, attrs.int("step", Some(1))?)
}

pub(super) fn indexing(b: &mut Builder, op: &str, args: &[Value], attrs: &Attrs<'_>) -> Built {
    if op == "embedding" {
        return b.push(GraphOp::Take { axis: 0 }, args);
    }
    let dim = axis(attrs.int("dim", None)?, b.rank(args[0]))?;
    match op {
        "index_select" if b.rank(args[1]) > 1 => Err(wrong("`index_select` needs indices of rank 1")),
        "index_select" => {
            let ids = if b.rank(args[1]) == 0 { b.reshape(args[1], &[1])? } else { args[1] };
            b.push(GraphOp::Take { axis: dim }, &[args[0], ids])
        }
        "gather" => {
            let ids = b.shape(args[1])?;
            let x = corner(b, args[0], &ids, Some(dim))?;
            b.push(GraphOp::TakeAlong { axis: dim }, &[x, args[1]])
        }
        _ => {
            let ids = b.shape(args[1])?;
            let source = corner(b, args[2], &ids, None)?;
            let base = corner(b, args[0], &ids, Some(dim))?;
            let sum = b.push(GraphOp::ScatterAdd { axis: dim }, &[base, args[1], source])?;
            if base == args[0] {
                return Ok(sum);
            }
            let start = vec![Dim::constant(0); b.rank(args[0])];
            b.push(GraphOp::UpdateSlice { start }, &[args[0], sum])
        }
    }
}

/// The first elements of `x`, as many as `shape` has along every axis but `but`.
fn corner(b: &mut Builder, x: Value, shape: &[i64], but: Option<usize>) -> Built {
    let own = b.shape(x)?;
    if own.len() != shape.len() {
        return Err(wrong(format!("expected operands of one rank, found {} and {}", own.len(), shape.len())));
    }
    let limit: Vec<i64> = (0..own.len()).map(|i| if but == Some(i) { own[i] } else { shape[i] }).collect();
    if limit == own {
        return Ok(x);
    }
    let start = vec![Dim::constant(0); own.len()];
    b.push(GraphOp::Slice { start, limit: dims_of(&limit), stride: vec![1; own.len()] }, &[x])
}
