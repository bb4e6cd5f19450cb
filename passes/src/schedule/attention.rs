//! Attention: a sum over `j` of `exp(key) * weight`, with `key` elementwise over one product `sum_d q k` and the weight a
//! load or free of `j`. Here it is found in a region; [`super::flash`] writes the kernels.

use super::contraction::{Columns, Factor, When, factor, strides};
use crate::region::{Affine, AxisId, Index, Region, Term, TermId, limits};
use std::collections::BTreeSet;
use tilewright_ir::device::ukernel::UKernelShape;
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// A load by its map.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Index into the region's inputs.
    pub input: usize,
    /// One entry per dim.
    pub map: Vec<Index>,
}

/// What a one-pass sum weighs its terms with.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A term that does not depend on `j`.
    Term(TermId),
    /// Rows `j` of a load, with their strides (`k` is `j`, `n` the value axis).
    Rows(Operand, Columns),
}

/// An attention inside a region.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The region, with its axes named `m`, `j`, `d`, `e` and `b..`.
    pub region: Region,
    /// The product `sum_d q k`.
    pub fold: TermId,
    /// Axis of the rows; without one there is a single row.
    pub m: Option<AxisId>,
    /// Axis that is folded in one pass.
    pub j: AxisId,
    /// Axis of the product.
    pub d: AxisId,
    /// Axis of the values, if any weight has one.
    pub e: Option<AxisId>,
    /// Rows of the product: any term that does not depend on `j`.
    pub q: TermId,
    /// The load that the rows are, if it is contiguous along `d`.
    pub q_lies: Option<Operand>,
    /// Columns of the product, a load.
    pub k: Operand,
    /// The columns' term.
    pub k_term: TermId,
    /// Strides of the columns (`k` is `d`, `n` is `j`).
    pub k_columns: Columns,
    /// The exponent.
    pub key: TermId,
    /// Where it counts.
    pub mask: Option<TermId>,
    /// The sums.
    pub sums: Vec<(TermId, Weight)>,
    /// `j` stays below each of these, by the mask.
    pub limits: Vec<Affine>,
    /// How many rows share the columns.
    pub rows: Dim,
}

/// Widest values.
const MOST_VALUES: i64 = 256;

impl Attention {
    /// When the variant for many rows runs, with packed columns; the other takes each row alone and packs no columns.
    pub fn when_many(&self) -> When {
        if self.m.is_none() { When::Never } else { When::many(&self.rows) }
    }

    /// Whether the rows of a weight are read where they lie. `many` rows read them many times, for which panels pay: rows a
    /// power of two apart fall on few lines of the first cache.
    pub fn direct(&self, columns: &Columns, row: &UKernelShape, many: bool) -> bool {
        let whole = self.e.and_then(|e| self.region.axes[e].1.as_const()).is_some_and(|n| n % row.nr == 0);
        !many && columns.n_stride.is(1) && whole
    }
}

