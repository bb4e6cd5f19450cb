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

/// What a mask proves about positions along an axis, in the order in which the mask names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// It holds at none that is before one of these.
    pub starts: Vec<Affine>,
    /// It holds at none from one of these on.
    pub ends: Vec<Affine>,
}

/// Values that masks are made of, by number.
pub trait Values {
    /// The op that a value is, and its operands.
    fn applied(&self, value: usize) -> Option<(&ScalarOp, &[usize])>;
    /// The position that a value is, if it is one of i64 and affine in axes.
    fn position(&self, value: usize) -> Option<Affine>;
}

impl Values for [(Term, DType)] {
    fn applied(&self, value: TermId) -> Option<(&ScalarOp, &[TermId])> {
        match &self.get(value)?.0 {
            Term::Map(op, args) => Some((op, args)),
            _other => None,
        }
    }

    fn position(&self, value: TermId) -> Option<Affine> {
        position(self, value)
    }
}

/// Where along `axis` the mask can hold.
pub fn limits<V: Values + ?Sized>(values: &V, mask: usize, axis: AxisId) -> Limits {
    let mut reader = Reader { values, axis, found: Limits::default() };
    reader.mask(mask, true);
    reader.found
}

struct Reader<'v, V: ?Sized> {
    values: &'v V,
    axis: AxisId,
    found: Limits,
}

impl<V: Values + ?Sized> Reader<'_, V> {
    /// Adds what follows where `mask` is `holds`.
    fn mask(&mut self, mask: usize, holds: bool) {
        let Some((op, args)) = self.values.applied(mask) else { return };
        match (op, args, holds) {
            (ScalarOp::Not {}, &[x], _) => self.mask(x, !holds),
            (ScalarOp::And {}, &[a, b], true) | (ScalarOp::Or {}, &[a, b], false) => {
                self.mask(a, holds);
                self.mask(b, holds);
            }
            (ScalarOp::Eq {}, &[a, b], true) | (ScalarOp::Ne {}, &[a, b], false) => {
                self.order(a, b, false);
                self.order(b, a, false);
            }
            // Positions are integers, so that what is not less is at least.
            (ScalarOp::Lt {}, &[a, b], true) | (ScalarOp::Gt {}, &[b, a], true) => self.order(a, b, true),
            (ScalarOp::Le {}, &[a, b], true) | (ScalarOp::Ge {}, &[b, a], true) => self.order(a, b, false),
            (ScalarOp::Lt {}, &[a, b], false) | (ScalarOp::Gt {}, &[b, a], false) => self.order(b, a, false),
            (ScalarOp::Le {}, &[a, b], false) | (ScalarOp::Ge {}, &[b, a], false) => self.order(b, a, true),
            _other => {}
        }
    }

    /// `low < high` if `strict`, else `low <= high`.
    fn order(&mut self, low: usize, high: usize, strict: bool) {
        let Some(top) = self.values.position(high) else { return };
        match self.values.applied(low) {
            // |x| is both x and -x.
            Some((ScalarOp::Abs {}, &[x])) => {
                let Some(x) = self.values.position(x) else { return };
                self.room(top.plus(&x, 1), strict);
                self.room(top.plus(&x, -1), strict);
            }
            Some(_) | None => {
                let room = self.values.position(low).and_then(|x| top.plus(&x, -1));
                self.room(room, strict);
            }
        }
    }

    /// `room` is not negative; above 0 if `strict`.
    fn room(&mut self, room: Option<Affine>, strict: bool) {
        let Some(mut room) = room else { return };
        let Some(at) = room.terms.iter().position(|t| t.0 == self.axis) else { return };
        let (_, factor) = room.terms.remove(at);
        let one = |a: Affine, by: i64| a.plus(&Affine::constant(Dim::constant(1)), by);
        match factor {
            // axis < room, or axis <= room
            -1 => self.found.ends.extend(one(room, i64::from(!strict))),
            // axis > -room, or axis >= -room
            1 => {
                let start = Affine::constant(Dim::constant(0)).plus(&room, -1);
                self.found.starts.extend(start.and_then(|s| one(s, i64::from(strict))));
            }
            _several => {}
        }
    }
}
