//! Rows that are held: what several passes over one row need is stored in a buffer of the row by the first of them and
//! read by the others, where that costs less than to compute it again.
//!
//! What the passes of a kernel are is known once it is written, so it is written twice: first without held rows, which
//! gives the passes ([`Trace`]), then with those that [`worth_holding`] chooses.

use super::emit::{Bind, Emitter, Frame};
use super::write::{buffer, load, range, store};
use crate::region::{AxisId, Index, Region, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Expr, Space, Stmt, expr::Ident};
use tilewright_ir::op::{Family, ScalarKind, ScalarOp};
use tilewright_ir::types::{DType, SymbolDecl};

/// Most bytes of the held rows of a kernel: half of the second cache of a core.
pub(crate) const MOST_BYTES: i64 = 512 << 10;
/// What it costs to store an element of a held row, in elementwise operations.
pub(crate) const STORE: f64 = 2.0;
/// What it costs to read it.
pub(crate) const READ: f64 = 1.0;
/// What a transcendental function costs, as devices have it.
const SPECIAL: f64 = 5.0;
/// What an element costs that no vector takes: reads with a stride, conversions of halves.
const SINGLE: f64 = 6.0;
/// What an element of a block encoding costs.
const DECODED: f64 = 12.0;

/// The buffer of a row that is held: a term may be read along other axes too, which have rows of other sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldRow {
    pub(super) axis: AxisId,
    /// Elements of the buffer, whole tiles.
    pub(super) elements: i64,
}

/// Terms whose rows are held between passes.
pub(super) type Held = BTreeMap<TermId, HeldRow>;

/// A frame that is the body of a pass over a row in tiles.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) axis: AxisId,
    pub(super) size: i64,
    /// Whether the pass sees all of the row.
    pub(super) whole: bool,
    /// Number of the pass in the trace.
    pass: usize,
}

/// What a pass computes.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    /// The frame around it, by a number: passes of one frame follow each other.
    scope: usize,
    axis: AxisId,
    size: i64,
    whole: bool,
    /// Terms whose values are made once an element.
    terms: BTreeSet<TermId>,
    /// Those that others than terms here need.
    roots: BTreeSet<TermId>,
}

/// The passes of a kernel.
pub(super) type Trace = Vec<Passed>;

impl Emitter<'_> {
    /// The innermost frame is the body of a pass over a row.
    pub(super) fn strip(&mut self, axis: AxisId, size: i64, whole: bool) {
        let pass = self.trace.len();
        let Some((last, rest)) = self.frames.split_last_mut() else { return };
        let Some(around) = rest.last_mut() else { return };
        let scope = *around.scope.get_or_insert(pass);
        last.strip = Some(Strip { axis, size, whole, pass });
        self.trace.push(Passed { scope, axis, size, whole, terms: BTreeSet::new(), roots: BTreeSet::new() });
    }

    /// A pass ends: what it has stored can be read by those that end later, which run later.
    pub(super) fn end_pass(&mut self, frame: &mut Frame) {
        let Some(strip) = &frame.strip else { return };
        self.ended.push(strip.pass);
        if let Some(around) = self.frames.last_mut() {
            around.rows.append(&mut frame.filled);
        }
    }

    /// The passes in the order in which they run.
    pub(super) fn passes(&mut self) -> Trace {
        let mut all: Vec<Option<Passed>> = std::mem::take(&mut self.trace).into_iter().map(Some).collect();
        self.ended.iter().filter_map(|&pass| all.get_mut(pass)?.take()).collect()
    }

    /// Computes the folds that are the same at all points of the innermost loop before that loop is begun, so that it
    /// finds what they store.
    pub(super) fn folds_of_points(&mut self) -> Result<(), Diagnostic> {
        let region = self.region;
        for (term, (what, _)) in region.terms.iter().enumerate() {
            let fold = matches!(what, Term::Fold { .. } | Term::Online { .. } | Term::Moment { .. });
            if fold && region.free[term].iter().all(|&a| self.bind(a).is_ok()) {
                self.emit(term)?;
            }
        }
        Ok(())
    }

    /// Notes that `term` is needed in the frame `place`, by a term of its own (`inner`) or by something else.
    pub(super) fn note(&mut self, term: TermId, place: usize, inner: bool) {
        let Some(strip) = self.frames.get(place).and_then(|f| f.strip.as_ref()) else { return };
        if let Some(pass) = self.trace.get_mut(strip.pass) {
            pass.terms.insert(term);
            if !inner {
                pass.roots.insert(term);
            }
        }
    }

    /// The value of `term` in the frame `place`, if an earlier pass has stored its row.
    pub(super) fn read_row(&mut self, term: TermId, place: usize) -> Result<Option<Expr>, Diagnostic> {
        let Some(strip) = self.frames[place].strip.clone() else { return Ok(None) };
        if self.held.get(&term).is_none_or(|row| row.axis != strip.axis) {
            return Ok(None);
        }
        let row = place.checked_sub(1).and_then(|p| self.frames[p].rows.get(&term)).filter(|r| r.1 == strip.size);
        let Some(row) = row.map(|r| r.0.clone()) else { return Ok(None) };
        let access = self.part_of_row(&row, &strip, place)?;
        let name = self.fresh("v");
        self.frames[place].stmts.push(load(&name, access));
        Ok(Some(Expr::Name(name)))
    }

    /// Stores the value of a held term in its row, and reads it from there: so it is computed into the row.
    pub(super) fn keep_row(&mut self, term: TermId, place: usize, value: Expr) -> Result<Expr, Diagnostic> {
        let Some(&HeldRow { axis, elements }) = self.held.get(&term) else { return Ok(value) };
        let along = |s: &Strip| s.whole && s.axis == axis;
        let Some(strip) = self.frames[place].strip.clone().filter(along) else { return Ok(value) };
        let Some(around) = place.checked_sub(1) else { return Ok(value) };
        let row = self.fresh("row");
        let access = self.part_of_row(&row, &strip, place)?;
        let axes = vec![(self.region.axes[axis].0.clone(), Expr::Int(elements))];
        let declared = buffer(Space::Cache, row.clone(), self.region.terms[term].1, axes);
        self.frames[around].stmts.push(Stmt::Buffer(declared));
        self.frames[place].filled.insert(term, (row, strip.size));
        let name = self.fresh("v");
        let stmts = &mut self.frames[place].stmts;
        stmts.push(store(access.clone(), value));
        stmts.push(load(&name, access));
        Ok(self.remember(term, place, Expr::Name(name)))
    }

    fn part_of_row(&self, row: &Ident, strip: &Strip, place: usize) -> Result<Access, Diagnostic> {
        match self.frames[place].binds.get(&strip.axis) {
            Some(Bind::Tile { start, size, .. }) => Ok(Access::new(row, vec![range(start.clone(), *size, false)])),
            Some(Bind::Point(_)) | None => Err(Diagnostic::bug("a pass over a row without its tile")),
        }
    }
}

