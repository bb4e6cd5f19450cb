//! Attention: a sum over `j` of `exp(key) * weight`, with `key` elementwise over one product `sum_d q k`, and the weight a
//! load, perhaps times something elementwise, or free of `j`. Beside it may stand the maximum of the key and plain sums over `j` of what is
//! elementwise over the product: a loss over classes has these alone. Here it is found in a region; [`super::flash`] writes the kernels.

use super::contraction::{Columns, Factor, When, factor, strides};
use crate::region::{AxisId, Index, Limits, Region, Term, TermId, limits};
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

/// What a sum over `j` adds.
#[derive(Clone, Debug)]
pub enum Weight {
    /// `exp(key)` times a term that does not depend on `j`.
    Term(TermId),
    /// `exp(key)` times rows `j` of a load, with their strides (`k` is `j`, `n` the value axis), and [`Attention::factor`].
    Rows(Operand, Columns),
    /// This term as it is.
    Plain(TermId),
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
    /// What `exp(key)` is multiplied by before it meets rows of values.
    pub factor: Option<TermId>,
    /// Maxima of the key where it counts.
    pub tops: Vec<TermId>,
    /// Where along `j` the mask can hold.
    pub limits: Limits,
    /// How many rows share the columns.
    pub rows: Dim,
}

/// Widest values.
const MOST_VALUES: i64 = 256;
/// Longest products: a tile of columns stays in the second cache.
const MOST_DEPTH: i64 = 1024;

impl Attention {
    /// When the variant for many rows runs, with packed columns; the other takes each row alone and packs no columns.
    pub fn when_many(&self) -> When {
        if self.m.is_none() { When::Never } else { When::many(&self.rows) }
    }

