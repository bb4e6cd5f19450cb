//! Matrix products in f32: a block computes a tile of the output from chunks of both operands in shared memory. What
//! comes before the product is computed while a chunk is loaded, what comes after while the tile is in registers.

use super::super::emit::{Bind, Frame};
use super::super::index::{ceil, dim, mul};
use super::{Built, team};
use crate::region::{AxisId, Region, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Buffer, Expr, IndexDim, LoadMods, Space, Stmt, expr::Ident};
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

/// The one product of a region.
pub(super) struct Product {
    /// The outermost fold.
    top: TermId,
    /// Contracted axes, outermost first; the last is read in chunks.
    contracted: Vec<AxisId>,
    /// The factor with the rows and the one with the columns.
    factors: [TermId; 2],
    /// The axes of the tile, rows before columns in the output.
    tile: [AxisId; 2],
}

/// The region's product, if its only fold is the sum of products of two terms, each with an axis of its own.
pub(super) fn product(region: &Region) -> Option<Product> {
    let mut folds = Vec::new();
    for (id, (term, _)) in region.terms.iter().enumerate() {
        match term {
            Term::Fold { kind: ReduceKind::Sum, .. } => folds.push(id),
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product => {
                return None;
            }
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => {}
        }
    }
    let (top, mut contracted) = (*folds.last()?, Vec::new());
    let mut at = top;
    while let Term::Fold { axis, arg, .. } = &region.terms[at].0 {
        contracted.push(*axis);
        at = *arg;
    }
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[at].0 else { return None };
    let (&x, &y) = (args.first()?, args.get(1)?);
    let deepest = *contracted.last()?;
    let (fx, fy) = (&region.free[x], &region.free[y]);
    let both = fx.contains(&deepest) && fy.contains(&deepest);
    if x == y || !both || contracted.len() != folds.len() || region.terms[at].1 != DType::F32 {
        return None;
    }
    let long = |a: &AxisId| *a < region.rank && region.axes[*a].1.as_const().is_none_or(|n| n > SHORT);
    let own = |f: &BTreeSet<AxisId>, g: &BTreeSet<AxisId>| f.difference(g).copied().filter(long).max();
    let (m, n) = (own(fx, fy)?, own(fy, fx)?);
    let covered = (0..region.rank).all(|a| fx.contains(&a) || fy.contains(&a) || region.axes[a].1.is(1));
    let stored = region.outputs.iter().all(|o| o.axes.contains(&m) && o.axes.contains(&n));
    // A product that is also used before it is whole has another template.
    (covered && stored).then(|| {
        let (factors, tile) = if m < n { ([x, y], [m, n]) } else { ([y, x], [n, m]) };
        Product { top, contracted, factors, tile }
    })
}

/// Size of the tile along an axis.
fn side(region: &Region, axis: AxisId) -> i64 {
    match region.axes[axis].1.as_const() {
        Some(n) if n <= TILE / 2 => TILE / 2,
        Some(_) | None => TILE,
    }
}

fn buffer(space: Space, name: &str, axes: Vec<(Ident, i64)>) -> Stmt {
    let axes = axes.into_iter().map(|(n, s)| (n, Expr::Int(s))).collect();
    Stmt::Buffer(Buffer { space, name: name.into(), dtype: DType::F32, axes, attrs: Vec::new() })
}

fn repeat(var: Ident, high: Expr, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, low: Expr::Int(0), high, step: None, unroll: false, body }
}

/// The kernel's emitter and grid.
pub(super) fn kernel<'r>(region: &'r Region, product: &Product) -> Result<Built<'r>, Diagnostic> {
    let (mut emitter, mut frame, mut vars) = team(region, &product.tile);
    let name_of = |a: AxisId| region.axes[a].0.clone();
    let sides = product.tile.map(|a| side(region, a));
    for ((&axis, size), var) in product.tile.iter().zip(sides).zip(["mt", "nt"]) {
        let n = dim(&region.axes[axis].1);
        let open = region.axes[axis].1.as_const().is_none_or(|n| n % size != 0);
        vars.push((var.into(), ceil(n, size)));
        frame.binds.insert(axis, Bind::Tile { start: mul(Expr::name(var), Expr::Int(size)), size, open });
    }
    let Some(&deepest) = product.contracted.last() else { return Err(Diagnostic::bug("a product without a fold")) };
    let (k_name, k_size) = (name_of(deepest), dim(&region.axes[deepest].1));
    let chunks = [("a_chunk", 0), ("b_chunk", 1)];
    let axes = product.tile.iter().zip(sides).map(|(&a, s)| (name_of(a), s)).collect();
    frame.stmts.push(buffer(Space::Reg, "acc", axes));
    for (name, i) in chunks {
        // One element more than the tile has: a column of it then lies in different banks.
        let axes = vec![(k_name.clone(), CHUNK), (name_of(product.tile[i]), sides[i] + 1)];
        frame.stmts.push(buffer(Space::Shared, name, axes));
    }
    frame.stmts.push(Stmt::Set { name: "acc".into(), value: Expr::Int(0) });
    emitter.frames.push(frame);
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
    let mut operands = Vec::new();
    let whole = |n: i64| IndexDim::Range { start: Expr::Int(0), size: Expr::Int(n), open: false, upto: None };
    let mut stores = Vec::new();
    for ((name, i), &factor) in chunks.into_iter().zip(&product.factors) {
        let mut value = emitter.emit(factor)?;
        if open && !reads_pad(region, factor) {
            let at = Expr::Iota(k_name.clone(), Box::new(start.clone()), Box::new(Expr::Int(CHUNK)));
            let inside = Expr::scalar(ScalarOp::Lt {}, [at, k_size.clone()]);
            value = Expr::scalar(ScalarOp::Select {}, [inside, value, Expr::cast(DType::F32, Expr::Int(0))]);
        }
        let access = Access::new(name, vec![IndexDim::All, whole(sides[i])]);
        operands.push(access.clone());
        stores.push(Stmt::Store { access, mods: LoadMods::default(), value, add: false });
    }
    let frame = emitter.last()?;
    frame.stmts.extend(stores);
    let (Some(b), Some(a)) = (operands.pop(), operands.pop()) else { return Err(Diagnostic::bug("two operands")) };
    let (to, via) = (Access::whole("acc"), "simt_f32".into());
    frame.stmts.push(Stmt::Mma { to, terms: vec![(a, b)], via, init: None, on: None });
    for (var, high) in loops.into_iter().rev() {
        let body = emitter.pop()?.stmts;
        emitter.last()?.stmts.push(repeat(var, high, body));
    }
    emitter.last()?.memo.insert(product.top, Expr::name("acc"));
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads: THREADS })
}

/// Whether a factor is 0 where the chunk passes the end: a load, perhaps dequantised.
fn reads_pad(region: &Region, factor: TermId) -> bool {
    match &region.terms[factor].0 {
        Term::Load { map, .. } => !map.iter().any(|i| matches!(i, crate::region::Index::Term(_))),
        Term::Map(ScalarOp::Cast { .. }, args) => args.iter().all(|&a| reads_pad(region, a)),
        _other => false,
    }
}
