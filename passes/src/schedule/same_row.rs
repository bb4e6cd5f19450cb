//! Axes of one row under one name: a load by a fold and by the result is then the same load.

use crate::region::{Affine, AxisId, Index, Region, Term, TermId};
use std::collections::{BTreeMap, BTreeSet};

/// The axis of a fold, and what it folds.
fn folded(term: &Term) -> Option<(AxisId, Vec<TermId>)> {
    match term {
        Term::Fold { axis, .. }
        | Term::ArgFold { axis, .. }
        | Term::Online { axis, .. }
        | Term::Moment { axis, .. } => Some((*axis, term.operands())),
        Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) | Term::Product => None,
    }
}

/// The region with folded axes of one length as one, that of the result's `row` if it has this length; the same region
/// where there is nothing to rename.
pub(super) fn same_row(region: &Region, row: Option<AxisId>) -> Region {
    let mut out = region.clone();
    let mut names: Vec<AxisId> = row.into_iter().collect();
    let mut axes: Vec<AxisId> = region.terms.iter().filter_map(|(t, _)| folded(t)).map(|f| f.0).collect();
    axes.sort_unstable();
    axes.dedup();
    for axis in axes.into_iter().filter(|&a| a >= region.rank) {
        let to = names.iter().copied().find(|&to| region.axes[to].1 == region.axes[axis].1 && apart(&out, axis, to));
        match to {
            Some(to) => out = rename(&out, &|a| if a == axis { to } else { a }),
            None => names.push(axis),
        }
    }
    out
}

/// Whether no value depends on both axes, no fold over one folds a value of the other, and none is computed where the other
/// has a position, so that they may be one.
fn apart(region: &Region, a: AxisId, b: AxisId) -> bool {
    let (inside_a, inside_b) = (inside(region, a), inside(region, b));
    region.terms.iter().zip(&region.free).all(|((term, _), free)| {
        let across = |(axis, args): (AxisId, Vec<TermId>)| {
            let (other, scopes) = match axis {
                _ if axis == a => (b, &inside_b),
                _ if axis == b => (a, &inside_a),
                _ => return true,
            };
            args.iter().all(|&t| !region.free[t].contains(&other)) && free.is_disjoint(scopes)
        };
        !(free.contains(&a) && free.contains(&b)) && folded(term).is_none_or(across)
    })
}

/// The axes that folds run over at each position of `axis`: those of values that depend on it, and those below such folds. A
/// fold that depends on one of them is computed there, others before.
fn inside(region: &Region, axis: AxisId) -> BTreeSet<AxisId> {
    let mut inside = BTreeSet::new();
    loop {
        let before = inside.len();
        for ((term, _), free) in region.terms.iter().zip(&region.free) {
            let Some((over, args)) = folded(term) else { continue };
            if !free.is_disjoint(&inside) || args.iter().any(|&t| over != axis && region.free[t].contains(&axis)) {
                inside.insert(over);
            }
        }
        if inside.len() == before {
            return inside;
        }
    }
}

/// The region with axis `a` in place of `to(a)` everywhere in its terms; terms that become the same become one.
pub(super) fn rename(region: &Region, to: &dyn Fn(AxisId) -> AxisId) -> Region {
    let mut out = Region { terms: Vec::new(), free: Vec::new(), ..region.clone() };
    let affine = |a: &Affine| {
        let mut terms: BTreeMap<AxisId, i64> = BTreeMap::new();
        for &(axis, c) in &a.terms {
            *terms.entry(to(axis)).or_insert(0) += c;
        }
        Affine { base: a.base.clone(), terms: terms.into_iter().filter(|t| t.1 != 0).collect() }
    };
    let mut new: Vec<TermId> = Vec::new();
    let mut seen: BTreeMap<Term, TermId> = BTreeMap::new();
    for (id, (term, dtype)) in region.terms.iter().enumerate() {
        let mut term = term.with_operands(&|t| new[t]);
        match &mut term {
            Term::Iota(a) => *a = affine(a),
            Term::Load { map, .. } => map.iter_mut().for_each(|i| {
                if let Index::Affine(a) = i {
                    *a = affine(a);
                }
            }),
            Term::Fold { axis, .. }
            | Term::ArgFold { axis, .. }
            | Term::Online { axis, .. }
            | Term::Moment { axis, .. } => *axis = to(*axis),
            Term::Const(_) | Term::Size(_) | Term::Map(..) | Term::Product => {}
        }
        let id_of = *seen.entry(term.clone()).or_insert_with(|| {
            out.terms.push((term, *dtype));
            out.free.push(region.free[id].iter().map(|&a| to(a)).collect());
            out.terms.len() - 1
        });
        new.push(id_of);
    }
    out.outputs.iter_mut().for_each(|o| o.root = new[o.root]);
    out
}
