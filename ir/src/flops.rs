//! What an op costs by itself: floating-point operations and bytes, as dims.

use crate::op::{Family, GraphOp, ScalarOp};
use crate::types::{Dim, Type};

/// The cost of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Operations on elements; a multiplication with an addition counts 2, any other scalar op that computes 1.
    pub flops: Dim,
    /// Bytes read and written if the node ran alone: every byte once, and only those that are touched.
    pub bytes: Dim,
}

/// Bytes that a value of type `ty` takes; `None` on overflow.
pub fn type_bytes(ty: &Type) -> Option<Dim> {
    let (per, size) = ty.dtype.block();
    ty.elements()?.floor_div(i64::try_from(per).ok()?).checked_mul(&size.into())
}

fn sum(dims: impl Iterator<Item = Option<Dim>>) -> Option<Dim> {
    dims.into_iter().try_fold(Dim::constant(0), |total, d| total.checked_add(&d?))
}

fn bytes_of<'t>(types: impl IntoIterator<Item = &'t Type>) -> Option<Dim> {
    sum(types.into_iter().map(type_bytes))
}

/// Operations per element: moving, choosing and converting count nothing.
fn per_element(op: &ScalarOp) -> i64 {
    match op.info().family {
        Family::Arithmetic | Family::Transcendental | Family::Comparison => 1,
        Family::Logic | Family::Conversion => 0,
        Family::Source | Family::Elementwise | Family::Reduction | Family::Contraction => 0,
        Family::Movement | Family::Indexing | Family::Control => 0,
    }
}

/// The cost of `op` on operands `args` with results `results`, which must be those that inference gives.
///
/// `None` where a size overflows, where counts of operands or results do not fit the op, and for `call`, `cond` and
/// `scan`, whose cost is that of the functions they name.
pub fn cost(op: &GraphOp, args: &[&Type], results: &[Type]) -> Option<Cost> {
    if !op.info().arity.accepts(args.len()) {
        return None;
    }
    let elements = |i: usize| args.get(i)?.elements();
    let all = || bytes_of(args.iter().copied().chain(results));
    let written = || bytes_of(results);
    let twice = |d: Dim| d.checked_mul(&Dim::constant(2));
    let zero = Dim::constant(0);
    let (flops, bytes) = match op {
        // A parameter is there, a constant is part of the program.
        GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Size { .. } => (zero.clone(), zero),
        GraphOp::Iota { .. } => (zero, written()?),
        GraphOp::Map { op } => (results.first()?.elements()?.checked_mul(&per_element(op).into())?, all()?),
        GraphOp::Reduce { .. } | GraphOp::Argmax { .. } | GraphOp::Argmin { .. } | GraphOp::Cumsum { .. } => {
            (elements(0)?, all()?)
        }
        GraphOp::Dot { dims } => {
            let mut flops = twice(results.first()?.elements()?)?;
            for &axis in &dims.contract.0 {
                flops = flops.checked_mul(args[0].shape.get(axis)?)?;
            }
            (flops, all()?)
        }
        // The same bytes under another shape.
        GraphOp::Reshape { .. } => (zero.clone(), zero),
        GraphOp::Broadcast { .. } | GraphOp::Transpose { .. } | GraphOp::Flip { .. } => (zero, all()?),
        GraphOp::Pad { .. } | GraphOp::Concat { .. } => (zero, all()?),
        // What is not taken is not read.
        GraphOp::Slice { .. } => (zero, twice(written()?)?),
        GraphOp::Take { .. } | GraphOp::TakeAlong { .. } => {
            (zero, twice(written()?)?.checked_add(&type_bytes(args[1])?)?)
        }
        GraphOp::ScatterAdd { .. } => (elements(2)?, all()?),
        // In place where it can be: the update is read and written.
        GraphOp::UpdateSlice { .. } => (zero, twice(type_bytes(args[1])?)?),
        GraphOp::Call { .. } | GraphOp::Cond { .. } | GraphOp::Scan { .. } => return None,
    };
    Some(Cost { flops, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{DotDims, ReduceKind};
    use crate::types::DType;

    #[test]
    fn counts_by_hand() {
        let x = Type::new(DType::F32, [Dim::from("b"), 768.into()]);
        let w = Type::new(DType::F32, [768, 3072]);
        let y = Type::new(DType::F32, [Dim::from("b"), 3072.into()]);
        let dims = DotDims { batch: (vec![], vec![]), contract: (vec![1], vec![0]) };
        let c = cost(&GraphOp::Dot { dims }, &[&x, &w], &[y]).unwrap();
        assert_eq!(c.flops.to_string(), "4718592*b"); // 2 * 768 * 3072
        assert_eq!(c.bytes.to_string(), "15360*b + 9437184"); // 4 * (768 + 3072) * b + 4 * 768 * 3072
        let s = Type::new(DType::F32, ["b"]);
        let c = cost(&GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[&x], &[s]).unwrap();
        assert_eq!((c.flops.to_string(), c.bytes.to_string()), ("768*b".into(), "3076*b".into()));
        let c = cost(&GraphOp::Map { op: ScalarOp::Cast { to: DType::F32 } }, &[&x], std::slice::from_ref(&x)).unwrap();
        assert!(c.flops.is(0));
        assert_eq!(type_bytes(&Type::new(DType::Q4K, [2, 512])).unwrap().to_string(), "576");
        assert!(cost(&GraphOp::Reshape { shape: vec![] }, &[&x], std::slice::from_ref(&x)).unwrap().bytes.is(0));
        assert!(cost(&GraphOp::Call { function: "f".into() }, &[], &[]).is_none());
        assert!(cost(&GraphOp::Dot { dims: DotDims::default() }, &[], &[]).is_none());
    }
}
