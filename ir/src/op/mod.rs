//! The op tables: scalar ops and graph ops, declared once. Only these files list the ops.

mod attr;
mod graph;
mod macros;
mod scalar;

pub(crate) use attr::Symbolic;
pub use attr::{Attr, Axes, Axis, Dims, DotDims, Literal, Name, PadAmounts, ReduceKind, Strides};
pub use graph::{GraphKind, GraphOp};
pub use scalar::{ScalarKind, ScalarOp};

/// How many operands an op takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly this many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether `n` operands fit.
    pub const fn accepts(self, n: usize) -> bool {
        match self {
            Arity::Exactly(k) => n == k,
            Arity::AtLeast(k) => n >= k,
        }
    }
}

/// What kind of op a row is; code that treats ops alike asks for the family instead of listing ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Scalar: numbers to a number.
    Arithmetic,
    /// Scalar: exp, log, sin and the like.
    Transcendental,
    /// Scalar: to bool.
    Comparison,
    /// Scalar: bits and truth values.
    Logic,
    /// Scalar: select and cast.
    Conversion,
    /// Graph: inputs and constants.
    Source,
    /// Graph: a scalar op at every element.
    Elementwise,
    /// Graph: axes leave by a fold.
    Reduction,
    /// Graph: sums of products.
    Contraction,
    /// Graph: values move, none changes.
    Movement,
    /// Graph: places are chosen by values.
    Indexing,
    /// Graph: functions.
    Control,
}

/// The facts of a row.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    /// Name in text.
    pub name: &'static str,
    /// Operands.
    pub arity: Arity,
    /// Family.
    pub family: Family,
    /// Attribute names with their types, in order.
    pub attrs: &'static [(&'static str, &'static str)],
    /// First line of documentation.
    pub doc: &'static str,
}
