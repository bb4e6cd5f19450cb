//! Sums of cotangents: those of neighbouring slices of one value are joined, not padded with zeros and added.
//!
//! before: `pad(a, 0, amounts=[(0, 4)]) + pad(b, 0, amounts=[(4, 0)])`, both of 4 elements      after: `concat a, b axis=0`
//! keeps: values, but that a zero keeps its sign.    cost: O(operands).

use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Dim;

/// What `pad` makes of `inside`: zeros before and after it along one axis.
struct Padded {
    inside: Value,
    axis: usize,
    low: Dim,
    high: Dim,
}

/// `a + b`. Errors: those of type inference.
pub fn sum(b: &mut Build<'_>, first: Value, second: Value) -> Result<Value, Diagnostic> {
    let (Some(x), Some(y)) = (padded(b.f, first), padded(b.f, second)) else { return b.add(first, second) };
    let before = |x: &Padded, y: &Padded, b: &Build<'_>| {
        let end = x.low.checked_add(&b.f.ty(x.inside).shape[x.axis]);
        x.axis == y.axis && end.as_ref() == Some(&y.low)
    };
    let (x, y) = if before(&x, &y, b) {
        (x, y)
    } else if before(&y, &x, b) {
        (y, x)
    } else {
        return b.add(first, second);
    };
    let parts = [parts(b.f, x.inside, x.axis), parts(b.f, y.inside, y.axis)].concat();
    let joined = b.push(GraphOp::Concat { axis: x.axis }, &parts)?;
    b.pad_zero(joined, x.axis, x.low, y.high)
}

/// `v` as a pad with zeros along one axis.
fn padded(f: &Function, v: Value) -> Option<Padded> {
    let node = f.node(v);
    let GraphOp::Pad { amounts } = &node.op else { return None };
    let GraphOp::Constant { value } = &f.node(node.args[1]).op else { return None };
    let mut axes = (0..amounts.len()).filter(|&a| !(amounts[a].0.is(0) && amounts[a].1.is(0)));
    let axis = axes.next()?;
    let zero = value.0.to_f64()?.iter().all(|x| *x == 0.0);
    let (low, high) = amounts[axis].clone();
    (zero && axes.next().is_none()).then_some(Padded { inside: node.args[0], axis, low, high })
}

/// What is joined to `v` along the axis, or `v`.
fn parts(f: &Function, v: Value, axis: usize) -> Vec<Value> {
    match &f.node(v).op {
        GraphOp::Concat { axis: own } if *own == axis => f.node(v).args.clone(),
        _other => vec![v],
    }
}
