//! exp, exp2, expm1.
//!
//! All write the result as `4^h * p(r)`: the power of two is even, so that it is a square `s * s` of an f32 whose exponent
//! never overflows, and `(p * s) * s` rounds once where the result is denormal. The price is that r spans twice the usual
//! range, two more coefficients.

use super::{Lanes, horner, tiny_is_itself};

/// 1.5 * 2^23 + 127: adding it rounds to an integer and leaves that integer, biased as an exponent, in the low bits.
const ROUND: f32 = 12_582_912.0 + 127.0;
/// log2(e) / 2.
const HALF_LOG2_E: f32 = 0.721_347_5;
/// 2 ln 2 in two parts; the first has 15 bits, so that its product with an integer below 2^9 is exact.
const TWO_LN_2: [f32; 2] = [1.386_291_5, 2.857_213_5e-6];
/// (e^r - 1 - r) / r^2 for |r| <= ln 2, relative to e^r within 2^-30.
const EXP: [f32; 7] =
    [0.5, 1.666_667_461e-1, 4.166_652_635e-2, 8.332_527_243e-3, 1.389_370_649e-3, 2.010_990_574e-4, 2.443_998_528e-5];
/// The same, relative to e^r - 1 within 2^-29.
const EXPM1: [f32; 7] =
    [0.5, 1.666_667_163e-1, 4.166_661_948e-2, 8.332_629_688e-3, 1.389_042_474e-3, 2.009_561_867e-4, 2.478_114_038e-5];
/// (2^r - 1) / r for |r| <= 1, relative to 2^r within 2^-31.
const EXP2: [f32; 8] = [
    6.931_471_825e-1,
    2.402_265_072e-1,
    5.550_414_696e-2,
    9.618_097_916e-3,
    1.333_199_907e-3,
    1.540_829_544e-4,
    1.547_363_354e-5,
    1.306_390_345e-6,
];

/// `h`, the integer nearest to `x * scale`, as a float, and 2^h; for |h| <= 126.
#[inline(always)]
fn split<L: Lanes>(l: &mut L, x: L::V, scale: f32) -> (L::V, L::V) {
    let (scale, round) = (l.constant(scale), l.constant(ROUND));
    let shifted = l.fma(x, scale, round);
    let h = l.sub(shifted, round);
    let bits = l.bits(shifted);
    let power = l.shl(bits, 23);
    (h, l.from_bits(power))
}

/// `x - h * 2 ln 2`.
#[inline(always)]
fn reduce<L: Lanes>(l: &mut L, x: L::V, h: L::V) -> L::V {
    let (high, low) = (l.constant(-TWO_LN_2[0]), l.constant(-TWO_LN_2[1]));
    let r = l.fma(h, high, x);
    l.fma(h, low, r)
}

/// e^x for x in -104.5..=89 (or NaN), where nothing needs to be cut off.
#[inline(always)]
pub(super) fn exp_inside<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let (h, s) = split(l, x, HALF_LOG2_E);
    let r = reduce(l, x, h);
    let one = l.constant(1.0);
    let q = horner(l, r, &EXP);
    let q = l.fma(q, r, one);
    let p = l.fma(q, r, one);
    let p = l.mul(p, s);
    l.mul(p, s)
}

/// Cuts x off at `low` and `high`; NaN stays.
#[inline(always)]
fn clamp<L: Lanes>(l: &mut L, x: L::V, low: f32, high: f32) -> L::V {
    let (low, high) = (l.constant(low), l.constant(high));
    let x = l.min(high, x);
    l.max(low, x)
}

/// e^x. Numerics: at most 1.45 ulp; infinite above 88.7228, 0 below -103.97, NaN stays NaN.
#[inline(always)]
pub fn exp<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let x = clamp(l, x, -104.5, 89.0);
    exp_inside(l, x)
}

/// 2^x. Numerics: at most 1.27 ulp; exact at integers; infinite from 128, 0 from -150, NaN stays NaN.
#[inline(always)]
pub fn exp2<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let x = clamp(l, x, -151.0, 129.0);
    let (h, s) = split(l, x, 0.5);
    let (minus_two, one) = (l.constant(-2.0), l.constant(1.0));
    let r = l.fma(h, minus_two, x);
    let q = horner(l, r, &EXP2);
    let p = l.fma(q, r, one);
    let p = l.mul(p, s);
    l.mul(p, s)
}

/// e^x - 1. Numerics: at most 1.45 ulp; infinite above 88.7228, -1 towards -infinity, keeps -0 and denormals.
#[inline(always)]
pub fn expm1<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let cut = clamp(l, x, -40.0, 89.0);
    let (h, s) = split(l, cut, HALF_LOG2_E);
    let r = reduce(l, cut, h);
    let q = horner(l, r, &EXPM1);
    let q = l.mul(q, r);
    let q = l.fma(q, r, r);
    // Half of the result, because 4^h may be 2^128: half * q + (half - 1/2) with half = 4^h / 2.
    let (one_half, minus_half) = (l.constant(0.5), l.constant(-0.5));
    let half = l.mul(s, one_half);
    let half = l.mul(half, s);
    let rest = l.add(half, minus_half);
    let y = l.fma(half, q, rest);
    let y = l.add(y, y);
    tiny_is_itself(l, x, 5.0e-8, y)
}
