//! Accesses: a tensor read at an affine index per atom becomes reshapes, slices, flips and, where nothing simpler is
//! equal, a `take` at computed positions.

use super::build::{Builder, Group, Tensor, broken, overflow};
use crate::egraph::lang::{Affine, AxisId, Number};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// An atom of a tensor that is read.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Its size.
    pub size: Dim,
    /// Where it is read.
    pub index: Affine,
}

/// How one dim of the reshaped tensor is read.
#[derive(Clone, Debug)]
struct Part {
    /// Size of the dim.
    size: Dim,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// All of it, under these names.
    Keep(Group),
    /// From a start to a limit in steps, in reverse or not; of the last axis only a part may be there.
    Cut { flip: bool, start: Dim, limit: Dim, stride: i64, names: Group, window: Option<(i64, i64)> },
    /// At positions that are computed.
    Many(Affine),
}

/// The positions of a line `factor * axis + constant` that lie in a dim.
fn line(size: &Dim, index: &Affine, length: &Dim, holds: impl Fn(&Dim) -> bool) -> Option<How> {
    let &[(axis, factor)] = index.terms.as_slice() else { return None };
    let (flip, constant, stride) = if factor < 0 {
        let last = size.as_const()?.checked_sub(1)?;
        (true, last.checked_sub(index.constant)?, factor.checked_neg()?)
    } else {
        (false, index.constant, factor)
    };
    let names = vec![axis];
    if let (Some(n), Some(m)) = (size.as_const(), length.as_const()) {
        // 0 <= stride * i + constant < n
        let low = constant.checked_neg()?.div_euclid(stride) + i64::from(constant.rem_euclid(stride) != 0);
        let low = low.clamp(0, m);
        let high = (n.checked_sub(1)?.checked_sub(constant)?.div_euclid(stride) + 1).clamp(low, m);
        let window = ((low, high) != (0, m)).then_some((low, high));
        let (start, limit) = if low == high {
            (0, 0)
        } else {
            let last = stride.checked_mul(high - 1)?.checked_add(constant)?;
            (stride.checked_mul(low)?.checked_add(constant)?, last + 1)
        };
        let (start, limit) = (Dim::constant(start), Dim::constant(limit));
        return Some(How::Cut { flip, start, limit, stride, names, window });
    }
    let start = Dim::constant(constant);
    if stride == 1 && constant >= 0 {
        let limit = length.checked_add(&start)?;
        if holds(&size.checked_sub(&limit)?) {
            return Some(How::Cut { flip, start, limit, stride, names, window: None });
        }
    }
    let exact = size.div_exact(&Dim::constant(stride)).is_some_and(|n| n == *length);
    let whole = || How::Cut { flip, start, limit: size.clone(), stride, names, window: None };
    ((0..stride).contains(&constant) && exact).then(whole)
}

