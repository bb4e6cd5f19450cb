//! Values of every dtype, extreme ones above all, and when two results are the same.

use crate::random::Random;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::types::DType;

/// What values are like.
#[derive(Clone, Copy, PartialEq)]
pub enum Data {
    /// Anything, extreme values often.
    Wild,
    /// Small integers, halves, infinities and NaN: sums do not depend on the order by more than roundings.
    Tame,
    /// 0, 1, 2, ..: good as indices.
    Small,
}

fn float_bytes(dtype: DType, x: f64) -> Vec<u8> {
    match dtype {
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(x).to_le_bytes().to_vec(),
        _bf16 => half::bf16::from_f64(x).to_le_bytes().to_vec(),
    }
}

/// Values where something special happens.
fn special(dtype: DType) -> Vec<Vec<u8>> {
    let bits = 8 * dtype.block().1 as u32;
    if dtype == DType::Bool {
        return vec![vec![0], vec![1]];
    }
    if dtype.is_float() {
        let (largest, normal, least) = match dtype {
            DType::F64 => (f64::MAX, f64::MIN_POSITIVE, 5e-324),
            DType::F32 => (f32::MAX.into(), f32::MIN_POSITIVE.into(), 1e-45),
            DType::F16 => (65504.0, 6.103_515_625e-5, 6e-8),
            _bf16 => (half::bf16::MAX.to_f64(), f32::MIN_POSITIVE.into(), 9.2e-41),
        };
        let positive = [
            0.0,
            0.5,
            1.0,
            1.5,
            2.5,
            3.0,
            0.1,
            7.3,
            88.5,
            127.5,
            128.0,
            255.5,
            256.0,
            32768.0,
            65535.0,
            2_147_483_648.0,
            4_294_967_296.0,
            9_223_372_036_854_775_808.0,
            18_446_744_073_709_551_616.0,
            1e-3,
            1e-9,
            normal,
            least,
            largest,
            1.0 + 2f64.powi(-11) + 2f64.powi(-40),
            1.0 + 2f64.powi(-8) + 2f64.powi(-40),
            1.0 + 2f64.powi(-11) + 2f64.powi(-40),
            1.0 + 2f64.powi(-8) + 2f64.powi(-40),
            f64::INFINITY,
        ];
        let nan = float_bytes(dtype, f64::NAN);
        return positive.iter().flat_map(|&x| [float_bytes(dtype, x), float_bytes(dtype, -x)]).chain([nan]).collect();
    }
    let size = dtype.block().1;
    let low = if dtype.is_signed() { i64::MIN >> (64 - bits) } else { 0 };
    let high = if dtype.is_signed() { !low } else { -1 };
    let bits = i64::from(bits);
    let near = [0, 1, 2, 3, 5, 7, 10, bits - 1, bits, bits + 1, 100, 127, 128, 255, 256, 65535, 65536];
    let wide = [
        1 << 24,
        (1 << 24) + 1,
        (1 << 53) + 1,
        (1 << 54) + (1 << 30) + 1,
        (1 << 54) + (1 << 46) + 1,
        (1 << 54) + (1 << 46) + 1,
        1 << 31,
        1 << 32,
        1 << 62,
        -1 << 62,
    ];
    let signed = near.iter().flat_map(|&x| [x, -x]).chain(wide).chain([low, low + 1, high, high - 1, low / 2 + 1]);
    signed.map(|x: i64| x.to_le_bytes()[..size].to_vec()).collect()
}

