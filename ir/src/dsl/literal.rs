//! Numbers of a Rust program as elements of a dtype.

use crate::array::round_to_odd;
use crate::types::DType;
use half::{bf16, f16};

/// A number written in the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// Takes any float dtype, and an integer dtype if it is integral.
    Float(f64),
    /// Takes any dtype that holds it.
    Int(i64),
}

impl From<f64> for Scalar {
    fn from(x: f64) -> Scalar {
        Scalar::Float(x)
    }
}

impl From<i64> for Scalar {
    fn from(x: i64) -> Scalar {
        Scalar::Int(x)
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Float(x) => write!(f, "{x}"),
            Scalar::Int(x) => write!(f, "{x}"),
        }
    }
}

/// Little-endian bytes of `value` in `dtype`; `None` if the dtype cannot hold it (floats round).
pub(super) fn encode(value: Scalar, dtype: DType) -> Option<Vec<u8>> {
    let float = match value {
        Scalar::Float(x) => x,
        Scalar::Int(x) => x as f64,
    };
    // 2^53: above it a float literal may not be the integer that was meant.
    let integer = match value {
        Scalar::Int(x) => Some(x),
        Scalar::Float(x) if x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0 => Some(x as i64),
        Scalar::Float(_) => None,
    };
    Some(match dtype {
        DType::F64 => float.to_le_bytes().to_vec(),
        DType::F32 => (float as f32).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(round_to_odd(float)).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(round_to_odd(float)).to_le_bytes().to_vec(),
        DType::I8 => i8::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::U8 => u8::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::I16 => i16::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::U16 => u16::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::I32 => i32::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::U32 => u32::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::I64 => integer?.to_le_bytes().to_vec(),
        DType::U64 => u64::try_from(integer?).ok()?.to_le_bytes().to_vec(),
        DType::Bool => vec![u8::try_from(integer?).ok().filter(|b| *b < 2)?],
        DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => return None,
    })
}
