//! Seconds that a kernel takes on a CPU, by a walk over its statements: what each computes and moves, times how often it runs. Where
//! [`mod@crate::egraph::cover`] prices what a kernel computes, this prices how it does: tiles, passes, blocks, parts for the cores.
//!
//! Positions stand for ranges: a loop whose bounds depend on the grid is walked at the first, the middle and the last full point of
//! it, which is exact for what grows in a line (causal masks) and for its square (Simpson's rule), and at the last points along each
//! set of axes, which may be cut short.
//!
//! What a loop comes back to is in the core's own cache, unless what lies between fills that.

#[cfg(test)]
mod tests;
mod values;

use crate::egraph::Device;
use std::collections::BTreeMap;
use tilewright_ir::kernel::{Block, Buffer, Expr, Kernel, Level, Space, Stmt, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Bindings, DType};

/// Seconds of a statement over a tile besides its elements.
const STATEMENT: f64 = 1e-9;
/// Seconds to begin a loop over the elements of a tile.
const NEST: f64 = 4e-9;
/// Seconds of a turn of a loop, and of a point of the grid.
const TURN: f64 = 1e-9;
/// Seconds to begin a grid point.
const POINT: f64 = 8e-9;
/// Seconds of a call of a micro-kernel.
const CALL: f64 = 12e-9;
/// Seconds to combine the lanes of a fold.
const LANES: f64 = 5e-9;
/// How much slower an element alone is than its share of a vector; strided reads take as long.
const SINGLE: f64 = 6.0;
/// Bytes of a core's first cache.
const NEAREST: f64 = 48e3;
/// Bytes a second between a core and its second cache.
const NEAR_RATE: f64 = 128e9;
/// How much slower memory is read where each turn of a loop reads a part of another row, of which some are fetched ahead. Sums of 2048 x 768 by 256
/// columns take 1.2 to 1.3 times as long as by whole rows on Sapphire Rapids.
const BROKEN: f64 = 1.25;
/// Seconds that each such part takes besides: it begins where nothing was fetched ahead. Sums of columns by 16 and by 64 at a time take 4 to 9 ns a part more.
const PART: f64 = 6e-9;
/// Ways of a core's first cache, and bytes of each.
const WAYS: f64 = 12.0;
const WAY: i64 = 4096;
/// Seconds of an element of a tile that is read crosswise, a line each, where these lines do not stay in the first cache for the
/// next point. Transpositions of 1024 x 1024 take 1.7, 2.3, 2.5, 4.7 ns an element by 64, 128, 512, 1024 and 0.5 by 16 on Zen 5.
const LINE: f64 = 2e-9;

/// What a tile is.
#[derive(Clone, Copy)]
struct Tile {
    elements: f64,
    dtype: DType,
}

/// What statements take.
#[derive(Clone, Copy, Default)]
struct Spent {
    /// Seconds of one core.
    seconds: f64,
    /// Bytes to and from arguments that are not in the second cache.
    moved: f64,
    /// Those of them that are read in parts of rows.
    broken: f64,
    /// How many parts of rows are read.
    parts: f64,
    /// How often panels are changed before they end.
    changes: f64,
}

impl Spent {
    fn add(&mut self, times: f64, other: Spent) {
        self.seconds += times * other.seconds;
        self.moved += times * other.moved;
        self.broken += times * other.broken;
        self.parts += times * other.parts;
        self.changes += times * other.changes;
    }

    fn most(self, other: Spent) -> Spent {
        Spent {
            seconds: self.seconds.max(other.seconds),
            moved: self.moved.max(other.moved),
            broken: self.broken.max(other.broken),
            parts: self.parts.max(other.parts),
            changes: self.changes.max(other.changes),
        }
    }
}

/// What a walk knows at a place, and what it has added up.
struct Walk<'a> {
    device: &'a Device,
    /// Integers: symbols, constants, loop variables.
    numbers: BTreeMap<Ident, f64>,
    tiles: BTreeMap<Ident, Tile>,
    buffers: BTreeMap<Ident, Memory>,
    spent: Spent,
    /// The axes of the grid and the loops around, the innermost last, with how often they turn.
    loops: Vec<(Ident, f64)>,
    /// How many of them are of the grid.
    outside: usize,
    /// Bytes of the scratch of a grid point.
    scratch: f64,
}

