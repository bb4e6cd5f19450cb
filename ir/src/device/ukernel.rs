//! Shapes of the CPU's micro-kernels: the rows of `mma`. A product is `c[mr, nr] += a[mr, k] * panel[k, nr]`.

use crate::types::DType;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UKernelShape {
    /// Name, as in `via`.
    pub name: &'static str,
    /// Instruction set: `avx512`, `avx2`, `portable`.
    pub isa: &'static str,
    /// Dtype of the panels; block encodings have a and c in f32.
    pub b: DType,
    /// Most rows.
    pub mr: i64,
    /// Columns of a panel.
    pub nr: i64,
    /// The fold's length is a multiple of this.
    pub k_step: i64,
}

const fn row(name: &'static str, isa: &'static str, b: DType, mr: i64, nr: i64) -> UKernelShape {
    UKernelShape { name, isa, b, mr, nr, k_step: b.block().0 as i64 }
}

/// Every row; they agree with the table of the back end.
pub const UKERNELS: &[UKernelShape] = &[
    row("avx512_f32", "avx512", DType::F32, 14, 32),
    row("avx512_f64", "avx512", DType::F64, 14, 16),
    row("avx512_q4_0", "avx512", DType::Q4_0, 4, 32),
    row("avx512_q4_1", "avx512", DType::Q4_1, 4, 32),
    row("avx512_q8_0", "avx512", DType::Q8_0, 4, 32),
    row("avx2_f32", "avx2", DType::F32, 6, 16),
    row("avx2_f64", "avx2", DType::F64, 6, 8),
    row("avx2_q4_0", "avx2", DType::Q4_0, 4, 32),
    row("avx2_q4_1", "avx2", DType::Q4_1, 4, 32),
    row("avx2_q8_0", "avx2", DType::Q8_0, 4, 32),
    row("portable_f32", "portable", DType::F32, 4, 8),
    row("portable_f64", "portable", DType::F64, 4, 8),
    row("portable_q4_0", "portable", DType::Q4_0, 4, 32),
    row("portable_q4_1", "portable", DType::Q4_1, 4, 32),
    row("portable_q8_0", "portable", DType::Q8_0, 4, 32),
];

/// The row for panels of `b` on `isa`.
pub fn find(isa: &str, b: DType) -> Option<&'static UKernelShape> {
    UKERNELS.iter().find(|u| u.isa == isa && u.b == b)
}
