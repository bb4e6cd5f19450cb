//! The plain-float tile product, written once for every vector width.
//!
//! `fma_tile!` makes a module with one `extern "C"` entry. Every row keeps two vector accumulators; a step of the fold loads
//! two vectors of the packed panel and, for each row, broadcasts one element of `a`. An element of `c` is therefore one
//! chain of fused multiply-adds in the order of the fold, whatever the number of rows; it is added to what is there, so a long
//! fold that comes in blocks is a sum of their sums, whose rounding errors grow with the length of a block and the number
//! of blocks, not with their product.

/// Declares a module with the tile product of one element type and instruction set.
///
/// `rows` lists the row counts with their own code, `1..=MR`; `$lanes` is the vector width in elements, so NR is twice that.
macro_rules! fma_tile {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $feature:literal, $Element:ident, $lanes:tt, mr: $mr:literal, rows: [$($row:literal)+],
        $load:ident $store:ident $splat:ident $fma:ident $zero:ident $add:ident
    ) => {
        $(#[doc = $doc])+
        pub mod $name {
            use super::super::ahead;
            use std::arch::x86_64::*;

            /// Rows of a full tile.
            pub const MR: usize = $mr;
            /// Columns of a tile.
            pub const NR: usize = 2 * $lanes;

            /// See [`TileProduct`](super::super::TileProduct).
            ///
            /// # Safety
            /// `a` has `m` rows of `k` elements `lda` apart, `b` `k` rows of NR elements `ldb` apart, `c` `m` rows of NR elements
            /// `ldc` apart that overlap neither; all are aligned to an element, and the processor has this kernel's instructions.
            pub unsafe extern "C" fn product(
                m: usize, k: usize, a: *const u8, lda: usize, b: *const u8, ldb: usize, c: *mut u8, ldc: usize,
                accumulate: usize,
            ) {
                let (a, b, c) = (a.cast::<$Element>(), b.cast::<$Element>(), c.cast::<$Element>());
                match (m, ldb == NR) {
                    // SAFETY: the caller's contract, handed on unchanged.
                    $( ($row, true) => unsafe { rows::<$row, true>(k, a, lda, b, ldb, c, ldc, accumulate != 0) }, )+
                    // SAFETY: the same.
                    $( ($row, false) => unsafe { rows::<$row, false>(k, a, lda, b, ldb, c, ldc, accumulate != 0) }, )+
                    _ => {}
                }
            }

            #[target_feature(enable = $feature)]
            #[allow(clippy::too_many_arguments, reason = "those of a tile product")]
            unsafe fn rows<const M: usize, const PACKED: bool>(
                k: usize, a: *const $Element, lda: usize, b: *const $Element, ldb: usize, c: *mut $Element, ldc: usize,
                accumulate: bool,
            ) {
                // A panel's distance is a constant: its addresses need no registers.
                let ldb = if PACKED { NR } else { ldb };
                // SAFETY: offsets stay below `M * lda`, `k * ldb` and `M * ldc`, which the caller guarantees.
                unsafe {
                    let mut sums = [[$zero(); 2]; M];
                    let (mut a, mut b) = (a, b);
                    // Four steps share the address arithmetic of the rows, which do not all fit general registers.
                    for _ in 0..k / 4 {
                        if PACKED {
                            ahead::fetch(b.cast(), 4 * NR * size_of::<$Element>());
                        }
                        step::<M, 0>(&mut sums, a, lda, b, ldb);
                        step::<M, 1>(&mut sums, a, lda, b, ldb);
                        step::<M, 2>(&mut sums, a, lda, b, ldb);
                        step::<M, 3>(&mut sums, a, lda, b, ldb);
                        a = a.add(4);
                        b = b.add(4 * ldb);
                    }
                    for _ in 0..k % 4 {
                        step::<M, 0>(&mut sums, a, lda, b, ldb);
                        a = a.add(1);
                        b = b.add(ldb);
                    }
                    for i in 0..M {
                        for (half, sum) in sums[i].into_iter().enumerate() {
                            let to = c.add(i * ldc + half * $lanes);
                            $store(to, if accumulate { $add($load(to), sum) } else { sum });
                        }
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn step<const M: usize, const P: usize>(
                sums: &mut [[Vector; 2]; M], a: *const $Element, lda: usize, b: *const $Element, ldb: usize,
            ) {
                // SAFETY: as in `rows`.
                unsafe {
                    let columns = [$load(b.add(P * ldb)), $load(b.add(P * ldb + $lanes))];
                    for i in 0..M {
                        let x = $splat(*a.add(i * lda + P));
                        sums[i][0] = $fma(x, columns[0], sums[i][0]);
                        sums[i][1] = $fma(x, columns[1], sums[i][1]);
                    }
                }
            }

            type Vector = fma_tile!(@vector $Element, $lanes);
        }
    };
    (@vector f32, 16) => { __m512 };
    (@vector f32, 8) => { __m256 };
    (@vector f64, 8) => { __m512d };
    (@vector f64, 4) => { __m256d };
}

fma_tile! {
    /// AVX-512, f32: 14 x 32, 28 of the 32 registers are accumulators.
    avx512_f32, "avx512f", f32, 16, mr: 14, rows: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_fmadd_ps _mm512_setzero_ps _mm512_add_ps
}
fma_tile! {
    /// AVX-512, f64: 14 x 16.
    avx512_f64, "avx512f", f64, 8, mr: 14, rows: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd _mm512_fmadd_pd _mm512_setzero_pd _mm512_add_pd
}
fma_tile! {
    /// AVX2 with FMA, f32: 6 x 16, 12 of the 16 registers are accumulators.
    avx2_f32, "avx2,fma", f32, 8, mr: 6, rows: [1 2 3 4 5 6],
    _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_fmadd_ps _mm256_setzero_ps _mm256_add_ps
}
fma_tile! {
    /// AVX2 with FMA, f64: 6 x 8.
    avx2_f64, "avx2,fma", f64, 4, mr: 6, rows: [1 2 3 4 5 6],
    _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd _mm256_fmadd_pd _mm256_setzero_pd _mm256_add_pd
}
