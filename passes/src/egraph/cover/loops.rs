//! Kernels in plain loops: each value is placed in the deepest loop that binds one of its axes, as the emitter does, so that
//! recomputation and passes are counted.

use super::super::lang::{AxisId, AxisSet, Fold, GATHERED, axis_bit};
use super::body::Written;
use super::kind::Sum;
use super::price::{Load, bytes, contiguous, elementwise, pace, read, source, stored};
use super::problem::{Class, Problem, Step, each};
use crate::schedule::{MOST_HELD, READ_HELD, STORE_HELD, walks_inside};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use tilewright_ir::types::DType;

/// Elements of a tile of an elementwise kernel: the least that one core takes.
const TILE: f64 = crate::schedule::TILE as f64;
/// Most elements of a row that a kernel keeps in registers between its passes.
const HELD: f64 = 16384.0;
/// Those of a row that a block of a GPU reads once.
const IN_REGISTERS: f64 = crate::schedule::gpu::LONGEST_ROW as f64;
/// How much slower an operation on one number is than its share of a vector.
const SCALAR: f64 = 6.0;
/// The same of an elementary function on a CPU, which waits for each step of its polynomial. A loop with one exponential and 32 products
/// a turn takes 19 ns a turn on Zen 5, of which this lets the exponential have 12.
const SCALAR_SPECIAL: f64 = 48.0;

/// A loop of a kernel, inside another one.
struct Frame {
    parent: usize,
    axis: AxisId,
    /// 0 for a loop over an output's axis, else the number of the pass.
    pass: u8,
    /// How often its body runs.
    count: f64,
}

/// Loops that a value is made in, by number, ascending.
type Frames = SmallVec<[usize; 2]>;

fn insert(frames: &mut Frames, frame: usize) {
    if let Err(at) = frames.binary_search(&frame) {
        frames.insert(at, frame);
    }
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

    /// How many of `frames` are passes over the row that `frame` is one over; a point of the grid has none.
    fn passes(&self, frames: &[usize], frame: usize) -> usize {
        let row = |f: usize| (self.frames[f].parent, self.frames[f].axis);
        frames.iter().filter(|&&f| frame != 0 && row(f) == row(frame)).count()
    }

    /// Whether a value of axes `free` is made in `frame` once for a tile, alone: inside a loop over tiles that it does not vary along.
    /// Threads of a GPU make it each.
    fn is_alone(&self, frame: usize, free: AxisSet, tile: Option<AxisId>) -> bool {
        let once = self.problem.device.capabilities.held_rows;
        let Some(tile) = tile.filter(|&tile| once && free & axis_bit(tile) == 0) else { return false };
        let mut at = frame;
        while at != 0 && (self.frames[at].axis, self.frames[at].pass) != (tile, 0) {
            at = self.frames[at].parent;
        }
        at != 0
    }

    /// How often a value of axes `free` is made in `frame`.
    fn count(&self, frame: usize, free: AxisSet, tile: Option<AxisId>) -> f64 {
        let lanes = tile.filter(|_| self.is_alone(frame, free, tile)).map_or(1.0, |t| self.problem.extent(t));
        self.frames[frame].count / lanes.clamp(1.0, TILE)
    }

    /// The deepest of the loops around that binds one of `axes`; 0 is a point of the grid.
    fn place(&self, mut frame: usize, axes: AxisSet) -> usize {
        while frame != 0 && axes & axis_bit(self.frames[frame].axis) == 0 {
            frame = self.frames[frame].parent;
        }
        frame
    }
}

/// How the axes of the outputs are walked inside a grid point, as the schedules of regions have it.
pub(super) struct Inner {
    /// The innermost axis of the outputs, which goes in tiles; none of a single number.
    pub tile: Option<AxisId>,
    /// Whether tiles are points of the grid: what is folded, if anything, varies along them.
    pub columns: bool,
    /// Other axes that are loops inside, as a fold is the same along them.
    pub walked: AxisSet,
}