#[derive(Clone)]
struct Memory {
    axes: Vec<f64>,
    dtype: DType,
    /// The axis along which neighbours are neighbours.
    along: Option<usize>,
    /// Whether it is an argument.
    argument: bool,
}

/// Seconds of a launch of `kernel` on `threads` of a device for the sizes of `bindings`; none for a kernel that is not for a CPU, or
/// that has what only GPUs do.
pub fn predict(kernel: &Kernel, bindings: &Bindings, device: &Device, threads: usize) -> Option<f64> {
    let mut numbers: BTreeMap<Ident, f64> = bindings.iter().map(|(s, &v)| (s.clone(), v as f64)).collect();
    numbers.extend(kernel.constants.iter().map(|(name, v)| (name.clone(), *v as f64)));
    let mut walk = Walk {
        device,
        numbers,
        tiles: BTreeMap::new(),
        buffers: BTreeMap::new(),
        spent: Spent::default(),
        loops: Vec::new(),
        outside: 0,
        scratch: 0.0,
    };
    kernel.arguments.iter().try_for_each(|b| walk.declare(b))?;
    let whole: f64 = walk.buffers.values().map(|m| m.axes.iter().product::<f64>() * bytes(m.dtype)).sum();
    for view in &kernel.views {
        let axes = view.axes.iter().map(|(_, n)| walk.number(n)).collect::<Option<Vec<f64>>>()?;
        let of = walk.buffers.get(&view.buffer)?;
        let is_along = |name: &Ident| {
            let alone = |(last, outer): (&(Expr, bool), &[(Expr, bool)])| {
                unit(&last.0, name) && outer.iter().all(|(e, _)| !e.reads(name))
            };
            view.dims.split_last().is_some_and(alone)
        };
        let whole = of.along == view.dims.len().checked_sub(1);
        let along = view.axes.iter().position(|(name, _)| whole && is_along(name));
        let memory = Memory { axes, along, ..of.clone() };
        walk.buffers.insert(view.name.clone(), memory);
    }
    walk.grid(&kernel.body, whole, threads as f64)
}

/// Whether neighbours along `axis` are neighbours.
fn unit(e: &Expr, axis: &str) -> bool {
    match e {
        Expr::Name(n) => **n == *axis,
        Expr::Scalar(ScalarOp::Add {}, args) => {
            args.iter().filter(|a| a.reads(axis)).count() == 1 && args.iter().any(|a| unit(a, axis))
        }
        _other => false,
    }
}

fn bytes(dtype: DType) -> f64 {
    let (per, size) = dtype.block();
    size as f64 / per as f64
}

