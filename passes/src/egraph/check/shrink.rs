//! Makes a counterexample small: fewer positions, fewer axes, plainer numbers, as long as the sides still differ.

use super::super::eval::{Table, World};
use super::super::widths::rounded;
use super::draw::Plan;
use std::sync::Arc;
use tilewright_ir::types::DType;

/// Data sets looked at, at most, and positions of all of them together.
const BUDGET: (usize, usize) = (1500, 1 << 25);
/// Plain numbers, the plainest first.
const PLAIN: &[f64] = &[1.0, 2.0, 0.0, -1.0, 3.0, 0.5];

/// The smallest world found that is like `world`, and in which `differs` holds.
pub(super) fn shrink(plan: &Plan, world: World, differs: &dyn Fn(&World) -> bool) -> World {
    let mut search = Search { plan, world, differs, left: BUDGET.0, room: BUDGET.1 };
    while search.sizes() | search.axes() | search.numbers() {}
    search.world
}

struct Search<'a> {
    plan: &'a Plan,
    world: World,
    differs: &'a dyn Fn(&World) -> bool,
    left: usize,
    room: usize,
}

impl Search<'_> {
    /// Takes a smaller world if it still differs, and its data is allowed.
    fn take(&mut self, smaller: World) -> bool {
        let allowed =
            |(name, table): (&Arc<str>, &Table)| table.data.iter().all(|x| self.plan.allows(name, &smaller, *x));
        let positions = smaller.extents.iter().map(|n| (*n).max(1)).product();
        if self.left == 0 || self.room < positions || !smaller.values.iter().all(allowed) {
            return false;
        }
        self.left -= 1;
        self.room -= positions;
        let better = (self.differs)(&smaller);
        if better {
            self.world = smaller;
        }
        better
    }

    fn sizes(&mut self) -> bool {
        let mut changed = false;
        for axis in 0..self.world.extents.len() {
            let now = self.world.extents[axis];
            let least = self.plan.least(axis, &self.world.axes);
            let half = now / 2;
            let sizes = [0, 1, 2, 3, half].into_iter().chain(self.plan.sizes(false));
            for size in sizes.filter(|n| (least..now).contains(n)) {
                let mut extents = self.world.extents.clone();
                extents[axis] = size;
                let ends = [End::First, End::Last];
                if ends.into_iter().any(|end| self.take(resized(&self.world, extents.clone(), end))) {
                    changed = true;
                    break;
                }
            }
        }
        changed
    }

    fn axes(&mut self) -> bool {
        let mut changed = false;
        let names: Vec<Arc<str>> = self.world.values.keys().cloned().collect();
        for name in names {
            for axis in 0..self.world.extents.len() {
                let Some(table) = self.world.values.get(&name) else { continue };
                if table.depends.get(axis) != Some(&true) {
                    continue;
                }
                let mut depends = table.depends.clone();
                depends[axis] = false;
                let table = table.clone();
                changed |= [End::First, End::Last].into_iter().any(|end| {
                    let mut smaller = self.world.clone();
                    let kept = picked(&self.world, &table, &self.world.extents, depends.clone(), end);
                    smaller.values.insert(name.clone(), kept);
                    self.take(smaller)
                });
            }
        }
        changed
    }

    fn numbers(&mut self) -> bool {
        let mut changed = false;
        let counts: Vec<(Arc<str>, usize)> = self.world.values.iter().map(|(n, t)| (n.clone(), t.data.len())).collect();
        for (name, count) in counts {
            let dtype = self.world.typing.variable(&name).unwrap_or(DType::F64);
            for i in 0..count {
                let Some(now) = self.world.values.get(&name).and_then(|t| t.data.get(i)).copied() else { continue };
                changed |= plainer(now).into_iter().filter(|x| holds(dtype, *x)).any(|x| {
                    let mut smaller = self.world.clone();
                    if let Some(slot) = smaller.values.get_mut(&name).and_then(|t| t.data.get_mut(i)) {
                        *slot = rounded(dtype, x);
                    }
                    self.take(smaller)
                });
            }
        }
        changed
    }
}

/// Numbers that are plainer than `x`, the plainest first.
fn plainer(x: f64) -> Vec<f64> {
    let rank = PLAIN.iter().position(|p| p.to_bits() == x.to_bits());
    let mut out: Vec<f64> = PLAIN.iter().copied().take(rank.unwrap_or(PLAIN.len())).collect();
    if rank.is_none() && x.is_finite() {
        let fewer = |y: &f64| y.to_string().len() < x.to_string().len() && !PLAIN.contains(y);
        out.extend([x.round(), (x * 8.0).round() / 8.0].into_iter().filter(fewer));
    }
    out
}

/// Whether a dtype has a number, up to rounding.
fn holds(dtype: DType, x: f64) -> bool {
    match dtype {
        DType::Bool => x == 0.0 || x == 1.0,
        d if d.is_float() => true,
        d => x.fract() == 0.0 && (x >= 0.0 || d.is_signed()),
    }
}

/// Which positions of an axis are kept.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// The same data at some positions of smaller axes.
fn resized(world: &World, extents: Vec<usize>, end: End) -> World {
    let kept = |t: &Table| picked(world, t, &extents, t.depends.clone(), end);
    let values = world.values.iter().map(|(name, t)| (name.clone(), kept(t)));
    World { values: values.collect(), extents, axes: world.axes.clone(), typing: world.typing.clone() }
}

/// The entries of a table at the positions that other sizes and fewer axes leave.
fn picked(world: &World, table: &Table, extents: &[usize], depends: Vec<bool>, end: End) -> Table {
    let mut at = vec![0usize];
    for (axis, old) in world.extents.iter().enumerate() {
        if table.depends.get(axis) != Some(&true) {
            continue;
        }
        let kept = if depends.get(axis) == Some(&true) { extents.get(axis).copied().unwrap_or(1).max(1) } else { 1 };
        let old = (*old).max(1);
        let first = if let End::Last = end { old.saturating_sub(kept) } else { 0 };
        at = at.iter().flat_map(|base| (first..first + kept).map(move |i| base * old + i)).collect();
    }
    let data = at.into_iter().map(|i| table.data.get(i).copied().unwrap_or(f64::NAN)).collect();
    Table { depends, data }
}
