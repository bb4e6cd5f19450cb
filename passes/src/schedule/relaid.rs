//! Products of matrices neither of whose operands lies along the fold, as `x^T y` of gradients and of convolutions: a copy of
//! one operand, with the folded axes innermost, makes them products that micro-kernels compute.

use super::contraction::{Columns, Contraction, contraction, factor, strides};
use crate::region::{Affine, AxisId, Index, Output, Region, Term, TermId, coalesce};
use std::collections::BTreeSet;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// A product one of whose operands is copied first.
#[derive(Clone, Debug)]
pub struct Relaid {
    /// The copy, `[others.., folded..]`, of one input.
    pub copy: Region,
    /// What is computed from the copy.
    pub product: Contraction,
    /// Which input of the product is the copy.
    pub input: usize,
}

/// The product of a region that [`contraction`] refuses only because of where its rows lie. Its inputs must be one for each
/// load.
pub fn relaid(region: &Region, weight: &dyn Fn(usize) -> bool, isa: &str) -> Option<Relaid> {
    let (depth, args) = only_product(region)?;
    let last = region.outputs.first()?.axes.last()?;
    // Rows are what the output's last axis, which columns fill, does not come from.
    let mut sides = [(args[0], args[1]), (args[1], args[0])];
    sides.sort_by_key(|(rows, _)| region.free[*rows].contains(last));
    sides.into_iter().find_map(|(rows, columns)| laid_by(region, weight, isa, &depth, (rows, columns)))
}

/// The summed axes, outermost first, and the factors, if the region's folds are the sums of one product.
fn only_product(region: &Region) -> Option<(Vec<AxisId>, [TermId; 2])> {
    let folds = |t: &&(Term, DType)| {
        let (term, _) = t;
        matches!(
            term,
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product
        )
    };
    let outermost = region.terms.iter().rposition(|t| folds(&t))?;
    let (mut depth, mut at) = (Vec::new(), outermost);
    while let Term::Fold { kind: ReduceKind::Sum, axis, arg } = &region.terms[at].0 {
        depth.push(*axis);
        at = *arg;
    }
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[at].0 else { return None };
    let all = region.terms.iter().filter(folds).count() == depth.len();
    (all && !depth.is_empty()).then_some((depth, [*args.first()?, *args.get(1)?]))
}

fn laid_by(
    region: &Region,
    weight: &dyn Fn(usize) -> bool,
    isa: &str,
    depth: &[AxisId],
    (rows, columns): (TermId, TermId),
) -> Option<Relaid> {
    let (from, other) = (factor(region, rows)?, factor(region, columns)?);
    if from.block || from.input == other.input || weight(from.input) {
        return None;
    }
    let load = load_of(region, rows)?;
    let free = &region.free[rows];
    // Folded axes in the order of the other operand's memory, so that they are one there and here.
    let mut folded: Vec<AxisId> = Vec::new();
    for index in other.map {
        let Index::Affine(at) = index else { return None };
        folded.extend(at.terms.iter().map(|t| t.0).filter(|x| depth.contains(x)));
    }
    let mut order: Vec<AxisId> = free.iter().copied().filter(|x| !depth.contains(x)).collect();
    order.extend(folded);
    if order.iter().collect::<BTreeSet<_>>() != free.iter().collect() || order.len() != free.len() {
        return None;
    }
    let shape: Vec<Dim> = order.iter().map(|&x| region.axes[x].1.clone()).collect();
    let (name, ty) = &region.inputs[from.input];
    let ty = Type::new(ty.dtype, shape);
    let copy = copy(region, load, &order)?;
    let mut with = region.clone();
    with.inputs[from.input] = (name.clone(), ty);
    let map = order.iter().map(|&x| Index::Affine(Affine::axis(x))).collect();
    with.terms[load].0 = Term::Load { input: from.input, map, open: false };
    nest(&mut with, depth, &order)?;
    // Merging keeps what an input is called, and each is read by one load.
    let mark: Ident = format!("{name} relaid").into();
    with.inputs[from.input].0 = mark.clone();
    let merged = coalesce(with).with_own_inputs();
    let names: Vec<bool> = merged.inputs.iter().map(|(n, _)| *n == mark).collect();
    let is_weight = |input: usize| !names[input] && named(region, &merged, input).is_some_and(weight);
    let product = contraction(&merged, &is_weight)?;
    let input = product.region.inputs.iter().position(|(n, _)| *n == mark)?;
    (product.a == input).then_some(())?;
    product.row(isa)?;
    Some(Relaid { copy, product, input })
}

