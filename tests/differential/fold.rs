//! Steps: reductions and contractions.

use super::bound::Bound;
use super::machine::{Entry, MOST_PRODUCTS, Machine, Picks};
use tilewright_ir::op::{DotDims, ReduceKind};
use tilewright_ir::types::{DType, Dim};

fn foldable(e: &Entry) -> bool {
    e.tensor.rank() > 0 && !e.tensor.dtype().is_block()
}

impl Machine {
    /// What is known of a sum whose exact value is `sum`.
    fn sum_of(&mut self, dtype: DType, sum: Bound, roundings: f64) -> Bound {
        match dtype {
            DType::Bool => Bound::truth(),
            d if d.is_float() => sum.folded(dtype, roundings),
            _integer => self.wrapped(dtype, sum.magnitude, false),
        }
    }
}

pub fn reduce(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, foldable)?;
    let (dtype, rank) = (x.tensor.dtype(), x.tensor.rank());
    let last = rank as i64 - 1;
    let mut axes = vec![if p.one_in(2) { p.below(rank) as i64 } else { last }];
    if p.one_in(3) {
        let other = p.below(rank) as i64;
        if !axes.contains(&other) {
            axes.push(other);
        }
    }
    let count = axes.iter().map(|&a| m.high(&x.tensor.shape()[a as usize])).product::<usize>() as f64;
    let kind = p.of(&[ReduceKind::Sum, ReduceKind::Max, ReduceKind::Sum, ReduceKind::Min, ReduceKind::Prod]);
    let keep = p.one_in(2);
    let bound = match kind {
        // An empty fold is infinite, or the end of the range.
        ReduceKind::Max | ReduceKind::Min if dtype.is_float() => {
            m.infinite |= axes.iter().any(|&a| m.empty(&x.tensor.shape()[a as usize]));
            x.bound
        }
        ReduceKind::Max | ReduceKind::Min if dtype == DType::Bool => x.bound,
        ReduceKind::Max | ReduceKind::Min => Bound::integer(m.wrapped(dtype, f64::INFINITY, false).magnitude),
        _ if dtype == DType::Bool => Bound::truth(),
        ReduceKind::Sum if dtype.is_float() => x.bound.summed(count).folded(dtype, count),
        ReduceKind::Sum => m.wrapped(dtype, x.bound.magnitude * count, false),
        ReduceKind::Prod if count > 5.0 => return None,
        ReduceKind::Prod => {
            let one = Bound::integer(1.0);
            let product = (0..count as usize).fold(one, |b, _| b.times(x.bound).either(one));
            if dtype.is_float() { product.folded(dtype, count) } else { m.wrapped(dtype, product.magnitude, false) }
        }
    };
    m.done(x.tensor.fold(kind, &axes, keep), bound)
}

pub fn arg(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| foldable(e) && e.bound.is_exact())?;
    let axis = p.below(x.tensor.rank());
    let size = x.tensor.shape()[axis].clone();
    if m.low(&size) == 0 {
        return None;
    }
    let tensor = if p.one_in(2) { x.tensor.argmin(axis as i64) } else { x.tensor.argmax(axis as i64) };
    m.done(tensor, Bound::integer(m.high(&size) as f64))
}

pub fn cumsum(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, foldable)?;
    let (dtype, axis) = (x.tensor.dtype(), p.below(x.tensor.rank()));
    let count = m.high(&x.tensor.shape()[axis]) as f64;
    let sum = x.bound.summed(count.max(1.0));
    let bound = m.sum_of(dtype, sum, count);
    m.done(x.tensor.cumsum(axis as i64), bound)
}

