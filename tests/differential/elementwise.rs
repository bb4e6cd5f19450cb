//! Steps: scalar ops at every element.

use super::bound::{Bound, epsilon};
use super::data::{Fill, largest};
use super::machine::{Entry, Machine, Picks};
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::{DType, Dim};

impl Machine {
    /// What is known of integers of `dtype` after an operation: those beyond its range wrap around.
    pub fn wrapped(&mut self, dtype: DType, magnitude: f64, negative: bool) -> Bound {
        if magnitude < largest(dtype) && !(negative && dtype.is_unsigned()) {
            return Bound::integer(magnitude);
        }
        self.wraps |= dtype != DType::I64;
        Bound::integer(2.0 * largest(dtype))
    }

    /// The result of an operation whose exact result is `bound`, in floats or integers.
    fn settled(&mut self, dtype: DType, bound: Bound, negative: bool) -> Bound {
        if dtype.is_float() { bound.rounded(dtype) } else { self.wrapped(dtype, bound.magnitude, negative) }
    }

    /// A value that broadcasts with `x`, picked or fresh.
    fn partner(&mut self, p: &mut Picks<'_>, x: &Entry, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let dtype = x.tensor.dtype();
        let shape = x.tensor.shape().to_vec();
        if !p.one_in(3) {
            let found = self.pick(p, |e| e.tensor.dtype() == dtype && fits(e) && broadcasts(&shape, e.tensor.shape()));
            if found.is_some() {
                return found;
            }
        }
        let skip = if p.one_in(3) { p.below(shape.len() + 1) } else { 0 };
        let ones = if p.one_in(2) { p.below(16) } else { 0 };
        let one = |(i, d): (usize, &Dim)| if ones >> i & 1 == 1 { Dim::constant(1) } else { d.clone() };
        let dims = shape.iter().enumerate().skip(skip).map(one).collect();
        self.fresh(p, dtype, dims)
    }
}

/// Whether sizes from the right are equal or 1.
fn broadcasts(a: &[Dim], b: &[Dim]) -> bool {
    a.iter().rev().zip(b.iter().rev()).all(|(x, y)| x == y || x.is(1) || y.is(1))
}

/// Between -6 and 4, so that exponentials stay small.
fn clamped(x: &Entry) -> Tensor {
    x.tensor.maximum(-6.0).minimum(4.0)
}

pub fn unary(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let dtype = x.tensor.dtype();
    if dtype == DType::Bool {
        return m.done(!&x.tensor, Bound::truth());
    }
    if !dtype.is_float() {
        return integer_unary(m, p, &x);
    }
    if x.bound.is_exact() && p.one_in(3) {
        return rounding(m, p, &x);
    }
    let (t, b) = (&x.tensor, x.bound);
    let one = b.magnitude + 1.0;
    let far = |slope: f64, magnitude: f64, ulps: f64| b.through(slope, magnitude, ulps, dtype);
    let (tensor, bound) = match p.below(22) {
        0 => (-t, b),
        1 => (t.abs(), b),
        2 => (clamped(&x).exp(), far(55.0, 55.0, 4.0)),
        3 => (t.tanh(), far(1.0, 1.0, 4.0)),
        4 => (t.sin(), far(1.0, 1.0, 4.0)),
        5 => (t.cos(), far(1.0, 1.0, 4.0)),
        6 => (t.erf(), far(1.2, 1.0, 4.0)),
        7 => ((t.abs() + 1.0).log(), far(1.0, one.ln() + 1.0, 8.0)),
        8 => ((t.abs() + 1.0).log2(), far(1.5, one.log2() + 1.0, 8.0)),
        9 => (t.abs().log1p(), far(1.0, one.ln() + 0.1, 8.0)),
        10 if b.is_exact() => (t.abs().sqrt(), far(0.0, b.magnitude.sqrt(), 2.0)),
        10 => ((t.abs() + 1.0).sqrt(), far(0.5, one.sqrt(), 4.0)),
        11 => ((t.abs() + 1.0).rsqrt(), far(0.5, 1.0, 6.0)),
        12 => (clamped(&x).exp2(), far(12.0, 16.0, 4.0)),
        13 => (clamped(&x).expm1(), far(55.0, 55.0, 4.0)),
        14 => (t.gelu(), far(1.2, one, 16.0)),
        15 => (t.gelu_tanh(), far(1.2, one, 24.0)),
        16 => (t.silu(), far(1.2, one, 16.0)),
        17 => (t.sigmoid(), far(0.3, 1.0, 8.0)),
        18 => (t.softplus(), far(1.0, one, 12.0)),
        19 => (t.relu(), b),
        20 => (t * 0.5, b.times(Bound::lattice(0.5, -1)).rounded(dtype)),
        _ => (t * t, b.times(b).rounded(dtype)),
    };
    m.done(tensor, bound)
}

