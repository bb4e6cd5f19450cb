//! Positions and masks of them: what can be read off about where a term holds.

use super::{Affine, AxisId, Term, TermId};
use tilewright_ir::op::{Literal, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// The position that a term of i64 is, if it is affine in axes.
pub fn position(terms: &[(Term, DType)], id: TermId) -> Option<Affine> {
    match &terms.get(id)?.0 {
        Term::Iota(a) => Some(a.clone()),
        Term::Size(d) => Some(Affine::constant(d.clone())),
        Term::Const(Literal(value)) if value.dtype() == DType::I64 => {
            let bytes: &[u8] = value.bytes();
            let raw: [u8; 8] = bytes.try_into().ok()?;
            Some(Affine::constant(Dim::constant(i64::from_le_bytes(raw))))
        }
        _other => None,
    }
}

/// Positions that `axis` stays below wherever `mask` holds, in the order in which the mask names them.
pub fn limits(terms: &[(Term, DType)], mask: TermId, axis: AxisId) -> Vec<Affine> {
    let Some((Term::Map(op, args), _)) = terms.get(mask) else { return Vec::new() };
    let [a, b] = args[..] else { return Vec::new() };
    let (low, high, strict) = match op {
        ScalarOp::And {} => {
            let (mut all, more) = (limits(terms, a, axis), limits(terms, b, axis));
            all.extend(more);
            return all;
        }
        ScalarOp::Lt {} => (a, b, true),
        ScalarOp::Le {} => (a, b, false),
        ScalarOp::Gt {} => (b, a, true),
        ScalarOp::Ge {} => (b, a, false),
        _other => return Vec::new(),
    };
    // low <= high, with the axis once in low: it is at most high - (low - axis).
    let end = || {
        let mut room = position(terms, high)?.plus(&position(terms, low)?, -1)?;
        let at = room.terms.iter().position(|t| *t == (axis, -1))?;
        room.terms.remove(at);
        if strict { Some(room) } else { room.plus(&Affine::constant(1.into()), 1) }
    };
    end().into_iter().collect()
}
