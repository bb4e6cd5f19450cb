//! Statements, scopes and the budget.

use super::scalar::apply;
use super::value::{Axes, Data, Memory, Tile, Value, count, joined};
use super::{failed, unsupported};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident};
use crate::kernel::tree::{Block, Buffer, Level, LoadMods, Stmt, SyncScope};
use crate::op::ScalarOp;
use std::sync::Arc;

/// Element operations and statements that a run may take.
const BUDGET: u64 = 4_000_000_000;

/// State: names in scope (the last wins), buffers, what is left of the budget.
pub(super) struct Machine {
    names: Vec<(Ident, Value)>,
    memories: Vec<Memory>,
    pub(super) pipes: Vec<super::pipe::Ring>,
    budget: u64,
    /// Teams of a block or cluster run one after the other here, so they cannot meet.
    split: bool,
}

impl Machine {
    pub(super) fn new() -> Machine {
        Machine { names: Vec::new(), memories: Vec::new(), pipes: Vec::new(), budget: BUDGET, split: false }
    }

    pub(super) fn bind(&mut self, name: &Ident, value: Value) {
        self.names.push((name.clone(), value));
    }

    pub(super) fn lookup(&self, name: &str) -> Option<&Value> {
        self.names.iter().rev().find(|(n, _)| **n == *name).map(|(_, v)| v)
    }

    /// The present scope, for [`Machine::release`].
    pub(super) fn mark(&self) -> usize {
        self.names.len()
    }

    pub(super) fn release(&mut self, mark: usize) {
        self.names.truncate(mark);
    }

    pub(super) fn add_memory(&mut self, name: &Ident, memory: Memory) {
        let number = self.put_memory(memory);
        self.bind(name, Value::Memory(number));
    }

    pub(super) fn put_memory(&mut self, memory: Memory) -> usize {
        self.memories.push(memory);
        self.memories.len() - 1
    }

    pub(super) fn memory(&self, i: usize) -> Result<&Memory, Diagnostic> {
        self.memories.get(i).ok_or_else(|| Diagnostic::bug("a buffer that is gone"))
    }

    pub(super) fn memory_mut(&mut self, i: usize) -> Result<&mut Memory, Diagnostic> {
        self.memories.get_mut(i).ok_or_else(|| Diagnostic::bug("a buffer that is gone"))
    }

    /// Takes `n` steps off the budget.
    pub(super) fn spend(&mut self, n: usize) -> Result<(), Diagnostic> {
        let left = self.budget.checked_sub(n as u64 + 1);
        self.budget = left.ok_or_else(|| failed(format!("more than {BUDGET} steps")))?;
        Ok(())
    }

    /// Runs a block in a scope of its own.
    pub(super) fn block(&mut self, block: &Block) -> Result<(), Diagnostic> {
        let (mark, memories, pipes) = (self.mark(), self.memories.len(), self.pipes.len());
        for s in block {
            self.spend(0)?;
            self.stmt(s)?;
        }
        self.release(mark);
        self.memories.truncate(memories);
        self.pipes.truncate(pipes);
        Ok(())
    }

    fn declare(&mut self, b: &Buffer) -> Result<(), Diagnostic> {
        let axes: Axes = self.axes(&b.axes)?;
        let n = count(&axes)?;
        self.spend(n)?;
        let data = Data::unwritten(b.dtype, n)?;
        self.add_memory(&b.name, Memory { axes, data, read_only: false });
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), Diagnostic> {
        match s {
            Stmt::Buffer(b) => self.declare(b),
            Stmt::Par { vars, level, body } => self.par(vars, *level, body),
            Stmt::For { var, low, high, step, unroll: _, body } => self.for_loop(var, low, high, step.as_ref(), body),
            Stmt::If { condition, yes, no } => {
                let branch = if self.int(condition)? != 0 { yes } else { no };
                self.block(branch)
            }
            Stmt::Load { name, access, mods } => {
                plain(mods)?;
                let region = self.region(access)?;
                let tile = self.load(&region, mods.pad.as_ref())?;
                self.bind(name, Value::Tile(Arc::new(tile)));
                Ok(())
            }
            Stmt::Let { names, value } => self.let_names(names, value),
            Stmt::Set { name, value } => {
                let tile = self.eval(value)?;
                let region = self.region(&Access::whole(name))?;
                self.store(&region, &tile, &format!("set {name}"))
            }
            Stmt::Store { access, mods, value, add } => {
                plain(mods)?;
                let tile = self.eval(value)?;
                let region = self.region_to(access)?;
                let tile = if *add { self.plus(&region, &tile)? } else { tile };
                self.store(&region, &tile, &format!("store {access}"))
            }
            Stmt::Copy { to, from, mods: mods @ LoadMods { on: Some(pipe), .. } } => self.copy_on(pipe, to, from, mods),
            Stmt::Copy { to, from, mods } => {
                plain(mods)?;
                let from = self.region(from)?;
                let tile = self.load(&from, mods.pad.as_ref())?;
                let region = self.region_to(to)?;
                if let Some(a) = region.axes.iter().find(|a| a.1 != 1 && !tile.axes.iter().any(|t| t.0 == a.0)) {
                    return Err(failed(format!("copy {to}: the source has no axis `{}`", a.0)));
                }
                self.store(&region, &tile, &format!("copy {to}"))
            }
            Stmt::Mma { to, terms, via: _, init, on: None } => {
                let start = init.as_ref().map_or(Ok(0), |e| self.int(e))? != 0;
                self.mma(to, terms, start)
            }
            Stmt::Sync(SyncScope::Team | SyncScope::Prior, _) => Ok(()),
            Stmt::Sync(SyncScope::Block, _) if !self.split => Ok(()),
            Stmt::Sync(..) => Err(unsupported("a sync of teams that run one after the other")),
            Stmt::Pipe(p) => self.declare_pipe(p),
            Stmt::Pipeline(op, name) => self.pipeline(*op, name),
            Stmt::Mma { on: Some(_), .. } | Stmt::Queue(..) | Stmt::Roles(_) => Err(unsupported("queues and roles")),
            Stmt::Skip(..) | Stmt::Await(..) => Err(unsupported("pipes, queues and roles")),
            Stmt::TurnWait(..) | Stmt::TurnNext(_) => Err(unsupported("turns")),
        }
    }