/// Steps in the function would turn a rounding error into a different result, so these are of exact values only.
fn rounding(m: &mut Machine, p: &mut Picks<'_>, x: &Entry) -> Option<Entry> {
    let (t, whole) = (&x.tensor, Bound::integer(x.bound.magnitude.ceil()));
    let (tensor, bound) = match p.below(6) {
        0 => (t.floor(), whole),
        1 => (t.ceil(), whole),
        2 => (t.round(), whole),
        3 => (t.trunc(), whole),
        4 => (t.sign(), Bound::integer(1.0)),
        _ => (t.is_nan(), Bound::truth()),
    };
    m.done(tensor, bound)
}

fn integer_unary(m: &mut Machine, p: &mut Picks<'_>, x: &Entry) -> Option<Entry> {
    let (t, size, dtype) = (&x.tensor, x.bound.magnitude, x.tensor.dtype());
    let (tensor, bound) = match p.below(5) {
        0 => (-t, m.wrapped(dtype, size, true)),
        1 => (t.abs(), m.wrapped(dtype, size, false)),
        2 => (t.sign(), m.wrapped(dtype, size.max(1.0), false)),
        3 => (!t, m.wrapped(dtype, size + 1.0, true)),
        _ => (t.floor(), m.wrapped(dtype, size, false)),
    };
    m.done(tensor, bound)
}

pub fn binary(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let y = m.partner(p, &x, |_| true)?;
    let (x, y) = if p.one_in(2) { (y, x) } else { (x, y) };
    let (a, b, dtype) = (&x.tensor, &y.tensor, x.tensor.dtype());
    if dtype == DType::Bool {
        let tensor = match p.below(3) {
            0 => a & b,
            1 => a | b,
            _ => a ^ b,
        };
        return m.done(tensor, Bound::truth());
    }
    let choice = p.below(if dtype.is_float() { 8 } else { 13 });
    let (tensor, bound) = match choice {
        0 | 1 => (a + b, m.settled(dtype, x.bound.plus(y.bound), false)),
        2 => (a - b, m.settled(dtype, x.bound.plus(y.bound), true)),
        3 | 4 => (a * b, m.settled(dtype, x.bound.times(y.bound), false)),
        5 => (a.maximum(b), x.bound.either(y.bound)),
        6 => (a.minimum(b), x.bound.either(y.bound)),
        7 if dtype.is_float() => return quotient(m, p, &x, &y),
        7 => (a / b, m.wrapped(dtype, x.bound.magnitude, false)),
        8 => (a % b, m.wrapped(dtype, x.bound.magnitude, false)),
        9 => (a & b, Bound::integer(2.0 * x.bound.magnitude.max(y.bound.magnitude))),
        10 => (a ^ b, Bound::integer(2.0 * x.bound.magnitude.max(y.bound.magnitude))),
        11 => (a >> b, shifted(m, dtype, x.bound.magnitude, y.bound.magnitude)),
        _ => (a << b, shifted(m, dtype, 2.0 * largest(dtype), y.bound.magnitude)),
    };
    m.done(tensor, bound)
}

/// A shift by the width of the dtype or more: the kernel interpreter knows 64 bits only.
fn shifted(m: &mut Machine, dtype: DType, magnitude: f64, by: f64) -> Bound {
    if by >= 8.0 || magnitude >= largest(dtype) {
        return m.wrapped(dtype, 2.0 * largest(dtype), false);
    }
    Bound::integer(magnitude)
}

