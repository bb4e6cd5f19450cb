//! Micro-kernels: the instructions that Cranelift lacks. Generated code calls them by address on packed panels.
//!
//! [`UKERNELS`] and [`STRIPS`] are the tables. A row is usable where its `available` says so; the portable rows are usable
//! everywhere. Panels are made by [`super::pack`].

// Rows are indexed: `i` also steps pointers, and constant bounds are what the compiler unrolls.
#![allow(clippy::needless_range_loop)]

pub mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2_block;
#[cfg(target_arch = "x86_64")]
mod avx512_block;
pub mod block;
pub mod elementary;
pub mod folds;
pub mod halves;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tile;
pub mod transpose;

#[cfg(test)]
mod brain_tests;
#[cfg(test)]
mod tests;

use block::{Q4_0, Q4_1, Q4_K, Q6_K, Q8_0};
use tilewright_ir::types::DType;

/// A tile of a matrix product: `c[i][j] = (accumulate ? c[i][j] : 0) + sum over p of a[i][p] * b[p][j]`.
///
/// Arguments `(m, k, a, lda, b, ldb, c, ldc, accumulate)`. Shapes: `a [m, k]`, rows `lda` elements apart, not packed; `b
/// [k, NR]`, rows `ldb` elements apart (`NR` in a packed panel; block formats are always packed and ignore it); `c [m, NR]`,
/// rows `ldc` elements apart, all NR columns written; `1 <= m <= MR`, `k` a multiple of the row's `k_step` (0 too).
/// Pointers are aligned to an element.
///
/// Numerics: an element of `c` is one chain over the fold, in the dtype of `c`. For panels of floats it starts from 0 and is
/// added to the old `c`, so the rounding errors of a fold in blocks grow with the length of a block and their number; rows
/// of halves come in blocks of their own. For block formats, and on AMX, it starts from the old `c`, so that cutting the fold
/// changes no bit (on AMX where 32 steps end). It depends on its own row and column only: batching rows changes no bit.
pub type TileProduct = unsafe extern "C" fn(
    m: usize,
    k: usize,
    a: *const u8,
    lda: usize,
    b: *const u8,
    ldb: usize,
    c: *mut u8,
    ldc: usize,
    accumulate: usize,
);

/// Turns `k` steps of a quantised panel into f32 panels, arguments `(k, src, dst)`.
///
/// Shapes: `src` panel blocks of [`block::NR`] columns and `k` steps; `dst [NR / nr][k][nr]`, with the row's `nr`, which is that
/// of the f32 tile product of the same instruction set. Numerics: exactly GGML's value, `d * q` rounded, `+ min` rounded.
pub type Strip = unsafe extern "C" fn(k: usize, src: *const u8, dst: *mut f32);

/// What a kernel needs of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Nothing.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// x86-64 with AVX-512F and its products of bf16.
    Avx512Bf16,
    /// The same with AMX and its products of bf16, which the system lets this process use.
    AmxBf16,
}

impl Isa {
    /// Every instruction set, the widest last.
    pub const ALL: &'static [Isa] = &[Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::AmxBf16];

