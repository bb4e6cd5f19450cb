//! Folds to reductions, sums of products to `dot`, and folds in one pass to what they are defined as: that they are one
//! pass is their kernel's affair.

use super::build::{Group, Tensor, broken};
use super::terms::{Cut, Export};
use crate::egraph::lang::{AxisId, ENode, Fold, Head, Number};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::{DotDims, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::DType;

/// A sum over axes, the outermost first.
struct Nest {
    axes: Vec<AxisId>,
    body: Id,
}

/// What an axis is in a product.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Batch,
    Contract,
    Free,
}

impl Export<'_> {
    pub(super) fn fold(
        &mut self,
        cut: &mut Cut<'_>,
        class: Id,
        node: &ENode,
        fold: Fold,
    ) -> Result<Tensor, Diagnostic> {
        let axis = self.axis(node)?;
        let kind = match fold {
            Fold::Sum => ReduceKind::Sum,
            Fold::Max => ReduceKind::Max,
            Fold::Min => ReduceKind::Min,
            Fold::Prod => ReduceKind::Prod,
            Fold::M2 => return self.second_moment(cut, node, axis),
            Fold::Esum | Fold::EsumIf => return self.online(cut, class, node, axis),
        };
        let nest = self.nest(cut, class, node, fold)?;
        if fold == Fold::Sum
            && let Some(product) = self.product(cut, class, &nest)?
        {
            return Ok(product);
        }
        let body = self.class(cut, nest.body)?;
        self.reduce(kind, &nest.axes, &body)
    }

    /// The atoms that a node of the source folds to make `class`, if one does.
    fn written(&self, class: Id, fold: Fold) -> Option<usize> {
        let same = |kind: ReduceKind| match fold {
            Fold::Sum => kind == ReduceKind::Sum,
            Fold::Max => kind == ReduceKind::Max,
            Fold::Min => kind == ReduceKind::Min,
            Fold::Prod => kind == ReduceKind::Prod,
            Fold::Esum | Fold::EsumIf | Fold::M2 => false,
        };
        self.origins.get(&class)?.iter().find_map(|id| {
            let node = &self.source.nodes[id.index()];
            let axes = match &node.op {
                GraphOp::Reduce { kind, axes } if same(*kind) => axes,
                GraphOp::Dot { dims } if fold == Fold::Sum => &dims.contract.0,
                _other => return None,
            };
            let layout = self.import.layouts.get(node.args.first()?)?;
            Some(axes.iter().filter_map(|&a| layout.get(a)).map(Vec::len).sum())
        })
    }

    /// Folds of one kind inside one another: one fold over all axes that the source folds at once, since it rounds as
    /// one. A fold that a rule made takes in those that are no values of the source.
    fn nest(&self, cut: &Cut<'_>, class: Id, node: &ENode, fold: Fold) -> Result<Nest, Diagnostic> {
        let mut nest = Nest { axes: vec![self.axis(node)?], body: self.child(node, 1)? };
        let written = self.written(class, fold);
        while let Some(inner) = cut.nodes.get(&nest.body)
            && inner.head == Head::Fold(fold)
            && written.map_or_else(
                || !self.origins.contains_key(&nest.body) && !cut.outputs.contains(&nest.body),
                |count| nest.axes.len() < count,
            )
        {
            let axis = self.axis(inner)?;
            if nest.axes.contains(&axis) {
                break;
            }
            nest.axes.push(axis);
            nest.body = self.child(inner, 1)?;
        }
        Ok(nest)
    }

    /// `x` with all of `axes` among its dims.
    fn with(&mut self, x: &Tensor, axes: &[AxisId]) -> Result<Tensor, Diagnostic> {
        let x = self.build.full(x)?;
        let have = x.atoms();
        let missing: Vec<Group> = axes.iter().filter(|a| !have.contains(a)).map(|&a| vec![a]).collect();
        if missing.is_empty() { Ok(x) } else { self.build.convert(&x, &[&x.dims[..], &missing].concat()) }
    }

    /// Folds `axes`, in this order where the order counts.
    fn reduce(&mut self, kind: ReduceKind, axes: &[AxisId], x: &Tensor) -> Result<Tensor, Diagnostic> {
        let x = self.with(x, axes)?;
        let rounds = self.build.dtype(x.value).is_float() && matches!(kind, ReduceKind::Sum | ReduceKind::Prod);
        let folded = |a: &AxisId| axes.contains(a);
        let mut dims: Vec<Group> = Vec::new();
        for group in &x.dims {
            if group.is_empty() {
                dims.push(Vec::new());
            }
            dims.extend(group.chunk_by(|a, b| folded(a) == folded(b)).map(<[AxisId]>::to_vec));
        }
        let order = dims.iter().flatten().copied().filter(folded);
        if rounds && !order.eq(axes.iter().copied()) {
            dims.retain(|g| !g.first().is_some_and(folded));
            dims.push(axes.to_vec());
        }
        let x = self.build.convert(&x, &dims)?;
        let gone: Vec<usize> = (0..dims.len()).filter(|&i| dims[i].first().is_some_and(folded)).collect();
        dims.retain(|g| !g.first().is_some_and(folded));
        let value = self.build.push(GraphOp::Reduce { kind, axes: gone }, &[x.value])?;
        Ok(Tensor { value, dims, windows: BTreeMap::new() })
    }

    fn is_dot(&self, class: Id) -> bool {
        let nodes = self.origins.get(&class).into_iter().flatten();
        nodes.into_iter().any(|n| matches!(self.source.nodes[n.index()].op, GraphOp::Dot { .. }))
    }

    /// A sum of products of two factors, where that is a product of matrices or was written as one.
    fn product(&mut self, cut: &mut Cut<'_>, class: Id, nest: &Nest) -> Result<Option<Tensor>, Diagnostic> {
        let dtype = self.dtype(nest.body)?;
        let Some(factor) = cut.nodes.get(&nest.body).cloned() else { return Ok(None) };
        if factor.head != Head::Scalar(ReduceKind::Prod.combine(dtype)) {
            return Ok(None);
        }
        let written = self.is_dot(class);
        // Products of halves would be rounded each.
        if dtype.folded() != dtype && !written {
            return Ok(None);
        }
        let (left, right) = (self.child(&factor, 0)?, self.child(&factor, 1)?);
        let (a, b) = (self.class(cut, left)?, self.class(cut, right)?);
        self.dot(&nest.axes, &a, &b, written)
    }

    /// `dot`, unless it has no rows or columns and was not written so.
    fn dot(&mut self, axes: &[AxisId], a: &Tensor, b: &Tensor, written: bool) -> Result<Option<Tensor>, Diagnostic> {
        let (mut a, mut b) = (self.build.full(a)?, self.build.full(b)?);
        let shared: BTreeSet<AxisId> = a.atoms().intersection(&b.atoms()).copied().collect();
        let free = |x: &Tensor| x.atoms().iter().any(|axis| !shared.contains(axis) && !axes.contains(axis));
        if !written && !(axes.iter().all(|axis| shared.contains(axis)) && (free(&a) || free(&b))) {
            return Ok(None);
        }
        (a, b) = (self.with(&a, axes)?, self.with(&b, axes)?);
        let both: BTreeSet<AxisId> = a.atoms().intersection(&b.atoms()).copied().collect();
        let part = |axis: &AxisId| match (axes.contains(axis), both.contains(axis)) {
            (true, _) => Part::Contract,
            (false, true) => Part::Batch,
            (false, false) => Part::Free,
        };
        let pairs = |dims: &[Group]| -> BTreeSet<(AxisId, AxisId)> {
            dims.iter().flat_map(|g| g.windows(2)).map(|w| (w[0], w[1])).collect()
        };
        let (in_a, in_b, in_nest) = (pairs(&a.dims), pairs(&b.dims), pairs(&[axes.to_vec()]));
        // Neighbours stay in one dim where both operands, and the order of the sum, have them so.
        let joined = |x: &AxisId, y: &AxisId| {
            let pair = (*x, *y);
            part(x) == part(y)
                && match part(x) {
                    Part::Free => true,
                    Part::Batch => in_a.contains(&pair) && in_b.contains(&pair),
                    Part::Contract => in_a.contains(&pair) && in_b.contains(&pair) && in_nest.contains(&pair),
                }
        };
        let split = |dims: &[Group]| -> Vec<Group> {
            let each = |g: &Group| {
                if g.is_empty() { vec![Vec::new()] } else { g.chunk_by(joined).map(<[_]>::to_vec).collect() }
            };
            dims.iter().flat_map(each).collect()
        };
        let (left, right) = (split(&a.dims), split(&b.dims));
        let (a, b) = (self.build.convert(&a, &left)?, self.build.convert(&b, &right)?);
        let kind = |g: &Group| g.first().map_or(Part::Free, &part);
        let of = |dims: &[Group], wanted: Part| -> Vec<Group> {
            dims.iter().filter(|g| kind(g) == wanted).cloned().collect()
        };
        let mut contract = of(&left, Part::Contract);
        contract.sort_by_key(|g| axes.iter().position(|a| g.first() == Some(a)));
        let batch = of(&left, Part::Batch);
        let places = |groups: &[Group], dims: &[Group]| -> Result<Vec<usize>, Diagnostic> {
            let place = |g: &Group| dims.iter().position(|d| d == g).ok_or_else(|| broken("a product's axes differ"));
            groups.iter().map(place).collect()
        };
        let dims = DotDims {
            batch: (places(&batch, &left)?, places(&batch, &right)?),
            contract: (places(&contract, &left)?, places(&contract, &right)?),
        };
        let value = self.build.push(GraphOp::Dot { dims }, &[a.value, b.value])?;
        let dims = [batch, of(&left, Part::Free), of(&right, Part::Free)].concat();
        Ok(Some(Tensor { value, dims, windows: BTreeMap::new() }))
    }

    /// A product of halves, which the import wrote as casts around a sum in f32.
    pub(super) fn half_product(
        &mut self,
        cut: &mut Cut<'_>,
        class: Id,
        node: &ENode,
    ) -> Result<Option<Tensor>, Diagnostic> {
        let dtype = self.dtype(class)?;
        if dtype.folded() == dtype || !self.is_dot(class) {
            return Ok(None);
        }
        let Some(sum) = cut.nodes.get(&self.child(node, 0)?).filter(|n| n.head == Head::Fold(Fold::Sum)).cloned()
        else {
            return Ok(None);
        };
        let nest = self.nest(cut, class, &sum, Fold::Sum)?;
        let Some(product) = cut.nodes.get(&nest.body).filter(|n| n.head == Head::Scalar(ScalarOp::Mul {})).cloned()
        else {
            return Ok(None);
        };
        let mut factors = Vec::new();
        for i in 0..product.children.len() {
            let child = self.child(&product, i)?;
            let Some(wide) = cut.nodes.get(&child).filter(|n| matches!(n.head, Head::Scalar(ScalarOp::Cast { .. })))
            else {
                return Ok(None);
            };
            let half = self.child(wide, 0)?;
            if self.dtype(half)? != dtype {
                return Ok(None);
            }
            factors.push(half);
        }
        let &[left, right] = factors.as_slice() else { return Ok(None) };
        let (a, b) = (self.class(cut, left)?, self.class(cut, right)?);
        self.dot(&nest.axes, &a, &b, true)
    }

    fn scalar_of(&mut self, dtype: DType, value: f64) -> Result<Tensor, Diagnostic> {
        let number = Number::new(dtype, value).ok_or_else(|| broken("a number that its dtype lacks"))?;
        self.build.number(number)
    }

    /// (m2 j x): sum_j (x - sum_j x / n)^2.
    fn second_moment(&mut self, cut: &mut Cut<'_>, node: &ENode, axis: AxisId) -> Result<Tensor, Diagnostic> {
        let x = self.class(cut, self.child(node, 1)?)?;
        let dtype = self.build.dtype(x.value);
        let sum = self.reduce(ReduceKind::Sum, &[axis], &x)?;
        let size = self.build.size(axis)?.clone();
        let count = self.build.length(&size, dtype)?;
        let mean = self.build.map(ScalarOp::Div {}, &[sum, count], &[])?;
        let distance = self.build.map(ScalarOp::Sub {}, &[x, mean], &[])?;
        let square = self.build.map(ScalarOp::Mul {}, &[distance.clone(), distance], &[])?;
        self.reduce(ReduceKind::Sum, &[axis], &square)
    }

    /// (esum j s w): sum_j exp(s - max_j s) * w; (esum-if j p s w) has -inf for s where p does not hold.
    fn online(&mut self, cut: &mut Cut<'_>, class: Id, node: &ENode, axis: AxisId) -> Result<Tensor, Diagnostic> {
        let mut args = Vec::new();
        for i in 1..node.children.len() {
            args.push(self.child(node, i)?);
        }
        let (mask, key, weight) = match args.as_slice() {
            &[key, weight] => (None, key, weight),
            &[mask, key, weight] => (Some(mask), key, weight),
            _other => return Err(broken("an online fold lacks its operands")),
        };
        let mut key = self.class(cut, key)?;
        if let Some(mask) = mask {
            let mask = self.class(cut, mask)?;
            let hidden = self.scalar_of(self.build.dtype(key.value), f64::NEG_INFINITY)?;
            key = self.build.map(ScalarOp::Select {}, &[mask, key, hidden], &[])?;
        }
        let most = self.reduce(ReduceKind::Max, &[axis], &key)?;
        let below = self.build.map(ScalarOp::Sub {}, &[key, most], &[])?;
        let share = self.build.map(ScalarOp::Exp {}, &[below], &[])?;
        if self.graph[weight].data.number.is_some_and(|n| n.value() == 1.0) {
            return self.reduce(ReduceKind::Sum, &[axis], &share);
        }
        let weight = self.class(cut, weight)?;
        if let Some(product) = self.dot(&[axis], &share, &weight, self.is_dot(class))? {
            return Ok(product);
        }
        let product = self.build.map(ScalarOp::Mul {}, &[share, weight], &[])?;
        self.reduce(ReduceKind::Sum, &[axis], &product)
    }
}
