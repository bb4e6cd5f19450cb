//! Steps: rows that are folded and read again, along one axis and then another.

use super::bound::Bound;
use super::machine::{Entry, Machine, Picks};
use tilewright_ir::dsl::Tensor;
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::DType;

fn float(e: &Entry) -> bool {
    e.tensor.rank() > 0 && e.tensor.dtype().is_float()
}

/// `x` combined with a fold of itself along some axis, up to three times; sometimes the last fold is all that is left.
pub fn folded(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let mut x = m.pick_or_fresh(p, DType::F32, float)?;
    let (dtype, rank) = (x.tensor.dtype(), x.tensor.rank());
    for turn in (0..=p.below(3)).rev() {
        let axis = p.below(rank);
        let size = x.tensor.shape()[axis].clone();
        let count = m.high(&size) as f64;
        let kind = p.of(&[ReduceKind::Sum, ReduceKind::Max, ReduceKind::Sum, ReduceKind::Min]);
        let fold = match kind {
            ReduceKind::Max | ReduceKind::Min if m.low(&size) == 0 => return None,
            ReduceKind::Max | ReduceKind::Min => x.bound,
            ReduceKind::Sum | ReduceKind::Prod => x.bound.summed(count).folded(dtype, count),
        };
        let fold = m.done(x.tensor.fold(kind, &[axis as i64], true), fold)?;
        if turn == 0 && p.one_in(3) {
            return Some(fold);
        }
        let (tensor, bound) = match p.below(4) {
            0 => (&x.tensor * &fold.tensor, x.bound.times(fold.bound)),
            1 => (&x.tensor + &fold.tensor, x.bound.plus(fold.bound)),
            2 => (x.tensor.maximum(&fold.tensor), x.bound.either(fold.bound)),
            _ => (&x.tensor - &fold.tensor, x.bound.plus(fold.bound)),
        };
        x = m.done(tensor, bound.rounded(dtype))?;
    }
    Some(x)
}

/// Whether each row has an element that is its largest, or its least: it has, however its elements are computed.
pub fn extreme(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, float)?;
    let axis = p.below(x.tensor.rank());
    // Of nothing there is none, and beside NaN.
    if m.infinite || m.low(&x.tensor.shape()[axis]) == 0 {
        return None;
    }
    let of = |kind| x.tensor.fold(kind, &[axis as i64], true);
    let there = |truth: Tensor| truth.cast(DType::I32).max_keep(&[axis as i64]);
    let tensor = match p.below(4) {
        0 => there(x.tensor.eq(of(ReduceKind::Max))),
        1 => there(x.tensor.eq(of(ReduceKind::Min))),
        2 => there(x.tensor.le(of(ReduceKind::Min))),
        _ => there(x.tensor.ge(of(ReduceKind::Max))),
    };
    m.done(tensor, Bound::truth())
}

/// Folds of rows, added up over the rows with weights, beside a row of the same length: the loop over a row that is folded is
/// inside the loop over the row that is stored.
pub fn crossed(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let mut x = match m.pick(p, |e| float(e) && e.tensor.rank() == 2) {
        Some(x) => x,
        None => {
            let shape = vec![m.dim(p), m.dim(p)];
            m.fresh(p, DType::F32, shape)?
        }
    };
    let (dtype, shape) = (x.tensor.dtype(), x.tensor.shape().to_vec());
    let (rows, count) = (m.high(&shape[0]) as f64, m.high(&shape[1]) as f64);
    if p.one_in(2) {
        // Below the zeros that may lie behind a row.
        x = m.done(-x.tensor.abs(), x.bound)?;
    }
    let kind = p.of(&[ReduceKind::Max, ReduceKind::Min, ReduceKind::Sum]);
    if kind != ReduceKind::Sum && m.low(&shape[1]) == 0 {
        return None;
    }
    let bound = if kind == ReduceKind::Sum { x.bound.summed(count).folded(dtype, count) } else { x.bound };
    let fold = m.done(x.tensor.fold(kind, &[1], true), bound)?;
    let v = m.fresh(p, dtype, shape)?;
    let terms = m.done(&fold.tensor * &v.tensor, fold.bound.times(v.bound).rounded(dtype))?;
    let column =
        m.done(terms.tensor.fold(ReduceKind::Sum, &[0], true), terms.bound.summed(rows).folded(dtype, rows))?;
    let around =
        if p.one_in(2) { x } else { m.done(&x.tensor - &fold.tensor, x.bound.plus(fold.bound).rounded(dtype))? };
    m.done(&around.tensor * &column.tensor, around.bound.times(column.bound).rounded(dtype))
}
