//! The walk over statements: pushes and pops facts, proves bounds, asks about races.

use super::context::Context;
use super::in_place::Watch;
use super::linear::{Form, Unknown};
use super::race::{Coordinates, Written};
use super::{Report, note_head};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident, IndexDim};
use crate::kernel::tree::{Block, Buffer, BufferAttr, Kernel, Space, Stmt, View};
use crate::op::ScalarOp;
use std::sync::Arc;

/// What accesses need of a buffer or view.
#[derive(Clone)]
struct Known {
    axes: Vec<(Ident, Form)>,
    /// Whether it holds integers.
    integers: bool,
    space: Space,
    attrs: Vec<BufferAttr>,
    /// The buffer and index forms of a view; the unknowns are its axes.
    view: Option<Arc<ViewForms>>,
}

struct ViewForms {
    buffer: Ident,
    variables: Vec<Unknown>,
    dims: Vec<Form>,
}

struct Walk {
    context: Context,
    buffers: Vec<(Ident, Known)>,
    parallel: Vec<Unknown>,
    /// Variables of the grids and loops around, outermost first.
    around: Vec<Unknown>,
    orders: Vec<Coordinates>,
    /// Turns order what grid points write.
    turns: usize,
    /// Inside an `if` or a loop that may not run.
    conditional: usize,
    watch: Option<Watch>,
    report: Report,
}

/// Proves all bounds of `kernel`.
pub(super) fn check(kernel: &Kernel) -> Result<Report, Diagnostic> {
    walk(kernel, None).map(|w| w.report)
}

/// Whether the kernel is proved, and that what `watch` looks at may be one memory.
pub(super) fn watched(kernel: &Kernel, watch: Watch) -> bool {
    walk(kernel, Some(watch)).is_ok_and(|w| w.watch.is_some_and(|w| w.proved))
}

fn walk(kernel: &Kernel, watch: Option<Watch>) -> Result<Walk, Diagnostic> {
    let mut w = Walk {
        context: Context::default(),
        buffers: Vec::new(),
        parallel: Vec::new(),
        around: Vec::new(),
        orders: Vec::new(),
        turns: 0,
        conditional: 0,
        watch,
        report: Report::default(),
    };
    for (name, value) in &kernel.constants {
        w.context.bind(name, Some(Form::number((*value).into())));
    }
    for s in &kernel.symbols {
        let step = i128::from(s.step.max(1));
        let u = w.context.fresh(&s.name, false, None);
        w.context.unknowns[u].uniform = true;
        let v = Form::unknown(u);
        w.context.assume(v.offset(-i128::from(s.low).div_euclid(step)));
        w.context.assume(Form::number(i128::from(s.high).div_euclid(step)).plus(&v, -1));
        w.context.bind(&s.name, Form::default().plus(&v, step));
    }
    for fact in kernel.attrs.iter().filter(|a| &*a.name == "require").flat_map(|a| &a.args) {
        let form = w.size(fact)?;
        w.context.assume(Some(form));
    }
    for b in &kernel.arguments {
        w.declare(b, &b.name)?;
        if b.space == Space::Out {
            w.report.outputs.push((b.name.clone(), false));
        }
    }
    for v in &kernel.views {
        w.view(v)?;
    }
    w.block(&kernel.body)?;
    w.report.proofs = w.context.proofs;
    Ok(w)
}

fn bounds(message: String) -> Diagnostic {
    Diagnostic::new("kernel-bounds", message)
}

impl Walk {
    fn size(&mut self, e: &Expr) -> Result<Form, Diagnostic> {
        self.context.form(e).ok_or_else(|| Diagnostic::new("kernel-type", format!("the size `{e}` is no integer")))
    }

    fn axes(&mut self, axes: &[(Ident, Expr)]) -> Result<Vec<(Ident, Form)>, Diagnostic> {
        axes.iter().map(|(n, e)| Ok((n.clone(), self.size(e)?))).collect()
    }

