//! The table of mixed precision: what each op does with values in f32. Both matches are total, so an op without a row does not
//! compile.

use tilewright_ir::op::{GraphOp, ReduceKind, ScalarOp};

/// What becomes of an op on values in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its operands are rounded to the compute dtype, and so is its result. The sum in between is in f32, as every fold of
    /// f16 and bf16 is.
    Compute,
    /// It stays in f32, as what it does rounds: statistics, losses, and all arithmetic at elements, which a fused kernel does in
    /// registers.
    Full,
    /// It rounds nothing, and to round before it or behind it is the same: it runs in the dtype that is at hand or asked for.
    Moves,
    /// Like [`Class::Moves`], but what it leaves out would have been rounded for nothing: what is asked for is rounded behind it.
    Picks,
}

impl Class {
    /// The row of an op.
    pub fn of(op: &GraphOp) -> Class {
        match op {
            GraphOp::Dot { .. } => Class::Compute,
            GraphOp::Map { op } => Class::of_scalar(op),
            GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. } => Class::Picks,
            GraphOp::Reduce { kind: ReduceKind::Sum | ReduceKind::Prod, .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::ScatterAdd { .. } => Class::Full,
            GraphOp::Broadcast { .. }
            | GraphOp::Reshape { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Slice { .. }
            | GraphOp::Pad { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Flip { .. } => Class::Moves,
            // A slice that is written where the rest of the tensor lies keeps the dtype of that tensor.
            GraphOp::Take { .. } | GraphOp::TakeAlong { .. } | GraphOp::UpdateSlice { .. } => Class::Picks,
            // Sources have their dtype, positions are integers.
            GraphOp::Parameter { .. }
            | GraphOp::Constant { .. }
            | GraphOp::Iota { .. }
            | GraphOp::Size { .. }
            | GraphOp::Argmax { .. }
            | GraphOp::Argmin { .. } => Class::Full,
            // Functions keep their types; what is in them is treated alike.
            GraphOp::Call { .. } | GraphOp::Cond { .. } | GraphOp::Scan { .. } => Class::Full,
        }
    }

    fn of_scalar(op: &ScalarOp) -> Class {
        match op {
            ScalarOp::Max {} | ScalarOp::Min {} | ScalarOp::Neg {} | ScalarOp::Abs {} | ScalarOp::Select {} => {
                Class::Moves
            }
            ScalarOp::Add {}
            | ScalarOp::Sub {}
            | ScalarOp::Mul {}
            | ScalarOp::Div {}
            | ScalarOp::Rem {}
            | ScalarOp::Pow {}
            | ScalarOp::Sqrt {}
            | ScalarOp::Rsqrt {}
            | ScalarOp::Exp {}
            | ScalarOp::Exp2 {}
            | ScalarOp::Expm1 {}
            | ScalarOp::Log {}
            | ScalarOp::Log2 {}
            | ScalarOp::Log1p {}
            | ScalarOp::Tanh {}
            | ScalarOp::Erf {}
            | ScalarOp::Sin {}
            | ScalarOp::Cos {} => Class::Full,
            // They round to integers: of a number that was rounded before, to another one.
            ScalarOp::Sign {} | ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => {
                Class::Full
            }
            // Their results are no floats, or of a dtype that the graph names.
            ScalarOp::Eq {}
            | ScalarOp::Ne {}
            | ScalarOp::Lt {}
            | ScalarOp::Le {}
            | ScalarOp::Gt {}
            | ScalarOp::Ge {}
            | ScalarOp::And {}
            | ScalarOp::Or {}
            | ScalarOp::Xor {}
            | ScalarOp::Not {}
            | ScalarOp::Shl {}
            | ScalarOp::Shr {}
            | ScalarOp::IsNan {}
            | ScalarOp::Cast { .. } => Class::Full,
        }
    }
}
