//! Phase two of the import: terms. Movement makes no node; an operand is renamed by `at` where its axes differ.

use super::super::clock::stopped;
use super::super::facts::{Graph, InputInfo};
use super::super::lang::{Affine, Attr, AxisId, ENode, Fold, GATHERED, Head, Number, axis_bit};
use super::axes::{Coalescer, Var};
use super::plan::{Cut, Planned, Planner};
use super::{Import, Refusal, Root, Stored};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::{GraphOp, Literal, PadAmounts, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// Reasons are static: they name no number.
type Step<T> = Result<T, &'static str>;

/// The number that every element of a constant is, if it is one.
pub(super) fn uniform(literal: &Literal) -> Option<Number> {
    let values = literal.0.to_f64()?;
    let (first, rest) = values.split_first()?;
    let same = rest.iter().all(|v| v.to_bits() == first.to_bits());
    if same { Number::new(literal.0.dtype(), *first) } else { None }
}

/// Which nodes are parameters that only barriers read.
fn passing(f: &Function, barriers: &BTreeMap<NodeId, String>) -> Vec<bool> {
    let mut passing: Vec<bool> = f.nodes.iter().map(|n| matches!(n.op, GraphOp::Parameter { .. })).collect();
    f.results.iter().for_each(|r| passing[r.node.index()] = false);
    let others = (0u32..).map(NodeId).zip(&f.nodes).filter(|(id, _)| !barriers.contains_key(id));
    others.flat_map(|(_, node)| &node.args).for_each(|a| passing[a.node.index()] = false);
    passing
}

pub(super) struct Builder<'a> {
    pub(super) function: &'a Function,
    pub(super) axes: &'a Coalescer,
    pub(super) plans: &'a [Planned],
    pub(super) barriers: &'a BTreeMap<NodeId, String>,
    /// By atom.
    pub(super) numbers: Vec<Option<AxisId>>,
    /// Parameters that only barriers read, by node.
    passing: Vec<bool>,
    pub(super) out: Import,
}

impl<'a> Builder<'a> {
    pub fn new(function: &'a Function, planner: &'a Planner<'a>) -> Builder<'a> {
        let mut graph = Graph::default();
        graph.analysis.symbols = function.symbols.clone();
        let out = Import {
            graph,
            classes: BTreeMap::new(),
            layouts: BTreeMap::new(),
            roots: Vec::new(),
            stored: Vec::new(),
            barriers: planner.barriers.clone(),
            origins: BTreeMap::new(),
            copies: 0,
        };
        let (axes, plans, barriers) = (&planner.axes, &planner.plans[..], planner.barriers);
        let passing = passing(function, barriers);
        Builder { function, axes, plans, barriers, numbers: vec![None; planner.axes.len()], passing, out }
    }

    fn axis(&self, leaf: Var) -> Step<AxisId> {
        self.numbers.get(leaf).copied().flatten().ok_or("an axis that no value has")
    }

    fn atoms(&self, dims: &[Var]) -> Step<Vec<AxisId>> {
        self.axes.all(dims).into_iter().map(|leaf| self.axis(leaf)).collect()
    }

    fn add(&mut self, head: Head, children: Vec<Id>) -> Id {
        self.out.graph.add(ENode::new(head, children))
    }

    fn leaf(&mut self, attr: Attr) -> Id {
        self.out.graph.add(ENode::attr(attr))
    }

    fn scalar(&mut self, op: ScalarOp, children: Vec<Id>) -> Id {
        self.add(Head::Scalar(op), children)
    }

    fn number(&mut self, dtype: DType, value: i64) -> Step<Id> {
        let number = Number::new(dtype, value as f64).filter(|n| n.value() as i64 == value).ok_or("a huge number")?;
        Ok(self.leaf(Attr::Const(number)))
    }

    fn on_axis(&mut self, head: Head, axis: AxisId, dtype: DType) -> Id {
        let children = vec![self.leaf(Attr::Axis(axis)), self.leaf(Attr::DType(dtype))];
        self.add(head, children)
    }

    /// Position along a dim: its atoms as digits of a mixed radix. Integers are computed as positions are, and then converted.
    fn iota(&mut self, dim: Var, dtype: DType) -> Step<Id> {
        if dtype.is_int() && dtype != DType::I64 && self.atoms(&[dim])?.len() > 1 {
            let position = self.iota(dim, DType::I64)?;
            return Ok(self.scalar(ScalarOp::Cast { to: dtype }, vec![position]));
        }
        let mut sum = None;
        for axis in self.atoms(&[dim])? {
            let digit = self.on_axis(Head::Iota, axis, dtype);
            sum = Some(match sum {
                None => digit,
                Some(major) => {
                    let extent = self.extent(axis, dtype)?;
                    let scaled = self.scalar(ScalarOp::Mul {}, vec![major, extent]);
                    self.scalar(ScalarOp::Add {}, vec![scaled, digit])
                }
            });
        }
        match sum {
            Some(id) => Ok(id),
            None => self.number(dtype, 0),
        }
    }

    /// The size of an axis: one class for all axes of one size, and for the number that it is.
    fn extent(&mut self, axis: AxisId, dtype: DType) -> Step<Id> {
        let dim = self.out.graph.analysis.axes.get(usize::from(axis)).map(|a| a.dim.clone()).ok_or("no such axis")?;
        let id = self.on_axis(Head::Extent, axis, dtype);
        let other = match dim.as_const() {
            Some(n) => self.number(dtype, n)?,
            None => {
                let first = self.axis_of_size(&dim).ok_or("no such axis")?;
                self.on_axis(Head::Extent, first, dtype)
            }
        };
        // Rebuilt once, at the end: rebuilding here would make the import quadratic.
        self.out.graph.union(id, other);
        Ok(self.out.graph.find(id))
    }

    fn axis_of_size(&self, dim: &Dim) -> Option<AxisId> {
        self.out.graph.analysis.axes.iter().position(|a| a.dim == *dim).and_then(|i| AxisId::try_from(i).ok())
    }

    /// `at` over what differs, as far as the class depends on it.
    fn at(&mut self, mut map: Vec<(AxisId, Affine)>, class: Id) -> Id {
        let free = self.out.graph[class].data.free;
        map.retain(|(axis, with)| free & axis_bit(*axis) != 0 && with.as_axis() != Some(*axis));
        map.sort();
        map.dedup();
        if map.is_empty() {
            return class;
        }
        self.out.copies += 1;
        let leaf = self.leaf(Attr::Subst(map));
        self.add(Head::At, vec![leaf, class])
    }

    fn class(&self, value: Value) -> Step<Id> {
        self.out.classes.get(&value).copied().ok_or("an operand that was not imported")
    }

    pub(super) fn dims(&self, value: Value) -> &'a [Var] {
        self.plans[value.node.index()].dims.get(value.index as usize).map_or(&[], |d| &d[..])
    }

