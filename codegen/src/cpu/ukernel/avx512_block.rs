//! AVX-512: f32 rows times a block-quantised panel, and strips of f32 from such a panel.
//!
//! A nibble becomes a float by one shift and one permute: `vpermps` with a table of 16 floats looks at the low 4 bits of
//! every lane of its index only. The upper bits of q6_K are added by a table that looks at two of them.

use super::ahead;
use super::block::{
    NR, Q4_0, Q4_K, Q6_K, Q8_0, UPPER, halves_bytes, has_minima, header_bytes, panel_block_bytes, run, runs, steps,
};
use super::portable::settle;
use std::arch::x86_64::*;

/// Rows of a full tile: 24 registers hold the sums of the tile, of the block and of the group.
pub const MR: usize = 4;

/// See [`TileProduct`](super::TileProduct); `FORMAT` is a code of [`super::block`].
///
/// # Safety
/// `a` has `m` rows of `k` f32 `lda` apart, `b` holds `k / steps(FORMAT)` panel blocks, `c` has `m` rows of 32 f32 `ldc` apart that
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
        let tables = tables::<FORMAT>();
        let mut sums = [[_mm512_setzero_ps(); 2]; M];
        if accumulate {
            for i in 0..M {
                sums[i] = [_mm512_loadu_ps(c.add(i * ldc)), _mm512_loadu_ps(c.add(i * ldc + 16))];
            }
        }
        let (first_row, panel, size) = (a, b, const { panel_block_bytes(FORMAT) });
        let (groups, run_bytes) = const { (run(FORMAT) / 8, panel_block_bytes(FORMAT) / runs(FORMAT)) };
        let (mut a, mut b) = (a, b);
        for _ in 0..k / const { steps(FORMAT) } {
            for index in 0..const { runs(FORMAT) } {
                ahead::fetch(b.add(run_bytes * index), run_bytes);
                let mut total = group::<M, FORMAT>(b, groups * index, tables, a, lda);
                for g in 1..groups {
                    let part = group::<M, FORMAT>(b, groups * index + g, tables, a.add(8 * g), lda);
                    for i in 0..M {
                        total[i] = [_mm512_add_ps(total[i][0], part[i][0]), _mm512_add_ps(total[i][1], part[i][1])];
                    }
                }
                let (scales, minima) = scales::<FORMAT>(b, index);
                for i in 0..M {
                    for v in 0..2 {
                        sums[i][v] = _mm512_fmadd_ps(scales[v], total[i][v], sums[i][v]);
                    }
                }
                if has_minima(FORMAT) {
                    for i in 0..M {
                        let sum = row_sum(a.add(i * lda));
                        for v in 0..2 {
                            sums[i][v] = _mm512_fmadd_ps(minima[v], sum, sums[i][v]);
                        }
                    }
                }
                a = a.add(const { run(FORMAT) });
            }
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
                let blocks = k / const { steps(FORMAT) };
                let a = std::slice::from_raw_parts(first_row.add(i * lda), blocks * const { steps(FORMAT) });
                settle::<FORMAT>(a, std::slice::from_raw_parts(panel, blocks * size), &old, row);
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

/// The products of eight steps of a panel block; `a` points at the first.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn group<const M: usize, const FORMAT: u8>(
    b: *const u8,
    g: usize,
    tables: [__m512; 2],
    a: *const f32,
    lda: usize,
) -> [[__m512; 2]; M] {
    let mut part = [[_mm512_setzero_ps(); 2]; M];
    // SAFETY: as in `rows`.
    unsafe {
        let raw = Raw::of::<FORMAT>(b, g);
        macro_rules! step {
            ($t:literal) => {
                let q = raw.quants::<FORMAT, $t>(tables);
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

/// The quants of eight steps as they are packed.
#[derive(Clone, Copy)]
struct Raw {
    /// The quants of q8_0.
    bytes: *const u8,
    /// The nibbles of the others.
    nibbles: [__m512i; 2],
    /// The upper bits of q6_K.
    upper: [__m512i; 2],
}

impl Raw {
    /// Those of group `g` of a panel block.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn of<const FORMAT: u8>(b: *const u8, g: usize) -> Raw {
        let none = [_mm512_setzero_si512(); 2];
        // SAFETY: as in `rows`.
        unsafe {
            let quants = b.add(const { header_bytes(FORMAT) });
            if FORMAT == Q8_0 {
                return Raw { bytes: quants.add(8 * NR * g), nibbles: none, upper: none };
            }
            let nibbles = words(quants.add(4 * NR * g));
            let upper = if FORMAT == Q6_K {
                let both = words(b.add(UPPER + 4 * NR * (g / 2)));
                let count = _mm_cvtsi32_si128(16 * (g % 2) as i32);
                [_mm512_srl_epi32(both[0], count), _mm512_srl_epi32(both[1], count)]
            } else {
                none
            };
            Raw { bytes: quants, nibbles, upper }
        }
    }

    /// The quants of step `T` as floats: without scale, the offset of q4_0 and q6_K taken off.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn quants<const FORMAT: u8, const T: u32>(self, tables: [__m512; 2]) -> [__m512; 2] {
        if FORMAT == Q8_0 {
            // SAFETY: as in `rows`.
            unsafe {
                let at = self.bytes.add(NR * T as usize);
                let [low, high] = [_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(16).cast())];
                return [_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high))];
            }
        }
        let index = shifted(self.nibbles, 4 * T);
        let mut quants = [_mm512_permutexvar_ps(index[0], tables[0]), _mm512_permutexvar_ps(index[1], tables[0])];
        if FORMAT == Q6_K {
            let index = shifted(self.upper, 2 * T);
            for v in 0..2 {
                quants[v] = _mm512_add_ps(quants[v], _mm512_permutexvar_ps(index[v], tables[1]));
            }
        }
        quants
    }
}

