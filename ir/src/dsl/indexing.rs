//! Places chosen by values.

use super::{Shape, Tensor};
use crate::op::GraphOp;

impl Tensor {
    /// `axis` is replaced by the shape of the integer tensor `ids`, whose elements choose positions along it.
    #[track_caller]
    pub fn take(&self, ids: &Tensor, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::Take { axis }, &[ids])
    }

    /// `result[..i..] = self[..ids[..i..]..]` along `axis`; `ids` has the same rank.
    #[track_caller]
    pub fn take_along(&self, ids: &Tensor, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::TakeAlong { axis }, &[ids])
    }

    /// This tensor with `source` added at `ids` along `axis`.
    #[track_caller]
    pub fn scatter_add(&self, ids: &Tensor, source: &Tensor, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::ScatterAdd { axis }, &[ids, source])
    }

    /// This tensor with the box at `start` replaced by `update`.
    #[track_caller]
    pub fn update_slice(&self, update: &Tensor, start: impl Shape) -> Tensor {
        self.emit(GraphOp::UpdateSlice { start: start.dims() }, &[update])
    }

    /// Rows of this table `[rows, width]` in f32, chosen by `ids`; only the chosen rows of a block encoding are
    /// dequantised.
    #[track_caller]
    pub fn embedding(&self, ids: &Tensor) -> Tensor {
        let rows = self.take(ids, 0);
        if rows.dtype().is_block() { rows.cast(crate::types::DType::F32) } else { rows }
    }
}
