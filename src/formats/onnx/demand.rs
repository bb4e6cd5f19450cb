//! Which values must be known while the graph is built: those that decide shapes, and what they are computed from.

use super::OnnxGraph;
use super::table::{self, Build};
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;

/// Names of the values that must be known.
///
/// Errors: `onnx-op`. Cost: O(operands).
pub(super) fn needed(graph: &OnnxGraph) -> Result<BTreeSet<&str>, Diagnostic> {
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for (number, node) in graph.nodes.iter().enumerate().rev() {
        let row = table::find(number, node)?;
        // What shapes alone decide is known whatever the operands are.
        let all = !matches!(row.build, Build::Known(_)) && node.outputs.iter().any(|o| needed.contains(o.as_str()));
        for (i, name) in node.inputs.iter().enumerate() {
            if !name.is_empty() && (all || row.values.contains(&i)) {
                needed.insert(name);
            }
        }
    }
    Ok(needed)
}
