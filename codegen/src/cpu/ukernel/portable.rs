//! The tile products in plain Rust: the reference of the others, and what a processor without their instructions runs.
//!
//! They round exactly as the vector kernels do (`mul_add` is fused on every processor, by a slow routine where it has to be).

use super::block::{
    NR, Q4_0, Q4_K, Q6_K, Q8_0, UPPER, halves_bytes, has_minima, header_bytes, panel_block_bytes, run, steps,
};
use half::f16;
use tilewright_ir::blocks::six_bits;

/// Rows of a full tile.
pub const MR: usize = 4;
/// Columns of the plain-float tiles.
pub const FLOAT_NR: usize = 8;
/// Columns of a strip's panels.
pub const STRIP_NR: usize = 8;

/// Declares the plain-float product of one element type.
macro_rules! float_product {
    ($name:ident, $Element:ty) => {
        /// See [`TileProduct`](super::TileProduct).
        ///
        /// # Safety
        /// `a` has `m` rows of `k` elements `lda` apart, `b` `k` rows of 8 elements `ldb` apart, `c` `m` rows of 8 elements
        /// `ldc` apart that overlap neither; all are aligned to an element.
        pub unsafe extern "C" fn $name(
            m: usize,
            k: usize,
            a: *const u8,
            lda: usize,
            b: *const u8,
            ldb: usize,
            c: *mut u8,
            ldc: usize,
            accumulate: usize,
        ) {
            let (a, b, c) = (a.cast::<$Element>(), b.cast::<$Element>(), c.cast::<$Element>());
            for i in 0..m {
                // SAFETY: row `i` of `c` has `FLOAT_NR` elements that nothing else refers to (the caller's contract).
                let row = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), FLOAT_NR) };
                let mut sums = [0.0; FLOAT_NR];
                for p in 0..k {
                    // SAFETY: `i < m` and `p < k` stay inside the rows of `a` and the panel.
                    let (x, columns) =
                        unsafe { (*a.add(i * lda + p), std::slice::from_raw_parts(b.add(p * ldb), FLOAT_NR)) };
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = x.mul_add(*column, *sum);
                    }
                }
                for (to, sum) in row.iter_mut().zip(sums) {
                    *to = if accumulate == 0 { sum } else { *to + sum };
                }
            }
        }
    };
}
float_product!(product_f32, f32);
float_product!(product_f64, f64);

/// One block of a panel.
struct Block<'a, const FORMAT: u8> {
    bytes: &'a [u8],
}

impl<const FORMAT: u8> Block<'_, FORMAT> {
    fn half(&self, at: usize) -> f32 {
        f16::from_le_bytes([self.bytes[2 * at], self.bytes[2 * at + 1]]).to_f32()
    }

    /// The scale of a run.
    fn scale(&self, run: usize, column: usize) -> f32 {
        let of_run = &self.bytes[halves_bytes(FORMAT)..];
        match FORMAT {
            Q4_K => self.half(column) * self.six_bits(run, column).0,
            Q6_K => self.half(column) * f32::from(of_run[NR * run + column].cast_signed()),
            _ => self.half(column),
        }
    }

    /// The minimum of a run, of a format that has them.
    fn minimum(&self, run: usize, column: usize) -> f32 {
        let minimum = self.half(NR + column);
        if FORMAT == Q4_K { -(minimum * self.six_bits(run, column).1) } else { minimum }
    }

    /// Scale and minimum of a run of q4_K.
    fn six_bits(&self, run: usize, column: usize) -> (f32, f32) {
        six_bits(run, |i| self.bytes[halves_bytes(FORMAT) + NR * i + column])
    }

    /// The quant of step `p`, with the offset of q4_0 and q6_K taken off.
    fn quant(&self, p: usize, column: usize) -> f32 {
        let quants = &self.bytes[header_bytes(FORMAT)..];
        if FORMAT == Q8_0 {
            return f32::from(quants[NR * p + column].cast_signed());
        }
        let byte = quants[4 * (NR * (p / 8) + column) + p % 8 / 2];
        let nibble = if p.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        match FORMAT {
            Q4_0 => f32::from(nibble) - 8.0,
            Q6_K => {
                let upper = self.bytes[UPPER + 4 * (NR * (p / 16) + column) + p % 16 / 4] >> (2 * (p % 4)) & 3;
                f32::from(nibble | upper << 4) - 32.0
            }
            _ => f32::from(nibble),
        }
    }

    /// The value of step `p` as GGML has it.
    fn value(&self, p: usize, column: usize) -> f32 {
        let run = p / run(FORMAT);
        let value = self.scale(run, column) * self.quant(p, column);
        if has_minima(FORMAT) { value + self.minimum(run, column) } else { value }
    }

    /// `sum + scale * (quants . a) + min * sum(a)` over a run, rounded as `block.rs` says.
    fn accumulate(&self, index: usize, column: usize, a: &[f32], row_sum: f32, sum: f32) -> f32 {
        let mut total = 0.0;
        for (g, a) in a.chunks_exact(8).enumerate() {
            let first = index * run(FORMAT) + 8 * g;
            let mut part = self.quant(first, column) * a[0];
            for (t, x) in a.iter().enumerate().skip(1) {
                part = self.quant(first + t, column).mul_add(*x, part);
            }
            total = if g == 0 { part } else { total + part };
        }
        let sum = self.scale(index, column).mul_add(total, sum);
        if has_minima(FORMAT) { self.minimum(index, column).mul_add(row_sum, sum) } else { sum }
    }
}

