//! The 67 ops by name: elementwise ops, reductions, normalisations, losses; the rest is in the neighbouring files.

use super::attrs::{Attrs, axis, wrong};
use super::builder::Builder;
use super::{einsum, linear, shaping};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

type Built = Result<Value, Diagnostic>;

/// The value of one node. Errors: `op-program` for an unknown op or attributes that do not fit it.
pub(super) fn build(b: &mut Builder, op: &str, args: &[Value], attrs: &Attrs<'_>) -> Built {
    if let Some(scalar) = unary_scalar(op) {
        attrs.count(args.len(), 1, 1)?;
        return b.map(scalar, args);
    }
    if let Some(scalar) = binary_scalar(op) {
        attrs.count(args.len(), 2, 2)?;
        return b.wide(scalar, args);
    }
    let (least, most) = operands(op).ok_or_else(|| wrong(format!("there is no op `{op}`")))?;
    attrs.count(args.len(), least, most)?;
    match op {
        "einsum" => einsum::build(b, &attrs.text("equation", None)?, args),
        "matmul" => linear::matmul(b, args[0], args[1]),
        "attention" => linear::attention(b, args, attrs),
        "rope" => linear::rope(b, args, &attrs.text("style", None)?),
        "concat" | "stack" => shaping::join(b, op == "stack", args, attrs),
        "gather" | "index_select" | "embedding" | "scatter_add" => shaping::indexing(b, op, args, attrs),
        "reshape" | "transpose" | "permute" | "broadcast_to" | "slice" | "pad" | "flip" | "tril" | "triu" => {
            shaping::movement(b, op, args[0], attrs)
        }
        "where" => b.wide(ScalarOp::Select {}, args),
        "layer_norm" => layer_norm(b, args, attrs.number("eps", None)?),
        "rms_norm" => rms_norm(b, args[0], args[1], attrs.number("eps", None)?),
        "cross_entropy" => cross_entropy(b, args[0], args[1], attrs),
        "softmax" | "log_softmax" | "cumsum" => {
            let dim = axis(attrs.int("dim", None)?, b.rank(args[0]))?;
            match op {
                "softmax" => softmax(b, args[0], dim),
                "log_softmax" => log_softmax(b, args[0], dim),
                _ => b.push(GraphOp::Cumsum { axis: dim }, &[args[0]]),
            }
        }
        "sum" | "mean" | "max" | "min" | "var" | "logsumexp" => fold(b, op, args[0], attrs),
        _ => composite(b, op, args[0], attrs),
    }
}

/// Smallest and largest number of operands of the ops that are no scalar ops.
fn operands(op: &str) -> Option<(usize, usize)> {
    Some(match op {
        "matmul" | "rms_norm" | "gather" | "index_select" | "embedding" | "cross_entropy" => (2, 2),
        "where" | "layer_norm" | "scatter_add" | "rope" => (3, 3),
        "attention" => (3, 4),
        "concat" | "stack" | "einsum" => (1, usize::MAX),
        "sigmoid" | "relu" | "silu" | "square" | "reciprocal" | "softplus" | "gelu" | "add_scalar" | "mul_scalar"
        | "pow_scalar" | "clamp" | "sum" | "mean" | "max" | "min" | "var" | "logsumexp" | "cumsum" | "softmax"
        | "log_softmax" | "reshape" | "transpose" | "permute" | "broadcast_to" | "slice" | "pad" | "flip" | "tril"
        | "triu" => (1, 1),
        _ => return None,
    })
}

fn unary_scalar(op: &str) -> Option<ScalarOp> {
    Some(match op {
        "neg" => ScalarOp::Neg {},
        "exp" => ScalarOp::Exp {},
        "log" => ScalarOp::Log {},
        "sqrt" => ScalarOp::Sqrt {},
        "rsqrt" => ScalarOp::Rsqrt {},
        "tanh" => ScalarOp::Tanh {},
        "erf" => ScalarOp::Erf {},
        "sin" => ScalarOp::Sin {},
        "cos" => ScalarOp::Cos {},
        "abs" => ScalarOp::Abs {},
        "log1p" => ScalarOp::Log1p {},
        "expm1" => ScalarOp::Expm1 {},
        _ => return None,
    })
}

fn binary_scalar(op: &str) -> Option<ScalarOp> {
    Some(match op {
        "add" => ScalarOp::Add {},
        "sub" => ScalarOp::Sub {},
        "mul" => ScalarOp::Mul {},
        "div" => ScalarOp::Div {},
        "maximum" => ScalarOp::Max {},
        "minimum" => ScalarOp::Min {},
        "pow" => ScalarOp::Pow {},
        "lt" => ScalarOp::Lt {},
        "le" => ScalarOp::Le {},
        "gt" => ScalarOp::Gt {},
        "ge" => ScalarOp::Ge {},
        "eq" => ScalarOp::Eq {},
        _ => return None,
    })
}

