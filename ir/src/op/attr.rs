//! Attribute types of ops.

use super::ScalarOp;
use crate::array::Array;
use crate::types::{DType, Dim, Symbol};
use std::sync::Arc;

/// An axis number, from 0 at the major end.
pub type Axis = usize;
/// Axis numbers.
pub type Axes = Vec<usize>;
/// Sizes or positions, one per axis.
pub type Dims = Vec<Dim>;
/// Steps, one per axis.
pub type Strides = Vec<i64>;
/// The name of a function.
pub type Name = Arc<str>;
/// Elements added before and after, per axis.
pub type PadAmounts = Vec<(Dim, Dim)>;

/// What a reduction folds with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceKind {
    /// Sum; 0 for nothing.
    Sum,
    /// Maximum; NaN wins; -inf or the smallest integer for nothing.
    Max,
    /// Minimum; NaN wins; +inf or the largest integer for nothing.
    Min,
    /// Product; 1 for nothing.
    Prod,
}

impl ReduceKind {
    /// All kinds.
    pub const ALL: &'static [ReduceKind] = &[ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min, ReduceKind::Prod];

    /// Name in text.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceKind::Sum => "sum",
            ReduceKind::Max => "reduce_max",
            ReduceKind::Min => "reduce_min",
            ReduceKind::Prod => "prod",
        }
    }

    /// One line of meaning, for lists of ops.
    pub const fn doc(self) -> &'static str {
        match self {
            ReduceKind::Sum => "sum over `axes`, which leave the shape; 0 for nothing; of bools, whether any is true",
            ReduceKind::Max => "largest over `axes`, NaN wins; -inf or the smallest integer for nothing; of bools, any",
            ReduceKind::Min => "smallest over `axes`, NaN wins; +inf or the largest integer for nothing; of bools, all",
            ReduceKind::Prod => "product over `axes`; 1 for nothing; of bools, whether all are true",
        }
    }

    /// The scalar op that folds two elements of `dtype`; sum and maximum of truth values are "any", the others "all".
    pub fn combine(self, dtype: DType) -> ScalarOp {
        match self {
            ReduceKind::Sum | ReduceKind::Max if dtype == DType::Bool => ScalarOp::Or {},
            ReduceKind::Prod | ReduceKind::Min if dtype == DType::Bool => ScalarOp::And {},
            ReduceKind::Sum => ScalarOp::Add {},
            ReduceKind::Max => ScalarOp::Max {},
            ReduceKind::Min => ScalarOp::Min {},
            ReduceKind::Prod => ScalarOp::Mul {},
        }
    }
}

/// Axis pairs of a contraction: left and right axes in matching order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DotDims {
    /// Batch axes of the left and the right operand.
    pub batch: (Axes, Axes),
    /// Contracted axes of the left and the right operand.
    pub contract: (Axes, Axes),
}

/// A constant tensor, compared by dtype, shape and exact bytes.
#[derive(Clone, Debug)]
pub struct Literal(pub Array);

impl Literal {
    fn key(&self) -> (DType, &[usize], &[u8]) {
        (self.0.dtype(), self.0.shape(), self.0.bytes())
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Literal) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Literal {}

impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Literal) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Literal) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl std::hash::Hash for Literal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Any attribute; the variant is named like its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Attr {
    Axis(Axis),
    Axes(Axes),
    Dim(Dim),
    Dims(Dims),
    Strides(Strides),
    DType(DType),
    Name(Name),
    PadAmounts(PadAmounts),
    ReduceKind(ReduceKind),
    DotDims(DotDims),
    Literal(Literal),
    ScalarOp(ScalarOp),
}

/// Types of attributes, by what they name.
pub(crate) trait Symbolic {
    /// Adds the symbols of its sizes to `out`, each once.
    fn collect_symbols(&self, out: &mut Vec<Symbol>);

    /// The function that it names.
    fn name(&self) -> Option<&Name> {
        None
    }
}

impl Symbolic for Dim {
    fn collect_symbols(&self, out: &mut Vec<Symbol>) {
        Dim::collect_symbols(self, out);
    }
}

impl<A: Symbolic, B: Symbolic> Symbolic for (A, B) {
    fn collect_symbols(&self, out: &mut Vec<Symbol>) {
        self.0.collect_symbols(out);
        self.1.collect_symbols(out);
    }
}

impl<T: Symbolic> Symbolic for Vec<T> {
    fn collect_symbols(&self, out: &mut Vec<Symbol>) {
        self.iter().for_each(|item| item.collect_symbols(out));
    }
}

/// Types without sizes.
macro_rules! without_sizes {
    ($($Ty:ty),+) => { $( impl Symbolic for $Ty { fn collect_symbols(&self, _: &mut Vec<Symbol>) {} } )+ };
}
without_sizes!(Axis, i64, DType, ReduceKind, DotDims, Literal, ScalarOp);

impl Symbolic for Name {
    fn collect_symbols(&self, _: &mut Vec<Symbol>) {}

    fn name(&self) -> Option<&Name> {
        Some(self)
    }
}
