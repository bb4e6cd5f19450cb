//! Forward mode: each value that depends on what moves gets a tangent, the derivative along the tangents of the parameters.

use super::build::Build;
use super::jvp::{Motion, Moved, jvp};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Value};

/// Appends to `f` the tangents of its results, where `seeds` have values of `f` with their tangents; none for a result that
/// stays. Seeds are parameters.
///
/// Errors: those of type inference.
pub fn forward(
    module: &mut Module,
    moved: &mut Moved,
    f: &mut Function,
    seeds: &[(Value, Value)],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let last = f.nodes.len();
    let mut tangents: Vec<Vec<Option<Value>>> = f.nodes.iter().map(|n| vec![None; n.types.len()]).collect();
    for &(value, tangent) in seeds {
        tangents[value.node.index()][value.index as usize] = Some(tangent);
    }
    let mut b = Build::new(module, f);
    for i in 0..last {
        let node = b.f.nodes[i].clone();
        let own: Vec<Option<Value>> = node.args.iter().map(|a| tangents[a.node.index()][a.index as usize]).collect();
        if own.iter().all(Option::is_none) {
            continue;
        }
        b.stand_for(&node);
        let motion = Motion { node: NodeId(i as u32), args: &node.args, tangents: &own };
        tangents[i] = jvp(&mut b, moved, &node.op, &motion)?;
    }
    let results = b.f.results.clone();
    Ok(results.iter().map(|r| tangents[r.node.index()][r.index as usize]).collect())
}