/// Quotients, remainders and powers of floats, with divisors and bases away from 0.
fn quotient(m: &mut Machine, p: &mut Picks<'_>, x: &Entry, y: &Entry) -> Option<Entry> {
    let (a, b, dtype) = (&x.tensor, &y.tensor, x.tensor.dtype());
    let e = epsilon(dtype);
    let (mx, my) = (x.bound.magnitude, y.bound.magnitude);
    let (ex, ey) = (x.bound.error, y.bound.error + 2.0 * e * (my + 1.0));
    let inexact = |magnitude: f64, error: f64| Bound { magnitude, unit: None, error };
    let (tensor, bound) = match p.below(3) {
        0 if x.bound.is_exact() && y.bound.is_exact() && x.bound.unit.is_some() && y.bound.unit.is_some() => {
            (a % b, Bound { unit: x.bound.unit.zip(y.bound.unit).map(|(a, b)| a.min(b)), ..x.bound })
        }
        1 if ey < 0.1 => {
            let base = mx + 0.5;
            let magnitude = (base * base).max(4.0);
            // y / base of the base's error, ln of the base of the exponent's
            let relative = 4.0 * (ex + e * base) + base.max(2.0).ln() * y.bound.error + 8.0 * e;
            let exponent = b.maximum(-2.0).minimum(2.0);
            ((a.abs() + 0.5).pow(exponent), inexact(magnitude, 1.5 * magnitude * relative))
        }
        _ => (a / (b.abs() + 1.0), inexact(mx, ex + mx * ey + 3.0 * e * mx)),
    };
    m.done(tensor, bound)
}

fn truth(p: &mut Picks<'_>, a: &Tensor, b: &Tensor) -> Tensor {
    match p.below(6) {
        0 => a.lt(b),
        1 => a.le(b),
        2 => a.gt(b),
        3 => a.ge(b),
        4 => a.eq(b),
        _ => a.ne(b),
    }
}

pub fn compare(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| e.bound.is_exact() && !e.tensor.dtype().is_block())?;
    let y = m.partner(p, &x, |e| e.bound.is_exact())?;
    let tensor = truth(p, &x.tensor, &y.tensor);
    m.done(tensor, Bound::truth())
}

pub fn select(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let y = m.partner(p, &x, |_| true)?;
    let shape = x.tensor.shape().to_vec();
    let known = |e: &Entry| e.tensor.dtype() == DType::Bool && broadcasts(&shape, e.tensor.shape());
    let condition = match m.pick(p, known) {
        Some(c) => c,
        None => {
            let c = m.fresh(p, DType::Bool, shape.clone())?;
            Entry { bound: Bound::truth(), ..c }
        }
    };
    if !broadcasts(condition.tensor.shape(), y.tensor.shape()) {
        return None;
    }
    m.done(condition.tensor.select(&x.tensor, &y.tensor), x.bound.either(y.bound))
}

pub fn cast(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let rare = [DType::U8, DType::I8, DType::U32, DType::U64, DType::I16, DType::U16, DType::Bool];
    let favourites = [DType::F32, DType::F16, DType::Bf16, DType::F64, DType::I64, DType::I32];
    let to = if p.one_in(2) { p.of(&rare) } else { p.of(&favourites) };
    let from = x.tensor.dtype();
    if from == to || (!to.is_float() && !x.bound.is_exact()) {
        return None;
    }
    let bound = if to.is_float() {
        x.bound.rounded(to)
    } else if to == DType::Bool {
        Bound::truth()
    } else if from.is_float() {
        // An infinity becomes the end of the range.
        let most = if m.infinite { 2.0 * largest(to) } else { x.bound.magnitude.min(2.0 * largest(to)) };
        m.wraps |= m.infinite && to != DType::I64;
        Bound::integer(most)
    } else {
        let size = if from.is_unsigned() || to.is_signed() { x.bound.magnitude } else { 2.0 * largest(to) };
        m.wraps |= to == DType::U64 && from.is_signed();
        Bound::integer(size.min(2.0 * largest(to)))
    };
    m.done(x.tensor.cast(to), bound)
}

/// Whether a value may be an operand of an op on a callee's parameter with this fill.
pub fn holds(fill: &Fill, dtype: DType, bound: &Bound) -> bool {
    let want = match fill {
        Fill::Lattice => Bound::lattice(2.0, -2),
        Fill::Small if dtype.is_unsigned() => return false,
        Fill::Small => Bound::integer(3.0),
        Fill::Truth => return true,
        Fill::Real | Fill::Bits | Fill::Below(_) | Fill::Block => return false,
    };
    let multiple = bound.unit.zip(want.unit).is_some_and(|(a, b)| a >= b);
    bound.is_exact() && multiple && bound.magnitude <= want.magnitude
}
