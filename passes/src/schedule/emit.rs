//! Regions to kernels: one emitter for every template. A schedule only says how the output's axes are bound; every term
//! is emitted in the deepest frame that binds one of its axes, so folds that do not depend on a loop leave it.

use super::held::{Held, Strip, Trace, worth_holding};
use super::index::{ceil, dim, literal, mul};
use super::same_row::same_row;
use super::write::{between, buffer, grid, kernel, load, point, range, store};
use super::{Schedule, crosswise, repeated};
use crate::region::{AxisId, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Block, Buffer, Expr, IndexDim, Kernel, Space, Stmt, View, expr::Ident};
use tilewright_ir::types::SymbolDecl;

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
    pub(super) memo: BTreeMap<TermId, Expr>,
    /// The pass over a row that it is the body of.
    pub(super) strip: Option<Strip>,
    /// Number of the passes in it.
    pub(super) scope: Option<usize>,
    /// Rows that an ended pass in it has stored: their buffers, and the elements of the tiles.
    pub(super) rows: BTreeMap<TermId, (Ident, i64)>,
    /// Rows that it stores.
    pub(super) filled: BTreeMap<TermId, (Ident, i64)>,
}

pub(super) struct Emitter<'r> {
    pub(super) region: &'r Region,
    pub(super) frames: Vec<Frame>,
    pub(super) arguments: Vec<Buffer>,
    pub(super) views: Vec<View>,
    /// The term that is the region's contraction, and where its value lies.
    pub(super) product: Option<(TermId, Access)>,
    /// Elements of a strip of a fold.
    pub(super) strip: i64,
    /// Terms that become part of their only user's expression, where a whole team computes a tile; none on the CPU.
    pub(super) inlined: Vec<bool>,
    pub(super) named: Vec<bool>,
    pub(super) held: Held,
    /// The folds whose passes are not at their end yet, the outermost first.
    pub(super) running: Vec<TermId>,
    /// The passes so far.
    pub(super) trace: Trace,
    /// Those that have ended: the order in which they run.
    pub(super) ended: Vec<usize>,
    /// Whether a term is what asks for the next one.
    inner: bool,
    count: usize,
}

pub(super) type Emitted = Result<Expr, Diagnostic>;

/// The tile of an axis of size `n`: its size, and whether the last one passes the end.
pub(super) fn tile_of(n: &tilewright_ir::types::Dim, most: i64) -> (i64, bool) {
    match n.as_const() {
        Some(n) if n <= most => (n.max(1), false),
        // One that divides the axis spares the last tile its masks.
        Some(n) => {
            let tiles = (most / 4 / LANES..=most / LANES).rev().map(|x| x * LANES);
            let even = tiles.into_iter().find(|x| *x > 0 && n % x == 0);
            (even.unwrap_or(most), even.is_none())
        }
        None => (most, true),
    }
}

/// Name of an output's argument: `out`, `out1`, ...
pub(super) fn output_name(index: usize) -> String {
    if index == 0 { "out".into() } else { format!("out{index}") }
}

/// Tiles shorter than the longest are multiples of this, vectors of any width.
const LANES: i64 = 16;
/// Most elements of an axis that a grid point takes whole.
const WHOLE: i64 = 2048;

/// How the axes of the outputs are walked: the grid, then a loop over the innermost axis, then loops of single outputs.
struct Roles {
    vars: Vec<(Ident, Expr)>,
    grid: BTreeMap<AxisId, Bind>,
    /// Variable, trips and bind of the loop over the innermost axis.
    row: Option<(Ident, Expr, Bind)>,
    /// Axes that some output lacks, or along which a fold is the same: only the outputs that have them loop over them.
    single: Vec<AxisId>,
}