/// A dot with any number of batch, contracted and free axes, in any order on both sides.
pub fn dot(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, foldable)?;
    let shape = x.tensor.shape().to_vec();
    let last = shape.len() - 1;
    let mut dims = DotDims::default();
    // Axes of the other side: where they come from here, and their sizes.
    let mut other: Vec<(Option<(usize, bool)>, Dim)> = Vec::new();
    for (i, d) in shape.iter().enumerate() {
        match p.below(4) {
            0 if i < last => other.push((Some((i, true)), d.clone())),
            1 if i == last || shape.len() == 1 => other.push((Some((i, false)), d.clone())),
            2 => other.push((Some((i, false)), d.clone())),
            3 if i == last => other.push((Some((i, false)), d.clone())),
            _free => {}
        }
    }
    for _ in 0..p.of(&[1, 1, 0, 2]) {
        other.push((None, m.dim(p)));
    }
    let mut order = Vec::new();
    while !other.is_empty() {
        order.push(other.remove(p.below(other.len())));
    }
    for (j, (from, _)) in order.iter().enumerate() {
        if let Some((i, batch)) = *from {
            let pair = if batch { &mut dims.batch } else { &mut dims.contract };
            pair.0.push(i);
            pair.1.push(j);
        }
    }
    let other_shape: Vec<Dim> = order.into_iter().map(|(_, d)| d).collect();
    let depth: usize = dims.contract.0.iter().map(|&i| m.high(&shape[i])).product();
    let dtype = x.tensor.dtype();
    let y = match m.pick(p, |e| e.tensor.dtype() == dtype && e.tensor.shape() == other_shape) {
        Some(e) => e,
        None => m.fresh(p, dtype, other_shape)?,
    };
    let swap = p.one_in(2);
    let (x, y) = if swap { (y, x) } else { (x, y) };
    if swap {
        for pair in [&mut dims.batch, &mut dims.contract] {
            *pair = (std::mem::take(&mut pair.1), std::mem::take(&mut pair.0));
        }
    }
    product(m, &x, &y, dims, depth)
}

/// The dot and its bound, if it is not too much work.
pub fn product(m: &mut Machine, x: &Entry, y: &Entry, dims: DotDims, depth: usize) -> Option<Entry> {
    let dtype = x.tensor.dtype();
    let out: usize = {
        let free = |t: &Entry, used: [&Vec<usize>; 2]| {
            let kept = |i: &usize| !used.iter().any(|u| u.contains(i));
            (0..t.tensor.rank()).filter(kept).map(|i| m.high(&t.tensor.shape()[i])).product::<usize>()
        };
        let batch: usize = dims.batch.0.iter().map(|&i| m.high(&x.tensor.shape()[i])).product();
        batch * free(x, [&dims.batch.0, &dims.contract.0]) * free(y, [&dims.batch.1, &dims.contract.1])
    };
    if out.saturating_mul(depth.max(1)) > MOST_PRODUCTS {
        return None;
    }
    let sum = x.bound.times(y.bound).summed(depth as f64);
    let bound = m.sum_of(dtype, sum, depth as f64 + 1.0);
    m.done(x.tensor.dot(&y.tensor, dims), bound)
}

/// A product with block-quantised weights, rows of them, or their values.
pub fn block_linear(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let dtype = p.of(&[DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K, DType::Q6K]);
    let per = dtype.block().0 as i64;
    let depth = if per == 32 { p.of(&[32, 64, 96]) } else { p.of(&[256, 512]) };
    let rows = m.dim(p);
    let w = m.fresh(p, dtype, vec![rows, depth.into()])?;
    match p.below(4) {
        0 => m.done(w.tensor.cast(DType::F32), w.bound),
        1 => {
            let mut dims = m.dims(p, 3);
            dims.push(m.dim(p));
            let rows = w.tensor.shape()[0].clone();
            if m.low(&rows) == 0 {
                return None;
            }
            let ids = m.parameter(
                tilewright_ir::types::Type { dtype: DType::I64, shape: dims.clone() },
                tilewright_ir::graph::Role::Input,
                super::data::Fill::Below(rows),
            )?;
            dims.push(depth.into());
            if !m.small(&dims) {
                return None;
            }
            m.done(w.tensor.embedding(&ids.tensor), w.bound)
        }
        _ => {
            let fits =
                |e: &Entry| e.tensor.dtype() == DType::F32 && e.tensor.shape().last().is_some_and(|d| d.is(depth));
            let x = match m.pick(p, fits) {
                Some(x) => x,
                None => {
                    let mut dims = m.dims(p, 3);
                    dims.push(depth.into());
                    m.fresh(p, DType::F32, dims)?
                }
            };
            let rank = x.tensor.rank();
            let weight = Entry { tensor: w.tensor.cast(DType::F32), bound: w.bound };
            let dims = DotDims { batch: (vec![], vec![]), contract: (vec![rank - 1], vec![1]) };
            product(m, &x, &weight, dims, depth as usize)
        }
    }
}
