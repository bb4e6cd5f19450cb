//! Steps: composites and calls.

use super::bound::{Bound, epsilon, wide};
use super::data::Fill;
use super::elementwise::holds;
use super::fold::product;
use super::machine::{Entry, Machine, Picks};
use std::collections::BTreeMap;
use tilewright_ir::dsl::{Attention, Tensor};
use tilewright_ir::graph::Role;
use tilewright_ir::op::DotDims;
use tilewright_ir::types::{DType, Dim, Type};

fn float(e: &Entry) -> bool {
    e.tensor.rank() > 0 && e.tensor.dtype().is_float()
}

/// Error of a softmax of `n` values: that of its exponents, of the exponentials, of their sum.
fn softmax_error(x: &Bound, dtype: DType, n: f64) -> f64 {
    let exponent = 2.0 * x.error + 2.0 * epsilon(dtype) * x.magnitude;
    (2.0 * exponent).exp_m1() + n * epsilon(wide(dtype)) + 16.0 * epsilon(dtype)
}

pub fn softmax(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, float)?;
    let (dtype, rank) = (x.tensor.dtype(), x.tensor.rank());
    let axis = if p.one_in(3) { p.below(rank) } else { rank - 1 };
    let n = m.high(&x.tensor.shape()[axis]) as f64;
    let error = softmax_error(&x.bound, dtype, n);
    let large = 2.0 * x.bound.magnitude + n.max(1.0).ln() + 1.0;
    let logs =
        Bound { magnitude: large, unit: None, error: error + 2.0 * x.bound.error + 4.0 * epsilon(dtype) * large };
    let axis = axis as i64;
    let (tensor, bound) = match p.below(4) {
        0 => (x.tensor.log_softmax(axis), logs),
        1 => {
            // Of nothing it is the logarithm of 0.
            m.infinite |= m.empty(&x.tensor.shape()[axis as usize]);
            (x.tensor.logsumexp(axis), logs)
        }
        _ => (x.tensor.softmax(axis), Bound { magnitude: 1.0, unit: None, error }),
    };
    if x.bound.error > 0.5 { None } else { m.done(tensor, bound) }
}

/// Norms of the last axis. 0.5 is added to variances, so that their square roots are tame.
pub fn norm(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, float)?;
    let dtype = x.tensor.dtype();
    let last = x.tensor.shape().last()?.clone();
    let n = m.high(&last) as f64;
    let (e, w) = (epsilon(dtype), epsilon(wide(dtype)));
    let rms = p.one_in(2);
    let magnitude = x.bound.magnitude;
    let mean_error = x.bound.error + n * w * magnitude + 2.0 * e * magnitude;
    let centred = if rms {
        x.bound
    } else {
        Bound { magnitude: 2.0 * magnitude, unit: None, error: x.bound.error + mean_error + 2.0 * e * magnitude }
    };
    let square = centred.times(centred).magnitude;
    let square_error = centred.times(centred).error + (n * w + 4.0 * e) * square;
    if square_error > 0.2 || (dtype == DType::F16 && square > 1e4) || m.low(&last) == 0 {
        return None;
    }
    // 1 / sqrt(0.5), and half of its cube.
    let scale = Bound { magnitude: 1.415, unit: None, error: 2.0 * square_error + 6.0 * e };
    let mut bound = centred.times(scale);
    bound.error += 4.0 * e * bound.magnitude;
    let weight = m.fresh(p, dtype, vec![last.clone()])?;
    let bias = m.fresh(p, dtype, vec![last])?;
    let scaled = bound.times(weight.bound);
    let scaled = Bound { error: scaled.error + 2.0 * e * scaled.magnitude, unit: None, ..scaled };
    let (tensor, bound) = if rms {
        (x.tensor.rms_norm(&weight.tensor, 0.5), scaled)
    } else if p.one_in(2) {
        (x.tensor.layer_norm(None, None, 0.5), bound)
    } else {
        let sum = scaled.plus(bias.bound);
        let sum = Bound { error: sum.error + 2.0 * e * sum.magnitude, unit: None, ..sum };
        (x.tensor.layer_norm(Some(&weight.tensor), Some(&bias.tensor), 0.5), sum)
    };
    m.done(tensor, bound)
}

pub fn attention(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let dtype = p.of(&[DType::F32, DType::F32, DType::F64]);
    let depth = p.of(&[4i64, 8, 16, 1]);
    let width = p.of(&[4i64, 8, 3]);
    let (heads, groups) = p.of(&[(1i64, 1i64), (2, 2), (4, 2), (3, 1)]);
    let queries = m.dim(p);
    let causal = p.one_in(2);
    let keys = if causal { queries.checked_add(&Dim::from(p.below(4)))? } else { m.dim(p) };
    let lead: Vec<Dim> = if p.one_in(3) { vec![Dim::constant(2)] } else { Vec::new() };
    let shape = |a: i64, b: &Dim, c: i64| [lead.clone(), vec![a.into(), b.clone(), c.into()]].concat();
    let (q, k, v) = (shape(heads, &queries, depth), shape(groups, &keys, depth), shape(groups, &keys, width));
    let work = m.elements(&lead) * heads as usize * m.high(&queries) * m.high(&keys) * depth.max(width) as usize;
    if work > super::machine::MOST_PRODUCTS || m.low(&keys) == 0 {
        return None;
    }
    let scores = [lead.clone(), vec![heads.into(), queries.clone(), keys.clone()]].concat();
    if !m.small(&scores) {
        return None;
    }
    let (q, k, v) = (m.fresh(p, dtype, q)?, m.fresh(p, dtype, k)?, m.fresh(p, dtype, v)?);
    let mask = match p.below(4) {
        0 => Some(m.fresh(p, DType::Bool, vec![queries, keys.clone()])?),
        1 => Some(m.fresh(p, dtype, scores)?),
        _ => None,
    };
    let options = Attention { causal, scale: None, mask: mask.as_ref().map(|e| &e.tensor) };
    let tensor = q.tensor.attention(&k.tensor, &v.tensor, options);
    let (e, n) = (epsilon(dtype), m.high(&keys) as f64);
    let score = q.bound.times(k.bound).summed(depth as f64);
    let magnitude = score.magnitude / (depth as f64).sqrt() + 2.0;
    let error = (depth as f64 + 6.0) * e * (score.magnitude + 2.0);
    let weights = softmax_error(&Bound { magnitude, unit: None, error }, dtype, n);
    // The weights sum to one, so their relative error is that of the result.
    let error = v.bound.magnitude * (2.0 * weights + (n + 2.0) * e);
    m.done(tensor, Bound { magnitude: v.bound.magnitude * 1.01, unit: None, error })
}

