//! Shapes of the CPU's micro-kernels: the rows of `mma`. A product is `c[mr, nr] += a[mr, k] * panel[k, nr]`.

use crate::types::DType;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UKernelShape {
    /// Name, as in `via`.
    pub name: &'static str,
    /// Instruction set: `amx_bf16`, `avx512_bf16`, `avx512`, `avx2`, `portable`.
    pub isa: &'static str,
    /// Dtype of the rows; those of halves have c in f32.
    pub a: DType,
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
    let a = if b.is_block() { DType::F32 } else { b };
    UKernelShape { name, isa, a, b, mr, nr, k_step: b.block().0 as i64 }
}

/// Rows of halves times panels of f32.
const fn half(name: &'static str, isa: &'static str, a: DType, mr: i64, nr: i64) -> UKernelShape {
    UKernelShape { name, isa, a, b: DType::F32, mr, nr, k_step: 1 }
}

/// Every row; they agree with the table of the back end.
pub const UKERNELS: &[UKernelShape] = &[
    UKernelShape { k_step: 2, ..row("amx_bf16_tiles", "amx_bf16", DType::Bf16, 32, 32) },
    UKernelShape { k_step: 2, ..row("avx512_bf16_pairs", "avx512_bf16", DType::Bf16, 14, 32) },
    row("avx512_f32", "avx512", DType::F32, 14, 32),
    row("avx512_f64", "avx512", DType::F64, 14, 16),
    row("avx512_q4_0", "avx512", DType::Q4_0, 4, 32),
    row("avx512_q4_1", "avx512", DType::Q4_1, 4, 32),
    row("avx512_q8_0", "avx512", DType::Q8_0, 4, 32),
    row("avx512_q4_K", "avx512", DType::Q4K, 4, 32),
    row("avx512_q6_K", "avx512", DType::Q6K, 4, 32),
    half("avx512_bf16", "avx512", DType::Bf16, 14, 32),
    half("avx512_f16", "avx512", DType::F16, 14, 32),
    row("avx2_f32", "avx2", DType::F32, 6, 16),
    row("avx2_f64", "avx2", DType::F64, 6, 8),
    row("avx2_q4_0", "avx2", DType::Q4_0, 4, 32),
    row("avx2_q4_1", "avx2", DType::Q4_1, 4, 32),
    row("avx2_q8_0", "avx2", DType::Q8_0, 4, 32),
    row("avx2_q4_K", "avx2", DType::Q4K, 4, 32),
    row("avx2_q6_K", "avx2", DType::Q6K, 4, 32),
    half("avx2_bf16", "avx2", DType::Bf16, 6, 16),
    half("avx2_f16", "avx2", DType::F16, 6, 16),
    row("portable_f32", "portable", DType::F32, 4, 8),
    row("portable_f64", "portable", DType::F64, 4, 8),
    row("portable_q4_0", "portable", DType::Q4_0, 4, 32),
    row("portable_q4_1", "portable", DType::Q4_1, 4, 32),
    row("portable_q8_0", "portable", DType::Q8_0, 4, 32),
    row("portable_q4_K", "portable", DType::Q4K, 4, 32),
    row("portable_q6_K", "portable", DType::Q6K, 4, 32),
    half("portable_bf16", "portable", DType::Bf16, 4, 8),
    half("portable_f16", "portable", DType::F16, 4, 8),
];

/// The row of `isa`, or of an instruction set that it includes, for rows of `a` and panels of `b`.
pub fn find(isa: &str, a: DType, b: DType) -> Option<&'static UKernelShape> {
    let here = |isa: &str| UKERNELS.iter().find(|u| u.isa == isa && (u.a, u.b) == (a, b));
    here(isa).or_else(|| included(isa).iter().find_map(|isa| here(isa)))
}

/// The instruction sets that `isa` adds products to, the widest first. The last of them multiplies no pairs of bf16.
pub fn included(isa: &str) -> &'static [&'static str] {
    match isa {
        "amx_bf16" => &["avx512_bf16", "avx512"],
        "avx512_bf16" => &["avx512"],
        _ => &[],
    }
}
