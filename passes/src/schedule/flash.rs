//! Kernels of attention: tiles of scores in a core's cache, a running maximum and sum a row, accumulators rescaled when the
//! maximum grows. Tiles of `j` that the mask hides from all rows of a grid point, before or after all that it shows, are not
//! visited.

use super::attention::{Attention, Operand, Weight};
use super::contraction::Columns;
use super::emit::{Bind, Emitter, Frame};
use super::index::{add, affine, ceil, dim, floor, identity};
use super::product::points;
use super::write::{between, buffer, least, left, load, most, point, range, repeat, scaled, select, store, times};
use crate::region::{Affine, AxisId};
use std::collections::BTreeMap;
use tilewright_ir::device::ukernel::UKernelShape;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{
    Access, Block, Buffer, BufferAttr, Expr, IndexDim, Kernel, Space, Stmt, TileReduce, expr::Ident,
};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, SymbolDecl};

/// Row tiles of a grid point.
pub(crate) const ROW_TILES: i64 = 4;
/// The same where no rows of values are summed: little is held for a row, and fewer passes read the columns.
pub(crate) const LEAN_ROW_TILES: i64 = 10;
/// Positions of `j` in a tile.
pub(crate) const KEYS: i64 = 128;

struct Flash<'a> {
    at: &'a Attention,
    row: &'a UKernelShape,
    /// Rows of a grid point; 1 without packed columns.
    mc: i64,
    many: bool,
    points: BTreeMap<AxisId, Bind>,
}

fn set(name: &str, value: Expr) -> Stmt {
    Stmt::Let { names: vec![name.into()], value }
}

fn real(x: f64) -> Expr {
    Expr::cast(DType::F32, Expr::Real(x))
}

/// The attention of a region: `many` rows at a time with panels in place of the columns `k`, else each row alone. Rows of
/// values have panels too where they are not [`Attention::direct`]. Arguments are the region's inputs, then its outputs.
pub fn attention_kernel(
    at: &Attention,
    row: &UKernelShape,
    many: bool,
    name: &str,
    symbols: &[SymbolDecl],
) -> Result<Kernel, Diagnostic> {
    let region = &at.region;
    let others = (0..region.rank).filter(|&x| Some(x) != at.m && Some(x) != at.e);
    let (mut vars, points) = points(region, others);
    let row_tiles = if at.e.is_some() { ROW_TILES } else { LEAN_ROW_TILES };
    let mc = if many { row.mr * row_tiles } else { 1 };
    let flash = Flash { at, row, mc, many, points };
    let mut e = Emitter::new(region);
    if many {
        e.arguments[at.k.input] = flash.panels(&at.k_columns, at.k.input, (at.d, at.j));
    }
    for (_, weight) in &at.sums {
        if let (Weight::Rows(v, columns), Some(width)) = (weight, at.e)
            && !at.direct(v, columns, row, many)
        {
            e.arguments[v.input] = flash.panels(columns, v.input, (at.j, width));
        }
    }
    e.frames.push(Frame::with(flash.points.clone()));
    let mut body = flash.buffers();
    let mut start = flash.start();
    start.extend(flash.queries(&mut e)?);
    body.push(repeat("r", flash.rows_here(), start));
    let mut tile = flash.scores(&mut e)?;
    tile.push(repeat("r", flash.rows_here(), flash.exponents(&mut e)?));
    tile.extend(flash.values(&mut e)?);
    let (first, end) = flash.tiles();
    body.push(between("jt", first, end, tile));
    body.push(repeat("r", flash.rows_here(), flash.finish(&mut e)?));
    let mut all = e.pop()?.stmts;
    all.extend(body);
    if let Some(m) = at.m {
        vars.push(("mt".into(), ceil(dim(&region.axes[m].1), mc)));
    }
    Ok(e.kernel(name, symbols, vars, all))
}

