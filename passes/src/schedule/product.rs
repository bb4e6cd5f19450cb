//! Kernels of contractions on the CPU: tiles of a micro-kernel and an epilogue a row, or for few rows a dot product each.

use super::contraction::Contraction;
use super::emit::{Bind, Emitter, Frame};
use super::index::{add, ceil, dim};
use super::space::Blocks;
use super::write::{buffer, left, point, range, repeat, scaled};
use crate::region::{AxisId, Index, Region};
use std::collections::BTreeMap;
use tilewright_ir::device::ukernel::UKernelShape;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Buffer, BufferAttr, Expr, IndexDim, Kernel, Space, Stmt, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, SymbolDecl};

/// Columns of a grid point where each is a dot product of its own.
const FEW_COLUMNS: i64 = 64;

/// Rows of a matrix of symbolic size.
const LIKELY_ROWS: i64 = 1024;

/// Steps of the fold between two visits of the accumulators, and whether the last may pass the end. Block encodings, which are
/// smaller, take a short fold whole.
fn fold_block(depth: Option<i64>, most: i64, row: &UKernelShape) -> (i64, bool) {
    let most = if row.b.is_block() { 8 * most } else { most };
    match depth {
        Some(depth) if depth <= most => (depth, false),
        Some(depth) => {
            let step = row.k_step.max(32);
            let exact = ((most / 4 / step).max(1)..=most / step).rev().map(|x| x * step).find(|x| depth % x == 0);
            exact.map_or((most, true), |x| (x, false))
        }
        None => (most, true),
    }
}

/// Grid variables `i..` for axes that are points, and their binds.
pub(super) fn points(
    region: &Region,
    axes: impl Iterator<Item = AxisId>,
) -> (Vec<(Ident, Expr)>, BTreeMap<AxisId, Bind>) {
    let (mut vars, mut binds) = (Vec::new(), BTreeMap::new());
    for axis in axes {
        let var: Ident = format!("i{axis}").into();
        vars.push((var.clone(), dim(&region.axes[axis].1)));
        binds.insert(axis, Bind::Point(Expr::Name(var)));
    }
    (vars, binds)
}

/// The tiles of a contraction.
struct Tiles<'c> {
    c: &'c Contraction,
    row: &'c UKernelShape,
    direct: bool,
    /// Rows and columns of a grid point, panels of its columns.
    mc: i64,
    nc: i64,
    panels: i64,
    /// Most steps of a block of the fold.
    depth: i64,
    points: BTreeMap<AxisId, Bind>,
}

/// The kernel of a contraction; its arguments are the region's inputs in order, with the panels in place of input `b`
/// unless it is read `direct`, then the output.
pub fn contraction_kernel(
    c: &Contraction,
    (row, direct): (&UKernelShape, bool),
    blocks: Blocks,
    name: &str,
    symbols: &[SymbolDecl],
) -> Result<Kernel, Diagnostic> {
    let region = &c.region;
    let (m_size, n_size) = (&region.axes[c.m].1, &region.axes[c.n].1);
    let few = m_size.as_const().is_some_and(|m| m <= row.mr);
    let mc = if few { row.mr } else { row.mr * blocks.row_tiles };
    let most = blocks.columns / row.nr * row.nr;
    let nc = n_size.as_const().map_or(most, |n| most.min((n + row.nr - 1) / row.nr * row.nr).max(row.nr));
    let others = (0..region.rank).filter(|&x| x != c.m && x != c.n);
    let (mut vars, points) = points(region, others);
    let tiles = Tiles { c, row, direct, mc, nc, panels: nc / row.nr, depth: blocks.depth, points };
    let mut e = Emitter::new(region);
    let count = ceil(dim(n_size), row.nr);
    if !tiles.direct {
        e.arguments[c.b] = tiles.packed(count.clone());
    }
    let rows_here = if m_size.is(1) { Expr::Int(1) } else { left(dim(m_size), "mt", mc) };
    let panels_here = match n_size.as_const() {
        Some(n) if n % nc == 0 => Expr::Int(tiles.panels),
        Some(_) | None => left(count, "nt", tiles.panels),
    };
    let float = if row.b == DType::F64 { DType::F64 } else { DType::F32 };
    let n_name = region.axes[c.n].0.clone();
    let acc = vec![(region.axes[c.m].0.clone(), Expr::Int(mc)), (n_name, Expr::Int(nc))];
    let mut body = vec![Stmt::Buffer(buffer(Space::Cache, "acc", float, acc))];
    body.push(tiles.products(&mut e, rows_here.clone(), panels_here)?);
    let mut binds = tiles.points.clone();
    binds.insert(c.m, Bind::Point(add(scaled("mt", mc), Expr::name("r"))));
    let open = n_size.as_const().is_none_or(|n| n % nc != 0);
    binds.insert(c.n, Bind::Tile { start: scaled("nt", nc), size: nc, open });
    let here = IndexDim::Point { at: Expr::name("r"), open: false };
    e.product = Some((c.fold, Access::new("acc", vec![here, range(Expr::Int(0), nc, false)])));
    e.frames.push(Frame::with(binds));
    e.store_outputs()?;
    let epilogue = e.pop()?.stmts;
    body.push(repeat("r", rows_here, epilogue));
    let (rows, columns) = (("mt".into(), ceil(dim(m_size), mc)), ("nt".into(), ceil(dim(n_size), nc)));
    // The smaller matrix is read again for each tile of the larger one.
    let wide = m_size.as_const().unwrap_or(LIKELY_ROWS) < n_size.as_const().unwrap_or(0);
    vars.extend(if wide { [columns, rows] } else { [rows, columns] });
    Ok(e.kernel(name, symbols, vars, body))
}