/// The sum of 32 floats, halved pairwise.
fn row_sum(a: &[f32]) -> f32 {
    let mut sums = [0.0; 32];
    sums.copy_from_slice(a);
    for width in [16, 8, 4, 2, 1] {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    sums[0]
}

/// See [`TileProduct`](super::TileProduct); `FORMAT` is a code of [`super::block`].
///
/// # Safety
/// `a` has `m` rows of `k` f32 `lda` apart, `b` holds `k / steps(FORMAT)` panel blocks, `c` has `m` rows of 32 f32 `ldc` apart that
/// overlap neither; `a` and `c` are aligned to an element.
pub unsafe extern "C" fn product_block<const FORMAT: u8>(
    m: usize,
    k: usize,
    a: *const u8,
    lda: usize,
    b: *const u8,
    _ldb: usize,
    c: *mut u8,
    ldc: usize,
    accumulate: usize,
) {
    let (size, steps) = (panel_block_bytes(FORMAT), steps(FORMAT));
    let (a, c) = (a.cast::<f32>(), c.cast::<f32>());
    for i in 0..m {
        // SAFETY: row `i` of `a` and `c` and the panel are as long as this (the caller's contract).
        let (a, b, c) = unsafe {
            (
                std::slice::from_raw_parts(a.add(i * lda), k / steps * steps),
                std::slice::from_raw_parts(b, k / steps * size),
                std::slice::from_raw_parts_mut(c.add(i * ldc), NR),
            )
        };
        if accumulate == 0 {
            c.fill(0.0);
        }
        let mut old = [0.0; NR];
        old.copy_from_slice(c);
        for (a, bytes) in a.chunks_exact(steps).zip(b.chunks_exact(size)) {
            let block = Block::<FORMAT> { bytes };
            for (index, a) in a.chunks_exact(run(FORMAT)).enumerate() {
                let row_sum = if has_minima(FORMAT) { row_sum(a) } else { 0.0 };
                for (column, sum) in c.iter_mut().enumerate() {
                    *sum = block.accumulate(index, column, a, row_sum, *sum);
                }
            }
        }
        settle::<FORMAT>(a, b, &old, c);
    }
}

/// Sums that are not finite, once more and term by term: quants and minima apart, or quants without scale, may meet an
/// infinity where their values do not. The others stay. `a` is the row, `b` the panel, `old` what `c` was.
pub fn settle<const FORMAT: u8>(a: &[f32], b: &[u8], old: &[f32; NR], c: &mut [f32]) {
    let size = panel_block_bytes(FORMAT);
    for (column, sum) in c.iter_mut().enumerate().filter(|(_, sum)| !sum.is_finite()) {
        *sum = old[column];
        for (a, bytes) in a.chunks_exact(steps(FORMAT)).zip(b.chunks_exact(size)) {
            let block = Block::<FORMAT> { bytes };
            for (p, x) in a.iter().enumerate() {
                *sum = x.mul_add(block.value(p, column), *sum);
            }
        }
    }
}

/// See [`Strip`](super::Strip): four panels of f32 `[k][8]`, one after the other.
///
/// # Safety
/// `src` holds `k / steps(FORMAT)` panel blocks, `dst` has room for `k * 32` f32 and is aligned to one.
pub unsafe extern "C" fn strip<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    let (size, steps) = (panel_block_bytes(FORMAT), steps(FORMAT));
    let k = k / steps * steps;
    // SAFETY: the caller's contract.
    let src = unsafe { std::slice::from_raw_parts(src, k / steps * size) };
    for (index, bytes) in src.chunks_exact(size).enumerate() {
        let block = Block::<FORMAT> { bytes };
        for column in 0..NR {
            for p in 0..steps {
                let value = block.value(p, column);
                let panel = column / STRIP_NR * k * STRIP_NR;
                let row = (index * steps + p) * STRIP_NR;
                // SAFETY: below `k * 32`; written through the pointer because the room may be uninitialised.
                unsafe { dst.add(panel + row + column % STRIP_NR).write(value) };
            }
        }
    }
}
