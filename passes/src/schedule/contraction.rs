//! Contractions on the CPU: one operand packed into panels, a micro-kernel per tile, and an epilogue a row.
//!
//! The region is flattened to axes `m`, `n` and `k`: all axes that only the first operand has are one row axis.

use super::emit::{Bind, Emitter, Frame};
use super::index::{add, ceil, dim, mul};
use crate::region::{Affine, AxisId, Index, Output, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::device::ukernel::UKernelShape;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Buffer, BufferAttr, Expr, IndexDim, Kernel, Level, LoadMods, Space, Stmt};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};

/// A matrix product inside a region that the micro-kernels compute.
#[derive(Clone, Debug)]
pub struct Contraction {
    /// The region over `m`, `n` (in the output's order) and `k`.
    pub region: Region,
    /// The fold term that is the product.
    pub fold: TermId,
    /// Axis of the rows in the flat region.
    pub m: AxisId,
    /// Axis of the columns in the flat region.
    pub n: AxisId,
    /// Length of the fold.
    pub depth: i64,
    /// Input with the rows, `[m, k]`.
    pub a: usize,
    /// Input that is packed.
    pub b: usize,
    /// Dtype of the packed input.
    pub b_dtype: DType,
    /// Whether the packed input lies as `[n, k]`, else `[k, n]`.
    pub b_rows: bool,
}

/// A factor of the product: input, map, whether it is dequantised.
struct Factor<'r> {
    input: usize,
    map: &'r [Index],
    block: bool,
}

fn factor(region: &Region, term: TermId) -> Option<Factor<'_>> {
    match &region.terms[term].0 {
        Term::Load { input, map, open: false } => {
            let block = region.inputs[*input].1.dtype.is_block();
            Some(Factor { input: *input, map, block })
        }
        Term::Map(ScalarOp::Cast { to: DType::F32 }, args) => match &region.terms[*args.first()?].0 {
            Term::Load { input, map, open: false } if region.inputs[*input].1.dtype.is_block() => {
                Some(Factor { input: *input, map, block: true })
            }
            _other => None,
        },
        _other => None,
    }
}

/// The axes of a map that reads each dim whole, in order.
fn plain(region: &Region, factor: &Factor<'_>) -> Option<Vec<AxisId>> {
    let shape = &region.inputs[factor.input].1.shape;
    let axis = |(index, n): (&Index, &Dim)| match index {
        Index::Affine(a) => a.plain_axis().filter(|&x| region.axes[x].1 == *n),
        Index::Term(_) => None,
    };
    factor.map.iter().zip(shape).map(axis).collect()
}

fn only_fold(region: &Region) -> Option<(TermId, AxisId, TermId)> {
    let mut found = None;
    for (id, (term, _)) in region.terms.iter().enumerate() {
        match term {
            Term::Fold { kind: ReduceKind::Sum, axis, arg } if found.is_none() => found = Some((id, *axis, *arg)),
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product => {
                return None;
            }
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => {}
        }
    }
    found
}

/// The region's contraction, if it is one product that the micro-kernels compute: one operand with two axes, the other
/// with the fold's axis innermost, no batch axes. `weight` says which inputs should be packed if there is a choice.
pub fn contraction(region: &Region, weight: &dyn Fn(usize) -> bool) -> Option<Contraction> {
    let (fold, k, product) = only_fold(region)?;
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[product].0 else { return None };
    let (x, y) = (factor(region, *args.first()?)?, factor(region, *args.get(1)?)?);
    if x.input == y.input || region.free[fold].len() != region.rank || region.outputs.len() != 1 {
        return None;
    }
    let depth = region.axes[k].1.as_const().filter(|&n| n > 0)?;
    let swap = if x.block != y.block { x.block } else { weight(x.input) && !weight(y.input) };
    let (first, second) = if swap { (y, x) } else { (x, y) };
    try_sides(region, fold, k, depth, &first, &second).or_else(|| try_sides(region, fold, k, depth, &second, &first))
}