impl Roles {
    fn new(region: &Region, schedule: Schedule) -> Roles {
        let mut roles = Roles { vars: Vec::new(), grid: BTreeMap::new(), row: None, single: Vec::new() };
        let last = region.rank.saturating_sub(1);
        let shared = |axis: AxisId| region.outputs.iter().all(|o| o.axes.contains(&axis));
        let size = |axis: AxisId| dim(&region.axes[axis].1);
        let inside = if matches!(schedule, Schedule::Pointwise { .. }) { repeated(region) } else { Vec::new() };
        // A loop over the only axis would leave one thread to do all.
        let points = matches!(schedule, Schedule::Point) || (matches!(schedule, Schedule::Scalar) && last == 0);
        for axis in 0..region.rank {
            if axis == last && !points {
                continue;
            }
            if shared(axis) && !inside.contains(&axis) {
                let var: Ident = format!("i{axis}").into();
                roles.vars.push((var.clone(), size(axis)));
                roles.grid.insert(axis, Bind::Point(Expr::Name(var)));
            } else {
                roles.single.push(axis);
            }
        }
        match schedule {
            Schedule::Point | Schedule::Scalar if points => {}
            Schedule::Point | Schedule::Scalar => {
                roles.row = Some(("j".into(), size(last), Bind::Point(Expr::name("j"))))
            }
            Schedule::Pointwise { tile } | Schedule::Row { tile } => {
                let whole = region.axes[last].1.as_const().filter(|n| (1..=WHOLE).contains(n));
                let (tile, open) = tile_of(&region.axes[last].1, tile);
                let count = ceil(size(last), tile);
                let bind = Bind::Tile { start: mul(Expr::name("t"), Expr::Int(tile)), size: tile, open };
                match (schedule, whole) {
                    (Schedule::Pointwise { .. }, _) if shared(last) => {
                        roles.vars.push(("t".into(), count));
                        roles.grid.insert(last, bind);
                        // The next point of the grid reads on in the lines of this one.
                        if let Some(Bind::Point(Expr::Name(inner))) = crosswise(region).and_then(|a| roles.grid.get(&a))
                        {
                            roles.vars.sort_by_key(|(var, _)| var == inner);
                        }
                    }
                    (Schedule::Pointwise { .. }, Some(size)) => {
                        roles.grid.insert(last, Bind::Tile { start: Expr::Int(0), size, open: false });
                    }
                    (_, _) => roles.row = Some(("t".into(), count, bind)),
                }
            }
        }
        roles
    }
}

/// The kernel of a region; its arguments are the region's inputs in order, then its outputs. With `hold`, rows that several
/// passes need are held where that pays.
pub fn region_kernel(
    region: &Region,
    (schedule, hold): (Schedule, bool),
    name: &str,
    symbols: &[SymbolDecl],
) -> Result<Kernel, Diagnostic> {
    if !hold {
        return Ok(written(region, schedule, Held::new(), (name, symbols))?.0);
    }
    let row = matches!(schedule, Schedule::Row { .. }).then(|| region.rank.checked_sub(1)).flatten();
    let one = same_row(region, row);
    let (_, passes) = written(&one, schedule, Held::new(), (name, symbols))?;
    let held = worth_holding(&one, &passes, symbols);
    let region = if held.is_empty() { region } else { &one };
    Ok(written(region, schedule, held, (name, symbols))?.0)
}

/// The kernel that holds the rows of `held`, and its passes.
fn written(
    region: &Region,
    schedule: Schedule,
    held: Held,
    (name, symbols): (&str, &[SymbolDecl]),
) -> Result<(Kernel, Trace), Diagnostic> {
    // The passes of a row share its tiles: what one holds, others read.
    let strip = if let Schedule::Row { tile } = schedule { tile } else { super::TILE };
    let mut e = Emitter { held, strip, ..Emitter::new(region) };
    let roles = Roles::new(region, schedule);
    e.frames.push(Frame::with(roles.grid));
    let last = region.rank.saturating_sub(1);
    let in_row = |i: usize| roles.row.is_some() && region.outputs[i].axes.contains(&last);
    for i in (0..region.outputs.len()).filter(|&i| !in_row(i)) {
        e.store_looped(i, &roles.single)?;
    }
    if let Some((var, high, bind)) = roles.row.clone() {
        if !e.held.is_empty() {
            e.folds_of_points()?;
        }
        let tile = if let Bind::Tile { size, .. } = &bind { Some(*size) } else { None };
        e.frames.push(Frame::with(BTreeMap::from([(last, bind)])));
        if let Some(size) = tile {
            e.strip(last, size, true);
        }
        for i in (0..region.outputs.len()).filter(|&i| in_row(i)) {
            e.store_looped(i, &roles.single)?;
        }
        e.close(var, high)?;
    }
    let body = e.pop()?.stmts;
    let passes = e.passes();
    Ok((e.kernel(name, symbols, roles.vars, body), passes))
}

