//! Attention of 16-bit floats on matrix instructions: a block has a tile of rows, keys and values pass once through shared memory,
//! scores stay on the chip. Weights are no halves in the region, so they are multiplied as two halves that add up to them, to some
//! 16 bits. What is no such attention runs as rows of online folds.

use super::super::attention::{Attention, Weight, attention};
use super::super::emit::{Bind, Emitter, Frame};
use super::super::fold::{Online, Pass};
use super::super::index::{ceil, dim, identity, mul};
use super::super::write::{buffer, minus, plus, scalar, select, store, times};
use super::tensor::{layout, narrow, swizzled, together};
use super::{Built, team};
use crate::region::{AxisId, Index, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::device::mma::{self, MmaShape};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Buffer, Expr, IndexDim, LoadMods, Space, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// Rows of a block, of which a warp has 16.
pub(crate) const ROWS: i64 = 64;
const WARPS: i64 = 4;
/// Fewest rows, where their number is known: most of the tile would be for nothing.
pub(crate) const LEAST_ROWS: i64 = 16;
/// Widest heads: of keys, and of values.
pub(crate) const MOST_WIDE: i64 = 128;
/// Sides that instructions divide.
const PIECE: i64 = 16;

/// An attention for this template.
pub(super) struct Flash {
    attention: Attention,
    row: &'static MmaShape,
    /// Axes of rows and of values.
    m: AxisId,
    e: AxisId,
    /// Rows of the product, columns of it, rows of values: in 16 bits.
    query: TermId,
    columns: TermId,
    values: TermId,
    /// The sum of weighted rows.
    weighted: TermId,
    /// Sums of the weights alone.
    totals: Vec<TermId>,
    /// Widths of heads in whole pieces.
    depth: i64,
    wide: i64,
    /// Keys of a tile.
    keys: i64,
}

/// Whether a term is a load at positions that follow from axes.
fn is_load(region: &Region, term: TermId) -> bool {
    matches!(&region.terms[term].0, Term::Load { map, .. } if map.iter().all(|i| matches!(i, Index::Affine(_))))
}

fn is_one(region: &Region, term: TermId) -> bool {
    matches!(&region.terms[term].0, Term::Const(value) if value.0.to_f64().is_some_and(|v| v == [1.0]))
}

/// The attention of a region, if its products are of one 16-bit dtype, its heads not too wide and its rows not too few.
pub(super) fn find(region: &Region) -> Option<Flash> {
    let a = attention(region)?;
    let r = &a.region;
    let (m, e) = (a.m?, a.e?);
    let (mut totals, mut rows) = (Vec::new(), None);
    for (term, what) in &a.sums {
        let Term::Online { weight, .. } = r.terms[*term].0 else { return None };
        match what {
            Weight::Term(w) if is_one(r, *w) => totals.push(*term),
            Weight::Rows(..) if rows.is_none() => rows = Some((*term, narrow(r, weight)?)),
            Weight::Rows(..) | Weight::Term(_) | Weight::Plain(_) => return None,
        }
    }
    let (weighted, (values, dtype)) = rows?;
    let ((query, of_query), (columns, of_columns)) = (narrow(r, a.q)?, narrow(r, a.k_term)?);
    let row = mma::find(dtype).filter(|_| (of_query, of_columns) == (dtype, dtype))?;
    let width = |axis: AxisId| {
        let n = r.axes[axis].1.as_const().filter(|n| (1..=MOST_WIDE).contains(n))?;
        Some((n + PIECE - 1) / PIECE * PIECE)
    };
    let (depth, wide) = (width(a.d)?, width(e)?);
    let many = r.axes[m].1.as_const().is_none_or(|n| n >= LEAST_ROWS);
    let whole = is_load(r, query) || r.axes[a.d].1.is(depth);
    let stored = r.outputs.iter().all(|o| o.axes.contains(&m) && o.axes.contains(&e));
    let loads = is_load(r, columns) && is_load(r, values);
    if a.factor.is_some() || m >= r.rank || !(many && whole && stored && loads) {
        return None;
    }
    // Scores and weights are f32 in shared memory as well.
    let keys = if depth + wide <= MOST_WIDE { 64 } else { 32 };
    Some(Flash { attention: a, row, m, e, query, columns, values, weighted, totals, depth, wide, keys })
}

/// The kernel of an attention.
pub(super) fn kernel(f: &Flash) -> Result<Built<'_>, Diagnostic> {
    let (a, region) = (&f.attention, &f.attention.region);
    let (mut emitter, mut frame, mut vars) = team(region, &[f.m, f.e]);
    vars.push(("mt".into(), ceil(dim(&region.axes[f.m].1), ROWS)));
    frame.binds.insert(f.m, f.tile(f.m, mul(Expr::name("mt"), Expr::Int(ROWS)), ROWS));
    frame.binds.insert(f.e, f.tile(f.e, Expr::Int(0), f.wide));
    emitter.frames.push(frame);
    let query = f.staged(&mut emitter, "Q", f.query, [(f.m, ROWS), (a.d, f.depth)])?;
    let zero = || identity(ReduceKind::Sum, DType::F32);
    let rows = || f.axes(&[(f.m, ROWS)]);
    let top = emitter.register("m", DType::F32, rows(), identity(ReduceKind::Max, DType::F32))?;
    let totals =
        f.totals.iter().map(|_| emitter.register("s", DType::F32, rows(), zero())).collect::<Result<Vec<_>, _>>()?;
    let result = f.accumulator(&mut emitter, "o", f.e, f.wide)?;
    f.pass(&mut emitter, &query, &top, &totals, &result)?;
    // What follows reads its tile in any order.
    let results = f.axes(&[(f.m, ROWS), (f.e, f.wide)]);
    let result = emitter.register("r", DType::F32, results, Expr::Name(result))?;
    let memo = &mut emitter.last()?.memo;
    memo.insert(f.weighted, Expr::Name(result));
    memo.extend(f.totals.iter().copied().zip(totals.into_iter().map(Expr::Name)));
    memo.extend(a.tops.iter().map(|&t| (t, Expr::Name(top.clone()))));
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads: 32 * WARPS })
}

