//! Positions of extremes: one after the other on a core, by strips in a team.

use super::emit::{Bind, Emitted, Emitter, Frame, tile_of};
use super::index::{ceil, dim, identity, mul};
use crate::region::{AxisId, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Buffer, Expr, Space, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

fn reg(name: &Ident, dtype: DType, axes: Vec<(Ident, Expr)>) -> Stmt {
    Stmt::Buffer(Buffer { space: Space::Reg, name: name.clone(), dtype, axes, attrs: Vec::new() })
}

fn select(condition: &Expr, yes: Expr, no: Expr) -> Expr {
    Expr::scalar(ScalarOp::Select {}, [condition.clone(), yes, no])
}

fn two(op: ScalarOp, a: Expr, b: Expr) -> Expr {
    Expr::scalar(op, [a, b])
}

/// Whether `value` comes before `old` in the order of the search: NaN beats every number.
fn better(largest: bool, dtype: DType, value: &Expr, old: &Expr) -> Expr {
    let op = if largest { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
    let beats = two(op, value.clone(), old.clone());
    if !dtype.is_float() {
        return beats;
    }
    let nan = two(ScalarOp::Ne {}, value.clone(), value.clone());
    let known = two(ScalarOp::Eq {}, old.clone(), old.clone());
    two(ScalarOp::Or {}, beats, two(ScalarOp::And {}, nan, known))
}

impl Emitter<'_> {
    /// A sequential search; all axes are points.
    pub(super) fn arg_fold(&mut self, term: TermId, largest: bool, axis: AxisId, arg: TermId, place: usize) -> Emitted {
        let region = self.region;
        let dtype = region.terms[arg].1;
        let above = self.frames.split_off(place + 1);
        let (var, best, at) = (self.fresh("j"), self.fresh("s"), self.fresh("s"));
        let j = Expr::Name(var.clone());
        self.frames.push(Frame { binds: BTreeMap::from([(axis, Bind::Point(j.clone()))]), ..Frame::default() });
        let value = self.emit(arg)?;
        let mut body = self.pop()?.stmts;
        let op = if largest { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
        let old = Expr::Name(best.clone());
        let mut better = Expr::scalar(op, [value.clone(), old.clone()]);
        if dtype.is_float() {
            let nan = Expr::scalar(ScalarOp::Ne {}, [value.clone(), value.clone()]);
            let known = Expr::scalar(ScalarOp::Eq {}, [old.clone(), old.clone()]);
            let first_nan = Expr::scalar(ScalarOp::And {}, [nan, known]);
            better = Expr::scalar(ScalarOp::Or {}, [better, first_nan]);
        }
        let first = Expr::scalar(ScalarOp::Eq {}, [j.clone(), Expr::Int(0)]);
        let better = Expr::scalar(ScalarOp::Or {}, [better, first]);
        let name = self.fresh("v");
        body.push(Stmt::Let { names: vec![name.clone()], value: better });
        let pick = |new: Expr, old: &Ident| Stmt::Set {
            name: old.clone(),
            value: Expr::scalar(ScalarOp::Select {}, [Expr::Name(name.clone()), new, Expr::Name(old.clone())]),
        };
        body.push(pick(j, &at));
        body.push(pick(value, &best));
        let stmts = &mut self.last()?.stmts;
        let scalar = |name: &Ident, dtype| {
            Stmt::Buffer(Buffer { space: Space::Reg, name: name.clone(), dtype, axes: Vec::new(), attrs: Vec::new() })
        };
        stmts.push(scalar(&best, dtype));
        stmts.push(scalar(&at, DType::I64));
        stmts.push(Stmt::Set { name: best.clone(), value: Expr::cast(dtype, Expr::Int(0)) });
        stmts.push(Stmt::Set { name: at.clone(), value: Expr::Int(0) });
        let high = dim(&region.axes[axis].1);
        stmts.push(Stmt::For { var, low: Expr::Int(0), high, step: None, unroll: false, body });
        let result = self.remember(term, place, Expr::Name(at));
        self.frames.extend(above);
        Ok(result)
    }

    /// Lanes of a team search strips, then the best lanes are compared; the first position wins.
    pub(super) fn arg_strip(
        &mut self,
        term: TermId,
        largest: bool,
        axis: AxisId,
        arg: TermId,
        place: usize,
    ) -> Emitted {
        let region = self.region;
        let dtype = region.terms[arg].1;
        let (axis_name, length) = region.axes[axis].clone();
        let kind = if largest { TileReduce::Argmax } else { TileReduce::Argmin };
        let above = self.frames.split_off(place + 1);
        if self.is_tile(axis) {
            let value = Expr::Reduce(kind, Box::new(self.emit(arg)?), axis_name);
            let result = self.let_at(term, place, value)?;
            self.frames.extend(above);
            return Ok(result);
        }
        if region.free[term].iter().any(|&a| self.is_tile(a)) {
            return Err(Diagnostic::bug("a search inside a tile"));
        }
        let (size, open) = tile_of(&length, self.strip);
        let (n, lanes) = (dim(&length), Expr::Int(size));
        let (var, best, at) = (self.fresh("j"), self.fresh("s"), self.fresh("s"));
        let start = mul(Expr::Name(var.clone()), lanes.clone());
        let bind = Bind::Tile { start: start.clone(), size, open };
        self.frames.push(Frame::with(BTreeMap::from([(axis, bind)])));
        let value = self.emit(arg)?;
        let mut body = self.pop()?.stmts;
        let named = |name: Ident, value: Expr, body: &mut Vec<Stmt>| {
            body.push(Stmt::Let { names: vec![name.clone()], value });
            Expr::Name(name)
        };
        let (old, old_at) = (Expr::Name(best.clone()), Expr::Name(at.clone()));
        let value = named(self.fresh("v"), value, &mut body);
        let position = Expr::Iota(axis_name.clone(), Box::new(start), Box::new(lanes.clone()));
        let position = named(self.fresh("v"), position, &mut body);
        let nothing = two(ScalarOp::Eq {}, old_at.clone(), n.clone());
        let mut take = two(ScalarOp::Or {}, better(largest, dtype, &value, &old), nothing);
        if open {
            take = two(ScalarOp::And {}, take, two(ScalarOp::Lt {}, position.clone(), n.clone()));
        }
        let take = named(self.fresh("v"), take, &mut body);
        body.push(Stmt::Set { name: at.clone(), value: select(&take, position, old_at.clone()) });
        body.push(Stmt::Set { name: best.clone(), value: select(&take, value, old.clone()) });
        let stmts = &mut self.last()?.stmts;
        stmts.push(reg(&best, dtype, vec![(axis_name.clone(), lanes.clone())]));
        stmts.push(reg(&at, DType::I64, vec![(axis_name.clone(), lanes)]));
        stmts.push(Stmt::Set { name: best.clone(), value: Expr::cast(dtype, Expr::Int(0)) });
        stmts.push(Stmt::Set { name: at.clone(), value: n.clone() });
        let high = ceil(n.clone(), size);
        stmts.push(Stmt::For { var, low: Expr::Int(0), high, step: None, unroll: false, body });
        // Lanes that saw nothing take no part.
        let seen = two(ScalarOp::Lt {}, old_at.clone(), n.clone());
        let (fold, tile) =
            if largest { (ReduceKind::Max, TileReduce::Max) } else { (ReduceKind::Min, TileReduce::Min) };
        let lane = named(self.fresh("v"), select(&seen, old, identity(fold, dtype)), stmts_of(self)?);
        let top = Expr::Reduce(tile, Box::new(lane.clone()), axis_name.clone());
        let top = named(self.fresh("v"), top, stmts_of(self)?);
        let mut hit = two(ScalarOp::Eq {}, lane.clone(), top.clone());
        if dtype.is_float() {
            let nan = |e: &Expr| two(ScalarOp::Ne {}, e.clone(), e.clone());
            hit = two(ScalarOp::Or {}, hit, two(ScalarOp::And {}, nan(&lane), nan(&top)));
        }
        let first = select(&two(ScalarOp::And {}, hit, seen), old_at, n);
        let result = self.let_at(term, place, Expr::Reduce(TileReduce::Min, Box::new(first), axis_name))?;
        self.frames.extend(above);
        Ok(result)
    }

    /// Names a value in frame `place`.
    pub(super) fn let_at(&mut self, term: TermId, place: usize, value: Expr) -> Emitted {
        let name = self.fresh("v");
        self.frames[place].stmts.push(Stmt::Let { names: vec![name.clone()], value });
        Ok(self.remember(term, place, Expr::Name(name)))
    }
}

fn stmts_of<'e>(e: &'e mut Emitter<'_>) -> Result<&'e mut Vec<Stmt>, Diagnostic> {
    Ok(&mut e.last()?.stmts)
}
