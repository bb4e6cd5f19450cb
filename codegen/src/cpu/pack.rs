//! Packing: matrices and GGML rows into the panels that micro-kernels read, and GGML rows back into f32.
//!
//! A panel holds `nr` columns of a `[k, n]` matrix with the fold outside: `[ceil(n / nr)][k][nr]`. Columns past `n` are zeros
//! (zero scales in block formats). Block formats keep every bit, in the order of [`super::ukernel::block`]. O(k n) moves.

use super::ukernel::block::{self, BLOCK, NR, Q4_1, Q8_0};
use super::ukernel::transpose::{self as tiles, SIDE};
use half::{bf16, f16};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Bytes of the panels of a `[k, n]` matrix, or `None` on overflow, for a dtype without panels, or where `k` or `nr` does
/// not fit the dtype's blocks. Panels exist for f32, f64, bf16 (any `nr > 0`), q4_0, q4_1 and q8_0 (`nr` 32).
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

/// Packs GGML rows: `src` has `n` rows of `k / 32` blocks, row `j` is column `j` of the product.
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
    header[2 * column..2 * column + 2].copy_from_slice(&from[..2]);
    let mut from = &from[2..];
    if format == Q4_1 {
        header[2 * (NR + column)..2 * (NR + column) + 2].copy_from_slice(&from[..2]);
        from = &from[2..];
    }
    if format == Q8_0 {
        for (row, &q) in quants.chunks_exact_mut(NR).zip(from) {
            row[column] = q;
        }
        return;
    }
    // GGML byte `i` holds step `i` in its low and step `i + 16` in its high nibble.
    for g in 0..4 {
        let mut eight = [0; 8];
        eight.copy_from_slice(&from[g % 2 * 8..g % 2 * 8 + 8]);
        let nibbles = u64::from_le_bytes(eight) >> (g / 2 * 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let at = 4 * (NR * g + column);
        quants[at..at + 4].copy_from_slice(&gather_nibbles(nibbles).to_le_bytes());
    }
}

/// The low nibbles of eight bytes, side by side.
fn gather_nibbles(x: u64) -> u32 {
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

/// GGML rows of q8_0, q4_0 or q4_1, or plain f16 or bf16, as f32.
///
/// Numerics: `d * q` rounded, then `+ min` rounded, as GGML does. Errors: `pack-size` where the slices disagree,
/// `pack-dtype` for another dtype.
pub fn dequantise(dtype: DType, src: &[u8], dst: &mut [f32]) -> Result<(), Diagnostic> {
    let one: fn(&[u8], &mut [f32]) = match dtype {
        DType::Q8_0 => block_q8_0,
        DType::Q4_0 => block_q4_0,
        DType::Q4_1 => block_q4_1,
        DType::F16 => |from, to| to[0] = half(from),
        DType::Bf16 => |from, to| to[0] = bf16::from_le_bytes([from[0], from[1]]).to_f32(),
        DType::F64 | DType::F32 | DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 | DType::U32 => {
            return Err(no_dequantisation(dtype));
        }
        DType::I64 | DType::U64 | DType::Bool | DType::Q4K | DType::Q6K => return Err(no_dequantisation(dtype)),
    };
    let (elements, bytes) = dtype.block();
    let expected = dtype.bytes(dst.len()).ok_or_else(|| {
        Diagnostic::new("pack-size", format!("{} elements do not fill {dtype} blocks of {elements}", dst.len()))
    })?;
    if src.len() != expected {
        return Err(wrong_size("rows", expected, src.len()));
    }
    for (from, to) in src.chunks_exact(bytes).zip(dst.chunks_exact_mut(elements)) {
        one(from, to);
    }
    Ok(())
}

fn half(from: &[u8]) -> f32 {
    f16::from_le_bytes([from[0], from[1]]).to_f32()
}

fn block_q8_0(from: &[u8], to: &mut [f32]) {
    let scale = half(from);
    for (x, q) in to.iter_mut().zip(&from[2..]) {
        *x = scale * f32::from(q.cast_signed());
    }
}

fn block_q4_0(from: &[u8], to: &mut [f32]) {
    let scale = half(from);
    for (i, q) in from[2..].iter().enumerate() {
        to[i] = scale * (f32::from(q & 15) - 8.0);
        to[i + BLOCK / 2] = scale * (f32::from(q >> 4) - 8.0);
    }
}

fn block_q4_1(from: &[u8], to: &mut [f32]) {
    let (scale, minimum) = (half(from), half(&from[2..]));
    for (i, q) in from[4..].iter().enumerate() {
        to[i] = scale * f32::from(q & 15) + minimum;
        to[i + BLOCK / 2] = scale * f32::from(q >> 4) + minimum;
    }
}

fn no_panels(dtype: DType, k: usize, n: usize, nr: usize) -> Diagnostic {
    Diagnostic::new("pack-dtype", format!("no panels of {nr} columns for a {dtype} matrix with k {k} and n {n}"))
}

fn no_dequantisation(dtype: DType) -> Diagnostic {
    Diagnostic::new("pack-dtype", format!("cannot dequantise {dtype}, expected q8_0, q4_0, q4_1, f16 or bf16"))
}

fn wrong_size(what: &str, expected: usize, found: usize) -> Diagnostic {
    Diagnostic::new("pack-size", format!("expected {expected} bytes of {what}, found {found}"))
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
