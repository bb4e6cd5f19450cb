//! Regions: what one kernel computes, in index notation. A region has axes, inputs, and terms over index expressions;
//! movement ops are gone, they live in the affine maps of loads.

mod build;
mod canonical;
mod coalesce;
pub mod cut;
mod mask;
#[cfg(test)]
mod mask_tests;
mod terms;

pub use build::{Builder, Source, only_ones};
pub use coalesce::coalesce;
pub use mask::{Limits, Values, limits};

use std::collections::BTreeSet;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{Literal, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};

/// Number of an axis in its region; the first axes are those of the output, in memory order.
pub type AxisId = usize;
/// Number of a term in its region; operands precede users.
pub type TermId = usize;

/// `base + sum of coefficient * axis`, axes ascending, coefficients not zero.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affine {
    /// The part without axes.
    pub base: Dim,
    /// Axes with their coefficients.
    pub terms: Vec<(AxisId, i64)>,
}

/// A size that does not fit in 64 bits.
pub(crate) fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "a size does not fit in 64 bits")
}

impl Affine {
    /// The position along `axis`.
    pub fn axis(axis: AxisId) -> Affine {
        Affine { base: Dim::constant(0), terms: vec![(axis, 1)] }
    }

    /// A known position.
    pub fn constant(base: Dim) -> Affine {
        Affine { base, terms: Vec::new() }
    }

    /// `scale * self + shift`. Errors: `dim-overflow`.
    pub fn scaled(&self, scale: i64, shift: &Dim) -> Result<Affine, Diagnostic> {
        let base = self.base.checked_mul(&Dim::constant(scale)).and_then(|b| b.checked_add(shift));
        let mut terms = Vec::new();
        for &(a, c) in &self.terms {
            terms.push((a, c.checked_mul(scale).ok_or_else(overflow)?));
        }
        Ok(Affine { base: base.ok_or_else(overflow)?, terms })
    }

    /// `self + factor * other`; `None` on overflow.
    pub fn plus(&self, other: &Affine, factor: i64) -> Option<Affine> {
        let base = self.base.checked_add(&other.base.checked_mul(&Dim::constant(factor))?)?;
        let mut terms = self.terms.clone();
        for &(axis, c) in &other.terms {
            let c = c.checked_mul(factor)?;
            match terms.iter_mut().find(|t| t.0 == axis) {
                Some(t) => t.1 = t.1.checked_add(c)?,
                None => terms.push((axis, c)),
            }
        }
        terms.retain(|t| t.1 != 0);
        terms.sort_unstable();
        Some(Affine { base, terms })
    }

    /// The number if no axis and no symbol occurs.
    pub fn as_const(&self) -> Option<i64> {
        self.base.as_const().filter(|_| self.terms.is_empty())
    }

    /// The axis if this is exactly the position along one.
    pub fn plain_axis(&self) -> Option<AxisId> {
        match self.terms.as_slice() {
            [(a, 1)] if self.base.is(0) => Some(*a),
            _ => None,
        }
    }
}

/// Where one dim of an input is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// At an affine position.
    Affine(Affine),
    /// At the value of an integer term.
    Term(TermId),
}

/// A value at one point of the axes that it depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// A scalar known now.
    Const(Literal),
    /// A position, as i64.
    Iota(Affine),
    /// A size, as i64.
    Size(Dim),
    /// An element of input `input`; `open`: the map may leave the input, and then reads 0.
    Load {
        /// Index into [`Region::inputs`].
        input: usize,
        /// One entry per dim of the input.
        map: Vec<Index>,
        /// May leave the input.
        open: bool,
    },
    /// A scalar op.
    Map(ScalarOp, Vec<TermId>),
    /// Folds `arg` over an axis.
    Fold {
        /// With what.
        kind: ReduceKind,
        /// The axis, which leaves.
        axis: AxisId,
        /// What is folded.
        arg: TermId,
    },
    /// Position of the first largest (`largest`) or smallest element along an axis, as i64.
    ArgFold {
        /// Largest, else smallest.
        largest: bool,
        /// The axis, which leaves.
        axis: AxisId,
        /// What is compared.
        arg: TermId,
    },
    /// One pass over an axis: the sum of `exp(key - max of key) * weight` over the positions where `mask` holds. Terms
    /// of one axis, key and mask share the pass and its running maximum.
    Online {
        /// The axis, which leaves.
        axis: AxisId,
        /// The exponent.
        key: TermId,
        /// What is summed.
        weight: TermId,
        /// A bool; positions where it does not hold are skipped.
        mask: Option<TermId>,
    },
    /// The sum of squared distances from the mean along an axis, in one pass.
    Moment {
        /// The axis, which leaves.
        axis: AxisId,
        /// Whose.
        arg: TermId,
    },
    /// The accumulator of the region's contraction at the output's own position.
    Product,
}

