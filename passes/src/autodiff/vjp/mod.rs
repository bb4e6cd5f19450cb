//! The reverse rule of each graph op. This file is the match; the rules are in one file per family.

pub mod control;
pub mod fold;
mod movement;
pub mod scalar;

pub use control::Shared;

use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};
use tilewright_ir::op::GraphOp;

/// What a rule is asked.
pub struct Question<'a> {
    /// The node.
    pub node: NodeId,
    /// Its operands.
    pub args: Vec<Value>,
    /// The cotangent of each result, where there is one; of one result at least.
    pub cts: &'a [Option<Value>],
    /// Which operands' cotangents are of use.
    pub want: &'a [bool],
    /// Cotangents that the operands of a call have so far: the rule returns sums with them.
    pub so_far: &'a [Option<Value>],
}

/// Cotangents of the operands of a node; none where they are zero. A node that runs functions may be changed to one that
/// returns more, after its own results.
pub fn vjp(
    b: &mut Build<'_>,
    shared: &mut Shared,
    op: &GraphOp,
    q: &Question<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let result = |index: usize| Value { node: q.node, index: index as u32 };
    let first = q.cts.first().copied().flatten();
    let ct = || first.ok_or_else(|| Diagnostic::bug("a node without a cotangent"));
    let (x, want) = (q.args.as_slice(), q.want);
    let all = |value: Value| Ok(vec![Some(value)]);
    match op {
        // They have no operands, or none that is a float.
        GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => {
            Ok(Vec::new())
        }
        // Positions are flat.
        GraphOp::Argmax { .. } | GraphOp::Argmin { .. } => Ok(vec![None]),
        GraphOp::Map { op } => scalar::vjp(b, op, x, (result(0), ct()?), want),
        GraphOp::Reduce { kind, axes } => all(fold::reduce(b, *kind, axes, x[0], (result(0), ct()?))?),
        GraphOp::Cumsum { axis } => all(fold::cumsum(b, *axis, ct()?)?),
        GraphOp::Dot { dims } => {
            let mut side = |left: bool| fold::dot(b, dims, (x[0], x[1]), ct()?, left).map(Some);
            Ok(vec![if want[0] { side(true)? } else { None }, if want[1] { side(false)? } else { None }])
        }
        GraphOp::Broadcast { shape, dims } => all(movement::broadcast(b, shape, dims, x[0], ct()?)?),
        GraphOp::Reshape { .. } => {
            let shape = b.ty(x[0]).shape;
            all(b.reshape(ct()?, shape)?)
        }
        GraphOp::Transpose { perm } => all(movement::transpose(b, perm, ct()?)?),
        GraphOp::Slice { start, limit, stride } => all(movement::slice(b, (start, limit, stride), x[0], ct()?)?),
        GraphOp::Pad { amounts } => movement::pad(b, amounts, (x[0], ct()?), want),
        GraphOp::Concat { axis } => movement::concat(b, *axis, x, ct()?, want),
        GraphOp::Flip { axes } => all(b.push(GraphOp::Flip { axes: axes.clone() }, &[ct()?])?),
        GraphOp::Take { axis } => Ok(vec![Some(movement::take(b, *axis, (x[0], x[1]), ct()?)?), None]),
        GraphOp::TakeAlong { axis } => Ok(vec![Some(movement::take_along(b, *axis, (x[0], x[1]), ct()?)?), None]),
        GraphOp::ScatterAdd { axis } => {
            let source = if want[2] { Some(b.push(GraphOp::TakeAlong { axis: *axis }, &[ct()?, x[1]])?) } else { None };
            Ok(vec![Some(ct()?), None, source])
        }
        GraphOp::UpdateSlice { start } => movement::update_slice(b, start, x[1], ct()?, want),
        GraphOp::Call { function } => control::call(b, shared, function, q),
        GraphOp::Cond { yes, no } => control::cond(b, shared, (yes, no), q),
        GraphOp::Scan { body, carries, length } => control::scan(b, shared, (body, *carries, length), q),
    }
}