impl Frame {
    pub(super) fn with(binds: BTreeMap<AxisId, Bind>) -> Frame {
        Frame { binds, ..Frame::default() }
    }
}

impl<'r> Emitter<'r> {
    pub(super) fn new(region: &'r Region) -> Emitter<'r> {
        let mut arguments: Vec<Buffer> = Vec::new();
        for (i, (_, ty)) in region.inputs.iter().enumerate() {
            let axes = ty.shape.iter().enumerate().map(|(d, n)| (format!("x{d}").into(), dim(n))).collect();
            arguments.push(buffer(Space::In, format!("in{i}"), ty.dtype, axes));
        }
        for (i, output) in region.outputs.iter().enumerate() {
            let axes = output.axes.iter().map(|&a| (region.axes[a].0.clone(), dim(&region.axes[a].1))).collect();
            arguments.push(buffer(Space::Out, output_name(i), region.terms[output.root].1, axes));
        }
        let (named, inlined) = (vec![false; region.inputs.len()], Vec::new());
        let (frames, views, strip) = (Vec::new(), Vec::new(), super::TILE);
        let (held, running, trace, ended) = (Held::new(), Vec::new(), Vec::new(), Vec::new());
        let (product, inner, count) = (None, false, 0);
        Emitter {
            region,
            frames,
            arguments,
            views,
            product,
            strip,
            inlined,
            named,
            held,
            running,
            trace,
            ended,
            inner,
            count,
        }
    }

    /// The kernel around a body at grid.
    pub(super) fn kernel(self, name: &str, symbols: &[SymbolDecl], vars: Vec<(Ident, Expr)>, body: Block) -> Kernel {
        kernel(name, symbols, (self.arguments, self.views), grid(vars, body), &self.region.places)
    }

    /// Whether a team of threads computes whole tiles.
    pub(super) fn by_team(&self) -> bool {
        !self.inlined.is_empty()
    }

    pub(super) fn pop(&mut self) -> Result<Frame, Diagnostic> {
        let mut frame = self.frames.pop().ok_or_else(|| Diagnostic::bug("no frame is open"))?;
        self.end_pass(&mut frame);
        Ok(frame)
    }

    pub(super) fn last(&mut self) -> Result<&mut Frame, Diagnostic> {
        self.frames.last_mut().ok_or_else(|| Diagnostic::bug("no frame is open"))
    }

    pub(super) fn fresh(&mut self, prefix: &str) -> Ident {
        self.count += 1;
        format!("{prefix}{}", self.count).into()
    }

    pub(super) fn bind(&self, axis: AxisId) -> Result<&Bind, Diagnostic> {
        self.frames
            .iter()
            .rev()
            .find_map(|f| f.binds.get(&axis))
            .ok_or_else(|| Diagnostic::bug(format!("axis {axis} of a region is not bound")))
    }

    pub(super) fn place(&self, term: TermId) -> usize {
        let binds = |f: &Frame| self.region.free[term].iter().any(|a| f.binds.contains_key(a));
        self.frames.iter().rposition(binds).unwrap_or(0)
    }

    /// Stores every output at its position.
    pub(super) fn store_outputs(&mut self) -> Result<(), Diagnostic> {
        (0..self.region.outputs.len()).try_for_each(|i| self.store_output(i))
    }

    pub(super) fn store_output(&mut self, i: usize) -> Result<(), Diagnostic> {
        let region = self.region;
        let output = &region.outputs[i];
        let dims = output.axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
        let mut value = self.emit(output.root)?;
        if let Expr::Int(_) | Expr::Real(_) = value {
            value = Expr::cast(region.terms[output.root].1, value);
        }
        let access = Access::new(&output_name(i), dims);
        self.last()?.stmts.push(store(access, value));
        Ok(())
    }

    /// Stores an output in loops over those of `axes` that it has.
    fn store_looped(&mut self, i: usize, axes: &[AxisId]) -> Result<(), Diagnostic> {
        let region = self.region;
        let mine: Vec<AxisId> = axes.iter().copied().filter(|a| region.outputs[i].axes.contains(a)).collect();
        let var = |axis: AxisId| Ident::from(format!("i{axis}"));
        for &axis in &mine {
            self.frames.push(Frame::with(BTreeMap::from([(axis, Bind::Point(Expr::Name(var(axis))))])));
        }
        self.store_output(i)?;
        for &axis in mine.iter().rev() {
            self.close(var(axis), dim(&region.axes[axis].1))?;
        }
        Ok(())
    }

    /// Ends the innermost frame: it was the body of a loop.
    pub(super) fn close(&mut self, var: Ident, high: Expr) -> Result<(), Diagnostic> {
        self.close_between(var, Expr::Int(0), high)
    }

    /// Ends the innermost frame: it was the body of a loop from `low` to `high`.
    pub(super) fn close_between(&mut self, var: Ident, low: Expr, high: Expr) -> Result<(), Diagnostic> {
        let body = self.pop()?.stmts;
        self.last()?.stmts.push(between(var, low, high, body));
        Ok(())
    }

    /// Names a value in the innermost frame.
    pub(super) fn name(&mut self, value: Expr) -> Result<Expr, Diagnostic> {
        let name = self.fresh("v");
        self.last()?.stmts.push(Stmt::Let { names: vec![name.clone()], value });
        Ok(Expr::Name(name))
    }

    /// How the bound position of `axis` is accessed in a dim that is that axis.
    pub(super) fn dim_of(&self, axis: AxisId) -> Result<IndexDim, Diagnostic> {
        Ok(match self.bind(axis)?.clone() {
            Bind::Point(at) => point(at),
            Bind::Tile { start, size, open } => range(start, size, open),
        })
    }

    /// The value of a term, in the deepest frame that binds one of its axes.
    pub(super) fn emit(&mut self, term: TermId) -> Emitted {
        let place = self.place(term);
        let inner = std::mem::take(&mut self.inner);
        self.note(term, place, inner);
        if let Some(e) = self.frames[place].memo.get(&term) {
            return Ok(e.clone());
        }
        if let Some(value) = self.read_row(term, place)? {
            return Ok(self.remember(term, place, value));
        }
        let value = self.computed(term, place)?;
        self.keep_row(term, place, value)
    }

    /// The value of an operand of a term.
    pub(super) fn operand(&mut self, term: TermId) -> Emitted {
        self.inner = true;
        self.emit(term)
    }

    fn computed(&mut self, term: TermId, place: usize) -> Emitted {
        if let Some((_, access)) = self.product.clone().filter(|p| p.0 == term) {
            let name = self.fresh("c");
            self.frames[place].stmts.push(load(&name, access));
            return Ok(self.remember(term, place, Expr::Name(name)));
        }
        let region = self.region;
        let what = &region.terms[term].0;
        let value = match what {
            Term::Const(value) => {
                literal(&value.0).ok_or_else(|| Diagnostic::bug("a constant tensor inside a region"))?
            }
            Term::Size(d) => dim(d),
            Term::Iota(a) => self.iota(a)?,
            Term::Load { input, map, open } => return self.load(term, *input, map, *open, place),
            Term::Product => return Err(Diagnostic::bug("a product without a contraction")),
            Term::Map(op, args) => {
                let args = args.iter().map(|&a| self.operand(a)).collect::<Result<Vec<_>, _>>()?;
                Expr::Scalar(op.clone(), args)
            }
            Term::Fold { axis, .. } | Term::Online { axis, .. } | Term::Moment { axis, .. } => {
                return self.fold(term, *axis, place);
            }
            Term::ArgFold { largest, axis, arg } if self.by_team() => {
                return self.arg_strip(term, *largest, *axis, *arg, place);
            }
            Term::ArgFold { largest, axis, arg } => return self.arg_fold(term, *largest, *axis, *arg, place),
        };
        if matches!(what, Term::Const(_) | Term::Size(_)) || self.inlined.get(term) == Some(&true) {
            return Ok(value);
        }
        let name = self.fresh("v");
        self.frames[place].stmts.push(Stmt::Let { names: vec![name.clone()], value });
        Ok(self.remember(term, place, Expr::Name(name)))
    }

    pub(super) fn remember(&mut self, term: TermId, place: usize, value: Expr) -> Expr {
        self.frames[place].memo.insert(term, value.clone());
        value
    }
}
