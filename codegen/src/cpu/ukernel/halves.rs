//! Halves as f32: conversions of strips, and tile products of f16 and bf16 rows with panels of f32, which convert a block
//! of rows and are the f32 product of the same instruction set from there on.

use super::Isa;
use half::f16;
use tilewright_ir::types::DType;

/// `to[i] = from[i]` for `i < count`, in another dtype, arguments `(count, from, to)`. Numerics: to a half it rounds to
/// nearest, ties to even; a NaN stays one.
pub type Convert = unsafe extern "C" fn(count: usize, from: *const u8, to: *mut u8);

/// Steps of the fold that are converted at a time: with all rows of a tile they stay in the first cache.
const STEPS: usize = 256;

fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { rounded } >> 16) as u16
}

/// Declares the conversions and products of one instruction set, from the loops over f16.
macro_rules! halves {
    ($module:ident, $($feature:literal)?, $product:path, $MR:path, $widen_f16:path, $narrow_f16:path) => {
        /// The conversions and products of one instruction set.
        pub mod $module {
            use super::{STEPS, bf16_bits};

            /// # Safety
            /// `from` has `count` bf16, `to` room for as many f32; the processor has the instruction set.
            $(#[target_feature(enable = $feature)])?
            pub unsafe extern "C" fn widen_bf16(count: usize, from: *const u8, to: *mut u8) {
                let (from, to) = (from.cast::<u16>(), to.cast::<f32>());
                for i in 0..count {
                    // SAFETY: `i < count`.
                    unsafe { to.add(i).write(f32::from_bits(u32::from(*from.add(i)) << 16)) };
                }
            }

            /// # Safety
            /// `from` has `count` f32, `to` room for as many bf16; the processor has the instruction set.
            $(#[target_feature(enable = $feature)])?
            pub unsafe extern "C" fn narrow_bf16(count: usize, from: *const u8, to: *mut u8) {
                let (from, to) = (from.cast::<f32>(), to.cast::<u16>());
                for i in 0..count {
                    // SAFETY: `i < count`.
                    unsafe { to.add(i).write(bf16_bits(*from.add(i))) };
                }
            }

            /// # Safety
            /// As of `widen_bf16`, for f16.
            pub unsafe extern "C" fn widen_f16(count: usize, from: *const u8, to: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { $widen_f16(count, from.cast(), to.cast()) }
            }

            /// # Safety
            /// As of `narrow_bf16`, for f16.
            pub unsafe extern "C" fn narrow_f16(count: usize, from: *const u8, to: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { $narrow_f16(count, from.cast(), to.cast()) }
            }

            halves!(@product $product, $MR, bf16, widen_bf16);
            halves!(@product $product, $MR, f16, widen_f16);
        }
    };
    (@product $product:path, $MR:path, $name:ident, $widen:ident) => {
        /// See [`TileProduct`](super::super::TileProduct): rows of halves, panels and sums of f32.
        ///
        /// # Safety
        /// That of the f32 product, with halves in `a`.
        pub unsafe extern "C" fn $name(
            m: usize, k: usize, a: *const u8, lda: usize, b: *const u8, ldb: usize, c: *mut u8, ldc: usize,
            accumulate: usize,
        ) {
            let mut rows = [0f32; $MR * STEPS];
            let (mut start, mut accumulate) = (0, accumulate);
            // A fold of nothing sets `c`, too.
            while start < k || start == 0 {
                let steps = STEPS.min(k - start);
                for (i, row) in rows.chunks_exact_mut(STEPS).enumerate().take(m) {
                    // SAFETY: row `i` of `a` has `k` elements, of which these are `steps`; `row` has at least as many.
                    unsafe { $widen(steps, a.add(2 * (i * lda + start)), row.as_mut_ptr().cast()) };
                }
                // SAFETY: the rows are `steps` long and STEPS apart, the panel goes on from `start`; the rest is the
                // caller's contract.
                unsafe { $product(m, steps, rows.as_ptr().cast(), STEPS, b.add(4 * start * ldb), ldb, c, ldc, accumulate) };
                accumulate = 1;
                start += STEPS;
            }
        }
    };
}

/// # Safety
/// `from` has `count` elements, `to` room for as many.
unsafe fn widen_each(count: usize, from: *const u16, to: *mut f32) {
    for i in 0..count {
        // SAFETY: `i < count`.
        unsafe { to.add(i).write(f16::from_bits(*from.add(i)).to_f32()) };
    }
}

/// # Safety
/// As of [`widen_each`].
unsafe fn narrow_each(count: usize, from: *const f32, to: *mut u16) {
    for i in 0..count {
        // SAFETY: `i < count`.
        unsafe { to.add(i).write(f16::from_f32(*from.add(i)).to_bits()) };
    }
}

#[cfg(target_arch = "x86_64")]
mod f16c {
    use super::{narrow_each, widen_each};
    use std::arch::x86_64::*;

    /// # Safety
    /// As of [`widen_each`]; the processor has F16C.
    #[target_feature(enable = "f16c")]
    pub unsafe fn widen(count: usize, from: *const u16, to: *mut f32) {
        let whole = count / 8 * 8;
        // SAFETY: `i + 8 <= count`, then the rest.
        unsafe {
            for i in (0..whole).step_by(8) {
                _mm256_storeu_ps(to.add(i), _mm256_cvtph_ps(_mm_loadu_si128(from.add(i).cast())));
            }
            widen_each(count - whole, from.add(whole), to.add(whole));
        }
    }

    /// # Safety
    /// As of [`widen_each`]; the processor has F16C.
    #[target_feature(enable = "f16c")]
    pub unsafe fn narrow(count: usize, from: *const f32, to: *mut u16) {
        let whole = count / 8 * 8;
        // SAFETY: `i + 8 <= count`, then the rest.
        unsafe {
            for i in (0..whole).step_by(8) {
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.add(i)));
                _mm_storeu_si128(to.add(i).cast(), halves);
            }
            narrow_each(count - whole, from.add(whole), to.add(whole));
        }
    }
}

