//! Seconds that a body takes: a roofline over what its template does.

use super::super::lang::{Affine, Attr, AxisId, AxisSet, GATHERED, Head, axis_bit};
use super::body::Written;
use super::kind::{Form, Part, Rows, Sum, left_fits};
use super::loops::loops;
use super::problem::{Class, Problem, Step, each};
use super::{Bound, Price};
use crate::region::{Affine as Position, Values, limits};
use crate::schedule::{LEAN_ROW_TILES, ROW_TILES, gpu, is_half};
use std::collections::BTreeSet;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, Dim};

/// What a kernel does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Seconds of matrix units.
    pub matrix: f64,
    /// Seconds of elementwise code.
    pub vector: f64,
    /// FLOPs of products.
    pub flops: f64,
    /// Bytes read from memory, each tensor once or as often as it leaves the cache.
    pub read: f64,
    /// Bytes read from the shared cache.
    pub cached: f64,
    /// Bytes written.
    pub written: f64,
    /// Seconds before and between.
    pub launch: f64,
    /// Parts that cores can take.
    pub items: f64,
}

/// Bytes of memory that a core of a CPU has a second, other cores idle; one of Zen 5 has 39 GB, both 43, and others are taken to have less.
const CORE: f64 = 30e9;

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
        let far = if d.capabilities.held_rows { narrow.min((d.memory.0 / CORE).max(1.0)) } else { narrow };
        let memory = |bytes: f64| bytes / d.memory.0 * far;
        let cache = |bytes: f64| bytes / d.cache.0 * narrow;
        let reads = memory(self.read).max(cache(self.cached));
        let memory = memory(self.read + self.written).max(cache(self.cached + self.written));
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
        Form::Products(sums) => {
            let part = Part { sums: sums.clone(), outputs: written.outputs.clone() };
            return tiled(problem, written, &[part]);
        }
        Form::Beside(parts) => return tiled(problem, written, parts),
        Form::Attention { folds, key } => attention(problem, written, folds, key),
    };
    loads.price(problem)
}

/// Grids of products, in tiles of the best size: smaller ones keep more cores busy, and reach less of the matrix rate.
fn tiled(problem: &Problem<'_>, written: &Written<'_>, parts: &[Part]) -> Price {
    let prices = [(1.0, 1.0), (2.0, 0.85), (4.0, 0.6)].map(|(cut, rate)| {
        let mut load = Load { launch: problem.device.launch.0, ..Load::default() };
        let mut seen = vec![false; written.locals.len()];
        parts.iter().for_each(|part| products(problem, written, part, (cut, rate), (&mut load, &mut seen)));
        load.price(problem)
    });
    let [first, rest @ ..] = prices;
    rest.into_iter().fold(first, |best, p| if p.seconds < best.seconds { p } else { best })
}

/// Bytes of one element.
pub(super) fn bytes(problem: &Problem<'_>, class: Class) -> f64 {
    let (per, size) = problem.classes[class].dtype.block();
    size as f64 / per as f64
}

