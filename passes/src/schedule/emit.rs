//! Regions to kernels: one emitter for every template. A schedule only says how the output's axes are bound; every term
//! is emitted in the deepest frame that binds one of its axes, so folds that do not depend on a loop leave it.

use super::Schedule;
use super::index::{add, affine, ceil, dim, identity, literal, mul};
use crate::region::{Affine, AxisId, Index, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{
    Access, Block, Buffer, Expr, IndexDim, Kernel, Level, LoadMods, Space, Stmt, TileReduce, View, expr::Ident,
};
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, SymbolDecl};

/// How an axis is bound in a frame.
#[derive(Clone, Debug)]
pub(super) enum Bind {
    /// At one position.
    Point(Expr),
    /// A tile of positions.
    Tile { start: Expr, size: i64, open: bool },
}

#[derive(Default)]
pub(super) struct Frame {
    pub(super) binds: BTreeMap<AxisId, Bind>,
    pub(super) stmts: Block,
    memo: BTreeMap<TermId, Expr>,
}

pub(super) struct Emitter<'r> {
    pub(super) region: &'r Region,
    pub(super) frames: Vec<Frame>,
    pub(super) arguments: Vec<Buffer>,
    pub(super) views: Vec<View>,
    /// The term that is the region's contraction, and where its value lies.
    pub(super) product: Option<(TermId, Access)>,
    named: Vec<bool>,
    count: usize,
}

type Emitted = Result<Expr, Diagnostic>;

/// The tile of an axis of size `n`: its size, and whether the last one passes the end.
pub(super) fn tile_of(n: &tilewright_ir::types::Dim, most: i64) -> (i64, bool) {
    match n.as_const() {
        Some(n) => {
            let tile = n.clamp(1, most);
            (tile, n % tile != 0)
        }
        None => (most, true),
    }
}

/// Name of an output's argument: `out`, `out1`, ...
fn output_name(index: usize) -> String {
    if index == 0 { "out".into() } else { format!("out{index}") }
}

