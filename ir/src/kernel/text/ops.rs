//! Which scalar ops have infix forms, and how tightly they bind.

use crate::kernel::expr::{BinaryOp, TileReduce};
use crate::op::{ScalarKind, ScalarOp};
use crate::types::DType;

/// Binding strength of unary operators and literals with a sign.
pub(super) const UNARY: u8 = 8;

/// Infix ops: sign, kind, precedence (higher binds tighter, all associate to the left).
const INFIX: &[(&str, ScalarKind, u8)] = &[
    ("==", ScalarKind::Eq, 1),
    ("!=", ScalarKind::Ne, 1),
    ("<", ScalarKind::Lt, 1),
    ("<=", ScalarKind::Le, 1),
    (">", ScalarKind::Gt, 1),
    (">=", ScalarKind::Ge, 1),
    ("|", ScalarKind::Or, 2),
    ("^", ScalarKind::Xor, 3),
    ("&", ScalarKind::And, 4),
    ("<<", ScalarKind::Shl, 5),
    (">>", ScalarKind::Shr, 5),
    ("+", ScalarKind::Add, 6),
    ("-", ScalarKind::Sub, 6),
    ("*", ScalarKind::Mul, 7),
    ("/", ScalarKind::Div, 7),
    ("%", ScalarKind::Rem, 7),
];

/// Sign and precedence of `op`, if it is infix.
pub(super) fn infix(op: &ScalarOp) -> Option<(&'static str, u8)> {
    INFIX.iter().find(|(_, k, _)| *k == op.kind()).map(|(s, _, p)| (*s, *p))
}

/// The op of an infix sign with its precedence.
pub(super) fn by_sign(sign: &str) -> Option<(ScalarOp, u8)> {
    let (_, kind, p) = INFIX.iter().find(|(s, _, _)| *s == sign)?;
    Some((ScalarOp::from_parts(*kind, &[])?, *p))
}

/// The scalar op that is called `name` with `arguments` arguments: `where`, dtypes (casts), names of the table.
pub(super) fn by_call(name: &str, arguments: usize) -> Option<ScalarOp> {
    if name == "where" {
        return (arguments == 3).then_some(ScalarOp::Select {});
    }
    if let Ok(to) = name.parse::<DType>() {
        return (arguments == 1).then_some(ScalarOp::Cast { to });
    }
    let op = ScalarOp::from_parts(ScalarKind::by_name(name)?, &[])?;
    op.info().arity.accepts(arguments).then_some(op)
}

/// The name of the call form of `op`.
pub(super) fn call_name(op: &ScalarOp) -> &'static str {
    match op {
        ScalarOp::Select {} => "where",
        ScalarOp::Cast { to } => to.name(),
        other => other.info().name,
    }
}

/// Tile reductions with their names.
const REDUCE: &[(&str, TileReduce)] = &[
    ("sum", TileReduce::Sum),
    ("prod", TileReduce::Prod),
    ("max_of", TileReduce::Max),
    ("min_of", TileReduce::Min),
    ("argmax_of", TileReduce::Argmax),
    ("argmin_of", TileReduce::Argmin),
];

/// The reduction called `name`.
pub(super) fn reduce_by_name(name: &str) -> Option<TileReduce> {
    REDUCE.iter().find(|(n, _)| *n == name).map(|(_, r)| *r)
}

/// Name of a reduction.
pub(super) fn reduce_name(r: TileReduce) -> &'static str {
    match r {
        TileReduce::Sum => "sum",
        TileReduce::Prod => "prod",
        TileReduce::Max => "max_of",
        TileReduce::Min => "min_of",
        TileReduce::Argmax => "argmax_of",
        TileReduce::Argmin => "argmin_of",
    }
}

/// Name of an index operation.
pub(super) fn binary_name(b: BinaryOp) -> &'static str {
    match b {
        BinaryOp::Ceil => "ceil",
        BinaryOp::Floor => "floor",
        BinaryOp::Mod => "mod",
    }
}

/// The index operation called `name`.
pub(super) fn binary_by_name(name: &str) -> Option<BinaryOp> {
    match name {
        "ceil" => Some(BinaryOp::Ceil),
        "floor" => Some(BinaryOp::Floor),
        "mod" => Some(BinaryOp::Mod),
        _ => None,
    }
}