impl Flash<'_> {
    fn size(&self, axis: AxisId) -> Expr {
        dim(&self.at.region.axes[axis].1)
    }

    fn name(&self, axis: AxisId) -> Ident {
        self.at.region.axes[axis].0.clone()
    }

    fn rows_here(&self) -> Expr {
        match self.at.m {
            Some(m) if self.many => left(self.size(m), "mt", self.mc),
            Some(_) | None => Expr::Int(1),
        }
    }

    /// Panels `[batch.., nb, k, n]` in place of an input.
    fn panels(&self, columns: &Columns, input: usize, (k, n): (AxisId, AxisId)) -> Buffer {
        let mut axes: Vec<(Ident, Expr)> = columns.batch.iter().map(|(x, _)| (self.name(*x), self.size(*x))).collect();
        axes.push(("nb".into(), ceil(self.size(n), self.row.nr)));
        axes.extend([(self.name(k), self.size(k)), (self.name(n), Expr::Int(self.row.nr))]);
        let mut panels = buffer(Space::In, format!("in{input}"), DType::F32, axes);
        panels.attrs.push(BufferAttr { name: "packed".into(), args: Vec::new() });
        panels
    }

    /// Values of a row, and that in whole panels.
    fn width(&self) -> (i64, i64) {
        let e = self.at.e.and_then(|e| self.at.region.axes[e].1.as_const()).unwrap_or(1);
        (e, (e + self.row.nr - 1) / self.row.nr * self.row.nr)
    }

    /// Scores, maximum, and a sum or a row of values for each weight.
    fn buffers(&self) -> Block {
        let m: (Ident, Expr) = ("m".into(), Expr::Int(self.mc));
        let cache = |name: &str, more: Option<(Ident, i64)>| {
            let axes = [m.clone()].into_iter().chain(more.map(|(n, s)| (n, Expr::Int(s)))).collect();
            Stmt::Buffer(buffer(Space::Cache, name, DType::F32, axes))
        };
        let mut out = vec![cache("scores", Some((self.name(self.at.j), KEYS))), cache("most", None)];
        if self.query_operand().is_none() {
            let depth = self.at.region.axes[self.at.d].1.as_const().unwrap_or(1);
            out.push(cache("queries", Some((self.name(self.at.d), depth))));
        }
        for (i, (_, weight)) in self.at.sums.iter().enumerate() {
            let width = matches!(weight, Weight::Rows(..)).then(|| ("e".into(), self.width().1));
            out.push(cache(&format!("sum{i}"), width));
        }
        out
    }

    /// Row `r` of sum `i`.
    fn sum(&self, i: usize, weight: &Weight, width: i64) -> Access {
        let mut dims = vec![point(Expr::name("r"))];
        if matches!(weight, Weight::Rows(..)) {
            dims.push(range(Expr::Int(0), width, false));
        }
        Access::new(&format!("sum{i}"), dims)
    }

    fn start(&self) -> Block {
        let mut out = vec![store(Access::new("most", vec![point(Expr::name("r"))]), real(f64::NEG_INFINITY))];
        for (i, (_, weight)) in self.at.sums.iter().enumerate() {
            out.push(store(self.sum(i, weight, self.width().1), real(0.0)));
        }
        out
    }

    /// The first tile of `j` that any row here sees, and the end of these tiles.
    fn tiles(&self) -> (Expr, Expr) {
        let known = |limit: &&Affine| limit.terms.iter().all(|t| t.0 < self.at.region.rank && Some(t.0) != self.at.e);
        let (starts, ends) = (&self.at.limits.starts, &self.at.limits.ends);
        let end = ends.iter().filter(known).fold(self.size(self.at.j), |end, l| least(end, self.extreme(l, true)));
        let tile = |l: &Affine| floor(self.extreme(l, false), KEYS);
        let first = starts.iter().filter(known).fold(Expr::Int(0), |first, l| most(first, tile(l)));
        (first, ceil(end, KEYS))
    }

    /// The largest value, or the smallest, that a position has for the rows here.
    fn extreme(&self, a: &Affine, largest: bool) -> Expr {
        let at = |axis: AxisId| {
            if Some(axis) != self.at.m {
                return Expr::name(&format!("i{axis}"));
            }
            let grows = a.terms.iter().any(|t| t.0 == axis && t.1 > 0);
            if grows != largest {
                return scaled("mt", self.mc);
            }
            let past = add(scaled("mt", self.mc), Expr::Int(self.mc));
            add(if self.many { least(past, self.size(axis)) } else { past }, Expr::Int(-1))
        };
        affine(a, at)
    }

    /// Binds of a row `r`.
    fn row_binds(&self) -> BTreeMap<AxisId, Bind> {
        let mut binds = self.points.clone();
        if let Some(m) = self.at.m {
            let at = if self.many { add(scaled("mt", self.mc), Expr::name("r")) } else { Expr::name("mt") };
            binds.insert(m, Bind::Point(at));
        }
        binds
    }

    /// The products `q k` of a tile.
    fn scores(&self, e: &mut Emitter<'_>) -> Result<Block, Diagnostic> {
        let (at, row) = (self.at, self.row);
        let depth = at.region.axes[at.d].1.as_const().unwrap_or(1);
        let whole = Bind::Tile { start: Expr::Int(0), size: depth, open: false };
        if !self.many {
            let mut binds = self.row_binds();
            binds.insert(at.j, Bind::Point(add(scaled("jt", KEYS), Expr::name("c"))));
            binds.insert(at.d, whole);
            e.frames.push(Frame::with(binds));
            let k = e.emit(at.k_term)?;
            let mut dot = e.pop()?.stmts;
            dot.push(load("query", Access::new("queries", vec![point(Expr::Int(0)), IndexDim::All])));
            let value = Expr::Reduce(TileReduce::Sum, Box::new(times(Expr::name("query"), k)), self.name(at.d));
            dot.push(set("dot", value));
            dot.push(store(
                Access::new("scores", vec![point(Expr::Int(0)), point(Expr::name("c"))]),
                Expr::name("dot"),
            ));
            return Ok(vec![repeat("c", left(self.size(at.j), "jt", KEYS), dot)]);
        }
        let panels = KEYS / row.nr;
        let mut binds = self.points.clone();
        binds.insert(at.d, whole);
        if let Some(m) = at.m {
            let start = add(scaled("mt", self.mc), scaled("i", row.mr));
            binds.insert(m, Bind::Tile { start, size: row.mr, open: true });
        }
        e.frames.push(Frame::with(binds));
        let rows = || range(scaled("i", row.mr), row.mr, true);
        let q = match self.query_operand() {
            Some(q) => e.access(q.input, &q.map, &BTreeMap::new(), false)?,
            None => Access::new("queries", vec![rows(), IndexDim::All]),
        };
        let mut k = at.k_columns.batch.iter().map(|(x, _)| e.dim_of(*x)).collect::<Result<Vec<_>, _>>()?;
        e.pop()?;
        k.extend([point(add(scaled("jt", panels), Expr::name("p"))), IndexDim::All, IndexDim::All]);
        let k = Access::new(&format!("in{}", at.k.input), k);
        let to = Access::new("scores", vec![rows(), range(scaled("p", row.nr), row.nr, false)]);
        let count = left(ceil(self.size(at.j), row.nr), "jt", panels);
        Ok(vec![repeat("p", count, vec![self.over_rows(self.mma(to, q, k, true))])])
    }

    /// The queries where they lie, if the products read them there.
    fn query_operand(&self) -> Option<&Operand> {
        self.at.q_lies.as_ref().filter(|_| self.many)
    }

    /// Stores row `r` of the queries, unless they are read where they lie.
    fn queries(&self, e: &mut Emitter<'_>) -> Result<Block, Diagnostic> {
        if self.query_operand().is_some() {
            return Ok(Vec::new());
        }
        let mut binds = self.row_binds();
        let depth = self.at.region.axes[self.at.d].1.as_const().unwrap_or(1);
        binds.insert(self.at.d, Bind::Tile { start: Expr::Int(0), size: depth, open: false });
        e.frames.push(Frame::with(binds));
        let value = e.emit(self.at.q)?;
        let mut out = e.pop()?.stmts;
        out.push(store(Access::new("queries", vec![point(Expr::name("r")), IndexDim::All]), value));
        Ok(out)
    }

    fn mma(&self, to: Access, a: Access, b: Access, start: bool) -> Stmt {
        let init = start.then_some(Expr::Int(1));
        Stmt::Mma { to, terms: vec![(a, b)], via: self.row.name.into(), init, on: None }
    }

    fn over_rows(&self, stmt: Stmt) -> Stmt {
        repeat("i", ceil(self.rows_here(), self.row.mr), vec![stmt])
    }

    /// Row `r` of a tile: key and mask, the new maximum, `exp`, sums and accumulators.
    fn exponents(&self, e: &mut Emitter<'_>) -> Result<Block, Diagnostic> {
        let (at, j) = (self.at, self.name(self.at.j));
        let here = Access::new("scores", vec![point(Expr::name("r")), IndexDim::All]);
        let open = at.region.axes[at.j].1.as_const().is_none_or(|n| n % KEYS != 0);
        let mut binds = self.row_binds();
        binds.insert(at.j, Bind::Tile { start: scaled("jt", KEYS), size: KEYS, open });
        let mut frame = Frame::with(binds);
        frame.stmts.push(load("score", here.clone()));
        frame.memo.insert(at.fold, Expr::name("score"));
        e.frames.push(frame);
        let key = e.emit(at.key)?;
        let mut mask = at.mask.map(|t| e.emit(t)).transpose()?;
        let factor = at.factor.map(|t| e.emit(t)).transpose()?;
        let plains = at.sums.iter().enumerate().filter_map(|(i, (_, weight))| match weight {
            Weight::Plain(arg) => Some((i, weight, *arg)),
            Weight::Term(_) | Weight::Rows(..) => None,
        });
        let plains =
            plains.map(|(i, weight, arg)| Ok((i, weight, e.emit(arg)?))).collect::<Result<Vec<_>, Diagnostic>>()?;
        if open {
            let position = Expr::Iota(j.clone(), Box::new(scaled("jt", KEYS)), Box::new(Expr::Int(KEYS)));
            let inside = Expr::scalar(ScalarOp::Lt {}, [position, self.size(at.j)]);
            mask = Some(match mask {
                Some(mask) => Expr::scalar(ScalarOp::And {}, [inside, mask]),
                None => inside,
            });
        }
        let seen = |x: Expr, nothing: Expr| match &mask {
            Some(mask) => select(mask.clone(), x, nothing),
            None => x,
        };
        let key = seen(key, identity(ReduceKind::Max, DType::F32));
        let mut out = e.pop()?.stmts;
        for (i, weight, arg) in plains {
            let (to, before) = (self.sum(i, weight, 1), format!("before{i}"));
            let more = Expr::Reduce(TileReduce::Sum, Box::new(seen(arg, real(0.0))), j.clone());
            out.push(load(&before, to.clone()));
            out.push(store(to, Expr::scalar(ScalarOp::Add {}, [Expr::name(&before), more])));
        }
        let most = Access::new("most", vec![point(Expr::name("r"))]);
        let exp = |x: Expr| {
            let shifted = Expr::scalar(ScalarOp::Sub {}, [x, Expr::name("shift")]);
            Expr::scalar(ScalarOp::Exp {}, [shifted])
        };
        let reduce = |kind, x: &str| Expr::Reduce(kind, Box::new(Expr::name(x)), j.clone());
        let nothing = Expr::scalar(ScalarOp::Eq {}, [Expr::name("new"), real(f64::NEG_INFINITY)]);
        out.extend([
            store(here.clone(), key),
            load("x", here.clone()),
            load("old", most.clone()),
            set("new", Expr::scalar(ScalarOp::Max {}, [Expr::name("old"), reduce(TileReduce::Max, "x")])),
            // Nothing seen yet: any finite shift gives zeros.
            set("shift", select(nothing, real(0.0), Expr::name("new"))),
            set("scale", exp(Expr::name("old"))),
            store(most, Expr::name("new")),
            store(here.clone(), exp(Expr::name("x"))),
            load("p", here.clone()),
        ]);
        for (i, (_, weight)) in at.sums.iter().enumerate() {
            let (to, before) = (self.sum(i, weight, self.width().1), format!("before{i}"));
            let kept = times(Expr::name(&before), Expr::name("scale"));
            let sum = match weight {
                Weight::Rows(..) => kept,
                Weight::Term(_) => Expr::scalar(ScalarOp::Add {}, [kept, reduce(TileReduce::Sum, "p")]),
                Weight::Plain(_) => continue,
            };
            out.push(load(&before, to.clone()));
            out.push(store(to, sum));
        }
        if let Some(factor) = factor {
            out.push(store(here, seen(times(Expr::name("p"), factor), real(0.0))));
        }
        Ok(out)
    }

    /// The products of a tile's exponents with the rows of values.
    fn values(&self, e: &mut Emitter<'_>) -> Result<Block, Diagnostic> {
        let (at, row) = (self.at, self.row);
        let mut out = Vec::new();
        for (i, (_, weight)) in at.sums.iter().enumerate() {
            let (Weight::Rows(v, columns), Some(width)) = (weight, at.e) else { continue };
            let mut binds = self.row_binds();
            let open = at.region.axes[at.j].1.as_const().is_none_or(|n| n % KEYS != 0);
            binds.insert(at.j, Bind::Tile { start: scaled("jt", KEYS), size: KEYS, open });
            binds.insert(width, Bind::Tile { start: scaled("p", row.nr), size: row.nr, open: false });
            e.frames.push(Frame::with(binds));
            let rows = self.value_rows(e, v, columns);
            e.pop()?;
            let here = || range(scaled("i", row.mr), row.mr, true);
            let to = Access::new(&format!("sum{i}"), vec![here(), range(scaled("p", row.nr), row.nr, false)]);
            let a = Access::new("scores", vec![here(), IndexDim::All]);
            let tile = self.over_rows(self.mma(to, a, rows?, false));
            out.push(repeat("p", Expr::Int(self.width().1 / row.nr), vec![tile]));
        }
        Ok(out)
    }

    fn value_rows(&self, e: &mut Emitter<'_>, v: &Operand, columns: &Columns) -> Result<Access, Diagnostic> {
        if self.at.direct(v, columns, self.row, self.many) {
            return e.access(v.input, &v.map, &BTreeMap::new(), false);
        }
        let mut dims = columns.batch.iter().map(|(x, _)| e.dim_of(*x)).collect::<Result<Vec<_>, _>>()?;
        dims.extend([point(Expr::name("p")), e.dim_of(self.at.j)?, IndexDim::All]);
        Ok(Access::new(&format!("in{}", v.input), dims))
    }

    /// Row `r` of the outputs.
    fn finish(&self, e: &mut Emitter<'_>) -> Result<Block, Diagnostic> {
        let at = self.at;
        let mut binds = self.row_binds();
        if let Some(width) = at.e {
            binds.insert(width, Bind::Tile { start: Expr::Int(0), size: self.width().0, open: false });
        }
        e.frames.push(Frame::with(binds));
        for (i, (term, weight)) in at.sums.iter().enumerate() {
            let name = format!("total{i}");
            e.last()?.stmts.push(load(&name, self.sum(i, weight, self.width().0)));
            let mut total = Expr::name(&name);
            if let Weight::Term(w) = weight {
                let each = e.emit(*w)?;
                total = times(total, each);
            }
            e.last()?.memo.insert(*term, total);
        }
        if !at.tops.is_empty() {
            e.last()?.stmts.push(load("top", Access::new("most", vec![point(Expr::name("r"))])));
        }
        for &term in &at.tops {
            e.last()?.memo.insert(term, Expr::name("top"));
        }
        e.store_outputs()?;
        Ok(e.pop()?.stmts)
    }
}
