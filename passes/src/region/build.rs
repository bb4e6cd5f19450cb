//! From graph values to terms: movement ops become substitutions of affine index maps.

use super::terms::Terms;
use super::{Affine, AxisId, Index, Output, Region, Term, TermId, overflow};
use std::collections::BTreeMap;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Function, Value};
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{DotDims, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// Where a region gets a value from.
pub enum Source {
    /// It is computed in the region.
    Inline,
    /// It lies in this program buffer.
    Buffer(Ident),
    /// It is the region's contraction.
    Product,
}

/// Builds the region of one value.
pub struct Builder<'f> {
    function: &'f Function,
    source: &'f dyn Fn(Value) -> Source,
    axes: Vec<(Ident, Dim)>,
    inputs: Vec<(Ident, Type)>,
    terms: Terms,
    memo: BTreeMap<(Value, Vec<Affine>, bool), TermId>,
    places: Vec<Place>,
    rank: usize,
}

type Built = Result<TermId, Diagnostic>;

impl<'f> Builder<'f> {
    /// The region that computes `value`, reading what `source` says lies in buffers.
    pub fn region(
        function: &'f Function,
        source: &'f dyn Fn(Value) -> Source,
        value: Value,
    ) -> Result<Region, Diagnostic> {
        Builder::build(function, source, value, false)
    }

    /// The region that copies `value` out of its buffer.
    pub fn copy(
        function: &'f Function,
        source: &'f dyn Fn(Value) -> Source,
        value: Value,
    ) -> Result<Region, Diagnostic> {
        Builder::build(function, source, value, true)
    }

    fn build(
        function: &'f Function,
        source: &'f dyn Fn(Value) -> Source,
        value: Value,
        copy: bool,
    ) -> Result<Region, Diagnostic> {
        // A dim of size 1 has no axis: a loop over it would only keep other axes apart.
        let shape = &function.ty(value).shape;
        let mut axes: Vec<(Ident, Dim)> = Vec::new();
        let mut index: Vec<Affine> = Vec::new();
        for (i, d) in shape.iter().enumerate() {
            if d.is(1) {
                index.push(Affine::constant(Dim::constant(0)));
            } else {
                index.push(Affine::axis(axes.len()));
                axes.push((format!("d{i}").into(), d.clone()));
            }
        }
        let rank = axes.len();
        let mut builder = Builder {
            function,
            source,
            axes,
            inputs: Vec::new(),
            terms: Terms::default(),
            memo: BTreeMap::new(),
            places: Vec::new(),
            rank,
        };
        let root = if copy { builder.value(value, &index, false)? } else { builder.compute(value, &index, false)? };
        let Builder { axes, inputs, terms: Terms { list: terms, free, .. }, places, .. } = builder;
        let outputs = vec![Output { root, axes: (0..rank).collect() }];
        Ok(Region { axes, rank, inputs, terms, free, outputs, places, symbols: function.symbols.clone() })
    }

    fn term(&mut self, term: Term, dtype: DType) -> TermId {
        self.terms.add(term, dtype, self.rank)
    }

    fn map(&mut self, op: ScalarOp, args: Vec<TermId>, dtype: DType) -> TermId {
        self.terms.map(op, args, dtype)
    }

    fn cast(&mut self, to: DType, x: TermId) -> TermId {
        self.terms.cast(to, x)
    }

    fn fresh(&mut self, size: &Dim) -> AxisId {
        let id = self.axes.len();
        self.axes.push((format!("k{id}").into(), size.clone()));
        id
    }

    fn input(&mut self, name: &Ident, ty: Type) -> usize {
        let found = self.inputs.iter().position(|(n, t)| n == name && *t == ty);
        found.unwrap_or_else(|| {
            self.inputs.push((name.clone(), ty));
            self.inputs.len() - 1
        })
    }

    /// Dims of size 1 are not seen, unless the map may leave the input.
    fn load(&mut self, name: &Ident, value: Value, map: Vec<Index>, open: bool) -> TermId {
        let ty = self.function.ty(value);
        let seen = |(index, size): &(Index, &Dim)| match index {
            Index::Affine(at) => open || !size.is(1) || at.as_const() != Some(0),
            Index::Term(_) => true,
        };
        let (map, shape): (Vec<Index>, Vec<&Dim>) = map.into_iter().zip(&ty.shape).filter(seen).unzip();
        let seen = Type { shape: shape.into_iter().cloned().collect(), ..ty.clone() };
        let (dtype, input) = (ty.dtype, self.input(name, seen));
        self.term(Term::Load { input, map, open }, dtype)
    }

