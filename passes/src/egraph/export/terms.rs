//! Chosen nodes of classes to ops on tensors with named axes.

use super::build::{Builder, Group, Tensor, broken, formless};
use super::read::Slot;
use crate::egraph::facts::Graph;
use crate::egraph::index::Import;
use crate::egraph::lang::{Affine, Attr, AxisId, ENode, GATHERED, Head};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Function, NodeId, Value};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::DType;

/// Chosen nodes, and what became of the classes so far.
pub(super) struct Cut<'a> {
    pub nodes: &'a BTreeMap<Id, ENode>,
    pub outputs: &'a [Id],
    pub done: BTreeMap<Id, Tensor>,
}

/// A function on its way back.
pub(super) struct Export<'a> {
    pub build: Builder<'a>,
    pub source: &'a Function,
    pub graph: &'a Graph,
    pub import: &'a Import,
    /// Dims that the user wrote for a class.
    pub hints: BTreeMap<Id, Vec<Vec<Group>>>,
    /// Nodes that a class was imported from.
    pub origins: BTreeMap<Id, Vec<NodeId>>,
    /// Classes that a cut has stored.
    pub stored: BTreeMap<Id, Tensor>,
    /// Values of the source that are there: parameters, constants, results of barriers.
    pub values: BTreeMap<Value, Value>,
}

/// A tensor whose dims are still those of the source, and how its atoms are read.
struct Source {
    value: Value,
    groups: Vec<Vec<Slot>>,
}

