//! Packing: matrices and GGML rows into the panels that micro-kernels read.
//!
//! A panel holds `nr` columns of a `[k, n]` matrix with the fold outside: `[ceil(n / nr)][k][nr]`. Columns past `n` are zeros
//! (zero scales in block formats). Block formats keep every bit, in the order of [`super::ukernel::block`]. O(k n) moves.

use super::ukernel::block::{self, NR, Q4_1, Q4_K, Q6_K, Q8_0};
use super::ukernel::transpose::{self as tiles, SIDE};
use half::{bf16, f16};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Bytes of the panels of a `[k, n]` matrix, or `None` on overflow, for a dtype without panels, or where `k` or `nr` does
/// not fit the dtype's blocks. Panels exist for f32, f64, bf16 (any `nr > 0`), and the block encodings (`nr` 32).
pub fn packed_bytes(dtype: DType, k: usize, n: usize, nr: usize) -> Option<usize> {
    let plain = matches!(dtype, DType::F32 | DType::F64 | DType::Bf16) && nr > 0;
    let blocks = block::format_of(dtype).is_some() && nr == NR;
    if !plain && !blocks {
        return None;
    }
    n.div_ceil(nr).checked_mul(nr)?.checked_mul(dtype.bytes(k)?)
}

/// Packs a `[k, n]` matrix whose element `(p, j)` is `src[p * k_stride + j * n_stride]` into panels of `dtype`, by `convert`.
///
/// Shapes: `dst [ceil(n / nr)][k][nr]`, exactly. Errors: `pack-size` where a slice does not fit the sizes.
fn panels<S: Copy, T: Copy + Default>(
    (src, dtype): (&[S], DType),
    (k, n): (usize, usize),
    (k_stride, n_stride): (usize, usize),
    nr: usize,
    dst: &mut [T],
    convert: impl Fn(S) -> T,
) -> Result<(), Diagnostic> {
    if !fits((src.len(), size_of_val(dst)), dtype, (k, n), (k_stride, n_stride), nr)? {
        return Ok(());
    }
    if nr == 1 && n_stride == 1 {
        transpose(src, (k, n), k_stride, dst, convert);
        return Ok(());
    }
    for (index, panel) in dst.chunks_exact_mut(k * nr).enumerate() {
        let first = index * nr;
        let columns = nr.min(n - first);
        if columns < nr {
            panel.fill(T::default());
        }
        if n_stride == 1 {
            for (p, row) in panel.chunks_exact_mut(nr).enumerate() {
                let at = p * k_stride + first;
                row[..columns].iter_mut().zip(&src[at..at + columns]).for_each(|(to, from)| *to = convert(*from));
            }
        } else {
            // Short runs of the fold, so that the lines of all columns stay in the first cache.
            for (strip, rows) in panel.chunks_mut(16 * nr).enumerate() {
                for j in 0..columns {
                    let start = strip * 16 * k_stride + (first + j) * n_stride;
                    for (p, row) in rows.chunks_exact_mut(nr).enumerate() {
                        row[j] = convert(src[start + p * k_stride]);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Columns of a `[k, n]` matrix one after the other, by tiles, so that a line of the caches is read once.
fn transpose<S: Copy, T: Copy + Default>(
    src: &[S],
    (k, n): (usize, usize),
    k_stride: usize,
    dst: &mut [T],
    convert: impl Fn(S) -> T,
) {
    for (first, columns) in (0..n).step_by(SIDE).zip(dst.chunks_mut(SIDE * k)) {
        let width = columns.len() / k;
        for step in (0..k).step_by(SIDE) {
            let height = SIDE.min(k - step);
            let mut tile = [[T::default(); SIDE]; SIDE];
            for p in 0..height {
                let at = (step + p) * k_stride + first;
                tile.iter_mut().zip(&src[at..at + width]).for_each(|(row, from)| row[p] = convert(*from));
            }
            for (j, row) in tile.iter().enumerate().take(width) {
                columns[j * k + step..][..height].copy_from_slice(&row[..height]);
            }
        }
    }
}

/// Writes the columns of a `[k, n]` matrix one after the other: the panels of one column each of
/// [`pack_panels_f32`]. Element `(p, j)` is `src[p * k_stride + j]`; `past` writes past the caches where that can be done.
///
/// Shapes: `dst [n][k]`, exactly. Errors: `pack-size` where a slice does not fit the sizes.
pub fn transpose_f32(
    src: &[f32],
    (k, n): (usize, usize),
    k_stride: usize,
    dst: &mut [f32],
    past: bool,
) -> Result<(), Diagnostic> {
    if !fits((src.len(), size_of_val(dst)), DType::F32, (k, n), (k_stride, 1), 1)? {
        return Ok(());
    }
    let tiled = k - k % SIDE;
    for (first, columns) in (0..n).step_by(SIDE).zip(dst.chunks_mut(SIDE * k)) {
        let (src, width) = (&src[first..], columns.len() / k);
        if width == SIDE && tiles::columns(src, tiled, k_stride, columns, k, past) {
            for (column, row) in columns.chunks_exact_mut(k).enumerate() {
                (tiled..k).for_each(|p| row[p] = src[p * k_stride + column]);
            }
        } else {
            transpose(src, (k, width), k_stride, columns, |x| x);
        }
    }
    Ok(())
}

/// Whether there is something to pack, of a source of `elements` into panels of `bytes`. Errors: `pack-size`.
fn fits(
    (elements, bytes): (usize, usize),
    dtype: DType,
    (k, n): (usize, usize),
    (k_stride, n_stride): (usize, usize),
    nr: usize,
) -> Result<bool, Diagnostic> {
    let expected = packed_bytes(dtype, k, n, nr).ok_or_else(|| no_panels(dtype, k, n, nr))?;
    if bytes != expected {
        return Err(wrong_size("panels", expected, bytes));
    }
    if k == 0 || n == 0 {
        return Ok(false);
    }
    let last = (k - 1).checked_mul(k_stride).zip((n - 1).checked_mul(n_stride)).and_then(|(a, b)| a.checked_add(b));
    if last.is_none_or(|last| last >= elements) {
        let strides = format!("k {k} by stride {k_stride}, n {n} by stride {n_stride}");
        return Err(Diagnostic::new("pack-size", format!("source of {elements} elements is shorter than {strides}")));
    }
    Ok(true)
}

/// Declares the packing of one plain element type.
macro_rules! pack_panels {
    ($name:ident, $Element:ty, $dtype:expr) => {
        /// Packs a `[k, n]` matrix whose element `(p, j)` is `src[p * k_stride + j * n_stride]`.
        ///
        /// Shapes: `dst [ceil(n / nr)][k][nr]`, exactly. Errors: `pack-size` where a slice does not fit the sizes.
        pub fn $name(
            src: &[$Element],
            k: usize,
            n: usize,
            k_stride: usize,
            n_stride: usize,
            nr: usize,
            dst: &mut [$Element],
        ) -> Result<(), Diagnostic> {
            panels((src, $dtype), (k, n), (k_stride, n_stride), nr, dst, |x| x)
        }
    };
}
pack_panels!(pack_panels_f32, f32, DType::F32);
pack_panels!(pack_panels_f64, f64, DType::F64);

/// Packs a `[k, n]` matrix of f16 or bf16, given by its bits, into panels of f32; element `(p, j)` is `src[p * strides.0 + j *
/// strides.1]`.
///
/// Shapes: `dst [ceil(n / nr)][k][nr]`, exactly. Errors: `pack-size` where a slice does not fit the sizes, `pack-dtype` for
/// another dtype.
pub fn pack_halves(
    dtype: DType,
    src: &[u16],
    (k, n): (usize, usize),
    strides: (usize, usize),
    nr: usize,
    dst: &mut [f32],
) -> Result<(), Diagnostic> {
    let src = (src, DType::F32);
    match dtype {
        DType::Bf16 => panels(src, (k, n), strides, nr, dst, |x| bf16::from_bits(x).to_f32()),
        DType::F16 => panels(src, (k, n), strides, nr, dst, |x| f16::from_bits(x).to_f32()),
        _ => Err(no_panels(dtype, k, n, nr)),
    }
}

/// Packs a `[k, n]` matrix of halves, given by their bits, with two steps of `k` side by side; `k` is even. Element `(p, j)`
/// is `src[p * strides.0 + j * strides.1]`.
///
/// Shapes: `dst [ceil(n / nr)][k / 2][nr][2]`, exactly. Errors: `pack-size` where a slice does not fit the sizes, or an odd
/// `k`.
pub fn pack_pairs(
    src: &[u16],
    (k, n): (usize, usize),
    (k_stride, n_stride): (usize, usize),
    nr: usize,
    dst: &mut [u16],
) -> Result<(), Diagnostic> {
    if k % 2 != 0 {
        return Err(Diagnostic::new("pack-size", format!("k is {k}, expected pairs")));
    }
    if !fits((src.len(), size_of_val(dst)), DType::Bf16, (k, n), (k_stride, n_stride), nr)? {
        return Ok(());
    }
    if nr == 1 && n_stride == 1 {
        transpose(src, (k, n), k_stride, dst, |x| x);
        return Ok(());
    }
    for (index, panel) in dst.chunks_exact_mut(k * nr).enumerate() {
        let first = index * nr;
        let columns = nr.min(n - first);
        if columns < nr {
            panel.fill(0);
        }
        // Short runs of the fold, as of other panels.
        for (strip, pairs) in panel.chunks_mut(16 * nr).enumerate() {
            for j in 0..columns {
                let start = strip * 16 * k_stride + (first + j) * n_stride;
                for (p, pair) in pairs.chunks_exact_mut(2 * nr).enumerate() {
                    let at = start + 2 * p * k_stride;
                    (pair[2 * j], pair[2 * j + 1]) = (src[at], src[at + k_stride]);
                }
            }
        }
    }
    Ok(())
}

/// Packs GGML rows: `src` has `n` rows of whole blocks, row `j` is column `j` of the product.
///
/// Shapes: `dst` has [`packed_bytes`] bytes, exactly. Errors: `pack-size` where a slice does not fit, `pack-dtype` for
/// another dtype or `nr`.
pub fn pack_panels_block(
    dtype: DType,
    src: &[u8],
    k: usize,
    n: usize,
    nr: usize,
    dst: &mut [u8],
) -> Result<(), Diagnostic> {
    let format = block::format_of(dtype).ok_or_else(|| no_panels(dtype, k, n, nr))?;
    let bytes = packed_bytes(dtype, k, n, nr).ok_or_else(|| no_panels(dtype, k, n, nr))?;
    let row_bytes = dtype.bytes(k).ok_or_else(|| no_panels(dtype, k, n, nr))?;
    let source_bytes = row_bytes.checked_mul(n).ok_or_else(|| no_panels(dtype, k, n, nr))?;
    if src.len() != source_bytes {
        return Err(wrong_size("rows", source_bytes, src.len()));
    }
    if dst.len() != bytes {
        return Err(wrong_size("panels", bytes, dst.len()));
    }
    if row_bytes == 0 {
        return Ok(());
    }
    let (_, block_bytes) = dtype.block();
    let panel_block = block::panel_block_bytes(format);
    for (panel, rows) in dst.chunks_exact_mut(row_bytes * NR).zip(src.chunks(row_bytes * NR)) {
        if rows.len() < panel.len() {
            panel.fill(0);
        }
        for (index, to) in panel.chunks_exact_mut(panel_block).enumerate() {
            for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
                pack_block(format, column, &row[index * block_bytes..(index + 1) * block_bytes], to);
            }
        }
    }
    Ok(())
}

/// Puts one GGML block into its column of a panel block.
fn pack_block(format: u8, column: usize, from: &[u8], to: &mut [u8]) {
    let (header, quants) = to.split_at_mut(block::header_bytes(format));
    let (halves, runs) = header.split_at_mut(block::halves_bytes(format));
    // q6_K has its scale last.
    let (first_half, from) = if format == Q6_K { (&from[208..], &from[..208]) } else { from.split_at(2) };
    halves[2 * column..2 * column + 2].copy_from_slice(first_half);
    match format {
        Q8_0 => spread(quants, column, from),
        Q4_1 => {
            halves[2 * (NR + column)..2 * (NR + column) + 2].copy_from_slice(&from[..2]);
            pack_nibbles(&from[2..], column, quants);
        }
        Q4_K => {
            halves[2 * (NR + column)..2 * (NR + column) + 2].copy_from_slice(&from[..2]);
            spread(runs, column, &from[2..14]);
            // 32 bytes hold two runs: the low nibbles of all, then the high ones.
            for (bytes, to) in from[14..].chunks_exact(32).zip(quants.chunks_exact_mut(64 / 2 * NR)) {
                for g in 0..8 {
                    put_nibbles(&bytes[g % 4 * 8..], g / 4, g, column, to);
                }
            }
        }
        Q6_K => {
            spread(runs, column, &from[192..]);
            let (nibbles, upper) = quants.split_at_mut(block::UPPER - block::header_bytes(Q6_K));
            pack_six_bits(&from[..192], column, nibbles, upper);
        }
        _ => pack_nibbles(from, column, quants),
    }
}

/// One byte of each row of a column.
fn spread(rows: &mut [u8], column: usize, bytes: &[u8]) {
    for (row, byte) in rows.chunks_exact_mut(NR).zip(bytes) {
        row[column] = *byte;
    }
}

/// 32 steps: GGML byte `i` holds step `i` in its low and step `i + 16` in its high nibble.
fn pack_nibbles(from: &[u8], column: usize, quants: &mut [u8]) {
    for g in 0..4 {
        put_nibbles(&from[g % 2 * 8..], g / 2, g, column, quants);
    }
}

/// The steps of group `g`, which are the low (`high` 0) or high nibbles of the first eight bytes.
fn put_nibbles(bytes: &[u8], high: usize, g: usize, column: usize, quants: &mut [u8]) {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    let nibbles = u64::from_le_bytes(eight) >> (4 * high) & 0x0f0f_0f0f_0f0f_0f0f;
    let at = 4 * (NR * g + column);
    quants[at..at + 4].copy_from_slice(&gather_nibbles(nibbles).to_le_bytes());
}

/// 256 steps of q6_K: two halves of 128, each of four quarters of 32 steps. 64 bytes of lower nibbles serve the quarters 0 and
/// 1 by their low, 2 and 3 by their high nibbles; 32 bytes of upper bits serve all four by their pairs.
fn pack_six_bits(from: &[u8], column: usize, nibbles: &mut [u8], upper: &mut [u8]) {
    for half in 0..2 {
        let lower = &from[64 * half..64 * half + 64];
        let pairs = &from[128 + 32 * half..128 + 32 * half + 32];
        for g in 0..16 {
            put_nibbles(&lower[g % 8 * 8..], g / 8, 16 * half + g, column, nibbles);
        }
        for w in 0..8 {
            let (quarter, first) = (w / 2, w % 2 * 16);
            let pair = |t: usize| u32::from(pairs[first + t] >> (2 * quarter) & 3) << (2 * t);
            let word = (0..16).map(pair).fold(0, |word, pair| word | pair);
            let at = 4 * (NR * (8 * half + w) + column);
            upper[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The low nibbles of eight bytes, side by side.
fn gather_nibbles(x: u64) -> u32 {
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

fn no_panels(dtype: DType, k: usize, n: usize, nr: usize) -> Diagnostic {
    Diagnostic::new("pack-dtype", format!("no panels of {nr} columns for a {dtype} matrix with k {k} and n {n}"))
}

fn wrong_size(what: &str, expected: usize, found: usize) -> Diagnostic {
    Diagnostic::new("pack-size", format!("expected {expected} bytes of {what}, found {found}"))
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
