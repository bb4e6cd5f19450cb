//! Dtypes, symbolic dims, tensor types.

pub mod dim;
pub mod dtype;
mod symbol;

pub use dim::{Atom, Bindings, Dim};
pub use dtype::DType;
pub use symbol::{Symbol, SymbolDecl};

use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of a value: dtype and one dim per axis, major to minor. Rank 0 is a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Sizes, major to minor.
    pub shape: Vec<Dim>,
}

impl Type {
    /// `dtype[shape]`.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Type {
        Type { dtype, shape: shape.into_iter().map(Into::into).collect() }
    }

    /// A scalar of `dtype`.
    pub fn scalar(dtype: DType) -> Type {
        Type { dtype, shape: Vec::new() }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The shape with every symbol replaced by its value; `Err` names what is missing or negative.
    pub fn concrete(&self, bindings: &Bindings) -> Result<Vec<usize>, String> {
        self.shape
            .iter()
            .map(|d| usize::try_from(d.eval(bindings)?).map_err(|_| format!("the size `{d}` is negative")))
            .collect()
    }

    /// Number of elements as a dim; `None` on overflow.
    pub fn elements(&self) -> Option<Dim> {
        // Nearly always all sizes are numbers, and types are counted often.
        if self.shape.iter().all(|d| d.as_const().is_some()) {
            let mut sizes = self.shape.iter().filter_map(Dim::as_const);
            return sizes.try_fold(1, i64::checked_mul).map(Dim::constant);
        }
        self.shape.iter().try_fold(Dim::constant(1), |n, d| n.checked_mul(d))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}
