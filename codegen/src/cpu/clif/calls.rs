//! Functions of the host that generated code calls.

use super::types::unsupported;
use crate::cpu::poly::wide;
use crate::cpu::ukernel::block;
use half::{bf16, f16};
use tilewright_ir::array::round_to_odd;
use tilewright_ir::blocks::six_bits;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

extern "C" fn f16_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}
extern "C" fn f32_to_f16(x: f32) -> u16 {
    f16::from_f32(x).to_bits()
}
extern "C" fn f32_to_bf16(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}
extern "C" fn f64_to_f16(x: f64) -> u16 {
    f16::from_f32(round_to_odd(x)).to_bits()
}
extern "C" fn f64_to_bf16(x: f64) -> u16 {
    bf16::from_f32(round_to_odd(x)).to_bits()
}
extern "C" fn pow_f32(x: f32, y: f32) -> f32 {
    // Through f64: the result is then right but for ties, as for the other elementary functions beyond their polynomials.
    libm::pow(f64::from(x), f64::from(y)) as f32
}
extern "C" fn pow_f64(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}
extern "C" fn rem_f32(x: f32, y: f32) -> f32 {
    x % y
}
extern "C" fn rem_f64(x: f64, y: f64) -> f64 {
    x % y
}

/// Wraps around by squaring; the low bits are right for every narrower integer too.
extern "C" fn pow_unsigned(x: u64, mut y: u64) -> u64 {
    let (mut base, mut power) = (x, 1u64);
    while y > 0 {
        if y & 1 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        y >>= 1;
    }
    power
}

extern "C" fn pow_signed(x: i64, y: i64) -> i64 {
    if let Ok(y) = u64::try_from(y) {
        return pow_unsigned(x.cast_unsigned(), y).cast_signed();
    }
    match x {
        1 => 1,
        -1 if y & 1 == 0 => 1,
        -1 => -1,
        _ => 0,
    }
}

/// Element `at` of rows of blocks of a [`block`] format that start at `base`, as [`tilewright_ir::blocks`] has it.
///
/// # Safety
/// The rows hold at least `at + 1` elements.
unsafe extern "C" fn element_of<const FORMAT: u8>(base: *const u8, at: i64) -> f32 {
    let (per, bytes) = const { block::FORMATS[FORMAT as usize].block() };
    let (block, within) = (at as usize / per, at as usize % per);
    // SAFETY: the caller's promise covers the whole block.
    let block = unsafe { std::slice::from_raw_parts(base.add(block * bytes), bytes) };
    let half = |i: usize| f16::from_le_bytes([block[i], block[i + 1]]).to_f32();
    let nibble = |start: usize| f32::from(block[start + within % 16] >> (4 * (within / 16)) & 15);
    match FORMAT {
        block::Q8_0 => half(0) * f32::from(block[2 + within].cast_signed()),
        block::Q4_0 => half(0) * (nibble(2) - 8.0),
        block::Q4_1 => half(0) * nibble(4) + half(2),
        block::Q4_K => {
            let (run, step) = (within / 32, within % 32);
            let (scale, minimum) = six_bits(run, |i| block[4 + i]);
            let quant = block[16 + run / 2 * 32 + step] >> (4 * (run % 2)) & 15;
            half(0) * scale * f32::from(quant) - half(2) * minimum
        }
        _ => {
            let (part, quarter, step) = (within / 128, within % 128 / 32, within % 32);
            let lower = block[64 * part + 32 * (quarter % 2) + step] >> (4 * (quarter / 2)) & 15;
            let upper = block[128 + 32 * part + step] >> (2 * quarter) & 3;
            let scale = f32::from(block[192 + within / 16].cast_signed());
            half(208) * scale * (f32::from(lower | upper << 4) - 32.0)
        }
    }
}

/// Address of `(rows, element) -> f32` for a block encoding. Errors: `cpu-unsupported`.
pub fn block_element(dtype: DType) -> Result<usize, Diagnostic> {
    type Read = unsafe extern "C" fn(*const u8, i64) -> f32;
    match dtype {
        DType::Q8_0 => Ok(element_of::<{ block::Q8_0 }> as Read as usize),
        DType::Q4_0 => Ok(element_of::<{ block::Q4_0 }> as Read as usize),
        DType::Q4_1 => Ok(element_of::<{ block::Q4_1 }> as Read as usize),
        DType::Q4K => Ok(element_of::<{ block::Q4_K }> as Read as usize),
        DType::Q6K => Ok(element_of::<{ block::Q6_K }> as Read as usize),
        other => Err(unsupported(format!("elements of {other} by their block"))),
    }
}

/// Address of `f16 bits -> f32`.
pub fn half_to_float() -> usize {
    f16_to_f32 as extern "C" fn(u16) -> f32 as usize
}

/// Address of `f32 or f64 -> bits of f16 or bf16`.
pub fn float_to_half(brain: bool, wide: bool) -> usize {
    match (brain, wide) {
        (false, false) => f32_to_f16 as extern "C" fn(f32) -> u16 as usize,
        (true, false) => f32_to_bf16 as extern "C" fn(f32) -> u16 as usize,
        (false, true) => f64_to_f16 as extern "C" fn(f64) -> u16 as usize,
        (true, true) => f64_to_bf16 as extern "C" fn(f64) -> u16 as usize,
    }
}

/// Address of `pow` of floats.
pub fn pow_float(wide: bool) -> usize {
    if wide {
        pow_f64 as extern "C" fn(f64, f64) -> f64 as usize
    } else {
        pow_f32 as extern "C" fn(f32, f32) -> f32 as usize
    }
}

/// Address of `%` of floats.
pub fn rem_float(wide: bool) -> usize {
    if wide {
        rem_f64 as extern "C" fn(f64, f64) -> f64 as usize
    } else {
        rem_f32 as extern "C" fn(f32, f32) -> f32 as usize
    }
}

/// Address of `pow` of 64-bit integers.
pub fn pow_int(signed: bool) -> usize {
    if signed {
        pow_signed as extern "C" fn(i64, i64) -> i64 as usize
    } else {
        pow_unsigned as extern "C" fn(u64, u64) -> u64 as usize
    }
}

/// Address of the f64 form of an elementary function.
pub fn wide(op: &ScalarOp) -> Option<usize> {
    let name = op.info().name;
    wide::FUNCTIONS.iter().find(|(other, _)| *other == name).map(|(_, function)| *function as usize)
}
