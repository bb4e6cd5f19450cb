//! Seconds that a body takes: a roofline over what its template does. Loops are followed as the emitter places values:
//! each in the deepest loop that binds one of its axes, so that recomputation and passes are counted.

use super::super::lang::{Affine, AxisId, AxisSet, Fold, GATHERED, axis_bit};
use super::body::Written;
use super::kind::{Form, Sum};
use super::problem::{Class, Problem, Step, each};
use super::{Bound, Price};
use std::collections::BTreeSet;
use tilewright_ir::types::DType;

/// Elements of a tile of an elementwise kernel: the least that one core takes.
const TILE: f64 = 256.0;
/// Most elements of a row that a kernel keeps between its passes.
const HELD: f64 = 16384.0;
/// How much slower an operation on one number is than its share of a vector.
const SCALAR: f64 = 6.0;

/// What a kernel does.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Seconds of matrix units.
    matrix: f64,
    /// Seconds of elementwise code.
    vector: f64,
    /// FLOPs of products.
    flops: f64,
    /// Bytes read from memory, each tensor once or as often as it leaves the cache.
    read: f64,
    /// Bytes read from the shared cache.
    cached: f64,
    /// Bytes written.
    written: f64,
    /// Seconds before and between.
    launch: f64,
    /// Parts that cores can take.
    items: f64,
}

impl Load {
    fn price(&self, problem: &Problem<'_>) -> Price {
        let d = problem.device;
        let cores = d.cores.0;
        let items = self.items.max(1.0);
        // Cores that wait for the last round.
        let idle = (items / cores).ceil() * cores / items;
        let compute = (self.matrix + self.vector) * idle;
        // One core reaches a good part of the bandwidth.
        let narrow = idle.min(2.0);
        let reads = (self.read / d.memory.0).max(self.cached / d.cache.0) * narrow;
        let memory = ((self.read + self.written) / d.memory.0).max((self.cached + self.written) / d.cache.0) * narrow;
        let seconds = compute.max(memory) + 0.15 * compute.min(memory) + self.launch;
        let bound = if self.launch >= compute.max(memory) {
            Bound::Launch
        } else if memory >= compute {
            Bound::Memory
        } else if self.matrix >= self.vector {
            Bound::Matrix
        } else {
            Bound::Vector
        };
        Price {
            seconds,
            rank: compute + reads,
            flops: self.flops,
            bytes: self.read + self.written,
            matrix: self.matrix * idle,
            vector: self.vector * idle,
            memory,
            launch: self.launch,
            bound,
        }
    }
}

/// The price of a body in its form; `outputs` are classes.
pub(super) fn price(problem: &Problem<'_>, written: &Written<'_>, form: &Form) -> Price {
    let loads = match form {
        Form::Pointwise => loops(problem, written, &[]),
        Form::Loops(sums) => loops(problem, written, sums),
        Form::Products(sums) => products(problem, written, sums),
        Form::Attention { folds, key } => attention(problem, written, folds, key),
    };
    loads.price(problem)
}

/// Bytes of one element.
fn bytes(problem: &Problem<'_>, class: Class) -> f64 {
    let (per, size) = problem.classes[class].dtype.block();
    size as f64 / per as f64
}

/// Axes of what a local reads in memory; `None` if it reads nothing.
fn source(problem: &Problem<'_>, written: &Written<'_>, at: usize) -> Option<AxisSet> {
    let local = &written.locals[at];
    match local.choice.map(|c| &c.step) {
        None => Some(local.free),
        Some(Step::Load(..)) => Some(local.free),
        Some(Step::Gather(_, map)) => Some(map.iter().fold(0, |s, e| s | e.free()) & !axis_bit(GATHERED) | local.free),
        // The source is read where the map points, as often as there are points here.
        Some(Step::At(_)) => {
            let kid = *local.kids.first()?;
            let axes = written.locals[kid].free;
            let small = problem.points(local.free) < problem.points(axes);
            written.locals[kid].choice.is_none().then_some(if small { local.free } else { axes })
        }
        Some(Step::Number | Step::Map { .. } | Step::Fold(..)) => None,
    }
}

/// Whether neighbours along an axis are neighbours in memory.
fn contiguous(written: &Written<'_>, at: usize, axis: AxisId) -> bool {
    let last = |map: &[Affine]| {
        let unit = |e: &Affine| e.terms.iter().any(|t| t.0 == axis && t.1.abs() == 1);
        let (inner, outer) = map.split_last().map_or((None, map), |(l, o)| (Some(l), o));
        inner.is_some_and(unit) && outer.iter().all(|e| e.free() & axis_bit(axis) == 0)
    };
    match written.step(at) {
        Some(Step::Load(_, map) | Step::Gather(_, map)) => last(map),
        // Kernels of one cover choose the order in which they store.
        None | Some(Step::At(_)) => true,
        Some(Step::Number | Step::Map { .. } | Step::Fold(..)) => true,
    }
}