/// The kernel of a region; its arguments are the region's inputs in order, then its outputs.
pub fn region_kernel(
    region: &Region,
    schedule: Schedule,
    name: &str,
    symbols: &[SymbolDecl],
) -> Result<Kernel, Diagnostic> {
    let mut e = Emitter::new(region);
    let mut outer = Frame::default();
    let mut vars: Vec<(Ident, Expr)> = Vec::new();
    let last = region.rank.saturating_sub(1);
    let all_points = matches!(schedule, Schedule::Point);
    for axis in 0..region.rank {
        if axis == last && !all_points {
            continue;
        }
        let var: Ident = format!("i{axis}").into();
        vars.push((var.clone(), dim(&region.axes[axis].1)));
        outer.binds.insert(axis, Bind::Point(Expr::Name(var)));
    }
    let mut close = None;
    let mut inner = None;
    match schedule {
        Schedule::Point => {}
        Schedule::Scalar => {
            let binds = BTreeMap::from([(last, Bind::Point(Expr::name("j")))]);
            inner = Some(Frame { binds, ..Frame::default() });
            close = Some(dim(&region.axes[last].1));
        }
        Schedule::Pointwise { tile } | Schedule::Row { tile } => {
            let (size, open) = tile_of(&region.axes[last].1, tile);
            let count = ceil(dim(&region.axes[last].1), size);
            let start = mul(Expr::name("t"), Expr::Int(size));
            let bind = Bind::Tile { start, size, open };
            if matches!(schedule, Schedule::Row { .. }) {
                inner = Some(Frame { binds: BTreeMap::from([(last, bind)]), ..Frame::default() });
                close = Some(count);
            } else {
                vars.push(("t".into(), count));
                outer.binds.insert(last, bind);
            }
        }
    }
    if vars.is_empty() {
        vars.push(("z".into(), Expr::Int(1)));
    }
    e.frames.push(outer);
    e.frames.extend(inner);
    e.store_outputs()?;
    if let Some(high) = close {
        let frame = e.pop()?;
        let var = if matches!(schedule, Schedule::Scalar) { "j" } else { "t" };
        let stmt = Stmt::For { var: var.into(), low: Expr::Int(0), high, step: None, unroll: false, body: frame.stmts };
        e.last()?.stmts.push(stmt);
    }
    let body = e.pop()?.stmts;
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

impl Frame {
    pub(super) fn with(binds: BTreeMap<AxisId, Bind>) -> Frame {
        Frame { binds, ..Frame::default() }
    }
}

impl<'r> Emitter<'r> {
    /// Fixes the names of an argument's axes.
    pub(super) fn rename(&mut self, input: usize, names: &[&str]) {
        for (slot, name) in self.arguments[input].axes.iter_mut().zip(names) {
            slot.0 = (*name).into();
        }
        self.named[input] = true;
    }

    pub(super) fn new(region: &'r Region) -> Emitter<'r> {
        let buffer =
            |space, name: String, dtype, axes| Buffer { space, name: name.into(), dtype, axes, attrs: Vec::new() };
        let mut arguments: Vec<Buffer> = Vec::new();
        for (i, (_, ty)) in region.inputs.iter().enumerate() {
            let axes = ty.shape.iter().enumerate().map(|(d, n)| (format!("x{d}").into(), dim(n))).collect();
            arguments.push(buffer(Space::In, format!("in{i}"), ty.dtype, axes));
        }
        for (i, output) in region.outputs.iter().enumerate() {
            let axes = output.axes.iter().map(|&a| (region.axes[a].0.clone(), dim(&region.axes[a].1))).collect();
            arguments.push(buffer(Space::Out, output_name(i), region.terms[output.root].1, axes));
        }
        let named = vec![false; region.inputs.len()];
        Emitter { region, frames: Vec::new(), arguments, views: Vec::new(), product: None, named, count: 0 }
    }

    pub(super) fn pop(&mut self) -> Result<Frame, Diagnostic> {
        self.frames.pop().ok_or_else(|| Diagnostic::bug("no frame is open"))
    }

    pub(super) fn last(&mut self) -> Result<&mut Frame, Diagnostic> {
        self.frames.last_mut().ok_or_else(|| Diagnostic::bug("no frame is open"))
    }

    fn fresh(&mut self, prefix: &str) -> Ident {
        self.count += 1;
        format!("{prefix}{}", self.count).into()
    }

    fn bind(&self, axis: AxisId) -> Result<&Bind, Diagnostic> {
        self.frames
            .iter()
            .rev()
            .find_map(|f| f.binds.get(&axis))
            .ok_or_else(|| Diagnostic::bug(format!("axis {axis} of a region is not bound")))
    }

    fn place(&self, term: TermId) -> usize {
        let binds = |f: &Frame| self.region.free[term].iter().any(|a| f.binds.contains_key(a));
        self.frames.iter().rposition(binds).unwrap_or(0)
    }

    /// Stores every output at its position.
    pub(super) fn store_outputs(&mut self) -> Result<(), Diagnostic> {
        let region = self.region;
        for (i, output) in region.outputs.iter().enumerate() {
            let dims = output.axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
            let mut value = self.emit(output.root)?;
            if let Expr::Int(_) | Expr::Real(_) = value {
                value = Expr::cast(region.terms[output.root].1, value);
            }
            let access = Access::new(&output_name(i), dims);
            self.last()?.stmts.push(Stmt::Store { access, mods: LoadMods::default(), value, add: false });
        }
        Ok(())
    }

    /// How the bound position of `axis` is accessed in a dim that is that axis.
    pub(super) fn dim_of(&self, axis: AxisId) -> Result<IndexDim, Diagnostic> {
        Ok(match self.bind(axis)?.clone() {
            Bind::Point(at) => IndexDim::Point { at, open: false },
            Bind::Tile { start, size, open } => IndexDim::Range { start, size: Expr::Int(size), open, upto: None },
        })
    }

    pub(super) fn emit(&mut self, term: TermId) -> Emitted {
        let place = self.place(term);
        if let Some(e) = self.frames[place].memo.get(&term) {
            return Ok(e.clone());
        }
        if let Some((_, access)) = self.product.clone().filter(|p| p.0 == term) {
            let name = self.fresh("c");
            self.frames[place].stmts.push(Stmt::Load { name: name.clone(), access, mods: LoadMods::default() });
            return Ok(self.remember(term, place, Expr::Name(name)));
        }
        let region = self.region;
        let (what, dtype) = &region.terms[term];
        let value = match what {
            Term::Const(value) => {
                literal(&value.0).ok_or_else(|| Diagnostic::bug("a constant tensor inside a region"))?
            }
            Term::Size(d) => dim(d),
            Term::Iota(a) => self.iota(a)?,
            Term::Load { input, map, open } => return self.load(term, *input, map, *open, place),
            Term::Product => return Err(Diagnostic::bug("a product without a contraction")),
            Term::Map(op, args) => {
                let args = args.iter().map(|&a| self.emit(a)).collect::<Result<Vec<_>, _>>()?;
                Expr::Scalar(op.clone(), args)
            }
            Term::Fold { kind, axis, arg } => return self.fold(term, *kind, *axis, *arg, *dtype, place),
            Term::ArgFold { largest, axis, arg } => return self.arg_fold(term, *largest, *axis, *arg, place),
            Term::Online { .. } | Term::Moment { .. } => {
                return Err(Diagnostic::bug("a fold that no template here computes"));
            }
        };
        if matches!(what, Term::Const(_) | Term::Size(_)) {
            return Ok(value);
        }
        let name = self.fresh("v");
        self.frames[place].stmts.push(Stmt::Let { names: vec![name.clone()], value });
        Ok(self.remember(term, place, Expr::Name(name)))
    }

    fn remember(&mut self, term: TermId, place: usize, value: Expr) -> Expr {
        self.frames[place].memo.insert(term, value.clone());
        value
    }

    fn iota(&mut self, a: &Affine) -> Emitted {
        let mut sum = dim(&a.base);
        for &(axis, c) in &a.terms {
            let at = match self.bind(axis)?.clone() {
                Bind::Point(at) => at,
                Bind::Tile { start, size, .. } => {
                    Expr::Iota(self.region.axes[axis].0.clone(), Box::new(start), Box::new(Expr::Int(size)))
                }
            };
            sum = add(sum, mul(Expr::Int(c), at));
        }
        Ok(sum)
    }

    fn load(&mut self, term: TermId, input: usize, map: &[Index], open: bool, place: usize) -> Emitted {
        let mut points = BTreeMap::new();
        for (i, index) in map.iter().enumerate() {
            if let Index::Term(t) = index {
                points.insert(i, self.emit(*t)?);
            }
        }
        let access = self.access(input, map, &points, open)?;
        let name = self.fresh("v");
        let mods = LoadMods { pad: Some(Expr::Int(0)), ..LoadMods::default() };
        let clipped = open || access.dims.iter().flatten().any(|d| matches!(d, IndexDim::Range { open: true, .. }));
        let mods = if clipped { mods } else { LoadMods::default() };
        self.frames[place].stmts.push(Stmt::Load { name: name.clone(), access, mods });
        Ok(self.remember(term, place, Expr::Name(name)))
    }

    fn is_tile(&self, axis: AxisId) -> bool {
        matches!(self.bind(axis), Ok(Bind::Tile { .. }))
    }

    /// The access of a load: the buffer itself where its map is plain or has only points, else a view over the region's
    /// axes.
    fn access(
        &mut self,
        input: usize,
        map: &[Index],
        points: &BTreeMap<usize, Expr>,
        open: bool,
    ) -> Result<Access, Diagnostic> {
        let shape = &self.region.inputs[input].1.shape;
        let axes_of = |index: &Index| match index {
            Index::Affine(a) => a.terms.iter().map(|t| t.0).collect::<Vec<_>>(),
            Index::Term(_) => Vec::new(),
        };
        let tiled = map.iter().any(|i| axes_of(i).iter().any(|&a| self.is_tile(a)));
        let point = |at| IndexDim::Point { at, open: false };
        let gathered = |at: Option<&Expr>| IndexDim::Checked { at: at.cloned().unwrap_or(Expr::Int(0)) };
        if !tiled && !open {
            let mut dims = Vec::new();
            for (i, index) in map.iter().enumerate() {
                dims.push(match index {
                    Index::Affine(a) => point(self.iota(a)?),
                    Index::Term(_) => gathered(points.get(&i)),
                });
            }
            return Ok(Access::new(&format!("in{input}"), dims));
        }
        let plain: Option<Vec<AxisId>> = map
            .iter()
            .zip(shape)
            .map(|(index, n)| match index {
                Index::Affine(a) => a.plain_axis().filter(|&x| self.region.axes[x].1 == *n),
                Index::Term(_) => None,
            })
            .collect();
        if let Some(axes) = plain.filter(|a| !open && (1..a.len()).all(|i| !a[..i].contains(&a[i]))) {
            let names: Vec<Ident> = axes.iter().map(|&a| self.region.axes[a].0.clone()).collect();
            let argument = &mut self.arguments[input];
            if !self.named[input] {
                for (slot, name) in argument.axes.iter_mut().zip(&names) {
                    slot.0 = name.clone();
                }
                self.named[input] = true;
            }
            if argument.axes.iter().map(|a| &a.0).eq(names.iter()) {
                let dims = axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
                return Ok(Access::new(&format!("in{input}"), dims));
            }
        }
        let mut axes: Vec<AxisId> = map.iter().flat_map(axes_of).collect();
        axes.sort_unstable();
        axes.dedup();
        let mut view_axes: Vec<(Ident, Expr)> =
            axes.iter().map(|&a| (self.region.axes[a].0.clone(), dim(&self.region.axes[a].1))).collect();
        let mut dims = axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
        let mut exprs = Vec::new();
        for (i, index) in map.iter().enumerate() {
            match index {
                Index::Affine(a) => {
                    exprs.push((affine(a, |x| Expr::Name(self.region.axes[x].0.clone())), open && !a.terms.is_empty()));
                }
                Index::Term(_) => {
                    let name: Ident = format!("g{i}").into();
                    view_axes.push((name.clone(), dim(&shape[i])));
                    dims.push(gathered(points.get(&i)));
                    exprs.push((Expr::Name(name), false));
                }
            }
        }
        let buffer: Ident = format!("in{input}").into();
        let same = |v: &View| v.buffer == buffer && v.axes == view_axes && v.dims == exprs;
        let name = match self.views.iter().find(|v| same(v)) {
            Some(v) => v.name.clone(),
            None => {
                let name: Ident = format!("w{}", self.views.len()).into();
                self.views.push(View { name: name.clone(), axes: view_axes, buffer, dims: exprs });
                name
            }
        };
        Ok(Access::new(&name, dims))
    }

    /// Whether any fold, or index that is gathered, under `term` depends on `axis`.
    fn scalar_only(&self, term: TermId, axis: AxisId) -> bool {
        if !self.region.free[term].contains(&axis) {
            return false;
        }
        match &self.region.terms[term].0 {
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } => true,
            Term::Load { map, .. } => {
                map.iter().any(|i| matches!(i, Index::Term(t) if self.region.free[*t].contains(&axis)))
            }
            Term::Map(_, args) => args.iter().any(|&a| self.scalar_only(a, axis)),
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Product => false,
        }
    }

    fn fold(
        &mut self,
        term: TermId,
        kind: ReduceKind,
        axis: AxisId,
        arg: TermId,
        dtype: DType,
        place: usize,
    ) -> Emitted {
        let region = self.region;
        let (axis_name, n) = &region.axes[axis];
        let above = self.frames.split_off(place + 1);
        let tile = region.free[term].iter().find_map(|&a| match self.bind(a) {
            Ok(Bind::Tile { size, .. }) => Some((region.axes[a].0.clone(), *size)),
            Ok(Bind::Point(_)) | Err(_) => None,
        });
        let strip = tile.is_none() && !self.scalar_only(arg, axis);
        let (size, open) = if strip { tile_of(n, super::TILE) } else { (1, false) };
        let var = self.fresh("j");
        let acc = self.fresh("s");
        let bind = if strip {
            Bind::Tile { start: mul(Expr::Name(var.clone()), Expr::Int(size)), size, open }
        } else {
            Bind::Point(Expr::Name(var.clone()))
        };
        let axes = match (&tile, strip) {
            (Some((name, size)), _) => vec![(name.clone(), Expr::Int(*size))],
            (None, true) => vec![(axis_name.clone(), Expr::Int(size))],
            (None, false) => Vec::new(),
        };
        let identity = identity(kind, dtype);
        self.frames.push(Frame { binds: BTreeMap::from([(axis, bind)]), ..Frame::default() });
        let mut value = self.emit(arg)?;
        if strip && open {
            let position = Expr::Iota(
                axis_name.clone(),
                Box::new(mul(Expr::Name(var.clone()), Expr::Int(size))),
                Box::new(Expr::Int(size)),
            );
            let inside = Expr::scalar(ScalarOp::Lt {}, [position, dim(n)]);
            value = Expr::scalar(ScalarOp::Select {}, [inside, value, identity.clone()]);
        }
        let combine = kind.combine(dtype);
        let mut body = self.pop()?.stmts;
        body.push(Stmt::Set { name: acc.clone(), value: Expr::scalar(combine, [Expr::Name(acc.clone()), value]) });
        let stmts = &mut self.last()?.stmts;
        stmts.push(Stmt::Buffer(Buffer { space: Space::Reg, name: acc.clone(), dtype, axes, attrs: Vec::new() }));
        stmts.push(Stmt::Set { name: acc.clone(), value: identity });
        let high = ceil(dim(n), size);
        stmts.push(Stmt::For { var, low: Expr::Int(0), high, step: None, unroll: false, body });
        let result = if strip {
            let reduce = match kind {
                ReduceKind::Sum => TileReduce::Sum,
                ReduceKind::Prod => TileReduce::Prod,
                ReduceKind::Max => TileReduce::Max,
                ReduceKind::Min => TileReduce::Min,
            };
            let name = self.fresh("v");
            let value = Expr::Reduce(reduce, Box::new(Expr::Name(acc)), axis_name.clone());
            self.last()?.stmts.push(Stmt::Let { names: vec![name.clone()], value });
            Expr::Name(name)
        } else {
            Expr::Name(acc)
        };
        let result = self.remember(term, place, result);
        self.frames.extend(above);
        Ok(result)
    }

    /// A sequential search; all axes are points.
    fn arg_fold(&mut self, term: TermId, largest: bool, axis: AxisId, arg: TermId, place: usize) -> Emitted {
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
}