/// The terms whose rows are worth holding: those that make the passes cheapest, taken one after the other while there is room.
pub(super) fn worth_holding(region: &Region, trace: &Trace, symbols: &[SymbolDecl]) -> Held {
    let mut held = Held::new();
    let mut bytes = 0i64;
    let mut seen: BTreeMap<TermId, (usize, i64, AxisId)> = BTreeMap::new();
    for (i, pass) in trace.iter().enumerate() {
        for &term in &pass.terms {
            let again =
                trace[..i].iter().any(|p| p.scope == pass.scope && p.axis == pass.axis && p.terms.contains(&term));
            if again {
                seen.insert(term, (pass.scope, pass.size, pass.axis));
            }
        }
    }
    let candidates: Vec<(TermId, HeldRow, i64)> = seen
        .into_iter()
        .filter(|(term, _)| region.terms[*term].1.is_float())
        .filter_map(|(term, (_, size, axis))| {
            let most = region.axes[axis].1.bounds(symbols).1.max(1);
            let elements = most.checked_add(size - 1)?.div_euclid(size).checked_mul(size)?;
            let width = i64::try_from(region.terms[term].1.block().1).ok()?;
            Some((term, HeldRow { axis, elements }, elements.checked_mul(width)?))
        })
        .collect();
    let mut cost = passes(region, trace, &held);
    loop {
        let mut best = None;
        for &(term, row, size) in &candidates {
            if held.contains_key(&term) || bytes.saturating_add(size) > MOST_BYTES {
                continue;
            }
            let mut more = held.clone();
            more.insert(term, row);
            let new = passes(region, trace, &more);
            if new < best.as_ref().map_or(cost, |b: &(f64, Held, i64)| b.0) {
                best = Some((new, more, size));
            }
        }
        let Some((new, more, size)) = best else { return held };
        (cost, held) = (new, more);
        bytes = bytes.saturating_add(size);
    }
}

/// Operations for an element in each pass, where the rows of `held` are.
fn passes(region: &Region, trace: &Trace, held: &Held) -> f64 {
    let mut stored: BTreeSet<(usize, AxisId, TermId)> = BTreeSet::new();
    let mut cost = 0.0;
    for pass in trace {
        let mut open: Vec<TermId> = pass.roots.iter().copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(term) = open.pop() {
            if !pass.terms.contains(&term) || !seen.insert(term) {
                continue;
            }
            let key = (pass.scope, pass.axis, term);
            if stored.contains(&key) {
                cost += READ;
                continue;
            }
            cost += own(region, term, pass.axis);
            if held.get(&term).is_some_and(|row| row.axis == pass.axis) && pass.whole {
                cost += STORE;
                stored.insert(key);
            }
            open.extend(region.terms[term].0.operands());
        }
    }
    cost
}

/// Operations for one element of a term along `axis`, without its operands.
fn own(region: &Region, term: TermId, axis: AxisId) -> f64 {
    let (what, dtype) = &region.terms[term];
    let half = |d: &DType| matches!(d, DType::F16 | DType::Bf16);
    match what {
        Term::Map(op, args) => {
            let decoded = args.iter().any(|&a| region.terms[a].1.is_block());
            let converts =
                half(dtype) || (matches!(op, ScalarOp::Cast { .. }) && args.iter().any(|&a| half(&region.terms[a].1)));
            let rounding = if decoded {
                DECODED
            } else if converts {
                SINGLE
            } else {
                0.0
            };
            rounding + work(op)
        }
        Term::Load { map, .. } => {
            let beside = map.iter().rev().skip(1).any(|i| match i {
                Index::Affine(a) => a.terms.iter().any(|t| t.0 == axis),
                Index::Term(_) => true,
            });
            let along = matches!(map.last(), Some(Index::Affine(a)) if a.terms.contains(&(axis, 1)));
            let reads = if along && !beside { 1.0 } else { SINGLE };
            reads + if half(dtype) { SINGLE } else { 0.0 }
        }
        Term::Iota(_) => 1.0,
        // Loops of their own.
        Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } => 8.0 * SPECIAL,
        Term::Const(_) | Term::Size(_) | Term::Product => 0.0,
    }
}

fn work(op: &ScalarOp) -> f64 {
    let slow = [ScalarKind::Div, ScalarKind::Sqrt, ScalarKind::Rsqrt, ScalarKind::Rem];
    if op.info().family == Family::Transcendental {
        SPECIAL
    } else if slow.contains(&op.kind()) {
        4.0
    } else {
        1.0
    }
}
