//! Kernels by the size of a symbolic axis: a tile that suits long rows is mostly padding in a short one, so a region whose rows may be
//! either has two kernels, and each call launches one.

use super::contraction::When;
use super::index::dim;
use super::{Schedule, TILE};
use crate::region::{AxisId, Region, Term};
use std::collections::BTreeSet;
use tilewright_ir::kernel::Expr;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Dim, SymbolDecl};

/// Elements of a tile of short rows. Measured on Zen 5 when padding was computed one by one, sums of 768 rows of `n` on one thread: tiles of 256 and 64 take 107 and 26 us
/// for n = 1, 104 and 21 for 16, 87 and 4 for 64, 14 and 19 for 256.
const SHORT: i64 = 64;

/// A least size above this share of a short tile is not worth a kernel.
const SHARE: i64 = 4;

impl Schedule {
    /// This schedule for short rows; none where it has no tiles, or tiles no longer than theirs.
    pub fn short(self) -> Option<Schedule> {
        match self {
            Schedule::Pointwise { tile } if tile > SHORT => Some(Schedule::Pointwise { tile: SHORT }),
            Schedule::Row { tile } if tile > SHORT => Some(Schedule::Row { tile: SHORT }),
            Schedule::Pointwise { .. } | Schedule::Row { .. } | Schedule::Point | Schedule::Scalar => None,
        }
    }

    /// Where the rows of a region are short for this schedule: every symbolic axis that it cuts into tiles fits one of `SHORT`.
    pub fn when_short(self, region: &Region, symbols: &[SymbolDecl]) -> When {
        let mut axes: BTreeSet<AxisId> = region.rank.checked_sub(1).into_iter().collect();
        if matches!(self, Schedule::Row { .. }) {
            axes.extend(region.terms.iter().filter_map(|(term, _)| match term {
                Term::Fold { axis, .. } | Term::Online { axis, .. } | Term::Moment { axis, .. } => Some(*axis),
                _other => None,
            }));
        }
        let sizes: BTreeSet<&Dim> = axes.iter().map(|&a| &region.axes[a].1).collect();
        let mut condition: Option<Expr> = None;
        for size in sizes {
            let (low, high) = size.bounds(symbols);
            match size.as_const() {
                Some(n) if n > TILE => return When::Never,
                Some(_) => continue,
                None if low > SHORT / SHARE => return When::Never,
                None if high <= SHORT => continue,
                None => {}
            }
            let short = Expr::scalar(ScalarOp::Le {}, [dim(size), Expr::Int(SHORT)]);
            condition = Some(match condition {
                Some(all) => Expr::scalar(ScalarOp::And {}, [all, short]),
                None => short,
            });
        }
        let symbolic = axes.iter().any(|&a| region.axes[a].1.as_const().is_none());
        match condition {
            Some(condition) => When::If(condition),
            None if symbolic => When::Always,
            None => When::Never,
        }
    }
}
