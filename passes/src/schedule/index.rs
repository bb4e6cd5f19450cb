//! Index expressions: dims, affine positions and literals as kernel expressions.

use super::names::marked;
use crate::region::Affine;
use tilewright_ir::array::Array;
use tilewright_ir::kernel::{BinaryOp, Expr};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{Atom, DType, Dim};

/// `a + b`, folding literals.
pub fn add(a: Expr, b: Expr) -> Expr {
    match (&a, &b) {
        (Expr::Int(0), _) => b,
        (_, Expr::Int(0)) => a,
        (Expr::Int(x), Expr::Int(y)) => {
            x.checked_add(*y).map_or_else(|| Expr::scalar(ScalarOp::Add {}, [a, b]), Expr::Int)
        }
        (_, _) => Expr::scalar(ScalarOp::Add {}, [a, b]),
    }
}

/// `a * b`, folding literals.
pub fn mul(a: Expr, b: Expr) -> Expr {
    match (&a, &b) {
        (Expr::Int(1), _) => b,
        (_, Expr::Int(1)) => a,
        (Expr::Int(0), _) | (_, Expr::Int(0)) => Expr::Int(0),
        (Expr::Int(x), Expr::Int(y)) => {
            x.checked_mul(*y).map_or_else(|| Expr::scalar(ScalarOp::Mul {}, [a, b]), Expr::Int)
        }
        (_, _) => Expr::scalar(ScalarOp::Mul {}, [a, b]),
    }
}

/// `ceil(a / n)`, folding literals.
pub fn ceil(a: Expr, n: i64) -> Expr {
    match a {
        Expr::Int(x) => Expr::Int(x.div_euclid(n) + i64::from(x.rem_euclid(n) != 0)),
        a => Expr::Binary(BinaryOp::Ceil, Box::new(a), Box::new(Expr::Int(n))),
    }
}

/// `floor(a / n)`, folding literals.
pub fn floor(a: Expr, n: i64) -> Expr {
    match a {
        Expr::Int(x) => Expr::Int(x.div_euclid(n)),
        a => Expr::Binary(BinaryOp::Floor, Box::new(a), Box::new(Expr::Int(n))),
    }
}

/// A size as an expression over symbols, marked for [`super::apart`].
pub fn dim(d: &Dim) -> Expr {
    let mut sum = Expr::Int(0);
    for (atoms, coefficient) in d.terms() {
        let mut product = Expr::Int(coefficient);
        for atom in atoms {
            let value = match atom {
                Atom::Symbol(s) => Expr::Name(marked(s)),
                Atom::FloorDiv(d, n) => Expr::Binary(BinaryOp::Floor, Box::new(dim(d)), Box::new(Expr::Int(*n))),
                Atom::Mod(d, n) => Expr::Binary(BinaryOp::Mod, Box::new(dim(d)), Box::new(Expr::Int(*n))),
            };
            product = mul(product, value);
        }
        sum = add(sum, product);
    }
    sum
}

/// An affine position, with `at` giving the expression of each axis.
pub fn affine(a: &Affine, at: impl Fn(usize) -> Expr) -> Expr {
    a.terms.iter().fold(dim(&a.base), |sum, &(axis, c)| add(sum, mul(Expr::Int(c), at(axis))))
}

/// A scalar constant with an explicit dtype. `None` unless it is one element of a plain dtype.
pub fn literal(value: &Array) -> Option<Expr> {
    let bytes: &[u8] = value.bytes();
    let dtype = value.dtype();
    if value.len() != 1 || dtype.is_block() {
        return None;
    }
    if dtype.is_float() {
        return Some(Expr::cast(dtype, Expr::Real(*value.to_f64()?.first()?)));
    }
    let mut wide = [0u8; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let raw = i64::from_le_bytes(wide);
    let shift = 64 - 8 * u32::try_from(bytes.len()).ok()?;
    let int = if dtype.is_signed() { raw.wrapping_shl(shift).wrapping_shr(shift) } else { raw };
    Some(if dtype == DType::I64 { Expr::Int(int) } else { Expr::cast(dtype, Expr::Int(int)) })
}

/// What a load reads outside of its buffer. A literal number is no truth value.
pub(super) fn zero(dtype: DType) -> Expr {
    if dtype == DType::Bool { Expr::cast(dtype, Expr::Int(0)) } else { Expr::Int(0) }
}

/// What a fold of nothing gives.
pub(super) fn identity(kind: ReduceKind, dtype: DType) -> Expr {
    let bits = u32::try_from(dtype.block().1 * 8).unwrap_or(64);
    let int = |v: i64| Expr::cast(dtype, Expr::Int(v));
    let signed_max = i64::MAX >> (64 - bits.min(64));
    match (kind, dtype) {
        (ReduceKind::Sum, _) => int(0),
        (ReduceKind::Prod, _) => int(1),
        (ReduceKind::Max, d) if d.is_float() => Expr::cast(dtype, Expr::Real(f64::NEG_INFINITY)),
        (ReduceKind::Min, d) if d.is_float() => Expr::cast(dtype, Expr::Real(f64::INFINITY)),
        (ReduceKind::Max, d) if d.is_signed() => int(-1 - signed_max),
        (ReduceKind::Min, d) if d.is_signed() => int(signed_max),
        (ReduceKind::Max, _) => int(0),
        (ReduceKind::Min, DType::Bool) => int(1),
        (ReduceKind::Min, _) => int(-1),
    }
}
