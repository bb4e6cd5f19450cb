//! Scalar ops on numbers: one match each for floats, integers and bools, as the op table says.

use super::value::{wide, wrap};
use crate::op::ScalarOp;
use crate::types::DType;

/// A scalar op on `T`, without casts and selects, which move between kinds of numbers.
pub(super) enum Rule<T> {
    /// One operand.
    One(fn(T) -> T),
    /// Two operands.
    Two(fn(T, T) -> T),
    /// One operand, to bool.
    Test(fn(T) -> bool),
    /// Two operands, to bool.
    Compare(fn(T, T) -> bool),
    /// Type inference lets no such operand through.
    None,
}

/// An integer with its dtype, as wide as every dtype's.
#[derive(Clone, Copy)]
pub(super) struct Integer {
    pub(super) dtype: DType,
    pub(super) value: i128,
}

impl Integer {
    pub(super) fn new(dtype: DType, stored: i64) -> Integer {
        Integer { dtype, value: wide(dtype, stored) }
    }

    /// Another value of the same dtype; it is wrapped where it is stored.
    fn with(self, value: i128) -> Integer {
        Integer { value, ..self }
    }

    pub(super) fn stored(self) -> i64 {
        wrap(self.dtype, self.value)
    }
}

/// The larger; NaN if either is, +0 above -0.
pub(super) fn max(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if x > y || (x == y && y.is_sign_negative()) {
        x
    } else {
        y
    }
}

/// The smaller; NaN if either is, -0 below +0.
pub(super) fn min(x: f64, y: f64) -> f64 {
    -max(-x, -y)
}

/// The rule of `op` on floats.
pub(super) fn float(op: &ScalarOp) -> Rule<f64> {
    match op {
        ScalarOp::Add {} => Rule::Two(|x, y| x + y),
        ScalarOp::Sub {} => Rule::Two(|x, y| x - y),
        ScalarOp::Mul {} => Rule::Two(|x, y| x * y),
        ScalarOp::Div {} => Rule::Two(|x, y| x / y),
        ScalarOp::Rem {} => Rule::Two(|x, y| x % y),
        ScalarOp::Pow {} => Rule::Two(libm::pow),
        ScalarOp::Max {} => Rule::Two(max),
        ScalarOp::Min {} => Rule::Two(min),
        ScalarOp::Neg {} => Rule::One(|x| -x),
        ScalarOp::Abs {} => Rule::One(f64::abs),
        ScalarOp::Sign {} => Rule::One(|x| if x.is_nan() || x == 0.0 { x } else { x.signum() }),
        ScalarOp::Floor {} => Rule::One(f64::floor),
        ScalarOp::Ceil {} => Rule::One(f64::ceil),
        ScalarOp::Round {} => Rule::One(f64::round_ties_even),
        ScalarOp::Trunc {} => Rule::One(f64::trunc),
        ScalarOp::Sqrt {} => Rule::One(f64::sqrt),
        ScalarOp::Rsqrt {} => Rule::One(|x| 1.0 / x.sqrt()),
        ScalarOp::Exp {} => Rule::One(libm::exp),
        ScalarOp::Exp2 {} => Rule::One(libm::exp2),
        ScalarOp::Expm1 {} => Rule::One(libm::expm1),
        ScalarOp::Log {} => Rule::One(libm::log),
        ScalarOp::Log2 {} => Rule::One(libm::log2),
        ScalarOp::Log1p {} => Rule::One(libm::log1p),
        ScalarOp::Tanh {} => Rule::One(libm::tanh),
        ScalarOp::Erf {} => Rule::One(libm::erf),
        ScalarOp::Sin {} => Rule::One(libm::sin),
        ScalarOp::Cos {} => Rule::One(libm::cos),
        ScalarOp::Eq {} => Rule::Compare(|x, y| x == y),
        ScalarOp::Ne {} => Rule::Compare(|x, y| x != y),
        ScalarOp::Lt {} => Rule::Compare(|x, y| x < y),
        ScalarOp::Le {} => Rule::Compare(|x, y| x <= y),
        ScalarOp::Gt {} => Rule::Compare(|x, y| x > y),
        ScalarOp::Ge {} => Rule::Compare(|x, y| x >= y),
        ScalarOp::IsNan {} => Rule::Test(f64::is_nan),
        ScalarOp::And {}
        | ScalarOp::Or {}
        | ScalarOp::Xor {}
        | ScalarOp::Not {}
        | ScalarOp::Shl {}
        | ScalarOp::Shr {}
        | ScalarOp::Select {}
        | ScalarOp::Cast { .. } => Rule::None,
    }
}

