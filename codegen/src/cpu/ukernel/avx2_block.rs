//! AVX2 with FMA and F16C: f32 rows times a block-quantised panel, and strips of f32 from such a panel.
//!
//! 16 registers are too few for all 32 columns at once: within a run the four vectors of columns go one after the other.

use super::ahead;
use super::block::{
    NR, Q4_0, Q4_K, Q6_K, Q8_0, UPPER, halves_bytes, has_minima, header_bytes, panel_block_bytes, run, runs, steps,
};
use super::portable::settle;
use std::arch::x86_64::*;

/// Rows of a full tile.
pub const MR: usize = 4;

/// Columns of a strip's panels, as the AVX2 tile product wants them.
pub const STRIP_NR: usize = 16;

/// See [`TileProduct`](super::TileProduct); `FORMAT` is a code of [`super::block`].
///
/// # Safety
/// `a` has `m` rows of `k` f32 `lda` apart, `b` holds `k / steps(FORMAT)` panel blocks, `c` has `m` rows of 32 f32 `ldc` apart that
/// overlap neither; `a` and `c` are aligned to an element; the processor has AVX2, FMA and F16C.
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

#[target_feature(enable = "avx2,fma,f16c")]
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
        let mut old = [[0.0; NR]; M];
        if accumulate {
            for i in 0..M {
                old[i].copy_from_slice(std::slice::from_raw_parts(c.add(i * ldc), NR));
            }
        } else {
            for at in 0..M * (NR / 8) {
                _mm256_storeu_ps(c.add(at / (NR / 8) * ldc + at % (NR / 8) * 8), _mm256_setzero_ps());
            }
        }
        let (size, run_bytes) = const { (panel_block_bytes(FORMAT), panel_block_bytes(FORMAT) / runs(FORMAT)) };
        for at in 0..k / const { run(FORMAT) } {
            let (block, index) = (at / const { runs(FORMAT) }, at % const { runs(FORMAT) });
            let b = b.add(block * size);
            ahead::fetch(b.add(index * run_bytes), run_bytes);
            let a = a.add(at * const { run(FORMAT) });
            let mut row_sums = [_mm256_setzero_ps(); M];
            if has_minima(FORMAT) {
                for i in 0..M {
                    row_sums[i] = row_sum(a.add(i * lda));
                }
            }
            for v in 0..NR / 8 {
                let total = run_sums::<M, FORMAT>(b, index, v, a, lda);
                let (scale, minimum) = scales::<FORMAT>(b, index, v);
                for i in 0..M {
                    let at = c.add(i * ldc + 8 * v);
                    let mut sum = _mm256_fmadd_ps(scale, total[i], _mm256_loadu_ps(at));
                    if has_minima(FORMAT) {
                        sum = _mm256_fmadd_ps(minimum, row_sums[i], sum);
                    }
                    _mm256_storeu_ps(at, sum);
                }
            }
        }
        for i in 0..M {
            let row = std::slice::from_raw_parts_mut(c.add(i * ldc), NR);
            if row.iter().any(|x| !x.is_finite()) {
                let blocks = k / const { steps(FORMAT) };
                let a = std::slice::from_raw_parts(a.add(i * lda), blocks * const { steps(FORMAT) });
                let panel = std::slice::from_raw_parts(b, blocks * size);
                settle::<FORMAT>(a, panel, &old[i], row);
            }
        }
    }
}

/// The sums of quant times `a` over one run of a panel block, for the `v`th vector of columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_sums<const M: usize, const FORMAT: u8>(
    b: *const u8,
    index: usize,
    v: usize,
    a: *const f32,
    lda: usize,
) -> [__m256; M] {
    let mut total = [_mm256_setzero_ps(); M];
    // SAFETY: as in `rows`.
    unsafe {
        for g in 0..const { run(FORMAT) / 8 } {
            let mut part = [_mm256_setzero_ps(); M];
            for t in 0..8 {
                let q = quants_at::<FORMAT>(b, v, const { run(FORMAT) } * index + 8 * g + t);
                for i in 0..M {
                    let x = _mm256_set1_ps(*a.add(i * lda + 8 * g + t));
                    part[i] = if t == 0 { _mm256_mul_ps(q, x) } else { _mm256_fmadd_ps(q, x, part[i]) };
                }
            }
            for i in 0..M {
                total[i] = if g == 0 { part[i] } else { _mm256_add_ps(total[i], part[i]) };
            }
        }
    }
    total
}

/// The quants of step `p` of a panel block in the `v`th vector of columns, as floats without scale; the offset of q4_0 and
/// q6_K taken off.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quants_at<const FORMAT: u8>(b: *const u8, v: usize, p: usize) -> __m256 {
    // SAFETY: as in `rows`.
    unsafe {
        let quants = b.add(const { header_bytes(FORMAT) });
        let whole = if FORMAT == Q8_0 {
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(quants.add(NR * p + 8 * v).cast()))
        } else {
            let nibble = bits(quants.add(4 * NR * (p / 8) + 32 * v), 4 * (p % 8), 15);
            if FORMAT == Q4_0 {
                _mm256_sub_epi32(nibble, _mm256_set1_epi32(8))
            } else if FORMAT == Q6_K {
                let upper = bits(b.add(UPPER + 4 * NR * (p / 16) + 32 * v), 2 * (p % 16), 3);
                _mm256_sub_epi32(_mm256_or_si256(nibble, _mm256_slli_epi32::<4>(upper)), _mm256_set1_epi32(32))
            } else {
                nibble
            }
        };
        _mm256_cvtepi32_ps(whole)
    }
}

