//! sin and cos: reduction to -pi/4..pi/4 by three parts of pi/2, then both polynomials and a choice.

use super::{Lanes, horner, tiny_is_itself};

/// Up to this magnitude [`sin`] and [`cos`] hold; beyond it (and only there) call [`sin_any`] and [`cos_any`].
pub const TRIG_LIMIT: f32 = 1.0e5;

/// 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// 2 / pi.
const TWO_OVER_PI: f32 = 0.636_619_75;
/// pi / 2 in three parts, together 77 bits. Each step `r - n * part` cancels into bits that an f32 holds.
const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];
/// (sin r - r) / r^3 in r^2, for |r| <= pi/4, relative to sin r within 2^-37.
const SIN: [f32; 4] = [-1.666_666_716e-1, 8.333_329_111e-3, -1.983_930_852e-4, 2.718_084_261e-6];
/// (cos r - 1 + r^2 / 2) / r^4 in r^2, for |r| <= pi/4, relative to cos r within 2^-33.
const COS: [f32; 3] = [4.166_664_556e-2, -1.388_731_296e-3, 2.443_278_390e-5];

/// sin of x + quarter * pi / 2.
#[inline(always)]
fn quarter_turned<L: Lanes>(l: &mut L, x: L::V, quarter: i32) -> L::V {
    let (scale, round) = (l.constant(TWO_OVER_PI), l.constant(ROUND));
    let shifted = l.fma(x, scale, round);
    let n = l.sub(shifted, round);
    let mut r = x;
    for part in HALF_PI {
        let part = l.constant(-part);
        r = l.fma(n, part, r);
    }
    let square = l.mul(r, r);
    let p = horner(l, square, &SIN);
    let cube = l.mul(square, r);
    let sine = l.fma(p, cube, r);
    let (half, one) = (l.constant(-0.5), l.constant(1.0));
    let p = horner(l, square, &COS);
    let fourth = l.mul(square, square);
    let cosine = l.fma(square, half, one);
    let cosine = l.fma(p, fourth, cosine);
    // The low bit of the quarter chooses, the next one is the sign.
    let bits = l.bits(shifted);
    let bits = if quarter == 0 {
        bits
    } else {
        let quarter = l.int_constant(quarter);
        l.iadd(bits, quarter)
    };
    let (one_bit, two_bit) = (l.int_constant(1), l.int_constant(2));
    let odd = l.iand(bits, one_bit);
    let odd = l.shl(odd, 30);
    let (odd, zero) = (l.from_bits(odd), l.constant(0.0));
    let is_odd = l.lt(zero, odd);
    let y = l.select(is_odd, cosine, sine);
    let sign = l.iand(bits, two_bit);
    let sign = l.shl(sign, 30);
    let bits = l.bits(y);
    let bits = l.ixor(bits, sign);
    l.from_bits(bits)
}

/// Sine of x radians, |x| <= [`TRIG_LIMIT`]. Numerics: at most 1.56 ulp; NaN for infinities and NaN; keeps -0.
#[inline(always)]
pub fn sin<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    let y = quarter_turned(l, x, 0);
    tiny_is_itself(l, x, 1.0e-4, y)
}

/// Cosine of x radians, |x| <= [`TRIG_LIMIT`]. Numerics: at most 1.57 ulp; NaN for infinities and NaN.
#[inline(always)]
pub fn cos<L: Lanes>(l: &mut L, x: L::V) -> L::V {
    quarter_turned(l, x, 1)
}

/// Sine of any f32, through f64: correctly rounded but for ties that f64 cannot tell. For lanes beyond [`TRIG_LIMIT`].
pub extern "C" fn sin_any(x: f32) -> f32 {
    libm::sin(f64::from(x)) as f32
}

/// Cosine of any f32, as [`sin_any`].
pub extern "C" fn cos_any(x: f32) -> f32 {
    libm::cos(f64::from(x)) as f32
}