impl Relaid {
    /// The copy as a packing into panels of one column each, `(matrix, k, n)`: its last axis is `k`, that before it lies
    /// without gaps in the source, as in a transposed matrix. None for other copies, and for dtypes without such panels.
    pub fn packing(&self) -> Option<(Columns, AxisId, AxisId)> {
        let copy = &self.copy;
        let load = copy.terms.iter().position(|(term, _)| matches!(term, Term::Load { .. }))?;
        let at = strides(copy, &factor(copy, load)?)?;
        let (k, n) = (copy.rank.checked_sub(1)?, copy.rank.checked_sub(2)?);
        let whole = match copy.inputs.first()?.1.dtype {
            DType::F32 | DType::F64 => true,
            // Their panels hold pairs of steps.
            DType::Bf16 => copy.axes[k].1.as_const().is_some_and(|n| n % 2 == 0),
            _other => false,
        };
        let stride = |axis: &AxisId| at.axes.get(axis).cloned();
        let batch = (0..n).map(|axis| Some((axis, stride(&axis)?))).collect::<Option<Vec<_>>>()?;
        let (k_stride, n_stride) = (stride(&k)?, stride(&n)?);
        let transposed = whole && n_stride.is(1);
        transposed.then_some((Columns { offset: at.offset.clone(), batch, k_stride, n_stride }, k, n))
    }
}

/// The input of `region` that an input of another is, by name.
fn named(region: &Region, other: &Region, input: usize) -> Option<usize> {
    region.inputs.iter().position(|(n, _)| *n == other.inputs[input].0)
}

/// The load of a factor, perhaps below a conversion.
fn load_of(region: &Region, term: TermId) -> Option<TermId> {
    match &region.terms[term].0 {
        Term::Load { .. } => Some(term),
        Term::Map(_, args) => args.first().copied().filter(|&x| matches!(region.terms[x].0, Term::Load { .. })),
        _other => None,
    }
}

/// The region that stores a load with these axes, in this order.
fn copy(region: &Region, load: TermId, order: &[AxisId]) -> Option<Region> {
    let (Term::Load { input, map, open: false }, dtype) = &region.terms[load] else { return None };
    let axis = |x: AxisId| order.iter().position(|&o| o == x);
    let place = |index: &Index| {
        let Index::Affine(at) = index else { return None };
        let mut terms = at.terms.iter().map(|&(x, c)| Some((axis(x)?, c))).collect::<Option<Vec<_>>>()?;
        terms.sort_unstable();
        Some(Index::Affine(Affine { base: at.base.clone(), terms }))
    };
    let map = map.iter().map(place).collect::<Option<Vec<_>>>()?;
    Some(coalesce(Region {
        axes: order.iter().map(|&x| region.axes[x].clone()).collect(),
        rank: order.len(),
        inputs: vec![region.inputs[*input].clone()],
        terms: vec![(Term::Load { input: 0, map, open: false }, *dtype)],
        free: vec![(0..order.len()).collect()],
        outputs: vec![Output { root: 0, axes: (0..order.len()).collect() }],
        places: region.places.clone(),
        symbols: region.symbols.clone(),
    }))
}

/// Sums over the folded axes in the order of `order`, outermost first.
fn nest(region: &mut Region, depth: &[AxisId], order: &[AxisId]) -> Option<()> {
    let folded: Vec<AxisId> = order.iter().copied().filter(|x| depth.contains(x)).collect();
    let chain: Vec<TermId> =
        (0..region.terms.len()).filter(|&t| matches!(region.terms[t].0, Term::Fold { .. })).collect();
    // Operands precede users, so the innermost is the first.
    for (&t, &new) in chain.iter().zip(folded.iter().rev()) {
        let Term::Fold { axis, arg, .. } = &mut region.terms[t].0 else { return None };
        *axis = new;
        let arg = *arg;
        region.free[t] = region.free[arg].iter().copied().filter(|x| *x != new).collect();
    }
    (chain.len() == folded.len()).then_some(())
}
