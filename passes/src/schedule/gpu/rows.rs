//! Rows: a block for a row of the output. A row of known, moderate length lies in registers, so that each element is read
//! once; other rows are read in strips, once for every fold and once for the result.

use super::super::emit::{Bind, Frame, tile_of};
use super::super::index::{ceil, dim, mul};
use super::super::same_row::rename;
use super::{Built, EACH, MOST_THREADS, longest_fold, team, threads_for};
use crate::region::{AxisId, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Expr;

/// Longest row that is kept in registers.
pub(crate) const LONGEST_ROW: i64 = 4096;

/// The region with every folded axis named as the output's innermost axis, where all folds are of that row: a load by a
/// fold and by the result is then the same load.
pub(super) fn unified(region: &Region) -> Option<Region> {
    let last = region.rank.checked_sub(1)?;
    let length = region.axes[last].1.as_const().filter(|n| (1..=LONGEST_ROW).contains(n))?;
    let (mut folded, mut any) = (Vec::new(), false);
    for (term, _) in &region.terms {
        match term {
            Term::Fold { axis, arg, .. } | Term::ArgFold { axis, arg, .. } | Term::Moment { axis, arg } => {
                any = true;
                folded.push((*axis, *arg));
            }
            Term::Online { axis, key, .. } => {
                any = true;
                folded.push((*axis, *key));
            }
            Term::Product => return None,
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => {}
        }
    }
    // What is folded varies along its axis, and a fold does not depend on the axis of another.
    let row = |&(axis, arg): &(AxisId, TermId)| region.axes[axis].1.is(length) && region.free[arg].contains(&axis);
    let of_rows = region.terms.iter().enumerate().all(|(id, (term, _))| match term {
        Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } => {
            !region.free[id].contains(&last) && !folded.iter().any(|(a, _)| region.free[id].contains(a))
        }
        _other => true,
    });
    if !any || !of_rows || !folded.iter().all(row) || region.outputs.iter().any(|o| !o.axes.contains(&last)) {
        return None;
    }
    Some(rename(region, &|a| if folded.iter().any(|f| f.0 == a) { last } else { a }))
}

/// A block a row; `region` is [`unified`].
pub(super) fn in_registers(region: &Region) -> Result<Built<'_>, Diagnostic> {
    let last = region.rank.saturating_sub(1);
    let size = region.axes[last].1.as_const().unwrap_or(1);
    let (mut emitter, mut frame, vars) = team(region, &[last]);
    frame.binds.insert(last, Bind::Tile { start: Expr::Int(0), size, open: false });
    emitter.frames.push(frame);
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads: threads_for(size, 2 * MOST_THREADS) })
}

/// A block a row: folds, then the result in strips.
pub(super) fn in_strips(region: &Region) -> Result<Built<'_>, Diagnostic> {
    let last = region.rank.saturating_sub(1);
    let (mut emitter, frame, vars) = team(region, &[last]);
    let n = &region.axes[last].1;
    let longest = n.as_const().zip(longest_fold(region)).map_or(i64::MAX, |(n, fold)| n.max(fold));
    let threads = threads_for(longest, MOST_THREADS);
    emitter.strip = threads * EACH;
    let (size, open) = tile_of(n, emitter.strip);
    let start = mul(Expr::name("t"), Expr::Int(size));
    emitter.frames.push(frame);
    emitter.frames.push(Frame::with(BTreeMap::from([(last, Bind::Tile { start, size, open })])));
    emitter.store_outputs()?;
    emitter.close("t".into(), ceil(dim(n), size))?;
    Ok(Built { emitter, vars, threads })
}

/// Whether all folds vary along the innermost axis of the output: parts of a row have nothing in common then.
pub(super) fn are_apart(region: &Region) -> bool {
    let fold = |term: &Term| {
        matches!(term, Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. })
    };
    let last = region.rank.checked_sub(1);
    let varies = |id: usize| last.is_some_and(|l| region.free[id].contains(&l));
    region.terms.iter().enumerate().all(|(id, (term, _))| !fold(term) || varies(id))
}

/// A block for a part of a row of results of folds that vary along it ([`are_apart`]), as attention's and those of a vector times a
/// matrix do: one pass over the folded axis in strips.
pub(super) fn of_folds(region: &Region) -> Result<Built<'_>, Diagnostic> {
    let last = region.rank.saturating_sub(1);
    let (mut emitter, mut frame, mut vars) = team(region, &[last]);
    let threads = MOST_THREADS / 2;
    emitter.strip = threads;
    let n = &region.axes[last].1;
    let (size, open) = tile_of(n, threads);
    let start = match ceil(dim(n), size) {
        Expr::Int(1) => Expr::Int(0),
        count => {
            vars.push(("t".into(), count));
            mul(Expr::name("t"), Expr::Int(size))
        }
    };
    frame.binds.insert(last, Bind::Tile { start, size, open });
    emitter.frames.push(frame);
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads })
}

/// A block for one element of the output; its folds run in strips.
pub(super) fn point(region: &Region) -> Result<Built<'_>, Diagnostic> {
    let (mut emitter, frame, vars) = team(region, &[]);
    let threads = threads_for(longest_fold(region).unwrap_or(i64::MAX), MOST_THREADS);
    emitter.strip = threads * EACH;
    emitter.frames.push(frame);
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads })
}