/// The bits of `mask` in 8 words shifted right by `count`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bits(at: *const u8, count: usize, mask: i32) -> __m256i {
    // SAFETY: as in `rows`.
    let raw = unsafe { _mm256_loadu_si256(at.cast()) };
    _mm256_and_si256(_mm256_srl_epi32(raw, _mm_cvtsi32_si128(count as i32)), _mm256_set1_epi32(mask))
}

/// Scales and minima (zeros without) of a run in the `v`th vector of columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales<const FORMAT: u8>(b: *const u8, index: usize, v: usize) -> (__m256, __m256) {
    // SAFETY: as in `rows`.
    unsafe {
        let scale = halves(b.add(16 * v));
        let minimum = if has_minima(FORMAT) { halves(b.add(2 * NR + 16 * v)) } else { _mm256_setzero_ps() };
        let of_run = b.add(const { halves_bytes(FORMAT) } + 8 * v);
        if FORMAT == Q6_K {
            let bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(of_run.add(NR * index).cast()));
            (_mm256_mul_ps(scale, _mm256_cvtepi32_ps(bytes)), minimum)
        } else if FORMAT == Q4_K {
            let (scale_of, minimum_of) = six_bits(of_run, index);
            let minimum = _mm256_sub_ps(_mm256_set1_ps(-0.0), _mm256_mul_ps(minimum, minimum_of));
            (_mm256_mul_ps(scale, scale_of), minimum)
        } else {
            (scale, minimum)
        }
    }
}

/// Scales and minima of a run of q4_K, in 8 columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn six_bits(packed: *const u8, index: usize) -> (__m256, __m256) {
    // SAFETY: as in `rows`.
    let byte = |i: usize| unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(packed.add(NR * i).cast())) };
    let (scale, minimum) = if index < 4 {
        let six = _mm256_set1_epi32(63);
        (_mm256_and_si256(byte(index), six), _mm256_and_si256(byte(index + 4), six))
    } else {
        let low = byte(index + 4);
        let upper = |i: usize| _mm256_slli_epi32::<4>(_mm256_srli_epi32::<6>(byte(i)));
        (
            _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)), upper(index - 4)),
            _mm256_or_si256(_mm256_srli_epi32::<4>(low), upper(index)),
        )
    };
    (_mm256_cvtepi32_ps(scale), _mm256_cvtepi32_ps(minimum))
}

/// 8 halves as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: as in `rows`.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// The sum of 32 floats in every lane, halved pairwise.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn row_sum(a: *const f32) -> __m256 {
    // SAFETY: as in `rows`.
    let mut sum = unsafe {
        let low = _mm256_add_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(a.add(16)));
        _mm256_add_ps(low, _mm256_add_ps(_mm256_loadu_ps(a.add(8)), _mm256_loadu_ps(a.add(24))))
    };
    sum = _mm256_add_ps(sum, _mm256_permute2f128_ps::<1>(sum, sum));
    sum = _mm256_add_ps(sum, _mm256_permute_ps::<0b01_00_11_10>(sum));
    _mm256_add_ps(sum, _mm256_permute_ps::<0b10_11_00_01>(sum))
}

/// See [`Strip`](super::Strip): two panels of f32 `[k][16]`, one after the other.
///
/// # Safety
/// `src` holds `k / steps(FORMAT)` panel blocks, `dst` has room for `k * 32` f32 and is aligned to one; the processor has AVX2 and F16C.
pub unsafe extern "C" fn strip<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    // SAFETY: the caller's contract, handed on unchanged.
    unsafe { strip_rows::<FORMAT>(k, src, dst) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn strip_rows<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    // SAFETY: `src` is read in `k / steps` whole panel blocks, `dst` written below `2 * k * 16`.
    unsafe {
        for at in 0..k / const { run(FORMAT) } {
            let (block, index) = (at / const { runs(FORMAT) }, at % const { runs(FORMAT) });
            let src = src.add(block * const { panel_block_bytes(FORMAT) });
            for v in 0..NR / 8 {
                let (scale, minimum) = scales::<FORMAT>(src, index, v);
                let dst = dst.add(v / 2 * k * STRIP_NR + at * const { run(FORMAT) * STRIP_NR } + v % 2 * 8);
                for p in 0..const { run(FORMAT) } {
                    let quants = quants_at::<FORMAT>(src, v, const { run(FORMAT) } * index + p);
                    let mut value = _mm256_mul_ps(scale, quants);
                    if has_minima(FORMAT) {
                        value = _mm256_add_ps(value, minimum);
                    }
                    _mm256_storeu_ps(dst.add(STRIP_NR * p), value);
                }
            }
        }
    }
}
