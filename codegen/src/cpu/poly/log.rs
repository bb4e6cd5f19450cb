//! log, log2, log1p.
//!
//! All write x as `2^e * (1 + f)` with f in -1/3..1/3, so that e is 0 around 1 and nothing cancels.

use super::{Lanes, horner, tiny_is_itself};

/// The bits of 2/3: an exponent counts from there.
const TWO_THIRDS: i32 = 0x3f2a_aaab;
/// ln 2 in two parts; the first has 15 bits, so that its product with an exponent is exact.
const LN_2: [f32; 2] = [6.931_457_5e-1, 1.428_606_8e-6];
/// log2(e) in two parts.
const LOG2_E: [f32; 2] = [1.442_695, 1.925_963e-8];
/// (log(1 + f) - f) / f^2 for f in -1/3..1/3, relative to log(1 + f) within 2^-27.
const LOG: [f32; 9] = [
    -0.5,
    3.333_320_916e-1,
    -2.499_971_688e-1,
    2.001_075_447e-1,
    -1.668_231_040e-1,
    1.400_103_122e-1,
    -1.216_707_602e-1,
    1.400_544_792e-1,
    -1.294_936_538e-1,
];
/// The same times log2(e).
const LOG2: [f32; 9] = [
    -7.213_475_108e-1,
    4.808_965_325e-1,
    -3.606_696_725e-1,
    2.886_941_731e-1,
    -2.406_748_682e-1,
    2.019_921_839e-1,
    -1.755_338_013e-1,
    2.020_559_013e-1,
    -1.868_198_514e-1,
];

/// `(e, f)` of a positive finite x.
#[inline(always)]
fn split<L: Lanes>(l: &mut L, x: L::V) -> (L::V, L::V) {
    let (smallest, up) = (l.constant(f32::MIN_POSITIVE), l.constant(8_388_608.0));
    let denormal = l.lt(x, smallest);
    let scaled = l.mul(x, up);
    let x = l.select(denormal, scaled, x);
    let bits = l.bits(x);
    let base = l.int_constant(TWO_THIRDS);
    let above = l.isub(bits, base);
    let exponent = l.sshr(above, 23);
    let shift = l.shl(exponent, 23);
    let bits = l.isub(bits, shift);
    let (m, one) = (l.from_bits(bits), l.constant(1.0));
    let f = l.sub(m, one);
    let e = l.to_float(exponent);
    let less = l.constant(-23.0);
    let corrected = l.add(e, less);
    (l.select(denormal, corrected, e), f)
}

/// `y`, but -infinity where `x` is `pole`, NaN below it, and x itself where it is +infinity or NaN.
#[inline(always)]
fn outside<L: Lanes>(l: &mut L, x: L::V, pole: f32, y: L::V) -> L::V {
    let (infinity, nan, low) = (l.constant(f32::INFINITY), l.constant(f32::NAN), l.constant(f32::NEG_INFINITY));
    let pole = l.constant(pole);
    let finite = l.lt(x, infinity);
    let y = l.select(finite, y, x);
    let at = l.eq(x, pole);
    let special = l.select(at, low, nan);
    let beyond = l.le(x, pole);
    l.select(beyond, special, y)
}

/// `e ln 2 + log(1 + f)`.
#[inline(always)]
fn join<L: Lanes>(l: &mut L, e: L::V, f: L::V) -> L::V {
    let p = horner(l, f, &LOG);
    let square = l.mul(f, f);
    let (high, low) = (l.constant(LN_2[0]), l.constant(LN_2[1]));
    let small = l.mul(e, low);
    let small = l.fma(square, p, small);
    let y = l.add(f, small);
    l.fma(e, high, y)
}

/// The natural logarithm. Numerics: at most 0.91 ulp; -infinity at 0, NaN below.
#[inline(always)]
pub fn log<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let (e, f) = split(l, x);
    let y = join(l, e, f);
    outside(l, x, 0.0, y)
}

/// The logarithm to base 2. Numerics: at most 1.49 ulp; exact at powers of two; -infinity at 0, NaN below.
#[inline(always)]
pub fn log2<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let (e, f) = split(l, x);
    let p = horner(l, f, &LOG2);
    let square = l.mul(f, f);
    let (high, low) = (l.constant(LOG2_E[0]), l.constant(LOG2_E[1]));
    let small = l.mul(f, low);
    let small = l.fma(square, p, small);
    let y = l.fma(f, high, small);
    let y = l.add(y, e);
    outside(l, x, 0.0, y)
}

/// log(1 + x). Numerics: at most 1.66 ulp; -infinity at -1, NaN below, keeps -0 and denormals.
///
/// The exponent is that of the rounded `1 + x`; f is made from x itself: `x / 2^e + (1 / 2^e - 1)`.
#[inline(always)]
pub fn log1p<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let one = l.constant(1.0);
    let sum = l.add(x, one);
    let bits = l.bits(sum);
    let (base, fields) = (l.int_constant(TWO_THIRDS), l.int_constant(-1 << 23));
    let above = l.isub(bits, base);
    let shift = l.iand(above, fields);
    let exponent = l.sshr(above, 23);
    let bits = l.bits(x);
    let bits = l.isub(bits, shift);
    let scaled = l.from_bits(bits);
    // 4 / 2^e, because 1 / 2^128 is denormal.
    let four = l.int_constant(0x4080_0000);
    let power = l.isub(four, shift);
    let power = l.from_bits(power);
    let (quarter, minus_one) = (l.constant(0.25), l.constant(-1.0));
    let offset = l.fma(power, quarter, minus_one);
    let f = l.add(scaled, offset);
    let e = l.to_float(exponent);
    let y = join(l, e, f);
    let y = outside(l, x, -1.0, y);
    tiny_is_itself(l, x, 5.0e-8, y)
}
