//! AVX-512: f32 rows times a block-quantised panel, and strips of f32 from such a panel.
//!
//! A nibble becomes a float by one shift and one permute: `vpermps` with a table of 16 floats looks at the low 4 bits of
//! every lane of its index only.

use super::ahead;
use super::block::{BLOCK, NR, Q4_0, Q4_1, Q8_0, header_bytes, panel_block_bytes};
use super::portable::settle;
use std::arch::x86_64::*;

/// Rows of a full tile: 24 registers hold the sums of the tile, of the block and of the group.
pub const MR: usize = 4;

/// See [`TileProduct`](super::TileProduct); `FORMAT` is a code of [`super::block`].
///
/// # Safety
/// `a` has `m` rows of `k` f32 `lda` apart, `b` holds `k / 32` panel blocks, `c` has `m` rows of 32 f32 `ldc` apart that
/// overlap neither; `a` and `c` are aligned to an element; the processor has AVX-512F.
pub unsafe extern "C" fn product<const FORMAT: u8>(
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
    let (a, c, accumulate) = (a.cast::<f32>(), c.cast::<f32>(), accumulate != 0);
    // SAFETY: the caller's contract, handed on unchanged.
    unsafe {
        match m {
            1 => rows::<1, FORMAT>(k, a, lda, b, c, ldc, accumulate),
            2 => rows::<2, FORMAT>(k, a, lda, b, c, ldc, accumulate),
            3 => rows::<3, FORMAT>(k, a, lda, b, c, ldc, accumulate),
            4 => rows::<4, FORMAT>(k, a, lda, b, c, ldc, accumulate),
            _ => {}
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn rows<const M: usize, const FORMAT: u8>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const u8,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    // SAFETY: offsets stay inside the rows and the panel that the caller guarantees.
    unsafe {
        let table = table::<FORMAT>();
        let mut sums = [[_mm512_setzero_ps(); 2]; M];
        if accumulate {
            for i in 0..M {
                sums[i] = [_mm512_loadu_ps(c.add(i * ldc)), _mm512_loadu_ps(c.add(i * ldc + 16))];
            }
        }
        let (first_row, panel, size) = (a, b, const { panel_block_bytes(FORMAT) });
        let (mut a, mut b) = (a, b);
        for _ in 0..k / BLOCK {
            ahead::fetch(b, size);
            let quants = b.add(const { header_bytes(FORMAT) });
            let mut total = group::<M, FORMAT>(quants, 0, table, a, lda);
            for g in 1..4 {
                let part = group::<M, FORMAT>(quants, g, table, a.add(8 * g), lda);
                for i in 0..M {
                    total[i] = [_mm512_add_ps(total[i][0], part[i][0]), _mm512_add_ps(total[i][1], part[i][1])];
                }
            }
            let scales = [halves(b), halves(b.add(32))];
            for i in 0..M {
                for v in 0..2 {
                    sums[i][v] = _mm512_fmadd_ps(scales[v], total[i][v], sums[i][v]);
                }
            }
            if FORMAT == Q4_1 {
                let minima = [halves(b.add(64)), halves(b.add(96))];
                for i in 0..M {
                    let sum = row_sum(a.add(i * lda));
                    for v in 0..2 {
                        sums[i][v] = _mm512_fmadd_ps(minima[v], sum, sums[i][v]);
                    }
                }
            }
            a = a.add(BLOCK);
            b = b.add(size);
        }
        for i in 0..M {
            let row = std::slice::from_raw_parts_mut(c.add(i * ldc), NR);
            let mut old = [0.0; NR];
            let finite = are_finite(sums[i]);
            if accumulate && !finite {
                old.copy_from_slice(row);
            }
            _mm512_storeu_ps(row.as_mut_ptr(), sums[i][0]);
            _mm512_storeu_ps(row.as_mut_ptr().add(16), sums[i][1]);
            if !finite {
                let a = std::slice::from_raw_parts(first_row.add(i * lda), k / BLOCK * BLOCK);
                settle::<FORMAT>(a, std::slice::from_raw_parts(panel, k / BLOCK * size), &old, row);
            }
        }
    }
}

/// Whether no element is infinite or NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn are_finite(x: [__m512; 2]) -> bool {
    let zeros = [_mm512_sub_ps(x[0], x[0]), _mm512_sub_ps(x[1], x[1])];
    _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(zeros[0], zeros[1]) == 0
}

/// Calls `$step!(t)` for the eight steps of a group, so that shifts are immediates.
macro_rules! eight {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
    };
}

