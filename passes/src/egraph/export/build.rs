//! Tensors whose dims are named: the value of a node, and the atoms that each of its dims is made of, major to minor.
//! Dims stay merged until an op needs an atom of its own, so that views appear only where they must.

use crate::egraph::facts::AxisInfo;
use crate::egraph::lang::{AxisId, Number};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::infer::require::requirements;
use tilewright_ir::op::{GraphOp, Literal, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// Atoms of one dim; none for a dim of size 1.
pub(super) type Group = Vec<AxisId>;

/// A value of the new function with the names of its dims.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub value: Value,
    pub dims: Vec<Group>,
    /// Axes of which only the positions from low up to high are there; the others may be anything, since a select
    /// passes over them.
    pub windows: BTreeMap<AxisId, (i64, i64)>,
}

impl Tensor {
    pub fn atoms(&self) -> BTreeSet<AxisId> {
        self.dims.iter().flatten().copied().collect()
    }
}

/// The function in the making.
pub(super) struct Builder<'a> {
    pub module: &'a Module,
    pub axes: &'a [AxisInfo],
    pub out: Function,
    /// Sizes that are not negative at any call of the source: its own slices and updates require it.
    facts: Vec<Dim>,
    /// Equal ops on equal operands are one node.
    known: BTreeMap<(GraphOp, Vec<Value>), Value>,
    /// Where the nodes that are made next come from.
    pub scope: Arc<str>,
    pub places: Vec<Place>,
}

pub(super) fn broken(what: &str) -> Diagnostic {
    Diagnostic::bug(format!("terms do not go back to a graph: {what}"))
}

/// What the Graph IR has no op for.
pub(super) fn formless(what: &str) -> Diagnostic {
    Diagnostic::new("no-graph-form", format!("what the optimiser left has no form as a graph: {what}"))
}

pub(super) fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "a size does not fit in 64 bits")
}

/// `from` cut where `to` has other neighbours.
fn units(from: &[Group], to: &[Group]) -> Vec<Group> {
    let next: BTreeMap<AxisId, AxisId> = to.iter().flat_map(|g| g.windows(2)).map(|w| (w[0], w[1])).collect();
    let mut out: Vec<Group> = Vec::new();
    for group in from {
        let mut last = None;
        for &atom in group {
            match (last.and_then(|l| next.get(&l)), out.last_mut()) {
                (Some(&n), Some(unit)) if n == atom => unit.push(atom),
                _other => out.push(vec![atom]),
            }
            last = Some(atom);
        }
    }
    out
}