fn elementwise(problem: &Problem<'_>, work: f64, special: f64, dtype: DType) -> f64 {
    (work + special * problem.device.special.0) / problem.device.vector.of(dtype)
}

/// Bytes written.
fn stored(problem: &Problem<'_>, written: &Written<'_>) -> f64 {
    let one = |&o: &usize| {
        let class = written.locals[o].class;
        problem.points(problem.classes[class].free) * bytes(problem, class)
    };
    written.outputs.iter().map(one).sum()
}

/// A loop of a kernel, inside another one.
struct Frame {
    parent: usize,
    axis: AxisId,
    /// 0 for a loop over an output's axis, else the number of the pass.
    pass: u8,
    /// How often its body runs.
    count: f64,
}

struct Loops<'p, 'a> {
    problem: &'p Problem<'a>,
    frames: Vec<Frame>,
}

impl Loops<'_, '_> {
    fn inside(&mut self, parent: usize, axis: AxisId, pass: u8) -> usize {
        if let Some(found) = self.frames.iter().position(|f| (f.parent, f.axis, f.pass) == (parent, axis, pass)) {
            return found;
        }
        let count = self.frames[parent].count * self.problem.extent(axis);
        self.frames.push(Frame { parent, axis, pass, count });
        self.frames.len() - 1
    }

    /// The deepest of the loops around that binds one of `axes`; 0 is a point of the grid.
    fn place(&self, mut frame: usize, axes: AxisSet) -> usize {
        while frame != 0 && axes & axis_bit(self.frames[frame].axis) == 0 {
            frame = self.frames[frame].parent;
        }
        frame
    }
}

/// Output axes that are loops inside a grid point, outer first: those that are folded too, else the innermost one.
fn inner_axes(problem: &Problem<'_>, written: &Written<'_>) -> Vec<AxisId> {
    let order = written.outputs.iter().find_map(|&o| {
        let id = problem.classes[written.locals[o].class].id;
        problem.context.orders.iter().find(|r| r.0 == id).map(|r| r.1.as_slice())
    });
    let both: Vec<AxisId> = each(written.grid & written.folded).collect();
    if !both.is_empty() {
        return both;
    }
    let last = match order {
        Some(order) => order.iter().rev().copied().find(|&a| written.grid & axis_bit(a) != 0),
        None => {
            // The order is free: the axis that most reads are contiguous along.
            let score = |axis: AxisId| {
                let reads = (0..written.locals.len())
                    .filter(|&at| written.locals[at].free & axis_bit(axis) != 0 && contiguous(written, at, axis));
                reads.count()
            };
            each(written.grid).max_by_key(|&a| score(a))
        }
    };
    last.into_iter().collect()
}

