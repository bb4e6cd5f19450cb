//! Matrix products, in f32 or by matrix instructions ([`super::tensor`]): a block computes a tile of the output from chunks of both operands in shared memory. What
//! comes before the product is computed while a chunk is loaded, what comes after while the tile is in registers.

use super::super::emit::{Bind, Emitter, Frame};
use super::super::index::{ceil, dim, mul};
use super::super::write::{buffer, range, select, store};
use super::{Built, team, tensor};
use crate::region::{AxisId, Region, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Expr, IndexDim, Space, Stmt, expr::Ident};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// Rows and columns of a block's tile where the axis is long enough.
const TILE: i64 = 64;
/// Elements of the contracted axis in a chunk.
const CHUNK: i64 = 16;
/// Threads of a block: each has a tile of 8 by 4.
const THREADS: i64 = 128;
/// Axes up to this long are no axes of a tile: most of the tile would be masked.
const SHORT: i64 = 4;

/// A product of a region.
pub(super) struct Product {
    /// The outermost fold.
    pub top: TermId,
    /// Contracted axes, outermost first; the last is read in chunks.
    pub contracted: Vec<AxisId>,
    /// The factor with the rows and the one with the columns.
    pub factors: [TermId; 2],
    /// The axes of the tile, rows before columns in the output.
    pub tile: [AxisId; 2],
}

/// The fold at `top`, if it is the sum of products of two terms, each with an axis of the output of its own.
fn product(region: &Region, top: TermId) -> Option<Product> {
    let (mut contracted, mut at) = (Vec::new(), top);
    while let Term::Fold { kind: ReduceKind::Sum, axis, arg } = &region.terms[at].0 {
        contracted.push(*axis);
        at = *arg;
    }
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[at].0 else { return None };
    let (&x, &y) = (args.first()?, args.get(1)?);
    let deepest = *contracted.last()?;
    let (fx, fy) = (&region.free[x], &region.free[y]);
    let both = fx.contains(&deepest) && fy.contains(&deepest);
    if x == y || !both || region.terms[at].1 != DType::F32 {
        return None;
    }
    let long = |a: &AxisId| *a < region.rank && region.axes[*a].1.as_const().is_none_or(|n| n > SHORT);
    let own = |f: &BTreeSet<AxisId>, g: &BTreeSet<AxisId>| f.difference(g).copied().filter(long).max();
    let (m, n) = (own(fx, fy)?, own(fy, fx)?);
    let covered = (0..region.rank).all(|a| fx.contains(&a) || fy.contains(&a) || region.axes[a].1.is(1));
    covered.then(|| {
        let (factors, tile) = if m < n { ([x, y], [m, n]) } else { ([y, x], [n, m]) };
        Product { top, contracted, factors, tile }
    })
}

/// The region's products, if they have the same tile and all other folds need at most one of its axes.
pub(super) fn products(region: &Region) -> Option<Vec<Product>> {
    let mut inner = vec![false; region.terms.len()];
    for (term, _) in &region.terms {
        if let Term::Fold { arg, .. } = term {
            inner[*arg] = true;
        }
    }
    let mut found: Vec<Product> = Vec::new();
    for (id, (term, _)) in region.terms.iter().enumerate() {
        match term {
            Term::Fold { .. } if inner[id] => {}
            Term::Fold { .. } => found.extend(product(region, id)),
            Term::ArgFold { .. } | Term::Product => return None,
            Term::Online { .. } | Term::Moment { .. } => {}
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => {}
        }
    }
    let tile = found.first()?.tile;
    let stored = region.outputs.iter().all(|o| tile.iter().all(|a| o.axes.contains(a)));
    let tops: Vec<TermId> = found.iter().map(|p| p.top).collect();
    // Axes that products contract are loops of their own.
    let chained = |id: TermId| found.iter().any(|p| below(region, p.top, p.contracted.len()).contains(&id));
    let rows = region.terms.iter().enumerate().all(|(id, (term, _))| match term {
        Term::Fold { .. } | Term::Online { .. } | Term::Moment { .. } => {
            chained(id) || !tile.iter().all(|a| region.free[id].contains(a))
        }
        _other => true,
    });
    let apart = found.iter().flat_map(|p| p.factors).all(|f| !reaches(region, f, &tops));
    (stored && rows && apart && found.iter().all(|p| p.tile == tile)).then_some(found)
}

/// The folds of a chain of so many.
fn below(region: &Region, top: TermId, count: usize) -> Vec<TermId> {
    let (mut found, mut at) = (Vec::new(), top);
    while let (Term::Fold { arg, .. }, true) = (&region.terms[at].0, found.len() < count) {
        found.push(at);
        at = *arg;
    }
    found
}

/// Whether `term` is computed from one of `others`.
fn reaches(region: &Region, term: TermId, others: &[TermId]) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![term]);
    while let Some(t) = open.pop() {
        if others.contains(&t) {
            return true;
        }
        if seen.insert(t) {
            open.extend(region.terms[t].0.operands());
        }
    }
    false
}

/// Size of the tile along an axis.
fn side(region: &Region, axis: AxisId) -> i64 {
    match region.axes[axis].1.as_const() {
        Some(n) if n <= TILE / 2 => TILE / 2,
        Some(_) | None => TILE,
    }
}

fn tile(space: Space, name: &str, axes: Vec<(Ident, i64)>) -> Stmt {
    let axes = axes.into_iter().map(|(n, s)| (n, Expr::Int(s))).collect();
    Stmt::Buffer(buffer(space, name, DType::F32, axes))
}