#[cfg(target_arch = "x86_64")]
halves!(
    avx512,
    "avx512f",
    super::super::tile::avx512_f32::product,
    super::super::tile::avx512_f32::MR,
    super::f16c::widen,
    super::f16c::narrow
);
#[cfg(target_arch = "x86_64")]
halves!(
    avx2,
    "avx2",
    super::super::tile::avx2_f32::product,
    super::super::tile::avx2_f32::MR,
    super::f16c::widen,
    super::f16c::narrow
);
halves!(portable, , super::super::portable::product_f32, super::super::portable::MR, super::widen_each, super::narrow_each);

/// `(widen, narrow)`: from a half to f32, and back.
pub fn converts(isa: Isa, half: DType) -> Option<(Convert, Convert)> {
    let brain = match half {
        DType::Bf16 => true,
        DType::F16 => false,
        _ => return None,
    };
    macro_rules! of {
        ($module:ident) => {
            if brain { ($module::widen_bf16, $module::narrow_bf16) } else { ($module::widen_f16, $module::narrow_f16) }
        };
    }
    Some(match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::AmxBf16 => of!(avx512),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => of!(avx2),
        _ => of!(portable),
    })
}

/// `<isa>_<name>` of the conversion at an address.
pub fn name_at(address: usize) -> Option<String> {
    Isa::ALL.iter().find_map(|isa| {
        [(DType::Bf16, "bf16"), (DType::F16, "f16")].into_iter().find_map(|(dtype, name)| {
            let (widen, narrow) = converts(*isa, dtype)?;
            let what = match address {
                at if at == widen as usize => "widen",
                at if at == narrow as usize => "narrow",
                _ => return None,
            };
            Some(format!("{}_{what}_{name}", isa.name()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::converts;
    use crate::cpu::ukernel::Isa;
    use half::{bf16, f16};
    use tilewright_ir::types::DType;

    /// Every half to f32, and f32 of every exponent, around ties, to a half, against the crate `half`.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn conversions_are_those_of_half() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let floats: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| u32::from(high) << 16 | low))
            .map(f32::from_bits)
            .collect();
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.available()) {
            for dtype in [DType::Bf16, DType::F16] {
                let (widen, narrow) = converts(isa, dtype).unwrap();
                let mut wide = vec![0f32; halves.len() + 1];
                // One less than all, so that the tail of vectors runs: the last is a NaN.
                // SAFETY: both have as many elements, and the instruction set is there.
                unsafe { widen(halves.len() - 1, halves.as_ptr().cast(), wide.as_mut_ptr().cast()) };
                for (bits, found) in halves[..halves.len() - 1].iter().zip(&wide) {
                    let want = if dtype == DType::F16 {
                        f16::from_bits(*bits).to_f32()
                    } else {
                        bf16::from_bits(*bits).to_f32()
                    };
                    assert!(
                        want.to_bits() == found.to_bits() || (want.is_nan() && found.is_nan()),
                        "{bits:x}: {found}"
                    );
                }
                let mut short = vec![0u16; floats.len()];
                // SAFETY: the same.
                unsafe { narrow(floats.len(), floats.as_ptr().cast(), short.as_mut_ptr().cast()) };
                for (x, found) in floats.iter().zip(&short) {
                    let (want, nan) = if dtype == DType::F16 {
                        (f16::from_f32(*x).to_bits(), f16::from_bits(*found).is_nan())
                    } else {
                        (bf16::from_f32(*x).to_bits(), bf16::from_bits(*found).is_nan())
                    };
                    assert!(want == *found || (x.is_nan() && nan), "{isa:?} {dtype} {x:e}: {found:x}, not {want:x}");
                }
            }
        }
    }
}