/// Elementwise ops of one operand that are more than one scalar op.
fn composite(b: &mut Builder, op: &str, x: Value, attrs: &Attrs<'_>) -> Built {
    match op {
        "sigmoid" => sigmoid(b, x),
        "relu" => b.with(ScalarOp::Max {}, x, 0.0),
        "silu" => {
            let s = sigmoid(b, x)?;
            b.mul(x, s)
        }
        "square" => b.mul(x, x),
        "reciprocal" => {
            let one = b.like(x, 1.0)?;
            b.div(one, x)
        }
        "softplus" => softplus(b, x),
        "gelu" => gelu(b, x, &attrs.text("approximate", Some("none"))?),
        "add_scalar" => b.with(ScalarOp::Add {}, x, attrs.number("value", None)?),
        "mul_scalar" => b.with(ScalarOp::Mul {}, x, attrs.number("value", None)?),
        "pow_scalar" => b.with(ScalarOp::Pow {}, x, attrs.number("value", None)?),
        "clamp" => {
            let low = attrs.optional("min")?.map_or(Ok(x), |v| b.with(ScalarOp::Max {}, x, v))?;
            attrs.optional("max")?.map_or(Ok(low), |v| b.with(ScalarOp::Min {}, low, v))
        }
        _ => Err(wrong(format!("there is no op `{op}`"))),
    }
}

fn sigmoid(b: &mut Builder, x: Value) -> Built {
    let minus = b.map(ScalarOp::Neg {}, &[x])?;
    let e = b.map(ScalarOp::Exp {}, &[minus])?;
    let below = b.with(ScalarOp::Add {}, e, 1.0)?;
    let one = b.like(x, 1.0)?;
    b.div(one, below)
}

/// log(1 + exp(x)), and x itself above 20 as torch has it; the exponential never sees more than 20.
fn softplus(b: &mut Builder, x: Value) -> Built {
    let capped = b.with(ScalarOp::Min {}, x, 20.0)?;
    let e = b.map(ScalarOp::Exp {}, &[capped])?;
    let soft = b.map(ScalarOp::Log1p {}, &[e])?;
    let above = b.with(ScalarOp::Gt {}, x, 20.0)?;
    b.map(ScalarOp::Select {}, &[above, x, soft])
}

fn gelu(b: &mut Builder, x: Value, approximate: &str) -> Built {
    let curve = match approximate {
        "none" => {
            let scaled = b.with(ScalarOp::Mul {}, x, std::f64::consts::FRAC_1_SQRT_2)?;
            b.map(ScalarOp::Erf {}, &[scaled])?
        }
        "tanh" => {
            let square = b.mul(x, x)?;
            let cube = b.mul(square, x)?;
            let third = b.with(ScalarOp::Mul {}, cube, 0.044715)?;
            let inner = b.add(x, third)?;
            let root = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            let scaled = b.with(ScalarOp::Mul {}, inner, root)?;
            b.map(ScalarOp::Tanh {}, &[scaled])?
        }
        other => return Err(wrong(format!("`gelu` is none or tanh, found `{other}`"))),
    };
    let above = b.with(ScalarOp::Add {}, curve, 1.0)?;
    let half = b.with(ScalarOp::Mul {}, x, 0.5)?;
    b.mul(half, above)
}

/// Reductions with the attributes `dims` (all if absent) and `keepdim`.
fn fold(b: &mut Builder, op: &str, x: Value, attrs: &Attrs<'_>) -> Built {
    let rank = b.rank(x);
    let axes: Vec<usize> = match attrs.ints("dims")? {
        Some(dims) => dims.into_iter().map(|d| axis(d, rank)).collect::<Result<_, Diagnostic>>()?,
        None => (0..rank).collect(),
    };
    let keep = attrs.flag("keepdim")?;
    match op {
        "sum" => b.reduce(ReduceKind::Sum, x, &axes, keep),
        "mean" => b.mean(x, &axes, keep),
        "max" => b.reduce(ReduceKind::Max, x, &axes, keep),
        "min" => b.reduce(ReduceKind::Min, x, &axes, keep),
        "var" => {
            let mean = b.mean(x, &axes, true)?;
            let off = b.sub(x, mean)?;
            let square = b.mul(off, off)?;
            b.mean(square, &axes, keep)
        }
        _ => logsumexp(b, x, &axes, keep),
    }
}

