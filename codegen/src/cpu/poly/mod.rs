//! Elementary functions: each written once, over [`Lanes`], for Rust and for the Cranelift emitter.
//!
//! A function is a straight-line program without branches, about 14 to 35 operations, that calls methods of [`Lanes`]. With
//! [`Scalar`] it runs; with the emitter's implementation it leaves instructions behind. Both give the same bits, since all
//! operations are IEEE's, rounded to nearest even, with denormals. f64 goes through functions of the `libm` crate, see
//! [`wide`].
//!
//! Coefficients are our own: weighted minimax fits in 40 digits, rounded to f32. The errors that the functions state were
//! measured over every f32 against f64 (`TILEWRIGHT_EXHAUSTIVE=1 cargo test --release -p tilewright-codegen poly`).

// Coefficients are written with the digits that the fit gave; the parts of log2(e) and others are split on purpose.
#![allow(clippy::approx_constant, clippy::excessive_precision)]
// `from_bits` is an operation that an emitter records, so it takes the emitter.
#![allow(clippy::wrong_self_convention)]

mod erf;
mod exp;
mod log;
mod trig;
pub mod wide;

#[cfg(test)]
mod tests;

pub use erf::{erf, tanh};
pub use exp::{exp, exp2, expm1};
pub use log::{log, log1p, log2};
pub use trig::{TRIG_LIMIT, cos, cos_any, sin, sin_any};

/// Operations on one vector of f32 (or one f32): what a function may be made of.
///
/// `&mut self` is where an emitter appends instructions. `V` holds floats, `I` the same number of i32, `M` truth values.
pub trait Lanes {
    /// Floats.
    type V: Copy;
    /// 32-bit integers, which wrap around.
    type I: Copy;
    /// Truth values.
    type M: Copy;

    /// `x` in every lane.
    fn constant(&mut self, x: f32) -> Self::V;
    /// a + b
    fn add(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b
    fn mul(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(&mut self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once.
    fn fma(&mut self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The magnitude; of NaN too.
    fn abs(&mut self, a: Self::V) -> Self::V;
    /// a < b ? a : b, so b where one is NaN: x86's `minps`.
    #[inline(always)]
    fn min(&mut self, a: Self::V, b: Self::V) -> Self::V {
        let less = self.lt(a, b);
        self.select(less, a, b)
    }
    /// b < a ? a : b, so b where one is NaN: x86's `maxps`.
    #[inline(always)]
    fn max(&mut self, a: Self::V, b: Self::V) -> Self::V {
        let less = self.lt(b, a);
        self.select(less, a, b)
    }
    /// a < b; false where one is NaN.
    fn lt(&mut self, a: Self::V, b: Self::V) -> Self::M;
    /// a <= b; false where one is NaN.
    fn le(&mut self, a: Self::V, b: Self::V) -> Self::M;
    /// a == b; false where one is NaN.
    fn eq(&mut self, a: Self::V, b: Self::V) -> Self::M;
    /// a where the mask is true, else b.
    fn select(&mut self, mask: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// The bits of the floats.
    fn bits(&mut self, a: Self::V) -> Self::I;
    /// The floats with these bits.
    fn from_bits(&mut self, a: Self::I) -> Self::V;
    /// The nearest float of each integer.
    fn to_float(&mut self, a: Self::I) -> Self::V;
    /// `x` in every lane.
    fn int_constant(&mut self, x: i32) -> Self::I;
    /// a + b
    fn iadd(&mut self, a: Self::I, b: Self::I) -> Self::I;
    /// a - b
    fn isub(&mut self, a: Self::I, b: Self::I) -> Self::I;
    /// a & b
    fn iand(&mut self, a: Self::I, b: Self::I) -> Self::I;
    /// a | b
    fn ior(&mut self, a: Self::I, b: Self::I) -> Self::I;
    /// a ^ b
    fn ixor(&mut self, a: Self::I, b: Self::I) -> Self::I;
    /// a << count, zeros in; `count < 32`.
    fn shl(&mut self, a: Self::I, count: u32) -> Self::I;
    /// a >> count, copies of the sign bit in; `count < 32`.
    fn sshr(&mut self, a: Self::I, count: u32) -> Self::I;
}

/// One f32 at a time, in Rust.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

impl Lanes for Scalar {
    type V = f32;
    type I = i32;
    type M = bool;

    #[inline(always)]
    fn constant(&mut self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(&mut self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(&mut self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(&mut self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn fma(&mut self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn abs(&mut self, a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    fn lt(&mut self, a: f32, b: f32) -> bool {
        a < b
    }
    #[inline(always)]
    fn le(&mut self, a: f32, b: f32) -> bool {
        a <= b
    }
    #[inline(always)]
    fn eq(&mut self, a: f32, b: f32) -> bool {
        a == b
    }
    #[inline(always)]
    fn select(&mut self, mask: bool, a: f32, b: f32) -> f32 {
        if mask { a } else { b }
    }
    #[inline(always)]
    fn bits(&mut self, a: f32) -> i32 {
        a.to_bits().cast_signed()
    }
    #[inline(always)]
    fn from_bits(&mut self, a: i32) -> f32 {
        f32::from_bits(a.cast_unsigned())
    }
    #[inline(always)]
    fn to_float(&mut self, a: i32) -> f32 {
        a as f32
    }
    #[inline(always)]
    fn int_constant(&mut self, x: i32) -> i32 {
        x
    }
    #[inline(always)]
    fn iadd(&mut self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn isub(&mut self, a: i32, b: i32) -> i32 {
        a.wrapping_sub(b)
    }
    #[inline(always)]
    fn iand(&mut self, a: i32, b: i32) -> i32 {
        a & b
    }
    #[inline(always)]
    fn ior(&mut self, a: i32, b: i32) -> i32 {
        a | b
    }
    #[inline(always)]
    fn ixor(&mut self, a: i32, b: i32) -> i32 {
        a ^ b
    }
    #[inline(always)]
    fn shl(&mut self, a: i32, count: u32) -> i32 {
        a.wrapping_shl(count)
    }
    #[inline(always)]
    fn sshr(&mut self, a: i32, count: u32) -> i32 {
        a.wrapping_shr(count)
    }
}

/// The polynomial with these coefficients, the constant first, by Horner's scheme.
#[inline(always)]
fn horner<L: Lanes>(l: &mut L, x: L::V, coefficients: &[f32]) -> L::V {
    let (mut sum, rest) = match coefficients.split_last() {
        Some((last, rest)) => (l.constant(*last), rest),
        None => (l.constant(0.0), coefficients),
    };
    for &coefficient in rest.iter().rev() {
        let coefficient = l.constant(coefficient);
        sum = l.fma(sum, x, coefficient);
    }
    sum
}

/// `magnitude`, whose sign bit is clear, with the sign of `x`.
#[inline(always)]
fn with_sign<L: Lanes>(l: &mut L, magnitude: L::V, x: L::V) -> L::V {
    let (bits, mask) = (l.bits(x), l.int_constant(i32::MIN));
    let sign = l.iand(bits, mask);
    let bits = l.bits(magnitude);
    let bits = l.ior(bits, sign);
    l.from_bits(bits)
}

/// `x` where `|x| < limit`, else `y`: for odd functions that are `x` there, with its sign of zero and its denormals.
#[inline(always)]
fn tiny_is_itself<L: Lanes>(l: &mut L, x: L::V, limit: f32, y: L::V) -> L::V {
    let (size, limit) = (l.abs(x), l.constant(limit));
    let tiny = l.lt(size, limit);
    l.select(tiny, x, y)
}
