//! Expressions of kernels: index arithmetic and scalar programs over tiles share one tree.

use crate::op::{ReduceKind, ScalarOp};
use crate::types::DType;
use std::sync::Arc;

/// A name as written in the kernel.
pub type Ident = Arc<str>;

/// Index-only integer operations. Scalar arithmetic uses [`Expr::Scalar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryOp {
    /// `ceil(a, b)`: a / b rounded up, b > 0.
    Ceil,
    /// `floor(a, b)`: a / b rounded down, b > 0.
    Floor,
    /// `mod(a, b)`: in `0..b`, b > 0.
    Mod,
}

impl BinaryOp {
    /// The result; none for a divisor that is not positive.
    pub fn apply(self, a: i64, b: i64) -> Option<i64> {
        if b <= 0 {
            return None;
        }
        let floor = a.div_euclid(b);
        Some(match self {
            BinaryOp::Floor => floor,
            BinaryOp::Mod => a.rem_euclid(b),
            // Only b > 1 leaves a rest, and then the quotient is far from the largest number.
            BinaryOp::Ceil => floor + i64::from(a.rem_euclid(b) != 0),
        })
    }
}

/// Reductions of one axis of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileReduce {
    /// `sum(tile, axis)`.
    Sum,
    /// `prod(tile, axis)`.
    Prod,
    /// `max_of(tile, axis)`; NaN wins.
    Max,
    /// `min_of(tile, axis)`; NaN wins.
    Min,
    /// `argmax_of(tile, axis)`: first position, i64.
    Argmax,
    /// `argmin_of(tile, axis)`: first position, i64.
    Argmin,
}

impl TileReduce {
    /// The fold; none for positions.
    pub fn fold(self) -> Option<ReduceKind> {
        match self {
            TileReduce::Sum => Some(ReduceKind::Sum),
            TileReduce::Prod => Some(ReduceKind::Prod),
            TileReduce::Max => Some(ReduceKind::Max),
            TileReduce::Min => Some(ReduceKind::Min),
            TileReduce::Argmax | TileReduce::Argmin => None,
        }
    }
}

/// An expression over loop variables, symbols, constants and tiles. Tiles broadcast by axis name.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Integer literal; takes the dtype of its context.
    Int(i64),
    /// Float literal; takes the dtype of its context.
    Real(f64),
    /// Loop variable, symbol, constant, `let` name, or `reg` buffer.
    Name(Ident),
    /// A scalar op of the Graph IR table, elementwise; infix where it has an infix form. `f32(x)` is a cast.
    Scalar(ScalarOp, Vec<Expr>),
    /// Index-only integer operation.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// Reduction of a tile.
    Reduce(TileReduce, Box<Expr>, Ident),
    /// `iota(axis, start, size)`: tile `[axis=size]` of start, start + 1, ...; i64 unless cast.
    Iota(Ident, Box<Expr>, Box<Expr>),
    /// `order(t, rows, columns, kind)`: first coordinate and second coordinate of a linear tile index.
    Order(Vec<Expr>, Ident),
}

impl Expr {
    /// A name.
    pub fn name(s: &str) -> Expr {
        Expr::Name(s.into())
    }

    /// A scalar op on operands.
    pub fn scalar(op: ScalarOp, args: impl Into<Vec<Expr>>) -> Expr {
        Expr::Scalar(op, args.into())
    }

    /// A cast.
    pub fn cast(to: DType, x: Expr) -> Expr {
        Expr::Scalar(ScalarOp::Cast { to }, vec![x])
    }
}

/// How one dim of a buffer is accessed.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexDim {
    /// `:`: the whole axis.
    All,
    /// One element; `open` (`?`): may lie past the end (loads pad, stores clip).
    Point {
        /// Position.
        at: Expr,
        /// May lie outside.
        open: bool,
    },
    /// `at!`: one element, chosen by data. A position outside is an error of the call: the element is neither read nor
    /// written, and the run ends with `index-out-of-range`. After it, `at` is known to lie inside.
    Checked {
        /// Position.
        at: Expr,
    },
    /// `start +: size`, or with `open` `start +? size`: may pass the end. `size` is constant.
    Range {
        /// First position.
        start: Expr,
        /// Number of elements.
        size: Expr,
        /// May pass the end.
        open: bool,
        /// `upto limit`: a second bound, for sizes known at run time only.
        upto: Option<Expr>,
    },
    /// Gathered by a loaded index tile (a `let` name): the dim takes that tile's axes.
    Gather(Ident),
}

impl IndexDim {
    /// Whether elements may lie outside, and are masked then: `?` or `upto`.
    pub fn is_masked(&self) -> bool {
        match self {
            IndexDim::Point { open, .. } => *open,
            IndexDim::Range { open, upto, .. } => *open || upto.is_some(),
            IndexDim::All | IndexDim::Checked { .. } | IndexDim::Gather(_) => false,
        }
    }
}

/// `buffer@back.field[dims]`; without dims the whole buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Buffer, view or pipe.
    pub buffer: Ident,
    /// Slots back, for pipes.
    pub back: u32,
    /// Field of a block format or slot buffer of a pipe.
    pub field: Option<Ident>,
    /// One entry per axis.
    pub dims: Option<Vec<IndexDim>>,
}

impl Access {
    /// Access with dims.
    pub fn new(buffer: &str, dims: Vec<IndexDim>) -> Access {
        Access { buffer: buffer.into(), back: 0, field: None, dims: Some(dims) }
    }

    /// Whether a dim is masked.
    pub fn is_masked(&self) -> bool {
        self.dims.iter().flatten().any(IndexDim::is_masked)
    }

    /// The whole buffer.
    pub fn whole(buffer: &str) -> Access {
        Access { buffer: buffer.into(), back: 0, field: None, dims: None }
    }
}
