//! The terms of a region under construction: equal terms are one, and each knows the axes that it depends on.

use super::{Affine, AxisId, Index, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// Terms so far.
#[derive(Default)]
pub(super) struct Terms {
    /// Terms with their dtypes; operands precede users.
    pub list: Vec<(Term, DType)>,
    /// The axes that each term depends on.
    pub free: Vec<BTreeSet<AxisId>>,
    interned: BTreeMap<Term, TermId>,
}

impl Terms {
    /// The number of a term, new if there is none like it. `rank`: axes of [`Term::Product`].
    pub fn add(&mut self, term: Term, dtype: DType, rank: usize) -> TermId {
        if let Some(&id) = self.interned.get(&term) {
            return id;
        }
        let mut free = BTreeSet::new();
        let affine = |a: &Affine, free: &mut BTreeSet<AxisId>| free.extend(a.terms.iter().map(|t| t.0));
        match &term {
            Term::Const(_) | Term::Size(_) => {}
            Term::Iota(a) => affine(a, &mut free),
            Term::Load { map, .. } => {
                for index in map {
                    match index {
                        Index::Affine(a) => affine(a, &mut free),
                        Index::Term(t) => free.extend(self.free[*t].iter().copied()),
                    }
                }
            }
            Term::Map(_, args) => free.extend(args.iter().flat_map(|&a| self.free[a].iter().copied())),
            Term::Fold { axis, arg, .. } | Term::ArgFold { axis, arg, .. } | Term::Moment { axis, arg } => {
                free.extend(self.free[*arg].iter().copied().filter(|a| a != axis));
            }
            Term::Online { axis, key, weight, mask } => {
                let all = [Some(*key), Some(*weight), *mask];
                free.extend(all.into_iter().flatten().flat_map(|t| self.free[t].iter().copied()).filter(|a| a != axis));
            }
            Term::Product => free.extend(0..rank),
        }
        let id = self.list.len();
        self.list.push((term.clone(), dtype));
        self.free.push(free);
        self.interned.insert(term, id);
        id
    }

    /// A scalar op.
    pub fn map(&mut self, op: ScalarOp, args: Vec<TermId>, dtype: DType) -> TermId {
        self.add(Term::Map(op, args), dtype, 0)
    }

    /// The dtype of a term.
    pub fn dtype(&self, id: TermId) -> DType {
        self.list[id].1
    }

    /// `x` in another dtype.
    pub fn cast(&mut self, to: DType, x: TermId) -> TermId {
        if self.dtype(x) == to { x } else { self.map(ScalarOp::Cast { to }, vec![x], to) }
    }

    /// Half precision is folded in f32.
    pub fn wide(&mut self, x: TermId) -> TermId {
        self.cast(self.dtype(x).folded(), x)
    }

    /// Folds `arg` over `axes`, the last one innermost.
    pub fn fold(&mut self, kind: ReduceKind, axes: &[AxisId], arg: TermId) -> TermId {
        let dtype = self.dtype(arg);
        axes.iter().rev().fold(arg, |arg, &axis| self.add(Term::Fold { kind, axis, arg }, dtype, 0))
    }
}