/// 32 words, one of each column.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn words(at: *const u8) -> [__m512i; 2] {
    // SAFETY: as in `rows`.
    unsafe { [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())] }
}

/// `bits` is a constant where this is called.
#[inline]
#[target_feature(enable = "avx512f")]
fn shifted(raw: [__m512i; 2], bits: u32) -> [__m512i; 2] {
    let count = _mm_cvtsi32_si128(bits as i32);
    [_mm512_srl_epi32(raw[0], count), _mm512_srl_epi32(raw[1], count)]
}

/// The float of each nibble, and what the two bits above it add, whatever is above these.
#[inline]
#[target_feature(enable = "avx512f")]
fn tables<const FORMAT: u8>() -> [__m512; 2] {
    let offset = _mm512_set1_ps(if FORMAT == Q4_0 { 8.0 } else { 0.0 });
    let from_zero = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let upper = _mm512_setr_ps(
        -32.0, -16.0, 0.0, 16.0, -32.0, -16.0, 0.0, 16.0, -32.0, -16.0, 0.0, 16.0, -32.0, -16.0, 0.0, 16.0,
    );
    [_mm512_sub_ps(_mm512_cvtepi32_ps(from_zero), offset), upper]
}

/// Scales and minima (zeros without) of a run.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scales<const FORMAT: u8>(b: *const u8, index: usize) -> ([__m512; 2], [__m512; 2]) {
    // SAFETY: as in `rows`.
    unsafe {
        let mut scales = [halves(b), halves(b.add(32))];
        let mut minima = [_mm512_setzero_ps(); 2];
        if has_minima(FORMAT) {
            minima = [halves(b.add(64)), halves(b.add(96))];
        }
        let of_run = b.add(const { halves_bytes(FORMAT) });
        for v in 0..2 {
            if FORMAT == Q6_K {
                let bytes = _mm_loadu_si128(of_run.add(NR * index + 16 * v).cast());
                scales[v] = _mm512_mul_ps(scales[v], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
            } else if FORMAT == Q4_K {
                let (scale, minimum) = six_bits(of_run.add(16 * v), index);
                scales[v] = _mm512_mul_ps(scales[v], scale);
                minima[v] = _mm512_sub_ps(_mm512_set1_ps(-0.0), _mm512_mul_ps(minima[v], minimum));
            }
        }
        (scales, minima)
    }
}

/// Scales and minima of a run of q4_K, in 16 columns.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn six_bits(packed: *const u8, index: usize) -> (__m512, __m512) {
    // SAFETY: as in `rows`.
    let byte = |i: usize| unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(packed.add(NR * i).cast())) };
    let (scale, minimum) = if index < 4 {
        let six = _mm512_set1_epi32(63);
        (_mm512_and_si512(byte(index), six), _mm512_and_si512(byte(index + 4), six))
    } else {
        let low = byte(index + 4);
        let upper = |i: usize| _mm512_slli_epi32::<4>(_mm512_srli_epi32::<6>(byte(i)));
        (
            _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(15)), upper(index - 4)),
            _mm512_or_si512(_mm512_srli_epi32::<4>(low), upper(index)),
        )
    };
    (_mm512_cvtepi32_ps(scale), _mm512_cvtepi32_ps(minimum))
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
/// `src` holds `k / steps(FORMAT)` panel blocks, `dst` has room for `k * 32` f32 and is aligned to one; the processor has AVX-512F.
pub unsafe extern "C" fn strip<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    // SAFETY: the caller's contract, handed on unchanged.
    unsafe { strip_rows::<FORMAT>(k, src, dst) }
}

#[target_feature(enable = "avx512f")]
unsafe fn strip_rows<const FORMAT: u8>(k: usize, src: *const u8, dst: *mut f32) {
    let (mut src, mut dst) = (src, dst);
    // SAFETY: `src` moves by one panel block and `dst` by its rows at a time, `k / steps` times.
    unsafe {
        let tables = tables::<FORMAT>();
        for _ in 0..k / const { steps(FORMAT) } {
            for index in 0..const { runs(FORMAT) } {
                let (scales, minima) = scales::<FORMAT>(src, index);
                for g in 0..const { run(FORMAT) / 8 } {
                    let raw = Raw::of::<FORMAT>(src, const { run(FORMAT) / 8 } * index + g);
                    macro_rules! step {
                        ($t:literal) => {
                            let q = raw.quants::<FORMAT, $t>(tables);
                            for v in 0..2 {
                                let mut value = _mm512_mul_ps(scales[v], q[v]);
                                if has_minima(FORMAT) {
                                    value = _mm512_add_ps(value, minima[v]);
                                }
                                _mm512_storeu_ps(dst.add(NR * (8 * g + $t) + 16 * v), value);
                            }
                        };
                    }
                    eight!(step);
                }
                dst = dst.add(const { NR * run(FORMAT) });
            }
            src = src.add(const { panel_block_bytes(FORMAT) });
        }
    }
}