impl Builder<'_> {
    /// `value`, whose dims are made of these slots, read at their indices.
    pub fn read(&mut self, value: Value, groups: &[Vec<Slot>]) -> Result<Tensor, Diagnostic> {
        let mut seen = BTreeSet::new();
        let mut twice = BTreeSet::new();
        for (axis, _) in groups.iter().flatten().flat_map(|s| &s.index.terms) {
            if !seen.insert(*axis) {
                twice.insert(*axis);
            }
        }
        let mut parts = Vec::new();
        for group in groups {
            let repeated = group.iter().flat_map(|s| &s.index.terms).any(|t| twice.contains(&t.0));
            match self.merged(group)?.filter(|_| !repeated || group.len() == 1) {
                Some(part) => parts.push(part),
                None => {
                    for slot in group {
                        parts.push(self.single(slot)?);
                    }
                }
            }
        }
        let mut value = self.reshape(value, parts.iter().map(|p| p.size.clone()).collect())?;
        let flipped = |p: &Part| matches!(p.how, How::Cut { flip: true, .. });
        let flips: Vec<usize> = (0..parts.len()).filter(|&i| flipped(&parts[i])).collect();
        if !flips.is_empty() {
            value = self.push(GraphOp::Flip { axes: flips }, &[value])?;
        }
        let mut cuts = BTreeMap::new();
        for (i, part) in parts.iter().enumerate() {
            if let How::Cut { start, limit, stride, .. } = &part.how {
                cuts.insert(i, (start.clone(), limit.clone(), *stride));
            }
        }
        value = self.slice(value, &cuts)?;
        // From the minor end, so that what is still to do keeps its place.
        let mut dims: Vec<(Group, Option<(i64, i64)>)> = Vec::new();
        for (i, part) in parts.iter().enumerate().rev() {
            match &part.how {
                How::Keep(names) => dims.push((names.clone(), None)),
                How::Cut { names, window, .. } => dims.push((names.clone(), *window)),
                How::Many(index) => {
                    let (taken, names) = self.take_at(value, i, &part.size, index)?;
                    value = taken;
                    dims.extend(names.into_iter().rev().map(|g| (g, None)));
                }
            }
        }
        dims.reverse();
        for axis in twice {
            value = self.diagonal(value, axis, &mut dims)?;
        }
        let windows = dims.iter().filter_map(|(g, w)| Some((*g.last()?, (*w)?))).collect();
        Ok(Tensor { value, dims: dims.into_iter().map(|d| d.0).collect(), windows })
    }

    /// A dim that is read whole, or whose major or minor atoms are fixed.
    fn merged(&self, group: &[Slot]) -> Result<Option<Part>, Diagnostic> {
        let product = |slots: &[Slot]| {
            slots.iter().try_fold(Dim::constant(1), |n, s| n.checked_mul(&s.size)).ok_or_else(overflow)
        };
        let size = product(group)?;
        let mut plain = Vec::new();
        for slot in group {
            let axis = slot.index.as_axis();
            plain.push(match axis {
                Some(axis) if *self.size(axis)? == slot.size => Some(axis),
                _other => None,
            });
        }
        let fixed = |slot: &Slot| slot.index.terms.is_empty().then_some(slot.index.constant);
        let major = plain.iter().take_while(|p| p.is_none()).count();
        let minor = plain.iter().rev().take_while(|p| p.is_none()).count();
        if plain.iter().all(Option::is_some) {
            return Ok(Some(Part { size, how: How::Keep(plain.into_iter().flatten().collect()) }));
        }
        // The fixed atoms as one digit in front of, or behind, the others.
        let digit = |slots: &[Slot]| {
            slots
                .iter()
                .try_fold(Dim::constant(0), |sum, s| sum.checked_mul(&s.size)?.checked_add(&Dim::constant(fixed(s)?)))
        };
        let between = |names: &[Option<AxisId>]| names.iter().copied().collect::<Option<Group>>();
        if let (true, Some(names), Some(at)) = (minor == 0, between(&plain[major..]), digit(&group[..major])) {
            let length = product(&group[major..])?;
            let start = at.checked_mul(&length).ok_or_else(overflow)?;
            let limit = start.checked_add(&length).ok_or_else(overflow)?;
            return Ok(Some(Part {
                size,
                how: How::Cut { flip: false, start, limit, stride: 1, names, window: None },
            }));
        }
        let rest = group.len() - minor;
        if let (true, Some(names), Some(start)) = (major == 0, between(&plain[..rest]), digit(&group[rest..])) {
            let (stride, length) = (product(&group[rest..])?, product(&group[..rest])?);
            let Some(stride) = stride.as_const().filter(|s| *s > 0) else { return Ok(None) };
            // an empty dim has no position to start at
            let exact = size.checked_sub(&start).is_some_and(|n| self.holds(&n) && n.ceil_div(stride) == length);
            let how = How::Cut { flip: false, start, limit: size.clone(), stride, names, window: None };
            return Ok(exact.then_some(Part { size, how }));
        }
        Ok(None)
    }

    /// One atom in a dim of its own.
    fn single(&self, slot: &Slot) -> Result<Part, Diagnostic> {
        let size = slot.size.clone();
        let index = &slot.index;
        if index.terms.is_empty() {
            let start = Dim::constant(index.constant);
            let limit = start.checked_add(&Dim::constant(1)).ok_or_else(overflow)?;
            let known = size.checked_sub(&limit).is_some_and(|rest| self.holds(&rest));
            let how = How::Cut { flip: false, start, limit, stride: 1, names: Vec::new(), window: None };
            let how = if known && index.constant >= 0 { how } else { How::Many(index.clone()) };
            return Ok(Part { size, how });
        }
        let axis = index.as_axis();
        let same = axis.map(|a| self.size(a)).transpose()?.is_some_and(|n| *n == size);
        if let (Some(axis), true) = (axis, same) {
            return Ok(Part { size, how: How::Keep(vec![axis]) });
        }
        let how = match index.terms.as_slice() {
            [(axis, _)] => line(&size, index, self.size(*axis)?, |n| self.holds(n)),
            _other => None,
        };
        Ok(Part { size, how: how.unwrap_or_else(|| How::Many(index.clone())) })
    }

    /// An affine position as a value.
    pub fn affine(&mut self, index: &Affine, dtype: DType) -> Result<Tensor, Diagnostic> {
        let number = |n: i64| Number::new(dtype, n as f64).ok_or_else(overflow);
        let mut sum: Option<Tensor> = None;
        for &(axis, factor) in &index.terms {
            let mut step = self.iota(axis, dtype)?;
            if factor != 1 {
                let factor = self.number(number(factor)?)?;
                step = self.map(ScalarOp::Mul {}, &[step, factor], &[])?;
            }
            sum = Some(match sum {
                Some(sum) => self.map(ScalarOp::Add {}, &[sum, step], &[])?,
                None => step,
            });
        }
        let constant = self.number(number(index.constant)?)?;
        match sum {
            Some(sum) if index.constant == 0 => Ok(sum),
            Some(sum) => self.map(ScalarOp::Add {}, &[sum, constant], &[]),
            None => Ok(constant),
        }
    }

    /// Dim `dim` of `value` at any affine positions; those outside of it, which nobody looks at, are moved inside.
    fn take_at(
        &mut self,
        mut value: Value,
        dim: usize,
        size: &Dim,
        index: &Affine,
    ) -> Result<(Value, Vec<Group>), Diagnostic> {
        let int = |n: i64| Number { dtype: DType::I64, bits: n as u64 };
        let mut place = self.affine(index, DType::I64)?;
        let mut last = size.clone();
        if size.bounds(&self.out.symbols).0 >= 1 {
            last = last.checked_sub(&Dim::constant(1)).ok_or_else(overflow)?;
        } else {
            value = self.pad(value, dim, 0, 1)?;
        }
        let (zero, last) = (self.number(int(0))?, self.length(&last, DType::I64)?);
        place = self.map(ScalarOp::Max {}, &[place, zero], &[])?;
        place = self.map(ScalarOp::Min {}, &[place, last], &[])?;
        let taken = self.push(GraphOp::Take { axis: dim }, &[value, place.value])?;
        Ok((taken, place.dims))
    }

    /// The elements where dims of one name have one position. Each of them has a single atom.
    fn diagonal(
        &mut self,
        mut value: Value,
        axis: AxisId,
        dims: &mut [(Group, Option<(i64, i64)>)],
    ) -> Result<Value, Diagnostic> {
        let size = self.size(axis)?.clone();
        let mine: Vec<usize> = (0..dims.len()).filter(|&i| dims[i].0.contains(&axis)).collect();
        for &i in &mine {
            if dims[i].0.len() != 1 {
                return Err(broken("a diagonal inside of a merged axis"));
            }
            if let Some((low, high)) = dims[i].1.take() {
                let n = size.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
                value = self.pad(value, i, low, n - high)?;
            }
        }
        let Some((&first, rest)) = mine.split_first() else { return Ok(value) };
        for &i in rest {
            let mut shape = self.shape(value).to_vec();
            shape[i] = Dim::constant(1);
            let ids = self.push(GraphOp::Iota { axis: first, shape, dtype: DType::I64 }, &[])?;
            value = self.push(GraphOp::TakeAlong { axis: i }, &[value, ids])?;
            dims[i].0.clear();
        }
        Ok(value)
    }
}
