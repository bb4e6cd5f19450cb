//! Forward mode: each value that depends on what moves gets a tangent, the derivative along the tangents of the parameters.

use super::jvp::{Motion, Moved, jvp};
use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Value};

/// Appends to `f` the tangents of its values `results`, where `seeds` have values of `f` with their tangents; none for a result
/// that stays.
///
/// Errors: those of type inference, and of custom rules.
pub fn forward(
    module: &mut Module,
    moved: &mut Moved,
    f: &mut Function,
    seeds: &[(Value, Value)],
    results: &[Value],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let needed = needed(f, results);
    let mut tangents: Vec<Vec<Option<Value>>> = f.nodes.iter().map(|n| vec![None; n.types.len()]).collect();
    for &(value, tangent) in seeds {
        tangents[value.node.index()][value.index as usize] = Some(tangent);
    }
    let mut b = Build::new(module, f);
    for i in (0..needed.len()).filter(|&i| needed[i]) {
        let node = b.f.nodes[i].clone();
        let own: Vec<Option<Value>> = node.args.iter().map(|a| tangents[a.node.index()][a.index as usize]).collect();
        if own.iter().all(Option::is_none) {
            continue;
        }
        b.stand_for(&node);
        let motion = Motion { node: NodeId(i as u32), args: &node.args, tangents: &own };
        let own = jvp(&mut b, moved, &node.op, &motion)?;
        // A seed keeps its tangent, whatever its operands do.
        for (slot, tangent) in tangents[i].iter_mut().zip(own) {
            *slot = slot.or(tangent);
        }
    }
    Ok(results.iter().map(|r| tangents[r.node.index()][r.index as usize]).collect())
}

/// Which nodes `results` are made of.
fn needed(f: &Function, results: &[Value]) -> Vec<bool> {
    let last = results.iter().map(|r| r.node.index() + 1).max().unwrap_or(0);
    let mut needed = vec![false; last];
    results.iter().for_each(|r| needed[r.node.index()] = true);
    for i in (0..last).rev() {
        if needed[i] {
            f.nodes[i].args.iter().for_each(|a| needed[a.node.index()] = true);
        }
    }
    needed
}
