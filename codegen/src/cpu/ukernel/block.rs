//! Panels of block-quantised weights: where things lie, and what the product of a block is.
//!
//! A panel holds [`NR`] columns. For every [`steps`] steps of the fold it has one block, the same bytes as the GGML blocks of
//! these columns in another order, the same on every processor:
//!
//! | part | type | for |
//! | --- | --- | --- |
//! | scales `d` | f16 `[NR]` | all |
//! | minima `min` | f16 `[NR]` | q4_1; q4_K, whose `dmin` they are |
//! | scales and minima of runs | u8 `[12][NR]`, bytes as in a GGML block | q4_K |
//! | scales of runs | i8 `[16][NR]` | q6_K |
//! | quants | u32 `[steps / 8][NR]`, little endian; nibble `t` of group `g` is step `8 * g + t` | all but q8_0 |
//! | upper bits | u32 `[16][NR]`, little endian; pair `t` of word `w` is of step `16 * w + t` | q6_K |
//! | quants | i8 `[32][NR]` | q8_0 |
//!
//! A [`run`] is the steps with one scale: the whole block, or 32 or 16 of the 256 steps of q4_K and q6_K, where the scale is
//! `d` times that of the run and the minimum `-dmin` times that of the run, both exact in f32.
//!
//! Every kernel rounds in the same order, so all of them give the same bits: in each group of 8 steps a product and 7 fused
//! multiply-adds; the sums of the groups of a run added left to right; `c = fma(scale, sum, c)`; with minima then
//! `c = fma(min, sum of a, c)`, where the 32 elements of `a` are halved pairwise (16, 8, 4, 2, 1). An element that is then not finite is computed once more, in order and with GGML's values
//! `d * q + min`: an infinite `a` makes NaN of a quant that is 0, and a huge one overflows before its scale is small.

use tilewright_ir::types::DType;

/// Columns of a quantised panel.
pub const NR: usize = 32;

/// The format code of q4_0 in the const generics of the kernels.
pub const Q4_0: u8 = 0;
/// The format code of q4_1.
pub const Q4_1: u8 = 1;
/// The format code of q8_0.
pub const Q8_0: u8 = 2;
/// The format code of q4_K.
pub const Q4_K: u8 = 3;
/// The format code of q6_K.
pub const Q6_K: u8 = 4;

/// The dtypes that have quantised panels, by their codes.
pub const FORMATS: [DType; 5] = [DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K, DType::Q6K];

/// Steps of the fold in a block.
pub const fn steps(format: u8) -> usize {
    FORMATS[format as usize].block().0
}

/// Steps that share a scale.
pub const fn run(format: u8) -> usize {
    if format == Q6_K { 16 } else { 32 }
}

/// Runs of a block.
pub const fn runs(format: u8) -> usize {
    steps(format) / run(format)
}

/// Whether runs have minima.
pub const fn has_minima(format: u8) -> bool {
    format == Q4_1 || format == Q4_K
}

/// Bytes before the scales of runs: `d`, and minima.
pub const fn halves_bytes(format: u8) -> usize {
    if has_minima(format) { 4 * NR } else { 2 * NR }
}

/// Bytes before the quants of a panel block.
pub const fn header_bytes(format: u8) -> usize {
    let runs = match format {
        Q4_K => 12 * NR,
        Q6_K => 16 * NR,
        _ => 0,
    };
    halves_bytes(format) + runs
}

/// Where the upper bits of q6_K begin.
pub const UPPER: usize = header_bytes(Q6_K) + steps(Q6_K) / 2 * NR;

/// Bytes of a panel block.
pub const fn panel_block_bytes(format: u8) -> usize {
    FORMATS[format as usize].block().1 * NR
}

/// The format code of a dtype that has quantised panels.
pub fn format_of(dtype: DType) -> Option<u8> {
    FORMATS.iter().position(|d| *d == dtype).map(|code| code as u8)
}
