//! Concrete tensors on the host: dtype, shape, row-major bytes that may be shared or memory-mapped.

use crate::diag::Diagnostic;
use crate::types::DType;
use half::{bf16, f16};
use std::fmt;
use std::sync::Arc;

/// A shared, read-only range of bytes: owned, or part of a memory-mapped file.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    len: usize,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        let len = owner.as_ref().len();
        Bytes { owner: Arc::new(owner), start: 0, len }
    }

    /// The range `start..start + len` of the same owner, or `None` if it does not lie inside.
    pub fn slice(&self, start: usize, len: usize) -> Option<Bytes> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Bytes { owner: self.owner.clone(), start: self.start + start, len })
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.len)
    }
}

/// A tensor with known sizes. Elements are row-major and little-endian; bool is one byte, 0 or 1; block encodings keep
/// the bytes of their format.
#[derive(Clone, Debug)]
pub struct Array {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// Equal dtype, shape and bytes.
impl PartialEq for Array {
    fn eq(&self, other: &Array) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes[..] == other.bytes[..]
    }
}

/// `x` with few enough bits that rounding it to a half float is right, as if `x` were rounded once: what is lost leaves the
/// last bit odd ("round to odd").
pub fn round_to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() {
        return near;
    }
    let toward_zero = if f64::from(near).abs() > x.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(toward_zero | 1)
}

/// Number of elements of `shape`, or `None` on overflow.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// From how many bytes on [`room`] looks.
const LARGE: usize = 64 << 20;

/// Whether `bytes` can be allocated now. An allocation that fails ends the process: code that makes large values without
/// asking for each of them asks here first.
///
/// Errors: `out-of-memory`.
pub fn room(bytes: usize) -> Result<(), Diagnostic> {
    if bytes < LARGE {
        return Ok(());
    }
    let mut tried: Vec<u8> = Vec::new();
    let found = tried.try_reserve_exact(bytes);
    // An allocation that nobody looks at may be left out.
    std::hint::black_box(&mut tried);
    found.map_err(|_| Diagnostic::new("out-of-memory", format!("cannot allocate {bytes} bytes")))
}

impl Array {
    /// Wraps bytes. Errors: `array-size` if the bytes are not exactly those of `dtype` and `shape`.
    pub fn new(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Array, Diagnostic> {
        let want = element_count(shape).and_then(|n| dtype.bytes(n));
        let rows_fill_blocks = dtype.block().0 == 1 || shape.last().is_some_and(|d| d % dtype.block().0 == 0);
        if want != Some(bytes.len()) || !rows_fill_blocks {
            let want = want.map_or("a size that overflows".into(), |n| format!("{n} bytes"));
            let found = bytes.len();
            return Err(Diagnostic::new("array-size", format!("{dtype}{shape:?} needs {want}, found {found} bytes")));
        }
        Ok(Array { dtype, shape: shape.to_vec(), bytes })
    }

    /// An f32 array. Errors: `array-size`.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Result<Array, Diagnostic> {
        Array::new(DType::F32, shape, Bytes::new(data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
    }

    /// An f64 array. Errors: `array-size`.
    pub fn from_f64(shape: &[usize], data: &[f64]) -> Result<Array, Diagnostic> {
        Array::new(DType::F64, shape, Bytes::new(data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
    }

    /// A scalar float of any plain dtype, rounded to it once. Errors: `dtype-mismatch` for others.
    pub fn from_number(dtype: DType, x: f64) -> Result<Array, Diagnostic> {
        let bytes = match dtype {
            DType::F64 => x.to_le_bytes().to_vec(),
            DType::F32 => (x as f32).to_le_bytes().to_vec(),
            DType::F16 => f16::from_f32(round_to_odd(x)).to_le_bytes().to_vec(),
            DType::Bf16 => bf16::from_f32(round_to_odd(x)).to_le_bytes().to_vec(),
            other => return Err(Diagnostic::new("dtype-mismatch", format!("expected a float dtype, found {other}"))),
        };
        Array::new(dtype, &[], Bytes::new(bytes))
    }

    /// An i64 array. Errors: `array-size`.
    pub fn from_i64(shape: &[usize], data: &[i64]) -> Result<Array, Diagnostic> {
        Array::new(DType::I64, shape, Bytes::new(data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
    }

    /// A bool array. Errors: `array-size`.
    pub fn from_bool(shape: &[usize], data: &[bool]) -> Result<Array, Diagnostic> {
        Array::new(DType::Bool, shape, Bytes::new(data.iter().map(|&x| u8::from(x)).collect::<Vec<u8>>()))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes, major to minor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row-major little-endian bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Every element as f64 (integers beyond 2^53 round; bool gives 0 or 1). `None` for block encodings.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|c| read(*c)).collect()
        }
        let b: &[u8] = &self.bytes;
        Some(match self.dtype {
            DType::F64 => each(b, f64::from_le_bytes),
            DType::F32 => each(b, |c| f32::from_le_bytes(c).into()),
            DType::F16 => each(b, |c| f16::from_le_bytes(c).into()),
            DType::Bf16 => each(b, |c| bf16::from_le_bytes(c).into()),
            DType::I8 => each(b, |c| i8::from_le_bytes(c).into()),
            DType::U8 | DType::Bool => each(b, |c| u8::from_le_bytes(c).into()),
            DType::I16 => each(b, |c| i16::from_le_bytes(c).into()),
            DType::U16 => each(b, |c| u16::from_le_bytes(c).into()),
            DType::I32 => each(b, |c| i32::from_le_bytes(c).into()),
            DType::U32 => each(b, |c| u32::from_le_bytes(c).into()),
            DType::I64 => each(b, |c| i64::from_le_bytes(c) as f64),
            DType::U64 => each(b, |c| u64::from_le_bytes(c) as f64),
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => return None,
        })
    }

    /// Every element as f32; see [`Array::to_f64`].
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        self.to_f64().map(|v| v.into_iter().map(|x| x as f32).collect())
    }
}