fn try_sides(
    region: &Region,
    fold: TermId,
    k: AxisId,
    depth: i64,
    a: &Factor<'_>,
    b: &Factor<'_>,
) -> Option<Contraction> {
    let b_dtype = region.inputs[b.input].1.dtype;
    let fits = match b_dtype {
        DType::F32 | DType::F64 => region.inputs[a.input].1.dtype == b_dtype,
        DType::Q4_0 | DType::Q4_1 | DType::Q8_0 => b.block && region.inputs[a.input].1.dtype == DType::F32,
        _other => false,
    };
    let (rows, columns) = (plain(region, a)?, plain(region, b)?);
    let (n, b_rows) = match columns.as_slice() {
        [n, x] if *x == k => (*n, true),
        [x, n] if *x == k => (*n, false),
        _other => return None,
    };
    if !fits || a.block || (b.block && !b_rows) || rows.last() != Some(&k) || n == k {
        return None;
    }
    // The rows' axes are the output's other axes, in order, and the columns' axis is the first or the last.
    let others: Vec<AxisId> = (0..region.rank).filter(|&x| x != n).collect();
    let n_last = n + 1 == region.rank;
    if rows[..rows.len() - 1] != others[..] || !(n_last || n == 0) {
        return None;
    }
    let size = others.iter().try_fold(Dim::constant(1), |p, &x| p.checked_mul(&region.axes[x].1))?;
    let (m_axis, n_axis) = if n_last { (0, 1) } else { (1, 0) };
    let flat = flatten(region, &others, n, k, (m_axis, n_axis), &size, (a.input, b.input))?;
    Some(Contraction { region: flat, fold, m: m_axis, n: n_axis, depth, a: a.input, b: b.input, b_dtype, b_rows })
}

/// The region with the axes `others` merged into one. `None` where a term needs one of several merged axes.
fn flatten(
    region: &Region,
    others: &[AxisId],
    n: AxisId,
    k: AxisId,
    (m_axis, n_axis): (AxisId, AxisId),
    size: &Dim,
    (a, b): (usize, usize),
) -> Option<Region> {
    let mut flat = region.clone();
    let (m_entry, n_entry) = (("m".into(), size.clone()), ("n".into(), region.axes[n].1.clone()));
    flat.axes = if m_axis == 0 { vec![m_entry, n_entry] } else { vec![n_entry, m_entry] };
    flat.axes.push(region.axes[k].clone());
    flat.rank = 2;
    flat.outputs = vec![Output { root: region.outputs.first()?.root, axes: vec![0, 1] }];
    let rename = |x: AxisId| match x {
        x if x == n => Some(n_axis),
        x if x == k => Some(2),
        x if others == [x] => Some(m_axis),
        _merged => None,
    };
    let affine = |x: &Affine| -> Option<Affine> {
        let mut terms = x.terms.iter().map(|&(t, c)| Some((rename(t)?, c))).collect::<Option<Vec<_>>>()?;
        terms.sort_unstable();
        Some(Affine { base: x.base.clone(), terms })
    };
    let whole: Vec<Index> = (0..region.rank).map(|x| Index::Affine(Affine::axis(x))).collect();
    let mut merged = vec![false; region.inputs.len()];
    for (id, (term, _)) in region.terms.iter().enumerate() {
        let new = match term {
            Term::Iota(x) => Term::Iota(affine(x)?),
            // The factors themselves are never emitted: the micro-kernel reads them.
            Term::Load { input, .. } if *input == b => Term::Load { input: b, map: Vec::new(), open: false },
            Term::Load { input, map, .. } if *input == a && region.free[id].contains(&k) => {
                let _same_rows = map;
                let rows = vec![Index::Affine(Affine::axis(m_axis)), Index::Affine(Affine::axis(2))];
                Term::Load { input: a, map: rows, open: false }
            }
            Term::Load { input, .. } if *input == a => return None,
            Term::Load { input, map, open } => {
                let exact = !open
                    && *map == whole
                    && region.inputs[*input].1.shape.iter().eq(region.axes[..region.rank].iter().map(|x| &x.1));
                if exact && others.len() != 1 {
                    merged[*input] = true;
                    let map = (0..2).map(|x| Index::Affine(Affine::axis(x))).collect();
                    Term::Load { input: *input, map, open: false }
                } else {
                    let map = map
                        .iter()
                        .map(|i| match i {
                            Index::Affine(x) => Some(Index::Affine(affine(x)?)),
                            Index::Term(t) => Some(Index::Term(*t)),
                        })
                        .collect::<Option<Vec<_>>>()?;
                    if merged[*input] || map.iter().any(|i| matches!(i, Index::Term(t) if region.free[*t].contains(&n)))
                    {
                        return None;
                    }
                    Term::Load { input: *input, map, open: *open }
                }
            }
            Term::Fold { kind, arg, .. } => Term::Fold { kind: *kind, axis: 2, arg: *arg },
            other => other.clone(),
        };
        flat.terms[id].0 = new;
        flat.free[id] = region.free[id].iter().map(|&x| rename(x).unwrap_or(m_axis)).collect();
    }
    let pair: Vec<Dim> = flat.axes[..2].iter().map(|x| x.1.clone()).collect();
    for (input, _) in merged.iter().enumerate().filter(|(_, m)| **m) {
        flat.inputs[input].1 = Type { dtype: flat.inputs[input].1.dtype, shape: pair.clone() };
    }
    // An input read both merged and in another way would need two shapes.
    let both =
        region.terms.iter().any(|(t, _)| matches!(t, Term::Load { input, map, .. } if merged[*input] && *map != whole));
    flat.inputs[a].1 = Type { dtype: flat.inputs[a].1.dtype, shape: vec![size.clone(), region.axes[k].1.clone()] };
    (!both).then_some(flat)
}

