//! Reductions, running sums, contractions.

use super::Tensor;
use crate::diag::Diagnostic;
use crate::op::{Axes, DotDims, GraphOp, ReduceKind};
use crate::types::Dim;

macro_rules! reductions {
    ($($(#[$doc:meta])+ $name:ident $keep:ident $Kind:ident;)*) => { impl Tensor { $(
        $(#[$doc])+
        #[track_caller]
        pub fn $name(&self, axes: &[i64]) -> Tensor {
            self.fold(ReduceKind::$Kind, axes, false)
        }
        #[doc = concat!("[`Tensor::", stringify!($name), "`], with the axes kept at size 1.")]
        #[track_caller]
        pub fn $keep(&self, axes: &[i64]) -> Tensor {
            self.fold(ReduceKind::$Kind, axes, true)
        }
    )* } };
}

reductions!(
    /// Sum over `axes`, which leave the shape.
    sum sum_keep Sum;
    /// Maximum over `axes`, which leave the shape; NaN wins.
    max max_keep Max;
    /// Minimum over `axes`, which leave the shape; NaN wins.
    min min_keep Min;
    /// Product over `axes`, which leave the shape.
    prod prod_keep Prod;
);

impl Tensor {
    /// Folds `axes`; `keep` leaves them with size 1.
    #[track_caller]
    pub fn fold(&self, kind: ReduceKind, axes: &[i64], keep: bool) -> Tensor {
        let Some(axes) = self.axes(axes) else { return self.poisoned() };
        let folded = self.emit(GraphOp::Reduce { kind, axes: axes.clone() }, &[]);
        if keep { folded.keep(self, &axes) } else { folded }
    }

    /// The same axis numbers without signs, sorted; `None` after a mistake.
    #[track_caller]
    pub(super) fn axes(&self, axes: &[i64]) -> Option<Axes> {
        let mut out = Vec::with_capacity(axes.len());
        for &a in axes {
            out.push(self.axis(a)?);
        }
        out.sort_unstable();
        Some(out)
    }

    /// Puts axes of size 1 where `axes` of `from` were folded.
    #[track_caller]
    pub(super) fn keep(&self, from: &Tensor, axes: &[usize]) -> Tensor {
        if self.is_poisoned() {
            return self.clone();
        }
        let one = |i: usize, d: &Dim| if axes.contains(&i) { Dim::constant(1) } else { d.clone() };
        self.reshape(from.shape().iter().enumerate().map(|(i, d)| one(i, d)).collect::<Vec<Dim>>())
    }

    /// Position of the first largest element along `axis`, as i64.
    #[track_caller]
    pub fn argmax(&self, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::Argmax { axis }, &[])
    }

    /// Position of the first smallest element along `axis`, as i64.
    #[track_caller]
    pub fn argmin(&self, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::Argmin { axis }, &[])
    }

    /// Running sum along `axis`, inclusive.
    #[track_caller]
    pub fn cumsum(&self, axis: i64) -> Tensor {
        let Some(axis) = self.axis(axis) else { return self.poisoned() };
        self.emit(GraphOp::Cumsum { axis }, &[])
    }

    /// Sum of products; see [`GraphOp::Dot`].
    #[track_caller]
    pub fn dot(&self, other: &Tensor, dims: DotDims) -> Tensor {
        self.emit(GraphOp::Dot { dims }, &[other])
    }

    /// The matrix product over the last axis of the left and the last but one of the right; leading axes broadcast; a
    /// vector is a row on the left and a column on the right. Errors: `shape-mismatch`, `dtype-mismatch`.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        if self.is_poisoned() || other.is_poisoned() {
            return self.poisoned();
        }
        let (m, n) = (self.rank(), other.rank());
        if m == 0 || n == 0 {
            let message = format!("`matmul` needs at least one axis, found {} and {}", self.ty(), other.ty());
            return self.mistake(Diagnostic::new("shape-mismatch", message), &[self, other]);
        }
        if n <= 2 {
            let contract = (vec![m - 1], vec![0]);
            return self.dot(other, DotDims { batch: (vec![], vec![]), contract });
        }
        if m == 1 {
            let row = self.unsqueeze(0).matmul(other);
            return row.squeeze(-2);
        }
        let (lead_a, lead_b) = (m - 2, n - 2);
        let lead = lead_a.max(lead_b);
        let mut shape = vec![Dim::constant(1); lead];
        for (t, own) in [(self, lead_a), (other, lead_b)] {
            for (i, d) in t.shape()[..own].iter().enumerate() {
                let at = lead - own + i;
                if shape[at].is(1) {
                    shape[at] = d.clone();
                }
            }
        }
        let full = |t: &Tensor| [&shape, &t.shape()[t.rank() - 2..]].concat();
        let (a, b) = (self.broadcast_to(full(self)), other.broadcast_to(full(other)));
        let batch: Axes = (0..lead).collect();
        a.dot(&b, DotDims { batch: (batch.clone(), batch), contract: (vec![lead + 1], vec![lead]) })
    }

    /// `x W^T` for a weight stored `[out, in]`: the last axis is contracted with axis 1 of the weight. A block-quantised
    /// weight is cast to this tensor's dtype first.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor) -> Tensor {
        let Some(last) = self.axis(-1) else { return self.poisoned() };
        let contract = (vec![last], vec![1]);
        self.dot(&weight.cast(self.dtype()), DotDims { batch: (vec![], vec![]), contract })
    }
}