    /// Whether the rows of a weight are read where they lie. `many` rows read them many times, for which panels pay: rows a
    /// power of two apart fall on few lines of the first cache. Halves become f32 in panels.
    pub fn direct(&self, values: &Operand, columns: &Columns, row: &UKernelShape, many: bool) -> bool {
        let whole = self.e.and_then(|e| self.region.axes[e].1.as_const()).is_some_and(|n| n % row.nr == 0);
        let plain = self.region.inputs[values.input].1.dtype == row.b;
        !many && plain && columns.n_stride.is(1) && whole
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
    let (tops, plains) = (tops(region, j, key, mask), plains(region, j, key, mask, fold));
    let all_folds = region.terms.iter().filter(|(t, _)| is_fold(t)).count();
    let known = 1 + onlines.len() + tops.len() + plains.len();
    if all_folds != known || folds.next().is_some() || region.terms[key].1 != DType::F32 {
        return None;
    }
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[arg].0 else { return None };
    let (x, y) = (*args.first()?, *args.get(1)?);
    let (q, k_term) = if region.free[x].contains(&j) { (y, x) } else { (x, y) };
    let k = factor(region, k_term).filter(|k| !k.block)?;
    let mut k_at = strides(region, &k)?;
    let f32s = [q, k_term].iter().all(|&t| region.terms[t].1 == DType::F32);
    if !f32s || region.free[q].contains(&j) || !region.free[q].contains(&d) || region.free[fold].contains(&d) {
        return None;
    }
    let lies = |f: &Factor<'_>| {
        !f.block && !f.half && strides(region, f).is_some_and(|at| at.axes.get(&d).is_some_and(|s| s.is(1)))
    };
    let q_lies = factor(region, q).filter(lies).map(|f| operand(&f));
    let (d_stride, j_stride) = (k_at.axes.remove(&d)?, k_at.axes.remove(&j)?);
    region.axes[d].1.as_const().filter(|n| *n > 0 && *n <= MOST_DEPTH)?;
    let batch = k_at.axes.into_iter().collect();
    let k_columns = Columns { offset: k_at.offset, batch, k_stride: d_stride, n_stride: j_stride };
    let key_axes = &region.free[key];
    let (mut sums, e, factor) = weights(region, onlines, j, key_axes)?;
    sums.extend(plains.into_iter().map(|(term, arg)| (term, Weight::Plain(arg))));
    let has = |what: &Weight, axis: &AxisId| match what {
        Weight::Rows(_, columns) => columns.batch.iter().any(|(b, _)| b == axis),
        Weight::Term(_) | Weight::Plain(_) => false,
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
    let limits = mask.map_or_else(Limits::default, |t| limits(region, t, j));
    let k = operand(&k);
    Some(Attention {
        region: named(region, [(m, "m"), (Some(j), "j"), (Some(d), "d"), (e, "e")]),
        fold,
        m,
        j,
        d,
        e,
        q,
        q_lies,
        k,
        k_term,
        k_columns,
        key,
        mask,
        sums,
        factor,
        tops,
        limits,
        rows,
    })
}

/// The region with its axes named by their roles, others by their numbers.
fn named(region: &Region, roles: [(Option<AxisId>, &str); 4]) -> Region {
    let mut named = region.clone();
    for (axis, (name, _)) in named.axes.iter_mut().enumerate() {
        let role = roles.into_iter().find(|r| r.0 == Some(axis));
        *name = role.map_or_else(|| format!("b{axis}").into(), |r| r.1.into());
    }
    named
}

/// What sums weigh with, the axis of those that read rows, and the factor of these.
type Weights = (Vec<(TermId, Weight)>, Option<AxisId>, Option<TermId>);

/// What the one-pass sums weigh with, if those that read rows have one axis and one factor.
fn weights(region: &Region, onlines: Vec<(TermId, TermId)>, j: AxisId, key_axes: &BTreeSet<AxisId>) -> Option<Weights> {
    let (mut sums, mut e, mut factors) = (Vec::new(), None, BTreeSet::new());
    for (term, weight) in onlines {
        let (what, axis, factor) = weight_of(region, weight, j, key_axes)?;
        if axis.is_some() && e.is_some() && axis != e {
            return None;
        }
        if axis.is_some() {
            factors.insert(factor);
        }
        e = e.or(axis);
        sums.push((term, what));
    }
    if factors.len() > 1 {
        return None;
    }
    Some((sums, e, factors.into_iter().next().flatten()))
}

/// Whether `arg` is the key of a one-pass sum, and nothing where its mask does not hold.
pub(super) fn is_key(region: &Region, arg: TermId, key: TermId, mask: Option<TermId>) -> bool {
    let Some(mask) = mask else { return arg == key };
    let Term::Map(ScalarOp::Select {}, args) = &region.terms[arg].0 else { return false };
    let [p, x, other] = args[..] else { return false };
    let nothing = match &region.terms[other].0 {
        Term::Const(value) => value.0.to_f64().is_some_and(|v| v == [f64::NEG_INFINITY]),
        _other => false,
    };
    p == mask && x == key && nothing
}

/// Folds of a kind over `j` with what they fold.
fn folds_over(region: &Region, j: AxisId, wanted: ReduceKind) -> impl Iterator<Item = (TermId, TermId)> {
    region.terms.iter().enumerate().filter_map(move |(t, (term, dtype))| match term {
        Term::Fold { kind, axis, arg } if *kind == wanted && *axis == j && *dtype == DType::F32 => Some((t, *arg)),
        _other => None,
    })
}

/// The maxima that a pass over `j` finds on its way.
fn tops(region: &Region, j: AxisId, key: TermId, mask: Option<TermId>) -> Vec<TermId> {
    folds_over(region, j, ReduceKind::Max).filter(|f| is_key(region, f.1, key, mask)).map(|f| f.0).collect()
}

/// Plain sums over `j` of what is elementwise over the product. A mask may leave tiles out that they would have to see.
fn plains(region: &Region, j: AxisId, key: TermId, mask: Option<TermId>, product: TermId) -> Vec<(TermId, TermId)> {
    let inside = |arg: TermId| region.free[arg].iter().all(|a| *a == j || region.free[key].contains(a));
    let alone = |arg: TermId| reachable(region, arg).into_iter().all(|t| t == product || !is_fold(&region.terms[t].0));
    folds_over(region, j, ReduceKind::Sum).filter(|f| mask.is_none() && inside(f.1) && alone(f.1)).collect()
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

/// What a weight is, its value axis, and what it has beside rows of values.
fn weight_of(
    region: &Region,
    weight: TermId,
    j: AxisId,
    key_axes: &BTreeSet<AxisId>,
) -> Option<(Weight, Option<AxisId>, Option<TermId>)> {
    if !region.free[weight].contains(&j) {
        let rows = region.free[weight].iter().all(|a| key_axes.contains(a));
        return rows.then_some((Weight::Term(weight), None, None));
    }
    if let Term::Map(ScalarOp::Mul {}, args) = &region.terms[weight].0
        && let [a, b] = args[..]
    {
        let beside = |t: TermId| {
            let inside = region.free[t].iter().all(|x| *x == j || key_axes.contains(x));
            inside && reachable(region, t).into_iter().all(|t| !is_fold(&region.terms[t].0))
        };
        let (rows, other) = if beside(a) { (b, a) } else { (a, b) };
        let (what, axis, more) = weight_of(region, rows, j, key_axes)?;
        return (axis.is_some() && more.is_none() && beside(other)).then_some((what, axis, Some(other)));
    }
    let v = factor(region, weight).filter(|v| !v.block && region.terms[weight].1 == DType::F32)?;
    let mut at = strides(region, &v)?;
    let mut own = at.axes.keys().filter(|a| !key_axes.contains(a));
    let e = *own.next()?;
    region.axes[e].1.as_const().filter(|n| *n > 0 && *n <= MOST_VALUES)?;
    if own.next().is_some() {
        return None;
    }
    let (k_stride, n_stride) = (at.axes.remove(&j)?, at.axes.remove(&e)?);
    let columns = Columns { offset: at.offset, batch: at.axes.into_iter().collect(), k_stride, n_stride };
    Some((Weight::Rows(operand(&v), columns), Some(e), None))
}