impl Flash {
    fn axes(&self, sides: &[(AxisId, i64)]) -> Vec<(Ident, Expr)> {
        sides.iter().map(|&(a, n)| (self.attention.region.axes[a].0.clone(), Expr::Int(n))).collect()
    }

    fn tile(&self, axis: AxisId, start: Expr, size: i64) -> Bind {
        let open = self.attention.region.axes[axis].1.as_const().is_none_or(|n| n % size != 0);
        Bind::Tile { start, size, open }
    }

    /// A tile of rows by `axis` that instructions add to, 0.
    fn accumulator(&self, emitter: &mut Emitter<'_>, name: &str, axis: AxisId, size: i64) -> Result<Ident, Diagnostic> {
        let axes = self.axes(&[(self.m, ROWS), (axis, size)]);
        let acc =
            Buffer { attrs: vec![layout([WARPS, 1])], ..buffer(Space::Reg, emitter.fresh(name), DType::F32, axes) };
        let name = acc.name.clone();
        let start = Stmt::Set { name: name.clone(), value: Expr::Int(0) };
        emitter.last()?.stmts.extend([Stmt::Buffer(acc), start]);
        Ok(name)
    }

    /// A factor in shared memory, its own side or the summed one innermost as in memory; 0 past the end of a side.
    fn staged(
        &self,
        emitter: &mut Emitter<'_>,
        name: &str,
        term: TermId,
        [own, sum]: [(AxisId, i64); 2],
    ) -> Result<Access, Diagnostic> {
        let region = emitter.region;
        let across = together(region, term, own.0) && !together(region, term, sum.0);
        let sides = if across { [sum, own] } else { [own, sum] };
        let shared = swizzled(buffer(Space::Shared, name, self.row.dtype, self.axes(&sides)), sides[1].1);
        let free = sides.into_iter().filter(|s| emitter.bind(s.0).is_err());
        let binds: BTreeMap<AxisId, Bind> = free.map(|(a, n)| (a, self.tile(a, Expr::Int(0), n))).collect();
        emitter.frames.push(Frame::with(binds));
        let to = Access::whole(&shared.name);
        let fill = match &region.terms[term].0 {
            Term::Load { input, map, open } => {
                let from = emitter.access(*input, map, &BTreeMap::new(), *open)?;
                let clipped = from.dims.iter().flatten().any(|d| matches!(d, IndexDim::Range { open: true, .. }));
                let pad = (clipped || *open).then_some(Expr::Int(0));
                Stmt::Copy { to: to.clone(), from, mods: LoadMods { pad, ..LoadMods::default() } }
            }
            _computed => store(to.clone(), emitter.emit(term)?),
        };
        let before = emitter.pop()?.stmts;
        let stmts = &mut emitter.last()?.stmts;
        stmts.push(Stmt::Buffer(shared));
        stmts.extend(before);
        stmts.push(fill);
        Ok(to)
    }