    /// The atoms of one dim under the name of another.
    fn renamed(&self, from: Var, to: Var) -> Step<Vec<(AxisId, Affine)>> {
        let (from, to) = (self.atoms(&[from])?, self.atoms(&[to])?);
        if from.len() != to.len() {
            return Err("its dims were split after their names parted");
        }
        Ok(from.into_iter().zip(to).map(|(f, t)| (f, Affine::axis(t))).collect())
    }

    /// A value read under the names `to` of its dims.
    fn view(&mut self, value: Value, to: &[Var]) -> Step<Id> {
        let mut map = Vec::new();
        for (from, to) in self.dims(value).iter().zip(to) {
            map.extend(self.renamed(*from, *to)?);
        }
        let class = self.class(value)?;
        Ok(self.at(map, class))
    }

    /// A tensor in memory, loaded at its own atoms.
    fn load(&mut self, value: Value) -> Step<Id> {
        let axes = self.atoms(self.dims(value))?;
        let number = self.in_memory(value, &axes)?;
        let map = axes.into_iter().map(Affine::axis).collect();
        let children = vec![self.leaf(Attr::Input(number)), self.leaf(Attr::Map(map))];
        Ok(self.add(Head::Load, children))
    }

    /// The number of a tensor in memory that has these atoms.
    fn in_memory(&mut self, value: Value, axes: &[AxisId]) -> Step<u32> {
        let dtype = self.function.ty(value).dtype;
        let tables = &mut self.out.graph.analysis;
        let atoms = axes.iter().filter_map(|a| tables.axes.get(usize::from(*a))).map(|a| a.dim.clone()).collect();
        let number = u32::try_from(self.out.stored.len()).map_err(|_| "too many tensors")?;
        let name = match self.function.params.get(value.node.index()) {
            Some(param) => param.name.clone(),
            None => format!("node{}.{}", value.node.0, value.index).into(),
        };
        tables.inputs.push(InputInfo { name, dtype });
        self.out.stored.push(Stored { value, atoms });
        Ok(number)
    }

    /// A parameter that only barriers read: it is in memory, and has no term. The blocks of a model have their weights from it so.
    fn passed_on(&mut self, value: Value) -> Step<()> {
        let atoms = self.atoms(self.dims(value))?;
        self.in_memory(value, &atoms).map(|_| ())
    }

