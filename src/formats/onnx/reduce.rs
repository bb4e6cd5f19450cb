//! Reductions: axes are an operand, or an attribute in older opsets; none means all.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// Axes, and whether they stay with size 1.
struct Fold {
    axes: Vec<i64>,
    keep: bool,
}

impl Fold {
    fn of(c: &Call, x: &Tensor) -> Result<Fold, Diagnostic> {
        let axes = c.ints_of(1, "axes")?.filter(|a| !a.is_empty());
        let (keep, nothing) = (c.flag("keepdims", true)?, c.flag("noop_with_empty_axes", false)?);
        let axes = match axes {
            Some(axes) => c.axes(&axes, x.rank())?.into_iter().map(|a| a as i64).collect(),
            None if nothing => Vec::new(),
            None => (0..x.rank() as i64).collect(),
        };
        Ok(Fold { axes, keep })
    }

    fn apply(&self, kind: ReduceKind, x: &Tensor) -> Tensor {
        if self.axes.is_empty() { x.clone() } else { x.fold(kind, &self.axes, self.keep) }
    }
}

fn simple(c: &Call, kind: ReduceKind) -> Built {
    let x = c.tensor(0)?;
    Ok(Fold::of(c, &x)?.apply(kind, &x))
}

pub(super) fn sum(c: &Call) -> Built {
    simple(c, ReduceKind::Sum)
}

pub(super) fn max(c: &Call) -> Built {
    simple(c, ReduceKind::Max)
}

pub(super) fn min(c: &Call) -> Built {
    simple(c, ReduceKind::Min)
}

pub(super) fn prod(c: &Call) -> Built {
    simple(c, ReduceKind::Prod)
}

pub(super) fn mean(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let fold = Fold::of(c, &x)?;
    let shape = c.shape(&x)?;
    let count = c.product(&fold.axes.iter().map(|&a| shape[a as usize]).collect::<Vec<i64>>())?;
    if x.dtype().is_int() {
        // The count may not fit in a narrow integer.
        let sum = fold.apply(ReduceKind::Sum, &x.cast(DType::I64));
        return Ok((sum / count).cast(x.dtype()));
    }
    Ok(fold.apply(ReduceKind::Sum, &x) / count as f64)
}

pub(super) fn l1(c: &Call) -> Built {
    let x = c.tensor(0)?;
    Ok(Fold::of(c, &x)?.apply(ReduceKind::Sum, &x.abs()))
}

pub(super) fn sum_square(c: &Call) -> Built {
    let x = c.tensor(0)?;
    Ok(Fold::of(c, &x)?.apply(ReduceKind::Sum, &(&x * &x)))
}

/// A float function of a sum; integers go through f64.
fn through(c: &Call, inner: fn(&Tensor) -> Tensor, outer: fn(&Tensor) -> Tensor) -> Built {
    let x = c.tensor(0)?;
    let dtype = if x.dtype().is_float() { x.dtype() } else { DType::F64 };
    let sum = Fold::of(c, &x)?.apply(ReduceKind::Sum, &inner(&x.cast(dtype)));
    Ok(outer(&sum).cast(x.dtype()))
}

pub(super) fn l2(c: &Call) -> Built {
    through(c, |x| x * x, Tensor::sqrt)
}

pub(super) fn log_sum(c: &Call) -> Built {
    through(c, Tensor::clone, Tensor::log)
}

/// log of the sum of exp(x), from x less its maximum.
pub(super) fn log_sum_exp(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let fold = Fold::of(c, &x)?;
    let wide = if x.dtype().is_float() { x.clone() } else { x.cast(DType::F64) };
    let kept = Fold { axes: fold.axes.clone(), keep: true };
    let max = kept.apply(ReduceKind::Max, &wide);
    // An infinite maximum would give inf - inf.
    let shift = max.abs().eq(f64::INFINITY).select(0.0, &max);
    let log = kept.apply(ReduceKind::Sum, &(&wide - &shift).exp()).log() + &shift;
    let out = if fold.keep {
        log
    } else {
        let shape = c.shape(&log)?;
        let left = (0..shape.len()).filter(|&i| !fold.axes.contains(&(i as i64)));
        log.reshape(left.map(|i| shape[i]).collect::<Vec<i64>>())
    };
    Ok(out.cast(x.dtype()))
}