impl Term {
    /// The same with other operands.
    pub fn with_operands(&self, new: &dyn Fn(TermId) -> TermId) -> Term {
        match self {
            Term::Load { input, map, open } => {
                let index = |i: &Index| match i {
                    Index::Affine(a) => Index::Affine(a.clone()),
                    Index::Term(t) => Index::Term(new(*t)),
                };
                Term::Load { input: *input, map: map.iter().map(index).collect(), open: *open }
            }
            Term::Map(op, args) => Term::Map(op.clone(), args.iter().map(|&a| new(a)).collect()),
            Term::Fold { kind, axis, arg } => Term::Fold { kind: *kind, axis: *axis, arg: new(*arg) },
            Term::ArgFold { largest, axis, arg } => Term::ArgFold { largest: *largest, axis: *axis, arg: new(*arg) },
            Term::Online { axis, key, weight, mask } => {
                Term::Online { axis: *axis, key: new(*key), weight: new(*weight), mask: mask.map(new) }
            }
            Term::Moment { axis, arg } => Term::Moment { axis: *axis, arg: new(*arg) },
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Product => self.clone(),
        }
    }

    /// The terms that it is computed from.
    pub fn operands(&self) -> Vec<TermId> {
        match self {
            Term::Const(_) | Term::Size(_) | Term::Iota(_) | Term::Product => Vec::new(),
            Term::Load { map, .. } => map
                .iter()
                .filter_map(|i| match i {
                    Index::Term(t) => Some(*t),
                    Index::Affine(_) => None,
                })
                .collect(),
            Term::Map(_, args) => args.clone(),
            Term::Fold { arg, .. } | Term::ArgFold { arg, .. } | Term::Moment { arg, .. } => vec![*arg],
            Term::Online { key, weight, mask, .. } => {
                [Some(*key), Some(*weight), *mask].into_iter().flatten().collect()
            }
        }
    }
}

/// What a region stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The value.
    pub root: TermId,
    /// Its axes in memory order, all below [`Region::rank`]. Where one is missing, it is stored once.
    pub axes: Vec<AxisId>,
}

/// What one kernel computes, over named axes.
#[derive(Clone, Debug)]
pub struct Region {
    /// All axes: those of the outputs, in memory order of the first, then those that are only folded.
    pub axes: Vec<(Ident, Dim)>,
    /// How many axes the outputs have.
    pub rank: usize,
    /// Program buffers that are read. The shape is how this region sees the memory: dims may be split or merged.
    pub inputs: Vec<(Ident, Type)>,
    /// Terms with their dtypes.
    pub terms: Vec<(Term, DType)>,
    /// The axes that each term depends on.
    pub free: Vec<BTreeSet<AxisId>>,
    /// What is stored, at least one.
    pub outputs: Vec<Output>,
    /// Lines that it comes from.
    pub places: Vec<Place>,
    /// The symbols of its sizes with their ranges.
    pub symbols: Vec<SymbolDecl>,
}

impl Region {
    /// The region with an input of its own for each load, so that a template may put panels in place of one.
    pub fn with_own_inputs(&self) -> Region {
        let mut out = self.clone();
        let mut seen = BTreeSet::new();
        for (term, _) in &mut out.terms {
            if let Term::Load { input, .. } = term
                && !seen.insert(*input)
            {
                let again = out.inputs[*input].clone();
                *input = out.inputs.len();
                out.inputs.push(again);
            }
        }
        out
    }

    /// Whether every fold can be computed before the loop over the output's innermost axis, once per point of the outer.
    pub fn folds_are_rows(&self) -> bool {
        let Some(last) = self.rank.checked_sub(1) else { return false };
        self.terms.iter().enumerate().all(|(i, (t, _))| match t {
            Term::Fold { .. } => {
                let outer = self.free[i].iter().filter(|&&a| a < last).count();
                outer == last && !self.free[i].contains(&last)
            }
            Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product => false,
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => true,
        })
    }
}