    /// What is in a region plus `tile`.
    fn plus(&mut self, region: &super::access::Region, tile: &Tile) -> Result<Tile, Diagnostic> {
        let old = self.load(region, None)?;
        let axes = joined([&old.axes, &tile.axes])?;
        if axes != old.axes {
            return Err(failed("the value added has an axis that the place lacks"));
        }
        let strides = super::value::strides(&tile.axes, &axes);
        let (mut items, mut i) = (Vec::with_capacity(old.data.len()), 0);
        super::value::walk(&axes, [strides], |[from]| {
            items.push(apply(&ScalarOp::Add {}, &[old.get(i)?, tile.get(from)?])?);
            i += 1;
            Ok(())
        })?;
        Ok(Tile { axes, data: Data::collect(items)? })
    }

    fn par(&mut self, vars: &[(Ident, Expr)], level: Level, body: &Block) -> Result<(), Diagnostic> {
        let split = self.split;
        self.split |= level != Level::Grid;
        let extents: Axes =
            vars.iter().map(|(v, n)| Ok((v.clone(), self.size(n)?))).collect::<Result<_, Diagnostic>>()?;
        let points = extents.iter().try_fold(1u64, |n, a| n.checked_mul(a.1 as u64));
        let points = points.ok_or_else(|| failed("a grid of more than 2^64 points"))?;
        let mark = self.mark();
        for point in 0..points {
            let mut rest = point;
            for (v, n) in extents.iter().rev() {
                self.bind(v, Value::Int((rest % *n as u64) as i64));
                rest /= *n as u64;
            }
            self.block(body)?;
            self.release(mark);
        }
        self.split = split;
        Ok(())
    }

    fn for_loop(
        &mut self,
        var: &Ident,
        low: &Expr,
        high: &Expr,
        step: Option<&Expr>,
        body: &Block,
    ) -> Result<(), Diagnostic> {
        let (mut i, high) = (self.int(low)?, self.int(high)?);
        let step = step.map_or(Ok(1), |s| self.int(s))?;
        if step <= 0 {
            return Err(failed(format!("the step of `{var}` is {step}")));
        }
        let mark = self.mark();
        while i < high {
            self.bind(var, Value::Int(i));
            self.block(body)?;
            self.release(mark);
            match i.checked_add(step) {
                Some(next) => i = next,
                None => break,
            }
        }
        Ok(())
    }

    fn let_names(&mut self, names: &[Ident], value: &Expr) -> Result<(), Diagnostic> {
        match (names, value) {
            ([first, second], Expr::Order(args, kind)) => {
                let (a, b) = self.order(args, kind)?;
                self.bind(first, Value::Int(a));
                self.bind(second, Value::Int(b));
                Ok(())
            }
            ([name], value) => {
                let tile = self.eval(value)?;
                self.bind(name, Value::Tile(Arc::new(tile)));
                Ok(())
            }
            (_, _) => Err(failed(format!("{} names for `{value}`", names.len()))),
        }
    }

    /// Coordinates of `order(t, rows, columns, kind)`.
    fn order(&mut self, args: &[Expr], kind: &str) -> Result<(i64, i64), Diagnostic> {
        let [t, rows, columns] = args else { return Err(failed("`order` takes three numbers and a kind")) };
        let (t, rows, columns) = (self.int(t)?, self.int(rows)?, self.int(columns)?);
        let in_grid = rows.checked_mul(columns).is_some_and(|n| t >= 0 && t < n);
        if !in_grid {
            return Err(failed(format!("order: {t} is not in a grid of {rows} by {columns}")));
        }
        if kind == "row" {
            return Ok((t / columns, t % columns));
        }
        let group = kind.strip_prefix("grouped(").and_then(|k| k.strip_suffix(')'));
        let Some(group) = group.and_then(|g| g.parse::<i64>().ok()).filter(|g| *g > 0) else {
            return Err(unsupported(format!("the order `{kind}`")));
        };
        let tiles = group.checked_mul(columns).ok_or_else(|| failed("order: the group overflows"))?;
        let first = t / tiles * group;
        let height = (rows - first).min(group);
        Ok((first + t % tiles % height, t % tiles / height))
    }
}

/// Refuses modifiers that need other teams.
fn plain(mods: &LoadMods) -> Result<(), Diagnostic> {
    if mods.on.is_some() || mods.multicast { Err(unsupported("pipes, queues and roles")) } else { Ok(()) }
}
