//! Folds of contiguous f32: what Cranelift's vectors of four need many instructions for, as loops that the Rust compiler
//! turns into vectors of the instruction set. Bits are those of the four-lane form that Cranelift makes.

use super::Isa;
use tilewright_ir::kernel::TileReduce;

/// The fold of `x[i]` for `i < count`, a multiple of 4, arguments `(count, x)`.
///
/// Numerics: 16 partial folds over groups of 16, the rest of the groups of 4 onto the first four, then pairwise. A NaN
/// among the elements is the maximum and the minimum, and +0 is above -0.
pub type Fold = unsafe extern "C" fn(count: usize, x: *const f32) -> f32;

/// Elements of a group.
const GROUP: usize = 16;

/// 16 partial folds to one: four vectors of four, pairwise, then four lanes, pairwise.
#[inline(always)]
fn across(lanes: &[f32; GROUP], fold: impl Fn(f32, f32) -> f32) -> f32 {
    let four = |i: usize| fold(fold(lanes[i], lanes[4 + i]), fold(lanes[8 + i], lanes[12 + i]));
    fold(fold(four(0), four(1)), fold(four(2), four(3)))
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0; GROUP];
    let (groups, rest) = x.as_chunks::<GROUP>();
    for group in groups {
        for lane in 0..GROUP {
            sums[lane] += group[lane];
        }
    }
    for four in rest.as_chunks::<4>().0 {
        for lane in 0..4 {
            sums[lane] += four[lane];
        }
    }
    across(&sums, |a, b| a + b)
}

/// The largest of `flip(x)`, where `flip` changes the sign or nothing, flipped back.
///
/// Comparisons know neither NaN nor signs of zeros, so both are looked at beside them: the largest size as an integer tells
/// whether there is a NaN, and of zeros the largest is +0 unless all elements have their sign set.
#[inline(always)]
fn largest(x: &[f32], flip: u32) -> f32 {
    let (mut most, mut sizes, mut signs) = ([f32::NEG_INFINITY; GROUP], [0u32; GROUP], [u32::MAX; GROUP]);
    let mut take = |lane: usize, x: f32| {
        let bits = x.to_bits() ^ flip;
        let value = f32::from_bits(bits);
        most[lane] = if value > most[lane] { value } else { most[lane] };
        sizes[lane] = sizes[lane].max(bits << 1);
        signs[lane] &= bits;
    };
    let (groups, rest) = x.as_chunks::<GROUP>();
    for group in groups {
        for lane in 0..GROUP {
            take(lane, group[lane]);
        }
    }
    for four in rest.as_chunks::<4>().0 {
        for lane in 0..4 {
            take(lane, four[lane]);
        }
    }
    if sizes.iter().any(|size| *size > f32::INFINITY.to_bits() << 1) {
        return f32::NAN;
    }
    let top = across(&most, |a, b| if a > b { a } else { b });
    let sign = signs.iter().fold(u32::MAX, |all, one| all & one) & 1 << 31;
    let bits = if top == 0.0 { sign } else { top.to_bits() };
    f32::from_bits(bits ^ flip)
}

/// The folds for one instruction set.
macro_rules! folds {
    ($module:ident, $features:literal, $($name:ident $kind:ident => $body:expr;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use tilewright_ir::kernel::TileReduce;

            $(
                /// # Safety
                /// The processor has the features, and `x` points to `count` elements.
                #[target_feature(enable = $features)]
                unsafe extern "C" fn $name(count: usize, x: *const f32) -> f32 {
                    // SAFETY: the caller's promise.
                    let x = unsafe { std::slice::from_raw_parts(x, count) };
                    let body: fn(&[f32]) -> f32 = $body;
                    body(x)
                }
            )*

            /// By kind, with names.
            pub const FUNCTIONS: &[(TileReduce, &str, super::Fold)] =
                &[$((TileReduce::$kind, stringify!($name), $name)),*];
        }
    };
}

folds!(avx512, "avx512f",
    fold_sum Sum => |x| super::sum(x);
    fold_max Max => |x| super::largest(x, 0);
    fold_min Min => |x| super::largest(x, 1 << 31););