/// Rows of a grid point: enough to use a panel several times.
const ROW_TILES: i64 = 4;
/// Most columns of a grid point: a decoding step of one row still splits over cores.
const COLUMNS: i64 = 128;

/// A divisor of `depth` for blocks of the fold that fit a cache; block encodings take the fold whole where it is short.
fn fold_block(depth: i64, row: &UKernelShape) -> i64 {
    let most = if row.k_step > 1 { 4096 } else { 512 };
    if depth <= most {
        return depth;
    }
    let step = 32;
    (most / 4 / step..=most / step).rev().map(|x| x * step).find(|x| depth % x == 0).unwrap_or(depth)
}

/// The kernel of a contraction; its arguments are the region's inputs in order with the panels in place of input `b`,
/// then the output.
pub fn contraction_kernel(
    c: &Contraction,
    row: &UKernelShape,
    name: &str,
    symbols: &[SymbolDecl],
) -> Result<Kernel, Diagnostic> {
    let region = &c.region;
    let (m_size, n_size) = (&region.axes[c.m].1, &region.axes[c.n].1);
    let few = m_size.as_const().is_some_and(|m| m <= row.mr);
    let mc = if few { row.mr } else { row.mr * ROW_TILES };
    let nc = n_size.as_const().map_or(COLUMNS, |n| COLUMNS.min((n + row.nr - 1) / row.nr * row.nr).max(row.nr));
    let panels = nc / row.nr;
    let n_name = region.axes[c.n].0.clone();
    let mut e = Emitter::new(region);
    let sized = |space, name: &str, dtype, axes: Vec<(&str, Expr)>| Buffer {
        space,
        name: name.into(),
        dtype,
        axes: axes.into_iter().map(|(n, s)| (n.into(), s)).collect(),
        attrs: Vec::new(),
    };
    let count = ceil(dim(n_size), row.nr);
    e.rename(c.a, &["m", "k"]);
    e.arguments[c.b] = sized(
        Space::In,
        &format!("in{}", c.b),
        c.b_dtype,
        vec![("nb", count.clone()), ("k", Expr::Int(c.depth)), ("n", Expr::Int(row.nr))],
    );
    e.arguments[c.b].attrs.push(BufferAttr { name: "packed".into(), args: Vec::new() });
    let least = |a: Expr, b: Expr| Expr::scalar(ScalarOp::Min {}, [a, b]);
    let left = |n: Expr, var: &str, tile: i64| least(Expr::Int(tile), add(n, mul(Expr::Int(-tile), Expr::name(var))));
    let rows_here = if m_size.is(1) { Expr::Int(1) } else { left(dim(m_size), "mt", mc) };
    let panels_here = match n_size.as_const() {
        Some(n) if n % nc == 0 => Expr::Int(panels),
        Some(_) | None => left(count, "nt", panels),
    };
    let mut body = vec![Stmt::Buffer(sized(
        Space::Cache,
        "acc",
        if c.b_dtype == DType::F64 { DType::F64 } else { DType::F32 },
        vec![("m", Expr::Int(mc)), (&n_name, Expr::Int(nc))],
    ))];
    body.push(products(c, row, mc, panels, rows_here.clone(), panels_here));
    let m_at = add(mul(Expr::name("mt"), Expr::Int(mc)), Expr::name("r"));
    let open = n_size.as_const().is_none_or(|n| n % nc != 0);
    let binds = BTreeMap::from([
        (c.m, Bind::Point(m_at)),
        (c.n, Bind::Tile { start: mul(Expr::name("nt"), Expr::Int(nc)), size: nc, open }),
    ]);
    let point = IndexDim::Point { at: Expr::name("r"), open: false };
    let range = IndexDim::Range { start: Expr::Int(0), size: Expr::Int(nc), open: false, upto: None };
    e.product = Some((c.fold, Access::new("acc", vec![point, range])));
    e.frames.push(Frame::with(binds));
    e.store_outputs()?;
    let epilogue = e.pop()?.stmts;
    body.push(Stmt::For {
        var: "r".into(),
        low: Expr::Int(0),
        high: rows_here,
        step: None,
        unroll: false,
        body: epilogue,
    });
    let vars = vec![("mt".into(), ceil(dim(m_size), mc)), ("nt".into(), ceil(dim(n_size), nc))];
    Ok(Kernel {
        name: name.into(),
        target: "cpu".into(),
        attrs: Vec::new(),
        constants: Vec::new(),
        symbols: symbols.to_vec(),
        arguments: e.arguments,
        views: e.views,
        body: vec![Stmt::Par { vars, level: Level::Grid, body }],
        places: region.places.clone(),
    })
}

