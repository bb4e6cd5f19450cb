//! What can be chosen freely about the kernels of a region on a CPU. None of it changes what is computed, but for the order of sums.

use super::{Schedule, TILE};
use serde::{Deserialize, Serialize};
use std::fmt;
use tilewright_ir::device::ukernel::UKernelShape;

/// The free parameters of a region's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Choice {
    /// Plain loops.
    Loops {
        /// How axes are walked.
        schedule: Schedule,
        /// Rows that several passes need are held where that seems to pay; else they are computed again.
        hold: bool,
    },
    /// A product on a micro-kernel.
    Product(Blocks),
    /// What the template does, which leaves nothing open.
    Fixed,
}

/// The blocks of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// Tiles of the micro-kernel along the rows of a grid point.
    pub row_tiles: i64,
    /// Most columns of a grid point.
    pub columns: i64,
    /// Most steps of the fold between two visits of the accumulators; eight times as many where the columns are an encoding of blocks.
    pub depth: i64,
}

impl Default for Blocks {
    /// Enough rows to use a panel several times, few enough columns that a single row still splits over cores, and steps that fit a cache.
    fn default() -> Blocks {
        Blocks { row_tiles: 4, columns: 128, depth: 1024 }
    }
}

impl Choice {
    /// The blocks of a product, the usual where it leaves them open.
    pub fn blocks(self) -> Blocks {
        match self {
            Choice::Product(blocks) => blocks,
            Choice::Loops { .. } | Choice::Fixed => Blocks::default(),
        }
    }
}

/// `pointwise 256`, `row 512, held`, `product 4 x 128, 1024 deep`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Loops { schedule, hold } => {
                match schedule {
                    Schedule::Pointwise { tile } => write!(f, "pointwise {tile}")?,
                    Schedule::Row { tile } => write!(f, "row {tile}")?,
                    Schedule::Point => write!(f, "point")?,
                    Schedule::Scalar => write!(f, "scalar")?,
                }
                f.write_str(if *hold { "" } else { ", nothing held" })
            }
            Choice::Product(Blocks { row_tiles, columns, depth }) => {
                write!(f, "product {row_tiles} x {columns}, {depth} deep")
            }
            Choice::Fixed => write!(f, "fixed"),
        }
    }
}

/// Tiles of loops.
const TILES: [i64; 8] = [TILE, 16, 64, 128, 512, 1024, 2048, 4096];

/// What `schedule` may be instead, itself first.
pub(crate) fn loops(schedule: Schedule) -> Vec<Choice> {
    let with = |usual: i64, make: fn(i64) -> Schedule| {
        let others = TILES.into_iter().filter(|tile| *tile != usual);
        std::iter::once(usual).chain(others).map(make).collect::<Vec<_>>()
    };
    let schedules = match schedule {
        Schedule::Pointwise { tile } => with(tile, |tile| Schedule::Pointwise { tile }),
        Schedule::Row { tile } => with(tile, |tile| Schedule::Row { tile }),
        Schedule::Point | Schedule::Scalar => vec![schedule],
    };
    [true, false]
        .into_iter()
        .flat_map(|hold| schedules.iter().map(move |&schedule| Choice::Loops { schedule, hold }))
        .collect()
}

/// What the blocks of a product may be, the usual ones first. `rows` and `columns` are sizes where they are known.
pub(crate) fn products(row: &UKernelShape, rows: Option<i64>, depth: Option<i64>) -> Vec<Choice> {
    let usual = Blocks::default();
    let mut all = vec![usual];
    // One tile of rows, or fewer, is one tile whatever is asked for.
    let tiles: &[i64] = if rows.is_some_and(|m| m <= row.mr) { &[4] } else { &[1, 2, 4, 8] };
    for &row_tiles in tiles {
        for columns in [32, 64, 128, 256, 512].into_iter().filter(|c| *c >= row.nr) {
            for deep in [64, 256, 1024, 4096] {
                // A quarter of that does as well where the whole fold is that short.
                if deep == usual.depth || depth.is_none_or(|k| k > deep / 4) {
                    all.push(Blocks { row_tiles, columns, depth: deep });
                }
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    all.into_iter().filter(|b| seen.insert(*b)).map(Choice::Product).collect()
}