folds!(avx2, "avx2,fma",
    fold_sum Sum => |x| super::sum(x);
    fold_max Max => |x| super::largest(x, 0);
    fold_min Min => |x| super::largest(x, 1 << 31););

/// By kind, where this instruction set has vectors that Cranelift lacks.
fn functions(isa: Isa) -> &'static [(TileReduce, &'static str, Fold)] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::AmxBf16 => avx512::FUNCTIONS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::FUNCTIONS,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::AmxBf16 | Isa::Avx2 => &[],
        Isa::Portable => &[],
    }
}

/// The fold of this kind, if there is one.
pub fn fold(isa: Isa, kind: TileReduce) -> Option<Fold> {
    functions(isa).iter().find(|row| row.0 == kind).map(|row| row.2)
}

/// `<isa>_<name>` of the function at an address.
pub fn name_at(address: usize) -> Option<String> {
    Isa::ALL.iter().find_map(|isa| {
        let found = functions(*isa).iter().find(|row| row.2 as usize == address)?;
        Some(format!("{}_{}", isa.name(), found.1))
    })
}

#[cfg(test)]
mod tests {
    use super::fold;
    use crate::cpu::ukernel::Isa;
    use tilewright_ir::kernel::TileReduce;

    /// The larger; NaN if either is, +0 above -0.
    fn larger(a: f32, b: f32) -> f32 {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else if a > b || (a == b && b.is_sign_negative()) {
            a
        } else {
            b
        }
    }

    /// The fold as the docs of `Fold` say it.
    fn want(kind: TileReduce, x: &[f32]) -> f32 {
        let (start, one): (f32, fn(f32, f32) -> f32) = match kind {
            TileReduce::Max => (f32::NEG_INFINITY, larger),
            TileReduce::Min => (f32::INFINITY, |a, b| -larger(-a, -b)),
            _ => (0.0, |a, b| a + b),
        };
        let mut lanes = [start; 16];
        let whole = x.len() / 16 * 16;
        for (i, x) in x.iter().enumerate() {
            let lane = if i < whole { i % 16 } else { i % 4 };
            lanes[lane] = one(lanes[lane], *x);
        }
        let four = |i: usize| one(one(lanes[i], lanes[4 + i]), one(lanes[8 + i], lanes[12 + i]));
        one(one(four(0), four(1)), one(four(2), four(3)))
    }

    /// Every fold at every length up to a few groups, among them rows of zeros, of infinities, and with a NaN anywhere.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn folds_have_the_bits_of_their_definition() {
        let kinds = [TileReduce::Sum, TileReduce::Max, TileReduce::Min];
        for isa in Isa::ALL.iter().copied().filter(|isa| *isa != Isa::Portable && isa.available()) {
            for (kind, count) in kinds.iter().flat_map(|kind| (0..=76usize).step_by(4).map(move |n| (*kind, n))) {
                let function = fold(isa, kind).unwrap();
                let at = |i: usize, case: usize| match case {
                    0 => ((i * 37 + count * 11) % 101) as f32 / 7.0 - 5.0,
                    1 => -0.0,
                    2 if i == count / 2 => 0.0,
                    2 => -0.0,
                    3 if i == count / 2 => -0.0,
                    3 => 0.0,
                    4 => f32::NEG_INFINITY,
                    5 => f32::INFINITY,
                    6 => -1.0 - i as f32,
                    n if i == (n - 7) * 5 => {
                        if n % 2 == 0 {
                            -f32::NAN
                        } else {
                            f32::NAN
                        }
                    }
                    _ => i as f32,
                };
                for case in 0..23 {
                    let x: Vec<f32> = (0..count).map(|i| at(i, case)).collect();
                    // SAFETY: the slice has `count` elements, and the instruction set is there.
                    let found = unsafe { function(count, x.as_ptr()) };
                    let want = want(kind, &x);
                    let same = found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
                    assert!(same, "{isa:?} {kind:?} of {count}, case {case}: {found:?}, not {want:?}");
                }
            }
        }
    }
}
