//! The forward rule of each graph op: tangents of its results from those of its operands.
//!
//! Linear ops do to tangents what they do to values. A scalar op works at each element by itself, so the factor of its reverse
//! rule is that of its forward rule, too.

mod control;

pub use control::Moved;

use super::vjp::{fold, scalar};
use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};
use tilewright_ir::op::{GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::Type;

/// A node whose operands move.
pub struct Motion<'a> {
    /// The node.
    pub node: NodeId,
    /// Its operands.
    pub args: &'a [Value],
    /// Their tangents, where they have one; one has at least.
    pub tangents: &'a [Option<Value>],
}

/// Tangents of the results of a node; none where they are zero. A node that runs functions may be changed to one that
/// returns more, after its own results.
pub fn jvp(
    b: &mut Build<'_>,
    moved: &mut Moved,
    op: &GraphOp,
    m: &Motion<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let (x, t) = (m.args, m.tangents);
    let y = Value { node: m.node, index: 0 };
    let one = |tangent: Value| Ok(vec![Some(tangent)]);
    match op {
        GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => {
            Err(Diagnostic::bug("a node without operands that move"))
        }
        GraphOp::Argmax { .. } | GraphOp::Argmin { .. } => Ok(vec![None]),
        GraphOp::Map { op } => Ok(vec![map(b, op, (x, t), y)?]),
        GraphOp::Reduce { kind, axes } => {
            let tangent = t[0].ok_or_else(|| Diagnostic::bug("a reduction of what stays"))?;
            match kind {
                ReduceKind::Sum => one(b.sum(tangent, axes.clone())?),
                ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => {
                    // The reverse rule with a cotangent of 1 is the slope of each element.
                    let seed = b.full(&b.ty(y), 1.0)?;
                    let slope = fold::reduce(b, *kind, axes, x[0], (y, seed))?;
                    let parts = b.mul(slope, tangent)?;
                    one(b.sum(parts, axes.clone())?)
                }
            }
        }
        GraphOp::Dot { .. } => {
            let left = t[0].map(|t| b.push(op.clone(), &[t, x[1]])).transpose()?;
            let right = t[1].map(|t| b.push(op.clone(), &[x[0], t])).transpose()?;
            Ok(vec![sum(b, left, right)?])
        }
        GraphOp::Cumsum { .. }
        | GraphOp::Broadcast { .. }
        | GraphOp::Reshape { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Slice { .. }
        | GraphOp::Flip { .. }
        | GraphOp::Pad { .. }
        | GraphOp::Concat { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. }
        | GraphOp::ScatterAdd { .. }
        | GraphOp::UpdateSlice { .. } => {
            // Linear in their float operands together; integers among them are positions, which stay.
            let operands = x.iter().zip(t).map(|(&x, &t)| tangent_or_zero(b, x, t));
            let operands = operands.collect::<Result<Vec<Value>, Diagnostic>>()?;
            one(b.push(op.clone(), &operands)?)
        }
        GraphOp::Call { function } => control::call(b, moved, function, m),
        GraphOp::Cond { yes, no } => control::cond(b, moved, (yes, no), m),
        GraphOp::Scan { body, carries, length } => control::scan(b, moved, (body, *carries, length), m),
    }
}

/// The tangent of an operand, zeros for a float that stays, and the operand itself if it is no float.
fn tangent_or_zero(b: &mut Build<'_>, x: Value, tangent: Option<Value>) -> Result<Value, Diagnostic> {
    let ty: Type = b.ty(x);
    match tangent {
        Some(tangent) => Ok(tangent),
        None if ty.dtype.is_float() => b.full(&ty, 0.0),
        None => Ok(x),
    }
}

fn sum(b: &mut Build<'_>, left: Option<Value>, right: Option<Value>) -> Result<Option<Value>, Diagnostic> {
    match (left, right) {
        (Some(left), Some(right)) => b.add(left, right).map(Some),
        (one, None) | (None, one) => Ok(one),
    }
}

fn map(
    b: &mut Build<'_>,
    op: &ScalarOp,
    (x, t): (&[Value], &[Option<Value>]),
    y: Value,
) -> Result<Option<Value>, Diagnostic> {
    if let ScalarOp::Cast { to } = op {
        let tangent = t[0].filter(|_| to.is_float());
        return tangent.map(|t| b.cast(t, *to)).transpose();
    }
    let mut total = None;
    for (i, tangent) in t.iter().enumerate() {
        if let Some(tangent) = *tangent {
            let want: Vec<bool> = (0..x.len()).map(|j| j == i).collect();
            let part = scalar::vjp(b, op, x, (y, tangent), &want)?[i];
            total = sum(b, total, part)?;
        }
    }
    Ok(total)
}
