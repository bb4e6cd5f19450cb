//! Shapes of the matrix instructions of GPUs' warps: rows of `mma`. One instruction is `c[m, n] += a[m, k] * b[k, n]` with
//! f32 sums; the accumulator's buffer says by `layout(mma16816, rows, columns)` how many warps share it along m and along n.

use crate::types::DType;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmaShape {
    /// Name, as in `via`.
    pub name: &'static str,
    /// Dtype of both factors.
    pub dtype: DType,
    /// Rows of the result.
    pub m: i64,
    /// Columns of the result.
    pub n: i64,
    /// Length of the sum.
    pub k: i64,
}

/// Every row; all targets from sm_80 on have them.
pub const MMA: &[MmaShape] = &[
    MmaShape { name: "mma_m16n8k16_bf16", dtype: DType::Bf16, m: 16, n: 8, k: 16 },
    MmaShape { name: "mma_m16n8k16_f16", dtype: DType::F16, m: 16, n: 8, k: 16 },
];

/// The row for factors of `dtype`.
pub fn find(dtype: DType) -> Option<&'static MmaShape> {
    MMA.iter().find(|row| row.dtype == dtype)
}

/// The row of a name.
pub fn named(name: &str) -> Option<&'static MmaShape> {
    MMA.iter().find(|row| row.name == name)
}
