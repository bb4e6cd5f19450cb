//! f16, bf16 and ggml's block encodings to f32.
//!
//! Blocks are decoded as ggml defines them (ggml-common.h names the fields, ggml-quants.c the arithmetic). A scale times
//! a small integer is exact in f32, so no step depends on the order of operations or on fused multiply-add, save the one
//! final rounding that each formula has.

use crate::array::Array;
use crate::diag::Diagnostic;
use crate::types::DType;
use half::{bf16, f16};

/// The values of a f16, bf16, f32 or block-encoded array in f32, in row-major order.
///
/// Errors: `dequantise` for other dtypes.
pub fn dequantised_values(array: &Array) -> Result<Vec<f32>, Diagnostic> {
    let bytes: &[u8] = array.bytes();
    Ok(match array.dtype() {
        DType::F32 => each(bytes, |c: &[u8; 4]| [f32::from_le_bytes(*c)]),
        DType::F16 => each(bytes, |c: &[u8; 2]| [f16::from_le_bytes(*c).to_f32()]),
        DType::Bf16 => each(bytes, |c: &[u8; 2]| [bf16::from_le_bytes(*c).to_f32()]),
        DType::Q8_0 => each(bytes, q8_0),
        DType::Q4_0 => each(bytes, q4_0),
        DType::Q4_1 => each(bytes, q4_1),
        DType::Q4K => each(bytes, q4_k),
        DType::Q6K => each(bytes, q6_k),
        other @ (DType::F64
        | DType::I8
        | DType::U8
        | DType::I16
        | DType::U16
        | DType::I32
        | DType::U32
        | DType::I64
        | DType::U64
        | DType::Bool) => {
            let message = format!("expected f16, bf16, f32 or a block encoding to dequantise, found {other}");
            return Err(Diagnostic::new("dequantise", message));
        }
    })
}

/// Decodes blocks of `N` bytes to `M` values.
fn each<const N: usize, const M: usize>(bytes: &[u8], decode: impl Fn(&[u8; N]) -> [f32; M]) -> Vec<f32> {
    let blocks = bytes.as_chunks::<N>().0;
    let mut out = Vec::with_capacity(blocks.len() * M);
    for block in blocks {
        out.extend_from_slice(&decode(block));
    }
    out
}

/// The f16 at byte `at`.
fn scale<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale, 32 i8: `d * q`.
fn q8_0(block: &[u8; 34]) -> [f32; 32] {
    let d = scale(block, 0);
    std::array::from_fn(|i| d * f32::from(block[2 + i] as i8))
}

/// Nibble `i` of 16 bytes that hold elements 0 to 15 in the low and 16 to 31 in the high halves.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Scale, 32 nibbles: `d * (q - 8)`.
fn q4_0(block: &[u8; 18]) -> [f32; 32] {
    let d = scale(block, 0);
    std::array::from_fn(|i| d * (f32::from(nibble(&block[2..], i)) - 8.0))
}

/// Scale, minimum, 32 nibbles: `d * q + m`.
fn q4_1(block: &[u8; 20]) -> [f32; 32] {
    let (d, m) = (scale(block, 0), scale(block, 2));
    std::array::from_fn(|i| d * f32::from(nibble(&block[4..], i)) + m)
}

/// Scale, scale of minima, eight packed pairs of 6-bit sub-scale and sub-minimum in 12 bytes, 256 nibbles:
/// `d * s * q - dmin * m`, with one `(s, m)` for 32 elements.
fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let (d, dmin) = (scale(block, 0), scale(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    let mut out = [0.0; 256];
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = six_bits(j, |i| packed[i]);
        let (s, m) = (d * s, dmin * m);
        // Groups 2k and 2k + 1 share 32 bytes: low halves, high halves.
        for (x, byte) in group.iter_mut().zip(&quants[32 * (j / 2)..]) {
            let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            *x = s * f32::from(q) - m;
        }
    }
    out
}

/// Sub-scale and sub-minimum of run `run` of a q4_K block, six bits each, from its 12 packed bytes: the first four pairs in
/// one byte each, the others by four bits in one byte, with their upper two bits on top of the first eight bytes.
pub fn six_bits(run: usize, byte: impl Fn(usize) -> u8) -> (f32, f32) {
    let (scale, minimum) = match run {
        0..4 => (byte(run) & 63, byte(run + 4) & 63),
        _ => (byte(run + 4) & 15 | byte(run - 4) >> 6 << 4, byte(run + 4) >> 4 | byte(run) >> 6 << 4),
    };
    (f32::from(scale), f32::from(minimum))
}

/// 256 lower nibbles, 256 upper pairs of bits, sixteen i8 sub-scales, scale: `d * s * (q - 32)`, with one `s` for 16.
fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let (lower, upper, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale(block, 208);
    std::array::from_fn(|i| {
        // Each half of 128 elements has four quarters of 32: bytes of `lower` serve quarters 0 and 2, or 1 and 3, by
        // halves; each byte of `upper` serves all four by pairs of bits.
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = lower[64 * half + 32 * (quarter % 2) + l];
        let low = if quarter < 2 { low & 15 } else { low >> 4 };
        let high = (upper[32 * half + l] >> (2 * quarter)) & 3;
        let q = f32::from(low | (high << 4)) - 32.0;
        d * f32::from(scales[i / 16] as i8) * q
    })
}