    /// `value` at `index`, loaded or computed.
    fn value(&mut self, value: Value, index: &[Affine], open: bool) -> Built {
        match (self.source)(value) {
            Source::Buffer(name) => {
                Ok(self.load(&name, value, index.iter().cloned().map(Index::Affine).collect(), open))
            }
            Source::Product => Ok(self.term(Term::Product, self.function.ty(value).dtype)),
            Source::Inline => self.compute(value, index, open),
        }
    }

    fn compute(&mut self, value: Value, index: &[Affine], open: bool) -> Built {
        let key = (value, index.to_vec(), open);
        if let Some(&id) = self.memo.get(&key) {
            return Ok(id);
        }
        let id = self.op(value, index, open)?;
        for p in &self.function.node(value).places {
            if !self.places.contains(p) {
                self.places.push(p.clone());
            }
        }
        self.memo.insert(key, id);
        Ok(id)
    }

    fn op(&mut self, value: Value, index: &[Affine], open: bool) -> Built {
        if matches!((self.source)(value), Source::Product) {
            return Ok(self.term(Term::Product, self.function.ty(value).dtype));
        }
        let function = self.function;
        let node = function.node(value);
        let dtype = node.types[value.index as usize].dtype;
        match &node.op {
            GraphOp::Constant { value } => Ok(self.term(Term::Const(value.clone()), dtype)),
            GraphOp::Iota { axis, .. } => {
                let position = self.term(Term::Iota(index[*axis].clone()), DType::I64);
                Ok(self.cast(dtype, position))
            }
            GraphOp::Size { dim } => Ok(self.term(Term::Size(dim.clone()), DType::I64)),
            GraphOp::Map { op } => {
                let args = node.args.iter().map(|&a| self.value(a, index, open)).collect::<Result<Vec<_>, _>>()?;
                Ok(self.map(op.clone(), args, dtype))
            }
            GraphOp::Reduce { kind, axes } => self.reduce(*kind, axes, node.args[0], index, open),
            GraphOp::Argmax { axis } => self.arg_fold(true, *axis, node.args[0], index, open),
            GraphOp::Argmin { axis } => self.arg_fold(false, *axis, node.args[0], index, open),
            GraphOp::Dot { dims } => self.dot(dims, node.args[0], node.args[1], index, open),
            GraphOp::Take { axis } => self.take(*axis, value, index, open),
            GraphOp::TakeAlong { axis } => {
                let ids = self.value(node.args[1], index, open)?;
                let ids = self.cast(DType::I64, ids);
                let mut map: Vec<Index> = index.iter().cloned().map(Index::Affine).collect();
                map[*axis] = Index::Term(ids);
                let name = self.buffer(node.args[0])?;
                Ok(self.load(&name, node.args[0], map, open))
            }
            GraphOp::Broadcast { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Slice { .. }
            | GraphOp::Pad { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Reshape { .. }
            | GraphOp::Flip { .. } => self.movement(value, index, open),
            GraphOp::Parameter { .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::ScatterAdd { .. }
            | GraphOp::UpdateSlice { .. }
            | GraphOp::Call { .. }
            | GraphOp::Cond { .. }
            | GraphOp::Scan { .. } => {
                Err(Diagnostic::bug(format!("`{}` is computed inside a region", node.op.info().name)))
            }
        }
    }

    fn buffer(&self, value: Value) -> Result<Ident, Diagnostic> {
        match (self.source)(value) {
            Source::Buffer(name) => Ok(name),
            Source::Inline | Source::Product => Err(Diagnostic::bug("the operand of a gather has no buffer")),
        }
    }

    fn movement(&mut self, value: Value, index: &[Affine], open: bool) -> Built {
        let function = self.function;
        let node = function.node(value);
        let Some(&x) = node.args.first() else { return Err(Diagnostic::bug("a movement op without operand")) };
        let shape = &function.ty(x).shape;
        match &node.op {
            GraphOp::Broadcast { shape: to, dims } => {
                let pick = |(n, &d): (&Dim, &usize)| {
                    if n.is(1) && !to[d].is(1) { Affine::constant(Dim::constant(0)) } else { index[d].clone() }
                };
                let inner: Vec<Affine> = shape.iter().zip(dims).map(pick).collect();
                self.value(x, &inner, open)
            }
            GraphOp::Transpose { perm } => {
                let mut inner = index.to_vec();
                for (i, &p) in perm.iter().enumerate() {
                    inner[p] = index[i].clone();
                }
                self.value(x, &inner, open)
            }
            GraphOp::Slice { start, stride, .. } => {
                let inner = index.iter().zip(start.iter().zip(stride)).map(|(i, (s, &k))| i.scaled(k, s));
                let inner = inner.collect::<Result<Vec<_>, _>>()?;
                self.value(x, &inner, open)
            }
            GraphOp::Flip { axes } => {
                let mut inner = index.to_vec();
                for &a in axes {
                    let last = shape[a].checked_sub(&Dim::constant(1)).ok_or_else(overflow)?;
                    inner[a] = index[a].scaled(-1, &last)?;
                }
                self.value(x, &inner, open)
            }
            GraphOp::Pad { amounts } => {
                let mut inner = Vec::new();
                let mut inside = None;
                for (i, (low, high)) in amounts.iter().enumerate() {
                    let shift = low.checked_mul(&Dim::constant(-1)).ok_or_else(overflow)?;
                    inner.push(index[i].scaled(1, &shift)?);
                    if !low.is(0) {
                        let t = self.compare(ScalarOp::Ge {}, &inner[i], &Dim::constant(0));
                        inside = Some(self.both(inside, t));
                    }
                    if !high.is(0) {
                        let t = self.compare(ScalarOp::Lt {}, &inner[i], &shape[i]);
                        inside = Some(self.both(inside, t));
                    }
                }
                let Some(inside) = inside else { return self.value(x, &inner, open) };
                let (x, fill) = (self.value(x, &inner, true)?, self.value(node.args[1], &[], open)?);
                let dtype = self.terms.dtype(x);
                Ok(self.map(ScalarOp::Select {}, vec![inside, x, fill], dtype))
            }
            GraphOp::Concat { axis } => self.concat(*axis, &node.args, index, open),
            GraphOp::Reshape { shape: to } if only_ones(shape, to) => {
                let mut rest = index.iter().zip(to).filter(|(_, n)| !n.is(1)).map(|(i, _)| i.clone());
                let zero = || Affine::constant(Dim::constant(0));
                let inner: Vec<Affine> =
                    shape.iter().map(|n| if n.is(1) { zero() } else { rest.next().unwrap_or_else(zero) }).collect();
                self.value(x, &inner, open)
            }
            _other => Err(Diagnostic::bug(format!("`{}` is not a movement op", node.op.info().name))),
        }
    }

    fn compare(&mut self, op: ScalarOp, at: &Affine, bound: &Dim) -> TermId {
        let (at, bound) =
            (self.term(Term::Iota(at.clone()), DType::I64), self.term(Term::Size(bound.clone()), DType::I64));
        self.map(op, vec![at, bound], DType::Bool)
    }

    fn both(&mut self, a: Option<TermId>, b: TermId) -> TermId {
        a.map_or(b, |a| self.map(ScalarOp::And {}, vec![a, b], DType::Bool))
    }

    fn concat(&mut self, axis: usize, args: &[Value], index: &[Affine], open: bool) -> Built {
        let mut parts = Vec::new();
        let mut start = Dim::constant(0);
        for &x in args {
            let shift = start.checked_mul(&Dim::constant(-1)).ok_or_else(overflow)?;
            let mut inner = index.to_vec();
            inner[axis] = index[axis].scaled(1, &shift)?;
            start = start.checked_add(&self.function.ty(x).shape[axis]).ok_or_else(overflow)?;
            parts.push((start.clone(), self.value(x, &inner, open || args.len() > 1)?));
        }
        self.choose(&parts, &index[axis])
    }

    /// The part whose end is the first above `at`: as a tree, for its depth is that of many recursions.
    fn choose(&mut self, parts: &[(Dim, TermId)], at: &Affine) -> Built {
        let (first, second) = parts.split_at(parts.len() / 2);
        match (first.last(), second) {
            (Some((end, _)), _) => {
                let inside = self.compare(ScalarOp::Lt {}, at, end);
                let (x, y) = (self.choose(first, at)?, self.choose(second, at)?);
                let dtype = self.terms.dtype(x);
                Ok(self.map(ScalarOp::Select {}, vec![inside, x, y], dtype))
            }
            (None, [(_, only)]) => Ok(*only),
            (None, _) => Err(Diagnostic::bug("a concat without operands")),
        }
    }

    fn take(&mut self, axis: usize, value: Value, index: &[Affine], open: bool) -> Built {
        let function = self.function;
        let args = &function.node(value).args;
        let rank = function.ty(args[1]).rank();
        let ids = self.value(args[1], &index[axis..axis + rank], open)?;
        let ids = self.cast(DType::I64, ids);
        let mut map: Vec<Index> = index[..axis].iter().cloned().map(Index::Affine).collect();
        map.push(Index::Term(ids));
        map.extend(index[axis + rank..].iter().cloned().map(Index::Affine));
        let name = self.buffer(args[0])?;
        Ok(self.load(&name, args[0], map, open))
    }

    /// Puts new axes where `folded` axes are missing from `index`; returns the full index and the new axes, in order.
    fn open_axes(&mut self, x: Value, folded: &[usize], index: &[Affine]) -> (Vec<Affine>, Vec<AxisId>) {
        let shape = self.function.ty(x).shape.clone();
        let (mut inner, mut new, mut rest) = (Vec::new(), Vec::new(), index.iter());
        for (i, n) in shape.iter().enumerate() {
            if folded.contains(&i) {
                let a = self.fresh(n);
                new.push(a);
                inner.push(Affine::axis(a));
            } else {
                inner.extend(rest.next().cloned());
            }
        }
        (inner, new)
    }

    fn reduce(&mut self, kind: ReduceKind, axes: &[usize], x: Value, index: &[Affine], open: bool) -> Built {
        let (inner, new) = self.open_axes(x, axes, index);
        let arg = self.value(x, &inner, open)?;
        let dtype = self.terms.dtype(arg);
        let arg = self.terms.wide(arg);
        let folded = self.terms.fold(kind, &new, arg);
        Ok(self.cast(dtype, folded))
    }

    fn arg_fold(&mut self, largest: bool, axis: usize, x: Value, index: &[Affine], open: bool) -> Built {
        let (inner, new) = self.open_axes(x, &[axis], index);
        let arg = self.value(x, &inner, open)?;
        Ok(self.term(Term::ArgFold { largest, axis: new[0], arg }, DType::I64))
    }

    fn dot(&mut self, dims: &DotDims, x: Value, y: Value, index: &[Affine], open: bool) -> Built {
        let batch = dims.batch.0.len();
        // Axes of size 1 are folded by being left out, but for one where there are no others.
        let sizes: Vec<Dim> = dims.contract.0.iter().map(|&a| self.function.ty(x).shape[a].clone()).collect();
        let all_units = sizes.iter().all(|n| n.is(1));
        let (mut new, mut at) = (Vec::new(), Vec::new());
        for n in &sizes {
            at.push(if n.is(1) && !(all_units && new.is_empty()) {
                Affine::constant(Dim::constant(0))
            } else {
                new.push(self.fresh(n));
                Affine::axis(new[new.len() - 1])
            });
        }
        let mut free = index[batch..].iter();
        let mut side = |builder: &Builder, v: Value, pair: (&[usize], &[usize])| -> Vec<Affine> {
            let rank = builder.function.ty(v).rank();
            (0..rank)
                .filter_map(|i| {
                    if let Some(b) = pair.0.iter().position(|&a| a == i) {
                        return index.get(b).cloned();
                    }
                    if let Some(k) = pair.1.iter().position(|&a| a == i) {
                        return at.get(k).cloned();
                    }
                    free.next().cloned()
                })
                .collect()
        };
        let left = side(self, x, (&dims.batch.0, &dims.contract.0));
        let right = side(self, y, (&dims.batch.1, &dims.contract.1));
        let (a, b) = (self.value(x, &left, open)?, self.value(y, &right, open)?);
        let dtype = self.terms.dtype(a);
        let (a, b) = (self.terms.wide(a), self.terms.wide(b));
        let product = self.map(ReduceKind::Prod.combine(dtype), vec![a, b], self.terms.dtype(a));
        let sum = self.terms.fold(ReduceKind::Sum, &new, product);
        Ok(self.cast(dtype, sum))
    }
}

/// Whether two shapes differ only in axes of size 1: such a reshape moves no index.
pub fn only_ones(a: &[Dim], b: &[Dim]) -> bool {
    a.iter().filter(|n| !n.is(1)).eq(b.iter().filter(|n| !n.is(1)))
}
