//! Orders along an axis: extrema, running sums, the k largest.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// The position of the largest (or smallest) element.
pub(super) fn arg(c: &Call, largest: bool) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", 0)?, shape.len())? as i64;
    let find = |x: &Tensor| if largest { x.argmax(axis) } else { x.argmin(axis) };
    let found = if c.flag("select_last_index", false)? {
        // The last is the first of the reversed axis.
        (shape[axis as usize] - 1) - find(&x.flip(&[axis]))
    } else {
        find(&x)
    };
    Ok(if c.flag("keepdims", true)? { found.unsqueeze(axis) } else { found })
}

pub(super) fn cumsum(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int_operand(1, 0)?, shape.len())? as i64;
    let reverse = c.flag("reverse", false)?;
    let ordered = if reverse { x.flip(&[axis]) } else { x };
    let mut sum = ordered.cumsum(axis);
    if c.flag("exclusive", false)? && shape[axis as usize] > 0 {
        sum = sum.slice(axis, 0, shape[axis as usize] - 1).pad(axis, 1, 0, 0i64);
    }
    Ok(if reverse { sum.flip(&[axis]) } else { sum })
}

/// The k largest (or smallest) elements in order, and their positions.
///
/// Each element has a rank, the number of elements before it in the order, equal ones by position; result r is the
/// element of rank r. NaN counts as largest. Cost: O(n^2) comparisons along an axis of size n, without a sort.
pub(super) fn top_k(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let axis = c.axis(c.int("axis", -1)?, shape.len())? as i64;
    let n = shape[axis as usize];
    let k = if c.opset < 10 { c.needed_int("k")? } else { c.int_operand(1, 0)? };
    // Sorted results are right where any order is.
    c.flag("sorted", true)?;
    let largest = c.flag("largest", true)?;
    if !(0..=n).contains(&k) {
        return Err(c.misfit(format!("takes {k} of the {n} elements of axis {axis} of {}", x.ty())));
    }
    // Elements along `axis`, others along the axis after it.
    let (own, other) = (x.unsqueeze(axis + 1), x.unsqueeze(axis));
    let above = |a: &Tensor, b: &Tensor| {
        if a.dtype().is_float() { a.gt(b) | (a.is_nan() & !b.is_nan()) } else { a.gt(b) }
    };
    let (more, less) = (above(&other, &own), above(&own, &other));
    let mut pairs = vec![1; shape.len() + 1];
    (pairs[axis as usize], pairs[axis as usize + 1]) = (n, n);
    let place = |axis: i64| c.graph.iota(DType::I64, pairs.clone(), axis as usize);
    let earlier = place(axis + 1).lt(place(axis));
    let before = if largest { &more } else { &less };
    let rank = (before | (!more.clone() & !less.clone() & earlier)).cast(DType::I64).sum(&[axis + 1]);
    // Exactly one element has each rank.
    (pairs[axis as usize], pairs[axis as usize + 1]) = (k, n);
    let place = |axis: i64| c.graph.iota(DType::I64, pairs.clone(), axis as usize);
    let chosen = rank.unsqueeze(axis).eq(place(axis));
    let ids = chosen.select(place(axis + 1), 0i64).sum(&[axis + 1]);
    Ok(vec![x.take_along(&ids, axis), ids])
}
