//! Steps: movement, indexing, sources.

use super::bound::{Bound, epsilon};
use super::data::Fill;
use super::machine::{Entry, Machine, Picks};
use crate::random::Random;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::graph::Role;
use tilewright_ir::types::{DType, Dim, Type};

/// A picked value with at least one axis, and an axis of it.
fn with_axis(m: &mut Machine, p: &mut Picks<'_>) -> Option<(Entry, usize)> {
    let x = m.pick_or_fresh(p, DType::F32, |e| e.tensor.rank() > 0 && !e.tensor.dtype().is_block())?;
    let axis = p.below(x.tensor.rank());
    Some((x, axis))
}

pub fn reshape(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let mut shape = x.tensor.shape().to_vec();
    let rank = shape.len();
    match p.below(6) {
        0 => shape = vec![x.tensor.ty().elements()?],
        1 if axis + 1 < rank => {
            let minor = shape.remove(axis + 1);
            shape[axis] = shape[axis].checked_mul(&minor)?;
        }
        2 | 3 => {
            let by = Dim::from([2i64, 3, 4, 16][p.below(4)]);
            let rest = shape[axis].div_exact(&by)?;
            let pair = if p.one_in(2) { [by, rest] } else { [rest, by] };
            shape.splice(axis..=axis, pair);
        }
        4 => shape.reverse(),
        _ if shape[axis].is(1) => {
            shape.remove(axis);
        }
        _ => shape.insert(axis, Dim::constant(1)),
    }
    m.done(x.tensor.reshape(shape), x.bound)
}

pub fn transpose(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, _) = with_axis(m, p)?;
    let mut left: Vec<i64> = (0..x.tensor.rank() as i64).rev().collect();
    let mut perm = Vec::new();
    while !left.is_empty() {
        perm.push(left.remove(p.below(left.len())));
    }
    m.done(x.tensor.permute(&perm), x.bound)
}

pub fn broadcast(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let mut shape = x.tensor.shape().to_vec();
    let ones: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].is(1)).collect();
    if ones.is_empty() || p.one_in(2) {
        shape.insert(0, m.dim(p));
    } else {
        let at = p.of(&ones);
        shape[at] = m.dim(p);
    }
    if !m.small(&shape) {
        return None;
    }
    m.done(x.tensor.broadcast_to(shape), x.bound)
}

pub fn slice(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let size = x.tensor.shape()[axis].clone();
    let room = m.low(&size);
    let start = p.below(room.min(4) + 1);
    let stride = p.of(&[1i64, 1, 2, 3]);
    let limit = if p.one_in(3) {
        Dim::from(start + p.below(room - start + 1))
    } else {
        size.checked_sub(&Dim::from(p.below((room - start).min(3) + 1)))?
    };
    m.done(x.tensor.slice_by(axis as i64, start, limit, stride), x.bound)
}

pub fn pad(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let (low, high) = (p.below(4), p.below(4));
    let dtype = x.tensor.dtype();
    let value = i64::from(dtype != DType::Bool && p.one_in(2)) * 2;
    m.done(x.tensor.pad(axis as i64, low, high, value), x.bound.either(Bound::integer(value as f64)))
}

pub fn concat(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let (dtype, shape) = (x.tensor.dtype(), x.tensor.shape().to_vec());
    let alike = |e: &Entry| {
        let same = |(i, d): (usize, &Dim)| i == axis || *d == shape[i];
        let other = &e.tensor;
        other.dtype() == dtype && other.rank() == shape.len() && other.shape().iter().enumerate().all(same)
    };
    let mut parts = vec![x];
    for _ in 0..1 + p.below(2) {
        let next = if p.one_in(2) {
            let mut dims = shape.clone();
            dims[axis] = m.dim(p);
            m.fresh(p, dtype, dims)?
        } else {
            m.pick(p, alike)?
        };
        parts.insert(p.below(parts.len() + 1), next);
    }
    let tensors: Vec<&Tensor> = parts.iter().map(|e| &e.tensor).collect();
    let bound = parts.iter().map(|e| e.bound).reduce(Bound::either)?;
    m.done(tilewright_ir::dsl::concat(&tensors, axis as i64)?, bound)
}

pub fn flip(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let mut axes = vec![axis as i64];
    if p.one_in(3) && axis > 0 {
        axes.push(0);
    }
    m.done(x.tensor.flip(&axes), x.bound)
}

/// Fresh indices of a picked integer dtype below the size of `axis` of `x`.
fn ids(m: &mut Machine, p: &mut Picks<'_>, below: &Dim, shape: Vec<Dim>) -> Option<Entry> {
    let dtype = p.of(&[DType::I64, DType::I64, DType::I32, DType::U8, DType::I16]);
    if m.low(below) == 0 || (dtype == DType::U8 && m.high(below) > 255) {
        return None;
    }
    m.parameter(Type { dtype, shape }, Role::Input, Fill::Below(below.clone()))
}

