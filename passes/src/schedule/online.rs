//! Steps of the folds that keep more than a sum: online sums of exponentials, and moments.

use super::attention::is_key;
use super::emit::{Bind, Emitter, Frame};
use super::fold::{Online, Pass, State};
use super::index::{add, ceil, dim, floor, identity, mul};
use super::write::{buffer, least, load, minus, most, plus, point, scalar, select, store, times};
use crate::region::{Affine, Limits, Term, TermId, limits};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Expr, Space, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// Whether `arg` is what an online fold takes the maximum of.
    pub(super) fn is_key(&self, arg: TermId, o: &Online) -> bool {
        is_key(self.region, arg, o.key, o.mask)
    }

    /// The first trip of a pass and the end of its trips: where every fold of it is masked by positions, what is before or
    /// after all that the mask shows is left out.
    pub(super) fn trips(&self, pass: &Pass, online: &[Online], states: &[State]) -> Result<(Expr, Expr), Diagnostic> {
        let all = (Expr::Int(0), ceil(dim(&self.region.axes[pass.axis].1), pass.size));
        if states.iter().any(|s| !matches!(s, State::Top { .. })) {
            return Ok(all);
        }
        let [o] = online else { return Ok(all) };
        let Some(mask) = o.mask else { return Ok(all) };
        let Limits { starts, ends } = limits(self.region, mask, pass.axis);
        let (mut first, mut end) = all;
        for limit in &starts {
            first = most(first, floor(self.extreme(limit, false)?, pass.size));
        }
        for limit in &ends {
            end = least(end, ceil(self.extreme(limit, true)?, pass.size));
        }
        Ok((first, end))
    }

    /// The largest value, or the smallest, that a position has where its axes are bound.
    fn extreme(&self, a: &Affine, largest: bool) -> Result<Expr, Diagnostic> {
        let mut sum = dim(&a.base);
        for &(axis, c) in &a.terms {
            let at = match self.bind(axis)?.clone() {
                Bind::Point(at) => at,
                Bind::Tile { start, size, .. } if (c > 0) == largest => add(start, Expr::Int(size - 1)),
                Bind::Tile { start, .. } => start,
            };
            sum = add(sum, mul(Expr::Int(c), at));
        }
        Ok(sum)
    }

    /// Merges the moments of a tile into those before it (Chan).
    pub(super) fn moment_step(
        &mut self,
        arg: TermId,
        mean: &Ident,
        moment: &Ident,
        pass: &Pass,
    ) -> Result<(), Diagnostic> {
        let dtype = self.region.terms[arg].1;
        let zero = || identity(ReduceKind::Sum, dtype);
        let n = dim(&self.region.axes[pass.axis].1);
        let count = if pass.open {
            least(Expr::Int(pass.size), add(n, mul(Expr::Int(-1), pass.start.clone())))
        } else {
            Expr::Int(pass.size)
        };
        let count = self.name(Expr::cast(dtype, count))?;
        let before = self.name(Expr::cast(dtype, pass.start.clone()))?;
        let total = self.name(plus(before.clone(), count.clone()))?;
        let x = self.emit(arg)?;
        let valid = self.valid(pass, None)?;
        let filled = self.along(x.clone(), arg, valid.as_ref(), zero(), pass);
        let sum = self.reduced(TileReduce::Sum, filled, pass);
        let own_mean = self.name(scalar(ScalarOp::Div {}, [sum, count.clone()]))?;
        let gap = self.name(minus(own_mean.clone(), Expr::Name(mean.clone())))?;
        if pass.strip {
            let d = minus(x, own_mean);
            let square = self.along(times(d.clone(), d), arg, valid.as_ref(), zero(), pass);
            let own = self.reduced(TileReduce::Sum, square, pass);
            self.set(moment, plus(Expr::Name(moment.clone()), own))?;
        }
        let share = scalar(ScalarOp::Div {}, [count, total]);
        let share = self.name(share)?;
        let between = times(times(gap.clone(), gap.clone()), times(before, share.clone()));
        self.set(moment, plus(Expr::Name(moment.clone()), between))?;
        self.set(mean, plus(Expr::Name(mean.clone()), times(gap, share)))
    }

    /// Moves a running maximum and its sums over a tile. A row whose mask holds nowhere keeps -inf and 0.
    pub(super) fn online_step(&mut self, o: &Online, pass: &Pass) -> Result<(), Diagnostic> {
        let region = self.region;
        let dtype = region.terms[o.key].1;
        let nothing = || identity(ReduceKind::Max, dtype);
        let zero = || identity(ReduceKind::Sum, dtype);
        let key = self.emit(o.key)?;
        let valid = match self.valid(pass, o.mask)? {
            Some(p) => Some(self.name(p)?),
            None => None,
        };
        let key = self.along(key, o.key, valid.as_ref(), nothing(), pass);
        let key = self.name(key)?;
        let top = Expr::Name(o.top.clone());
        let own = self.reduced(TileReduce::Max, key.clone(), pass);
        let new = self.name(scalar(ScalarOp::Max {}, [top.clone(), own]))?;
        let none_yet = scalar(ScalarOp::Eq {}, [new.clone(), nothing()]);
        let safe = self.name(select(none_yet, zero(), new.clone()))?;
        let rescale = self.name(scalar(ScalarOp::Exp {}, [minus(top, safe.clone())]))?;
        let e = self.name(scalar(ScalarOp::Exp {}, [minus(key, safe)]))?;
        let mut spilled = None;
        for (_, weight, sum) in &o.sums {
            let old = times(Expr::Name(sum.clone()), rescale.clone());
            let tiles = self.has_tile(&region.free[*weight], pass.axis);
            if pass.strip && tiles && region.free[*weight].contains(&pass.axis) {
                self.set(sum, old)?;
                let buffer = match &spilled {
                    Some(buffer) => Ident::clone(buffer),
                    None => self.spill(&e, dtype, pass)?,
                };
                self.weighted_rows(*weight, sum, &buffer, o.mask.is_some(), pass)?;
                spilled = Some(buffer);
                continue;
            }
            let more = if self.is_one(*weight) {
                self.reduced(TileReduce::Sum, e.clone(), pass)
            } else if pass.strip && tiles {
                times(self.reduced(TileReduce::Sum, e.clone(), pass), self.emit(*weight)?)
            } else {
                let product = times(e.clone(), self.emit(*weight)?);
                let product = match &valid {
                    Some(p) => select(p.clone(), product, zero()),
                    None => product,
                };
                self.reduced(TileReduce::Sum, product, pass)
            };
            self.set(sum, plus(old, more))?;
        }
        self.set(&o.top, new)
    }

    fn is_one(&self, term: TermId) -> bool {
        match &self.region.terms[term].0 {
            Term::Const(value) => value.0.to_f64().is_some_and(|v| v == [1.0]),
            _other => false,
        }
    }

    /// A tile along the axis of a strip in memory, to be read one by one.
    fn spill(&mut self, tile: &Expr, dtype: DType, pass: &Pass) -> Result<Ident, Diagnostic> {
        let name = self.fresh("p");
        let axes = vec![(self.region.axes[pass.axis].0.clone(), Expr::Int(pass.size))];
        let access = Access::whole(&name);
        let stmts = &mut self.last()?.stmts;
        stmts.push(Stmt::Buffer(buffer(Space::Cache, name.clone(), dtype, axes)));
        stmts.push(store(access, tile.clone()));
        Ok(name)
    }

    /// Adds the rows of a weight that varies along other tiles too, each times its element of `buffer`.
    fn weighted_rows(
        &mut self,
        weight: TermId,
        sum: &Ident,
        buffer: &Ident,
        masked: bool,
        pass: &Pass,
    ) -> Result<(), Diagnostic> {
        let var = self.fresh("j");
        let at = Expr::Name(var.clone());
        let bind = Bind::Point(add(pass.start.clone(), at.clone()));
        self.frames.push(Frame::with(BTreeMap::from([(pass.axis, bind)])));
        let name = self.fresh("v");
        let access = Access::new(buffer, vec![point(at)]);
        self.last()?.stmts.push(load(&name, access));
        let e = Expr::Name(name);
        let mut product = times(e.clone(), self.emit(weight)?);
        if masked {
            let zero = identity(ReduceKind::Sum, self.region.terms[weight].1);
            product = select(scalar(ScalarOp::Eq {}, [e, zero.clone()]), zero, product);
        }
        self.set(sum, plus(Expr::Name(sum.clone()), product))?;
        let n = dim(&self.region.axes[pass.axis].1);
        let left = add(n, mul(Expr::Int(-1), pass.start.clone()));
        let high = if pass.open { least(Expr::Int(pass.size), left) } else { Expr::Int(pass.size) };
        self.close(var, high)
    }
}
