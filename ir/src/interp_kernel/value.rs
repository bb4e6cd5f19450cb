//! Tiles, memories and what names stand for.

use super::{failed, unsupported};
use crate::array::Array;
use crate::diag::Diagnostic;
use crate::kernel::expr::{Expr, Ident};
use crate::types::DType;
use std::sync::Arc;

/// What integers are before they are written: no index, no size.
const POISON: i64 = i64::MIN + 12345;

/// Elements by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Any float dtype, without rounding.
    Float(Vec<f64>),
    /// Any integer dtype.
    Int(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    Float(f64),
    Int(i64),
    Bool(bool),
}

impl Scalar {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Scalar::Float(_) => "float",
            Scalar::Int(_) => "integer",
            Scalar::Bool(_) => "bool",
        }
    }
}

impl Data {
    /// Unwritten elements of `dtype`. Errors: `kernel-unsupported` for block encodings.
    pub(super) fn unwritten(dtype: DType, count: usize) -> Result<Data, Diagnostic> {
        if dtype.is_block() {
            return Err(unsupported(format!("scratch of dtype {dtype}")));
        }
        Ok(match dtype {
            DType::Bool => Data::Bool(vec![true; count]),
            d if d.is_float() => Data::Float(vec![f64::NAN; count]),
            _ => Data::Int(vec![POISON; count]),
        })
    }

    /// As many elements, all unwritten.
    pub(super) fn poisoned(&self) -> Data {
        match self {
            Data::Float(v) => Data::Float(vec![f64::NAN; v.len()]),
            Data::Int(v) => Data::Int(vec![POISON; v.len()]),
            Data::Bool(v) => Data::Bool(vec![true; v.len()]),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Bool(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Data::Float(_) => "float",
            Data::Int(_) => "integer",
            Data::Bool(_) => "bool",
        }
    }

    /// Whether elements of `dtype` are kept like this; block encodings as the values that they stand for.
    pub(super) fn fits(&self, dtype: DType) -> bool {
        match self {
            Data::Float(_) => dtype.is_float() || dtype.is_block(),
            Data::Int(_) => dtype.is_int(),
            Data::Bool(_) => dtype == DType::Bool,
        }
    }

    pub(super) fn get(&self, i: usize) -> Option<Scalar> {
        match self {
            Data::Float(v) => v.get(i).map(|x| Scalar::Float(*x)),
            Data::Int(v) => v.get(i).map(|x| Scalar::Int(*x)),
            Data::Bool(v) => v.get(i).map(|x| Scalar::Bool(*x)),
        }
    }

    /// The element that a masked place without pad reads.
    pub(super) fn poison(&self) -> Scalar {
        match self {
            Data::Float(_) => Scalar::Float(f64::NAN),
            Data::Int(_) => Scalar::Int(POISON),
            Data::Bool(_) => Scalar::Bool(true),
        }
    }

    /// `value` as an element of this kind: integers become floats, nothing else converts.
    pub(super) fn convert(&self, value: Scalar) -> Result<Scalar, Diagnostic> {
        match (self, value) {
            (Data::Float(_), Scalar::Int(x)) => Ok(Scalar::Float(x as f64)),
            (Data::Float(_), Scalar::Float(_)) | (Data::Int(_), Scalar::Int(_)) | (Data::Bool(_), Scalar::Bool(_)) => {
                Ok(value)
            }
            (Data::Float(_) | Data::Int(_) | Data::Bool(_), Scalar::Float(_) | Scalar::Int(_) | Scalar::Bool(_)) => {
                Err(failed(format!("a {} element cannot be kept as {}", value.kind(), self.kind())))
            }
        }
    }

    pub(super) fn set(&mut self, i: usize, value: Scalar) -> Result<(), Diagnostic> {
        let value = self.convert(value)?;
        let done = match (self, value) {
            (Data::Float(v), Scalar::Float(x)) => v.get_mut(i).map(|p| *p = x),
            (Data::Int(v), Scalar::Int(x)) => v.get_mut(i).map(|p| *p = x),
            (Data::Bool(v), Scalar::Bool(x)) => v.get_mut(i).map(|p| *p = x),
            (Data::Float(_) | Data::Int(_) | Data::Bool(_), _) => None,
        };
        done.ok_or_else(|| Diagnostic::bug("an element outside its tile"))
    }

    /// Elements of one kind; integers among floats become floats.
    pub(super) fn collect(items: Vec<Scalar>) -> Result<Data, Diagnostic> {
        let floats = items.iter().any(|s| matches!(s, Scalar::Float(_)));
        let empty = match items.first() {
            Some(Scalar::Bool(_)) => Data::Bool(vec![false; items.len()]),
            Some(Scalar::Int(_)) if !floats => Data::Int(vec![0; items.len()]),
            Some(Scalar::Int(_) | Scalar::Float(_)) | None => Data::Float(vec![0.0; items.len()]),
        };
        items.into_iter().enumerate().try_fold(empty, |mut data, (i, s)| {
            data.set(i, s)?;
            Ok(data)
        })
    }
}

/// An argument: sizes and elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, major to minor.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Data,
}

