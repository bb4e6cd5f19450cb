//! Expressions and statements of kernels, written short.

use super::index::{add, mul};
use tilewright_ir::diag::Place;
use tilewright_ir::kernel::{
    Access, Block, Buffer, Expr, IndexDim, Kernel, Level, LoadMods, Space, Stmt, View, expr::Ident,
};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, SymbolDecl};

pub(super) fn scalar<const N: usize>(op: ScalarOp, args: [Expr; N]) -> Expr {
    Expr::scalar(op, args)
}

pub(super) fn plus(a: Expr, b: Expr) -> Expr {
    scalar(ScalarOp::Add {}, [a, b])
}

pub(super) fn times(a: Expr, b: Expr) -> Expr {
    scalar(ScalarOp::Mul {}, [a, b])
}

pub(super) fn minus(a: Expr, b: Expr) -> Expr {
    scalar(ScalarOp::Sub {}, [a, b])
}

pub(super) fn select(p: Expr, yes: Expr, no: Expr) -> Expr {
    scalar(ScalarOp::Select {}, [p, yes, no])
}

/// `min(a, b)`
pub(super) fn least(a: Expr, b: Expr) -> Expr {
    scalar(ScalarOp::Min {}, [a, b])
}

/// `max(a, b)`, folding literals.
pub(super) fn most(a: Expr, b: Expr) -> Expr {
    match (&a, &b) {
        (Expr::Int(x), Expr::Int(y)) => Expr::Int(*x.max(y)),
        (_, _) => scalar(ScalarOp::Max {}, [a, b]),
    }
}

/// `var * by`
pub(super) fn scaled(var: &str, by: i64) -> Expr {
    mul(Expr::name(var), Expr::Int(by))
}

/// How many of `n` are left from tile `var` of `tile` on, at most `tile`.
pub(super) fn left(n: Expr, var: &str, tile: i64) -> Expr {
    least(Expr::Int(tile), add(n, mul(Expr::Int(-tile), Expr::name(var))))
}

pub(super) fn point(at: Expr) -> IndexDim {
    IndexDim::Point { at, open: false }
}

/// `start +: size`
pub(super) fn range(start: Expr, size: i64, open: bool) -> IndexDim {
    IndexDim::Range { start, size: Expr::Int(size), open, upto: None }
}

pub(super) fn load(name: &str, access: Access) -> Stmt {
    Stmt::Load { name: name.into(), access, mods: LoadMods::default() }
}

pub(super) fn store(access: Access, value: Expr) -> Stmt {
    Stmt::Store { access, mods: LoadMods::default(), value, add: false }
}

/// `for var in 0 .. high { body }`
pub(super) fn repeat(var: impl Into<Ident>, high: Expr, body: Block) -> Stmt {
    between(var, Expr::Int(0), high, body)
}

/// `for var in low .. high { body }`
pub(super) fn between(var: impl Into<Ident>, low: Expr, high: Expr, body: Block) -> Stmt {
    Stmt::For { var: var.into(), low, high, step: None, unroll: false, body }
}

/// A buffer without attributes.
pub(super) fn buffer(space: Space, name: impl Into<Ident>, dtype: DType, axes: Vec<(Ident, Expr)>) -> Buffer {
    Buffer { space, name: name.into(), dtype, axes, attrs: Vec::new() }
}

/// A grid over `vars`, of one point where there are none.
pub(super) fn grid(mut vars: Vec<(Ident, Expr)>, body: Block) -> Stmt {
    if vars.is_empty() {
        vars.push(("z".into(), Expr::Int(1)));
    }
    Stmt::Par { vars, level: Level::Grid, body }
}

/// A kernel for one thread of a CPU.
pub(super) fn kernel(
    name: &str,
    symbols: &[SymbolDecl],
    (arguments, views): (Vec<Buffer>, Vec<View>),
    grid: Stmt,
    places: &[Place],
) -> Kernel {
    Kernel {
        name: name.into(),
        target: "cpu".into(),
        attrs: Vec::new(),
        constants: Vec::new(),
        symbols: symbols.to_vec(),
        arguments,
        views,
        body: vec![grid],
        places: places.to_vec(),
    }
}