impl Tiles<'_> {
    /// The argument with the panels.
    fn packed(&self, count: Expr) -> Buffer {
        let region = &self.c.region;
        let entry = |axis: &AxisId| (region.axes[*axis].0.clone(), dim(&region.axes[*axis].1));
        let mut axes: Vec<(Ident, Expr)> = self.c.columns.batch.iter().map(|(x, _)| entry(x)).collect();
        axes.extend([
            ("nb".into(), count),
            entry(&self.c.k),
            (region.axes[self.c.n].0.clone(), Expr::Int(self.row.nr)),
        ]);
        let mut panels = buffer(Space::In, format!("in{}", self.c.b), self.row.b, axes);
        panels.attrs.push(BufferAttr { name: "packed".into(), args: Vec::new() });
        panels
    }

    /// The loops around `mma`: blocks of the fold, panels, rows.
    fn products(&self, e: &mut Emitter<'_>, rows_here: Expr, panels_here: Expr) -> Result<Stmt, Diagnostic> {
        let (c, row) = (self.c, self.row);
        let (kc, open) = fold_block(c.depth().as_const(), self.depth, row);
        let rows = range(scaled("i", row.mr), row.mr, true);
        let to = Access::new("acc", vec![rows, range(scaled("j", row.nr), row.nr, false)]);
        let fold = Bind::Tile { start: scaled("kb", kc), size: kc, open };
        let mut binds = self.points.clone();
        let start = add(scaled("mt", self.mc), scaled("i", row.mr));
        binds.insert(c.m, Bind::Tile { start, size: row.mr, open: true });
        binds.insert(c.k, fold);
        let start = add(scaled("nt", self.nc), scaled("j", row.nr));
        binds.insert(c.n, Bind::Tile { start, size: row.nr, open: false });
        let operand = |e: &mut Emitter<'_>, input: usize, map: &[Index]| e.access(input, map, &BTreeMap::new(), false);
        e.frames.push(Frame::with(binds));
        let a = operand(e, c.a, &c.a_map)?;
        let b = if self.direct { operand(e, c.b, &c.b_map)? } else { self.panel(e, (kc, open))? };
        e.pop()?;
        let init = Expr::scalar(ScalarOp::Eq {}, [Expr::name("kb"), Expr::Int(0)]);
        let mma = Stmt::Mma { to, terms: vec![(a, b)], via: row.name.into(), init: Some(init), on: None };
        let inner = repeat("j", panels_here, vec![repeat("i", ceil(rows_here, row.mr), vec![mma])]);
        let blocks = ceil(dim(c.depth()), kc);
        // A fold of nothing is 0, so a first block sets the accumulators even where a symbol is 0.
        let blocks = match c.depth().as_const() {
            Some(_) => blocks,
            None => Expr::scalar(ScalarOp::Max {}, [blocks, Expr::Int(1)]),
        };
        Ok(repeat("kb", blocks, vec![inner]))
    }

    /// Panel `j` of the grid point.
    fn panel(&self, e: &Emitter<'_>, (kc, open): (i64, bool)) -> Result<Access, Diagnostic> {
        let mut dims = Vec::new();
        for (axis, _) in &self.c.columns.batch {
            dims.push(e.dim_of(*axis)?);
        }
        dims.push(point(add(scaled("nt", self.panels), Expr::name("j"))));
        dims.extend([range(scaled("kb", kc), kc, open), IndexDim::All]);
        Ok(Access::new(&format!("in{}", self.c.b), dims))
    }
}

/// The kernel of a contraction with few rows, none of whose operands is packed: each element is a dot product along the
/// contiguous fold. Arguments as those of [`super::region_kernel`] for `region`, the contraction's own.
pub fn few_rows_kernel(region: &Region, name: &str, symbols: &[SymbolDecl]) -> Result<Kernel, Diagnostic> {
    let last = region.rank.checked_sub(1).ok_or_else(|| Diagnostic::bug("a contraction without axes"))?;
    let size = dim(&region.axes[last].1);
    let (mut vars, binds) = points(region, 0..last);
    let mut e = Emitter::new(region);
    e.frames.push(Frame::with(binds));
    let at = add(scaled("t", FEW_COLUMNS), Expr::name("c"));
    e.frames.push(Frame::with(BTreeMap::from([(last, Bind::Point(at))])));
    e.store_outputs()?;
    let inner = e.pop()?.stmts;
    let mut body = e.pop()?.stmts;
    body.push(repeat("c", left(size.clone(), "t", FEW_COLUMNS), inner));
    vars.push(("t".into(), ceil(size, FEW_COLUMNS)));
    Ok(e.kernel(name, symbols, vars, body))
}