/// Pointwise kernels and rows: everything runs in loops.
fn loops(problem: &Problem<'_>, written: &Written<'_>, slow: &[Sum]) -> Load {
    let inner = inner_axes(problem, written);
    let outer = written.grid & !inner.iter().fold(0, |s, &a| s | axis_bit(a));
    let points = problem.points(outer);
    let mut l = Loops { problem, frames: vec![Frame { parent: 0, axis: GATHERED, pass: 0, count: points }] };
    let deepest = inner.iter().fold(0, |frame, &axis| l.inside(frame, axis, 0));
    let mut at_frames: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); written.locals.len()];
    for &o in &written.outputs {
        at_frames[o].insert(l.place(deepest, written.locals[o].free));
    }
    let mut load = Load { written: stored(problem, written), launch: problem.device.launch.0, ..Load::default() };
    // Without folds an innermost loop is split in tiles.
    let tiles =
        if written.folded == 0 { inner.iter().map(|&a| (problem.extent(a) / TILE).ceil()).product() } else { 1.0 };
    load.items = points * tiles;
    let mut keys = BTreeSet::new();
    for at in (0..written.locals.len()).rev() {
        let frames = std::mem::take(&mut at_frames[at]);
        let local = &written.locals[at];
        let dtype = problem.classes[local.class].dtype;
        if let Some(axes) = source(problem, written, at) {
            let total: f64 = frames.iter().map(|&f| l.frames[f].count).sum();
            read(problem, &mut load, problem.points(axes), total, bytes(problem, local.class), outer & !local.free);
        }
        let Some(choice) = local.choice else { continue };
        let mut held: Vec<(usize, AxisId)> = Vec::new();
        for frame in frames {
            let count = l.frames[frame].count;
            let (parent, axis) = (l.frames[frame].parent, l.frames[frame].axis);
            if frame != 0 && matches!(choice.step, Step::Map { .. }) {
                // A row that an earlier pass has made is read again, not made again.
                if held.contains(&(parent, axis)) && problem.is_constant(axis) && problem.extent(axis) <= HELD {
                    load.cached += count * bytes(problem, local.class);
                    continue;
                }
                held.push((parent, axis));
            }
            match &choice.step {
                Step::Load(..) | Step::Number | Step::Gather(..) | Step::At(_) => {}
                Step::Map { work, special } => {
                    let lanes = if frame == 0 { SCALAR } else { 1.0 };
                    let strided = frame != 0 && !local.kids.iter().all(|&k| smooth(written, k, axis));
                    let factor = if strided { SCALAR } else { lanes };
                    load.vector += count * factor * elementwise(problem, *work, *special, dtype);
                }
                Step::Fold(fold, axis) => {
                    let pass = local.passes(*axis);
                    let body = l.inside(frame, *axis, pass);
                    let count = l.frames[body].count;
                    let product = slow.iter().any(|s| s.nest.contains(&at));
                    let along = local.kids.iter().all(|&k| smooth(written, k, *axis));
                    let across = inner.last().is_some_and(|&t| {
                        local.free & axis_bit(t) != 0 && local.kids.iter().all(|&k| smooth(written, k, t))
                    });
                    let rate = problem.device.scalar.0 / problem.device.vector.of(dtype);
                    let factor = if product {
                        2.0 / rate
                    } else if along || across {
                        1.0
                    } else {
                        SCALAR
                    };
                    let key = local.kids.len().checked_sub(2).and_then(|k| local.kids.get(k)).copied();
                    let fresh = key.is_some_and(|k| keys.insert((k, body)));
                    let special = if fresh { 1.0 } else { 0.0 };
                    load.vector += count * factor * elementwise(problem, fold_work(*fold), special, dtype);
                    if product {
                        load.flops += 2.0 * count;
                    }
                    for &kid in &local.kids {
                        at_frames[kid].insert(l.place(body, written.locals[kid].free));
                    }
                    continue;
                }
            }
            for &kid in &local.kids {
                if !matches!(choice.step, Step::At(_)) {
                    at_frames[kid].insert(l.place(frame, written.locals[kid].free));
                }
            }
        }
    }
    load
}

/// Operations of one step of a fold, beside exponentials.
fn fold_work(fold: Fold) -> f64 {
    match fold {
        Fold::Sum | Fold::Max | Fold::Min | Fold::Prod => 1.0,
        Fold::Esum | Fold::EsumIf => 4.0,
        Fold::M2 => 6.0,
    }
}

/// Whether all that a value reads in the same loop is contiguous along the loop's axis.
fn smooth(written: &Written<'_>, from: usize, axis: AxisId) -> bool {
    let mut seen = BTreeSet::new();
    let mut stack = vec![from];
    while let Some(at) = stack.pop() {
        let local = &written.locals[at];
        if local.free & axis_bit(axis) == 0 || !seen.insert(at) {
            continue;
        }
        if !contiguous(written, at, axis) {
            return false;
        }
        if let Some(Step::Map { .. }) = local.choice.map(|c| &c.step) {
            stack.extend(&local.kids);
        }
    }
    true
}

/// Reads `total` elements of a tensor of `points`; blocks of the grid that differ in `again` read the same.
fn read(problem: &Problem<'_>, load: &mut Load, points: f64, total: f64, bytes: f64, again: AxisSet) {
    let d = problem.device;
    let size = points * bytes;
    load.cached += total * bytes;
    let times = if size <= d.cache_bytes.0 { 1.0 } else { (problem.points(again) / d.cores.0).max(1.0) };
    load.read += size * times;
}

