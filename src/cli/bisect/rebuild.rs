//! A smaller program from one: other results, values that become parameters, other sizes.

use super::case::Case;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::op::{Attr, GraphOp, Literal};
use tilewright_ir::types::{Dim, Type};
use tilewright_ir::verify::verify;

/// What is done to the entry of a case.
pub(super) struct Change<'a> {
    /// The new results.
    pub results: Vec<Value>,
    /// Values that are given instead of computed.
    pub given: BTreeMap<Value, Array>,
    /// Sizes that are replaced.
    pub dim: &'a dyn Fn(&Dim) -> Dim,
    /// Whether sizes are still symbols.
    pub symbolic: bool,
}

impl Change<'_> {
    /// No change.
    pub fn none(f: &Function) -> Change<'static> {
        Change { results: f.results.clone(), given: BTreeMap::new(), dim: &Dim::clone, symbolic: true }
    }
}

/// The changed case, without what its results do not need. None where it is no valid program.
pub(super) fn rebuild(case: &Case, change: &Change<'_>) -> Option<Case> {
    let f = case.module.entry().ok()?;
    let needed = needed(f, change);
    let mut params = Vec::new();
    let mut inputs = Vec::new();
    let mut values: BTreeMap<Value, Value> = BTreeMap::new();
    let bindings = if change.symbolic { case.bindings.clone() } else { BTreeMap::new() };
    let new_type = |ty: &Type| Type { dtype: ty.dtype, shape: ty.shape.iter().map(change.dim).collect() };
    let mut param = |value: Value, name: &str, role: Role, array: &Array| -> Option<()> {
        let ty = new_type(f.ty(value));
        inputs.push(corner(array, &ty.concrete(&bindings).ok()?)?);
        // Parameter i is node i.
        values.insert(value, Value { node: tilewright_ir::graph::NodeId(u32::try_from(params.len()).ok()?), index: 0 });
        params.push(Param { name: name.into(), ty, role });
        Some(())
    };
    for (i, p) in f.params.iter().enumerate() {
        if needed.contains(&i) {
            param(f.param(i), &p.name, p.role, case.inputs.get(i)?)?;
        }
    }
    for (value, array) in &change.given {
        let mut name = format!("v{}_{}", value.node.0, value.index);
        while f.params.iter().any(|p| *p.name == *name) {
            name.push('_');
        }
        param(*value, &name, Role::Input, array)?;
    }
    let symbols = if change.symbolic { f.symbols.clone() } else { Vec::new() };
    let mut out = Function::new(&f.name, symbols, params);
    for (i, node) in f.nodes.iter().enumerate().skip(f.params.len()).filter(|(i, _)| needed.contains(i)) {
        let args: Vec<Value> = node.args.iter().map(|a| values.get(a).copied()).collect::<Option<_>>()?;
        let op = resized(&node.op, change)?;
        let id = out.push(&case.module, op, &args, None, &node.scope).ok()?;
        out.nodes[id.index()].places.clone_from(&node.places);
        for index in 0..u32::try_from(node.types.len()).ok()? {
            let old = Value { node: tilewright_ir::graph::NodeId(u32::try_from(i).ok()?), index };
            values.entry(old).or_insert(Value { node: id, index });
        }
    }
    out.results = change.results.iter().map(|r| values.get(r).copied()).collect::<Option<_>>()?;
    let (name, mut module) = (out.name.clone(), Module::default());
    for (other, function) in &case.module.functions {
        module.functions.insert(other.clone(), if *other == name { out.clone() } else { function.clone() });
    }
    let module = module.part(&name).ok()?;
    verify(&module).ok()?;
    Some(Case { module, inputs, bindings })
}

/// Nodes that the results need, up to values that are given.
fn needed(f: &Function, change: &Change<'_>) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut todo = change.results.clone();
    while let Some(value) = todo.pop() {
        if !change.given.contains_key(&value) && seen.insert(value.node.index()) {
            todo.extend(&f.node(value).args);
        }
    }
    seen
}

/// An op with other sizes.
fn resized(op: &GraphOp, change: &Change<'_>) -> Option<GraphOp> {
    let attr = |attr: Attr| {
        Some(match attr {
            Attr::Dim(d) => Attr::Dim((change.dim)(&d)),
            Attr::Dims(dims) => Attr::Dims(dims.iter().map(change.dim).collect()),
            Attr::Literal(Literal(array)) => {
                let shape = array.shape().iter().map(|&n| (change.dim)(&Dim::from(n)).as_const());
                let shape = shape.map(|n| usize::try_from(n?).ok()).collect::<Option<Vec<usize>>>()?;
                Attr::Literal(Literal(corner(&array, &shape)?))
            }
            other => other,
        })
    };
    let attrs: Vec<Attr> = op.attrs().into_iter().map(attr).collect::<Option<_>>()?;
    GraphOp::from_parts(op.kind(), &attrs)
}

/// The first elements along each axis. None if there are not so many.
fn corner(array: &Array, shape: &[usize]) -> Option<Array> {
    if array.shape() == shape {
        return Some(array.clone());
    }
    let (per, size) = array.dtype().block();
    if per != 1 || shape.len() != array.shape().len() || shape.iter().zip(array.shape()).any(|(n, m)| n > m) {
        return None;
    }
    let mut starts = vec![0usize];
    for (&n, &m) in shape.iter().zip(array.shape()) {
        starts = starts.iter().flat_map(|s| (0..n).map(move |i| s * m + i)).collect();
    }
    let bytes: Vec<u8> = starts.iter().flat_map(|&s| array.bytes()[s * size..][..size].to_vec()).collect();
    Array::new(array.dtype(), shape, Bytes::new(bytes)).ok()
}