impl<'a> Builder<'a> {
    /// Errors: `dim-overflow`.
    pub fn new(module: &'a Module, axes: &'a [AxisInfo], source: &Function) -> Result<Builder<'a>, Diagnostic> {
        let mut out = Function::new(&source.name, source.symbols.clone(), source.params.clone());
        for (node, from) in out.nodes.iter_mut().zip(&source.nodes) {
            node.places.clone_from(&from.places);
            node.scope = from.scope.clone();
        }
        let facts = requirements(source)?.into_iter().map(|r| r.size).collect();
        Ok(Builder { module, axes, out, facts, known: BTreeMap::new(), scope: "".into(), places: Vec::new() })
    }

    /// Whether a size is known not to be negative.
    pub fn holds(&self, size: &Dim) -> bool {
        let symbols = &self.out.symbols;
        let rest = |fact: &Dim| size.checked_sub(fact).is_some_and(|r| r.bounds(symbols).0 >= 0);
        size.bounds(symbols).0 >= 0 || self.facts.iter().any(rest)
    }

    /// A node, new each time.
    pub fn node(&mut self, op: GraphOp, args: &[Value]) -> Result<NodeId, Diagnostic> {
        let scope = self.scope.clone();
        let id = self.out.push(self.module, op, args, None, &scope).map_err(|d| match d.code {
            "dim-overflow" | "graph-size" => d,
            _other => broken(&d.message),
        })?;
        self.out.nodes[id.index()].places.clone_from(&self.places);
        Ok(id)
    }

    /// The one result of an op.
    pub fn push(&mut self, op: GraphOp, args: &[Value]) -> Result<Value, Diagnostic> {
        let key = (op, args.to_vec());
        if let Some(&value) = self.known.get(&key) {
            return Ok(value);
        }
        let value = Value { node: self.node(key.0.clone(), args)?, index: 0 };
        self.known.insert(key, value);
        Ok(value)
    }

    pub fn dtype(&self, value: Value) -> DType {
        self.out.ty(value).dtype
    }

    pub fn shape(&self, value: Value) -> &[Dim] {
        &self.out.ty(value).shape
    }

    pub fn size(&self, axis: AxisId) -> Result<&Dim, Diagnostic> {
        self.axes.get(usize::from(axis)).map(|a| &a.dim).ok_or_else(|| broken("an axis has no size"))
    }

    /// Size of a dim whose atoms may be there in part.
    fn extent(&self, group: &[AxisId], windows: &BTreeMap<AxisId, (i64, i64)>) -> Result<Dim, Diagnostic> {
        let mut product = Dim::constant(1);
        for axis in group {
            let size = match windows.get(axis) {
                Some((low, high)) => Dim::constant(high - low),
                None => self.size(*axis)?.clone(),
            };
            product = product.checked_mul(&size).ok_or_else(overflow)?;
        }
        Ok(product)
    }

    fn extents(&self, dims: &[Group], windows: &BTreeMap<AxisId, (i64, i64)>) -> Result<Vec<Dim>, Diagnostic> {
        dims.iter().map(|g| self.extent(g, windows)).collect()
    }

    fn before(&self, value: Value) -> (GraphOp, Option<Value>) {
        let node = self.out.node(value);
        (node.op.clone(), node.args.first().copied())
    }

    pub fn reshape(&mut self, value: Value, shape: Vec<Dim>) -> Result<Value, Diagnostic> {
        if self.shape(value) == shape {
            return Ok(value);
        }
        match self.before(value) {
            (GraphOp::Reshape { .. }, Some(x)) => self.reshape(x, shape),
            (GraphOp::Broadcast { .. }, Some(x)) if self.shape(x).is_empty() => self.broadcast(x, shape, Vec::new()),
            _other => self.push(GraphOp::Reshape { shape }, &[value]),
        }
    }

    fn transpose(&mut self, value: Value, perm: Vec<usize>) -> Result<Value, Diagnostic> {
        if perm.iter().copied().eq(0..perm.len()) {
            return Ok(value);
        }
        match self.before(value) {
            (GraphOp::Transpose { perm: first }, Some(x)) => {
                let both = perm.iter().map(|&p| first[p]).collect();
                self.transpose(x, both)
            }
            _other => self.push(GraphOp::Transpose { perm }, &[value]),
        }
    }

    fn broadcast(&mut self, value: Value, shape: Vec<Dim>, dims: Vec<usize>) -> Result<Value, Diagnostic> {
        if self.shape(value) == shape {
            return Ok(value);
        }
        match self.before(value) {
            (GraphOp::Broadcast { dims: first, .. }, Some(x)) => {
                let both = first.iter().map(|&d| dims[d]).collect();
                self.push(GraphOp::Broadcast { shape, dims: both }, &[x])
            }
            _other => self.push(GraphOp::Broadcast { shape, dims }, &[value]),
        }
    }

    /// `x` with its atoms in the order and dims of `target`, repeated along the atoms that it lacks.
    pub fn convert(&mut self, x: &Tensor, target: &[Group]) -> Result<Tensor, Diagnostic> {
        let done = |value| Tensor { value, dims: target.to_vec(), windows: x.windows.clone() };
        if x.dims == target {
            return Ok(x.clone());
        }
        let wanted: Vec<AxisId> = target.iter().flatten().copied().collect();
        let units = units(&x.dims, target);
        let place = |unit: &Group| wanted.iter().position(|a| unit.first() == Some(a));
        if units.iter().any(|u| place(u).is_none()) {
            return Err(broken("a value depends on an axis that its readers have not"));
        }
        let mut value = self.reshape(x.value, self.extents(&units, &x.windows)?)?;
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.sort_by_key(|&i| place(&units[i]));
        value = self.transpose(value, order)?;
        let (mut parts, mut present): (Vec<Group>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut missing: Vec<Group> = Vec::new();
        for group in target {
            let mut rest = &group[..];
            if rest.is_empty() {
                parts.push(Vec::new());
            }
            while let Some(first) = rest.first() {
                let unit = units.iter().find(|u| u.first() == Some(first));
                let absent = || rest.iter().take_while(|a| !units.iter().any(|u| u.contains(a))).count();
                let count = unit.map_or_else(absent, Vec::len);
                let (now, later) = rest.split_at(count);
                if unit.is_some() {
                    present.push(parts.len());
                } else {
                    missing.push(now.to_vec());
                }
                parts.push(now.to_vec());
                rest = later;
            }
        }
        // A part of one position only needs a dim.
        if self.extents(&missing, &x.windows)?.iter().any(|n| !n.is(1)) {
            value = self.broadcast(value, self.extents(&parts, &x.windows)?, present)?;
        }
        Ok(done(self.reshape(value, self.extents(target, &x.windows)?)?))
    }

    /// `x` with each of `axes` in a dim of its own.
    pub fn isolate(&mut self, x: &Tensor, axes: &BTreeSet<AxisId>) -> Result<Tensor, Diagnostic> {
        let dims = isolated(&x.dims, axes);
        self.convert(x, &dims)
    }

    /// `x` with the positions from `low` up to `high` of an axis that it has; what was not there is 0.
    pub fn window(&mut self, x: &Tensor, axis: AxisId, low: i64, high: i64) -> Result<Tensor, Diagnostic> {
        let size = self.size(axis)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
        let (from, to) = x.windows.get(&axis).copied().unwrap_or((0, size));
        if (from, to) == (low, high) {
            return Ok(x.clone());
        }
        let mut x = self.isolate(x, &BTreeSet::from([axis]))?;
        let dim = x.dims.iter().position(|g| g.contains(&axis)).ok_or_else(|| broken("a part of an absent axis"))?;
        let (first, last) = (low.max(from), high.min(to));
        let (first, last) = if first < last { (first, last) } else { (low.max(from).min(to), low.max(from).min(to)) };
        let cut = (Dim::constant(first - from), Dim::constant(last - from), 1);
        x.value = self.slice(x.value, &BTreeMap::from([(dim, cut)]))?;
        // With nothing in common, all of it is padding.
        let (before, after) = if first < last { (first - low, high - last) } else { (0, high - low) };
        x.value = self.pad(x.value, dim, before, after)?;
        if (low, high) == (0, size) {
            x.windows.remove(&axis);
        } else {
            x.windows.insert(axis, (low, high));
        }
        Ok(x)
    }

    /// All positions of all axes.
    pub fn full(&mut self, x: &Tensor) -> Result<Tensor, Diagnostic> {
        let mut out = x.clone();
        for axis in x.windows.keys() {
            let size = self.size(*axis)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
            out = self.window(&out, *axis, 0, size)?;
        }
        Ok(out)
    }

    /// Start, limit and stride of some dims, the others whole.
    pub fn slice(&mut self, value: Value, cuts: &BTreeMap<usize, (Dim, Dim, i64)>) -> Result<Value, Diagnostic> {
        let shape = self.shape(value).to_vec();
        let whole = |n: &Dim| (Dim::constant(0), n.clone(), 1);
        let all = shape.iter().enumerate().map(|(i, n)| cuts.get(&i).cloned().unwrap_or_else(|| whole(n)));
        let all: Vec<(Dim, Dim, i64)> = all.collect();
        if all.iter().zip(&shape).all(|(c, n)| *c == whole(n)) {
            return Ok(value);
        }
        let start = all.iter().map(|c| c.0.clone()).collect();
        let limit = all.iter().map(|c| c.1.clone()).collect();
        let stride = all.iter().map(|c| c.2).collect();
        self.push(GraphOp::Slice { start, limit, stride }, &[value])
    }

    /// Zeros before and after one dim.
    pub fn pad(&mut self, value: Value, dim: usize, before: i64, after: i64) -> Result<Value, Diagnostic> {
        let zero = self.constant(Number { dtype: self.dtype(value), bits: 0 })?;
        self.pad_with(value, zero, dim, before, after)
    }

    /// A scalar before and after one dim; pads with one scalar are one.
    pub fn pad_with(
        &mut self,
        value: Value,
        fill: Value,
        dim: usize,
        before: i64,
        after: i64,
    ) -> Result<Value, Diagnostic> {
        if before == 0 && after == 0 {
            return Ok(value);
        }
        let none = (Dim::constant(0), Dim::constant(0));
        let mut amounts = vec![none.clone(); self.shape(value).len()];
        amounts[dim] = (Dim::constant(before), Dim::constant(after));
        let node = self.out.node(value);
        if let (GraphOp::Pad { amounts: inner }, [x, same]) = (&node.op, node.args.as_slice())
            && *same == fill
            && inner[dim] == none
        {
            let x = *x;
            let both = inner.iter().zip(&amounts).map(|(a, b)| if *a == none { b.clone() } else { a.clone() });
            amounts = both.collect();
            return self.push(GraphOp::Pad { amounts }, &[x, fill]);
        }
        self.push(GraphOp::Pad { amounts }, &[value, fill])
    }

    /// A scalar.
    pub fn constant(&mut self, number: Number) -> Result<Value, Diagnostic> {
        let (dtype, value) = (number.dtype, number.value());
        let array = if dtype.is_float() {
            Array::from_number(dtype, value)?
        } else {
            let raw = number.bits.to_le_bytes();
            let raw = raw.get(..dtype.block().1).ok_or_else(|| broken("a constant in a block encoding"))?;
            Array::new(dtype, &[], Bytes::new(raw.to_vec()))?
        };
        self.push(GraphOp::Constant { value: Literal(array) }, &[])
    }

    /// A scalar as a tensor without dims.
    pub fn number(&mut self, number: Number) -> Result<Tensor, Diagnostic> {
        Ok(Tensor { value: self.constant(number)?, dims: Vec::new(), windows: BTreeMap::new() })
    }

    pub fn cast(&mut self, to: DType, x: Tensor) -> Result<Tensor, Diagnostic> {
        if self.dtype(x.value) == to {
            return Ok(x);
        }
        let value = self.push(GraphOp::Map { op: ScalarOp::Cast { to } }, &[x.value])?;
        Ok(Tensor { value, ..x })
    }

    /// The position along an axis.
    pub fn iota(&mut self, axis: AxisId, dtype: DType) -> Result<Tensor, Diagnostic> {
        let shape = vec![self.size(axis)?.clone()];
        let value = self.push(GraphOp::Iota { axis: 0, shape, dtype }, &[])?;
        Ok(Tensor { value, dims: vec![vec![axis]], windows: BTreeMap::new() })
    }

    /// A size as a scalar.
    pub fn length(&mut self, dim: &Dim, dtype: DType) -> Result<Tensor, Diagnostic> {
        if let Some(number) = dim.as_const().and_then(|n| Number::new(dtype, n as f64)) {
            return self.number(number);
        }
        let value = self.push(GraphOp::Size { dim: dim.clone() }, &[])?;
        self.cast(dtype, Tensor { value, dims: Vec::new(), windows: BTreeMap::new() })
    }

    /// A scalar op on tensors of any axes; `hints` are dims that its result may have.
    pub fn map(&mut self, op: ScalarOp, args: &[Tensor], hints: &[Vec<Group>]) -> Result<Tensor, Diagnostic> {
        let mut args = args.to_vec();
        let mut windows: BTreeMap<AxisId, (i64, i64)> = BTreeMap::new();
        // Outside of a window an operand may be anything, and so may the result: but where a select decides, what
        // counts is where its condition is known, and one guard of two may be what keeps the other inside: it holds
        // nowhere outside, which is what a window is filled up with.
        let deciding = match op {
            ScalarOp::Select {} => &args[..1],
            ScalarOp::And {} => &[],
            _ => &args[..],
        };
        for (axis, (low, high)) in deciding.iter().flat_map(|a| &a.windows) {
            let (l, h) = windows.entry(*axis).or_insert((*low, *high));
            (*l, *h) = ((*l).max(*low), (*h).min(*high).max((*l).max(*low)));
        }
        for arg in &mut args {
            let axes: BTreeSet<AxisId> = arg.windows.keys().chain(windows.keys()).copied().collect();
            let atoms = arg.atoms();
            for axis in axes.into_iter().filter(|a| atoms.contains(a)) {
                let size = self.size(axis)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
                let (low, high) = windows.get(&axis).copied().unwrap_or((0, size));
                *arg = self.window(arg, axis, low, high)?;
            }
            // An operand that lacks an axis is repeated along the part of it that is there.
            arg.windows.clone_from(&windows);
        }
        let dims: Vec<Vec<Group>> = args.iter().map(|a| a.dims.clone()).collect();
        let target = isolated(&target(&dims, hints), &windows.keys().copied().collect());
        let mut values = Vec::new();
        for arg in &args {
            values.push(self.convert(arg, &target)?.value);
        }
        let value = self.push(GraphOp::Map { op }, &values)?;
        Ok(Tensor { value, dims: target, windows })
    }
}

