//! `&a + &b` and the like, with tensors and numbers.

use super::{Operand, Tensor};
use crate::op::ScalarOp;

macro_rules! operator {
    ($Trait:ident $method:ident $Op:ident) => {
        impl<T: Operand> std::ops::$Trait<T> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: T) -> Tensor {
                self.binary(ScalarOp::$Op {}, &other.resolve(&self.graph, self.dtype()))
            }
        }
        impl<T: Operand> std::ops::$Trait<T> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: T) -> Tensor {
                self.binary(ScalarOp::$Op {}, &other.resolve(&self.graph, self.dtype()))
            }
        }
    };
}

macro_rules! number_left {
    ($($Number:ident $Trait:ident $method:ident $Op:ident;)*) => { $(
        impl std::ops::$Trait<&Tensor> for $Number {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.resolve(&other.graph, other.dtype()).binary(ScalarOp::$Op {}, other)
            }
        }
        impl std::ops::$Trait<Tensor> for $Number {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.resolve(&other.graph, other.dtype()).binary(ScalarOp::$Op {}, &other)
            }
        }
    )* };
}

operator!(Add add Add);
operator!(Sub sub Sub);
operator!(Mul mul Mul);
operator!(Div div Div);
operator!(Rem rem Rem);
operator!(BitAnd bitand And);
operator!(BitOr bitor Or);
operator!(BitXor bitxor Xor);
operator!(Shl shl Shl);
operator!(Shr shr Shr);
number_left!(
    f64 Add add Add;
    f64 Sub sub Sub;
    f64 Mul mul Mul;
    f64 Div div Div;
    i64 Add add Add;
    i64 Sub sub Sub;
    i64 Mul mul Mul;
    i64 Div div Div;
);

macro_rules! prefix {
    ($Trait:ident $method:ident $with:ident) => {
        impl std::ops::$Trait for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self) -> Tensor {
                self.$with()
            }
        }
        impl std::ops::$Trait for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self) -> Tensor {
                self.$with()
            }
        }
    };
}
prefix!(Neg neg negated);
prefix!(Not not inverted);
