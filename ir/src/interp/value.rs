//! Values at run time, and rounding to dtypes.

use crate::array::{Array, Bytes, element_count, room};
use crate::blocks;
use crate::diag::Diagnostic;
use crate::types::{DType, Dim, Type};
use half::{bf16, f16};
use std::sync::Arc;

/// Largest value that is allocated, in bytes.
const MAX_BYTES: usize = 4 << 30;

/// Elements in row-major order.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Any float dtype.
    Float(Vec<f64>),
    /// Any integer dtype, sign- or zero-extended; u64 as its bits.
    Int(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// A block encoding, as stored.
    Block(Bytes),
}

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) data: Arc<Data>,
}

/// The same expression over the elements of any plain data, wrapped in the same variant.
macro_rules! plain_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::Float($v) => Ok(Data::Float($body)),
            Data::Int($v) => Ok(Data::Int($body)),
            Data::Bool($v) => Ok(Data::Bool($body)),
            Data::Block(_) => Err(Diagnostic::bug("a block encoding was moved element by element")),
        }
    };
}
pub(super) use plain_data;

/// Number of elements and bytes of a value that is not above the limit. Errors: `too-large`.
pub(super) fn small(dtype: DType, shape: &[usize]) -> Result<(usize, usize), Diagnostic> {
    let size = if dtype == DType::Bool { 1 } else { 8 };
    let bytes = |n: usize| n.checked_mul(size).filter(|b| *b <= MAX_BYTES);
    element_count(shape).and_then(|n| Some((n, bytes(n)?))).ok_or_else(|| {
        let what = format!("a value {dtype}{shape:?}");
        Diagnostic::new(
            "too-large",
            format!("{what} takes more than the {MAX_BYTES} bytes that the interpreter allows"),
        )
    })
}

/// Number of elements of a value that may be allocated. Errors: `too-large`; `out-of-memory` where there is no room for it
/// and for what it is made of meanwhile.
pub(super) fn allowed(dtype: DType, shape: &[usize]) -> Result<usize, Diagnostic> {
    let (n, bytes) = small(dtype, shape)?;
    room(2 * bytes)?;
    Ok(n)
}

impl Tensor {
    pub(super) fn new(dtype: DType, shape: Vec<usize>, data: Data) -> Tensor {
        Tensor { dtype, shape, data: Arc::new(data) }
    }

    /// The type with known sizes.
    pub(super) fn ty(&self) -> Type {
        Type { dtype: self.dtype, shape: self.shape.iter().map(|&n| Dim::from(n)).collect() }
    }