impl Inner {
    /// All axes that are loops inside.
    pub fn axes(&self) -> AxisSet {
        self.tile.map_or(0, axis_bit) | self.walked
    }
}

/// The innermost axis of the outputs.
fn innermost(problem: &Problem<'_>, written: &Written<'_>) -> Option<AxisId> {
    let order = written.outputs.iter().find_map(|&o| problem.classes[written.locals[o].class].order.as_ref());
    match order {
        Some(order) => order.iter().rev().copied().find(|&a| written.grid & axis_bit(a) != 0),
        None => {
            // Only rules made it: the axis that most reads are contiguous along.
            let read = |at: &usize| matches!(written.step(*at), None | Some(Step::Load(..) | Step::Gather(..)));
            let score = |axis: AxisId| {
                let along =
                    |at: &usize| written.locals[*at].free & axis_bit(axis) != 0 && contiguous(written, *at, axis);
                (0..written.locals.len()).filter(read).filter(along).count()
            };
            each(written.grid).max_by_key(|&a| score(a))
        }
    }
}

/// The axes of the outputs that are loops inside a grid point.
pub(super) fn inner_axes(problem: &Problem<'_>, written: &Written<'_>) -> Inner {
    let tile = innermost(problem, written);
    let fold = |at: usize| match written.step(at) {
        Some(Step::Fold(_, axis)) => Some((written.locals[at].free, *axis)),
        _other => None,
    };
    let folds = || (0..written.locals.len()).filter_map(fold);
    let columns = tile.is_some_and(|tile| folds().all(|(free, _)| free & axis_bit(tile) != 0));
    let mut walked = 0;
    // Blocks of a GPU have other axes than that of a row, or of a tile, one by one.
    if let (Some(tile), true) = (tile, columns && problem.device.capabilities.held_rows) {
        let lacks = |axis: AxisId| folds().filter(move |(free, _)| free & axis_bit(axis) == 0);
        let size = |axis: AxisId| if problem.is_constant(axis) { problem.extent(axis) } else { f64::INFINITY };
        let outer = written.grid & !axis_bit(tile);
        let same = each(outer).filter(|&a| lacks(a).next().is_some()).fold(0, |set, a| set | axis_bit(a));
        let points = each(outer & !same).map(size).product::<f64>() * (size(tile) / TILE).ceil();
        let long = |axis: AxisId| lacks(axis).map(|(_, folded)| size(folded)).fold(0.0, f64::max);
        let inside = each(same).filter(|&axis| walks_inside(long(axis), points));
        walked = inside.fold(0, |set, axis| set | axis_bit(axis));
    }
    Inner { tile, columns, walked }
}

/// Whether each element is a point of the grid: what is folded lies along the folds, and not along the innermost axis. As
/// [`Schedule::choose`](crate::schedule::Schedule::choose) has it.
fn are_points(written: &Written<'_>, tile: Option<AxisId>) -> bool {
    let Some(last) = tile else { return false };
    let has = |at: usize, axis: AxisId| written.locals[at].free & axis_bit(axis) != 0;
    let lies = |at: usize, axis: AxisId| has(at, axis) && contiguous(written, at, axis);
    let (mut along, mut across) = (false, false);
    for at in 0..written.locals.len() {
        let Some(Step::Fold(_, axis)) = written.step(at) else { continue };
        if !has(at, last) {
            return false;
        }
        along |= (0..written.locals.len()).any(|load| lies(load, *axis));
        // What may lie either way lies along the fold.
        across |= (0..written.locals.len()).any(|load| lies(load, last) && has(load, *axis) && !lies(load, *axis));
    }
    along && !across
}