impl Tensor {
    /// A float tensor.
    pub fn float(shape: &[usize], data: Vec<f64>) -> Tensor {
        Tensor { shape: shape.to_vec(), data: Data::Float(data) }
    }

    /// An integer tensor.
    pub fn int(shape: &[usize], data: Vec<i64>) -> Tensor {
        Tensor { shape: shape.to_vec(), data: Data::Int(data) }
    }

    /// The elements of an array; those of block encodings are what they decode to. Errors: `kernel-unsupported` for
    /// dtypes without numbers.
    pub fn from_array(array: &Array) -> Result<Tensor, Diagnostic> {
        let dtype = array.dtype();
        if dtype.is_block() {
            let data = crate::blocks::dequantised_values(array)?.into_iter().map(f64::from).collect();
            return Ok(Tensor { shape: array.shape().to_vec(), data: Data::Float(data) });
        }
        let values = array.to_f64().ok_or_else(|| unsupported(format!("arguments of dtype {dtype}")))?;
        let data = match dtype {
            DType::Bool => Data::Bool(values.iter().map(|x| *x != 0.0).collect()),
            d if d.is_float() => Data::Float(values),
            DType::I64 | DType::U64 => {
                Data::Int(array.bytes().as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect())
            }
            _ => Data::Int(values.iter().map(|x| *x as i64).collect()),
        };
        Ok(Tensor { shape: array.shape().to_vec(), data })
    }

    /// The elements if they are floats.
    pub fn floats(&self) -> Option<&[f64]> {
        match &self.data {
            Data::Float(v) => Some(v),
            Data::Int(_) | Data::Bool(_) => None,
        }
    }
}

/// Named axes with sizes, major to minor.
pub(super) type Axes = Vec<(Ident, usize)>;

/// Number of elements; errors beyond the budget.
pub(super) fn count(axes: &Axes) -> Result<usize, Diagnostic> {
    let n = axes.iter().try_fold(1usize, |n, a| n.checked_mul(a.1)).filter(|n| *n <= 1 << 28);
    n.ok_or_else(|| failed("a tile or buffer of more than 2^28 elements"))
}

/// An immutable tile.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub axes: Axes,
    pub data: Data,
}

/// Row-major strides of `axes` for walking `over`: 0 for axes that the tile lacks.
pub(super) fn strides(axes: &Axes, over: &Axes) -> Vec<usize> {
    let stride = |name: &Ident| {
        let at = axes.iter().position(|a| a.0 == *name)?;
        Some(axes[at + 1..].iter().map(|a| a.1).product())
    };
    over.iter().map(|a| stride(&a.0).unwrap_or(0)).collect()
}

/// Calls `f` with the offset in every operand at every place of `over`, in row-major order.
pub(super) fn walk<const N: usize>(
    over: &Axes,
    operands: [Vec<usize>; N],
    mut f: impl FnMut([usize; N]) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    if over.iter().any(|a| a.1 == 0) {
        return Ok(());
    }
    let mut at = vec![0usize; over.len()];
    let mut offsets = [0usize; N];
    loop {
        f(offsets)?;
        let mut axis = over.len();
        loop {
            if axis == 0 {
                return Ok(());
            }
            axis -= 1;
            at[axis] += 1;
            for (o, s) in offsets.iter_mut().zip(&operands) {
                *o += s[axis];
            }
            if at[axis] < over[axis].1 {
                break;
            }
            for (o, s) in offsets.iter_mut().zip(&operands) {
                *o -= s[axis] * at[axis];
            }
            at[axis] = 0;
        }
    }
}

impl Tile {
    pub(super) fn scalar(value: Scalar) -> Tile {
        let data = match value {
            Scalar::Float(x) => Data::Float(vec![x]),
            Scalar::Int(x) => Data::Int(vec![x]),
            Scalar::Bool(x) => Data::Bool(vec![x]),
        };
        Tile { axes: Vec::new(), data }
    }

    pub(super) fn get(&self, i: usize) -> Result<Scalar, Diagnostic> {
        self.data.get(i).ok_or_else(|| Diagnostic::bug("an element outside its tile"))
    }
}

/// The axes of a result of tiles: all of theirs, in order of appearance. Errors: sizes that differ.
pub(super) fn joined<'a>(tiles: impl IntoIterator<Item = &'a Axes>) -> Result<Axes, Diagnostic> {
    let mut all = Axes::new();
    for (name, size) in tiles.into_iter().flatten() {
        match all.iter().find(|a| a.0 == *name) {
            Some(a) if a.1 != *size => {
                return Err(failed(format!("axis `{name}` has sizes {} and {size} in one expression", a.1)));
            }
            Some(_) => {}
            None => all.push((name.clone(), *size)),
        }
    }
    Ok(all)
}

/// A buffer.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub axes: Axes,
    pub data: Data,
    pub read_only: bool,
}

/// A view of a buffer.
#[derive(Clone, Debug)]
pub(super) struct ViewValue {
    pub axes: Axes,
    pub memory: usize,
    pub dims: Vec<(Expr, bool)>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(i64),
    Tile(Arc<Tile>),
    Memory(usize),
    Pipe(usize),
    View(Arc<ViewValue>),
}
