//! Elements of constants and results: every bit pattern has a text, and the shortest one that reads back is printed.

use crate::array::{Array, round_to_odd};
use crate::types::DType;
use half::{bf16, f16};
use std::fmt::Write;

/// A float as its shortest decimal, `inf`, `nan` for the usual NaN, and other NaNs as their bits.
fn float(bits: u64, usual_nan: u64, shortest: String) -> String {
    if shortest == "NaN" && bits != usual_nan { format!("{bits:#x}") } else { shortest.replace("NaN", "nan") }
}

/// The shortest decimal that is nearest to this half among the halves: that of an f32 or f64 has digits that a half has not.
fn half(dtype: DType, bits: u16) -> String {
    let value = if dtype == DType::F16 { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() };
    let decimals = (0..8).filter_map(|digits| format!("{value:.digits$e}").parse::<f64>().ok());
    let same = |d: &f64| float_bits(dtype, d.is_sign_negative(), &d.abs().to_string()) == Some(bits.into());
    format!("{:?}", decimals.into_iter().find(same).unwrap_or(value))
}

/// Element `index` of `array` as the text of a constant has it, but any NaN as `nan`; `None` beyond the end, and for
/// block encodings, whose elements are no numbers of their own.
pub fn element_text(array: &Array, index: usize) -> Option<String> {
    let (dtype, (per, size)) = (array.dtype(), array.dtype().block());
    let start = index.checked_mul(size).filter(|_| per == 1)?;
    let bytes = array.bytes().get(start..start.checked_add(size)?)?;
    let mut wide = [0; 8];
    wide[..size].copy_from_slice(bytes);
    let text = element(dtype, u64::from_le_bytes(wide));
    Some(if dtype.is_float() && text.starts_with("0x") { "nan".into() } else { text })
}

/// The element `bits` (of the dtype's width, zero-extended) as text.
fn element(dtype: DType, bits: u64) -> String {
    match dtype {
        DType::F64 => float(bits, f64::NAN.to_bits(), format!("{:?}", f64::from_bits(bits))),
        DType::F32 => float(bits, f32::NAN.to_bits().into(), format!("{:?}", f32::from_bits(bits as u32))),
        DType::F16 => float(bits, 0x7e00, half(dtype, bits as u16)),
        DType::Bf16 => float(bits, 0x7fc0, half(dtype, bits as u16)),
        DType::I8 => (bits as i8).to_string(),
        DType::I16 => (bits as i16).to_string(),
        DType::I32 => (bits as i32).to_string(),
        DType::I64 => (bits as i64).to_string(),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => bits.to_string(),
        DType::Bool if bits < 2 => (bits == 1).to_string(),
        DType::Bool | DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => format!("{bits:#x}"),
    }
}

/// Prints the elements: `1.0` for a scalar, `[1.0, -inf]` in row-major order else, hex digits for block encodings.
pub(super) fn print(out: &mut String, array: &Array) {
    let bytes: &[u8] = array.bytes();
    if array.dtype().is_block() {
        out.push('"');
        for b in bytes {
            // Writing to a String cannot fail.
            let _ = write!(out, "{b:02x}");
        }
        out.push('"');
        return;
    }
    let scalar = array.shape().is_empty();
    out.push_str(if scalar { "" } else { "[" });
    for (i, chunk) in bytes.chunks(array.dtype().block().1).enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        let mut wide = [0; 8];
        wide[..chunk.len()].copy_from_slice(chunk);
        out.push_str(&element(array.dtype(), u64::from_le_bytes(wide)));
    }
    out.push_str(if scalar { "" } else { "]" });
}

/// Appends the element that `text` (without its sign) means; `None` if it is none, or out of range.
pub(super) fn read(out: &mut Vec<u8>, dtype: DType, negative: bool, text: &str) -> Option<()> {
    let width = dtype.block().1;
    let bits = match text.strip_prefix("0x") {
        Some(_) if negative => return None,
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if dtype == DType::Bool => u64::from(text.parse::<bool>().ok().filter(|_| !negative)?),
        None if dtype.is_float() => float_bits(dtype, negative, text)?,
        None => {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let magnitude = text.parse::<i128>().ok().filter(|_| digits)?;
            integer_bits(dtype, if negative { -magnitude } else { magnitude })?
        }
    };
    if width < 8 && bits >> (8 * width) != 0 {
        return None;
    }
    out.extend_from_slice(&bits.to_le_bytes()[..width]);
    Some(())
}

