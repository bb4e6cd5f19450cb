//! Element types: plain numbers and block-quantised encodings.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The element type of a tensor.
///
/// The block encodings (`q8_0` and the like) are storage formats of GGUF files: 32 (or 256) consecutive elements of the
/// innermost axis share scales. They can only be inputs; `cast` to a float type dequantises them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 8-bit integer, wraps around.
    I8,
    /// Unsigned 8-bit integer, wraps around.
    U8,
    /// Signed 16-bit integer, wraps around.
    I16,
    /// Unsigned 16-bit integer, wraps around.
    U16,
    /// Signed 32-bit integer, wraps around.
    I32,
    /// Unsigned 32-bit integer, wraps around.
    U32,
    /// Signed 64-bit integer, wraps around.
    I64,
    /// Unsigned 64-bit integer, wraps around.
    U64,
    /// Truth value, stored as one byte, 0 or 1.
    Bool,
    /// GGML block of 32: f16 scale, 32 i8.
    Q8_0,
    /// GGML block of 32: f16 scale, 32 4-bit values minus 8.
    Q4_0,
    /// GGML block of 32: f16 scale, f16 minimum, 32 4-bit values.
    Q4_1,
    /// GGML super-block of 256: f16 scale and minimum, 6-bit sub-scales, 4-bit values.
    Q4K,
    /// GGML super-block of 256: f16 scale, i8 sub-scales, 6-bit values.
    Q6K,
}

impl DType {
    /// Every dtype, in table order.
    pub const ALL: &'static [DType] = &[
        DType::F64,
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q4K,
        DType::Q6K,
    ];

    /// The name in text: `f32`, `q4_1`, ...
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::Bool => "bool",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q4K => "q4_K",
            DType::Q6K => "q6_K",
        }
    }

    /// Elements and bytes of one storage block: `(1, size)` for plain types.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F64 | DType::I64 | DType::U64 => (1, 8),
            DType::F32 | DType::I32 | DType::U32 => (1, 4),
            DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => (1, 2),
            DType::I8 | DType::U8 | DType::Bool => (1, 1),
            DType::Q8_0 => (32, 34),
            DType::Q4_0 => (32, 18),
            DType::Q4_1 => (32, 20),
            DType::Q4K => (256, 144),
            DType::Q6K => (256, 210),
        }
    }

    /// Bytes that `elements` take, or `None` on overflow or where they do not fill whole blocks.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let (per, size) = self.block();
        if !elements.is_multiple_of(per) { None } else { (elements / per).checked_mul(size) }
    }

    /// f64, f32, f16, bf16.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::Bf16)
    }

    /// The dtype in which sums and other folds of this one run: f32 for f16 and bf16, else the dtype itself.
    pub const fn folded(self) -> DType {
        match self {
            DType::F16 | DType::Bf16 => DType::F32,
            _wide => self,
        }
    }

    /// Signed and unsigned integers, without bool.
    pub const fn is_int(self) -> bool {
        self.is_signed() || self.is_unsigned()
    }

    /// i8, i16, i32, i64.
    pub const fn is_signed(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }

    /// u8, u16, u32, u64.
    pub const fn is_unsigned(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// A block-quantised encoding.
    pub const fn is_block(self) -> bool {
        self.block().0 > 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;
    fn from_str(s: &str) -> Result<DType, String> {
        DType::ALL.iter().copied().find(|d| d.name() == s).ok_or_else(|| {
            let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
            format!("unknown dtype `{s}`, expected one of {}", names.join(" "))
        })
    }
}
