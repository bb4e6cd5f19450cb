//! Schedules as data, and the templates that turn regions into kernels.

mod access;
mod attention;
mod contraction;
mod cost;
mod emit;
mod flash;
mod fold;
pub mod gpu;
mod held;
mod index;
mod names;
mod online;
mod product;
mod relaid;
mod same_row;
mod search;
mod sizes;
mod space;
mod special;
mod write;

pub use attention::{Attention, Weight, attention};
pub(crate) use contraction::is_half;
pub use contraction::{Columns, Contraction, When, contraction};
pub use cost::{cost, with_cost};
pub use emit::region_kernel;
pub use flash::attention_kernel;
pub(crate) use flash::{KEYS, LEAN_ROW_TILES, ROW_TILES};
pub(crate) use held::{MOST_BYTES as MOST_HELD, READ as READ_HELD, STORE as STORE_HELD};
pub use index::dim;
pub use names::{apart, plain};
pub use product::{contraction_kernel, few_rows_kernel};
pub use relaid::{Relaid, relaid};
pub use space::{Blocks, Choice};
pub(crate) use space::{loops, products};
pub use special::{cumsum, scatter_add, update_slice};

use crate::region::{AxisId, Index, Region, Term, TermId};

/// How a region becomes a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// A grid over the outer axes and over tiles of the innermost. Outer axes along which a fold is the same are loops inside.
    Pointwise {
        /// Elements of a tile.
        tile: i64,
    },
    /// A grid over the outer axes; folds once a point, then a loop over tiles of the innermost axis.
    Row {
        /// Elements of a tile.
        tile: i64,
    },
    /// A grid over all axes, one element a point; folds run in tiles along their own axis.
    Point,
    /// A grid over the outer axes, a sequential loop over the innermost: indices that are gathered a lane.
    Scalar,
}

/// Elements of a tile along the innermost axis.
pub const TILE: i64 = 256;
/// Elements of a tile that is read crosswise: so many lines stay in a first cache even where rows of a power of two map them to one set.
const CROSSWISE: i64 = 16;

/// Whether some load that depends on `with` reads `axis` contiguously: coefficient 1 in the last dim.
fn contiguous(region: &Region, axis: AxisId, with: AxisId) -> bool {
    region.terms.iter().zip(&region.free).any(|((t, _), free)| match t {
        Term::Load { map, .. } => match map.last() {
            Some(Index::Affine(a)) => a.terms.contains(&(axis, 1)) && free.contains(&with),
            Some(Index::Term(_)) | None => false,
        },
        _other => false,
    })
}

/// The axis along the rows of an input of which tiles of the innermost axis are read crosswise, a line of the cache for each element, as
/// a transposition does. None where rows are shorter than a line.
fn crosswise(region: &Region) -> Option<AxisId> {
    let last = region.rank.checked_sub(1)?;
    let along = |index: &Index, axis: AxisId| matches!(index, Index::Affine(a) if a.terms.contains(&(axis, 1)));
    region.terms.iter().find_map(|(term, _)| {
        let Term::Load { input, map, .. } = term else { return None };
        let (row, others) = map.split_last()?;
        let length = region.inputs[*input].1.shape.last()?;
        let long = length.as_const().is_none_or(|n| n >= CROSSWISE);
        let across = long && others.iter().any(|index| along(index, last));
        (0..last).find(|&axis| across && along(row, axis))
    })
}

/// The folds of a region that share passes, with the axis that each folds.
fn folds(region: &Region) -> impl Iterator<Item = (TermId, AxisId)> {
    region.terms.iter().enumerate().filter_map(|(id, (term, _))| Some((id, fold::axis_of(term)?)))
}

/// Whether a kernel of tiles of columns walks an axis inside a point of the grid because a fold of `length` is the same all along it, so
/// that it is folded once. `points` are those that the grid has without this axis: with few of them and short folds, cores that fold
/// again and again are done earlier than those that wait for one.
pub(crate) fn walks_inside(length: f64, points: f64) -> bool {
    points >= 8.0 || length >= 64.0
}

/// The axes of the output, but for the innermost, that a kernel of tiles of columns walks inside a point of the grid ([`walks_inside`]).
/// Sizes that are not known are large.
fn repeated(region: &Region) -> Vec<AxisId> {
    let size = |axis: AxisId| region.axes[axis].1.as_const().map_or(f64::INFINITY, |n| n as f64);
    let last = region.rank.saturating_sub(1);
    let lacks = |axis: AxisId| folds(region).filter(move |(id, _)| !region.free[*id].contains(&axis));
    let (same, grid): (Vec<AxisId>, Vec<AxisId>) = (0..last).partition(|&axis| lacks(axis).next().is_some());
    let points = grid.into_iter().map(size).product::<f64>() * (size(last) / TILE as f64).ceil();
    let long = |axis: AxisId| lacks(axis).map(|(_, folded)| size(folded)).fold(0.0, f64::max);
    same.into_iter().filter(|&axis| walks_inside(long(axis), points)).collect()
}

/// Whether a fold that needs one pass varies along the output's innermost axis.
fn wide_online(region: &Region) -> bool {
    let last = region.rank.checked_sub(1);
    region.terms.iter().zip(&region.free).any(|((term, _), free)| {
        matches!(term, Term::Online { .. } | Term::Moment { .. }) && last.is_some_and(|last| free.contains(&last))
    })
}

impl Schedule {
    /// The schedule of a region without a micro-kernel: follows the contiguous axis.
    pub fn choose(region: &Region) -> Schedule {
        let Some(last) = region.rank.checked_sub(1) else { return Schedule::Point };
        let (mut folds, mut rows, mut gathers, mut arg_folds, mut along) = (false, false, false, false, false);
        // Loads by the folds that are contiguous along the innermost axis.
        let mut across = false;
        for (id, (term, _)) in region.terms.iter().enumerate() {
            match term {
                Term::Fold { axis, .. } => {
                    folds = true;
                    rows |= !region.free[id].contains(&last);
                    along |= region.free[id].contains(&last) && contiguous(region, *axis, *axis);
                    across |= contiguous(region, last, *axis);
                }
                Term::Online { axis, .. } | Term::Moment { axis, .. } => {
                    folds = true;
                    rows |= !region.free[id].contains(&last);
                    along |= region.free[id].contains(&last) && contiguous(region, *axis, *axis);
                    across |= contiguous(region, last, *axis);
                }
                Term::ArgFold { .. } => arg_folds = true,
                Term::Load { map, .. } => {
                    gathers |= map.iter().any(|i| matches!(i, Index::Term(t) if region.free[*t].contains(&last)));
                }
                Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Map(..) | Term::Product => {}
            }
        }
        if arg_folds {
            Schedule::Point
        } else if gathers {
            Schedule::Scalar
        } else if folds && !rows && along && !across {
            Schedule::Point
        } else if wide_online(region) {
            // Sums with and without the innermost axis share one pass.
            Schedule::Pointwise { tile: TILE }
        } else if rows {
            Schedule::Row { tile: TILE }
        } else if !folds && crosswise(region).is_some() {
            Schedule::Pointwise { tile: CROSSWISE }
        } else {
            Schedule::Pointwise { tile: TILE }
        }
    }
}
