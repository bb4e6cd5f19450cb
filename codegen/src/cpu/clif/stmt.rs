//! Statements.

use super::emitter::Emitter;
use super::nest::loads;
use super::types::{Binding, Node, Plan, Tile, clif_type, malformed, unsupported};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, Buffer, Expr, Space, Stmt};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// A block; its names end with it.
    pub fn block(&mut self, block: &[Stmt]) -> Result<(), Diagnostic> {
        let (outer, known) = (self.scope.len(), self.known.len());
        for (at, stmt) in block.iter().enumerate() {
            self.stmt(stmt, &block[at + 1..])?;
        }
        self.scope.truncate(outer);
        self.known.truncate(known);
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt, rest: &[Stmt]) -> Result<(), Diagnostic> {
        match stmt {
            Stmt::Buffer(buffer) => self.declare(buffer),
            Stmt::For { var, low, high, step, body, .. } => {
                let (low, high) = (self.index(low)?, self.index(high)?);
                let step = match step {
                    Some(step) => self.known(step)?,
                    None => 1,
                };
                if step < 1 {
                    return Err(malformed(format!("the step of loop `{var}` is {step}, not positive")));
                }
                let by = self.num(step);
                self.each(low.value, high.value, by.value, |e, at| {
                    let outer = e.scope.len();
                    let at = super::types::Num { value: at, constant: None };
                    e.fetch_ahead((var, at, step), (low, high), body)?;
                    e.bind(var, Binding::Index(at));
                    e.block(body)?;
                    e.scope.truncate(outer);
                    Ok(())
                })
            }
            Stmt::If { condition, yes, no } => {
                let holds = self.condition(condition)?;
                self.when(holds, |e| e.block(yes))?;
                if no.is_empty() {
                    return Ok(());
                }
                let fails = self.b.ins().icmp_imm_s(IntCC::Equal, holds, 0);
                self.when(fails, |e| e.block(no))
            }
            Stmt::Load { name, access, mods } => {
                let plan = self.plan(access)?;
                let tile = self.load(plan, mods.pad.as_ref())?;
                self.accesses.push((tile.id, access.clone()));
                self.bind_tile(name, tile, rest)
            }
            Stmt::Let { names, value } => {
                let [name] = names.as_slice() else { return Err(unsupported("a `let` of several names")) };
                let tile = self.build(value, None)?;
                self.bind_tile(name, tile, rest)
            }
            Stmt::Set { name, value } => self.set(name, value),
            Stmt::Store { access, value, add, .. } => {
                let plan = self.plan(access)?;
                let tile = self.build(value, Some(plan.memory.dtype))?;
                self.store(access, &plan, tile, *add)
            }
            Stmt::Copy { to, from, mods } => {
                let (plan, source) = (self.plan(to)?, self.plan(from)?);
                let tile = self.load(source, mods.pad.as_ref())?;
                self.accesses.push((tile.id, from.clone()));
                let cast = ScalarOp::Cast { to: plan.memory.dtype };
                let tile = self.operation(&cast, vec![tile])?;
                self.store(to, &plan, tile, false)
            }
            Stmt::Mma { to, terms, via, init, on } => {
                if on.is_some() {
                    return Err(unsupported("asynchronous products"));
                }
                self.mma(to, terms, via, init.as_ref())
            }
            Stmt::Par { .. } => Err(unsupported("a `par` inside another statement")),
            Stmt::Pipe(_) | Stmt::Pipeline(..) | Stmt::Skip(..) => Err(unsupported("pipes")),
            Stmt::Queue(..) | Stmt::Await(..) => Err(unsupported("queues")),
            Stmt::Roles(_) => Err(unsupported("roles")),
            // One core: everybody is here.
            Stmt::Sync(..) => Ok(()),
            Stmt::TurnWait(..) | Stmt::TurnNext(_) => Err(unsupported("turns")),
        }
    }

    /// A condition over indices: 0 or 1 in 8 bits.
    pub fn condition(&mut self, expr: &Expr) -> Result<Value, Diagnostic> {
        let tile = self.build(expr, Some(DType::I64))?;
        if !tile.axes.is_empty() {
            return Err(malformed("a condition is a tile, not a scalar"));
        }
        let value = self.scalar_of(&tile)?;
        self.cast(value, tile.dtype, DType::Bool)
    }

    /// A `cache` or `reg` buffer.
    pub fn declare(&mut self, buffer: &Buffer) -> Result<(), Diagnostic> {
        match buffer.space {
            Space::Cache | Space::Reg => {}
            Space::In | Space::Out | Space::InOut | Space::Work | Space::Shared => {
                return Err(unsupported(format!("buffer `{}` of this space in the body", buffer.name)));
            }
        }
        if buffer.axes.is_empty() && buffer.space == Space::Reg {
            let variable = self.b.declare_var(clif_type(buffer.dtype)?);
            let zero = self.literal(buffer.dtype, Some(0), 0.0)?;
            self.b.def_var(variable, zero);
            self.bind(&buffer.name, Binding::Register(variable, buffer.dtype));
            return Ok(());
        }
        let mut elements = 1usize;
        for (axis, size) in &buffer.axes {
            let size = usize::try_from(self.known(size)?).ok();
            let product = size.and_then(|size| elements.checked_mul(size));
            elements = product.ok_or_else(|| malformed(format!("axis `{axis}` of `{}` has no size", buffer.name)))?;
        }
        let bytes = buffer.dtype.bytes(elements).ok_or_else(|| malformed(format!("`{}` is too large", buffer.name)))?;
        let base = self.allocate(bytes)?;
        let memory = self.memory(buffer, base)?;
        self.bind(&buffer.name, Binding::Memory(Rc::new(memory)));
        Ok(())
    }

    /// Writes a tile to `plan`, what `access` means. A tile that reads the same memory elsewhere is computed first: its
    /// elements must not see those that are written.
    fn store(&mut self, access: &Access, plan: &Plan, tile: Rc<Tile>, add: bool) -> Result<(), Diagnostic> {
        let overlaps = loads(&tile).iter().any(|source| {
            let Node::Load(from, _) = &source.node else { return false };
            let same = self.accesses.iter().any(|(id, other)| *id == source.id && other == access);
            from.memory.name == plan.memory.name && !same
        });
        let tile = if overlaps { self.materialise(&tile)? } else { tile };
        self.store_tile(plan, &tile, add)
    }

    fn set(&mut self, name: &Ident, value: &Expr) -> Result<(), Diagnostic> {
        match self.find(name)?.clone() {
            Binding::Register(variable, dtype) => {
                let tile = self.build(value, Some(dtype))?;
                if tile.dtype != dtype || !tile.axes.is_empty() {
                    return Err(malformed(format!("`{name}` is a scalar of {dtype}, its value is not")));
                }
                let value = self.scalar_of(&tile)?;
                self.b.def_var(variable, value);
                self.forget(name);
                Ok(())
            }
            Binding::Memory(memory) => {
                let tile = self.build(value, Some(memory.dtype))?;
                let whole = Access::whole(name);
                let plan = self.plan(&whole)?;
                self.store(&whole, &plan, tile, false)
            }
            Binding::Index(_) | Binding::View(_) | Binding::Tile(_) => {
                Err(malformed(format!("`{name}` is no `reg` buffer")))
            }
        }
    }

    /// Binds a `let`: now if it is a scalar, is overwritten before a use, is costly and used twice, or is computed and used in a loop; else
    /// lazily.
    fn bind_tile(&mut self, name: &Ident, tile: Rc<Tile>, rest: &[Stmt]) -> Result<(), Diagnostic> {
        let eager = tile.axes.is_empty() || self.overwritten(name, &tile, rest) || {
            let mut users = rest.iter().filter(|stmt| stmt.names(name));
            let computed = matches!(tile.node, Node::Op(..));
            let in_loop = computed && users.clone().any(|stmt| matches!(stmt, Stmt::For { .. }));
            in_loop || tile.costly && users.nth(1).is_some()
        };
        let tile = if eager { self.materialise(&tile)? } else { tile };
        self.bind(name, Binding::Tile(tile));
        Ok(())
    }

    /// Whether what a tile reads is written before its last use.
    fn overwritten(&self, name: &Ident, tile: &Rc<Tile>, rest: &[Stmt]) -> bool {
        let sources = loads(tile);
        let mut changed = false;
        for stmt in rest {
            let used = stmt.names(name);
            if used && changed {
                return true;
            }
            let names = stmt.written();
            let writes = sources.iter().any(|source| match &source.node {
                Node::Load(plan, _) => names.iter().any(|name| self.root(name) == plan.memory.name),
                Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Op(..) | Node::Iota(..) => false,
            });
            let simple = matches!(stmt, Stmt::Store { .. } | Stmt::Set { .. });
            if writes && used && !simple {
                return true;
            }
            changed |= writes;
        }
        false
    }

    /// The buffer behind views.
    fn root(&self, name: &Ident) -> Ident {
        let mut name = name.clone();
        for _ in 0..16 {
            match self.find(&name) {
                Ok(Binding::View(view)) => name = view.buffer.clone(),
                Ok(_) | Err(_) => break,
            }
        }
        name
    }

    /// Most rows of a plan along an axis whose masks allow them; `None` where no mask names the axis.
    pub fn rows_left(&mut self, plan: &Plan, axis: &Ident) -> Result<Option<Value>, Diagnostic> {
        let mut least: Option<Value> = None;
        for mask in &plan.masks {
            let at = &mask.at;
            let other = at.terms.iter().any(|(name, _)| name != axis);
            let along = at.terms.iter().any(|(name, _)| name == axis);
            // A mask of no axis is about the whole operand, which is not counted by rows.
            if at.gather.is_some()
                || at.terms.is_empty()
                || mask.low
                || (along && (other || at.terms.iter().any(|(_, c)| *c != 1)))
            {
                return Err(unsupported("this mask on an operand of a product"));
            }
            // A mask of other axes is asked for with those.
            if along {
                let left = self.b.ins().isub(mask.extent, at.start.value);
                least = Some(match least {
                    Some(other) => self.b.ins().smin(other, left),
                    None => left,
                });
            }
        }
        Ok(least)
    }
}
