//! Positions and masks of them: what can be read off about where a term holds. Integers wrap, so a value is a position only where
//! the ranges of axes and symbols prove that it is inside its dtype, and so is all that it is computed from.

use super::{Affine, AxisId, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::op::{Literal, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// The position that a term is by itself: a position, a size, a number. Where it is too large for its dtype, that of i64.
pub fn leaf(terms: &[(Term, DType)], id: TermId) -> Option<Affine> {
    match &terms.get(id)?.0 {
        Term::Iota(a) => Some(a.clone()),
        Term::Size(d) => Some(Affine::constant(d.clone())),
        Term::Const(Literal(value)) => whole(value.dtype(), value.bytes()).map(|n| Affine::constant(Dim::constant(n))),
        _other => None,
    }
}

/// The number that the bytes of one integer are, if i64 holds it.
fn whole(dtype: DType, bytes: &[u8]) -> Option<i64> {
    if !dtype.is_int() || bytes.len() != dtype.block().1 {
        return None;
    }
    let last = bytes.last().copied().unwrap_or(0);
    let sign = if dtype.is_signed() && last > 127 { u8::MAX } else { 0 };
    let mut raw = [sign; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let number = i64::from_le_bytes(raw);
    (dtype.is_signed() || number >= 0).then_some(number)
}

/// Numbers that a dtype holds, and their negatives where it has them. Of 64 bits a quarter, so that sums of a few fit.
fn range(dtype: DType) -> (i64, i64) {
    let bits = 8 * dtype.block().1;
    let high = match (bits, dtype.is_signed()) {
        (64, _) => 1 << 61,
        (_, true) => (1 << (bits - 1)) - 1,
        (_, false) => (1 << bits) - 1,
    };
    (if dtype.is_signed() { -high } else { 0 }, high)
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
    /// Its element type.
    fn dtype(&self, value: usize) -> DType;
    /// The position that a value is by itself, without being an op of others.
    fn leaf(&self, value: usize) -> Option<Affine>;
    /// Least and largest value of a size, if they are known.
    fn bounds(&self, size: &Dim) -> Option<(i64, i64)>;
    /// The largest size of an axis, if it is known.
    fn longest(&self, axis: AxisId) -> Option<i64>;
}

impl Values for Region {
    fn applied(&self, value: TermId) -> Option<(&ScalarOp, &[TermId])> {
        match &self.terms.get(value)?.0 {
            Term::Map(op, args) => Some((op, args)),
            _other => None,
        }
    }

    fn dtype(&self, value: TermId) -> DType {
        self.terms.get(value).map_or(DType::Bool, |t| t.1)
    }

    fn leaf(&self, value: TermId) -> Option<Affine> {
        leaf(&self.terms, value)
    }

    fn bounds(&self, size: &Dim) -> Option<(i64, i64)> {
        size.exact_bounds(&self.symbols)
    }

    fn longest(&self, axis: AxisId) -> Option<i64> {
        self.bounds(&self.axes.get(axis)?.1).map(|b| b.1)
    }
}

/// Where along `axis` the mask can hold.
pub fn limits<V: Values + ?Sized>(values: &V, mask: usize, axis: AxisId) -> Limits {
    let mut reader = Reader { values, axis, found: Limits::default(), known: BTreeMap::new() };
    reader.mask(mask, true);
    reader.found
}

struct Reader<'v, V: ?Sized> {
    values: &'v V,
    axis: AxisId,
    found: Limits,
    /// Positions that were asked for, or that they are none.
    known: BTreeMap<usize, Option<Affine>>,
}

/// Ops inside one another that a position is read through.
const DEPTH: usize = 32;

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

    /// The position that an integer is proved to be.
    fn position(&mut self, value: usize, depth: usize) -> Option<Affine> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        let dtype = self.values.dtype(value);
        let found = if dtype.is_int() { self.computed(value, depth).filter(|a| self.fits(a, dtype)) } else { None };
        self.known.insert(value, found.clone());
        found
    }

    fn computed(&mut self, value: usize, depth: usize) -> Option<Affine> {
        let Some((op, args)) = self.values.applied(value) else { return self.values.leaf(value) };
        let depth = depth.checked_sub(1)?;
        match (op, args) {
            (ScalarOp::Cast { .. }, &[x]) => self.position(x, depth),
            (ScalarOp::Add {}, &[a, b]) => self.position(a, depth)?.plus(&self.position(b, depth)?, 1),
            (ScalarOp::Sub {}, &[a, b]) => self.position(a, depth)?.plus(&self.position(b, depth)?, -1),
            (ScalarOp::Mul {}, &[a, b]) => {
                let (a, b) = (self.position(a, depth)?, self.position(b, depth)?);
                let zero = Affine::constant(Dim::constant(0));
                b.as_const().map_or_else(|| zero.plus(&b, a.as_const()?), |k| zero.plus(&a, k))
            }
            _other => self.values.leaf(value),
        }
    }

    /// Whether a position is inside the range of its dtype, wherever its axes are.
    fn fits(&self, at: &Affine, dtype: DType) -> bool {
        let ends = || {
            let (low, high) = self.values.bounds(&at.base)?;
            let (mut low, mut high) = (i128::from(low), i128::from(high));
            for &(axis, factor) in &at.terms {
                let span = i128::from(factor) * i128::from((self.values.longest(axis)? - 1).max(0));
                low += span.min(0);
                high += span.max(0);
            }
            Some((low, high))
        };
        let (least, most) = range(dtype);
        ends().is_some_and(|(low, high)| low >= least.into() && high <= most.into())
    }

    /// `low < high` if `strict`, else `low <= high`.
    fn order(&mut self, low: usize, high: usize, strict: bool) {
        let Some(top) = self.position(high, DEPTH) else { return };
        match self.values.applied(low) {
            // |x| is both x and -x, which the dtype holds as well.
            Some((ScalarOp::Abs {}, &[x])) => {
                let Some(x) = self.position(x, DEPTH) else { return };
                self.room(top.plus(&x, 1), strict);
                self.room(top.plus(&x, -1), strict);
            }
            Some(_) | None => {
                let room = self.position(low, DEPTH).and_then(|x| top.plus(&x, -1));
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