    fn root(&mut self, value: Value) -> Step<()> {
        let (class, axes) = (self.class(value)?, self.atoms(self.dims(value))?);
        self.out.roots.push(Root { value, class, axes });
        Ok(())
    }

    /// Builds node `id`. `Err` says why it has no index form after all.
    pub fn node(&mut self, id: NodeId, node: &Node) -> Result<(), Refusal> {
        let refuse = |why: &str| Refusal { node: id, why: why.into() };
        let barrier = self.barriers.contains_key(&id);
        for index in (0u32..).take(node.types.len()) {
            let value = Value { node: id, index };
            if self.passing[id.index()] {
                self.passed_on(value).map_err(refuse)?;
                continue;
            }
            let class = if barrier { self.load(value) } else { self.term(value, node) };
            let class = class.map_err(refuse)?;
            self.out.classes.insert(value, class);
            let layout: Step<Vec<_>> = self.dims(value).iter().map(|d| self.atoms(&[*d])).collect();
            self.out.layouts.insert(value, layout.map_err(refuse)?);
            self.out.origins.entry(class).or_default().push(id);
        }
        Ok(())
    }

    fn term(&mut self, value: Value, node: &Node) -> Step<Id> {
        let plans = self.plans;
        let planned = &plans[value.node.index()];
        let (dims, dtype) = (self.dims(value), self.function.ty(value).dtype);
        let arg = |i: usize| node.args.get(i).copied().ok_or("an operand is missing");
        match &node.op {
            GraphOp::Parameter { .. } => self.load(value),
            GraphOp::Constant { value: literal } => match uniform(literal) {
                Some(number) => Ok(self.leaf(Attr::Const(number))),
                None => self.load(value),
            },
            GraphOp::Iota { axis, .. } => self.iota(dims[*axis], dtype),
            GraphOp::Size { dim } => self.size(dim, dtype),
            GraphOp::Map { op } => {
                // A size is exact in every dtype that it is used in, so that rules see one term.
                if let (ScalarOp::Cast { to }, GraphOp::Size { dim }) = (op, &self.function.node(arg(0)?).op)
                    && to.is_float()
                {
                    return self.size(dim, *to);
                }
                let args = node.args.iter().map(|&v| self.view(v, dims)).collect::<Step<Vec<Id>>>()?;
                Ok(self.scalar(op.clone(), args))
            }
            GraphOp::Reduce { kind, axes } => {
                let x = arg(0)?;
                let folded: Vec<Var> = axes.iter().map(|&i| self.dims(x)[i]).collect();
                let body = self.class(x)?;
                self.fold(*kind, &folded, body, dtype)
            }
            GraphOp::Dot { dims: pairs } => {
                let (left, right) = (self.class(arg(0)?)?, self.view(arg(1)?, &planned.target)?);
                // A product of halves rounds once, after its sum.
                let half = matches!(dtype, DType::F16 | DType::Bf16);
                let wide = if half { DType::F32 } else { dtype };
                let to = |to| ScalarOp::Cast { to };
                let mut widened = |x| if half { self.scalar(to(wide), vec![x]) } else { x };
                let factors = vec![widened(left), widened(right)];
                let product = self.scalar(ReduceKind::Prod.combine(dtype), factors);
                let folded: Vec<Var> = pairs.contract.0.iter().map(|&i| self.dims(node.args[0])[i]).collect();
                let sum = self.fold(ReduceKind::Sum, &folded, product, wide)?;
                if !half {
                    return Ok(sum);
                }
                let rounded = self.scalar(to(dtype), vec![sum]);
                self.out.graph.analysis.rounded.push(rounded);
                Ok(rounded)
            }
            GraphOp::Broadcast { .. } | GraphOp::Reshape { .. } | GraphOp::Transpose { .. } => self.class(arg(0)?),
            GraphOp::Slice { .. } | GraphOp::Flip { .. } => self.slice(arg(0)?, dims, &planned.cuts),
            GraphOp::Pad { amounts } => self.pad(arg(0)?, arg(1)?, dims, amounts),
            GraphOp::Concat { axis } => self.concat(node, *axis, dims, &planned.target),
            GraphOp::Take { axis } => self.take(arg(0)?, arg(1)?, *axis),
            GraphOp::TakeAlong { .. }
            | GraphOp::Argmax { .. }
            | GraphOp::Argmin { .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::ScatterAdd { .. }
            | GraphOp::UpdateSlice { .. }
            | GraphOp::Call { .. }
            | GraphOp::Cond { .. }
            | GraphOp::Scan { .. } => Err("has no term"),
        }
    }

    fn size(&mut self, dim: &Dim, dtype: DType) -> Step<Id> {
        match dim.as_const() {
            Some(n) => self.number(dtype, n),
            None => {
                let axis = self.axis_of_size(dim).ok_or("a size that no axis has")?;
                Ok(self.on_axis(Head::Extent, axis, dtype))
            }
        }
    }

    fn fold(&mut self, kind: ReduceKind, dims: &[Var], body: Id, dtype: DType) -> Step<Id> {
        let fold = match kind {
            ReduceKind::Sum => Fold::Sum,
            ReduceKind::Max => Fold::Max,
            ReduceKind::Min => Fold::Min,
            ReduceKind::Prod => Fold::Prod,
        };
        let mut out = body;
        for axis in self.atoms(dims)?.into_iter().rev() {
            if dtype.is_float() && fold == Fold::Sum {
                // A mean divides by it, written as a number or as a size.
                self.extent(axis, dtype)?;
            }
            let axis = self.leaf(Attr::Axis(axis));
            out = self.add(Head::Fold(fold), vec![axis, out]);
        }
        Ok(out)
    }

    fn slice(&mut self, x: Value, dims: &[Var], cuts: &[Cut]) -> Step<Id> {
        let mut map = Vec::new();
        for ((&from, &to), cut) in self.dims(x).iter().zip(dims).zip(cuts) {
            let (from_leaves, to) = (self.axes.leaves(from), self.atoms(&[to])?);
            match *cut {
                Cut::Whole => {}
                Cut::Fixed { fixed, at, minor } => {
                    let count = self.axes.leaves(fixed).len();
                    if from_leaves.len() != count + to.len() {
                        return Err("a slice cuts inside an axis");
                    }
                    let (gone, kept) = if minor {
                        let (kept, gone) = from_leaves.split_at(to.len());
                        (gone, kept)
                    } else {
                        from_leaves.split_at(count)
                    };
                    let mut rest = at;
                    for &leaf in gone.iter().rev() {
                        let size = self.axes.dim(leaf).as_const().filter(|n| *n > 0);
                        let (position, more) = match size {
                            Some(n) => (rest % n, rest / n),
                            None if gone.len() == 1 || rest == 0 => (rest, 0),
                            None => return Err("a slice at a symbolic digit"),
                        };
                        map.push((self.axis(leaf)?, Affine::constant(position)));
                        rest = more;
                    }
                    for (&leaf, &axis) in kept.iter().zip(&to) {
                        map.push((self.axis(leaf)?, Affine::axis(axis)));
                    }
                }
                Cut::Affine { start, stride } => {
                    let ([leaf], [] | [_]) = (from_leaves.as_slice(), to.as_slice()) else {
                        return Err("a slice cuts inside a split axis");
                    };
                    let terms = to.iter().map(|&axis| (axis, stride)).collect();
                    map.push((self.axis(*leaf)?, Affine { constant: start, terms }));
                }
            }
        }
        let class = self.class(x)?;
        Ok(self.at(map, class))
    }

    /// `yes` where `low <= iota < high` along a dim, else `no`.
    fn between(&mut self, dim: Var, low: i64, high: i64, yes: Id, no: Id) -> Step<Id> {
        let position = self.iota(dim, DType::I64)?;
        let (low, high) = (self.number(DType::I64, low)?, self.number(DType::I64, high)?);
        let above = self.scalar(ScalarOp::Le {}, vec![low, position]);
        let below = self.scalar(ScalarOp::Lt {}, vec![position, high]);
        let inside = self.scalar(ScalarOp::And {}, vec![above, below]);
        Ok(self.scalar(ScalarOp::Select {}, vec![inside, yes, no]))
    }

    /// `at` that reads one dim of `x` at `position - offset`, the other dims under the names `to`. All at once: another
    /// dim may take the name that the shifted one has.
    fn shifted(&mut self, x: Value, axis: usize, to: &[Var], offset: i64) -> Step<Id> {
        let mut map = Vec::new();
        for (i, (&from, &to)) in self.dims(x).iter().zip(to).enumerate() {
            if i != axis {
                map.extend(self.renamed(from, to)?);
                continue;
            }
            let (from, to) = (self.atoms(&[from])?, self.atoms(&[to])?);
            match (from.as_slice(), to.as_slice()) {
                // One element has no axis: every position reads it, and a select chooses where it counts.
                ([], _) => {}
                ([from], [to]) => {
                    let constant = offset.checked_neg().ok_or("a huge offset")?;
                    map.push((*from, Affine { constant, ..Affine::axis(*to) }));
                }
                ([_, ..], _) => return Err("joins or pads a split axis"),
            }
        }
        let class = self.class(x)?;
        Ok(self.at(map, class))
    }

    fn pad(&mut self, x: Value, fill: Value, dims: &[Var], amounts: &PadAmounts) -> Step<Id> {
        let padded: Vec<usize> = (0..dims.len()).filter(|&i| !(amounts[i].0.is(0) && amounts[i].1.is(0))).collect();
        let number = |d: &Dim| d.as_const().ok_or("pads by a symbolic size");
        let mut map = Vec::new();
        for &i in &padded {
            let (from, to) = (self.atoms(&[self.dims(x)[i]])?, self.atoms(&[dims[i]])?);
            let before = number(&amounts[i].0)?;
            match (from.as_slice(), to.as_slice()) {
                ([], _) => {}
                ([from], [to]) => map.push((*from, Affine { constant: -before, ..Affine::axis(*to) })),
                ([_, ..], _) => return Err("pads a split axis"),
            }
        }
        let class = self.class(x)?;
        let mut out = self.at(map, class);
        let fill = self.class(fill)?;
        for &i in &padded {
            let before = number(&amounts[i].0)?;
            let size = number(&self.function.ty(x).shape[i])?;
            let end = before.checked_add(size).ok_or("a huge size")?;
            out = self.between(dims[i], before, end, out, fill)?;
        }
        Ok(out)
    }

    fn concat(&mut self, node: &Node, axis: usize, dims: &[Var], target: &[Var]) -> Step<Id> {
        let mut parts = Vec::new();
        let mut offset = 0i64;
        for (number, &part) in (0i64..).zip(&node.args) {
            if let [_, position] = target {
                let mut names = dims.to_vec();
                names[axis] = *position;
                parts.push((number, self.view(part, &names)?));
            } else {
                let size = self.function.ty(part).shape[axis].as_const().ok_or("joins symbolic sizes")?;
                parts.push((offset, self.shifted(part, axis, dims, offset)?));
                offset = offset.checked_add(size).ok_or("a huge size")?;
            }
        }
        let position = self.iota(target.first().copied().unwrap_or(dims[axis]), DType::I64)?;
        // The last part whose start is not after the position.
        let mut parts = parts.into_iter();
        let (_, mut out) = parts.next().ok_or("joins nothing")?;
        for (start, part) in parts {
            let start = self.number(DType::I64, start)?;
            let before = self.scalar(ScalarOp::Lt {}, vec![position, start]);
            out = self.scalar(ScalarOp::Select {}, vec![before, out, part]);
        }
        Ok(out)
    }

    fn take(&mut self, table: Value, ids: Value, axis: usize) -> Step<Id> {
        let Some(number) = self.out.stored_at(table) else {
            return Err("takes from a computed value");
        };
        let dims = self.dims(table);
        if self.axes.leaves(dims[axis]).len() != 1 {
            return Err("takes along a split axis");
        }
        let mut map: Vec<Affine> = self.atoms(&dims[..axis])?.into_iter().map(Affine::axis).collect();
        map.push(Affine::axis(GATHERED));
        map.extend(self.atoms(&dims[axis + 1..])?.into_iter().map(Affine::axis));
        let number = u32::try_from(number).map_err(|_| "too many tensors")?;
        let children = vec![self.leaf(Attr::Input(number)), self.leaf(Attr::Map(map)), self.class(ids)?];
        Ok(self.add(Head::Gather, children))
    }

    /// Roots, canonical classes.
    pub fn finish(mut self) -> Result<Import, Diagnostic> {
        let function = self.function;
        let operands = self.barriers.keys().flat_map(|id| &function.nodes[id.index()].args);
        let mut seen = BTreeSet::new();
        let needed = function.results.iter().chain(operands);
        let needed: Vec<Value> = needed.copied().filter(|v| !self.passing[v.node.index()] && seen.insert(*v)).collect();
        needed.into_iter().try_for_each(|value| self.root(value)).map_err(Diagnostic::bug)?;
        let mut out = self.out;
        stopped(|| out.graph.rebuild());
        for class in out.classes.values_mut().chain(out.roots.iter_mut().map(|r| &mut r.class)) {
            *class = out.graph.find(*class);
        }
        let mut origins: BTreeMap<Id, Vec<NodeId>> = BTreeMap::new();
        for (class, nodes) in out.origins {
            origins.entry(out.graph.find(class)).or_default().extend(nodes);
        }
        out.origins = origins;
        if out.graph.analysis.conflicts > 0 {
            return Err(Diagnostic::bug("the import merged classes whose facts contradict"));
        }
        Ok(out)
    }
}