/// Dims with each of `axes` in one of its own.
pub(super) fn isolated(dims: &[Group], axes: &BTreeSet<AxisId>) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    for group in dims {
        if !group.iter().any(|a| axes.contains(a)) {
            out.push(group.clone());
            continue;
        }
        for part in group.chunk_by(|a, b| !axes.contains(a) && !axes.contains(b)) {
            out.push(part.to_vec());
        }
    }
    out
}

fn stripped(dims: &[Group]) -> Vec<Group> {
    dims.iter().filter(|g| !g.is_empty()).cloned().collect()
}

/// Dims for the atoms of all operands: those of an operand if it has all, else those that the user wrote, else the
/// largest operand's and then what it lacks.
pub(super) fn target(args: &[Vec<Group>], hints: &[Vec<Group>]) -> Vec<Group> {
    let atoms = |dims: &[Group]| dims.iter().flatten().copied().collect::<BTreeSet<AxisId>>();
    let all: BTreeSet<AxisId> = args.iter().flat_map(|a| atoms(a)).collect();
    let covers = |dims: &Vec<Group>| atoms(dims) == all;
    let whole: Vec<&Vec<Group>> = args.iter().filter(|a| covers(a)).collect();
    let fitting = || hints.iter().filter(|h| covers(h));
    if let Some(first) = whole.first() {
        // Operands that agree need no views.
        if whole.iter().all(|a| a == first) {
            return first.to_vec();
        }
        if let Some(hint) = fitting().find(|h| whole.contains(h)) {
            return hint.clone();
        }
    }
    if let Some(hint) = fitting().next() {
        return stripped(hint);
    }
    let Some(base) = args.iter().rev().max_by_key(|a| atoms(a).len()) else { return Vec::new() };
    let mut out = if covers(base) { base.clone() } else { stripped(base) };
    let mut have = atoms(base);
    for group in args.iter().flatten() {
        let rest: Group = group.iter().copied().filter(|a| !have.contains(a)).collect();
        if !rest.is_empty() {
            have.extend(&rest);
            out.push(rest);
        }
    }
    out
}