fn float_bits(dtype: DType, negative: bool, text: &str) -> Option<u64> {
    if text == "nan" {
        // The sign of a NaN is part of its bits.
        let usual = match dtype {
            DType::F64 => f64::NAN.to_bits(),
            DType::F16 => 0x7e00,
            DType::Bf16 => 0x7fc0,
            _ => f32::NAN.to_bits().into(),
        };
        return (!negative).then_some(usual);
    }
    if text != "inf" && !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let sign = if negative { -1.0 } else { 1.0 };
    let x = text.parse::<f64>().ok()? * sign;
    let (bits, infinite) = match dtype {
        DType::F64 => (x.to_bits(), x.is_infinite()),
        DType::F16 => {
            let y = f16::from_f32(round_to_odd(x));
            (y.to_bits().into(), y.is_infinite())
        }
        DType::Bf16 => {
            let y = bf16::from_f32(round_to_odd(x));
            (y.to_bits().into(), y.is_infinite())
        }
        // Through f64 a decimal could be rounded twice.
        _ => {
            let y = text.parse::<f32>().ok()? * sign as f32;
            (y.to_bits().into(), y.is_infinite())
        }
    };
    (infinite == (text == "inf")).then_some(bits)
}

fn integer_bits(dtype: DType, v: i128) -> Option<u64> {
    let bits = 8 * dtype.block().1 as u32;
    let (low, high) =
        if dtype.is_signed() { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    let mask = (1i128 << bits) - 1;
    (low..=high).contains(&v).then_some((v & mask) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(dtype: DType, bits: u64) -> Option<Vec<u8>> {
        let text = element(dtype, bits);
        let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |t| (true, t));
        let mut out = Vec::new();
        read(&mut out, dtype, negative, digits).map(|()| out)
    }

    #[test]
    fn every_small_pattern_reads_back() {
        for dtype in [DType::F16, DType::Bf16, DType::I16, DType::U16] {
            for bits in 0..=u16::MAX {
                assert_eq!(back(dtype, bits.into()), Some(bits.to_le_bytes().to_vec()), "{dtype} {bits:#x}");
            }
        }
        for dtype in [DType::I8, DType::U8, DType::Bool] {
            for bits in 0..=u8::MAX {
                assert_eq!(back(dtype, bits.into()), Some(vec![bits]), "{dtype} {bits:#x}");
            }
        }
    }

    #[test]
    fn halves_have_no_digits_of_wider_floats() {
        let texts = |dtype, bits: [u16; 5]| bits.map(|b| element(dtype, b.into()));
        let bf16s = [bf16::from_f32(0.1), bf16::from_f32(-9.53), bf16::MAX, bf16::EPSILON, bf16::from_f32(100.0)];
        assert_eq!(texts(DType::Bf16, bf16s.map(bf16::to_bits)), ["0.1", "-9.5", "3.39e38", "0.0078", "100.0"]);
        let f16s = [f16::from_f32(0.1), f16::from_f32(-9.53), f16::MAX, f16::from_bits(1), f16::from_f32(100.0)];
        assert_eq!(texts(DType::F16, f16s.map(f16::to_bits)), ["0.1", "-9.53", "65500.0", "6e-8", "100.0"]);
    }

    #[test]
    fn wide_patterns_read_back() {
        let mut x = 1u64;
        for i in 0..20000u64 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407 ^ (i << 50));
            for dtype in [DType::F64, DType::I64, DType::U64] {
                assert_eq!(back(dtype, x), Some(x.to_le_bytes().to_vec()), "{dtype} {x:#x}");
            }
            let half = (x >> 32) as u32;
            for dtype in [DType::F32, DType::I32, DType::U32] {
                assert_eq!(back(dtype, half.into()), Some(half.to_le_bytes().to_vec()), "{dtype} {half:#x}");
            }
        }
    }

    #[test]
    fn out_of_range_is_refused() {
        for (dtype, negative, text) in [
            (DType::U8, true, "1"),
            (DType::U8, false, "256"),
            (DType::I8, true, "129"),
            (DType::F32, false, "1e39"),
            (DType::F16, false, "65520"),
            (DType::F16, false, "0x10000"),
            (DType::F32, true, "nan"),
            (DType::I32, false, "1.5"),
            (DType::I32, false, "inf"),
            (DType::Bool, true, "true"),
            (DType::F32, false, "infinity"),
            (DType::U64, false, "99999999999999999999999999999999999999999999"),
        ] {
            assert_eq!(read(&mut Vec::new(), dtype, negative, text), None, "{dtype} {text}");
        }
        assert_eq!(element(DType::F32, 0.1f32.to_bits().into()), "0.1");
        assert_eq!(element(DType::F32, 0x7fc00001), "0x7fc00001");
    }
}