/// Seconds of an element of an elementwise op that is made in `frame`.
fn mapped(
    l: &Loops<'_, '_>,
    smooth: &mut Smooth<'_, '_>,
    at: usize,
    (frame, tile): (usize, Option<AxisId>),
    (work, special): (f64, f64),
) -> f64 {
    let local = &smooth.written.locals[at];
    let alone = frame == 0 || l.is_alone(frame, local.free, tile);
    let vector = !alone && (smooth.all(&local.kids, l.frames[frame].axis) || smooth.across(at, tile));
    let (slow, slower) = match (vector, alone && l.problem.device.capabilities.held_rows) {
        (true, _) => (1.0, 1.0),
        (false, true) => (SCALAR, SCALAR_SPECIAL),
        (false, false) => (SCALAR, SCALAR),
    };
    elementwise(l.problem, slow * work, slower * special, pace(l.problem, smooth.written, at))
}

/// Pointwise kernels and rows: everything runs in loops.
pub(super) fn loops(problem: &Problem<'_>, written: &Written<'_>, slow: &[Sum]) -> Load {
    let mut inner = inner_axes(problem, written);
    if are_points(written, inner.tile) {
        inner = Inner { tile: None, columns: false, walked: 0 };
    }
    let tile = inner.tile;
    let outer = written.grid & !inner.axes();
    let points = problem.points(outer);
    let mut l = Loops { problem, frames: vec![Frame { parent: 0, axis: GATHERED, pass: 0, count: points }] };
    let deepest = tile.into_iter().chain(each(inner.walked)).fold(0, |frame, axis| l.inside(frame, axis, 0));
    let mut at_frames: Vec<Frames> = written.locals.iter().map(|_| Frames::new()).collect();
    for &o in &written.outputs {
        insert(&mut at_frames[o], l.place(deepest, written.locals[o].free));
    }
    let mut load = Load { written: stored(problem, written), launch: problem.device.launch.0, ..Load::default() };
    let tiles = tile.filter(|_| inner.columns).map_or(1.0, |tile| (problem.extent(tile) / TILE).ceil());
    load.items = points * tiles;
    let mut keys = BTreeSet::new();
    let mut smooth = Smooth { written, known: Vec::new() };
    for at in (0..written.locals.len()).rev() {
        let frames = std::mem::take(&mut at_frames[at]);
        let local = &written.locals[at];
        let dtype = pace(problem, written, at);
        if let Some(axes) = source(problem, written, at) {
            let total: f64 = frames.iter().map(|&f| l.count(f, local.free, tile)).sum();
            read(problem, &mut load, problem.points(axes), total, bytes(problem, local.class), outer & !local.free);
        }
        let Some(choice) = local.choice else { continue };
        let mut held: Vec<(usize, AxisId)> = Vec::new();
        for &frame in &frames {
            let count = l.count(frame, local.free, tile);
            let (parent, axis) = (l.frames[frame].parent, l.frames[frame].axis);
            // Passes that go by tiles of another axis keep no rows.
            let by_tiles = tile.is_some_and(|tile| tile != axis && local.free & axis_bit(tile) != 0);
            if !by_tiles && keeps(problem, written, at, axis, l.passes(&frames, frame)) {
                load.cached += count * read_again(problem, local.class, axis);
                if held.contains(&(parent, axis)) {
                    continue;
                }
                held.push((parent, axis));
            }
            match &choice.step {
                Step::Load(..) | Step::Number | Step::Gather(..) | Step::At(_) => {}
                Step::Map { work, special } => {
                    load.vector += count * mapped(&l, &mut smooth, at, (frame, tile), (*work, *special));
                }
                Step::Fold(fold, axis) => {
                    let pass = local.passes(*axis);
                    let body = l.inside(frame, *axis, pass);
                    let count = l.count(body, local.free, tile);
                    let product = slow.iter().any(|s| s.nest.contains(&at));
                    let along = smooth.all(&local.kids, *axis);
                    let across = smooth.across(at, tile);
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
                        insert(&mut at_frames[kid], l.place(body, written.locals[kid].free));
                    }
                    continue;
                }
            }
            for &kid in &local.kids {
                if !matches!(choice.step, Step::At(_)) {
                    insert(&mut at_frames[kid], l.place(frame, written.locals[kid].free));
                }
            }
        }
    }
    load
}

