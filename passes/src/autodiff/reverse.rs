//! The walk: from the results of a function back to what its gradient is asked for.
//!
//! Each value on a way from a `wrt` to a seed gets a cotangent, the derivative of `sum(seed . ct)` with respect to it: the sum
//! of what its users' rules give. What lies on no way gets none, so no zeros are made.

use super::custom::stops;
use super::join::sum;
use super::shift::shifts;
use super::vjp::{Question, Shared, vjp};
use crate::build::Build;
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::GraphOp;

/// Appends to `f` the cotangents of the values `wrt`, where `seeds` have values of `f` with their cotangents. None for a
/// value on which no seed depends.
///
/// Errors: those of type inference, such as `dim-overflow`, and of custom rules.
pub fn reverse(
    module: &mut Module,
    shared: &mut Shared,
    f: &mut Function,
    seeds: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let last = seeds.iter().map(|(value, _)| value.node.index() + 1).max().unwrap_or(0);
    let sources: Vec<Value> = seeds.iter().map(|(value, _)| *value).collect();
    let active = active(module, f, wrt, &shifts(f, &sources, last), last);
    let mut cts: Vec<Vec<Option<Value>>> = f.nodes[..last].iter().map(|n| vec![None; n.types.len()]).collect();
    let is_active = |v: Value| active.get(v.node.index()).is_some_and(|node| node[v.index as usize]);
    let mut b = Build::new(module, f);
    for &(value, ct) in seeds.iter().filter(|(value, _)| is_active(*value)) {
        give(&mut b, &mut cts, value, ct)?;
    }
    for i in (0..last).rev().filter(|&i| active[i].contains(&true)) {
        if cts[i].iter().all(Option::is_none) {
            continue;
        }
        let node = b.f.nodes[i].clone();
        let want: Vec<bool> = node.args.iter().map(|&a| is_active(a)).collect();
        if !want.contains(&true) {
            continue;
        }
        b.stand_for(&node);
        let own = cts[i].clone();
        let so_far = taken(&node, &mut cts);
        let question =
            Question { node: NodeId(i as u32), args: node.args.clone(), cts: &own, want: &want, so_far: &so_far };
        let given = vjp(&mut b, shared, &node.op, &question)?;
        for ((&arg, ct), want) in node.args.iter().zip(given).zip(want) {
            // An operand that nobody asks for has nothing so far either.
            if let (Some(ct), true) = (ct, want) {
                give(&mut b, &mut cts, arg, ct)?;
            }
        }
    }
    Ok(wrt.iter().map(|v| cts.get(v.node.index()).and_then(|node| node[v.index as usize])).collect())
}

/// The cotangents that the operands of a call have so far, which its rule gets to add to them: what is summed has the order of
/// the nodes, whether they stand in a function or not.
fn taken(node: &Node, cts: &mut [Vec<Option<Value>>]) -> Vec<Option<Value>> {
    let once = |arg: &Value| node.args.iter().filter(|a| *a == arg).count() == 1;
    let call = matches!(node.op, GraphOp::Call { .. });
    let mut take = |arg: &Value| cts[arg.node.index()][arg.index as usize].take();
    node.args.iter().map(|arg| if call && once(arg) { take(arg) } else { None }).collect()
}

/// Adds `ct` to the cotangent of `value`.
fn give(b: &mut Build<'_>, cts: &mut [Vec<Option<Value>>], value: Value, ct: Value) -> Result<(), Diagnostic> {
    let old = cts[value.node.index()][value.index as usize];
    let sum = match old {
        Some(old) => sum(b, old, ct)?,
        None => ct,
    };
    cts[value.node.index()][value.index as usize] = Some(sum);
    Ok(())
}

/// Which results of the first `last` nodes are floats that depend on floats of `wrt`, but those of `constant` nodes.
fn active(module: &Module, f: &Function, wrt: &[Value], constant: &BTreeSet<usize>, last: usize) -> Vec<Vec<bool>> {
    let mut active: Vec<Vec<bool>> = Vec::with_capacity(last);
    for (i, node) in f.nodes[..last].iter().enumerate() {
        let moves = !stops(module, &node.op) && !constant.contains(&i);
        let depends = moves && node.args.iter().any(|a| active[a.node.index()][a.index as usize]);
        let result = |index: usize| {
            let value = Value { node: NodeId(i as u32), index: index as u32 };
            node.types[index].dtype.is_float() && (depends || wrt.contains(&value))
        };
        active.push((0..node.types.len()).map(result).collect());
    }
    active
}
