//! The grid of a kernel: its variables, and the values of extents at launch.

use super::types::{malformed, unsupported};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Buffer, Expr, Kernel, Level, Stmt};
use tilewright_ir::op::ScalarOp;

/// A kernel's body: scratch buffers, the variables of the grid, what each item does.
pub struct Split<'k> {
    /// Buffers before the grid.
    pub buffers: Vec<&'k Buffer>,
    /// Variables with extents; none is one item.
    pub vars: &'k [(Ident, Expr)],
    /// Statements of an item.
    pub body: &'k [Stmt],
}

/// Cuts a kernel's body at its grid.
pub fn split(kernel: &Kernel) -> Result<Split<'_>, Diagnostic> {
    let is_grid = |stmt: &Stmt| matches!(stmt, Stmt::Par { .. });
    let Some(at) = kernel.body.iter().position(is_grid) else {
        return Ok(Split { buffers: Vec::new(), vars: &[], body: &kernel.body });
    };
    let mut buffers = Vec::new();
    for stmt in &kernel.body[..at] {
        match stmt {
            Stmt::Buffer(buffer) => buffers.push(buffer),
            _ => return Err(unsupported("statements before the grid")),
        }
    }
    match &kernel.body[at..] {
        [Stmt::Par { vars, level: Level::Grid, body }] => Ok(Split { buffers, vars, body }),
        [Stmt::Par { .. }] => Err(unsupported("a `par` that is not at grid")),
        _ => Err(unsupported("statements after the grid")),
    }
}

/// Extents of the grid over the symbols, constants put in.
pub fn extents(kernel: &Kernel) -> Result<Vec<Expr>, Diagnostic> {
    Ok(split(kernel)?.vars.iter().map(|(_, extent)| with_constants(extent, kernel)).collect())
}

/// `expr` with the kernel's constants put in.
pub fn with_constants(expr: &Expr, kernel: &Kernel) -> Expr {
    match expr {
        Expr::Name(name) => {
            let found = kernel.constants.iter().find(|(other, _)| other == name);
            found.map_or_else(|| expr.clone(), |(_, value)| Expr::Int(*value))
        }
        Expr::Scalar(op, args) => {
            Expr::Scalar(op.clone(), args.iter().map(|arg| with_constants(arg, kernel)).collect())
        }
        Expr::Binary(op, a, b) => {
            Expr::Binary(*op, Box::new(with_constants(a, kernel)), Box::new(with_constants(b, kernel)))
        }
        Expr::Int(_) | Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => expr.clone(),
    }
}

/// The value of an index expression.
///
/// Errors: `kernel-invalid` for unknown names, overflow, division by 0, and operations that are none of indices.
pub fn eval(expr: &Expr, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, Diagnostic> {
    let over = || malformed("an index expression overflows, or divides by 0");
    match expr {
        Expr::Int(n) => Ok(*n),
        Expr::Name(name) => lookup(name).ok_or_else(|| malformed(format!("no value for `{name}`"))),
        Expr::Binary(op, a, b) => op.apply(eval(a, lookup)?, eval(b, lookup)?).ok_or_else(over),
        Expr::Scalar(op, args) => {
            let values = args.iter().map(|arg| eval(arg, lookup)).collect::<Result<Vec<_>, _>>()?;
            let value = match (op, values.as_slice()) {
                (ScalarOp::Add {}, [a, b]) => a.checked_add(*b),
                (ScalarOp::Sub {}, [a, b]) => a.checked_sub(*b),
                (ScalarOp::Mul {}, [a, b]) => a.checked_mul(*b),
                (ScalarOp::Div {}, [a, b]) => a.checked_div(*b),
                (ScalarOp::Rem {}, [a, b]) => a.checked_rem(*b),
                (ScalarOp::Min {}, [a, b]) => Some(*a.min(b)),
                (ScalarOp::Max {}, [a, b]) => Some(*a.max(b)),
                (ScalarOp::Neg {}, [a]) => a.checked_neg(),
                (ScalarOp::Cast { .. }, [a]) => Some(*a),
                (ScalarOp::Eq {}, [a, b]) => Some(i64::from(a == b)),
                (ScalarOp::Ne {}, [a, b]) => Some(i64::from(a != b)),
                (ScalarOp::Lt {}, [a, b]) => Some(i64::from(a < b)),
                (ScalarOp::Le {}, [a, b]) => Some(i64::from(a <= b)),
                (ScalarOp::Gt {}, [a, b]) => Some(i64::from(a > b)),
                (ScalarOp::Ge {}, [a, b]) => Some(i64::from(a >= b)),
                (ScalarOp::And {}, [a, b]) => Some(i64::from(*a != 0 && *b != 0)),
                (ScalarOp::Or {}, [a, b]) => Some(i64::from(*a != 0 || *b != 0)),
                _ => None,
            };
            value.ok_or_else(over)
        }
        Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => {
            Err(unsupported("this expression at launch"))
        }
    }
}
