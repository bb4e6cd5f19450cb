//! Element types that rules tell apart: f16 and bf16, what rounding to them gives and loses.

use tilewright_ir::types::DType;

/// Whether it is f16 or bf16.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

/// `x` rounded to f32, f16 or bf16, ties to even; what does not fit is infinite. Other dtypes hold every number here.
pub(super) fn rounded(dtype: DType, x: f64) -> f64 {
    let (precision, least, largest) = match dtype {
        DType::F32 => return f64::from(x as f32),
        DType::F16 => (11, -14, 65504.0),
        DType::Bf16 => (8, -126, 255.0 * 120f64.exp2()),
        _wide => return x,
    };
    // Numbers below the normal ones of f64 are far below every half.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let unit = f64::from(exponent.max(least) - (precision - 1)).exp2();
    if !x.is_finite() {
        return x;
    }
    let near = (x / unit).round_ties_even() * unit;
    if near.abs() > largest { f64::INFINITY.copysign(x) } else { near }
}

/// Twice the largest relative error of rounding to it.
pub(super) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 10f64.exp2().recip(),
        DType::Bf16 => 7f64.exp2().recip(),
        DType::F32 => f64::from(f32::EPSILON),
        _wide => f64::EPSILON,
    }
}