pub fn take(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let dims = m.dims(p, 3);
    let ids = ids(m, p, &x.tensor.shape()[axis].clone(), dims)?;
    let mut shape = x.tensor.shape().to_vec();
    shape.splice(axis..=axis, ids.tensor.shape().iter().cloned());
    if !m.small(&shape) {
        return None;
    }
    m.done(x.tensor.take(&ids.tensor, axis as i64), x.bound)
}

pub fn take_along(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let mut dims = x.tensor.shape().to_vec();
    let below = std::mem::replace(&mut dims[axis], m.dim(p));
    let ids = ids(m, p, &below, dims)?;
    m.done(x.tensor.take_along(&ids.tensor, axis as i64), x.bound)
}

pub fn scatter_add(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let (x, axis) = with_axis(m, p)?;
    let dtype = x.tensor.dtype();
    let mut dims = x.tensor.shape().to_vec();
    let below = std::mem::replace(&mut dims[axis], m.dim(p));
    let count = m.high(&dims[axis]) as f64;
    let ids = ids(m, p, &below, dims.clone())?;
    let source = match m.pick(p, |e| e.tensor.dtype() == dtype && e.tensor.shape() == dims) {
        Some(e) => e,
        None => m.fresh(p, dtype, dims)?,
    };
    let sum = x.bound.plus(source.bound.summed(count));
    let bound = if dtype == DType::Bool {
        Bound::truth()
    } else if dtype.is_float() {
        // Every addition rounds to the dtype itself.
        let rounded = sum.rounded(dtype);
        let more = if rounded.is_exact() { 0.0 } else { count * epsilon(dtype) * rounded.magnitude };
        Bound { error: rounded.error + more, ..rounded }
    } else {
        m.wrapped(dtype, sum.magnitude, false)
    };
    m.done(x.tensor.scatter_add(&ids.tensor, &source.tensor, axis as i64), bound)
}

pub fn update_slice(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, |e| !e.tensor.dtype().is_block())?;
    let (dtype, shape) = (x.tensor.dtype(), x.tensor.shape().to_vec());
    let donated = dtype.is_float() && m.callee.is_none() && p.one_in(2);
    let x = if donated {
        let x = m.parameter(Type { dtype, shape: shape.clone() }, Role::Donated, Fill::Lattice)?;
        // The memory of a donated parameter must be of use: the result, or the parameter itself, is returned.
        m.kept.push(x.clone());
        if p.one_in(3) { Entry { tensor: &x.tensor * 2.0, bound: x.bound.plus(x.bound) } } else { x }
    } else {
        x
    };
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    for d in &shape {
        let room = m.low(d);
        if room == 0 || p.one_in(2) {
            starts.push(Dim::constant(0));
            sizes.push(d.clone());
            continue;
        }
        let size = 1 + p.below(room.min(20));
        let free = room - size;
        starts.push(if p.one_in(2) { d.checked_sub(&Dim::from(size))? } else { Dim::from(p.below(free + 1)) });
        sizes.push(Dim::from(size));
    }
    let update = match m.pick(p, |e| e.tensor.dtype() == dtype && e.tensor.shape() == sizes) {
        Some(e) => e,
        None => m.fresh(p, dtype, sizes)?,
    };
    let entry = m.done(x.tensor.update_slice(&update.tensor, starts), x.bound.either(update.bound));
    if let (true, Some(entry)) = (donated, &entry) {
        m.kept.pop();
        m.kept.push(entry.clone());
    }
    entry
}

/// Positions, sizes and constants.
pub fn source(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let dtype = p.of(&[DType::I64, DType::F32, DType::I32, DType::F64, DType::F16, DType::U8, DType::Bf16]);
    match p.below(3) {
        0 => {
            let mut dims = m.dims(p, 3);
            dims.push(m.dim(p));
            let axis = p.below(dims.len());
            let most = m.high(&dims[axis]) as f64;
            let bound =
                if dtype.is_float() { Bound::integer(most).rounded(dtype) } else { m.wrapped(dtype, most, false) };
            if !m.small(&dims) {
                return None;
            }
            m.done(m.graph.iota(dtype, dims, axis), bound)
        }
        1 => {
            let d = m.dim(p);
            let bound = Bound::integer(m.high(&d) as f64);
            m.done(m.graph.size(d), bound)
        }
        _ => {
            let dims: Vec<Dim> = m.dims(p, 3).into_iter().filter(|d| d.as_const().is_some()).collect();
            let ty = Type { dtype, shape: dims };
            let fill = if dtype.is_float() { Fill::Lattice } else { Fill::Small };
            let mut random = Random(p.below(256) as u64);
            let array: Array = fill.array(&ty, &std::collections::BTreeMap::new(), &mut random, false).ok()?;
            m.done(m.graph.constant(array), fill.bound(dtype, &|_| 0))
        }
    }
}
