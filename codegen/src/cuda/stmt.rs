//! Statements.

use super::emitter::{Axes, Binding, Element, Emitted, Emitter, Memory, Tile};
use super::value::bare;
use super::{CudaKernel, DYNAMIC_SHARED, invalid, scalar, unsupported};
use tilewright_ir::kernel::expr::{Access, Expr, Ident};
use tilewright_ir::kernel::tree::{Buffer, Level, LoadMods, Space, Stmt, SyncScope};
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// The function, with its comment, under a name.
    pub fn kernel(mut self, name: &str) -> Emitted<CudaKernel> {
        let kernel = self.kernel;
        for (name, value) in &kernel.constants {
            self.bind(name, Binding::Constant(*value));
        }
        let mut parameters = Vec::new();
        let symbols: Vec<String> = kernel.symbols.iter().map(|s| self.c_name(&s.name)).collect();
        for (s, c) in kernel.symbols.iter().zip(&symbols) {
            self.bind(&s.name, Binding::Index(c.clone()));
        }
        for b in &kernel.arguments {
            let (text, memory) = self.argument(b)?;
            parameters.push(text);
            self.bind(&b.name, Binding::Memory(memory));
        }
        parameters.extend(symbols.iter().map(|c| format!("long long {c}")));
        for v in &kernel.views {
            self.bind(&v.name, Binding::View(v.clone()));
        }
        self.collect_grids(&kernel.body)?;
        self.line("const int tid = threadIdx.x;");
        if self.grids.iter().any(|g| matches!(g.layout, super::emitter::Layout::Warps { .. })) {
            self.line("const int warp = tid / 32, lane = tid % 32;");
        }
        if self.dynamic {
            self.line(DYNAMIC_SHARED);
        }
        if super::grids(kernel).len() > 1 {
            self.side_by_side(&kernel.body)?;
        } else {
            self.statements(&kernel.body)?;
        }
        let head = super::describe::head(kernel, name, self.threads, self.shared_bytes);
        let text = format!(
            // One block is enough: ptxas must not spill for the sake of more.
            "{head}extern \"C\" __global__ void __launch_bounds__({}, 1) {name}({}) {{\n{}}}\n",
            self.threads,
            parameters.join(", "),
            self.out
        );
        let dynamic_bytes = if self.dynamic { self.shared_bytes } else { 0 };
        let (threads, shared_bytes) = (self.threads, self.shared_bytes);
        Ok(CudaKernel { name: name.to_string(), text, threads, shared_bytes, dynamic_bytes })
    }

    fn argument(&mut self, b: &Buffer) -> Emitted<(String, Memory)> {
        let writable = match b.space {
            Space::In => false,
            Space::Out | Space::InOut | Space::Work => true,
            Space::Shared | Space::Cache | Space::Reg => {
                return Err(invalid(format!("argument `{}` is scratch", b.name)).into());
            }
        };
        let c = self.c_name(&b.name);
        let ty = if b.dtype.is_block() { "unsigned char" } else { scalar::stored(b.dtype)? };
        if b.dtype.is_block() && writable {
            return Err(unsupported(format!("writing the block encoding {}", b.dtype)).into());
        }
        let constant = if writable { "" } else { "const " };
        let axes =
            b.axes.iter().map(|(n, s)| Ok((n.clone(), self.index(s)?, self.constant(s)))).collect::<Emitted<_>>()?;
        let text = format!("{constant}{ty}* __restrict__ {c}");
        // A writable argument may be read back by another thread of the block.
        let exchanged = matches!(b.space, Space::InOut | Space::Work);
        Ok((text, Memory { c, dtype: b.dtype, axes, exchanged, shared: false, writable, swizzle: None }))
    }

    /// One statement with its comment.
    pub fn stmt(&mut self, s: &Stmt) -> Emitted<()> {
        let comment = super::describe::line(s);
        self.line(format!("// {comment}"));
        match s {
            Stmt::Buffer(b) => self.buffer(b),
            Stmt::Par { vars, level: Level::Grid, body } if !self.in_grid => {
                self.par_grid(vars, body, "(long long)blockIdx.x")
            }
            Stmt::For { var, low, high, step, unroll, body } => {
                self.for_loop(var, (low, high, step.as_ref()), *unroll, body)
            }
            Stmt::If { condition, yes, no } => {
                self.no_turns(yes, &comment)?;
                self.no_turns(no, &comment)?;
                let condition = self.index(condition)?;
                // A barrier that only some pass is none for what follows.
                let pipes = self.pipes.clone();
                self.open(format!("if ({})", bare(&condition)));
                self.scoped(yes)?;
                self.close();
                self.fresh = false;
                self.pipes.clone_from(&pipes);
                if !no.is_empty() {
                    self.open("else");
                    self.scoped(no)?;
                    self.close();
                    self.fresh = false;
                    self.pipes = pipes;
                }
                Ok(())
            }
            Stmt::Load { name, access, mods } => self.load(name, access, mods),
            Stmt::Let { names, value } => self.let_value(names, value),
            Stmt::Set { name, value } => {
                let Binding::Tile(t) = self.lookup(name)? else {
                    return Err(invalid(format!("`{name}` is not a reg buffer")).into());
                };
                let value = self.hoist(value, t.dtype, name)?;
                self.assign(&t, &value)
            }
            Stmt::Store { access, mods, value, add } => self.store(access, mods, value, *add),
            Stmt::Copy { to, from, mods: mods @ LoadMods { on: Some(pipe), multicast: false, .. } } => {
                self.copy_on(pipe, to, from, mods)
            }
            Stmt::Copy { to, from, mods } => self.copy(to, from, mods),
            Stmt::Mma { to, terms, via, init, on } => {
                if on.is_some() {
                    return Err(unsupported(format!("products via `{via}` on a queue")).into());
                }
                self.mma(to, terms, via, init)
            }
            Stmt::Pipe(p) => self.pipe(p),
            Stmt::Pipeline(op, name) => self.turn(*op, name),
            Stmt::Sync(SyncScope::Block | SyncScope::Team, false) => {
                self.sync();
                Ok(())
            }
            Stmt::Par { .. } | Stmt::Queue(..) | Stmt::Roles(_) | Stmt::Skip(..) => {
                Err(unsupported(format!("`{comment}`")).into())
            }
            Stmt::Await(..) | Stmt::Sync(..) | Stmt::TurnWait(..) | Stmt::TurnNext(_) => {
                Err(unsupported(format!("`{comment}`")).into())
            }
        }
    }

    fn for_loop(
        &mut self,
        var: &Ident,
        (low, high, step): (&Expr, &Expr, Option<&Expr>),
        unroll: bool,
        body: &[Stmt],
    ) -> Emitted<()> {
        let (first, end) = (self.index(low)?, self.index(high)?);
        let by = step.map_or(Ok("1".to_string()), |s| self.index(s))?;
        let c = self.c_name(var);
        if unroll {
            self.line("#pragma unroll");
        } else if self.has_turns(body) {
            // The slots ahead are what unrolling is for; addresses of more chunks only take registers.
            self.line("#pragma unroll 1");
        }
        self.open(format!("for (long long {c} = {}; {c} < {}; {c} += {})", bare(&first), bare(&end), bare(&by)));
        self.push_scope();
        self.bind(var, Binding::Index(c));
        self.fresh = false;
        let trips = self.trips(low, high, step);
        self.looped(body, trips)?;
        self.fresh = false;
        self.pop_scope();
        self.close();
        Ok(())
    }

    /// Several grids: which one a block is of follows from its number. What they share is not checked here.
    fn side_by_side(&mut self, body: &[Stmt]) -> Emitted<()> {
        self.line("long long block = blockIdx.x;");
        let mut most = 0;
        for (number, stmt) in body.iter().enumerate() {
            let Stmt::Par { vars, level: Level::Grid, body: inside } = stmt else {
                return Err(unsupported("a statement beside several grids").into());
            };
            let extents = vars.iter().map(|(_, n)| self.index(n)).collect::<Emitted<Vec<_>>>()?;
            let blocks = if extents.is_empty() { "1".to_string() } else { extents.join(" * ") };
            let last = number + 1 == body.len();
            self.line(format!("// {}", super::describe::line(stmt)));
            if !last {
                self.open(format!("if (block < {blocks})"));
            }
            // A block runs one of the bodies: they may use the same memory, which was not read yet.
            if self.dynamic {
                self.shared_bytes = 0;
            }
            self.fresh = true;
            self.pipes.clear();
            self.par_grid(vars, inside, "block")?;
            self.in_grid = false;
            most = self.shared_bytes.max(most);
            if !last {
                self.line("return;");
                self.close();
                self.line(format!("block -= {blocks};"));
            }
        }
        self.shared_bytes = most;
        Ok(())
    }

    /// The grid's variables from the number of the block, then its body.
    fn par_grid(&mut self, vars: &[(Ident, Expr)], body: &[Stmt], number: &str) -> Emitted<()> {
        self.in_grid = true;
        self.push_scope();
        let mut names = Vec::new();
        let mut lines = Vec::new();
        let mut rest = number.to_string();
        if vars.len() > 1 && rest != "block" {
            self.line(format!("const long long block = {rest};"));
            rest = "block".to_string();
        }
        for (i, (var, extent)) in vars.iter().enumerate().rev() {
            let c = self.c_name(var);
            let extent = self.index(extent)?;
            let taken = if i == 0 { rest.clone() } else { format!("{rest} % {extent}") };
            lines.push(format!("const long long {c} = {taken};"));
            rest = if rest == "block" { format!("block / {extent}") } else { format!("{rest} / {extent}") };
            names.push((var.clone(), c));
        }
        lines.iter().rev().for_each(|l| self.line(l));
        for (var, c) in names {
            self.bind(&var, Binding::Index(c));
        }
        self.statements(body)?;
        self.pop_scope();
        Ok(())
    }

    fn buffer(&mut self, b: &Buffer) -> Emitted<()> {
        let sizes = b.axes.iter().map(|(n, s)| {
            let size = self.constant(s).ok_or_else(|| invalid(format!("expected a constant size of `{}`", b.name)))?;
            Ok((n.clone(), size))
        });
        let axes = sizes.collect::<Emitted<Axes>>()?;
        match b.space {
            Space::Reg => self.declare_tile(&b.name, axes, b.dtype, false).map(|_| ()),
            Space::Shared | Space::Cache => {
                let elements = self.elements(&axes)?;
                let c = self.c_name(&b.name);
                let swizzle = self.swizzle(b)?;
                self.declare_shared_at(b.dtype, &c, elements, swizzle.is_some())?;
                let axes = axes.into_iter().map(|(n, s)| (n, s.to_string(), Some(s))).collect();
                let memory = Memory { c, dtype: b.dtype, axes, exchanged: true, shared: true, writable: true, swizzle };
                self.bind(&b.name, Binding::Memory(memory));
                Ok(())
            }
            Space::In | Space::Out | Space::InOut | Space::Work => {
                Err(invalid(format!("expected `{}` among the arguments", b.name)).into())
            }
        }
    }

    /// Where this thread keeps its element of a tile.
    pub fn owned(&mut self, t: &Tile, at: &Element) -> Emitted<String> {
        if t.axes.is_empty() {
            return Ok(t.c.clone());
        }
        if t.shared {
            let mut offset = String::new();
            for (axis, size) in &t.axes {
                let i = at.index_of(axis)?;
                offset = if offset.is_empty() { i } else { format!("({offset}) * {size} + {i}") };
            }
            return Ok(format!("{}[{offset}]", t.c));
        }
        Ok(format!("{}[{}]", t.c, at.slot.as_deref().unwrap_or("r")))
    }

    /// Writes all elements of a tile.
    fn fill(&mut self, t: &Tile, value: impl FnOnce(&mut Self, &Element) -> Emitted<String>) -> Emitted<()> {
        if t.shared {
            self.before_write();
        }
        self.each(&t.axes, |this, at| {
            let x = value(this, at)?;
            let place = this.owned(t, at)?;
            let x = if t.shared { scalar::write(t.dtype, bare(&x).to_string()) } else { bare(&x).to_string() };
            this.line(format!("{place} = {x};"));
            Ok(())
        })?;
        if t.shared {
            self.sync();
        }
        Ok(())
    }

    fn assign(&mut self, t: &Tile, value: &Expr) -> Emitted<()> {
        if let Some(a) = self.axes(value)?.iter().find(|a| !t.axes.contains(a)) {
            return Err(invalid(format!("`{}` has no axis `{}`; reduce it", t.c, a.0)).into());
        }
        self.fill(t, |this, at| this.value(value, t.dtype, at))
    }

    fn plain(&self, mods: &LoadMods) -> Emitted<()> {
        match mods.on.is_some() || mods.multicast {
            true => Err(unsupported("asynchronous copies").into()),
            false => Ok(()),
        }
    }

    fn load(&mut self, name: &Ident, access: &Access, mods: &LoadMods) -> Emitted<()> {
        self.plain(mods)?;
        let (dtype, axes) = self.access_type(access)?;
        // Blocks are decoded as they are read.
        let dtype = if matches!(dtype, DType::Q8_0 | DType::Q4_0 | DType::Q4_1) { DType::F32 } else { dtype };
        let t = self.declare_tile(name, axes, dtype, false)?;
        let pad = mods.pad.clone().unwrap_or(Expr::Int(0));
        self.fill(&t, |this, at| {
            let pad = this.value(&pad, dtype, at)?;
            Ok(this.address(access, at)?.read(Some(pad)))
        })
    }

    fn let_value(&mut self, names: &[Ident], value: &Expr) -> Emitted<()> {
        if let Expr::Order(args, kind) = value {
            return self.order(names, args, kind);
        }
        let [name] = names else { return Err(invalid("expected one name").into()) };
        let dtype = self.dtype_in(value, None)?;
        let value = self.hoist(value, dtype, name)?;
        let axes = self.axes(&value)?;
        if axes.is_empty() && dtype == DType::I64 && !matches!(value, Expr::Name(_)) && self.is_position(&value)? {
            let text = self.index(&value)?;
            let c = self.c_name(name);
            self.line(format!("const long long {c} = {};", bare(&text)));
            self.bind(name, Binding::Index(c));
            return Ok(());
        }
        // The value may mention an outer value of the same name: it is bound only after its text is made.
        let outer = self.lookup(name).ok();
        let t = self.declare_tile(name, axes, dtype, false)?;
        let own = self.lookup(name)?;
        if let Some(outer) = outer {
            self.bind(name, outer);
        }
        self.assign(&t, &value)?;
        self.bind(name, own);
        Ok(())
    }

    /// Coordinates of a linear tile index: by rows, or by columns within groups of rows.
    fn order(&mut self, names: &[Ident], args: &[Expr], kind: &str) -> Emitted<()> {
        let ([m, n], [t, rows, columns]) = (names, args) else { return Err(invalid("`order` gives two names").into()) };
        let (t, rows, columns) = (self.index(t)?, self.index(rows)?, self.index(columns)?);
        let group = kind.strip_prefix("grouped(").and_then(|k| k.strip_suffix(')')).and_then(|g| g.parse::<i64>().ok());
        let (first, second) = match (kind, group) {
            ("row", _) => (format!("{t} / {columns}"), format!("{t} % {columns}")),
            (_, Some(g @ 1..)) => {
                let [size, first, height] = ["size", "first", "height"].map(|what| self.c_name(&format!("{m}_{what}")));
                self.line(format!("const long long {size} = {g} * {columns}, {first} = {t} / {size} * {g};"));
                self.line(format!("const long long {height} = min_of<long long>({} - {first}, {g});", bare(&rows)));
                (format!("{first} + {t} % {size} % {height}"), format!("{t} % {size} / {height}"))
            }
            (_, Some(_) | None) => return Err(unsupported(format!("the order `{kind}`")).into()),
        };
        for (name, value) in [(m, first), (n, second)] {
            let c = self.c_name(name);
            self.line(format!("const long long {c} = {value};"));
            self.bind(name, Binding::Index(c));
        }
        Ok(())
    }

    fn store(&mut self, access: &Access, mods: &LoadMods, value: &Expr, add: bool) -> Emitted<()> {
        self.plain(mods)?;
        let (dtype, mut axes) = self.access_type(access)?;
        let value = self.hoist(value, dtype, &access.buffer)?;
        let own = self.axes(&value)?;
        if let Some(a) = own.iter().find(|a| !axes.contains(a)) {
            return Err(invalid(format!("the destination `{}` has no axis `{}`", access.buffer, a.0)).into());
        }
        // Shared memory takes elements in any order, so the registers that hold them decide.
        let name =
            access.field.as_ref().map_or_else(|| access.buffer.clone(), |f| format!("{}.{f}", access.buffer).into());
        let shared = matches!(self.lookup(&name), Ok(Binding::Memory(m)) if m.shared);
        // But an accumulator stays as it lies.
        if shared && own.len() == axes.len() && !self.grids.iter().any(|g| g.axes == axes) {
            let held = access.field.as_ref().and_then(|_| self.held(&value, own.len()));
            axes = held.unwrap_or(own);
        }
        // So it does where the destination has its axes in another order.
        let lies = |e: &Self, axes: &Axes| e.grids.iter().any(|g| g.axes == *axes);
        if !shared
            && !lies(self, &axes)
            && let Some(held) = self.held(&value, axes.len())
            && lies(self, &held)
            && held.iter().all(|a| axes.contains(a))
        {
            axes = held;
        }
        self.write(access, &axes, add, |this, d, at| this.value(&value, d, at))
    }

    /// The axes of the first tile in registers that has so many, in its order.
    fn held(&self, e: &Expr, rank: usize) -> Option<Axes> {
        match e {
            Expr::Name(name) => match self.lookup(name) {
                Ok(Binding::Tile(t)) if t.axes.len() == rank && !t.shared => Some(t.axes),
                _other => None,
            },
            _other => e.operands().into_iter().find_map(|a| self.held(a, rank)),
        }
    }

    fn copy(&mut self, to: &Access, from: &Access, mods: &LoadMods) -> Emitted<()> {
        self.plain(mods)?;
        if self.copy_together(to, from, mods)? {
            return Ok(());
        }
        self.copy_elements(to, from, mods)
    }

    /// Element by element through registers.
    pub fn copy_elements(&mut self, to: &Access, from: &Access, mods: &LoadMods) -> Emitted<()> {
        if to.buffer == from.buffer && to.field == from.field {
            return Err(unsupported(format!("a copy within `{}`", to.buffer)).into());
        }
        let (_, axes) = self.access_type(to)?;
        let (source, _) = self.access_type(from)?;
        let pad = mods.pad.clone().unwrap_or(Expr::Int(0));
        self.write(to, &axes, false, |this, d, at| {
            let pad = this.value(&pad, source, at)?;
            let value = format!("({})", this.address(from, at)?.read(Some(pad)));
            Ok(scalar::cast(source, d, value)?)
        })
    }

    /// Writes the elements of a tile to a buffer; a scalar by the first thread.
    fn write(
        &mut self,
        access: &Access,
        axes: &Axes,
        add: bool,
        value: impl FnOnce(&mut Self, DType, &Element) -> Emitted<String>,
    ) -> Emitted<()> {
        let barrier_follows = self.barrier_follows;
        let access = &self.filled(access);
        let exchanged = {
            let none =
                Element { axes: axes.clone(), index: axes.iter().map(|_| "0".to_string()).collect(), slot: None };
            let before = self.fresh;
            let memory = self.address_memory(access, &none)?;
            self.fresh = before;
            if !memory.writable {
                return Err(invalid(format!("`{}` is read-only", access.buffer)).into());
            }
            memory.exchanged
        };
        if exchanged {
            self.before_write();
        }
        self.each(axes, |this, at| {
            let address = this.address(access, at)?;
            let d = address.memory.dtype;
            let mut x = value(this, d, at)?;
            if add {
                let old = scalar::read(d, address.place.clone());
                x = scalar::apply(&tilewright_ir::op::ScalarOp::Add {}, d, &[old, x])?;
            }
            let bits = scalar::write(d, bare(&x).to_string());
            let first = if axes.is_empty() { Some("tid == 0".to_string()) } else { None };
            let guards: Vec<String> = first.into_iter().chain(address.mask).collect();
            let guard = if guards.is_empty() { String::new() } else { format!("if ({}) ", bare(&guards.join(" && "))) };
            this.line(format!("{guard}{} = {bits};", address.place));
            Ok(())
        })?;
        if exchanged && !barrier_follows {
            self.sync();
        }
        Ok(())
    }

    fn address_memory(&mut self, access: &Access, at: &Element) -> Emitted<Memory> {
        if access
            .dims
            .as_ref()
            .is_some_and(|d| d.iter().any(|d| matches!(d, tilewright_ir::kernel::expr::IndexDim::Gather(_))))
        {
            return Err(unsupported("scattered stores").into());
        }
        Ok(self.address(access, at)?.memory)
    }
}
