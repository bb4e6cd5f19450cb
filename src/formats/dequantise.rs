//! f16, bf16 and ggml's block encodings to f32.
//!
//! The decoding itself is in [`tilewright_ir::blocks`], where the interpreter needs it too.

use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

pub use tilewright_ir::blocks::dequantised_values;

/// The same values in f32 with the same shape; f32 arrays are returned as they are, without a copy.
///
/// Errors: `dequantise` for dtypes that are neither f16, bf16, f32 nor a block encoding.
pub fn dequantise(array: &Array) -> Result<Array, Diagnostic> {
    if array.dtype() == DType::F32 {
        return Ok(array.clone());
    }
    Array::from_f32(array.shape(), &dequantised_values(array)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use tilewright_ir::array::Bytes;

    fn hash(values: &[f32]) -> u64 {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Expected values by gguf-py 0.19.0 (numpy) on the same pseudo-random blocks: FNV-1a of all bits, elements 0, 1, 17,
    /// 31 and the last.
    #[test]
    fn blocks_decode_as_the_gguf_package_decodes_them() {
        let cases: [(DType, &[usize], u64, [f32; 5]); 5] = [
            (
                DType::Q8_0,
                &[0],
                0xd8e6f1d4aad618b7,
                [0.170_036_32, -0.580_123_9, 0.930_198_67, -0.780_166_6, 14.902_344],
            ),
            (
                DType::Q4_0,
                &[0],
                0xb02fb1f5511ebbc1,
                [-0.070_014_95, -0.060_012_817, -0.070_014_95, 0.030_006_409, -4.470_703],
            ),
            (
                DType::Q4_1,
                &[0, 2],
                0x9fc12eebaf14d322,
                [0.161_026, 0.121_017_456, 0.071_006_775, 0.061_004_64, 2.991_211],
            ),
            (
                DType::Q4K,
                &[0, 2],
                0x1deca196a5091c7f,
                [5.418_434, -0.222_770_69, 1.187_530_5, 2.127_731_3, -1.500_976_6],
            ),
            (DType::Q6K, &[208], 0x9d33f636b3b084f3, [-3.450_737, 1.200_256_3, -1.050_224_3, -12.602_692, 229.496_1]),
        ];
        for (dtype, scales, expected, some) in cases {
            let (per, size) = dtype.block();
            let mut state = size as u64;
            let mut bytes: Vec<u8> = (0..5 * size)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 56) as u8
                })
                .collect();
            for k in 0..5 {
                for (i, at) in scales.iter().enumerate() {
                    let sign = if k % 2 == 1 { -1.0 } else { 1.0 };
                    let d = f16::from_f64((0.01 + 0.37 * k as f64 + 0.011 * i as f64) * sign);
                    bytes[k * size + at..][..2].copy_from_slice(&d.to_le_bytes());
                }
            }
            let values = dequantised_values(&Array::new(dtype, &[5 * per], Bytes::new(bytes)).unwrap()).unwrap();
            let found = [values[0], values[1], values[17], values[31], values[5 * per - 1]];
            assert_eq!((found, hash(&values)), (some, expected), "{dtype}");
        }
    }

    #[test]
    fn half_precision_is_exact() {
        let bits =
            |dtype, words: [u16; 3]| Array::new(dtype, &[3], Bytes::new(words.map(u16::to_le_bytes).concat())).unwrap();
        let f16s = dequantised_values(&bits(DType::F16, [0x3c01, 0x0001, 0xfbff])).unwrap();
        assert_eq!(f16s, [1.0 + 2f32.powi(-10), 2f32.powi(-24), -65504.0]);
        let bf16s = dequantised_values(&bits(DType::Bf16, [0x3f81, 0x0001, 0xff80])).unwrap();
        assert_eq!(bf16s, [1.0 + 2f32.powi(-7), f32::from_bits(1 << 16), f32::NEG_INFINITY]);
    }

    #[test]
    fn integers_are_refused() {
        let error = dequantise(&Array::from_i64(&[1], &[1]).unwrap()).unwrap_err();
        assert!(error.code == "dequantise" && error.message.contains("found i64"), "{error}");
    }

    /// Every tensor of the model against sums that the gguf package's values gave; skipped where there is no model.
    #[test]
    fn the_model_has_the_expected_checksums() {
        let Some(gguf) = crate::formats::test_model() else { return };
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/formats/smollm2.json")).unwrap();
        let weights = reference["weights"].as_object().unwrap();
        assert_eq!(gguf.names().collect::<Vec<_>>(), weights.keys().map(String::as_str).collect::<Vec<_>>());
        for (name, expected) in weights {
            let array = gguf.tensor(name).unwrap();
            let shape: Vec<u64> = array.shape().iter().map(|d| *d as u64).collect();
            assert_eq!(serde_json::json!(shape), expected["shape"], "{name}");
            assert_eq!(array.dtype().name().to_uppercase(), expected["type"].as_str().unwrap(), "{name}");
            let values = dequantised_values(&array).unwrap();
            // The JSON reader may be off by an ulp of f64, which rounding to f32 removes.
            let first: Vec<f32> =
                expected["first8"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
            assert_eq!(values[..first.len()], first, "{name}");
            // Sums in f64: only the order of additions may differ.
            let sum: f64 = values.iter().map(|x| f64::from(*x)).sum();
            let magnitudes: f64 = values.iter().map(|x| f64::from(x.abs())).sum();
            let close = |x: f64, key: &str| (x - expected[key].as_f64().unwrap()).abs() <= 1e-11 * magnitudes;
            assert!(close(sum, "sum") && close(magnitudes, "abs_sum"), "{name}: {sum} {magnitudes} {expected}");
        }
    }
}
