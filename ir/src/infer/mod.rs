//! Types of results. This file is the match; bodies longer than a line are in one file per family.

pub mod control;
mod indexing;
mod movement;
pub mod require;
mod scalar;

pub use scalar::scalar_type;

use crate::diag::Diagnostic;
use crate::graph::Module;
use crate::op::{Axis, DotDims, GraphOp};
use crate::types::{DType, Dim, Type};

/// The name an op has in text: that of the scalar of a `map`, of the kind of a `reduce`.
pub fn shown_name(op: &GraphOp) -> &'static str {
    if let GraphOp::Map { op } = op {
        return op.info().name;
    }
    if let GraphOp::Reduce { kind, .. } = op { kind.name() } else { op.info().name }
}

/// The types of `op`'s results, most often one.
///
/// Errors: `operand-count`, `shape-mismatch`, `dtype-mismatch`, `bad-attribute`, `dim-overflow`, `unknown-function`.
pub fn infer(module: &Module, op: &GraphOp, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    let arity = op.info().arity;
    if !arity.accepts(args.len()) {
        let name = shown_name(op);
        return Err(Diagnostic::new(
            "operand-count",
            format!("`{name}` takes {arity:?} operands, found {}", args.len()),
        ));
    }
    match op {
        GraphOp::Parameter { .. } => Err(Diagnostic::bug("parameters are declared, not pushed")),
        GraphOp::Constant { value } => one(Type::new(value.0.dtype(), value.0.shape().iter().copied())),
        GraphOp::Iota { axis, shape, dtype } => {
            let ty = Type { dtype: *dtype, shape: shape.clone() };
            axis_of(&ty, *axis)?;
            plain("iota", *dtype)?;
            one(ty)
        }
        GraphOp::Size { .. } => one(Type::scalar(DType::I64)),
        GraphOp::Map { op } => scalar::map(op, args),
        GraphOp::Reduce { axes, .. } => {
            plain(shown_name(op), args[0].dtype)?;
            one(without(args[0], axes)?)
        }
        GraphOp::Argmax { axis } | GraphOp::Argmin { axis } => {
            plain(shown_name(op), args[0].dtype)?;
            let result = Type { dtype: DType::I64, shape: without(args[0], &[*axis])?.shape };
            // Fewer results are fine: there is nothing to find then.
            if args[0].shape[*axis].is(0) && !result.shape.iter().any(|d| d.is(0)) {
                let message = format!("axis {axis} of {} has no largest or smallest", args[0]);
                return Err(Diagnostic::new("empty-axis", message));
            }
            one(result)
        }
        GraphOp::Cumsum { axis } => {
            plain("cumsum", args[0].dtype)?;
            axis_of(args[0], *axis)?;
            one(args[0].clone())
        }
        GraphOp::Dot { dims } => dot(dims, args[0], args[1]),
        GraphOp::Broadcast { shape, dims } => movement::broadcast(args[0], shape, dims),
        GraphOp::Reshape { shape } => movement::reshape(args[0], shape),
        GraphOp::Transpose { perm } => movement::transpose(args[0], perm),
        GraphOp::Slice { start, limit, stride } => movement::slice(args[0], start, limit, stride),
        GraphOp::Pad { amounts } => movement::pad(args[0], args[1], amounts),
        GraphOp::Concat { axis } => movement::concat(*axis, args),
        GraphOp::Flip { axes } => without(args[0], axes).and_then(|_| one(args[0].clone())),
        GraphOp::Take { axis } => indexing::take(*axis, args[0], args[1]),
        GraphOp::TakeAlong { axis } => indexing::take_along(*axis, args[0], args[1]),
        GraphOp::ScatterAdd { axis } => indexing::scatter_add(*axis, args),
        GraphOp::UpdateSlice { start } => indexing::update_slice(args[0], args[1], start),
        GraphOp::Call { function } => control::call(module, function, args),
        GraphOp::Cond { yes, no } => control::cond(module, yes, no, args),
        GraphOp::Scan { body, carries, length } => control::scan(module, body, *carries, length, args),
    }
}

pub(crate) fn one(ty: Type) -> Result<Vec<Type>, Diagnostic> {
    Ok(vec![ty])
}

pub(crate) fn shapes_differ(what: &str, a: &Type, b: &Type, axis: Option<(Axis, Axis)>) -> Diagnostic {
    let at = match axis {
        Some((i, j)) => format!(": axis {i} is {} on the left, axis {j} is {} on the right", a.shape[i], b.shape[j]),
        None => format!(": ranks are {} and {}", a.rank(), b.rank()),
    };
    Diagnostic::new("shape-mismatch", format!("`{what}` of {a} and {b}{at}"))
}

pub(crate) fn axis_of(ty: &Type, axis: Axis) -> Result<&Dim, Diagnostic> {
    ty.shape.get(axis).ok_or_else(|| {
        Diagnostic::new("bad-attribute", format!("axis {axis} is out of range for {ty}, which has rank {}", ty.rank()))
    })
}

/// Refuses block encodings where a number is needed.
pub(crate) fn plain(what: &str, dtype: DType) -> Result<(), Diagnostic> {
    if dtype.is_block() {
        return Err(Diagnostic::new("dtype-mismatch", format!("`{what}` needs a plain dtype, found {dtype}"))
            .note("`cast` to f32 dequantises a block encoding"));
    }
    Ok(())
}

/// The type without `axes`, which must be in range and differ.
pub(crate) fn without(ty: &Type, axes: &[Axis]) -> Result<Type, Diagnostic> {
    let mut drop = vec![false; ty.rank()];
    for &a in axes {
        axis_of(ty, a)?;
        if std::mem::replace(&mut drop[a], true) {
            return Err(Diagnostic::new("bad-attribute", format!("axis {a} is named twice in {axes:?}")));
        }
    }
    let shape = ty.shape.iter().zip(&drop).filter(|(_, d)| !**d).map(|(s, _)| s.clone()).collect();
    Ok(Type { dtype: ty.dtype, shape })
}

fn dot(dims: &DotDims, a: &Type, b: &Type) -> Result<Vec<Type>, Diagnostic> {
    if a.dtype != b.dtype {
        return Err(Diagnostic::new("dtype-mismatch", format!("`dot` of {a} and {b}: the dtypes differ")));
    }
    plain("dot", a.dtype)?;
    for (l, r) in [&dims.batch, &dims.contract] {
        if l.len() != r.len() {
            return Err(Diagnostic::new(
                "bad-attribute",
                format!("`dot` pairs axes {l:?} with {r:?}: the counts differ"),
            ));
        }
        for (&i, &j) in l.iter().zip(r) {
            if axis_of(a, i)? != axis_of(b, j)? {
                return Err(shapes_differ("dot", a, b, Some((i, j))));
            }
        }
    }
    let used = |x: &[Axis], y: &[Axis]| x.iter().chain(y).copied().collect::<Vec<Axis>>();
    let free_a = without(a, &used(&dims.batch.0, &dims.contract.0))?;
    let free_b = without(b, &used(&dims.batch.1, &dims.contract.1))?;
    let batch = dims.batch.0.iter().map(|&i| a.shape[i].clone());
    one(Type { dtype: a.dtype, shape: batch.chain(free_a.shape).chain(free_b.shape).collect() })
}