impl Export<'_> {
    pub fn dtype(&self, class: Id) -> Result<DType, Diagnostic> {
        self.graph[class].data.dtype().ok_or_else(|| broken("an attribute is computed"))
    }

    pub fn attr(&self, node: &ENode, child: usize) -> Result<&Attr, Diagnostic> {
        let attr = node.children.get(child).and_then(|&c| self.graph[c].data.attr.as_ref());
        attr.ok_or_else(|| broken("a node lacks its attribute"))
    }

    pub fn axis(&self, node: &ENode) -> Result<AxisId, Diagnostic> {
        match self.attr(node, 0)? {
            Attr::Axis(axis) => Ok(*axis),
            _other => Err(broken("a node lacks its axis")),
        }
    }

    pub fn child(&self, node: &ENode, child: usize) -> Result<Id, Diagnostic> {
        let id = node.children.get(child).ok_or_else(|| broken("a node lacks an operand"))?;
        Ok(self.graph.find(*id))
    }

    /// Scope and places of the nodes that a class was imported from; those before it where a rule made it.
    fn enter(&mut self, class: Id) -> (std::sync::Arc<str>, Vec<Place>) {
        let before = (self.build.scope.clone(), self.build.places.clone());
        let nodes = self.origins.get(&class).into_iter().flatten();
        let nodes: Vec<NodeId> = nodes.copied().filter(|n| n.index() >= self.source.params.len()).collect();
        let moves = |n: &&NodeId| {
            let op = &self.source.nodes[n.index()].op;
            !matches!(op, GraphOp::Reshape { .. } | GraphOp::Transpose { .. } | GraphOp::Broadcast { .. })
        };
        let computing: Vec<NodeId> = nodes.iter().filter(moves).copied().collect();
        let from = if computing.is_empty() { nodes } else { computing };
        if let Some(first) = from.first() {
            self.build.scope = self.source.nodes[first.index()].scope.clone();
            self.build.places.clear();
            for place in from.iter().flat_map(|n| &self.source.nodes[n.index()].places) {
                if !self.build.places.contains(place) {
                    self.build.places.push(place.clone());
                }
            }
        }
        before
    }

    /// The tensor of a class: computed by its chosen node, a number, or what a cut has stored.
    pub fn class(&mut self, cut: &mut Cut<'_>, class: Id) -> Result<Tensor, Diagnostic> {
        let class = self.graph.find(class);
        if let Some(known) = cut.done.get(&class) {
            return Ok(known.clone());
        }
        let tensor = match (cut.nodes.get(&class), self.graph[class].data.number) {
            (_, Some(number)) => self.build.number(number)?,
            (Some(node), None) => {
                let node = node.clone();
                let (scope, places) = self.enter(class);
                let tensor = self.node(cut, class, &node)?;
                (self.build.scope, self.build.places) = (scope, places);
                tensor
            }
            (None, None) => {
                let stored = self.stored.get(&class).cloned();
                stored.ok_or_else(|| broken("a class is read that no kernel computes"))?
            }
        };
        cut.done.insert(class, tensor.clone());
        Ok(tensor)
    }

    fn node(&mut self, cut: &mut Cut<'_>, class: Id, node: &ENode) -> Result<Tensor, Diagnostic> {
        match &node.head {
            Head::Attr(Attr::Const(number)) => self.build.number(*number),
            Head::Attr(_) => Err(broken("an attribute is computed")),
            Head::Scalar(op) => self.scalar(cut, class, node, op),
            Head::Load | Head::Gather => {
                let source = self.memory(cut, node)?;
                self.read_encoded(source)
            }
            Head::At => {
                let Attr::Subst(subst) = self.attr(node, 0)?.clone() else { return Err(broken("no map to read at")) };
                let child = self.child(node, 1)?;
                // A position goes on beyond its axis, where a tensor of positions ends.
                if let Some(position) = cut.nodes.get(&child).filter(|n| n.head == Head::Iota) {
                    let axis = self.axis(position)?;
                    let index = subst.iter().find(|s| s.0 == axis).map_or_else(|| Affine::axis(axis), |s| s.1.clone());
                    let dtype = self.dtype(class)?;
                    // A position rounds once, behind what is added to it.
                    if dtype.is_float() && index.as_axis().is_none() {
                        let position = self.build.affine(&index, DType::I64)?;
                        return self.build.cast(dtype, position);
                    }
                    return self.build.affine(&index, dtype);
                }
                let x = self.class(cut, child)?;
                let x = self.build.full(&x)?;
                let groups = self.slots(&x.dims, |axis| {
                    subst.iter().find(|s| s.0 == axis).map_or_else(|| Affine::axis(axis), |s| s.1.clone())
                })?;
                self.build.read(x.value, &groups)
            }
            Head::Iota => {
                let (axis, dtype) = (self.axis(node)?, self.dtype(class)?);
                self.build.iota(axis, dtype)
            }
            Head::Extent => {
                let (axis, dtype) = (self.axis(node)?, self.dtype(class)?);
                let size = self.build.size(axis)?.clone();
                self.build.length(&size, dtype)
            }
            Head::Fold(fold) => self.fold(cut, class, node, *fold),
        }
    }

    fn slots(&self, dims: &[Group], index: impl Fn(AxisId) -> Affine) -> Result<Vec<Vec<Slot>>, Diagnostic> {
        let slot = |axis: &AxisId| Ok(Slot { size: self.build.size(*axis)?.clone(), index: index(*axis) });
        dims.iter().map(|g| g.iter().map(slot).collect()).collect()
    }

    pub fn hinted(&self, class: Id) -> Vec<Vec<Group>> {
        self.hints.get(&class).cloned().unwrap_or_default()
    }

    fn scalar(&mut self, cut: &mut Cut<'_>, class: Id, node: &ENode, op: &ScalarOp) -> Result<Tensor, Diagnostic> {
        if let Some(position) = self.position_of_dim(class)? {
            return Ok(position);
        }
        match op {
            ScalarOp::Cast { to } => {
                if let Some(product) = self.half_product(cut, class, node)? {
                    return Ok(product);
                }
                let child = self.child(node, 0)?;
                let encoded = self.dtype(child)?.is_block();
                // Encoded tensors have no views: they are decoded whole.
                if let Some(from) = cut.nodes.get(&child).filter(|_| encoded).cloned() {
                    let mut source = self.memory(cut, &from)?;
                    let op = GraphOp::Map { op: op.clone() };
                    source.value = self.build.push(op, &[source.value])?;
                    return self.build.read(source.value, &source.groups);
                }
                let x = self.class(cut, child)?;
                self.build.cast(*to, x)
            }
            ScalarOp::Select {} => match self.select(cut, class, node)? {
                Some(tensor) => Ok(tensor),
                None => self.map(cut, class, node, op),
            },
            _other => self.map(cut, class, node, op),
        }
    }

    fn map(&mut self, cut: &mut Cut<'_>, class: Id, node: &ENode, op: &ScalarOp) -> Result<Tensor, Diagnostic> {
        let mut args = Vec::new();
        for i in 0..node.children.len() {
            args.push(self.class(cut, self.child(node, i)?)?);
        }
        self.build.map(op.clone(), &args, &self.hinted(class))
    }

    /// The position along a dim of several atoms, which the import wrote as digits.
    fn position_of_dim(&mut self, class: Id) -> Result<Option<Tensor>, Diagnostic> {
        for &id in self.origins.get(&class).into_iter().flatten() {
            let GraphOp::Iota { axis, shape, dtype } = &self.source.nodes[id.index()].op else { continue };
            let layout = self.import.layouts.get(&Value { node: id, index: 0 });
            let (Some(atoms), Some(size)) = (layout.and_then(|l| l.get(*axis)), shape.get(*axis)) else { continue };
            let op = GraphOp::Iota { axis: 0, shape: vec![size.clone()], dtype: *dtype };
            let value = self.build.push(op, &[])?;
            return Ok(Some(Tensor { value, dims: vec![atoms.clone()], windows: BTreeMap::new() }));
        }
        Ok(None)
    }

    /// What a load or a gather reads, before it is read.
    fn memory(&mut self, cut: &mut Cut<'_>, node: &ENode) -> Result<Source, Diagnostic> {
        let Attr::Input(number) = self.attr(node, 0)? else { return Err(broken("a load from no tensor")) };
        let Attr::Map(map) = self.attr(node, 1)?.clone() else { return Err(broken("a load without its map")) };
        let stored = usize::try_from(*number).ok().and_then(|n| self.import.stored.get(n));
        let stored = stored.ok_or_else(|| broken("a load from an unknown tensor"))?;
        let (source, mut sizes) = (stored.value, stored.atoms.iter().zip(map));
        let layout = self.import.layouts.get(&source).ok_or_else(|| broken("a tensor without names of its dims"))?;
        let mut groups: Vec<Vec<Slot>> = Vec::new();
        for dim in layout {
            let slots = sizes.by_ref().take(dim.len());
            groups.push(slots.map(|(size, index)| Slot { size: size.clone(), index }).collect());
        }
        let value = self.value(source)?;
        if node.head == Head::Load {
            return Ok(Source { value, groups });
        }
        let axis = groups.iter().position(|g| matches!(&g[..], [s] if s.index.as_axis() == Some(GATHERED)));
        let axis = axis.ok_or_else(|| formless("a gather along a split axis"))?;
        let ids = self.class(cut, self.child(node, 2)?)?;
        let ids = self.build.full(&ids)?;
        let found = self.slots(&ids.dims, Affine::axis)?;
        groups.splice(axis..=axis, found);
        let value = self.build.push(GraphOp::Take { axis }, &[value, ids.value])?;
        Ok(Source { value, groups })
    }

    /// Encoded tensors are read only as they are.
    fn read_encoded(&mut self, source: Source) -> Result<Tensor, Diagnostic> {
        if !self.build.dtype(source.value).is_block() {
            return self.build.read(source.value, &source.groups);
        }
        let mut dims: Vec<Group> = Vec::new();
        for group in &source.groups {
            let names: Option<Group> = group.iter().map(|s| s.index.as_axis()).collect();
            dims.push(names.ok_or_else(|| formless("a view of an encoded tensor"))?);
        }
        if dims.iter().flatten().collect::<BTreeSet<_>>().len() != dims.iter().flatten().count() {
            return Err(formless("a diagonal of an encoded tensor"));
        }
        Ok(Tensor { value: source.value, dims, windows: BTreeMap::new() })
    }

    /// A value of the source that is in memory.
    fn value(&mut self, source: Value) -> Result<Value, Diagnostic> {
        if let Some(&value) = self.values.get(&source) {
            return Ok(value);
        }
        let node = self.source.node(source);
        let GraphOp::Constant { .. } = node.op else { return Err(broken("a tensor is read before it is there")) };
        let value = self.build.push(node.op.clone(), &[])?;
        self.values.insert(source, value);
        Ok(value)
    }

    /// A value of the source as it was, under its dims.
    pub fn root(&mut self, source: Value) -> Result<Value, Diagnostic> {
        if let Some(&value) = self.values.get(&source) {
            return Ok(value);
        }
        let class = self.import.classes.get(&source).ok_or_else(|| broken("a value was not imported"))?;
        let (class, layout) = (self.graph.find(*class), self.import.layouts.get(&source).cloned().unwrap_or_default());
        let tensor = match (self.stored.get(&class).cloned(), super::simple(self.graph, class)) {
            (Some(tensor), _) => tensor,
            (None, Some(node)) => {
                let nodes = BTreeMap::from([(class, node)]);
                let mut cut = Cut { nodes: &nodes, outputs: &[class], done: BTreeMap::new() };
                self.class(&mut cut, class)?
            }
            (None, None) => return Err(broken("no kernel stores a value that is needed")),
        };
        let full = self.build.full(&tensor)?;
        let value = self.build.convert(&full, &layout)?.value;
        if self.build.out.ty(value) != self.source.ty(source) {
            let (found, want) = (self.build.out.ty(value), self.source.ty(source));
            return Err(broken(&format!("a value became {found}, expected {want}")));
        }
        self.values.insert(source, value);
        Ok(value)
    }
}
