//! Pipes via `cp_async` between a block and itself: a ring of slots in shared memory, filled by asynchronous copies.

use super::emitter::{Axes, Binding, Element, Emitted, Emitter, Memory};
use super::{invalid, scalar, unsupported};
use tilewright_ir::kernel::expr::{Access, Expr, Ident, IndexDim};
use tilewright_ir::kernel::tree::{LoadMods, Pipe, PipelineOp, Stmt};
use tilewright_ir::kernel::{BinaryOp, View};
use tilewright_ir::op::ScalarOp;

/// A pipe while its users are emitted.
#[derive(Clone)]
pub(super) struct Ring {
    name: Ident,
    c: String,
    stages: i64,
    /// Slots handed over and not waited for.
    full: i64,
    /// Whether `full` is right at every trip of the loops around.
    exact: bool,
    /// A slot was released since the last barrier, so that others may still read it.
    pub released: bool,
}

/// Name of a slot's buffer for those who write it.
fn filled_field(field: &str) -> String {
    format!("{field} (filled)")
}

impl Emitter<'_> {
    pub fn pipe(&mut self, p: &Pipe) -> Emitted<()> {
        if &*p.via != "cp_async" || &*p.from != "all" || &*p.to != "all" || !p.attrs.is_empty() || p.stages < 1 {
            return Err(unsupported(format!("the pipe `{}`, expected via cp_async from all to all", p.name)).into());
        }
        let (c, stages) = (self.c_name(&p.name), i64::from(p.stages));
        for b in &p.buffers {
            let sizes = b.axes.iter().map(|(n, s)| Some((n.clone(), self.constant(s)?))).collect::<Option<Axes>>();
            let axes = sizes.ok_or_else(|| invalid(format!("expected constant sizes of `{}`", b.name)))?;
            let elements = self.elements(&axes)?;
            let slots = self.c_name(&format!("{c}_{}", b.name));
            let all = elements.checked_mul(stages).ok_or_else(|| invalid(format!("`{}` is too large", p.name)))?;
            self.declare_shared_at(b.dtype, &slots, all, true)?;
            let swizzle = self.swizzle(b)?;
            for (field, slot) in [(b.name.to_string(), "read"), (filled_field(&b.name), "fill")] {
                // The ring's turns keep readers and writers apart.
                let memory = Memory {
                    c: format!("({slots} + {c}_{slot} * {elements})"),
                    dtype: b.dtype,
                    axes: axes.iter().map(|(n, s)| (n.clone(), s.to_string(), Some(*s))).collect(),
                    exchanged: false,
                    shared: true,
                    writable: true,
                    swizzle,
                };
                self.bind(&format!("{}.{field}", p.name).into(), Binding::Memory(memory));
            }
        }
        self.line(format!("int {c}_fill = 0, {c}_read = 0;"));
        self.pipes.push(Ring { name: p.name.clone(), c, stages, full: 0, exact: true, released: false });
        Ok(())
    }

    /// The access of those who write: of a pipe's slot, the one that is being filled.
    pub fn filled(&self, access: &Access) -> Access {
        let mut access = access.clone();
        if self.pipes.iter().any(|p| p.name == access.buffer) {
            access.field = access.field.map(|f| filled_field(&f).into());
        }
        access
    }

    fn ring(&mut self, name: &str) -> Emitted<&mut Ring> {
        let found = self.pipes.iter_mut().rev().find(|p| *p.name == *name);
        found.ok_or_else(|| invalid(format!("`{name}` is no pipe")).into())
    }

    /// One verb of a pipe.
    pub fn turn(&mut self, op: PipelineOp, name: &Ident) -> Emitted<()> {
        let p = self.ring(name)?;
        let (c, last) = (p.c.clone(), p.stages - 1);
        let next = |slot: &str| format!("{c}_{slot} = {c}_{slot} == {last} ? 0 : {c}_{slot} + 1;");
        match op {
            PipelineOp::Acquire => {
                if std::mem::take(&mut p.released) {
                    self.sync();
                }
            }
            PipelineOp::Commit => {
                p.full += 1;
                self.line("cp_async_commit();");
                self.line(next("fill"));
            }
            PipelineOp::Wait => {
                // Groups of other pipes only make this wait for more.
                let open = if p.exact { p.full - 1 } else { 0 };
                p.full -= 1;
                if open < 0 {
                    return Err(invalid(format!("`wait {name}` without a slot that is full")).into());
                }
                self.line(format!("cp_async_wait<{open}>();"));
                self.sync();
            }
            PipelineOp::Release => {
                p.released = true;
                self.line(next("read"));
            }
        }
        Ok(())
    }

    /// How often `for i in low .. high step s` runs, where that is constant.
    pub fn trips(&self, low: &Expr, high: &Expr, step: Option<&Expr>) -> Option<i64> {
        let step = step.map_or(Some(1), |s| self.constant(s)).filter(|s| *s > 0)?;
        let length = self.constant(high)?.checked_sub(self.constant(low)?)?.max(0);
        BinaryOp::Ceil.apply(length, step)
    }

    /// The body of a loop: counts of the pipes hold at every trip, or the number of trips is known.
    pub fn looped(&mut self, body: &[Stmt], trips: Option<i64>) -> Emitted<()> {
        let before = self.pipes.clone();
        for (i, old) in before.iter().enumerate() {
            let count = |op| self.turns(body, op, &old.name);
            let (commits, waits) = (count(PipelineOp::Commit), count(PipelineOp::Wait));
            let releases = count(PipelineOp::Release);
            self.pipes[i].exact &= commits == waits || waits == 0;
            self.pipes[i].released |= releases > 0;
        }
        self.scoped(body)?;
        self.pipes.truncate(before.len());
        for (p, old) in self.pipes.iter_mut().zip(&before) {
            p.exact = old.exact;
            p.released |= old.released;
            let changed = p.full - old.full;
            if changed != 0 {
                let trips =
                    trips.ok_or_else(|| unsupported(format!("a loop that changes the slots of `{}`", p.name)))?;
                p.full = old.full + changed * trips;
            }
        }
        Ok(())
    }

    /// Whether `body` has turns of a pipe.
    pub fn has_turns(&self, body: &[Stmt]) -> bool {
        let ops = [PipelineOp::Acquire, PipelineOp::Commit, PipelineOp::Wait, PipelineOp::Release];
        self.pipes.iter().any(|p| ops.iter().any(|op| self.turns(body, *op, &p.name) > 0))
    }

    /// Refuses turns of pipes in a branch.
    pub fn no_turns(&self, body: &[Stmt], comment: &str) -> Emitted<()> {
        match self.has_turns(body) {
            true => Err(unsupported(format!("turns of a pipe inside `{comment}`")).into()),
            false => Ok(()),
        }
    }

    /// A copy to a slot: asynchronous where elements that lie together may be copied at once, else through registers.
    pub fn copy_on(&mut self, pipe: &Ident, to: &Access, from: &Access, mods: &LoadMods) -> Emitted<()> {
        if to.buffer != *pipe {
            return Err(unsupported(format!("a copy on `{pipe}` to `{}`", to.buffer)).into());
        }
        let slot = to;
        let to = self.filled(slot);
        let ((to_dtype, axes), (from_dtype, _)) = (self.access_type(&to)?, self.access_type(from)?);
        let zero = matches!(mods.pad, None | Some(Expr::Int(0)));
        let widths =
            [8, 4, 2].into_iter().filter(|w| to_dtype == from_dtype && to_dtype.block().1 == 2 && zero && *w > 0);
        let mut found = None;
        for width in widths {
            if found.is_none() && to.dims.is_none() && self.together(from, &axes, width)? {
                found = Some(width);
            }
        }
        let Some(width) = found else {
            let mods = LoadMods { on: None, ..mods.clone() };
            return self.copy_elements(slot, from, &mods);
        };
        let elements = self.elements(&axes)?;
        let (chunks, index) = (elements / width, axes.iter().map(|a| format!("i_{}", a.0)).collect::<Vec<_>>());
        self.line("#pragma unroll");
        self.open(format!("for (int r = 0; r < {}; ++r)", (chunks + self.threads - 1) / self.threads));
        self.line(format!("const int e = (r * {} + tid) * {width};", self.threads));
        self.split("e", &axes, &index);
        let partial = chunks % self.threads != 0;
        if partial {
            self.open(format!("if (e < {elements})"));
        }
        let at = Element { axes: axes.clone(), index, slot: None };
        let (place, source) = (self.address(&to, &at)?.place, self.address(from, &at)?);
        let inside = source.mask.map_or("true".to_string(), |m| super::value::bare(&m).to_string());
        self.line(format!("cp_async_{}(&{place}, &{}, {inside});", 2 * width, source.place));
        if partial {
            self.close();
        }
        self.close();
        Ok(())
    }

    /// Copies a whole tile of 16-bit values from shared memory by 16 bytes, if these lie together where they go.
    pub fn copy_together(&mut self, to: &Access, from: &Access, mods: &LoadMods) -> Emitted<bool> {
        let ((to_dtype, _), (from_dtype, axes)) = (self.access_type(to)?, self.access_type(from)?);
        let shared = matches!(self.lookup(&from.buffer)?, Binding::Memory(m) if m.shared && m.swizzle.is_some());
        let whole = shared && from.dims.is_none() && mods.pad.is_none() && to_dtype == from_dtype;
        if !whole || from_dtype.block().1 != 2 || !self.together(to, &axes, 8)? {
            return Ok(false);
        }
        let index = axes.iter().map(|a| format!("i_{}", a.0)).collect::<Vec<_>>();
        let at = Element { axes: axes.clone(), index: index.clone(), slot: None };
        let (source, place) = (self.address(from, &at)?.place, self.address(to, &at)?);
        // What others of the block may read takes barriers.
        if place.memory.exchanged || !place.memory.writable {
            return Ok(false);
        }
        let elements = self.elements(&axes)?;
        self.line("#pragma unroll 4");
        self.open(format!("for (int e = tid * 8; e < {elements}; e += {})", self.threads * 8));
        self.split("e", &axes, &index);
        let guard = place.mask.map_or(String::new(), |m| format!("if ({}) ", super::value::bare(&m)));
        self.line(format!("{guard}copy_16(&{}, &{source});", place.place));
        self.close();
        Ok(true)
    }

    /// Whether `width` elements along the last of `axes`, from a multiple of it on, lie together in memory from a multiple
    /// on, and are masked together.
    fn together(&mut self, from: &Access, axes: &Axes, width: i64) -> Emitted<bool> {
        let Some((inner, size)) = axes.last().cloned() else { return Ok(false) };
        let dims = |i: usize| from.dims.as_ref().and_then(|d| d.get(i)).cloned().unwrap_or(IndexDim::All);
        let binding = self.lookup(&from.buffer)?;
        let (memory, view): (Memory, Option<View>) = match binding {
            Binding::Memory(m) => (m, None),
            Binding::View(v) => match self.lookup(&v.buffer)? {
                Binding::Memory(m) => (m, Some(v)),
                Binding::Tile(_) | Binding::View(_) | Binding::Index(_) | Binding::Constant(_) => return Ok(false),
            },
            Binding::Tile(_) | Binding::Index(_) | Binding::Constant(_) => return Ok(false),
        };
        let name = view.as_ref().map_or(&from.buffer, |v| &v.buffer);
        let Some(buffer) = self.kernel.arguments.iter().find(|b| b.name == *name) else { return Ok(false) };
        let whole = buffer.axes.last().is_some_and(|a| self.multiple(&a.1, width));
        if memory.shared || !whole || size % width != 0 || scalar::stored(memory.dtype)? != "unsigned short" {
            return Ok(false);
        }
        let surface = view.as_ref().map_or(&buffer.axes, |v| &v.axes);
        for (i, (axis, extent)) in surface.iter().enumerate() {
            if *axis != inner {
                continue;
            }
            let aligned = match dims(i) {
                IndexDim::All => true,
                IndexDim::Range { start, upto: None, .. } => {
                    self.multiple(&start, width) && self.multiple(extent, width)
                }
                IndexDim::Range { .. } | IndexDim::Point { .. } | IndexDim::Checked { .. } => false,
                IndexDim::Gather(_) => false,
            };
            if !aligned {
                return Ok(false);
            }
        }
        let Some(v) = &view else { return Ok(surface.last().is_some_and(|a| a.0 == inner)) };
        let Some(((last, _), others)) = v.dims.split_last() else { return Ok(false) };
        // Where a view has a point, its variable is that point.
        let points = surface.iter().enumerate().filter_map(|(i, (axis, _))| match dims(i) {
            IndexDim::Point { at, .. } => Some((axis.clone(), at)),
            IndexDim::All | IndexDim::Range { .. } | IndexDim::Checked { .. } | IndexDim::Gather(_) => None,
        });
        let alone = others.iter().all(|(e, _)| !e.reads(&inner));
        Ok(alone && self.steps(last, &inner, &points.collect::<Vec<_>>(), width) == Some(1))
    }

    /// Whether an index is a multiple of `n` at every value of its variables.
    fn multiple(&self, e: &Expr, n: i64) -> bool {
        if let Some(v) = self.constant(e) {
            return v % n == 0;
        }
        match e {
            Expr::Name(name) => self.kernel.symbols.iter().any(|s| s.name == *name && s.step % n == 0),
            Expr::Scalar(ScalarOp::Add {} | ScalarOp::Sub {}, args) => args.iter().all(|a| self.multiple(a, n)),
            Expr::Scalar(ScalarOp::Mul {}, args) => args.iter().any(|a| self.multiple(a, n)),
            _other => false,
        }
    }

    /// How many elements apart neighbours along `axis` are in `e`, whose other parts are multiples of `n`; none if they
    /// may not be.
    fn steps(&self, e: &Expr, axis: &Ident, points: &[(Ident, Expr)], n: i64) -> Option<i64> {
        match e {
            Expr::Name(name) if name == axis => Some(1),
            Expr::Name(name) if let Some((_, at)) = points.iter().find(|p| p.0 == *name) => {
                self.multiple(at, n).then_some(0)
            }
            Expr::Scalar(ScalarOp::Add {}, args) => {
                args.iter().try_fold(0i64, |sum, a| sum.checked_add(self.steps(a, axis, points, n)?))
            }
            Expr::Scalar(ScalarOp::Mul {}, args) if !e.reads(axis) => {
                let whole = |a: &Expr| self.multiple(a, n) || self.steps(a, axis, points, n) == Some(0);
                args.iter().any(whole).then_some(0)
            }
            _other => (!e.reads(axis) && self.multiple(e, n)).then_some(0),
        }
    }

    /// How often `body` has a verb of a pipe. A loop that runs nobody knows how often leaves the slots as they were, so that
    /// once is enough.
    fn turns(&self, body: &[Stmt], op: PipelineOp, name: &str) -> i64 {
        let of = |s: &Stmt| match s {
            Stmt::Pipeline(found, pipe) => i64::from(*found == op && **pipe == *name),
            Stmt::For { low, high, step, body, .. } => {
                let trips = self.trips(low, high, step.as_ref()).unwrap_or(1);
                trips.saturating_mul(self.turns(body, op, name))
            }
            other => other.blocks().into_iter().map(|b| self.turns(b, op, name)).sum(),
        };
        body.iter().map(of).sum()
    }
}
