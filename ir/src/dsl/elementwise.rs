//! Scalar ops at every element.

use super::{Operand, Tensor};
use crate::op::{GraphOp, ScalarOp};
use crate::types::DType;

macro_rules! unary {
    ($($(#[$doc:meta])+ $name:ident $Op:ident;)*) => { impl Tensor { $(
        $(#[$doc])+
        #[track_caller]
        pub fn $name(&self) -> Tensor {
            self.emit(GraphOp::Map { op: ScalarOp::$Op {} }, &[])
        }
    )* } };
}

macro_rules! binary {
    ($($(#[$doc:meta])+ $name:ident $Op:ident;)*) => { impl Tensor { $(
        $(#[$doc])+
        #[track_caller]
        pub fn $name(&self, other: impl Operand) -> Tensor {
            self.binary(ScalarOp::$Op {}, &other.resolve(&self.graph, self.dtype()))
        }
    )* } };
}

unary!(
    /// Magnitude.
    abs Abs;
    /// -1, 0 or 1; NaN stays.
    sign Sign;
    /// Largest integer not above x.
    floor Floor;
    /// Smallest integer not below x.
    ceil Ceil;
    /// Nearest integer, ties to even.
    round Round;
    /// Integer part, toward zero.
    trunc Trunc;
    /// Square root.
    sqrt Sqrt;
    /// 1 / sqrt(x).
    rsqrt Rsqrt;
    /// e to the x.
    exp Exp;
    /// 2 to the x.
    exp2 Exp2;
    /// exp(x) - 1 without cancellation.
    expm1 Expm1;
    /// Natural logarithm.
    log Log;
    /// Logarithm to base 2.
    log2 Log2;
    /// log(1 + x) without cancellation.
    log1p Log1p;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// Error function.
    erf Erf;
    /// Sine of radians.
    sin Sin;
    /// Cosine of radians.
    cos Cos;
    /// Whether x is NaN, as bool.
    is_nan IsNan;
);

binary!(
    /// x to the power y.
    pow Pow;
    /// The larger; NaN if either is.
    maximum Max;
    /// The smaller; NaN if either is.
    minimum Min;
    /// x == y, as bool.
    eq Eq;
    /// x != y, as bool.
    ne Ne;
    /// x < y, as bool.
    lt Lt;
    /// x <= y, as bool.
    le Le;
    /// x > y, as bool.
    gt Gt;
    /// x >= y, as bool.
    ge Ge;
);

impl Tensor {
    /// A scalar op of two tensors, broadcast together.
    #[track_caller]
    pub(super) fn binary(&self, op: ScalarOp, other: &Tensor) -> Tensor {
        // A wrong dtype is reported on the operands as written, not on their broadcasts.
        match Tensor::broadcast_together(op.info().name, &[self, other]) {
            Some(both) => both[0].emit(GraphOp::Map { op }, &[&both[1]]),
            None => self.poisoned(),
        }
    }

    /// -x.
    #[track_caller]
    pub(super) fn negated(&self) -> Tensor {
        self.emit(GraphOp::Map { op: ScalarOp::Neg {} }, &[])
    }

    /// Not of each bit, or of a truth value.
    #[track_caller]
    pub(super) fn inverted(&self) -> Tensor {
        self.emit(GraphOp::Map { op: ScalarOp::Not {} }, &[])
    }

    /// `yes` where this bool tensor holds, else `no`. Two plain numbers make f32.
    #[track_caller]
    pub fn select(&self, yes: impl Operand, no: impl Operand) -> Tensor {
        let dtype = yes.dtype().or(no.dtype()).unwrap_or(DType::F32);
        let (yes, no) = (yes.resolve(&self.graph, dtype), no.resolve(&self.graph, dtype));
        match Tensor::broadcast_together("select", &[self, &yes, &no]) {
            Some(all) => all[0].emit(GraphOp::Map { op: ScalarOp::Select {} }, &[&all[1], &all[2]]),
            None => self.poisoned(),
        }
    }

    /// In another dtype, see [`ScalarOp::Cast`]; the tensor itself if it has it.
    #[track_caller]
    pub fn cast(&self, to: DType) -> Tensor {
        if self.dtype() == to {
            return self.clone();
        }
        self.emit(GraphOp::Map { op: ScalarOp::Cast { to } }, &[])
    }
}
