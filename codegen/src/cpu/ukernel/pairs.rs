//! The tile product of bf16 pairs, AVX-512 with BF16: an instruction takes two steps of the fold.
//!
//! Numerics: the products are exact, and an element of `c` is one chain of f32 additions: of each pair the second step, then
//! the first, each rounded to nearest. Operands, products and sums below the least normal f32 count as 0, which the
//! instruction does whatever the mode of the processor.

use super::ahead;
use std::arch::x86_64::*;

/// Rows of a full tile: 28 of the 32 registers are accumulators.
pub const MR: usize = 14;
/// Columns of a tile.
pub const NR: usize = 32;
/// Columns of a register.
const LANES: usize = 16;

/// See [`TileProduct`](super::TileProduct); the panel is `[k / 2][NR][2]`, `k` even.
///
/// # Safety
/// `a` has `m` rows of `k` bf16 `lda` apart, `b` `k` times NR bf16, `c` `m` rows of NR f32 `ldc` apart that overlap neither;
/// all are aligned to an element, and the processor has AVX-512F and its BF16 products.
pub unsafe extern "C" fn product(
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
    macro_rules! by_rows {
        ($($row:literal)+) => {
            match m {
                // SAFETY: the caller's contract, handed on unchanged.
                $( $row => unsafe { rows::<$row>(k, a.cast(), lda, b.cast(), c.cast(), ldc, accumulate != 0) }, )+
                _ => {}
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const M: usize>(
    k: usize,
    a: *const u16,
    lda: usize,
    b: *const u16,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    // SAFETY: offsets stay below `M * lda`, `k * NR` and `M * ldc`, which the caller guarantees.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; M];
        let (mut a, mut b) = (a, b);
        // Two pairs share the address arithmetic of the rows.
        for _ in 0..k / 4 {
            ahead::fetch(b.cast(), 4 * NR * size_of::<u16>());
            step::<M, 0>(&mut sums, a, lda, b);
            step::<M, 1>(&mut sums, a, lda, b);
            a = a.add(4);
            b = b.add(4 * NR);
        }
        if k % 4 >= 2 {
            step::<M, 0>(&mut sums, a, lda, b);
        }
        for i in 0..M {
            for (half, sum) in sums[i].into_iter().enumerate() {
                let to = c.add(i * ldc + half * LANES);
                _mm512_storeu_ps(to, if accumulate { _mm512_add_ps(_mm512_loadu_ps(to), sum) } else { sum });
            }
        }
    }
}

/// Pair `P` from `a` and `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn step<const M: usize, const P: usize>(sums: &mut [[__m512; 2]; M], a: *const u16, lda: usize, b: *const u16) {
    // SAFETY: as in `rows`; a `__m512bh` is 32 bf16 in a register, of any bits.
    unsafe {
        let columns = |at: usize| {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.add(2 * P * NR + 2 * at * LANES).cast()))
        };
        let columns = [columns(0), columns(1)];
        for i in 0..M {
            let pair = a.add(i * lda + 2 * P).cast::<i32>().read_unaligned();
            let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair));
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, columns[0]);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, columns[1]);
        }
    }
}