/// The loops around `mma`: blocks of the fold, panels, rows.
fn products(c: &Contraction, row: &UKernelShape, mc: i64, panels: i64, rows_here: Expr, panels_here: Expr) -> Stmt {
    let kc = fold_block(c.depth, row);
    let range = |start: Expr, size: i64, open| IndexDim::Range { start, size: Expr::Int(size), open, upto: None };
    let scaled = |var: &str, by: i64| mul(Expr::name(var), Expr::Int(by));
    let to =
        Access::new("acc", vec![range(scaled("i", row.mr), row.mr, true), range(scaled("j", row.nr), row.nr, false)]);
    let rows = range(add(scaled("mt", mc), scaled("i", row.mr)), row.mr, true);
    let a = Access::new(&format!("in{}", c.a), vec![rows, range(scaled("kb", kc), kc, false)]);
    let panel = IndexDim::Point { at: add(scaled("nt", panels), Expr::name("j")), open: false };
    let b = Access::new(&format!("in{}", c.b), vec![panel, range(scaled("kb", kc), kc, false), IndexDim::All]);
    let init = Expr::scalar(ScalarOp::Eq {}, [Expr::name("kb"), Expr::Int(0)]);
    let mods = LoadMods::default();
    let mma = Stmt::Mma { to, terms: vec![(a, b)], via: row.name.into(), init: Some(init), on: mods.on };
    let repeat = |var: &str, high: Expr, body: Stmt| Stmt::For {
        var: var.into(),
        low: Expr::Int(0),
        high,
        step: None,
        unroll: false,
        body: vec![body],
    };
    let inner = repeat("i", ceil(rows_here, row.mr), mma);
    repeat("kb", Expr::Int(c.depth / kc), repeat("j", panels_here, inner))
}
