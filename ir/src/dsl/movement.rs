//! Shapes: reshape, permute, slice, pad, join.

use super::{Operand, Shape, Tensor};
use crate::diag::Diagnostic;
use crate::op::GraphOp;
use crate::types::Dim;

impl Tensor {
    /// The same elements in row-major order under another shape; one size may be -1, which stands for what is left.
    #[track_caller]
    pub fn reshape(&self, shape: impl Shape) -> Tensor {
        let mut shape = shape.dims();
        if self.is_poisoned() || shape == self.shape() {
            return self.clone();
        }
        if let Some(at) = shape.iter().position(|d| d.is(-1)) {
            shape[at] = Dim::constant(1);
            let rest = shape.iter().try_fold(Dim::constant(1), |n, d| n.checked_mul(d));
            let size = self.ty().elements().zip(rest).and_then(|(n, rest)| n.div_exact(&rest));
            match size {
                Some(size) => shape[at] = size,
                None => {
                    let message = format!("`reshape` of {}: the elements do not divide by the other sizes", self.ty());
                    return self.mistake(Diagnostic::new("shape-mismatch", message), &[self]);
                }
            }
        }
        self.emit(GraphOp::Reshape { shape }, &[])
    }

    /// Result axis i is axis `perm[i]` here.
    #[track_caller]
    pub fn permute(&self, perm: &[i64]) -> Tensor {
        let mut out = Vec::with_capacity(perm.len());
        for &a in perm {
            match self.axis(a) {
                Some(a) => out.push(a),
                None => return self.poisoned(),
            }
        }
        if out.iter().copied().eq(0..self.rank()) {
            return self.clone();
        }
        self.emit(GraphOp::Transpose { perm: out }, &[])
    }

    /// Swaps two axes.
    #[track_caller]
    pub fn transpose(&self, a: i64, b: i64) -> Tensor {
        let (Some(a), Some(b)) = (self.axis(a), self.axis(b)) else { return self.poisoned() };
        let mut perm: Vec<usize> = (0..self.rank()).collect();
        perm.swap(a, b);
        self.emit(GraphOp::Transpose { perm }, &[])
    }

    /// A new axis of size 1 at `axis` of the result.
    #[track_caller]
    pub fn unsqueeze(&self, axis: i64) -> Tensor {
        let Some(axis) = self.axis_below(axis, self.rank() + 1) else { return self.poisoned() };
        let mut shape = self.shape().to_vec();
        shape.insert(axis, Dim::constant(1));
        self.reshape(shape)
    }

    /// Without `axis`, whose size must be 1.
    #[track_caller]
    pub fn squeeze(&self, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        let mut shape = self.shape().to_vec();
        let size = shape.remove(axis);
        if !size.is(1) {
            let message = format!("`squeeze` of axis {axis} of {}, whose size is {size} and not 1", self.ty());
            return self.mistake(Diagnostic::new("shape-mismatch", message), &[self]);
        }
        self.reshape(shape)
    }

    /// Elements `start..limit` of `axis`.
    #[track_caller]
    pub fn slice(&self, axis: i64, start: impl Into<Dim>, limit: impl Into<Dim>) -> Tensor {
        self.slice_by(axis, start, limit, 1)
    }

    /// Elements `start`, `start + stride`, ... below `limit` of `axis`.
    #[track_caller]
    pub fn slice_by(&self, axis: i64, start: impl Into<Dim>, limit: impl Into<Dim>, stride: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        let mut starts = vec![Dim::constant(0); self.rank()];
        let mut limits = self.shape().to_vec();
        let mut strides = vec![1; self.rank()];
        (starts[axis], limits[axis], strides[axis]) = (start.into(), limit.into(), stride);
        self.emit(GraphOp::Slice { start: starts, limit: limits, stride: strides }, &[])
    }

    /// `length` elements of `axis` from `start`.
    #[track_caller]
    pub fn narrow(&self, axis: i64, start: impl Into<Dim>, length: impl Into<Dim>) -> Tensor {
        let start = start.into();
        match start.checked_add(&length.into()) {
            Some(limit) => self.slice(axis, start, limit),
            None => self.mistake(Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"), &[self]),
        }
    }

    /// `low` elements before and `high` after `axis`, all `value`.
    #[track_caller]
    pub fn pad(&self, axis: i64, low: impl Into<Dim>, high: impl Into<Dim>, value: impl Operand) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        let mut amounts = vec![(Dim::constant(0), Dim::constant(0)); self.rank()];
        amounts[axis] = (low.into(), high.into());
        let value = value.resolve(&self.graph, self.dtype());
        self.emit(GraphOp::Pad { amounts }, &[&value])
    }

    /// Reverses `axes`.
    #[track_caller]
    pub fn flip(&self, axes: &[i64]) -> Tensor {
        let Some(axes) = self.axes(axes) else { return self.poisoned() };
        self.emit(GraphOp::Flip { axes }, &[])
    }

    /// Joined with `other` along `axis`.
    #[track_caller]
    pub fn concat(&self, other: &Tensor, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::Concat { axis }, &[other])
    }
}

/// Joins one or more tensors along `axis`; `None` of none.
#[track_caller]
pub fn concat(tensors: &[&Tensor], axis: i64) -> Option<Tensor> {
    let (first, rest) = tensors.split_first()?;
    let Some(axis) = first.axis(axis) else { return Some(first.poisoned()) };
    Some(first.emit(GraphOp::Concat { axis }, rest))
}

/// Joins one or more tensors of one shape along a new `axis`; `None` of none.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: i64) -> Option<Tensor> {
    let mut wide = Vec::with_capacity(tensors.len());
    for t in tensors {
        wide.push(t.unsqueeze(axis));
    }
    concat(&wide.iter().collect::<Vec<_>>(), axis)
}
