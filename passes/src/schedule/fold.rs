//! Passes over an axis. Folds over one axis whose bodies need no other of them share a loop: plain folds, the running
//! moments of a variance, and online sums of exponentials with one running maximum for all that share a key.

use super::emit::{Bind, Emitted, Emitter, Frame, tile_of};
use super::index::{ceil, dim, identity, mul};
use super::write::{buffer, scalar, select};
use crate::region::{AxisId, Index, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Expr, Space, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// A pass over an axis: the position of its innermost frame.
pub(super) struct Pass {
    pub(super) axis: AxisId,
    /// Tiles along the axis, else points.
    pub(super) strip: bool,
    pub(super) start: Expr,
    pub(super) size: i64,
    pub(super) open: bool,
}

/// One running maximum and its sums.
pub(super) struct Online {
    pub(super) key: TermId,
    pub(super) mask: Option<TermId>,
    pub(super) top: Ident,
    /// Term, weight, accumulator.
    pub(super) sums: Vec<(TermId, TermId, Ident)>,
}

/// A fold with its accumulators.
pub(super) enum State {
    Plain {
        term: TermId,
        kind: ReduceKind,
        arg: TermId,
        sum: Ident,
    },
    Moment {
        term: TermId,
        arg: TermId,
        mean: Ident,
        moment: Ident,
    },
    /// A maximum that is the running maximum of an online fold.
    Top {
        term: TermId,
        top: Ident,
    },
}

pub(super) fn of_tile(kind: ReduceKind) -> TileReduce {
    match kind {
        ReduceKind::Sum => TileReduce::Sum,
        ReduceKind::Prod => TileReduce::Prod,
        ReduceKind::Max => TileReduce::Max,
        ReduceKind::Min => TileReduce::Min,
    }
}

/// The axis of a fold that shares passes.
pub(super) fn axis_of(term: &Term) -> Option<AxisId> {
    match term {
        Term::Fold { axis, .. } | Term::Online { axis, .. } | Term::Moment { axis, .. } => Some(*axis),
        Term::ArgFold { .. }
        | Term::Const(_)
        | Term::Size(_)
        | Term::Iota(_)
        | Term::Product
        | Term::Load { .. }
        | Term::Map(..) => None,
    }
}

impl Emitter<'_> {
    fn is_bound(&self, axis: AxisId) -> bool {
        self.bind(axis).is_ok()
    }

    pub(super) fn has_tile(&self, free: &BTreeSet<AxisId>, but: AxisId) -> bool {
        free.iter().any(|&a| a != but && self.is_tile(a))
    }

    /// The tile axes among `free`, as axes of a buffer.
    pub(super) fn tile_axes(&self, free: &BTreeSet<AxisId>) -> Vec<(Ident, Expr)> {
        let size = |a: AxisId| match self.bind(a) {
            Ok(Bind::Tile { size, .. }) => Some((self.region.axes[a].0.clone(), Expr::Int(*size))),
            Ok(Bind::Point(_)) | Err(_) => None,
        };
        free.iter().filter_map(|&a| size(a)).collect()
    }

    /// Whether any fold, or index that is gathered, under `term` depends on `axis`.
    fn scalar_only(&self, term: TermId, axis: AxisId) -> bool {
        if !self.region.free[term].contains(&axis) {
            return false;
        }
        match &self.region.terms[term].0 {
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } => true,
            Term::Load { map, .. } => map.iter().any(|i| match i {
                Index::Term(t) if self.by_team() => self.scalar_only(*t, axis),
                Index::Term(t) => self.region.free[*t].contains(&axis),
                Index::Affine(_) => false,
            }),
            Term::Map(_, args) => args.iter().any(|&a| self.scalar_only(a, axis)),
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Product => false,
        }
    }

    /// Whether a fold can go along its axis in tiles.
    fn strips(&self, term: TermId, axis: AxisId) -> bool {
        let free = |t: TermId| &self.region.free[t];
        match &self.region.terms[term].0 {
            Term::Fold { arg, .. } | Term::Moment { arg, .. } => {
                !self.has_tile(free(term), axis) && !self.scalar_only(*arg, axis)
            }
            Term::Online { key, weight, mask, .. } => {
                let own = [Some(*key), *mask];
                // A team computes a tile of plain folds at once, a thread each.
                let alone = |t: TermId| {
                    if self.by_team() { self.team_scalar_only(t, axis) } else { self.scalar_only(t, axis) }
                };
                let flat = |t: TermId| !self.has_tile(free(t), axis) && !alone(t);
                own.into_iter().flatten().all(flat) && (self.has_tile(free(*weight), axis) || !alone(*weight))
            }
            Term::ArgFold { .. }
            | Term::Const(_)
            | Term::Iota(_)
            | Term::Size(_)
            | Term::Load { .. }
            | Term::Map(..)
            | Term::Product => false,
        }
    }

    /// Folds over `axis` below `term` that can be computed now and are not yet, operands before users.
    fn pending(&self, term: TermId, axis: AxisId) -> BTreeSet<TermId> {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = self.region.terms[term].0.operands();
        while let Some(t) = open.pop() {
            if !seen.insert(t) {
                continue;
            }
            let what = &self.region.terms[t].0;
            let mine = axis_of(what) == Some(axis) && self.region.free[t].iter().all(|&a| self.is_bound(a));
            if mine && self.frames[self.place(t)].memo.contains_key(&t) {
                continue;
            }
            if mine {
                found.insert(t);
            }
            open.extend(what.operands());
        }
        found
    }

    /// Whether a fold below `term` has its pass running: its value is there after that pass only.
    fn waits(&self, term: TermId) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), self.region.terms[term].0.operands());
        while let Some(t) = open.pop() {
            if self.running.contains(&t) {
                return true;
            }
            if seen.insert(t) {
                open.extend(self.region.terms[t].0.operands());
            }
        }
        false
    }

    /// The folds that share the pass of `term`, itself first.
    fn group(&self, term: TermId, axis: AxisId, place: usize) -> Vec<TermId> {
        let strip = self.strips(term, axis);
        let joins = |t: TermId| {
            t != term
                && axis_of(&self.region.terms[t].0) == Some(axis)
                && self.region.free[t].iter().all(|&a| self.is_bound(a))
                && self.place(t) == place
                && self.strips(t, axis) == strip
                && !self.frames[place].memo.contains_key(&t)
                && self.product.as_ref().is_none_or(|p| p.0 != t)
                && self.pending(t, axis).is_empty()
                && !self.waits(t)
        };
        std::iter::once(term).chain((0..self.region.terms.len()).filter(|&t| joins(t))).collect()
    }

    pub(super) fn register(
        &mut self,
        prefix: &str,
        dtype: DType,
        axes: Vec<(Ident, Expr)>,
        start: Expr,
    ) -> Result<Ident, Diagnostic> {
        let name = self.fresh(prefix);
        let stmts = &mut self.last()?.stmts;
        stmts.push(Stmt::Buffer(buffer(Space::Reg, name.clone(), dtype, axes)));
        stmts.push(Stmt::Set { name: name.clone(), value: start });
        Ok(name)
    }

    pub(super) fn set(&mut self, name: &Ident, value: Expr) -> Result<(), Diagnostic> {
        self.last()?.stmts.push(Stmt::Set { name: name.clone(), value });
        Ok(())
    }

    /// Emits the pass over `axis` that computes `term`, in the frame `place`.
    pub(super) fn fold(&mut self, term: TermId, axis: AxisId, place: usize) -> Emitted {
        let region = self.region;
        // What is bound further in is not bound for this fold.
        let above = self.frames.split_off(place + 1);
        // What a fold lacks the axis of is the same at each of its positions: a loop, as anywhere.
        let at_hand = match &region.terms[term].0 {
            Term::Fold { arg, .. } | Term::Moment { arg, .. } => region.free[*arg].contains(&axis),
            Term::Online { key, .. } => region.free[*key].contains(&axis),
            _other => false,
        };
        // Of an axis that another value is stored along only a part may be here: the fold has positions of its own.
        let whole = matches!(self.bind(axis), Ok(Bind::Tile { start: Expr::Int(0), open: false, .. }));
        if at_hand && whole {
            let result = self.fold_of_tile(term, axis, place)?;
            self.frames.extend(above);
            return Ok(result);
        }
        for inner in self.pending(term, axis) {
            self.emit(inner)?;
        }
        if !self.frames[place].memo.contains_key(&term) {
            let group = self.group(term, axis, place);
            let strip = self.strips(term, axis);
            let n = &region.axes[axis].1;
            let (size, open) = if strip { tile_of(n, self.strip) } else { (1, false) };
            let running = self.running.len();
            self.running.extend(&group);
            if let (true, [_], Term::Fold { kind, arg, .. }) = (strip && n.is(size), &group[..], &region.terms[term].0)
            {
                let value = self.single((term, *arg), *kind, (axis, size), place)?;
                self.running.truncate(running);
                self.frames.extend(above);
                return Ok(value);
            }
            let var = self.fresh("j");
            let start = mul(Expr::Name(var.clone()), Expr::Int(size));
            let pass = Pass { axis, strip, start: start.clone(), size, open };
            let (online, states) = self.states(&group, &pass)?;
            let (low, high) = self.trips(&pass, &online, &states)?;
            let whole = low == Expr::Int(0) && high == ceil(dim(n), size);
            let bind = if strip { Bind::Tile { start, size, open } } else { Bind::Point(start) };
            self.frames.push(Frame::with(BTreeMap::from([(axis, bind)])));
            if strip {
                self.strip(axis, size, whole);
            }
            for state in &states {
                self.step(state, &pass)?;
            }
            for o in &online {
                self.online_step(o, &pass)?;
            }
            self.close_between(var, low, high)?;
            self.results(&online, &states, &pass, place)?;
            self.running.truncate(running);
        }
        let result = self.frames[place].memo.get(&term).cloned();
        self.frames.extend(above);
        result.ok_or_else(|| Diagnostic::bug("a pass does not compute its fold"))
    }

    /// A fold of one tile: no loop, nothing to accumulate.
    fn single(
        &mut self,
        (term, arg): (TermId, TermId),
        kind: ReduceKind,
        (axis, size): (AxisId, i64),
        place: usize,
    ) -> Emitted {
        let bind = Bind::Tile { start: Expr::Int(0), size, open: false };
        self.frames.push(Frame::with(BTreeMap::from([(axis, bind)])));
        self.strip(axis, size, true);
        let value = self.emit(arg)?;
        let stmts = self.pop()?.stmts;
        self.last()?.stmts.extend(stmts);
        let pass = Pass { axis, strip: true, start: Expr::Int(0), size, open: false };
        let value = self.along(value, arg, None, identity(kind, self.region.terms[term].1), &pass);
        let value = self.reduced(of_tile(kind), value, &pass);
        let value = self.name(value)?;
        Ok(self.remember(term, place, value))
    }

    /// Declares the accumulators of a group.
    fn states(&mut self, group: &[TermId], pass: &Pass) -> Result<(Vec<Online>, Vec<State>), Diagnostic> {
        let region = self.region;
        let (mut online, mut states): (Vec<Online>, Vec<State>) = (Vec::new(), Vec::new());
        for &term in group {
            let Term::Online { key, weight, mask, .. } = region.terms[term].0 else { continue };
            let dtype = region.terms[term].1;
            let at = match online.iter().position(|o| o.key == key && o.mask == mask) {
                Some(at) => at,
                None => {
                    let mut free = region.free[key].clone();
                    free.extend(mask.iter().flat_map(|&m| region.free[m].iter().copied()));
                    free.remove(&pass.axis);
                    let axes = self.tile_axes(&free);
                    let top = self.register("m", region.terms[key].1, axes, identity(ReduceKind::Max, dtype))?;
                    online.push(Online { key, mask, top, sums: Vec::new() });
                    online.len() - 1
                }
            };
            let axes = self.tile_axes(&region.free[term]);
            let sum = self.register("s", dtype, axes, identity(ReduceKind::Sum, dtype))?;
            online[at].sums.push((term, weight, sum));
        }
        for &term in group {
            let dtype = region.terms[term].1;
            match &region.terms[term].0 {
                &Term::Fold { kind, arg, .. } => {
                    if let Some(o) = online.iter().find(|o| kind == ReduceKind::Max && self.is_key(arg, o)) {
                        states.push(State::Top { term, top: o.top.clone() });
                        continue;
                    }
                    let axes = if self.partial(pass) {
                        vec![(region.axes[pass.axis].0.clone(), Expr::Int(pass.size))]
                    } else {
                        self.tile_axes(&region.free[term])
                    };
                    let sum = self.register("s", dtype, axes, identity(kind, dtype))?;
                    states.push(State::Plain { term, kind, arg, sum });
                }
                &Term::Moment { arg, .. } => {
                    let axes = self.tile_axes(&region.free[term]);
                    let zero = || identity(ReduceKind::Sum, dtype);
                    let mean = self.register("m", dtype, axes.clone(), zero())?;
                    let moment = self.register("s", dtype, axes, zero())?;
                    states.push(State::Moment { term, arg, mean, moment });
                }
                _other => {}
            }
        }
        Ok((online, states))
    }

    /// Positions of the tile.
    pub(super) fn positions(&self, pass: &Pass) -> Expr {
        let name = self.region.axes[pass.axis].0.clone();
        Expr::Iota(name, Box::new(pass.start.clone()), Box::new(Expr::Int(pass.size)))
    }

    /// Where the tile is inside the axis and the mask holds; none is everywhere.
    pub(super) fn valid(&mut self, pass: &Pass, mask: Option<TermId>) -> Result<Option<Expr>, Diagnostic> {
        let size = dim(&self.region.axes[pass.axis].1);
        let inside = pass.open.then(|| scalar(ScalarOp::Lt {}, [self.positions(pass), size]));
        let mask = mask.map(|m| self.emit(m)).transpose()?;
        Ok(match (inside, mask) {
            (Some(a), Some(b)) => Some(scalar(ScalarOp::And {}, [a, b])),
            (a, b) => a.or(b),
        })
    }

    /// `value` as a tile along the axis of a strip, `fill` where it is not valid.
    pub(super) fn along(&self, value: Expr, term: TermId, valid: Option<&Expr>, fill: Expr, pass: &Pass) -> Expr {
        match valid {
            Some(p) => select(p.clone(), value, fill),
            None if pass.strip && !self.region.free[term].contains(&pass.axis) => {
                let everywhere = scalar(ScalarOp::Ge {}, [self.positions(pass), Expr::Int(0)]);
                select(everywhere, value, fill)
            }
            None => value,
        }
    }

    pub(super) fn reduced(&self, kind: TileReduce, value: Expr, pass: &Pass) -> Expr {
        if pass.strip { Expr::Reduce(kind, Box::new(value), self.region.axes[pass.axis].0.clone()) } else { value }
    }

    fn step(&mut self, state: &State, pass: &Pass) -> Result<(), Diagnostic> {
        match state {
            State::Top { .. } => Ok(()),
            State::Plain { kind, arg, sum, .. } => {
                let value = self.emit(*arg)?;
                let valid = self.valid(pass, None)?;
                let fill = identity(*kind, self.region.terms[*arg].1);
                let value = if pass.strip && !self.partial(pass) {
                    let value = self.along(value, *arg, valid.as_ref(), fill, pass);
                    self.reduced(of_tile(*kind), value, pass)
                } else {
                    match valid {
                        Some(p) => select(p, value, fill),
                        None => value,
                    }
                };
                self.set(sum, scalar(kind.combine(self.region.terms[*arg].1), [Expr::Name(sum.clone()), value]))
            }
            State::Moment { arg, mean, moment, .. } => self.moment_step(*arg, mean, moment, pass),
        }
    }

    /// Whether a pass keeps a sum for each place of its tile: a team has a thread for each. A core folds a tile in vector
    /// registers instead, where partial sums would be loaded and stored at every step.
    fn partial(&self, pass: &Pass) -> bool {
        pass.strip && self.by_team()
    }

    /// Remembers what a pass computed.
    fn results(&mut self, online: &[Online], states: &[State], pass: &Pass, place: usize) -> Result<(), Diagnostic> {
        for o in online {
            for (term, _, sum) in &o.sums {
                self.remember(*term, place, Expr::Name(sum.clone()));
            }
        }
        for state in states {
            let (term, value) = match state {
                State::Top { term, top } => (*term, Expr::Name(top.clone())),
                State::Moment { term, moment, .. } => (*term, Expr::Name(moment.clone())),
                State::Plain { term, kind, sum, .. } => {
                    let value = Expr::Name(sum.clone());
                    let value =
                        if self.partial(pass) { self.name(self.reduced(of_tile(*kind), value, pass))? } else { value };
                    (*term, value)
                }
            };
            self.remember(term, place, value);
        }
        Ok(())
    }
}