/// The rule of `op` on integers; results wrap where they are stored.
pub(super) fn integer(op: &ScalarOp) -> Rule<Integer> {
    match op {
        ScalarOp::Add {} => Rule::Two(|x, y| x.with(x.value + y.value)),
        ScalarOp::Sub {} => Rule::Two(|x, y| x.with(x.value - y.value)),
        // Only the low 64 bits are kept, and those are right whatever wraps above.
        ScalarOp::Mul {} => Rule::Two(|x, y| x.with(x.value.wrapping_mul(y.value))),
        ScalarOp::Div {} => Rule::Two(|x, y| x.with(x.value.checked_div(y.value).unwrap_or(0))),
        ScalarOp::Rem {} => Rule::Two(|x, y| x.with(x.value.checked_rem(y.value).unwrap_or(0))),
        ScalarOp::Pow {} => Rule::Two(power),
        ScalarOp::Max {} => Rule::Two(|x, y| x.with(x.value.max(y.value))),
        ScalarOp::Min {} => Rule::Two(|x, y| x.with(x.value.min(y.value))),
        ScalarOp::Neg {} => Rule::One(|x| x.with(-x.value)),
        ScalarOp::Abs {} => Rule::One(|x| x.with(x.value.abs())),
        ScalarOp::Sign {} => Rule::One(|x| x.with(x.value.signum())),
        ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => Rule::One(|x| x),
        ScalarOp::Eq {} => Rule::Compare(|x, y| x.value == y.value),
        ScalarOp::Ne {} => Rule::Compare(|x, y| x.value != y.value),
        ScalarOp::Lt {} => Rule::Compare(|x, y| x.value < y.value),
        ScalarOp::Le {} => Rule::Compare(|x, y| x.value <= y.value),
        ScalarOp::Gt {} => Rule::Compare(|x, y| x.value > y.value),
        ScalarOp::Ge {} => Rule::Compare(|x, y| x.value >= y.value),
        ScalarOp::And {} => Rule::Two(|x, y| x.with(x.value & y.value)),
        ScalarOp::Or {} => Rule::Two(|x, y| x.with(x.value | y.value)),
        ScalarOp::Xor {} => Rule::Two(|x, y| x.with(x.value ^ y.value)),
        ScalarOp::Not {} => Rule::One(|x| x.with(!x.value)),
        ScalarOp::Shl {} => Rule::Two(|x, y| x.with(shift(x, y).map_or(0, |bits| x.value << bits))),
        ScalarOp::Shr {} => {
            Rule::Two(|x, y| x.with(shift(x, y).map_or(-i128::from(x.value < 0), |bits| x.value >> bits)))
        }
        ScalarOp::Sqrt {}
        | ScalarOp::Rsqrt {}
        | ScalarOp::Exp {}
        | ScalarOp::Exp2 {}
        | ScalarOp::Expm1 {}
        | ScalarOp::Log {}
        | ScalarOp::Log2 {}
        | ScalarOp::Log1p {}
        | ScalarOp::Tanh {}
        | ScalarOp::Erf {}
        | ScalarOp::Sin {}
        | ScalarOp::Cos {}
        | ScalarOp::IsNan {}
        | ScalarOp::Select {}
        | ScalarOp::Cast { .. } => Rule::None,
    }
}

/// The rule of `op` on bools; false is below true.
pub(super) fn boolean(op: &ScalarOp) -> Rule<bool> {
    match op {
        ScalarOp::And {} => Rule::Two(|x, y| x & y),
        ScalarOp::Or {} => Rule::Two(|x, y| x | y),
        ScalarOp::Xor {} => Rule::Two(|x, y| x ^ y),
        ScalarOp::Not {} => Rule::One(|x| !x),
        ScalarOp::Eq {} => Rule::Compare(|x, y| x == y),
        ScalarOp::Ne {} => Rule::Compare(|x, y| x != y),
        ScalarOp::Lt {} => Rule::Compare(|x, y| !x & y),
        ScalarOp::Le {} => Rule::Compare(|x, y| x <= y),
        ScalarOp::Gt {} => Rule::Compare(|x, y| x & !y),
        ScalarOp::Ge {} => Rule::Compare(|x, y| x >= y),
        ScalarOp::Add {}
        | ScalarOp::Sub {}
        | ScalarOp::Mul {}
        | ScalarOp::Div {}
        | ScalarOp::Rem {}
        | ScalarOp::Pow {}
        | ScalarOp::Max {}
        | ScalarOp::Min {}
        | ScalarOp::Neg {}
        | ScalarOp::Abs {}
        | ScalarOp::Sign {}
        | ScalarOp::Floor {}
        | ScalarOp::Ceil {}
        | ScalarOp::Round {}
        | ScalarOp::Trunc {}
        | ScalarOp::Sqrt {}
        | ScalarOp::Rsqrt {}
        | ScalarOp::Exp {}
        | ScalarOp::Exp2 {}
        | ScalarOp::Expm1 {}
        | ScalarOp::Log {}
        | ScalarOp::Log2 {}
        | ScalarOp::Log1p {}
        | ScalarOp::Tanh {}
        | ScalarOp::Erf {}
        | ScalarOp::Sin {}
        | ScalarOp::Cos {}
        | ScalarOp::Shl {}
        | ScalarOp::Shr {}
        | ScalarOp::IsNan {}
        | ScalarOp::Select {}
        | ScalarOp::Cast { .. } => Rule::None,
    }
}

/// The number of bits to shift by, if it is inside the dtype.
fn shift(x: Integer, y: Integer) -> Option<u32> {
    let bits = 8 * x.dtype.block().1 as i128;
    (0..bits).contains(&y.value).then_some(y.value as u32)
}

/// Wraps around; a negative exponent truncates the exact result, and 0 to a negative power is 0, like x / 0.
fn power(x: Integer, y: Integer) -> Integer {
    if y.value < 0 {
        let odd = y.value & 1 == 1;
        return x.with(match x.value {
            1 => 1,
            -1 if odd => -1,
            -1 => 1,
            _ => 0,
        });
    }
    // Squares wrap modulo 2^64, which every dtype's size divides.
    let (mut base, mut exponent, mut result) = (x.value as u64, y.value as u64, 1u64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    x.with(i128::from(result))
}