/// The region's attention, if all its folds are one-pass sums that share axis, key and mask. Each load has an input of
/// its own, see [`Region::with_own_inputs`].
pub fn attention(region: &Region) -> Option<Attention> {
    let (j, key, mask, onlines) = onlines(region)?;
    let product = reachable(region, key);
    let mut folds = product.iter().filter_map(|&t| match &region.terms[t].0 {
        Term::Fold { kind: ReduceKind::Sum, axis, arg } => Some((t, *axis, *arg)),
        _other => None,
    });
    let (fold, d, arg) = folds.next()?;
    let all_folds = region.terms.iter().filter(|(t, _)| is_fold(t)).count();
    if all_folds != 1 + onlines.len() || folds.next().is_some() || region.terms[key].1 != DType::F32 {
        return None;
    }
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[arg].0 else { return None };
    let (x, y) = (*args.first()?, *args.get(1)?);
    let (q, k_term) = if region.free[x].contains(&j) { (y, x) } else { (x, y) };
    let k = factor(region, k_term).filter(|k| !k.block)?;
    let mut k_at = strides(region, &k)?;
    let f32s = region.terms[q].1 == DType::F32 && region.inputs[k.input].1.dtype == DType::F32;
    if !f32s || region.free[q].contains(&j) || !region.free[q].contains(&d) || region.free[fold].contains(&d) {
        return None;
    }
    let lies =
        |f: &Factor<'_>| !f.block && strides(region, f).is_some_and(|at| at.axes.get(&d).is_some_and(|s| s.is(1)));
    let q_lies = factor(region, q).filter(lies).map(|f| operand(&f));
    let (d_stride, j_stride) = (k_at.axes.remove(&d)?, k_at.axes.remove(&j)?);
    region.axes[d].1.as_const().filter(|n| *n > 0 && *n <= 2 * MOST_VALUES)?;
    let batch = k_at.axes.into_iter().collect();
    let k_columns = Columns { offset: k_at.offset, batch, k_stride: d_stride, n_stride: j_stride };
    let key_axes = &region.free[key];
    let (mut sums, mut e) = (Vec::new(), None);
    for (term, weight) in onlines {
        let (what, axis) = weight_of(region, weight, j, key_axes)?;
        if axis.is_some() && e.is_some() && axis != e {
            return None;
        }
        e = e.or(axis);
        sums.push((term, what));
    }
    let has = |what: &Weight, axis: &AxisId| match what {
        Weight::Rows(_, columns) => columns.batch.iter().any(|(b, _)| b == axis),
        Weight::Term(_) => false,
    };
    // Rows: axes of q alone; the longest is cut into tiles.
    let alone = |axis: &&AxisId| {
        **axis != d && !k_columns.batch.iter().any(|(b, _)| b == *axis) && !sums.iter().any(|(_, w)| has(w, axis))
    };
    let row_axes: Vec<AxisId> = region.free[q].iter().filter(alone).copied().collect();
    let m = row_axes.iter().copied().max_by_key(|&x| region.axes[x].1.as_const().unwrap_or(i64::MAX));
    let rows = row_axes.iter().try_fold(Dim::constant(1), |p, &x| p.checked_mul(&region.axes[x].1))?;
    if (0..region.rank).any(|x| Some(x) != e && !key_axes.contains(&x)) {
        return None;
    }
    let limits = mask.map_or_else(Vec::new, |t| limits(&region.terms, t, j));
    let k = operand(&k);
    let mut named = region.clone();
    for (axis, (name, _)) in named.axes.iter_mut().enumerate() {
        let role = [(m, "m"), (Some(j), "j"), (Some(d), "d"), (e, "e")].into_iter().find(|r| r.0 == Some(axis));
        *name = role.map_or_else(|| format!("b{axis}").into(), |r| r.1.into());
    }
    Some(Attention { region: named, fold, m, j, d, e, q, q_lies, k, k_term, k_columns, key, mask, sums, limits, rows })
}

fn operand(f: &Factor<'_>) -> Operand {
    Operand { input: f.input, map: f.map.to_vec() }
}

fn is_fold(term: &Term) -> bool {
    match term {
        Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product => true,
        Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => false,
    }
}

type Onlines = (AxisId, TermId, Option<TermId>, Vec<(TermId, TermId)>);

/// The one-pass sums of a region with their weights; none unless they share axis, key and mask.
fn onlines(region: &Region) -> Option<Onlines> {
    let mut found: Option<Onlines> = None;
    for (id, (term, dtype)) in region.terms.iter().enumerate() {
        let Term::Online { axis, key, weight, mask } = term else { continue };
        if *dtype != DType::F32 {
            return None;
        }
        match &mut found {
            None => found = Some((*axis, *key, *mask, vec![(id, *weight)])),
            Some((a, k, m, all)) if a == axis && k == key && m == mask => all.push((id, *weight)),
            Some(_) => return None,
        }
    }
    found
}

/// All terms under `term`, itself included, but what is under folds.
fn reachable(region: &Region, term: TermId) -> BTreeSet<TermId> {
    let (mut found, mut open) = (BTreeSet::new(), vec![term]);
    while let Some(t) = open.pop() {
        if found.insert(t)
            && let Term::Map(_, args) = &region.terms[t].0
        {
            open.extend(args);
        }
    }
    found
}

/// What a weight is, and its value axis.
fn weight_of(
    region: &Region,
    weight: TermId,
    j: AxisId,
    key_axes: &BTreeSet<AxisId>,
) -> Option<(Weight, Option<AxisId>)> {
    if !region.free[weight].contains(&j) {
        let rows = region.free[weight].iter().all(|a| key_axes.contains(a));
        return rows.then_some((Weight::Term(weight), None));
    }
    let v = factor(region, weight).filter(|v| !v.block && region.inputs[v.input].1.dtype == DType::F32)?;
    let mut at = strides(region, &v)?;
    let mut own = at.axes.keys().filter(|a| !key_axes.contains(a));
    let e = *own.next()?;
    region.axes[e].1.as_const().filter(|n| *n > 0 && *n <= MOST_VALUES)?;
    if own.next().is_some() {
        return None;
    }
    let (k_stride, n_stride) = (at.axes.remove(&j)?, at.axes.remove(&e)?);
    let columns = Columns { offset: at.offset, batch: at.axes.into_iter().collect(), k_stride, n_stride };
    Some((Weight::Rows(operand(&v), columns), Some(e)))
}