    fn product(&self, emitter: &mut Emitter<'_>, to: &Ident, terms: Vec<(Access, Access)>) -> Result<(), Diagnostic> {
        let via = self.row.name.into();
        emitter.last()?.stmts.push(Stmt::Mma { to: Access::whole(to), terms, via, init: None, on: None });
        Ok(())
    }

    /// The loop over tiles of keys.
    fn pass(
        &self,
        emitter: &mut Emitter<'_>,
        query: &Access,
        top: &Ident,
        totals: &[Ident],
        result: &Ident,
    ) -> Result<(), Diagnostic> {
        let a = &self.attention;
        let var = emitter.fresh("j");
        let bind = self.tile(a.j, mul(Expr::Name(var.clone()), Expr::Int(self.keys)), self.keys);
        let Bind::Tile { start, size, open } = bind.clone() else { return Err(Diagnostic::bug("keys are no tile")) };
        let pass = Pass { axis: a.j, strip: true, start, size, open };
        let online = Online { key: a.key, mask: a.mask, top: top.clone(), sums: Vec::new() };
        let (low, high) = emitter.trips(&pass, std::slice::from_ref(&online), &[])?;
        emitter.frames.push(Frame::with(BTreeMap::from([(a.j, bind)])));
        let columns = self.staged(emitter, "K", self.columns, [(a.j, self.keys), (a.d, self.depth)])?;
        let values = self.staged(emitter, "V", self.values, [(self.e, self.wide), (a.j, self.keys)])?;
        let scores = self.accumulator(emitter, "c", a.j, self.keys)?;
        self.product(emitter, &scores, vec![(query.clone(), columns)])?;
        let weights = self.weights(emitter, &pass, &scores, top, totals, result)?;
        let terms = weights.into_iter().map(|w| (w, values.clone())).collect();
        self.product(emitter, result, terms)?;
        emitter.close_between(var, low, high)
    }

    /// Moves the running maximum, the totals and the result over a tile of scores; the weights as two halves.
    fn weights(
        &self,
        emitter: &mut Emitter<'_>,
        pass: &Pass,
        scores: &Ident,
        top: &Ident,
        totals: &[Ident],
        result: &Ident,
    ) -> Result<[Access; 2], Diagnostic> {
        let a = &self.attention;
        let sides = [(self.m, ROWS), (a.j, self.keys)];
        let nothing = || identity(ReduceKind::Max, DType::F32);
        let zero = || identity(ReduceKind::Sum, DType::F32);
        // Accumulators stay where instructions want them, whatever reads the scores.
        let plain = emitter.register("x", DType::F32, self.axes(&sides), Expr::Name(scores.clone()))?;
        emitter.last()?.memo.insert(a.fold, Expr::Name(plain));
        let key = emitter.emit(a.key)?;
        let valid = emitter.valid(pass, a.mask)?;
        let key = emitter.along(key, a.key, valid.as_ref(), nothing(), pass);
        let key = Expr::Name(emitter.register("k", DType::F32, self.axes(&sides), key)?);
        let before = Expr::Name(top.clone());
        let own = emitter.reduced(TileReduce::Max, key.clone(), pass);
        let new = emitter.name(scalar(ScalarOp::Max {}, [before.clone(), own]))?;
        // A row whose mask holds nowhere keeps -inf and 0.
        let none_yet = scalar(ScalarOp::Eq {}, [new.clone(), nothing()]);
        let safe = emitter.name(select(none_yet, zero(), new.clone()))?;
        let rescale = emitter.name(scalar(ScalarOp::Exp {}, [minus(before, safe.clone())]))?;
        let weight = scalar(ScalarOp::Exp {}, [minus(key, safe)]);
        let weight = Expr::Name(emitter.register("p", DType::F32, self.axes(&sides), weight)?);
        for total in totals {
            let more = emitter.reduced(TileReduce::Sum, weight.clone(), pass);
            emitter.set(total, plus(times(Expr::Name(total.clone()), rescale.clone()), more))?;
        }
        emitter.set(result, times(Expr::Name(result.clone()), rescale))?;
        emitter.set(top, new)?;
        let dtype = self.row.dtype;
        let high = Expr::cast(dtype, weight.clone());
        let low = Expr::cast(dtype, minus(weight, Expr::cast(DType::F32, high.clone())));
        let stmts = &mut emitter.last()?.stmts;
        Ok([("P", high), ("R", low)].map(|(name, value)| {
            let to = Access::whole(&Ident::from(name));
            let shared = swizzled(buffer(Space::Shared, name, dtype, self.axes(&sides)), self.keys);
            stmts.extend([Stmt::Buffer(shared), store(to.clone(), value)]);
            to
        }))
    }
}