/// The products of eight steps; `a` points at the first.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn group<const M: usize, const FORMAT: u8>(
    quants: *const u8,
    g: usize,
    table: __m512,
    a: *const f32,
    lda: usize,
) -> [[__m512; 2]; M] {
    let mut part = [[_mm512_setzero_ps(); 2]; M];
    // SAFETY: as in `rows`.
    unsafe {
        let raw = if FORMAT == Q8_0 { [_mm512_setzero_si512(); 2] } else { nibbles(quants, g) };
        macro_rules! step {
            ($t:literal) => {
                let q = quants_at::<FORMAT, $t>(quants, raw, g, table);
                for i in 0..M {
                    let x = _mm512_set1_ps(*a.add(i * lda + $t));
                    for v in 0..2 {
                        part[i][v] =
                            if $t == 0 { _mm512_mul_ps(q[v], x) } else { _mm512_fmadd_ps(q[v], x, part[i][v]) };
                    }
                }
            };
        }
        eight!(step);
    }
    part
}

/// The packed nibbles of group `g`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn nibbles(quants: *const u8, g: usize) -> [__m512i; 2] {
    // SAFETY: as in `rows`.
    unsafe {
        let at = quants.add(4 * NR * g);
        [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())]
    }
}

/// The quants of step `8 * g + T` as floats: without scale, q4_0 with its offset of 8 taken off.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quants_at<const FORMAT: u8, const T: u32>(
    quants: *const u8,
    raw: [__m512i; 2],
    g: usize,
    table: __m512,
) -> [__m512; 2] {
    if FORMAT == Q8_0 {
        // SAFETY: as in `rows`.
        unsafe {
            let at = quants.add(NR * (8 * g + T as usize));
            let [low, high] = [_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(16).cast())];
            [_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high))]
        }
    } else {
        let shifted = shifted::<T>(raw);
        [_mm512_permutexvar_ps(shifted[0], table), _mm512_permutexvar_ps(shifted[1], table)]
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shifted<const T: u32>(raw: [__m512i; 2]) -> [__m512i; 2] {
    let count = _mm_cvtsi32_si128(4 * T as i32);
    [_mm512_srl_epi32(raw[0], count), _mm512_srl_epi32(raw[1], count)]
}

/// The float of each nibble.
#[inline]
#[target_feature(enable = "avx512f")]
fn table<const FORMAT: u8>() -> __m512 {
    let offset = _mm512_set1_ps(if FORMAT == Q4_0 { 8.0 } else { 0.0 });
    let from_zero = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_sub_ps(_mm512_cvtepi32_ps(from_zero), offset)
}

/// 16 halves as floats.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: as in `rows`.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
}

/// The sum of 32 floats in every lane, halved pairwise.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn row_sum(a: *const f32) -> __m512 {
    // SAFETY: as in `rows`.
    let mut sum = unsafe { _mm512_add_ps(_mm512_loadu_ps(a), _mm512_loadu_ps(a.add(16))) };
    sum = _mm512_add_ps(sum, _mm512_shuffle_f32x4::<0b01_00_11_10>(sum, sum));
    sum = _mm512_add_ps(sum, _mm512_shuffle_f32x4::<0b10_11_00_01>(sum, sum));
    sum = _mm512_add_ps(sum, _mm512_permute_ps::<0b01_00_11_10>(sum));
    _mm512_add_ps(sum, _mm512_permute_ps::<0b10_11_00_01>(sum))
}

/// See [`Strip`](super::Strip): f32 `[k][32]`.
///
/// # Safety
/// `src` holds `k / 32` panel blocks, `dst` has room for `k * 32` f32 and is aligned to one; the processor has AVX-512F.
pub unsafe extern "C" fn strip<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    // SAFETY: the caller's contract, handed on unchanged.
    unsafe { strip_rows::<FORMAT>(k, src, dst) }
}

#[target_feature(enable = "avx512f")]
unsafe fn strip_rows<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    let (mut src, mut dst) = (src, dst);
    // SAFETY: `src` moves by one panel block and `dst` by 32 rows at a time, `k / 32` times.
    unsafe {
        let table = table::<FORMAT>();
        for _ in 0..k / BLOCK {
            let quants = src.add(const { header_bytes(FORMAT) });
            let scales = [halves(src), halves(src.add(32))];
            let minima = if FORMAT == Q4_1 { [halves(src.add(64)), halves(src.add(96))] } else { scales };
            for g in 0..4 {
                let raw = if FORMAT == Q8_0 { [_mm512_setzero_si512(); 2] } else { nibbles(quants, g) };
                macro_rules! step {
                    ($t:literal) => {
                        let q = quants_at::<FORMAT, $t>(quants, raw, g, table);
                        for v in 0..2 {
                            let mut value = _mm512_mul_ps(scales[v], q[v]);
                            if FORMAT == Q4_1 {
                                value = _mm512_add_ps(value, minima[v]);
                            }
                            _mm512_storeu_ps(dst.add(NR * (8 * g + $t) + 16 * v), value);
                        }
                    };
                }
                eight!(step);
            }
            src = src.add(const { panel_block_bytes(FORMAT) });
            dst = dst.add(NR * BLOCK);
        }
    }
}
