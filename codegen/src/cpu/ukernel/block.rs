//! Panels of block-quantised weights: where things lie, and what the product of a block is.
//!
//! A panel holds [`NR`] columns. For every 32 steps of the fold it has one block, the same bytes as the GGML blocks of these
//! columns in another order, the same on every processor:
//!
//! | part | type | for |
//! | --- | --- | --- |
//! | scales `d` | f16 `[NR]` | all |
//! | minima `min` | f16 `[NR]` | q4_1 |
//! | quants | u32 `[4][NR]`, little endian; nibble `t` of group `g` is step `8 * g + t` | q4_0, q4_1 |
//! | quants | i8 `[32][NR]` | q8_0 |
//!
//! Every kernel rounds in the same order, so all of them give the same bits: in each group of 8 steps a product and 7 fused
//! multiply-adds; the sums of the 4 groups added left to right; `c = fma(d, sum, c)`; for q4_1 then
//! `c = fma(min, sum of a, c)`, where the 32 elements of `a` are halved pairwise (16, 8, 4, 2, 1). An element that is then not finite is computed once more, in order and with GGML's values
//! `d * q + min`: an infinite `a` makes NaN of a quant that is 0, and a huge one overflows before its scale is small.

use tilewright_ir::types::DType;

/// Columns of a quantised panel.
pub const NR: usize = 32;
/// Steps of the fold in a block.
pub const BLOCK: usize = 32;

/// The format code of q4_0 in the const generics of the kernels.
pub const Q4_0: u8 = 0;
/// The format code of q4_1.
pub const Q4_1: u8 = 1;
/// The format code of q8_0.
pub const Q8_0: u8 = 2;

/// Bytes before the quants of a panel block.
pub const fn header_bytes(format: u8) -> usize {
    if format == Q4_1 { 4 * NR } else { 2 * NR }
}

/// Bytes of a panel block.
pub const fn panel_block_bytes(format: u8) -> usize {
    header_bytes(format) + if format == Q8_0 { BLOCK * NR } else { BLOCK * NR / 2 }
}

/// The format code of a dtype that has quantised panels: q4_0, q4_1, q8_0.
pub fn format_of(dtype: DType) -> Option<u8> {
    [(DType::Q4_0, Q4_0), (DType::Q4_1, Q4_1), (DType::Q8_0, Q8_0)]
        .into_iter()
        .find(|(d, _)| *d == dtype)
        .map(|(_, f)| f)
}
