//! Merging of axes that are neighbours in every access, so that templates see products of matrices and long inner axes.

use super::terms::Terms;
use super::{Affine, AxisId, Index, Output, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::{Dim, Type};

/// The region with as few axes as its accesses allow; it computes the same and stores the same bytes. Inputs may lose dims,
/// and one buffer may become several inputs.
pub fn coalesce(region: Region) -> Region {
    let mut region = split_inputs(region);
    while let Some(merged) = candidates(&region).into_iter().find_map(|(a, b)| merge(&region, a, b)) {
        region = merged;
    }
    join_inputs(region)
}

/// Every load gets an input of its own, because merging changes how an input is seen.
fn split_inputs(mut region: Region) -> Region {
    let mut inputs = Vec::new();
    for (term, _) in &mut region.terms {
        if let Term::Load { input, .. } = term {
            inputs.push(region.inputs[*input].clone());
            *input = inputs.len() - 1;
        }
    }
    region.inputs = inputs;
    region
}

/// Inputs that are seen alike are one again.
fn join_inputs(region: Region) -> Region {
    let mut inputs: Vec<(_, Type)> = Vec::new();
    let number: Vec<usize> = region
        .inputs
        .iter()
        .map(|input| {
            inputs.iter().position(|i| i == input).unwrap_or_else(|| {
                inputs.push(input.clone());
                inputs.len() - 1
            })
        })
        .collect();
    let joined = Region { inputs, ..region };
    rebuild(&joined, |term| {
        Some(match term {
            Term::Load { input, map, open } => Term::Load { input: number[*input], map: map.clone(), open: *open },
            other => other.clone(),
        })
    })
    .unwrap_or(joined)
}

/// Pairs (major, minor) that are neighbours in an output or in a nest of folds.
fn candidates(region: &Region) -> Vec<(AxisId, AxisId)> {
    let mut found = Vec::new();
    for output in &region.outputs {
        found.extend(output.axes.windows(2).map(|w| (w[0], w[1])));
    }
    for (term, _) in &region.terms {
        if let Some((_, outer, inner, _)) = nested(region, term) {
            found.push((outer, inner));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A fold of a fold: kind, outer axis, inner axis, what the inner one folds.
fn nested(region: &Region, term: &Term) -> Option<(ReduceKind, AxisId, AxisId, TermId)> {
    let Term::Fold { kind, axis, arg } = term else { return None };
    match &region.terms.get(*arg)?.0 {
        Term::Fold { kind: inner, axis: minor, arg } if inner == kind && minor != axis => {
            Some((*kind, *axis, *minor, *arg))
        }
        _other => None,
    }
}

/// The dims of a map that hold the two axes, next to each other; `Some(None)` if neither occurs, `None` if they are used
/// in another way.
fn pair(map: &[Index], shape: &[Dim], a: AxisId, b: AxisId, size: &Dim) -> Option<Option<usize>> {
    let affine = |i: &Index| match i {
        Index::Affine(x) => Some(x.clone()),
        Index::Term(_) => None,
    };
    let uses = |i: &Index, axis| affine(i).is_some_and(|x| x.terms.iter().any(|t| t.0 == axis));
    let at: Vec<usize> = (0..map.len()).filter(|&d| uses(&map[d], a)).collect();
    let minor: Vec<usize> = (0..map.len()).filter(|&d| uses(&map[d], b)).collect();
    match (at.as_slice(), minor.as_slice()) {
        ([], []) => Some(None),
        ([d], [e]) if *e == d + 1 => {
            let major_plain = affine(&map[*d]).is_some_and(|x| x.terms == [(a, 1)]);
            let minor_plain = affine(&map[*e]).is_some_and(|x| x.plain_axis() == Some(b));
            (major_plain && minor_plain && shape[*e] == *size).then_some(Some(*d))
        }
        _other => None,
    }
}

/// The map, and the shape with it, with the dims of the two axes merged; `None` where an access needs one of them alone.
fn merged_map(
    map: &[Index],
    shape: &mut Vec<Dim>,
    (a, major): (AxisId, &Dim),
    (b, size): (AxisId, &Dim),
) -> Option<Vec<Index>> {
    let mut merged = map.to_vec();
    if let Some(d) = pair(map, shape, a, b, size)? {
        // That a part of the rows lies inside is no linear statement once it is multiplied by a symbol.
        if size.as_const().is_none() && (shape[d] != *major || map[d] != Index::Affine(Affine::axis(a))) {
            return None;
        }
        shape[d] = shape[d].checked_mul(size)?;
        shape.remove(d + 1);
        if let Index::Affine(x) = &mut merged[d] {
            x.base = x.base.checked_mul(size)?;
        }
        merged.remove(d + 1);
    }
    Some(merged)
}

/// `b` goes into `a`; `None` where an access needs one of them alone.
fn merge(region: &Region, a: AxisId, b: AxisId) -> Option<Region> {
    let size = &region.axes[b].1;
    let whole = region.axes[a].1.checked_mul(size)?;
    let rename = |axis: AxisId| if axis == b { a } else { axis };
    let after = |axis: AxisId| if axis > b { axis - 1 } else { axis };
    let affine =
        |x: &Affine| Affine { base: x.base.clone(), terms: x.terms.iter().map(|t| (after(t.0), t.1)).collect() };
    let mut outputs = Vec::new();
    for output in &region.outputs {
        let at = |axis| output.axes.iter().position(|&x| x == axis);
        match (at(a), at(b)) {
            (None, None) => {}
            (Some(i), Some(j)) if j == i + 1 => {}
            (_, _) => return None,
        }
        let axes = output.axes.iter().filter(|&&x| x != b).map(|&x| after(x)).collect();
        outputs.push(Output { root: output.root, axes });
    }
    let mut inputs = region.inputs.clone();
    let mut inner_used = vec![false; region.terms.len()];
    for (term, _) in &region.terms {
        if let Some((_, outer, inner, _)) = nested(region, term)
            && (outer, inner) == (a, b)
            && let Term::Fold { arg, .. } = term
        {
            inner_used[*arg] = true;
        }
    }
    let only_nested = |id: TermId| {
        let users = region.terms.iter().filter(|(t, _)| t.operands().contains(&id));
        let mut users = users.map(|(t, _)| nested(region, t).is_some_and(|n| (n.1, n.2) == (a, b)));
        users.all(|nested| nested) && region.outputs.iter().all(|o| o.root != id)
    };
    let mut new = BTreeMap::new();
    for (id, (term, _)) in region.terms.iter().enumerate() {
        let changed = match term {
            Term::Iota(x) => Term::Iota(iota(x, a, b, size, &affine)?),
            Term::Load { input, map, open } => {
                let shape = &mut inputs[*input].1.shape;
                let mut map = merged_map(map, shape, (a, &region.axes[a].1), (b, size))?;
                for index in &mut map {
                    if let Index::Affine(x) = index {
                        *x = affine(x);
                    }
                }
                Term::Load { input: *input, map, open: *open }
            }
            Term::Fold { kind, axis, arg } if *axis == a => {
                let (_, _, inner, arg_of_inner) = nested(region, term)?;
                if inner != b || !only_nested(*arg) {
                    return None;
                }
                Term::Fold { kind: *kind, axis: after(a), arg: arg_of_inner }
            }
            Term::Fold { axis, .. } if *axis == b && !inner_used[id] => return None,
            Term::Fold { kind, axis, arg } => Term::Fold { kind: *kind, axis: after(rename(*axis)), arg: *arg },
            Term::ArgFold { axis, .. } | Term::Online { axis, .. } | Term::Moment { axis, .. }
                if [a, b].contains(axis) =>
            {
                return None;
            }
            Term::ArgFold { largest, axis, arg } => Term::ArgFold { largest: *largest, axis: after(*axis), arg: *arg },
            Term::Online { axis, key, weight, mask } => {
                Term::Online { axis: after(*axis), key: *key, weight: *weight, mask: *mask }
            }
            Term::Moment { axis, arg } => Term::Moment { axis: after(*axis), arg: *arg },
            Term::Product => return None,
            Term::Const(_) | Term::Size(_) | Term::Map(..) => term.clone(),
        };
        new.insert(term.clone(), changed);
    }
    let mut axes = region.axes.clone();
    axes[a].1 = whole;
    axes.remove(b);
    let rank = region.rank - usize::from(b < region.rank);
    let merged = Region { axes, rank, inputs, outputs, ..region.clone() };
    rebuild(&merged, |term| new.get(term).cloned())
}

/// A position where the two axes are digits of one number, over the merged axis; `None` where they are not.
fn iota(x: &Affine, a: AxisId, b: AxisId, size: &Dim, affine: &dyn Fn(&Affine) -> Affine) -> Option<Affine> {
    let of = |axis| x.terms.iter().find(|t| t.0 == axis).map(|t| t.1);
    match (of(a), of(b)) {
        (None, None) => Some(affine(x)),
        (Some(major), Some(minor)) if size.as_const().and_then(|n| n.checked_mul(minor)) == Some(major) => {
            let terms = x.terms.iter().filter(|t| t.0 != b).map(|t| if t.0 == a { (a, minor) } else { *t }).collect();
            Some(affine(&Affine { base: x.base.clone(), terms }))
        }
        (_, _) => None,
    }
}

/// The region with every live term replaced; what no output needs leaves, and inputs with it.
fn rebuild(region: &Region, change: impl Fn(&Term) -> Option<Term>) -> Option<Region> {
    let changed = region.terms.iter().map(|(t, _)| change(t)).collect::<Option<Vec<_>>>()?;
    let mut live = vec![false; changed.len()];
    let mut open: Vec<TermId> = region.outputs.iter().map(|o| o.root).collect();
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut live[id], true) {
            open.extend(changed[id].operands());
        }
    }
    let mut terms = Terms::default();
    let mut number = vec![0; changed.len()];
    let mut inputs = Vec::new();
    let mut input_of = BTreeMap::new();
    for (id, term) in changed.into_iter().enumerate().filter(|(id, _)| live[*id]) {
        let mut term = term.with_operands(&|t| number[t]);
        if let Term::Load { input, .. } = &mut term {
            *input = *input_of.entry(*input).or_insert_with(|| {
                inputs.push(region.inputs[*input].clone());
                inputs.len() - 1
            });
        }
        number[id] = terms.add(term, region.terms[id].1, region.rank);
    }
    let outputs = region.outputs.iter().map(|o| Output { root: number[o.root], axes: o.axes.clone() }).collect();
    Some(Region { inputs, outputs, terms: terms.list, free: terms.free, ..region.clone() })
}
