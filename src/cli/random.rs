//! Random inputs: the same seed, the same data.

use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::{DType, Type};

/// Bytes of the largest random tensor.
const MOST_BYTES: usize = 1 << 32;

/// A small xorshift generator.
pub(super) struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In `0..limit`, as far as `dtype` has such numbers.
    fn integer(&mut self, dtype: DType, limit: Option<usize>) -> i64 {
        let draw = |x: u64, count: u64| ((u128::from(x) * u128::from(count.max(1))) >> 64) as i64;
        match limit {
            Some(limit) => {
                let bits = 8 * dtype.block().1 as u32 - u32::from(dtype.is_signed());
                let most = 1u64.checked_shl(bits).unwrap_or(u64::MAX);
                draw(self.next(), most.min(limit as u64))
            }
            None if dtype.is_signed() => draw(self.next(), 33) - 16,
            None => draw(self.next(), 17),
        }
    }

    /// In -1..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Floats in -1..1; integers below `limit` where they choose places, else in -16..=16, or 0..=16 if unsigned; bools;
    /// blocks with random quanta and scales of about 0.1.
    ///
    /// Errors: `array-size` for sizes beyond memory or rows that are no whole blocks.
    pub fn array(&mut self, ty: &Type, shape: &[usize], limit: Option<usize>) -> Result<Array, Diagnostic> {
        let count = element_count(shape).filter(|&n| ty.dtype.bytes(n).is_some_and(|b| b <= MOST_BYTES));
        let large = || {
            let message =
                format!("{}{shape:?} takes more than the {MOST_BYTES} bytes that random data may have", ty.dtype);
            Diagnostic::new("array-size", message)
        };
        let count = count.ok_or_else(large)?;
        let dtype = ty.dtype;
        let mut bytes = Vec::new();
        let no_room = |_| Diagnostic::new("out-of-memory", format!("no memory for random data of {ty}"));
        bytes.try_reserve_exact(dtype.bytes(count).unwrap_or(0)).map_err(no_room)?;
        let mut push = |b: &[u8]| bytes.extend_from_slice(b);
        if dtype.is_block() {
            let (per, size) = dtype.block();
            for _ in 0..count / per {
                (0..size).for_each(|_| push(&[(self.next() >> 32) as u8]));
            }
            small_scales(dtype, size, &mut bytes);
            return Array::new(dtype, shape, Bytes::new(bytes));
        }
        for _ in 0..count {
            let x = self.unit();
            match dtype {
                DType::F64 => push(&x.to_le_bytes()),
                DType::F32 => push(&(x as f32).to_le_bytes()),
                DType::F16 => push(&half::f16::from_f64(x).to_le_bytes()),
                DType::Bf16 => push(&half::bf16::from_f64(x).to_le_bytes()),
                DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 | DType::U32 | DType::I64 | DType::U64 => {
                    push(&self.integer(dtype, limit).to_le_bytes()[..dtype.block().1])
                }
                DType::Bool => push(&[u8::from(x > 0.0)]),
                DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => {
                    return Err(Diagnostic::bug("a block encoding is no plain number"));
                }
            }
        }
        Array::new(dtype, shape, Bytes::new(bytes))
    }

    /// Like `a`, each float by at most `relative` of itself larger or smaller.
    ///
    /// Errors: `out-of-memory`.
    pub fn near(&mut self, a: &Array, relative: f64) -> Result<Array, Diagnostic> {
        let values = a.to_f64().filter(|_| a.dtype().is_float());
        let Some(values) = values else { return Ok(a.clone()) };
        let mut bytes = Vec::new();
        let no_room = |_| Diagnostic::new("out-of-memory", format!("no memory to move {}{:?}", a.dtype(), a.shape()));
        bytes.try_reserve_exact(a.bytes().len()).map_err(no_room)?;
        for x in values {
            let x = x * (1.0 + relative * self.unit());
            match a.dtype() {
                DType::F16 => bytes.extend_from_slice(&half::f16::from_f64(x).to_le_bytes()),
                DType::Bf16 => bytes.extend_from_slice(&half::bf16::from_f64(x).to_le_bytes()),
                DType::F32 => bytes.extend_from_slice(&(x as f32).to_le_bytes()),
                _f64 => bytes.extend_from_slice(&x.to_le_bytes()),
            }
        }
        Array::new(a.dtype(), a.shape(), Bytes::new(bytes))
    }
}

/// Replaces the f16 scales of blocks of `size` bytes: random bits would be NaN or huge.
fn small_scales(dtype: DType, size: usize, bytes: &mut [u8]) {
    let places: &[usize] = match dtype {
        DType::Q4_1 | DType::Q4K => &[0, 2],
        DType::Q6K => &[208],
        _one => &[0],
    };
    for block in bytes.chunks_exact_mut(size) {
        for &at in places {
            let spread = f32::from(block[at]) / 255.0 - 0.5;
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(spread * 0.2).to_le_bytes());
        }
    }
}
