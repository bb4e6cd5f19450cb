//! Types of scalar ops and of `map`.

use super::{one, plain, shapes_differ};
use crate::diag::Diagnostic;
use crate::op::{Family, ScalarOp};
use crate::types::{DType, Type};

/// The dtype of a scalar op's result. Errors: `dtype-mismatch`, `operand-count`.
pub fn scalar_type(op: &ScalarOp, args: &[DType]) -> Result<DType, Diagnostic> {
    let info = op.info();
    let bad = |want: &str| {
        let found: Vec<&str> = args.iter().map(|d| d.name()).collect();
        Diagnostic::new("dtype-mismatch", format!("`{}` needs {want}, found {}", info.name, found.join(", ")))
    };
    if !info.arity.accepts(args.len()) {
        return Err(Diagnostic::new(
            "operand-count",
            format!("`{}` takes {:?}, found {}", info.name, info.arity, args.len()),
        ));
    }
    if let ScalarOp::Cast { to } = op {
        plain("cast to", *to)?;
        let float_only = args[0].is_block() && !to.is_float();
        return if float_only { Err(bad("a plain dtype, or a float result")) } else { Ok(*to) };
    }
    for d in args {
        plain(info.name, *d)?;
    }
    if matches!(op, ScalarOp::Select {}) {
        let fits = args[0] == DType::Bool && args[1] == args[2];
        return if fits { Ok(args[1]) } else { Err(bad("bool and two operands of one dtype")) };
    }
    if args.windows(2).any(|w| w[0] != w[1]) {
        return Err(bad("operands of one dtype"));
    }
    let d = args[0];
    match info.family {
        Family::Comparison if matches!(op, ScalarOp::IsNan {}) && !d.is_float() => Err(bad("a float")),
        Family::Comparison => Ok(DType::Bool),
        Family::Logic if d.is_float() => Err(bad("integers or bools")),
        Family::Logic if d == DType::Bool && matches!(op, ScalarOp::Shl {} | ScalarOp::Shr {}) => Err(bad("integers")),
        Family::Logic => Ok(d),
        Family::Transcendental if !d.is_float() && !matches!(op, ScalarOp::Pow {}) => Err(bad("a float")),
        Family::Arithmetic if matches!(op, ScalarOp::Sqrt {} | ScalarOp::Rsqrt {}) && !d.is_float() => {
            Err(bad("a float"))
        }
        _ if d == DType::Bool => Err(bad("numbers")),
        _ => Ok(d),
    }
}

/// `map`: one shape, one dtype out.
pub(super) fn map(op: &ScalarOp, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    let dtypes: Vec<DType> = args.iter().map(|t| t.dtype).collect();
    for b in args.iter().skip(1) {
        let a = args[0];
        if a.rank() != b.rank() {
            return Err(shapes_differ(op.info().name, a, b, None).note("use `broadcast` to give operands one shape"));
        }
        if let Some(i) = (0..a.rank()).find(|&i| a.shape[i] != b.shape[i]) {
            return Err(shapes_differ(op.info().name, a, b, Some((i, i))));
        }
    }
    one(Type { dtype: scalar_type(op, &dtypes)?, shape: args[0].shape.clone() })
}
