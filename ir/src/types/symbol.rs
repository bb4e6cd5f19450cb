//! Symbolic sizes: names and the ranges that they are declared over.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name of a symbolic size, such as `batch` or `seq`.
pub type Symbol = Arc<str>;

/// The declaration `name in low..=high by step likely value` of a symbol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SymbolDecl {
    /// Name.
    pub name: Symbol,
    /// Smallest value, at least 0.
    pub low: i64,
    /// Largest value.
    pub high: i64,
    /// Every value is a multiple of this; 1 if nothing is known.
    pub step: i64,
    /// The value for which kernels are chosen and priced, where somebody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely: Option<i64>,
}

impl SymbolDecl {
    /// `name in low..=high`.
    pub fn new(name: &str, low: i64, high: i64) -> SymbolDecl {
        SymbolDecl { name: name.into(), low, high, step: 1, likely: None }
    }

    /// The value in the range that is next to `n`: a multiple of the step, at least 1 where one is.
    pub fn near(&self, n: i64) -> i64 {
        let step = self.step.max(1);
        let down = |n: i64| n.div_euclid(step) * step;
        let least = self.low.max(1);
        let first = down(least).checked_add(if least % step == 0 { 0 } else { step });
        let first = first.filter(|first| *first <= self.high).unwrap_or_else(|| down(self.high));
        down(n.min(self.high)).max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_value_is_in_the_range() {
        let near = |low, high, step, n| SymbolDecl { step, ..SymbolDecl::new("n", low, high) }.near(n);
        assert_eq!([near(1, 4096, 8, 4), near(1, 4096, 8, 256), near(5, 100, 8, 256)], [8, 256, 96]);
        assert_eq!([near(300, 4096, 512, 256), near(0, 64, 1, 4), near(0, 64, 8, 4)], [512, 4, 8]);
        assert_eq!([near(0, 0, 1, 4), near(0, 7, 8, 4), near(7, 7, 1, 4), near(1, 3, 1, 4)], [0, 0, 7, 3]);
    }
}