fn logsumexp(b: &mut Builder, x: Value, axes: &[usize], keep: bool) -> Built {
    let largest = b.reduce(ReduceKind::Max, x, axes, true)?;
    // An infinite maximum is not subtracted: inf - inf would be NaN.
    let size = b.map(ScalarOp::Abs {}, &[largest])?;
    let infinite = b.with(ScalarOp::Eq {}, size, f64::INFINITY)?;
    let zero = b.like(largest, 0.0)?;
    let shift = b.map(ScalarOp::Select {}, &[infinite, zero, largest])?;
    let off = b.sub(x, shift)?;
    let e = b.map(ScalarOp::Exp {}, &[off])?;
    let sum = b.reduce(ReduceKind::Sum, e, axes, true)?;
    let log = b.map(ScalarOp::Log {}, &[sum])?;
    let out = b.add(log, shift)?;
    if keep {
        return Ok(out);
    }
    let shape = b.shape(x)?;
    let left: Vec<i64> = (0..shape.len()).filter(|a| !axes.contains(a)).map(|a| shape[a]).collect();
    b.reshape(out, &left)
}

pub(super) fn softmax(b: &mut Builder, x: Value, dim: usize) -> Built {
    let largest = b.reduce(ReduceKind::Max, x, &[dim], true)?;
    let off = b.sub(x, largest)?;
    let e = b.map(ScalarOp::Exp {}, &[off])?;
    let sum = b.reduce(ReduceKind::Sum, e, &[dim], true)?;
    b.div(e, sum)
}

fn log_softmax(b: &mut Builder, x: Value, dim: usize) -> Built {
    let largest = b.reduce(ReduceKind::Max, x, &[dim], true)?;
    let off = b.sub(x, largest)?;
    let e = b.map(ScalarOp::Exp {}, &[off])?;
    let sum = b.reduce(ReduceKind::Sum, e, &[dim], true)?;
    let log = b.map(ScalarOp::Log {}, &[sum])?;
    b.sub(off, log)
}

fn last(b: &Builder, x: Value) -> Result<usize, Diagnostic> {
    axis(-1, b.rank(x))
}

fn layer_norm(b: &mut Builder, args: &[Value], eps: f64) -> Built {
    let dim = last(b, args[0])?;
    let mean = b.mean(args[0], &[dim], true)?;
    let off = b.sub(args[0], mean)?;
    let square = b.mul(off, off)?;
    let variance = b.mean(square, &[dim], true)?;
    let safe = b.with(ScalarOp::Add {}, variance, eps)?;
    let scale = b.map(ScalarOp::Rsqrt {}, &[safe])?;
    let unit = b.mul(off, scale)?;
    let scaled = b.mul(unit, args[1])?;
    b.add(scaled, args[2])
}

fn rms_norm(b: &mut Builder, x: Value, weight: Value, eps: f64) -> Built {
    let dim = last(b, x)?;
    let square = b.mul(x, x)?;
    let mean = b.mean(square, &[dim], true)?;
    let safe = b.with(ScalarOp::Add {}, mean, eps)?;
    let scale = b.map(ScalarOp::Rsqrt {}, &[safe])?;
    let unit = b.mul(x, scale)?;
    b.mul(unit, weight)
}

/// logits [n, v], targets [n] -> mean over the targets that are not `ignore_index`.
fn cross_entropy(b: &mut Builder, logits: Value, targets: Value, attrs: &Attrs<'_>) -> Built {
    let ignore = attrs.int("ignore_index", Some(-100))?;
    let smoothing = attrs.number("label_smoothing", Some(0.0))?;
    let &[n, classes] = b.shape(logits)?.as_slice() else {
        return Err(wrong("`cross_entropy` needs logits of rank 2"));
    };
    if b.shape(targets)? != [n] || b.dtype(targets) != DType::I64 {
        return Err(wrong(format!("`cross_entropy` of {n} rows needs {n} integer targets")));
    }
    let ignored = b.with(ScalarOp::Eq {}, targets, ignore as f64)?;
    let zero = b.like(targets, 0.0)?;
    let safe = b.map(ScalarOp::Select {}, &[ignored, zero, targets])?;
    let ids = b.reshape(safe, &[n, 1])?;
    let logs = log_softmax(b, logits, 1)?;
    let picked = b.push(GraphOp::TakeAlong { axis: 1 }, &[logs, ids])?;
    let mut row = b.reshape(picked, &[n])?;
    if smoothing != 0.0 {
        let sum = b.reduce(ReduceKind::Sum, logs, &[1], false)?;
        let even = b.with(ScalarOp::Mul {}, sum, smoothing / classes as f64)?;
        let sharp = b.with(ScalarOp::Mul {}, row, 1.0 - smoothing)?;
        row = b.add(sharp, even)?;
    }
    let nothing = b.like(row, 0.0)?;
    let row = b.map(ScalarOp::Select {}, &[ignored, nothing, row])?;
    let loss = b.map(ScalarOp::Neg {}, &[row])?;
    let total = b.reduce(ReduceKind::Sum, loss, &[0], false)?;
    let one = b.like(nothing, 1.0)?;
    let valid = b.map(ScalarOp::Select {}, &[ignored, nothing, one])?;
    let count = b.reduce(ReduceKind::Sum, valid, &[0], false)?;
    b.div(total, count)
}