    /// Widens an array. Errors: `too-large`.
    pub(super) fn from_array(a: &Array) -> Result<Tensor, Diagnostic> {
        if !a.dtype().is_block() {
            allowed(a.dtype(), a.shape())?;
        }
        fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> i64) -> Data {
            Data::Int(bytes.as_chunks::<N>().0.iter().map(|c| read(*c)).collect())
        }
        let b: &[u8] = a.bytes();
        let data = match a.dtype() {
            DType::F64 | DType::F32 | DType::F16 | DType::Bf16 => {
                Data::Float(a.to_f64().ok_or_else(|| Diagnostic::bug("a float array has no values"))?)
            }
            DType::I8 => each(b, |c| i8::from_le_bytes(c).into()),
            DType::U8 => each(b, |c| u8::from_le_bytes(c).into()),
            DType::I16 => each(b, |c| i16::from_le_bytes(c).into()),
            DType::U16 => each(b, |c| u16::from_le_bytes(c).into()),
            DType::I32 => each(b, |c| i32::from_le_bytes(c).into()),
            DType::U32 => each(b, |c| u32::from_le_bytes(c).into()),
            DType::I64 | DType::U64 => each(b, i64::from_le_bytes),
            DType::Bool => Data::Bool(b.iter().map(|&x| x != 0).collect()),
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => Data::Block(a.bytes().clone()),
        };
        Ok(Tensor::new(a.dtype(), a.shape().to_vec(), data))
    }

    /// Rounds to the dtype. Errors: `out-of-memory`.
    pub(super) fn to_array(&self) -> Result<Array, Diagnostic> {
        room(element_count(&self.shape).and_then(|n| self.dtype.bytes(n)).unwrap_or(0))?;
        fn bytes<T, const N: usize>(values: &[T], write: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(write).collect()
        }
        let out = match (&*self.data, self.dtype) {
            (Data::Block(b), _) => return Array::new(self.dtype, &self.shape, b.clone()),
            (Data::Bool(v), _) => v.iter().map(|&x| u8::from(x)).collect(),
            (Data::Float(v), DType::F32) => bytes(v, |&x| (x as f32).to_le_bytes()),
            (Data::Float(v), DType::F16) => bytes(v, |&x| f16::from_f64(round(DType::F16, x)).to_le_bytes()),
            (Data::Float(v), DType::Bf16) => bytes(v, |&x| bf16::from_f64(round(DType::Bf16, x)).to_le_bytes()),
            (Data::Float(v), _) => bytes(v, |x| x.to_le_bytes()),
            (Data::Int(v), d) => match d.block().1 {
                1 => bytes(v, |&x| (x as u8).to_le_bytes()),
                2 => bytes(v, |&x| (x as u16).to_le_bytes()),
                4 => bytes(v, |&x| (x as u32).to_le_bytes()),
                _ => bytes(v, |x| x.to_le_bytes()),
            },
        };
        Array::new(self.dtype, &self.shape, Bytes::new(out))
    }

    /// Elements of a float.
    pub(super) fn floats(&self) -> Result<&[f64], Diagnostic> {
        if let Data::Float(v) = &*self.data { Ok(v) } else { Err(mixed("float", self.dtype)) }
    }

    /// Elements of an integer.
    pub(super) fn ints(&self) -> Result<&[i64], Diagnostic> {
        if let Data::Int(v) = &*self.data { Ok(v) } else { Err(mixed("integer", self.dtype)) }
    }

    /// Elements of a bool.
    pub(super) fn bools(&self) -> Result<&[bool], Diagnostic> {
        if let Data::Bool(v) = &*self.data { Ok(v) } else { Err(mixed("bool", self.dtype)) }
    }

    /// Values of a block encoding. Errors: `too-large`.
    pub(super) fn dequantised(&self) -> Result<Vec<f64>, Diagnostic> {
        allowed(DType::F32, &self.shape)?;
        let values = blocks::dequantised_values(&self.to_array()?)?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}

fn mixed(want: &str, found: DType) -> Diagnostic {
    Diagnostic::bug(format!("the interpreter expected a {want} value, found {found}"))
}

/// `x` rounded to a float dtype, ties to even; overflow gives infinity.
pub(super) fn round(dtype: DType, x: f64) -> f64 {
    // Bits of precision, exponent of the smallest normal number, largest finite number.
    let (precision, smallest, largest) = if dtype == DType::F16 {
        (11, -14, 65504.0)
    } else if dtype == DType::Bf16 {
        (8, -126, f64::from(bf16::MAX.to_f32()))
    } else {
        return if dtype == DType::F32 { f64::from(x as f32) } else { x };
    };
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = libm::ilogb(x).max(smallest);
    // A power of two scales exactly, so that there is one rounding only.
    let unit = libm::ldexp(1.0, exponent - (precision - 1));
    let rounded = (x / unit).round_ties_even() * unit;
    if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
}

/// The low bits of `x` as an integer dtype holds them.
pub(super) fn wrap(dtype: DType, x: i128) -> i64 {
    let bits = 8 * dtype.block().1 as u32;
    let low = x as i64;
    let unused = 64u32.saturating_sub(bits);
    if dtype.is_signed() { (low << unused) >> unused } else { (((low as u64) << unused) >> unused) as i64 }
}

/// The integer that `x` stands for.
pub(super) fn wide(dtype: DType, x: i64) -> i128 {
    if dtype == DType::U64 { i128::from(x as u64) } else { i128::from(x) }
}

/// Row-major strides of `shape`, in elements.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i].saturating_mul(isize::try_from(shape[i]).unwrap_or(isize::MAX));
    }
    out
}

/// Visits `start + sum(index[i] * strides[i])` for every index of `shape` in row-major order.
pub(super) fn walk(shape: &[usize], strides: &[isize], start: isize, mut visit: impl FnMut(usize)) {
    if shape.contains(&0) {
        return;
    }
    let Some((&last, outer)) = shape.split_last() else { return visit(start as usize) };
    let step = strides[outer.len()];
    let mut index = vec![0usize; outer.len()];
    let mut row = start;
    loop {
        let mut at = row;
        for _ in 0..last {
            visit(at as usize);
            at += step;
        }
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            row += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            row -= strides[axis] * outer[axis] as isize;
            index[axis] = 0;
        }
    }
}