/// One plain value.
fn value(random: &mut Random, dtype: DType, how: Data) -> Vec<u8> {
    let size = dtype.block().1;
    if dtype == DType::Bool {
        return vec![random.below(2) as u8];
    }
    if how == Data::Small {
        let n = random.below(4) as u8;
        return if dtype.is_float() {
            float_bytes(dtype, f64::from(n) - 1.5)
        } else {
            u64::from(n).to_le_bytes()[..size].to_vec()
        };
    }
    if how == Data::Tame {
        let n = random.below(17) as i64 - 8;
        return match (dtype.is_float(), random.below(40)) {
            (true, 0) => float_bytes(dtype, f64::INFINITY),
            (true, 1) => float_bytes(dtype, f64::NEG_INFINITY),
            (true, 2) => float_bytes(dtype, f64::NAN),
            (true, _) => float_bytes(dtype, n as f64 / 2.0),
            (false, 0) => u64::MAX.to_le_bytes()[..size].to_vec(),
            (false, _) => n.to_le_bytes()[..size].to_vec(),
        };
    }
    match random.below(3) {
        0 => random.next().to_le_bytes()[..size].to_vec(),
        1 if dtype.is_float() => float_bytes(dtype, (random.below(4001) as f64 - 2000.0) / 128.0),
        _special => {
            let all = special(dtype);
            random.of(&all)
        }
    }
}

/// An array of such values; encodings get any bits.
pub fn values(random: &mut Random, dtype: DType, shape: &[usize], how: Data) -> Array {
    let n: usize = shape.iter().product();
    let bytes: Vec<u8> = if dtype.is_block() {
        (0..dtype.bytes(n).unwrap()).map(|_| random.next() as u8).collect()
    } else {
        (0..n).flat_map(|_| value(random, dtype, how)).collect()
    };
    Array::new(dtype, shape, Bytes::new(bytes)).unwrap()
}

/// Operands in which every pair of special values meets, and random ones.
pub fn extremes(dtypes: &[DType]) -> Vec<Array> {
    let mut random = Random(dtypes.len() as u64);
    if dtypes.iter().any(|d| d.is_block()) {
        return dtypes.iter().map(|&d| values(&mut random, d, &[1024], Data::Wild)).collect();
    }
    let all: Vec<Vec<Vec<u8>>> = dtypes.iter().map(|&d| special(d)).collect();
    let pairs: usize = all.iter().rev().take(2).map(Vec::len).product();
    // Not a multiple of any vector.
    let n = pairs + 203;
    let operand = |(k, d): (usize, &DType)| {
        let mut bytes = Vec::new();
        for i in 0..n {
            let every = match dtypes.len() - 1 - k {
                0 => i % all[k].len(),
                1 => i / all[k + 1].len() % all[k].len(),
                _further => i % all[k].len(),
            };
            bytes.extend(if i < pairs { all[k][every].clone() } else { value(&mut random, *d, Data::Wild) });
        }
        Array::new(*d, &[n], Bytes::new(bytes)).unwrap()
    };
    dtypes.iter().enumerate().map(operand).collect()
}

/// The largest finite number and the step between the smallest ones.
fn range(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F32 => (f32::MAX.into(), 2f64.powi(-149)),
        DType::F16 => (65504.0, 2f64.powi(-24)),
        DType::Bf16 => (half::bf16::MAX.to_f64(), 2f64.powi(-133)),
        _f64 => (f64::MAX, 5e-324),
    }
}

/// Position of the first element that is not the same, if any.
pub fn same(x: &Array, y: &Array, tolerance: f64) -> Option<usize> {
    let dtype = x.dtype();
    if !dtype.is_float() {
        let size = dtype.block().1;
        return (0..x.len()).find(|i| x.bytes()[i * size..][..size] != y.bytes()[i * size..][..size]);
    }
    let (largest, step) = range(dtype);
    let near = |a: f64, b: f64| {
        if a.is_nan() || b.is_nan() {
            return a.is_nan() && b.is_nan();
        }
        if tolerance == 0.0 {
            return a.to_bits() == b.to_bits();
        }
        // What is just too large for one may be just not for the other.
        let clamp = |v: f64| if v.is_infinite() { largest.copysign(v) } else { v };
        a == b || (clamp(a) - clamp(b)).abs() <= tolerance * b.abs().clamp(0.0, largest) + 2.0 * step
    };
    let (a, b) = (x.to_f64().unwrap(), y.to_f64().unwrap());
    a.iter().zip(&b).position(|(&a, &b)| !near(a, b))
}