/// Axes of what a local reads in memory; `None` if it reads nothing.
pub(super) fn source(problem: &Problem<'_>, written: &Written<'_>, at: usize) -> Option<AxisSet> {
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
pub(super) fn contiguous(written: &Written<'_>, at: usize, axis: AxisId) -> bool {
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

pub(super) fn elementwise(problem: &Problem<'_>, work: f64, special: f64, dtype: DType) -> f64 {
    (work + special * problem.device.special.0) / problem.device.vector.of(dtype)
}

/// The dtype that says how fast a value is computed. A half costs a rounding, but not in a fold, which runs in f32, nor where
/// it is stored, since results are rounded as they are written.
pub(super) fn pace(problem: &Problem<'_>, written: &Written<'_>, at: usize) -> DType {
    let dtype = problem.classes[written.locals[at].class].dtype;
    let free = matches!(written.step(at), Some(Step::Fold(..))) || written.outputs.contains(&at);
    if is_half(dtype) && free { DType::F32 } else { dtype }
}

/// Bytes written. What no cache holds and nobody asked for counts as often again as [`ROOM`] says.
pub(super) fn stored(problem: &Problem<'_>, written: &Written<'_>) -> f64 {
    stored_of(problem, written, &written.outputs)
}

/// As [`stored`], of some outputs.
fn stored_of(problem: &Problem<'_>, written: &Written<'_>, outputs: &[usize]) -> f64 {
    let one = |&o: &usize| {
        let info = &problem.classes[written.locals[o].class];
        let size = problem.points(info.free) * bytes(problem, written.locals[o].class);
        if info.root || size <= problem.device.cache_bytes.0 { size } else { size * (1.0 + ROOM) }
    };
    outputs.iter().map(one).sum()
}

/// What memory for a large value costs beside the time to write it, in such times: pages are touched for the first time, and others
/// lose theirs. So of two covers that are as fast, the one that needs less memory is taken.
const ROOM: f64 = 4.0;

/// Reads `total` elements of a tensor of `points`; blocks of the grid that differ in `again` read the same.
pub(super) fn read(problem: &Problem<'_>, load: &mut Load, points: f64, total: f64, bytes: f64, again: AxisSet) {
    let d = problem.device;
    let size = points * bytes;
    load.cached += total * bytes;
    let times = if size <= d.cache_bytes.0 { 1.0 } else { (problem.points(again) / d.cores.0).max(1.0) };
    load.read += size * times;
}

/// Adds products on micro-kernels, with elementwise work on their results and, where the device can, on their left operand.
/// Tiles are those of the device divided by `cut`, and run at `rate` of its speed. What other grids have `seen` comes from a
/// cache.
fn products(
    problem: &Problem<'_>,
    written: &Written<'_>,
    part: &Part,
    (cut, rate): (f64, f64),
    (load, seen): (&mut Load, &mut [bool]),
) {
    let (d, sums) = (problem.device, &part.sums);
    load.written += stored_of(problem, written, &part.outputs);
    let Some(first) = sums.first() else { return };
    let (m, n) = (problem.points(first.rows), problem.points(first.columns));
    let (tall, wide) = (d.tile.0.0 / cut, d.tile.1.0 / cut);
    let (row_tiles, column_tiles) = ((m / tall).ceil(), (n / wide).ceil());
    let batch = problem.points(first.batch);
    load.items += row_tiles * column_tiles * batch;
    // Of a value that lacks axes of the result: one computation a tile along them.
    let again = |free: AxisSet| {
        let lack = |axes: AxisSet, tile: f64| (problem.points(axes & !free) / tile).ceil().max(1.0);
        let (rows, columns) = (lack(first.rows, tall), lack(first.columns, wide));
        rows * columns * problem.points(first.batch & !free)
    };
    let inside: BTreeSet<usize> = sums.iter().flat_map(|s| s.nest.iter().copied()).collect();
    for sum in sums {
        let narrow = written.narrow(problem, [sum.left, sum.right]);
        let right = narrow.unwrap_or_else(|| dtype_read(problem, written, sum.right));
        let flops = 2.0 * batch * m * n * problem.points(sum.depth);
        load.flops += flops;
        load.matrix += flops / (d.matrix.of(right) * rate);
        if left_fits(problem, written, sum) == Some(Rows::Copied) {
            let left = written.operand(problem, sum.left);
            let points = problem.points(written.locals[left].free);
            load.launch += d.launch.0 + 2.0 * points * bytes(problem, written.locals[left].class) / d.memory.0;
        }
        let operand = written.operand(problem, sum.right);
        let packed = match written.step(operand) {
            // Panels of a weight are kept between calls.
            Some(Step::Load(input, _)) => !problem.context.is_weight(*input),
            None | Some(Step::At(_)) => true,
            Some(Step::Number | Step::Gather(..) | Step::Map { .. } | Step::Fold(..)) => false,
        };
        if packed && !d.capabilities.prologue {
            let size = problem.points(written.locals[operand].free) * bytes(problem, written.locals[operand].class);
            load.launch += d.launch.0 + 2.0 * size / d.memory.0;
        }
    }
    let mine = written.below(&part.outputs);
    for (at, local) in written.locals.iter().enumerate().filter(|(at, _)| mine[*at]) {
        let dtype = pace(problem, written, at);
        if let Some(axes) = source(problem, written, at) {
            let points = problem.points(axes);
            let total = problem.points(local.free) * again(local.free);
            let before = load.read;
            read(problem, load, points, total, bytes(problem, local.class), 0);
            if std::mem::replace(&mut seen[at], true) {
                load.read = before;
            }
        }
        if let Some(Step::Map { work, special }) = local.choice.map(|c| &c.step)
            && !inside.contains(&at)
            && !sums.iter().any(|s| s.right == at || (s.left == at && written.operand(problem, at) != at))
        {
            let count = problem.points(local.free) * again(local.free);
            load.vector += count * elementwise(problem, *work, *special, dtype);
        }
    }
}

/// The dtype that a matrix unit reads: below a cast of blocks or halves, these.
fn dtype_read(problem: &Problem<'_>, written: &Written<'_>, at: usize) -> DType {
    let local = &written.locals[at];
    let below = local.kids.first().map(|&k| problem.classes[written.locals[k].class].dtype);
    below.filter(|d| d.is_block() || is_half(*d)).unwrap_or(problem.classes[local.class].dtype)
}

/// Positions of a tile of scores.
const KEYS: f64 = crate::schedule::KEYS as f64;

/// The values of a body as masks are read: sizes that only a call knows count as nothing.
struct Places<'w, 'p> {
    problem: &'w Problem<'p>,
    written: &'w Written<'p>,
}

impl Values for Places<'_, '_> {
    fn applied(&self, value: usize) -> Option<(&ScalarOp, &[usize])> {
        match &self.written.locals[value].choice?.node.head {
            Head::Scalar(op) => Some((op, &self.written.locals[value].kids)),
            _other => None,
        }
    }

    fn dtype(&self, value: usize) -> DType {
        self.problem.classes[self.written.locals[value].class].dtype
    }

    fn leaf(&self, value: usize) -> Option<Position> {
        let local = &self.written.locals[value];
        let number = |n: i64| Position::constant(Dim::constant(n));
        match &local.choice?.node.head {
            Head::Iota => each(local.free).next().map(|a| Position::axis(a.into())),
            Head::Attr(Attr::Const(n)) => Some(number(n.value() as i64)),
            Head::Extent => Some(number(0)),
            _other => (local.free == 0 && self.dtype(value) == DType::I64).then(|| number(0)),
        }
    }

    fn bounds(&self, size: &Dim) -> Option<(i64, i64)> {
        size.as_const().map(|n| (n, n))
    }

    fn longest(&self, axis: usize) -> Option<i64> {
        Some(self.problem.longest(AxisId::try_from(axis).ok()?) as i64)
    }
}

/// The share of the positions along `axis` that a mask shows, for all that can be read off it: the mean over a few places
/// along the other axes, whole tiles at both ends.
fn shown(problem: &Problem<'_>, written: &Written<'_>, mask: usize, axis: AxisId) -> f64 {
    const PLACES: u32 = 8;
    let found = limits(&Places { problem, written }, mask, axis.into());
    let n = problem.extent(axis);
    let width = |place: u32| {
        let share = (f64::from(place) + 0.5) / f64::from(PLACES);
        let at = |a: &Position| {
            let along = |t: &(usize, i64)| u8::try_from(t.0).map_or(0.0, |x| t.1 as f64 * share * problem.extent(x));
            a.base.as_const().unwrap_or(0) as f64 + a.terms.iter().map(along).sum::<f64>()
        };
        let start = found.starts.iter().map(|a| at(a) - KEYS / 2.0).fold(0.0, f64::max);
        let end = found.ends.iter().map(|a| at(a) + KEYS / 2.0).fold(n, f64::min);
        (end - start).max(0.0)
    };
    (0..PLACES).map(width).sum::<f64>() / f64::from(PLACES) / n
}

/// FLOPs of both products for a score where [`Device::attention_share`](super::device::Device) is measured.
const SHARED_FLOPS: f64 = 256.0;
/// Rows of a grid point, in those of a product, where no rows of values are summed.
const LEAN_ROWS: f64 = LEAN_ROW_TILES as f64 / ROW_TILES as f64;
/// Rows of queries that a warp takes at a time.
const WARP_QUERIES: f64 = 16.0;

/// The dtype whose matrix instructions compute an attention: as `schedule::gpu` has it, of queries, keys and values in one 16-bit
/// dtype, with heads that are not too wide, one sum of rows, and enough rows.
fn instructions(
    problem: &Problem<'_>,
    written: &Written<'_>,
    folds: &[usize],
    key: &Sum,
    scores: AxisSet,
) -> Option<DType> {
    let dtype = written.narrow(problem, [key.left, key.right])?;
    let weights = folds.iter().filter_map(|&f| written.locals[f].kids.last().copied());
    let wide: Vec<usize> = weights.filter(|&w| written.locals[w].free & !scores != 0).collect();
    let &[values] = &wide[..] else { return None };
    let same = written.narrow(problem, [values, values]) == Some(dtype);
    let narrow =
        |axes: AxisSet| each(axes).all(|a| problem.is_constant(a)) && problem.points(axes) <= gpu::MOST_WIDE as f64;
    let heads = narrow(key.depth) && narrow(written.locals[values].free & !scores);
    // The rows of the product, less what folds go along.
    let rows = [key.rows, key.columns]
        .into_iter()
        .any(|axes| written.locals[values].free & axes == 0 && problem.points(axes) >= gpu::LEAST_ROWS as f64);
    (problem.device.capabilities.prologue && same && heads && rows).then_some(dtype)
}

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
    // What a predicate rules out as a block is skipped.
    let part = if kids.len() == 3 { shown(problem, written, kids[0], axis) } else { 1.0 };
    let cells = problem.points(scores) * part;
    let dtype = problem.classes[written.locals[score].class].dtype;
    let halves = instructions(problem, written, folds, key, scores);
    let rate = d.matrix.of(halves.unwrap_or(dtype));
    load.flops += 2.0 * cells * problem.points(key.depth);
    load.vector += cells * elementwise(problem, 4.0, 1.0, dtype);
    for &f in folds {
        let Some(&weight) = written.locals[f].kids.last() else { continue };
        let wide = problem.points(written.locals[weight].free & !scores);
        load.flops += 2.0 * cells * wide;
        if halves.is_some() {
            // Weights are multiplied as two halves.
            load.matrix += 2.0 * cells * wide / rate;
        }
    }
    // What the share leaves is work on each score, in its own dtype, however deep the products around it are.
    let beside = cells * SHARED_FLOPS * (1.0 / d.attention_share.0 - 1.0);
    load.matrix += load.flops / rate + beside / d.matrix.of(dtype);
    // What a fold weighs with is converted when it is packed, or a product that micro-kernels compute.
    let weights: Vec<usize> = folds.iter().filter_map(|&f| written.locals[f].kids.last().copied()).collect();
    let queries = scores & !axis_bit(axis);
    // Those of a product, but for GPUs, which have fewer where no instructions multiply.
    let lean =
        folds.iter().all(|&f| written.locals[f].kids.last().is_some_and(|&w| written.locals[w].free & !scores == 0));
    let rows = match d.capabilities.prologue {
        true if halves.is_some() => gpu::ROWS as f64,
        true => WARP_QUERIES,
        false if lean => d.tile.0.0 * LEAN_ROWS,
        false => d.tile.0.0,
    };
    let blocks = (problem.points(queries & key.rows) / rows).ceil().max(problem.points(queries & key.columns) / rows);
    load.items = problem.points(key.batch) * blocks.ceil();
    for (at, local) in written.locals.iter().enumerate() {
        if let Some(axes) = source(problem, written, at) {
            let again = if local.free & axis_bit(axis) != 0 {
                (problem.points(queries & !local.free) / rows).ceil()
            } else {
                1.0
            };
            let points = problem.points(axes);
            let total = problem.points(local.free) * again * if local.free & axis_bit(axis) != 0 { part } else { 1.0 };
            read(problem, &mut load, points, total, bytes(problem, local.class), 0);
        }
        if let Some(Step::Map { work, special }) = local.choice.map(|c| &c.step)
            && !key.nest.contains(&at)
            && !weights.contains(&at)
        {
            let dtype = pace(problem, written, at);
            let cells = problem.points(local.free) * if local.free & axis_bit(axis) != 0 { part } else { 1.0 };
            load.vector += cells * elementwise(problem, *work, *special, dtype);
        }
    }
    load
}