/// Bytes of an element of a row that an earlier pass has made: it is read again, not made again, and from registers for nothing.
fn read_again(problem: &Problem<'_>, class: Class, axis: AxisId) -> f64 {
    let registers = !problem.device.capabilities.held_rows && problem.extent(axis) <= IN_REGISTERS;
    if registers { 0.0 } else { bytes(problem, class) }
}

/// Whether a kernel keeps a row that `passes` passes need, instead of making it again.
fn keeps(problem: &Problem<'_>, written: &Written<'_>, at: usize, axis: AxisId, passes: usize) -> bool {
    let later = passes.saturating_sub(1) as f64;
    if passes < 2 || !matches!(written.step(at), Some(Step::Map { .. })) {
        return false;
    }
    if !problem.device.capabilities.held_rows {
        return problem.is_constant(axis) && problem.extent(axis) <= HELD;
    }
    let room = problem.longest(axis) * bytes(problem, written.locals[at].class) <= MOST_HELD as f64;
    room && later * (remade(problem, written, at, axis) - READ_HELD) > STORE_HELD
}

/// Operations to make an element of a value again in another pass along `axis`.
fn remade(problem: &Problem<'_>, written: &Written<'_>, at: usize, axis: AxisId) -> f64 {
    let (mut seen, mut stack, mut cost) = (vec![false; at + 1], vec![at], 0.0);
    while let Some(at) = stack.pop() {
        let local = &written.locals[at];
        if local.free & axis_bit(axis) == 0 || std::mem::replace(&mut seen[at], true) {
            continue;
        }
        match local.choice.map(|c| &c.step) {
            Some(Step::Map { work, special }) => {
                let rates = &problem.device.vector;
                let slower = rates.of(DType::F32) / rates.of(pace(problem, written, at));
                cost += (work + special * problem.device.special.0) * slower;
                stack.extend(&local.kids);
            }
            Some(Step::Number) => cost += 1.0,
            Some(Step::Gather(..) | Step::Fold(..)) => cost += SCALAR,
            None | Some(Step::Load(..) | Step::At(_)) => {
                cost += if contiguous(written, at, axis) { 1.0 } else { SCALAR };
            }
        }
    }
    cost
}

/// Operations of one step of a fold, beside exponentials.
fn fold_work(fold: Fold) -> f64 {
    match fold {
        Fold::Sum | Fold::Max | Fold::Min | Fold::Prod => 1.0,
        Fold::Esum | Fold::EsumIf => 4.0,
        Fold::M2 => 6.0,
    }
}

/// Whether all that a value reads in the same loop is contiguous along the loop's axis, for the axes that were asked for:
/// operands come first, so one pass over the values answers for all of them.
struct Smooth<'w, 'p> {
    written: &'w Written<'p>,
    known: Vec<(AxisId, Vec<bool>)>,
}

impl Smooth<'_, '_> {
    fn all(&mut self, values: &[usize], axis: AxisId) -> bool {
        let at = self.known.iter().position(|k| k.0 == axis).unwrap_or_else(|| {
            self.known.push((axis, smooth(self.written, axis)));
            self.known.len() - 1
        });
        let known = &self.known[at].1;
        values.iter().all(|&at| known[at])
    }

    /// Whether a value is made a tile at a time, along the innermost axis of the output.
    fn across(&mut self, at: usize, tile: Option<AxisId>) -> bool {
        let local = &self.written.locals[at];
        tile.is_some_and(|tile| local.free & axis_bit(tile) != 0 && self.all(&local.kids, tile))
    }
}

fn smooth(written: &Written<'_>, axis: AxisId) -> Vec<bool> {
    let mut known: Vec<bool> = Vec::with_capacity(written.locals.len());
    for (at, local) in written.locals.iter().enumerate() {
        let below = match local.choice.map(|c| &c.step) {
            Some(Step::Map { .. }) => local.kids.iter().all(|&k| known[k]),
            _other => true,
        };
        known.push(local.free & axis_bit(axis) == 0 || contiguous(written, at, axis) && below);
    }
    known
}
