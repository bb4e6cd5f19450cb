//! A part of a function as a function of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Node, NodeId, Param, Role, Value};
use tilewright_ir::op::Name;

/// A function of the values `given` that returns `results`, of the nodes of `joint` that lie between.
pub fn extract(joint: &Function, name: &str, given: &[Value], results: &[Value]) -> Result<Function, Diagnostic> {
    extract_replaced(joint, name, given, results, &BTreeMap::new())
}

/// The same where other nodes stand in the place of some of `joint`: each has one result, for the value beside it.
pub fn extract_replaced(
    joint: &Function,
    name: &str,
    given: &[Value],
    results: &[Value],
    replaced: &BTreeMap<NodeId, (Value, Node)>,
) -> Result<Function, Diagnostic> {
    let node = |i: usize| replaced.get(&NodeId(i as u32)).map_or(&joint.nodes[i], |(_, node)| node);
    let mut names = HashSet::new();
    let params = given.iter().map(|&v| {
        let own = joint.params.get(v.node.index());
        let mut label: Name = own.map_or_else(|| format!("r{}", v.node.0).into(), |p| p.name.clone());
        if !names.insert(label.clone()) {
            label = unused(&names, &label);
            names.insert(label.clone());
        }
        Param { name: label, ty: joint.ty(v).clone(), role: own.map_or(Role::Input, plain_role) }
    });
    let params = params.collect();
    let mut out = Function::new(name, joint.symbols.clone(), params);
    let mut moved: BTreeMap<Value, Value> = given.iter().enumerate().map(|(i, &v)| (v, out.param(i))).collect();
    for (i, &v) in given.iter().enumerate() {
        out.nodes[i].places.clone_from(&joint.node(v).places);
        out.nodes[i].scope = joint.node(v).scope.clone();
    }
    for i in needed(&node, given, results) {
        let instead = replaced.get(&NodeId(i as u32)).map(|(value, _)| value);
        let node = node(i);
        let args = node.args.iter().map(|a| moved.get(a).copied()).collect::<Option<Vec<Value>>>();
        let args = args.ok_or_else(|| Diagnostic::bug("a value that is neither given nor made"))?;
        let id = NodeId(out.nodes.len() as u32);
        for index in 0..node.types.len() as u32 {
            let old = instead.copied().unwrap_or(Value { node: NodeId(i as u32), index });
            moved.entry(old).or_insert(Value { node: id, index });
        }
        out.nodes.push(Node { args, ..node.clone() });
    }
    let found = results.iter().map(|r| moved.get(r).copied()).collect::<Option<Vec<Value>>>();
    out.results = found.ok_or_else(|| Diagnostic::bug("a result that is neither given nor made"))?;
    Ok(out)
}

/// The nodes that `results` need beside `given`, in order.
fn needed<'n>(node: &dyn Fn(usize) -> &'n Node, given: &[Value], results: &[Value]) -> BTreeSet<usize> {
    let given: BTreeSet<Value> = given.iter().copied().collect();
    let (mut nodes, mut open) = (BTreeSet::new(), results.to_vec());
    while let Some(v) = open.pop() {
        if !given.contains(&v) && nodes.insert(v.node.index()) {
            open.extend(&node(v.node.index()).args);
        }
    }
    nodes
}

/// Nothing is given away between the functions of a split: both read it.
pub fn plain_role(p: &Param) -> Role {
    if p.role == Role::Donated { Role::Input } else { p.role }
}

/// `wanted`, or with a number after it.
pub fn unused(names: &HashSet<Name>, wanted: &str) -> Name {
    let mut name: Name = wanted.into();
    let mut number = 1;
    while names.contains(&name) {
        name = format!("{wanted}.{number}").into();
        number += 1;
    }
    name
}