impl Walk<'_> {
    /// The kernel's loop over the grid, split over the cores.
    fn grid(&mut self, body: &Block, whole: f64, cores: f64) -> Option<f64> {
        let device = self.device;
        let [before @ .., Stmt::Par { vars, level: Level::Grid, body }] = body.as_slice() else { return None };
        self.block(before)?;
        let extents = vars.iter().map(|(_, n)| self.number(n)).collect::<Option<Vec<f64>>>()?;
        let points: f64 = extents.iter().product();
        if points < 1.0 {
            return Some(device.launch.0);
        }
        self.loops = vars.iter().map(|(var, _)| var.clone()).zip(extents.iter().copied()).collect();
        self.outside = vars.len();
        // First, middle, last but one point: one, four, one sixth. Then those that are last along some axes, by how many there are of them.
        let full = |share: f64| extents.iter().map(|n| ((n - 2.0) * share).floor().max(0.0)).collect::<Vec<f64>>();
        let cut: Vec<usize> = (0..extents.len()).filter(|&axis| extents[axis] > 1.0).collect();
        let mut each = Spent::default();
        for last in 0..1_usize << cut.len() {
            let is = |axis: usize| cut.iter().position(|&a| a == axis).is_some_and(|i| last >> i & 1 == 1);
            let share = |&axis: &usize| if is(axis) { 1.0 / extents[axis] } else { 1.0 - 1.0 / extents[axis] };
            let many: f64 = cut.iter().map(share).product();
            let places: &[(f64, f64)] =
                if last == 0 { &[(0.0, 1.0 / 6.0), (0.5, 4.0 / 6.0), (1.0, 1.0 / 6.0)] } else { &[(0.5, 1.0)] };
            for (place, weight) in places {
                let mut at = full(*place);
                (0..at.len()).filter(|&axis| is(axis)).for_each(|axis| at[axis] = extents[axis] - 1.0);
                each.add(many * weight, self.point(vars, &at, body)?);
            }
        }
        let idle = (points / cores).ceil() * cores / points;
        let compute = each.seconds.max(0.0) * points / cores * idle;
        let traffic = each.moved * points;
        let narrow = idle.min(2.0);
        // Other kernels run in between: only what a second cache holds is still there.
        let slower = 1.0 + (BROKEN - 1.0) * each.broken / each.moved.max(1.0);
        let far = whole > device.own_cache_bytes.0;
        let first = if far { slower * traffic.min(whole) / device.memory.0 } else { 0.0 };
        let memory = (traffic / device.cache.0 * device.cores.0 / cores).max(first) * narrow;
        let memory = memory + PART * each.parts * points / cores * idle;
        // A panel that is not fetched ahead is waited for by both.
        let waits = if far { device.panel_change.0 * each.changes } else { 0.0 } * points / cores * idle;
        Some(compute.max(memory) + 0.15 * compute.min(memory) + waits + device.launch.0)
    }

    /// What a point of the grid takes.
    fn point(&mut self, vars: &[(Ident, Expr)], at: &[f64], body: &[Stmt]) -> Option<Spent> {
        self.numbers.extend(vars.iter().map(|(var, _)| var.clone()).zip(at.iter().copied()));
        (self.spent, self.scratch) = (Spent { seconds: POINT, ..Spent::default() }, 0.0);
        self.block(body)?;
        self.spent.seconds +=
            if self.scratch > self.device.own_cache_bytes.0 { self.scratch / self.device.cache.0 } else { 0.0 };
        Some(self.spent)
    }

    fn declare(&mut self, b: &Buffer) -> Option<()> {
        let axes = b.axes.iter().map(|(_, n)| self.number(n)).collect::<Option<Vec<f64>>>()?;
        let argument = matches!(b.space, Space::In | Space::Out | Space::InOut | Space::Work);
        if b.space == Space::Reg {
            self.tiles.insert(b.name.clone(), Tile { elements: axes.iter().product(), dtype: b.dtype });
        } else if !argument {
            self.scratch += axes.iter().product::<f64>() * bytes(b.dtype);
        }
        let along = axes.len().checked_sub(1);
        self.buffers.insert(b.name.clone(), Memory { axes, dtype: b.dtype, along, argument });
        Some(())
    }

    fn block(&mut self, block: &[Stmt]) -> Option<()> {
        block.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> Option<()> {
        match s {
            Stmt::Buffer(b) => self.declare(b),
            Stmt::For { var, low, high, step, unroll: _, body } => {
                let (low, high) = (self.number(low)?, self.number(high)?);
                let step = step.as_ref().map_or(Some(1.0), |e| self.number(e))?;
                self.turns(var, (low, high, step), body)
            }
            Stmt::If { condition: _, yes, no } => {
                // Which side is taken is not known: the longer one.
                let before = self.spent;
                self.block(yes)?;
                let after = std::mem::replace(&mut self.spent, before);
                self.block(no)?;
                self.spent = self.spent.most(after);
                Some(())
            }
            Stmt::Load { name, access, mods: _ } => {
                let tile = self.access(access)?;
                self.tiles.insert(name.clone(), tile);
                Some(())
            }
            Stmt::Let { names, value } => self.bind(names, value),
            Stmt::Set { value, .. } => self.value(value).map(drop),
            Stmt::Store { access, value, add, .. } => {
                self.value(value)?;
                let before = self.spent;
                let tile = self.access(access)?;
                if self.spent.parts > before.parts {
                    (self.spent.parts, self.spent.broken) = (before.parts, before.broken);
                    self.spent.seconds += self.device.partial_row.0;
                }
                if *add {
                    self.spent.seconds += self.elements(tile, 1.0, 0.0);
                }
                Some(())
            }
            Stmt::Mma { to, terms, .. } => self.product(to, terms),
            _of_gpus => None,
        }
    }
}
