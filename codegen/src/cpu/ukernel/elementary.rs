//! Elementary functions of a strip of f32: the polynomials of [`crate::cpu::poly`], one loop over elements each, which the
//! Rust compiler turns into vectors of the instruction set. Bits are those of the four-lane form that Cranelift makes.

use super::Isa;
use tilewright_ir::op::ScalarOp;

/// `x[i] = f(x[i])` for `i < count`, arguments `(count, x)`. Numerics: those of the polynomial, for every instruction set.
pub type Elementary = unsafe extern "C" fn(count: usize, x: *mut f32);

/// The functions for one instruction set; those after the semicolon go through their second name beyond
/// [`TRIG_LIMIT`](crate::cpu::poly::TRIG_LIMIT).
macro_rules! strips {
    ($module:ident, $features:literal, $($name:ident)*; $($angle:ident, $any:ident)*) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use crate::cpu::poly::{self, Scalar};

            $(
                /// # Safety
                /// The processor has the features, and `x` points to `count` elements that nobody else uses.
                #[target_feature(enable = $features)]
                pub unsafe extern "C" fn $name(count: usize, x: *mut f32) {
                    // SAFETY: the caller's promise.
                    for x in unsafe { std::slice::from_raw_parts_mut(x, count) } {
                        *x = poly::$name(&mut Scalar, *x);
                    }
                }
            )*

            $(
                /// # Safety
                /// As of the others.
                #[target_feature(enable = $features)]
                pub unsafe extern "C" fn $angle(count: usize, x: *mut f32) {
                    let far = |x: f32| x.abs() > poly::TRIG_LIMIT;
                    // SAFETY: the caller's promise.
                    for strip in unsafe { std::slice::from_raw_parts_mut(x, count) }.chunks_mut(64) {
                        // A choice for each element would keep the others from being vectors.
                        if strip.iter().any(|x| far(*x)) {
                            strip.iter_mut().for_each(|x| {
                                *x = if far(*x) { poly::$any(*x) } else { poly::$angle(&mut Scalar, *x) };
                            });
                        } else {
                            strip.iter_mut().for_each(|x| *x = poly::$angle(&mut Scalar, *x));
                        }
                    }
                }
            )*

            /// By the names of their ops.
            pub const FUNCTIONS: &[(&str, super::Elementary)] =
                &[$((stringify!($name), $name),)* $((stringify!($angle), $angle),)*];
        }
    };
}

strips!(avx512, "avx512f", exp exp2 expm1 log log2 log1p tanh erf; sin, sin_any cos, cos_any);
strips!(avx2, "avx2,fma", exp exp2 expm1 log log2 log1p tanh erf; sin, sin_any cos, cos_any);

/// By the names of their ops, where this instruction set has vectors that Cranelift lacks.
fn functions(isa: Isa) -> &'static [(&'static str, Elementary)] {
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

/// The function of `op` on a strip, if there is one.
pub fn elementary(isa: Isa, op: &ScalarOp) -> Option<Elementary> {
    let name = op.info().name;
    functions(isa).iter().find(|row| row.0 == name).map(|row| row.1)
}

/// `<isa>_<op>` of the function at an address.
pub fn name_at(address: usize) -> Option<String> {
    Isa::ALL.iter().find_map(|isa| {
        let found = functions(*isa).iter().find(|row| row.1 as usize == address)?;
        Some(format!("{}_{}", isa.name(), found.0))
    })
}

#[cfg(test)]
mod tests {
    use super::elementary;
    use crate::cpu::poly::{self, Scalar};
    use crate::cpu::ukernel::Isa;
    use tilewright_ir::op::ScalarOp;

    /// Every function at every length up to two vectors and a tail, bit by bit against the scalar form.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn strips_have_the_bits_of_the_scalar_form() {
        type Function = fn(&mut Scalar, f32) -> f32;
        let sine: Function = |s, x| if x.abs() > poly::TRIG_LIMIT { poly::sin_any(x) } else { poly::sin(s, x) };
        let cosine: Function = |s, x| if x.abs() > poly::TRIG_LIMIT { poly::cos_any(x) } else { poly::cos(s, x) };
        let functions: [(ScalarOp, Function); 10] = [
            (ScalarOp::Exp {}, poly::exp),
            (ScalarOp::Exp2 {}, poly::exp2),
            (ScalarOp::Expm1 {}, poly::expm1),
            (ScalarOp::Log {}, poly::log),
            (ScalarOp::Log2 {}, poly::log2),
            (ScalarOp::Log1p {}, poly::log1p),
            (ScalarOp::Tanh {}, poly::tanh),
            (ScalarOp::Erf {}, poly::erf),
            (ScalarOp::Sin {}, sine),
            (ScalarOp::Cos {}, cosine),
        ];
        let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40, 88.8, -104.0, 2e5, -3e30];
        for isa in Isa::ALL.iter().copied().filter(|isa| *isa != Isa::Portable && isa.available()) {
            for (op, function) in &functions {
                let strip = elementary(isa, op).unwrap();
                for count in 0..=70usize {
                    let value = |i: usize| match special.get(i % 29) {
                        Some(x) if count % 3 == 0 => *x,
                        _ => ((i * 37 + count * 11) % 101) as f32 / 7.0 - 5.0,
                    };
                    let mut found: Vec<f32> = (0..count).map(value).collect();
                    let want: Vec<f32> = found.iter().map(|&x| function(&mut Scalar, x)).collect();
                    // SAFETY: the slice has `count` elements, and the instruction set is there.
                    unsafe { strip(count, found.as_mut_ptr()) };
                    for (x, y) in found.iter().zip(&want) {
                        let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
                        assert!(same, "{isa:?} {}: {x} and {y}", op.info().name);
                    }
                }
            }
        }
    }
}
