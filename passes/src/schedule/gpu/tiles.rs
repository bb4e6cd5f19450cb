//! Folds over an axis that is here as one whole tile: the team reduces its registers.

use super::super::emit::{Emitted, Emitter};
use super::super::fold::of_tile;
use super::super::index::{dim, identity};
use super::super::write::{minus, scalar, select, times};
use crate::region::{AxisId, Term, TermId};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Expr, TileReduce};
use tilewright_ir::op::{ReduceKind, ScalarOp};

impl Emitter<'_> {
    /// Whether `term` needs a fold, along `axis`, that has no form for a tile of results.
    pub(in super::super) fn team_scalar_only(&self, term: TermId, axis: AxisId) -> bool {
        let what = &self.region.terms[term].0;
        let own = matches!(what, Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. });
        self.region.free[term].contains(&axis)
            && (own || what.operands().iter().any(|&t| self.team_scalar_only(t, axis)))
    }

    /// The value of a fold over `axis`, named in frame `place`.
    pub(in super::super) fn fold_of_tile(&mut self, term: TermId, axis: AxisId, place: usize) -> Emitted {
        let region = self.region;
        let (axis_name, dtype) = (region.axes[axis].0.clone(), region.terms[term].1);
        let reduce = |kind, value| Expr::Reduce(kind, Box::new(value), axis_name.clone());
        let everywhere = |t: TermId| region.free[t].contains(&axis);
        match region.terms[term].0.clone() {
            Term::Fold { kind, arg, .. } if everywhere(arg) => {
                let value = self.emit(arg)?;
                self.let_at(term, place, reduce(of_tile(kind), value))
            }
            Term::Online { key, weight, mask, .. } if everywhere(key) => {
                let (nothing, zero) = (identity(ReduceKind::Max, dtype), identity(ReduceKind::Sum, dtype));
                let mask = mask.map(|m| self.emit(m)).transpose()?;
                let masked = |value, fill| match &mask {
                    Some(m) => select(m.clone(), value, fill),
                    None => value,
                };
                let key = self.emit(key)?;
                let key = self.name(masked(key, nothing.clone()))?;
                let top = self.name(reduce(TileReduce::Max, key.clone()))?;
                // A row whose mask holds nowhere has the sum 0.
                let safe = select(scalar(ScalarOp::Eq {}, [top.clone(), nothing]), zero.clone(), top);
                let safe = self.name(safe)?;
                let e = scalar(ScalarOp::Exp {}, [minus(key, safe)]);
                let weight = self.emit(weight)?;
                let product = masked(times(e, weight), zero);
                self.let_at(term, place, reduce(TileReduce::Sum, product))
            }
            Term::Moment { arg, .. } if everywhere(arg) => {
                let x = self.emit(arg)?;
                let x = self.name(x)?;
                let n = Expr::cast(dtype, dim(&region.axes[axis].1));
                let mean = scalar(ScalarOp::Div {}, [reduce(TileReduce::Sum, x.clone()), n]);
                let mean = self.name(mean)?;
                let d = self.name(minus(x, mean))?;
                self.let_at(term, place, reduce(TileReduce::Sum, times(d.clone(), d)))
            }
            _other => Err(Diagnostic::bug("a fold of a tile that has not its axis")),
        }
    }
}
