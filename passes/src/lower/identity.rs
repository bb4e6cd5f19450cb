//! A call of a function that returns its parameters is its operands, as are those that stop a gradient, and so is a reshape to its own
//! shape: the only ones that are left stand behind what is computed once.
//!
//! before: `%1 = call %0 function=@stop_gradient`, `%2 = exp %1`      after: `%2 = exp %0`, and the call is dead
//! keeps: types, values bit for bit, places, numbers of nodes.    cost: O(nodes).

use crate::agree::is_identity;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::GraphOp;

/// `f` without uses of such calls, or `None` if it has none.
pub(super) fn bypassed(module: &Module, f: &Function) -> Option<Function> {
    let passing: Vec<Option<Vec<usize>>> = f.nodes.iter().map(|node| passed(module, f, node)).collect();
    if passing.iter().all(Option::is_none) {
        return None;
    }
    let mut out = f.clone();
    for i in 0..out.nodes.len() {
        let args: Vec<Value> = out.nodes[i].args.iter().map(|&a| source(&out, &passing, a)).collect();
        out.nodes[i].args = args;
    }
    out.results = out.results.iter().map(|&r| source(&out, &passing, r)).collect();
    Some(out)
}

/// What `v` is: the operands of nodes before it are sources already.
fn source(f: &Function, passing: &[Option<Vec<usize>>], v: Value) -> Value {
    let NodeId(node) = v.node;
    passing[node as usize].as_ref().map_or(v, |from| f.nodes[node as usize].args[from[v.index as usize]])
}

/// Which operand each result of the node is; none if one is computed.
fn passed(module: &Module, f: &Function, node: &Node) -> Option<Vec<usize>> {
    if is_identity(f, node) {
        return Some(vec![0]);
    }
    let GraphOp::Call { function } = &node.op else { return None };
    let callee = module.functions.get(function)?;
    let param = |v: &Value| Some(v.node.index()).filter(|i| *i < callee.params.len());
    callee.results.iter().map(param).collect()
}
