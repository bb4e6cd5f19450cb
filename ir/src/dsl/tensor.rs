//! Handles to values of a graph, and how operands are brought to one shape.

use super::{Graph, Scalar, Shape};
use crate::diag::{Diagnostic, Place};
use crate::graph::Value;
use crate::op::{Axis, GraphOp};
use crate::types::{DType, Dim, Type};

/// A value of a [`Graph`] under construction. Cheap to clone.
#[derive(Clone)]
pub struct Tensor {
    pub(super) graph: Graph,
    ty: Type,
    /// The number of its function and the value there; `None` after a mistake.
    pub(super) value: Option<(u32, Value)>,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({})", if self.value.is_some() { self.ty.to_string() } else { "poisoned".into() })
    }
}

/// What may stand beside a tensor: a tensor, or a number that takes the tensor's dtype.
pub trait Operand {
    /// The dtype that it insists on.
    fn dtype(&self) -> Option<DType>;
    /// As a tensor of `graph`.
    fn resolve(&self, graph: &Graph, dtype: DType) -> Tensor;
}

impl Operand for Tensor {
    fn dtype(&self) -> Option<DType> {
        Some(self.ty.dtype)
    }
    fn resolve(&self, _: &Graph, _: DType) -> Tensor {
        self.clone()
    }
}

impl Operand for &Tensor {
    fn dtype(&self) -> Option<DType> {
        Some(self.ty.dtype)
    }
    fn resolve(&self, _: &Graph, _: DType) -> Tensor {
        (*self).clone()
    }
}

macro_rules! number_operand {
    ($($T:ty)*) => { $(
        impl Operand for $T {
            fn dtype(&self) -> Option<DType> {
                None
            }
            #[track_caller]
            fn resolve(&self, graph: &Graph, dtype: DType) -> Tensor {
                graph.scalar(dtype, Scalar::from(*self))
            }
        }
    )* };
}
number_operand!(f64 i64);

impl Tensor {
    pub(super) fn new(graph: &Graph, ty: Type, value: Option<(u32, Value)>) -> Tensor {
        Tensor { graph: graph.clone(), ty, value }
    }

    /// The graph it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its type; a scalar after a mistake.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// Its sizes; empty after a mistake, so prefer [`Tensor::dim`] to an index.
    pub fn shape(&self) -> &[Dim] {
        &self.ty.shape
    }

    /// Number of axes; 0 after a mistake.
    pub fn rank(&self) -> usize {
        self.ty.rank()
    }

    /// Whether it comes from a mistake, which [`Graph::finish`] will return.
    pub fn is_poisoned(&self) -> bool {
        self.value.is_none()
    }

    /// The size of an axis. Errors: `bad-axis`; the result is then 1.
    #[track_caller]
    pub fn dim(&self, axis: i64) -> Dim {
        self.axis(axis).map_or(Dim::constant(1), |a| self.ty.shape[a].clone())
    }

    /// The axis number that `axis`, perhaps negative, means. `None` after a mistake.
    #[track_caller]
    pub(super) fn axis(&self, axis: i64) -> Option<Axis> {
        self.axis_below(axis, self.rank())
    }

    /// The same, for a result of another rank.
    #[track_caller]
    pub(super) fn axis_below(&self, axis: i64, rank: usize) -> Option<Axis> {
        self.value?;
        let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let found = from_start.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
        if found.is_none() {
            let message = format!("axis {axis} is out of range for rank {rank}; the operand is {}", self.ty);
            self.mistake(Diagnostic::new("bad-axis", message), &[self]);
        }
        found
    }

    /// Records a mistake in the op at the caller's line, with the lines and types of its operands.
    #[track_caller]
    pub(super) fn mistake(&self, error: Diagnostic, operands: &[&Tensor]) -> Tensor {
        let mut error = error.at(Place::caller(), "in this op");
        for (i, t) in operands.iter().enumerate() {
            if let Some(place) = t.graph.place_of(t) {
                error = error.at(place, format!("operand {i}: {}", t.ty));
            }
        }
        self.graph.fail(error)
    }

    #[track_caller]
    pub(super) fn emit(&self, op: GraphOp, others: &[&Tensor]) -> Tensor {
        let mut args = vec![self];
        args.extend(others);
        self.graph.emit(&op, &args)
    }

    /// A poisoned tensor, where a mistake has been recorded already.
    pub fn poisoned(&self) -> Tensor {
        Tensor::new(&self.graph, Type::scalar(self.ty.dtype), None)
    }

    /// Repeats along new leading axes and axes of size 1 until the shape is `shape`. Errors: `shape-mismatch`.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Shape) -> Tensor {
        let shape = shape.dims();
        if self.value.is_none() || self.ty.shape == shape {
            return self.clone();
        }
        let Some(new) = shape.len().checked_sub(self.rank()) else {
            let out = Type { dtype: self.ty.dtype, shape };
            let message = format!("`broadcast` of {} to {out}: axes cannot leave", self.ty);
            return self.mistake(Diagnostic::new("shape-mismatch", message), &[self]);
        };
        self.emit(GraphOp::Broadcast { dims: (new..shape.len()).collect(), shape }, &[])
    }

    /// All of `tensors` in their common shape; `None` after a mistake.
    #[track_caller]
    pub(super) fn broadcast_together(what: &str, tensors: &[&Tensor]) -> Option<Vec<Tensor>> {
        if tensors.iter().any(|t| t.is_poisoned()) {
            return None;
        }
        let shape = Tensor::common_shape(what, tensors)?;
        let mut out = Vec::with_capacity(tensors.len());
        for t in tensors {
            out.push(t.broadcast_to(&shape));
        }
        Some(out)
    }

    #[track_caller]
    fn common_shape(what: &str, tensors: &[&Tensor]) -> Option<Vec<Dim>> {
        let rank = tensors.iter().map(|t| t.rank()).max()?;
        let mut shape = vec![Dim::constant(1); rank];
        // Who set the size of each axis.
        let mut by = vec![0; rank];
        for (n, t) in tensors.iter().enumerate() {
            for (i, d) in t.shape().iter().enumerate() {
                let at = rank - t.rank() + i;
                if shape[at].is(1) {
                    (shape[at], by[at]) = (d.clone(), n);
                } else if *d != shape[at] && !d.is(1) {
                    let other = tensors[by[at]];
                    let from = at + other.rank() - rank;
                    let (a, b) = (other.ty(), t.ty());
                    let left = format!("axis {from} is {} on the left", shape[at]);
                    let message = format!("`{what}` of {a} and {b}: {left}, axis {i} is {d} on the right");
                    let error = Diagnostic::new("shape-mismatch", message);
                    t.mistake(error.note("sizes must be equal, or one of them 1"), tensors);
                    return None;
                }
            }
        }
        Some(shape)
    }
}
