//! Positions of extremes: one after the other on a core, by strips in a team.

use super::emit::{Bind, Emitted, Emitter, Frame, tile_of};
use super::index::{ceil, dim, identity, mul};
use super::write::{buffer, repeat, scalar, select};
use crate::region::{AxisId, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Expr, Space, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

fn reg(name: &Ident, dtype: DType, axes: Vec<(Ident, Expr)>) -> Stmt {
    Stmt::Buffer(buffer(Space::Reg, name.clone(), dtype, axes))
}

/// Whether `value` comes before `old` in the order of the search: NaN beats every number.
fn better(largest: bool, dtype: DType, value: &Expr, old: &Expr) -> Expr {
    let op = if largest { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
    let beats = scalar(op, [value.clone(), old.clone()]);
    if !dtype.is_float() {
        return beats;
    }
    let nan = scalar(ScalarOp::Ne {}, [value.clone(), value.clone()]);
    let known = scalar(ScalarOp::Eq {}, [old.clone(), old.clone()]);
    scalar(ScalarOp::Or {}, [beats, scalar(ScalarOp::And {}, [nan, known])])
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
        let better = better(largest, dtype, &value, &Expr::Name(best.clone()));
        let first = scalar(ScalarOp::Eq {}, [j.clone(), Expr::Int(0)]);
        let better = scalar(ScalarOp::Or {}, [better, first]);
        let name = self.fresh("v");
        body.push(Stmt::Let { names: vec![name.clone()], value: better });
        let pick = |new: Expr, old: &Ident| Stmt::Set {
            name: old.clone(),
            value: select(Expr::Name(name.clone()), new, Expr::Name(old.clone())),
        };
        body.push(pick(j, &at));
        body.push(pick(value, &best));
        let stmts = &mut self.last()?.stmts;
        stmts.push(reg(&best, dtype, Vec::new()));
        stmts.push(reg(&at, DType::I64, Vec::new()));
        stmts.push(Stmt::Set { name: best.clone(), value: Expr::cast(dtype, Expr::Int(0)) });
        stmts.push(Stmt::Set { name: at.clone(), value: Expr::Int(0) });
        let high = dim(&region.axes[axis].1);
        stmts.push(repeat(var, high, body));
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
        let nothing = scalar(ScalarOp::Eq {}, [old_at.clone(), n.clone()]);
        let mut take = scalar(ScalarOp::Or {}, [better(largest, dtype, &value, &old), nothing]);
        if open {
            take = scalar(ScalarOp::And {}, [take, scalar(ScalarOp::Lt {}, [position.clone(), n.clone()])]);
        }
        let take = named(self.fresh("v"), take, &mut body);
        body.push(Stmt::Set { name: at.clone(), value: select(take.clone(), position, old_at.clone()) });
        body.push(Stmt::Set { name: best.clone(), value: select(take.clone(), value, old.clone()) });
        let stmts = &mut self.last()?.stmts;
        stmts.push(reg(&best, dtype, vec![(axis_name.clone(), lanes.clone())]));
        stmts.push(reg(&at, DType::I64, vec![(axis_name.clone(), lanes)]));
        stmts.push(Stmt::Set { name: best.clone(), value: Expr::cast(dtype, Expr::Int(0)) });
        stmts.push(Stmt::Set { name: at.clone(), value: n.clone() });
        let high = ceil(n.clone(), size);
        stmts.push(repeat(var, high, body));
        // Lanes that saw nothing take no part.
        let seen = scalar(ScalarOp::Lt {}, [old_at.clone(), n.clone()]);
        let (fold, tile) =
            if largest { (ReduceKind::Max, TileReduce::Max) } else { (ReduceKind::Min, TileReduce::Min) };
        let lane = named(self.fresh("v"), select(seen.clone(), old, identity(fold, dtype)), stmts_of(self)?);
        let top = Expr::Reduce(tile, Box::new(lane.clone()), axis_name.clone());
        let top = named(self.fresh("v"), top, stmts_of(self)?);
        let mut hit = scalar(ScalarOp::Eq {}, [lane.clone(), top.clone()]);
        if dtype.is_float() {
            let nan = |e: &Expr| scalar(ScalarOp::Ne {}, [e.clone(), e.clone()]);
            hit = scalar(ScalarOp::Or {}, [hit, scalar(ScalarOp::And {}, [nan(&lane), nan(&top)])]);
        }
        let first = select(scalar(ScalarOp::And {}, [hit, seen]), old_at, n);
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