    fn declare(&mut self, b: &Buffer, name: &str) -> Result<(), Diagnostic> {
        let axes = self.axes(&b.axes)?;
        let known = Known { axes, integers: b.dtype.is_int(), space: b.space, attrs: b.attrs.clone(), view: None };
        if b.dtype.is_block() {
            for field in ["d", "m", "qs"] {
                let mut known = known.clone();
                if field == "qs" {
                    known.integers = true;
                    known.axes.push(("e".into(), Form::number((b.dtype.block().0 / 2) as i128)));
                }
                self.buffers.push((format!("{name}.{field}").into(), known));
            }
        }
        self.buffers.push((name.into(), known));
        // The name hides an integer of the same name, and what the buffer holds is not known.
        self.context.bind(&name.into(), None);
        Ok(())
    }

    fn known(&self, name: &str) -> Result<&Known, Diagnostic> {
        let found = self.buffers.iter().rev().find(|(n, _)| **n == *name).map(|(_, k)| k);
        found.ok_or_else(|| Diagnostic::new("kernel-name", format!("`{name}` is no buffer here")))
    }

    /// Proves a view once over its whole box.
    fn view(&mut self, v: &View) -> Result<(), Diagnostic> {
        let base = self.known(&v.buffer)?.clone();
        let axes = self.axes(&v.axes)?;
        let mark = self.context.mark();
        let mut variables = Vec::new();
        for (name, extent) in &axes {
            let form = self.context.variable(name, false, extent);
            variables.extend(form.terms.keys().copied());
            self.context.bind(name, Some(form));
        }
        if v.dims.len() != base.axes.len() {
            let (found, want) = (v.dims.len(), base.axes.len());
            return Err(Diagnostic::new("kernel-type", format!("`{v}` has {found} indices for {want} axes")));
        }
        let mut dims = Vec::new();
        for ((e, open), (axis, extent)) in v.dims.iter().zip(&base.axes) {
            let at = self.size(e)?;
            self.box_inside(&v.to_string(), axis, &at, &Form::number(1), extent, *open, *open)?;
            dims.push(at);
        }
        if v.dims.iter().any(|d| d.1) && !matches!(base.space, Space::In | Space::Work) {
            return Err(Diagnostic::new("kernel-type", format!("`{v}`: only views of `in` and `work` may be open")));
        }
        self.context.release(mark);
        let view = Some(Arc::new(ViewForms { buffer: v.buffer.clone(), variables, dims }));
        self.buffers.push((v.name.clone(), Known { axes, view, ..base }));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one box of one axis
    fn box_inside(
        &mut self,
        what: &str,
        axis: &str,
        start: &Form,
        size: &Form,
        extent: &Form,
        open_low: bool,
        open_high: bool,
    ) -> Result<(), Diagnostic> {
        let overflow = || bounds(format!("`{what}`: the bound of axis `{axis}` overflows"));
        let room = extent.plus(start, -1).and_then(|f| f.plus(size, -1)).ok_or_else(overflow)?;
        if !open_low && !self.context.prove(start) {
            let form = self.context.shown(start);
            return Err(bounds(format!("`{what}`: axis `{axis}` may start below 0, at {form}")));
        }
        let fits = self.context.prove(&room);
        self.report.masks += usize::from(open_high);
        self.report.removable += usize::from(open_high && fits);
        if !fits && !open_high {
            let message =
                format!("`{what}`: axis `{axis}` may pass its end: not proved that {} >= 0", self.context.shown(&room));
            return Err(bounds(message).note("write `+?` (or `?`), `upto`, or a symbol `by` a multiple"));
        }
        self.report.bounds += 1;
        Ok(())
    }

    /// An index that is checked when the kernel runs: what follows runs only where the check held.
    fn checked(&mut self, at: &Expr, extent: &Form) -> Result<Form, Diagnostic> {
        let start = self.size(at)?;
        self.context.assume(Some(start.clone()));
        self.context.assume(extent.plus(&start, -1).and_then(|f| f.offset(-1)));
        self.report.checks += 1;
        Ok(start)
    }

    /// Proves an access; gives the boxes of its dims.
    fn access(&mut self, a: &Access) -> Result<Vec<Written>, Diagnostic> {
        let name = a.field.as_ref().map_or_else(|| a.buffer.to_string(), |f| format!("{}.{f}", a.buffer));
        let known = self.known(&name)?.clone();
        let whole = vec![IndexDim::All; known.axes.len()];
        let dims = a.dims.as_ref().unwrap_or(&whole);
        if dims.len() != known.axes.len() {
            let (found, want) = (dims.len(), known.axes.len());
            return Err(Diagnostic::new("kernel-type", format!("`{a}` has {found} indices for {want} axes")));
        }
        let masked = known.view.is_some() || a.is_masked();
        let mut boxes = Vec::new();
        for (dim, (axis, extent)) in dims.iter().zip(&known.axes) {
            let mark = self.context.mark();
            let (start, size, open) = match dim {
                IndexDim::All => (Form::number(0), extent.clone(), false),
                IndexDim::Point { at, open } => (self.size(at)?, Form::number(1), *open),
                IndexDim::Checked { at } => (self.checked(at, extent)?, Form::number(1), false),
                IndexDim::Range { start, size, open, upto } => {
                    if let Some(u) = upto {
                        self.size(u)?;
                    }
                    (self.size(start)?, self.size(size)?, *open)
                }
                // Every element of a tile of indices is checked where it is used.
                IndexDim::Gather(tile) => (self.checked(&Expr::Name(tile.clone()), extent)?, Form::number(1), false),
            };
            self.box_inside(&a.to_string(), axis, &start, &size, extent, false, open)?;
            // A masked element is not used, and what is not used is not checked.
            let checked_somewhere = match dim {
                IndexDim::Gather(_) => true,
                IndexDim::Checked { .. } => masked,
                IndexDim::All | IndexDim::Point { .. } | IndexDim::Range { .. } => false,
            };
            if checked_somewhere {
                self.context.release(mark);
            }
            boxes.push(Written { start, size, extent: extent.clone(), dense: true });
        }
        match &known.view {
            Some(v) => self.through(v, &boxes),
            None => Ok(boxes),
        }
    }

    /// The boxes of the buffer under a view.
    fn through(&mut self, view: &ViewForms, boxes: &[Written]) -> Result<Vec<Written>, Diagnostic> {
        let base = self.known(&view.buffer)?.clone();
        let mut out = Vec::new();
        for (form, (axis, extent)) in view.dims.iter().zip(&base.axes) {
            let overflow = || bounds(format!("the view of axis `{axis}` overflows"));
            let (mut start, mut size) = (form.clone(), Form::number(1));
            let (mut dense, mut moving) = (true, 0);
            for (u, c) in &form.terms {
                let mut parts = self.context.factors(*u);
                let Some(part) = parts.iter().position(|p| view.variables.contains(p)) else { continue };
                let variable = parts.remove(part);
                let Some(b) = view.variables.iter().position(|v| *v == variable).and_then(|at| boxes.get(at)) else {
                    continue;
                };
                if parts.iter().any(|p| view.variables.contains(p)) {
                    return Err(bounds(format!("the view of axis `{axis}` multiplies its variables")));
                }
                let mut stride = Form::number(*c);
                for p in parts {
                    stride = self.context.product(&stride, &Form::unknown(p)).ok_or_else(overflow)?;
                }
                start.terms.remove(u);
                let moved = self.context.product(&stride, &b.start).ok_or_else(overflow)?;
                start = start.plus(&moved, 1).ok_or_else(overflow)?;
                let steps = b.size.offset(-1).and_then(|s| self.context.product(&stride, &s)).ok_or_else(overflow)?;
                size = size.plus(&steps, c.signum()).ok_or_else(overflow)?;
                let several = b.size.as_number() != Some(1);
                moving += usize::from(several);
                dense &= !several || stride.as_number() == Some(1);
            }
            out.push(Written { start, size, extent: extent.clone(), dense: dense && moving <= 1 });
        }
        Ok(out)
    }

    /// An access that writes.
    fn write(&mut self, a: &Access) -> Result<(), Diagnostic> {
        let boxes = self.access(a)?;
        let name = a.field.as_ref().map_or_else(|| a.buffer.to_string(), |f| format!("{}.{f}", a.buffer));
        let known = self.known(&name)?.clone();
        let buffer = known.view.as_ref().map_or_else(|| a.buffer.clone(), |v| v.buffer.clone());
        if known.space == Space::In {
            return Err(Diagnostic::new("kernel-type", format!("`{a}` writes the read-only `{buffer}`")));
        }
        if !matches!(known.space, Space::Out | Space::InOut | Space::Work) {
            return Ok(());
        }
        let parallel = self.parallel.clone();
        if let Some(watch) = self.watch.as_mut().filter(|w| *w.output == *buffer) {
            watch.store(&mut self.context, &boxes, &self.around);
        }
        let missing = self.context.races(&boxes, &parallel, &self.orders);
        if let (Some(u), 0) = (missing.first(), self.turns) {
            let names: Vec<&str> = missing.iter().map(|u| self.context.unknowns[*u].name.as_str()).collect();
            let first = &self.context.unknowns[*u].name;
            let message = format!("`{a}`: not proved that different `{first}` write different elements");
            return Err(Diagnostic::new("kernel-race", message).note(format!("not separated: {}", names.join(", "))));
        }
        let mut complete = known.space == Space::Out && self.conditional == 0;
        for o in &self.orders {
            let (start, size, extent) = (o.source.clone(), Form::number(1), o.total.clone());
            complete = complete && self.context.fills(&Written { start, size, extent, dense: true }) == Some(true);
        }
        for b in &boxes {
            complete = complete && self.context.fills(b) == Some(true);
        }
        if let Some(o) = self.report.outputs.iter_mut().find(|o| o.0 == buffer) {
            o.1 |= complete;
        }
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<(), Diagnostic> {
        let (mark, buffers, orders) = (self.context.mark(), self.buffers.len(), self.orders.len());
        for s in block {
            self.stmt(s).map_err(|d| if d.notes.len() > 4 { d } else { note_head(d, s) })?;
        }
        self.context.release(mark);
        self.buffers.truncate(buffers);
        self.orders.truncate(orders);
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), Diagnostic> {
        match s {
            Stmt::Buffer(b) => self.declare(b, &b.name),
            Stmt::Pipe(p) => p.buffers.iter().try_for_each(|b| self.declare(b, &format!("{}.{}", p.name, b.name))),
            Stmt::Par { vars, level: _, body } => self.par(vars, body),
            Stmt::For { var, low, high, step, unroll: _, body } => self.for_loop(var, low, high, step.as_ref(), body),
            Stmt::If { condition, yes, no } => {
                self.conditional += 1;
                for (branch, holds) in [(yes, true), (no, false)] {
                    let mark = self.context.mark();
                    self.context.suppose(condition, holds);
                    self.block(branch)?;
                    self.context.release(mark);
                }
                self.conditional -= 1;
                Ok(())
            }
            Stmt::Roles(roles) => roles.iter().try_for_each(|r| match &r.instances {
                Some((v, n)) => self.par(&[(v.clone(), Expr::Int((*n).into()))], &r.body),
                None => self.block(&r.body),
            }),
            Stmt::Load { name, access, mods: _ } => self.load(name, access),
            Stmt::Let { names, value } => self.let_names(names, value),
            Stmt::Set { .. } => Ok(()),
            Stmt::Store { access, .. } => self.write(access),
            Stmt::Copy { to, from, mods: _ } => {
                self.access(from)?;
                self.write(to)
            }
            Stmt::Mma { to, terms, .. } => {
                for (a, b) in terms {
                    self.access(a)?;
                    self.access(b)?;
                }
                self.write(to)
            }
            Stmt::TurnWait(a, _) => {
                self.access(a)?;
                self.turns += 1;
                Ok(())
            }
            Stmt::TurnNext(a) => {
                self.access(a)?;
                self.turns = self.turns.saturating_sub(1);
                Ok(())
            }
            Stmt::Queue(..) | Stmt::Pipeline(..) | Stmt::Skip(..) | Stmt::Await(..) | Stmt::Sync(..) => Ok(()),
        }
    }

    fn par(&mut self, vars: &[(Ident, Expr)], body: &Block) -> Result<(), Diagnostic> {
        let (mark, outer, around) = (self.context.mark(), self.parallel.len(), self.around.len());
        let extents = self.axes(vars)?;
        for (v, n) in &extents {
            let form = self.context.variable(v, true, n);
            self.parallel.extend(form.terms.keys());
            self.around.extend(form.terms.keys());
            self.context.bind(v, Some(form));
        }
        self.block(body)?;
        self.parallel.truncate(outer);
        self.around.truncate(around);
        self.context.release(mark);
        Ok(())
    }

    /// `var = low + step * v`; that the loop runs is known inside only.
    fn for_loop(
        &mut self,
        var: &Ident,
        low: &Expr,
        high: &Expr,
        step: Option<&Expr>,
        body: &Block,
    ) -> Result<(), Diagnostic> {
        let mark = self.context.mark();
        let (from, to) = (self.size(low)?, self.size(high)?);
        let step = step.map_or(Ok(Form::number(1)), |s| self.size(s))?.as_number().filter(|s| *s > 0);
        let Some(step) = step else {
            return Err(Diagnostic::new("kernel-type", format!("the step of `{var}` is no positive constant")));
        };
        // a bound `min(a, b)` gives the larger of the two trip counts, where one of them is a constant
        let mut bounds = vec![to.clone()];
        let (mut extent, mut clip) = (to.plus(&from, -1), None);
        if let Expr::Scalar(ScalarOp::Min {}, args) = high {
            bounds = args.iter().map(|a| self.size(a)).collect::<Result<_, _>>()?;
            let constant = |b: &Form| b.plus(&from, -1).filter(|t| t.as_number().is_some());
            if let Some(at) = bounds.iter().position(|b| constant(b).is_some()) {
                extent = constant(&bounds[at]);
                clip = bounds.get(1 - at.min(1)).cloned();
            }
        }
        let first = |b: &Form| b.plus(&from, -1).and_then(|f| f.offset(-1));
        let runs = bounds.iter().all(|b| first(b).is_some_and(|f| self.context.prove(&f)));
        let trips = extent.filter(|t| step == 1 || t.as_number().is_some());
        let trips = trips.map(|t| match t.as_number() {
            Some(n) => Form::number((n + step - 1).div_euclid(step)),
            None => t,
        });
        let u = self.context.fresh(var, false, trips);
        let v = Form::unknown(u);
        self.context.assume(Some(v.clone()));
        let value = from.plus(&v, step);
        self.context.assume(value.as_ref().and_then(|x| to.plus(x, -1)).and_then(|f| f.offset(-1)));
        self.context.unknowns[u].counted = true;
        self.context.unknowns[u].clip = value.clone().zip(clip);
        self.context.bind(var, value);
        self.conditional += usize::from(!runs);
        self.around.push(u);
        self.block(body)?;
        self.around.pop();
        self.conditional -= usize::from(!runs);
        self.context.release(mark);
        Ok(())
    }

    fn load(&mut self, name: &Ident, access: &Access) -> Result<(), Diagnostic> {
        let boxes = self.access(access)?;
        let key = access.field.as_ref().map_or_else(|| access.buffer.to_string(), |f| format!("{}.{f}", access.buffer));
        let known = self.known(&key)?.clone();
        let base = known.view.as_ref().map_or(&access.buffer, |v| &v.buffer);
        if let Some(watch) = self.watch.as_mut().filter(|w| w.input == *base) {
            watch.load(boxes, &self.around);
        }
        if !known.integers {
            self.context.bind(name, None);
            return Ok(());
        }
        let value = self.context.opaque(name);
        if let Some([low, high]) = known.attrs.iter().find(|a| &*a.name == "values").map(|a| a.args.as_slice()) {
            let (low, high) = (self.size(low)?, self.size(high)?);
            self.context.assume(value.plus(&low, -1));
            self.context.assume(high.plus(&value, -1).and_then(|f| f.offset(-1)));
        }
        self.context.bind(name, Some(value));
        Ok(())
    }

    fn let_names(&mut self, names: &[Ident], value: &Expr) -> Result<(), Diagnostic> {
        let ([first, second], Expr::Order(args, _)) = (names, value) else {
            let form = self.context.form(value);
            for n in names {
                self.context.bind(n, form.clone());
            }
            return Ok(());
        };
        let [t, rows, columns] = args.as_slice() else {
            return Err(Diagnostic::new("kernel-type", "`order` takes three numbers and a kind"));
        };
        let source = self.size(t)?;
        let (rows, columns) = (self.size(rows)?, self.size(columns)?);
        let total = self.context.product(&rows, &columns);
        let total = total.ok_or_else(|| bounds(format!("`{value}` overflows")))?;
        let mut unknowns = Vec::new();
        for (n, extent) in [(first, rows), (second, columns)] {
            let form = self.context.variable(n, true, &extent);
            unknowns.extend(form.terms.keys());
            self.context.bind(n, Some(form));
        }
        self.orders.push(Coordinates { names: unknowns, source, total });
        Ok(())
    }
}