/// Products on micro-kernels, with elementwise work on their results and, where the device can, on their left operand.
fn products(problem: &Problem<'_>, written: &Written<'_>, sums: &[Sum]) -> Load {
    let d = problem.device;
    let mut load = Load { written: stored(problem, written), launch: d.launch.0, ..Load::default() };
    let Some(first) = sums.first() else { return load };
    let (m, n) = (problem.points(first.rows), problem.points(first.columns));
    let row_tiles = (m / d.tile.0.0).ceil();
    let column_tiles = (n / d.tile.1.0).ceil();
    let batch = problem.points(first.batch);
    load.items = row_tiles * column_tiles * batch;
    // Of a value that lacks axes of the result: one computation a tile along them.
    let again = |free: AxisSet| {
        let lack = |axes: AxisSet, tile: f64| (problem.points(axes & !free) / tile).ceil().max(1.0);
        let (rows, columns) = (lack(first.rows, d.tile.0.0), lack(first.columns, d.tile.1.0));
        rows * columns * problem.points(first.batch & !free)
    };
    let inside: BTreeSet<usize> = sums.iter().flat_map(|s| s.nest.iter().copied()).collect();
    for sum in sums {
        let right = dtype_read(problem, written, sum.right);
        let flops = 2.0 * batch * m * n * problem.points(sum.depth);
        load.flops += flops;
        load.matrix += flops / d.matrix.of(right);
        if written.step(sum.right).is_none_or(|s| matches!(s, Step::At(_))) && !d.capabilities.prologue {
            // Computed columns are packed before the kernel runs.
            let size = problem.points(written.locals[sum.right].free) * bytes(problem, written.locals[sum.right].class);
            load.launch += d.launch.0 + 2.0 * size / d.memory.0;
        }
    }
    for (at, local) in written.locals.iter().enumerate() {
        let dtype = problem.classes[local.class].dtype;
        if let Some(axes) = source(problem, written, at) {
            let points = problem.points(axes);
            let total = problem.points(local.free) * again(local.free);
            read(problem, &mut load, points, total, bytes(problem, local.class), 0);
        }
        if let Some(Step::Map { work, special }) = local.choice.map(|c| &c.step)
            && !inside.contains(&at)
            && !sums.iter().any(|s| s.right == at)
        {
            let count = problem.points(local.free) * again(local.free);
            load.vector += count * elementwise(problem, *work, *special, dtype);
        }
    }
    load
}

/// The dtype that a matrix unit reads: below a cast of blocks, the blocks.
fn dtype_read(problem: &Problem<'_>, written: &Written<'_>, at: usize) -> DType {
    let local = &written.locals[at];
    let below = local.kids.first().map(|&k| problem.classes[written.locals[k].class].dtype);
    below.filter(|d| d.is_block()).unwrap_or(problem.classes[local.class].dtype)
}

/// Rows of queries that one core takes at a time.
const QUERIES: f64 = 16.0;

/// Attention: keys and values pass once per block of queries, weights are never stored.
fn attention(problem: &Problem<'_>, written: &Written<'_>, folds: &[usize], key: &Sum) -> Load {
    let d = problem.device;
    let mut load = Load { written: stored(problem, written), launch: d.launch.0, ..Load::default() };
    let Some((fold, axis)) = folds.first().and_then(|&f| match written.step(f) {
        Some(Step::Fold(_, axis)) => Some((f, *axis)),
        _other => None,
    }) else {
        return load;
    };
    let kids = &written.locals[fold].kids;
    let Some(&score) = kids.len().checked_sub(2).and_then(|k| kids.get(k)) else { return load };
    let scores = written.locals[score].free;
    // What a predicate rules out as a block is skipped; of causal attention that is nearly half.
    let part = if kids.len() == 3 && written.locals[kids[0]].free & !axis_bit(axis) != 0 { 0.55 } else { 1.0 };
    let cells = problem.points(scores) * part;
    let dtype = problem.classes[written.locals[score].class].dtype;
    let rate = d.matrix.of(dtype) * d.attention_share.0;
    load.flops += 2.0 * cells * problem.points(key.depth);
    load.vector += cells * elementwise(problem, 4.0, 1.0, dtype);
    for &f in folds {
        let Some(&weight) = written.locals[f].kids.last() else { continue };
        let wide = problem.points(written.locals[weight].free & !scores);
        load.flops += 2.0 * cells * wide;
    }
    load.matrix += load.flops / rate;
    let queries = scores & !axis_bit(axis);
    let blocks =
        (problem.points(queries & key.rows) / QUERIES).ceil().max(problem.points(queries & key.columns) / QUERIES);
    load.items = problem.points(key.batch) * blocks.ceil();
    for (at, local) in written.locals.iter().enumerate() {
        if let Some(axes) = source(problem, written, at) {
            let again = if local.free & axis_bit(axis) != 0 {
                (problem.points(queries & !local.free) / QUERIES).ceil()
            } else {
                1.0
            };
            let points = problem.points(axes);
            read(problem, &mut load, points, problem.points(local.free) * again, bytes(problem, local.class), 0);
        }
        if let Some(Step::Map { work, special }) = local.choice.map(|c| &c.step)
            && !key.nest.contains(&at)
        {
            let dtype = problem.classes[local.class].dtype;
            let cells = problem.points(local.free) * if local.free & axis_bit(axis) != 0 { part } else { 1.0 };
            load.vector += cells * elementwise(problem, *work, *special, dtype);
        }
    }
    load
}
