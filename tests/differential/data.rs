//! Contents of parameters.

use super::bound::Bound;
use crate::random::Random;
use half::{bf16, f16};
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::types::{Bindings, DType, Dim, Type};

/// What a parameter holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Quarters from -2 to 2.
    Lattice,
    /// Any floats from -2 to 2.
    Real,
    /// Integers from -3 to 3, or 0 to 3.
    Small,
    /// Any bits, the ends of the range often.
    Bits,
    /// Truth values.
    Truth,
    /// Integers from 0 to below a size.
    Below(Dim),
    /// A block encoding of quarters.
    Block,
}

/// The largest magnitude of a dtype's integers. Above 2^63, u64 is not kept as a number by the kernel interpreter.
pub fn largest(dtype: DType) -> f64 {
    let bits = 8 * dtype.block().1 as i32;
    f64::from(if dtype.is_signed() || dtype == DType::U64 { bits - 1 } else { bits }).exp2()
}

impl Fill {
    /// What is known of such contents.
    pub fn bound(&self, dtype: DType, high: &dyn Fn(&Dim) -> usize) -> Bound {
        match self {
            Fill::Lattice => Bound::lattice(2.0, -2),
            Fill::Real => Bound::real(2.0),
            Fill::Small => Bound::integer(3.0),
            Fill::Bits => Bound::integer(2.0 * largest(dtype)),
            Fill::Truth => Bound::truth(),
            Fill::Below(d) => Bound::integer(high(d) as f64),
            // Scales up to 3/4, numbers below 16, minima down to -3/4; scales up to 1/4, numbers down to -32.
            Fill::Block if matches!(dtype, DType::Q4K | DType::Q6K) => Bound::lattice(11.25, -2),
            // Scales of 1/4, numbers below 16, a minimum of 1/4.
            Fill::Block => Bound::lattice(4.5, -2),
        }
    }

    /// An array of type `ty`.
    pub fn array(&self, ty: &Type, bindings: &Bindings, random: &mut Random, special: bool) -> Result<Array, String> {
        let shape = ty.concrete(bindings)?;
        let count = element_count(&shape).ok_or("too large")?;
        let bytes = match self {
            Fill::Block => blocks(ty.dtype, count / ty.dtype.block().0, random),
            Fill::Bits => (0..count).flat_map(|_| bits(ty.dtype, random)).collect(),
            Fill::Lattice if special => (0..count).flat_map(|_| number(ty.dtype, special_value(random))).collect(),
            Fill::Lattice => (0..count).flat_map(|_| number(ty.dtype, quarter(random))).collect(),
            Fill::Real => (0..count).flat_map(|_| number(ty.dtype, random.unit() * 4.0 - 2.0)).collect(),
            Fill::Small if ty.dtype.is_unsigned() => {
                (0..count).flat_map(|_| number(ty.dtype, random.below(4) as f64)).collect()
            }
            Fill::Small => (0..count).flat_map(|_| number(ty.dtype, random.below(7) as f64 - 3.0)).collect(),
            Fill::Truth => (0..count).map(|_| random.below(2) as u8).collect(),
            Fill::Below(d) => {
                let size = usize::try_from(d.eval(bindings)?).map_err(|_| "negative")?;
                (0..count).flat_map(|_| number(ty.dtype, random.below(size) as f64)).collect()
            }
        };
        Array::new(ty.dtype, &shape, Bytes::new(bytes)).map_err(|d| d.to_string())
    }
}

fn quarter(random: &mut Random) -> f64 {
    (random.below(17) as f64 - 8.0) / 4.0
}

fn special_value(random: &mut Random) -> f64 {
    match random.below(16) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => -0.0,
        _finite => quarter(random),
    }
}

/// The bytes of a number that the dtype holds, or the nearest to it.
fn number(dtype: DType, x: f64) -> Vec<u8> {
    match dtype {
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        integer => (x as i64).to_le_bytes()[..integer.block().1].to_vec(),
    }
}

fn bits(dtype: DType, random: &mut Random) -> Vec<u8> {
    let size = dtype.block().1;
    let ends: [u64; 4] = [0, u64::MAX, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1];
    let value = if random.below(3) == 0 { ends[random.below(4)] } else { random.next() };
    value.to_le_bytes()[..size].to_vec()
}

/// Blocks whose values are small multiples of 1/4: scales of 1/4, for q8_0 numbers from -16 to 15, for q4_K times 0 to 3 in
/// each run, for q6_K times -1 to 1.
fn blocks(dtype: DType, count: usize, random: &mut Random) -> Vec<u8> {
    let quarter = f16::from_f32(0.25).to_le_bytes();
    let mut bytes = Vec::new();
    for _ in 0..count {
        let mut random_bytes = |n: usize, mask: u8| (0..n).map(|_| random.next() as u8 & mask).collect::<Vec<u8>>();
        match dtype {
            DType::Q6K => {
                bytes.extend(random_bytes(192, 0xff));
                bytes.extend(random_bytes(16, 0xff).iter().map(|x| (x % 3).wrapping_sub(1)));
                bytes.extend(quarter);
            }
            DType::Q4K => {
                bytes.extend([quarter, quarter].concat());
                bytes.extend(random_bytes(8, 0x03));
                bytes.extend(random_bytes(4, 0x33));
                bytes.extend(random_bytes(128, 0xff));
            }
            DType::Q8_0 => {
                bytes.extend(quarter);
                bytes.extend(random_bytes(32, 0x1f).iter().map(|x| x.wrapping_sub(16)));
            }
            DType::Q4_1 => {
                bytes.extend([quarter, quarter].concat());
                bytes.extend(random_bytes(16, 0xff));
            }
            _ => {
                bytes.extend(quarter);
                bytes.extend(random_bytes(16, 0xff));
            }
        }
    }
    bytes
}

/// Floats with a last bit more or less, or as they are; infinities, NaN and zeros stay.
pub fn moved(x: &Array, random: &mut Random) -> Result<Array, String> {
    let dtype = x.dtype();
    let Some(values) = x.to_f64().filter(|_| dtype.is_float()) else { return Ok(x.clone()) };
    let step = super::bound::epsilon(dtype);
    let bytes = values.into_iter().flat_map(|x| number(dtype, x * (1.0 + step * (random.below(3) as f64 - 1.0))));
    Array::new(dtype, x.shape(), Bytes::new(bytes.collect::<Vec<u8>>())).map_err(|d| d.to_string())
}