    /// Its name in programs and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::AmxBf16 => "amx_bf16",
        }
    }

    /// The instruction set for what this one adds nothing to.
    pub fn plain(self) -> Isa {
        if self >= Isa::Avx512Bf16 { Isa::Avx512 } else { self }
    }

    /// Whether this processor has it.
    pub fn available(self) -> bool {
        available(self)()
    }

    /// The widest that this processor has.
    pub fn best() -> Isa {
        Isa::ALL.iter().rev().copied().find(|isa| isa.available()).unwrap_or(Isa::Portable)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512_bf16() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn has_amx_bf16() -> bool {
    has_avx512_bf16() && amx::available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx_bf16() -> bool {
    false
}

/// A row of [`UKERNELS`].
#[derive(Clone, Copy, Debug)]
pub struct UKernel {
    /// `<isa>_<dtype of b>`.
    pub name: &'static str,
    /// What it needs of the processor.
    pub isa: Isa,
    /// Element type of the rows.
    pub a: DType,
    /// Element type, or block format, of the panel.
    pub b: DType,
    /// Element type of the result and of the sums.
    pub c: DType,
    /// Most rows of a call.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// The fold is a multiple of this.
    pub k_step: usize,
    /// The code.
    pub function: TileProduct,
    /// Whether this processor can run it.
    pub available: fn() -> bool,
}

/// A row of [`STRIPS`].
#[derive(Clone, Copy, Debug)]
pub struct StripKernel {
    /// `<isa>_strip_<dtype of b>`.
    pub name: &'static str,
    /// What it needs of the processor.
    pub isa: Isa,
    /// Block format of the panel.
    pub b: DType,
    /// Columns of each panel of the result.
    pub nr: usize,
    /// The code.
    pub function: Strip,
    /// Whether this processor can run it.
    pub available: fn() -> bool,
}

const fn float(name: &'static str, isa: Isa, dtype: DType, mr: usize, nr: usize, function: TileProduct) -> UKernel {
    UKernel { name, isa, a: dtype, b: dtype, c: dtype, mr, nr, k_step: 1, function, available: available(isa) }
}

/// Rows of halves times panels of f32, on the tile product of f32.
const fn half(name: &'static str, isa: Isa, a: DType, mr: usize, nr: usize, function: TileProduct) -> UKernel {
    let f32 = DType::F32;
    UKernel { name, isa, a, b: f32, c: f32, mr, nr, k_step: 1, function, available: available(isa) }
}

/// Rows of bf16 times panels of their pairs.
const fn brain(name: &'static str, isa: Isa, mr: usize, nr: usize, function: TileProduct) -> UKernel {
    let (a, b, c) = (DType::Bf16, DType::Bf16, DType::F32);
    UKernel { name, isa, a, b, c, mr, nr, k_step: 2, function, available: available(isa) }
}

const fn blocks(name: &'static str, isa: Isa, b: DType, mr: usize, function: TileProduct) -> UKernel {
    let (a, c) = (DType::F32, DType::F32);
    UKernel { name, isa, a, b, c, mr, nr: block::NR, k_step: b.block().0, function, available: available(isa) }
}

const fn strip(name: &'static str, isa: Isa, b: DType, nr: usize, function: Strip) -> StripKernel {
    StripKernel { name, isa, b, nr, function, available: available(isa) }
}

const fn available(isa: Isa) -> fn() -> bool {
    match isa {
        Isa::Portable => || true,
        Isa::Avx2 => has_avx2,
        Isa::Avx512 => has_avx512,
        Isa::Avx512Bf16 => has_avx512_bf16,
        Isa::AmxBf16 => has_amx_bf16,
    }
}

/// Every tile product, the widest instruction set first.
pub const UKERNELS: &[UKernel] = &[
    #[cfg(target_arch = "x86_64")]
    brain("amx_bf16_tiles", Isa::AmxBf16, amx::MR, amx::NR, amx::product),
    #[cfg(target_arch = "x86_64")]
    brain("avx512_bf16_pairs", Isa::Avx512Bf16, pairs::MR, pairs::NR, pairs::product),
    #[cfg(target_arch = "x86_64")]
    float("avx512_f32", Isa::Avx512, DType::F32, tile::avx512_f32::MR, tile::avx512_f32::NR, tile::avx512_f32::product),
    #[cfg(target_arch = "x86_64")]
    float("avx512_f64", Isa::Avx512, DType::F64, tile::avx512_f64::MR, tile::avx512_f64::NR, tile::avx512_f64::product),
    #[cfg(target_arch = "x86_64")]
    blocks("avx512_q4_0", Isa::Avx512, DType::Q4_0, avx512_block::MR, avx512_block::product::<Q4_0>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx512_q4_1", Isa::Avx512, DType::Q4_1, avx512_block::MR, avx512_block::product::<Q4_1>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx512_q8_0", Isa::Avx512, DType::Q8_0, avx512_block::MR, avx512_block::product::<Q8_0>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx512_q4_K", Isa::Avx512, DType::Q4K, avx512_block::MR, avx512_block::product::<Q4_K>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx512_q6_K", Isa::Avx512, DType::Q6K, avx512_block::MR, avx512_block::product::<Q6_K>),
    #[cfg(target_arch = "x86_64")]
    half("avx512_bf16", Isa::Avx512, DType::Bf16, tile::avx512_f32::MR, tile::avx512_f32::NR, halves::avx512::bf16),
    #[cfg(target_arch = "x86_64")]
    half("avx512_f16", Isa::Avx512, DType::F16, tile::avx512_f32::MR, tile::avx512_f32::NR, halves::avx512::f16),
    #[cfg(target_arch = "x86_64")]
    float("avx2_f32", Isa::Avx2, DType::F32, tile::avx2_f32::MR, tile::avx2_f32::NR, tile::avx2_f32::product),
    #[cfg(target_arch = "x86_64")]
    float("avx2_f64", Isa::Avx2, DType::F64, tile::avx2_f64::MR, tile::avx2_f64::NR, tile::avx2_f64::product),
    #[cfg(target_arch = "x86_64")]
    blocks("avx2_q4_0", Isa::Avx2, DType::Q4_0, avx2_block::MR, avx2_block::product::<Q4_0>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx2_q4_1", Isa::Avx2, DType::Q4_1, avx2_block::MR, avx2_block::product::<Q4_1>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx2_q8_0", Isa::Avx2, DType::Q8_0, avx2_block::MR, avx2_block::product::<Q8_0>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx2_q4_K", Isa::Avx2, DType::Q4K, avx2_block::MR, avx2_block::product::<Q4_K>),
    #[cfg(target_arch = "x86_64")]
    blocks("avx2_q6_K", Isa::Avx2, DType::Q6K, avx2_block::MR, avx2_block::product::<Q6_K>),
    #[cfg(target_arch = "x86_64")]
    half("avx2_bf16", Isa::Avx2, DType::Bf16, tile::avx2_f32::MR, tile::avx2_f32::NR, halves::avx2::bf16),
    #[cfg(target_arch = "x86_64")]
    half("avx2_f16", Isa::Avx2, DType::F16, tile::avx2_f32::MR, tile::avx2_f32::NR, halves::avx2::f16),
    float("portable_f32", Isa::Portable, DType::F32, portable::MR, portable::FLOAT_NR, portable::product_f32),
    float("portable_f64", Isa::Portable, DType::F64, portable::MR, portable::FLOAT_NR, portable::product_f64),
    blocks("portable_q4_0", Isa::Portable, DType::Q4_0, portable::MR, portable::product_block::<Q4_0>),
    blocks("portable_q4_1", Isa::Portable, DType::Q4_1, portable::MR, portable::product_block::<Q4_1>),
    blocks("portable_q8_0", Isa::Portable, DType::Q8_0, portable::MR, portable::product_block::<Q8_0>),
    blocks("portable_q4_K", Isa::Portable, DType::Q4K, portable::MR, portable::product_block::<Q4_K>),
    blocks("portable_q6_K", Isa::Portable, DType::Q6K, portable::MR, portable::product_block::<Q6_K>),
    half("portable_bf16", Isa::Portable, DType::Bf16, portable::MR, portable::FLOAT_NR, halves::portable::bf16),
    half("portable_f16", Isa::Portable, DType::F16, portable::MR, portable::FLOAT_NR, halves::portable::f16),
];

/// Every strip of f32 panels out of a quantised panel, the widest instruction set first.
pub const STRIPS: &[StripKernel] = &[
    #[cfg(target_arch = "x86_64")]
    strip("avx512_strip_q4_0", Isa::Avx512, DType::Q4_0, block::NR, avx512_block::strip::<Q4_0>),
    #[cfg(target_arch = "x86_64")]
    strip("avx512_strip_q4_1", Isa::Avx512, DType::Q4_1, block::NR, avx512_block::strip::<Q4_1>),
    #[cfg(target_arch = "x86_64")]
    strip("avx512_strip_q8_0", Isa::Avx512, DType::Q8_0, block::NR, avx512_block::strip::<Q8_0>),
    #[cfg(target_arch = "x86_64")]
    strip("avx512_strip_q4_K", Isa::Avx512, DType::Q4K, block::NR, avx512_block::strip::<Q4_K>),
    #[cfg(target_arch = "x86_64")]
    strip("avx512_strip_q6_K", Isa::Avx512, DType::Q6K, block::NR, avx512_block::strip::<Q6_K>),
    #[cfg(target_arch = "x86_64")]
    strip("avx2_strip_q4_0", Isa::Avx2, DType::Q4_0, avx2_block::STRIP_NR, avx2_block::strip::<Q4_0>),
    #[cfg(target_arch = "x86_64")]
    strip("avx2_strip_q4_1", Isa::Avx2, DType::Q4_1, avx2_block::STRIP_NR, avx2_block::strip::<Q4_1>),
    #[cfg(target_arch = "x86_64")]
    strip("avx2_strip_q8_0", Isa::Avx2, DType::Q8_0, avx2_block::STRIP_NR, avx2_block::strip::<Q8_0>),
    #[cfg(target_arch = "x86_64")]
    strip("avx2_strip_q4_K", Isa::Avx2, DType::Q4K, avx2_block::STRIP_NR, avx2_block::strip::<Q4_K>),
    #[cfg(target_arch = "x86_64")]
    strip("avx2_strip_q6_K", Isa::Avx2, DType::Q6K, avx2_block::STRIP_NR, avx2_block::strip::<Q6_K>),
    strip("portable_strip_q4_0", Isa::Portable, DType::Q4_0, portable::STRIP_NR, portable::strip::<Q4_0>),
    strip("portable_strip_q4_1", Isa::Portable, DType::Q4_1, portable::STRIP_NR, portable::strip::<Q4_1>),
    strip("portable_strip_q8_0", Isa::Portable, DType::Q8_0, portable::STRIP_NR, portable::strip::<Q8_0>),
    strip("portable_strip_q4_K", Isa::Portable, DType::Q4K, portable::STRIP_NR, portable::strip::<Q4_K>),
    strip("portable_strip_q6_K", Isa::Portable, DType::Q6K, portable::STRIP_NR, portable::strip::<Q6_K>),
];

/// The kernel of this instruction set for rows of `a` and a panel of `b`; the one with [`Isa::best`] is the fastest here.
pub fn find(isa: Isa, a: DType, b: DType) -> Option<&'static UKernel> {
    let here = |isa| UKERNELS.iter().find(|kernel| kernel.isa == isa && (kernel.a, kernel.b) == (a, b));
    // Each instruction set above the plain one has all of those below it.
    let all = Isa::ALL.iter().rev().copied();
    all.filter(|other| *other <= isa && *other >= isa.plain()).find_map(here)
}

/// The strip of this instruction set for a panel of `b`.
pub fn find_strip(isa: Isa, b: DType) -> Option<&'static StripKernel> {
    STRIPS.iter().find(|kernel| kernel.isa == isa.plain() && kernel.b == b)
}