/// A call of the shared function, whose own size becomes one of ours.
/// A few elements of a product with a bias, along its last axis and perhaps of some rows only, and its folds over that axis:
/// what a loss over classes has.
pub fn lookup(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let x = m.pick_or_fresh(p, DType::F32, float)?;
    let (dtype, depth) = (x.tensor.dtype(), x.tensor.shape().last()?.clone());
    let classes = p.of(&[8i64, 17, 32, 40]);
    let tied = p.one_in(2);
    let w = m.fresh(
        p,
        dtype,
        if tied { vec![classes.into(), depth.clone()] } else { vec![depth.clone(), classes.into()] },
    )?;
    let last = x.tensor.rank() - 1;
    let dims = DotDims { contract: (vec![last], vec![usize::from(tied)]), ..DotDims::default() };
    let logits = product(m, &x, &w, dims, m.high(&depth))?;
    let logits = match p.below(3) {
        0 => {
            let bias = m.fresh(p, dtype, vec![classes.into()])?;
            let shape = logits.tensor.shape().to_vec();
            let sum = logits.bound.plus(bias.bound).rounded(dtype);
            m.done(&logits.tensor + bias.tensor.broadcast_to(shape), sum)?
        }
        _ => logits,
    };
    let logits = match logits.tensor.shape().first().and_then(Dim::as_const) {
        Some(rows) if last > 0 && rows > 1 && p.one_in(2) => {
            let start = p.below(rows as usize) as i64;
            m.done(logits.tensor.slice(0, start, rows), logits.bound)?
        }
        _ => logits,
    };
    let mut few = logits.tensor.shape().to_vec();
    few[last] = Dim::constant(if p.one_in(4) { 2 } else { 1 });
    let ids = m.parameter(Type { dtype: DType::I64, shape: few }, Role::Input, Fill::Below(classes.into()))?;
    let chosen = logits.tensor.take_along(&ids.tensor, -1);
    match p.below(3) {
        0 => m.done(chosen, logits.bound),
        1 => m.done(chosen - logits.tensor.max_keep(&[-1]), logits.bound.plus(logits.bound).rounded(dtype)),
        _ => {
            let n = classes as f64;
            let error = softmax_error(&logits.bound, dtype, n);
            let large = 2.0 * logits.bound.magnitude + n.ln() + 1.0;
            let error = error + 4.0 * logits.bound.error + 6.0 * epsilon(dtype) * large;
            let bound = Bound { magnitude: large, unit: None, error };
            if logits.bound.error > 0.5 {
                None
            } else {
                m.done(logits.tensor.log_softmax(-1).take_along(&ids.tensor, -1), bound)
            }
        }
    }
}

pub fn call(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let callee = m.callee.clone()?;
    let size = p.of(&["m", "17", "4"]);
    let size = size.parse::<i64>().map_or_else(|_| Dim::symbol(size), Dim::from);
    // A size that no parameter says is the caller's of the same name.
    let mut said = Vec::new();
    callee.params.iter().flat_map(|(ty, _, _)| &ty.shape).for_each(|d| d.collect_symbols(&mut said));
    let size = if said.iter().any(|s| **s == *"k") { size } else { Dim::symbol("k") };
    let map = BTreeMap::from([("k".into(), size)]);
    let put = |d: &Dim| d.substitute(&map);
    let mut arguments = Vec::new();
    for (ty, _, fill) in &callee.params {
        let shape = ty.shape.iter().map(put).collect::<Option<Vec<Dim>>>()?;
        let ty = Type { dtype: ty.dtype, shape };
        let fits = |e: &Entry| *e.tensor.ty() == ty && holds(fill, ty.dtype, &e.bound);
        let fill = match fill {
            super::data::Fill::Below(d) => super::data::Fill::Below(put(d)?),
            other => other.clone(),
        };
        arguments.push(match m.pick(p, fits) {
            Some(e) => e,
            None => m.parameter(ty.clone(), tilewright_ir::graph::Role::Input, fill)?,
        });
    }
    let arguments: Vec<&Tensor> = arguments.iter().map(|e| &e.tensor).collect();
    let results = m.graph.call_all("shared", &arguments);
    m.infinite |= callee.infinite;
    let mut entries: Vec<Entry> =
        results.into_iter().zip(&callee.results).filter_map(|(tensor, b)| m.done(tensor, *b)).collect();
    let chosen = p.below(entries.len());
    let last = if entries.is_empty() { return None } else { entries.remove(chosen) };
    m.values.extend(entries);
    Some(last)
}