/// The kernel's emitter and grid.
pub(super) fn kernel<'r>(region: &'r Region, products: &[Product]) -> Result<Built<'r>, Diagnostic> {
    let tile = products.first().map(|p| p.tile).ok_or_else(|| Diagnostic::bug("a matrix kernel without a product"))?;
    let (mut emitter, mut frame, mut vars) = team(region, &tile);
    let tensor = tensor::schedule(region, products);
    let sides = tensor.map_or_else(|| tile.map(|a| side(region, a)), |t| t.tile);
    for ((&axis, size), var) in tile.iter().zip(sides).zip(["mt", "nt"]) {
        let n = dim(&region.axes[axis].1);
        let open = region.axes[axis].1.as_const().is_none_or(|n| n % size != 0);
        vars.push((var.into(), ceil(n, size)));
        frame.binds.insert(axis, Bind::Tile { start: mul(Expr::name(var), Expr::Int(size)), size, open });
    }
    emitter.frames.push(frame);
    match &tensor {
        Some(how) => {
            tensor::accumulate(&mut emitter, products, how)?;
            tensor::store_outputs(&mut emitter, tile, how)?;
        }
        None => {
            for (number, product) in products.iter().enumerate() {
                let suffix = if number == 0 { String::new() } else { number.to_string() };
                accumulate(&mut emitter, product, sides, &suffix)?;
            }
            emitter.store_outputs()?;
        }
    }
    Ok(Built { emitter, vars, threads: tensor.map_or(THREADS, |t| t.threads()) })
}

/// The loops of one product: chunks of both factors to shared memory, then the register tile.
fn accumulate(emitter: &mut Emitter<'_>, product: &Product, sides: [i64; 2], suffix: &str) -> Result<(), Diagnostic> {
    let region = emitter.region;
    let name_of = |a: AxisId| region.axes[a].0.clone();
    let Some(&deepest) = product.contracted.last() else { return Err(Diagnostic::bug("a product without a fold")) };
    let (k_name, k_size) = (name_of(deepest), dim(&region.axes[deepest].1));
    let acc: Ident = format!("acc{suffix}").into();
    let chunks = [format!("a_chunk{suffix}"), format!("b_chunk{suffix}")];
    let axes = product.tile.iter().zip(sides).map(|(&a, s)| (name_of(a), s)).collect();
    let frame = emitter.last()?;
    frame.stmts.push(tile(Space::Reg, &acc, axes));
    for (name, i) in chunks.iter().zip(0..) {
        // One element more than the tile has: a column of it then lies in different banks.
        let axes = vec![(k_name.clone(), CHUNK), (name_of(product.tile[i]), sides[i] + 1)];
        frame.stmts.push(tile(Space::Shared, name, axes));
    }
    frame.stmts.push(Stmt::Set { name: acc.clone(), value: Expr::Int(0) });
    let mut loops: Vec<(Ident, Expr)> = Vec::new();
    for &axis in &product.contracted[..product.contracted.len() - 1] {
        let var: Ident = format!("k{axis}").into();
        loops.push((var.clone(), dim(&region.axes[axis].1)));
        emitter.frames.push(Frame::with(BTreeMap::from([(axis, Bind::Point(Expr::Name(var)))])));
    }
    let open = region.axes[deepest].1.as_const().is_none_or(|n| n % CHUNK != 0);
    let start = mul(Expr::name("kb"), Expr::Int(CHUNK));
    let bind = Bind::Tile { start: start.clone(), size: CHUNK, open };
    emitter.frames.push(Frame::with(BTreeMap::from([(deepest, bind)])));
    loops.push(("kb".into(), ceil(k_size.clone(), CHUNK)));
    let (mut operands, mut stores) = (Vec::new(), Vec::new());
    let whole = |n: i64| range(Expr::Int(0), n, false);
    for ((name, side), &factor) in chunks.iter().zip(sides).zip(&product.factors) {
        let mut value = emitter.emit(factor)?;
        if open && !reads_pad(region, factor) {
            let at = Expr::Iota(k_name.clone(), Box::new(start.clone()), Box::new(Expr::Int(CHUNK)));
            let inside = Expr::scalar(ScalarOp::Lt {}, [at, k_size.clone()]);
            value = select(inside, value, Expr::cast(DType::F32, Expr::Int(0)));
        }
        let access = Access::new(name, vec![IndexDim::All, whole(side)]);
        operands.push(access.clone());
        stores.push(store(access, value));
    }
    let frame = emitter.last()?;
    frame.stmts.extend(stores);
    let (Some(b), Some(a)) = (operands.pop(), operands.pop()) else { return Err(Diagnostic::bug("two operands")) };
    let (to, via) = (Access::whole(&acc), "simt_f32".into());
    frame.stmts.push(Stmt::Mma { to, terms: vec![(a, b)], via, init: None, on: None });
    for (var, high) in loops.into_iter().rev() {
        emitter.close(var, high)?;
    }
    emitter.last()?.memo.insert(product.top, Expr::Name(acc));
    Ok(())
}

/// Whether a factor is 0 where the chunk passes the end: a load, perhaps dequantised.
pub(super) fn reads_pad(region: &Region, factor: TermId) -> bool {
    match &region.terms[factor].0 {
        Term::Load { map, .. } => !map.iter().any(|i| matches!(i, crate::region::Index::Term(_))),
        Term::Map(ScalarOp::Cast { .. }, args) => args.iter().all(|&a| reads_pad(region, a)),
        _other => false,
    }
}
