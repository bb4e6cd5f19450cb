//! Wide concats become trees of narrow ones, so that no kernel has more than a few parts to choose from.
//!
//! before: `concat %0, %1, .., %99999`      after: concats of 32 parts each, and concats of those
//! keeps: types, values bit for bit, places.    cost: O(nodes), and each element moves log32(parts) times.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Value};
use tilewright_ir::op::GraphOp;

/// Most operands of a concat in one kernel.
const MOST_PARTS: usize = 32;

/// `f` with narrow concats, or `None` if it has no wide one. Errors: `graph-size`.
pub(super) fn narrowed(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    let wide = |op: &GraphOp, parts: usize| matches!(op, GraphOp::Concat { .. }) && parts > MOST_PARTS;
    if !f.nodes.iter().any(|n| wide(&n.op, n.args.len())) {
        return Ok(None);
    }
    let mut out = Function { nodes: Vec::new(), results: Vec::new(), ..f.clone() };
    let mut moved: Vec<Value> = Vec::with_capacity(f.nodes.len());
    let at = |moved: &[Value], v: &Value| {
        let base = moved.get(v.node.index()).ok_or_else(|| Diagnostic::bug("an operand after its user"))?;
        Ok::<Value, Diagnostic>(Value { node: base.node, index: v.index })
    };
    for node in &f.nodes {
        let mut args = node.args.iter().map(|a| at(&moved, a)).collect::<Result<Vec<Value>, Diagnostic>>()?;
        while wide(&node.op, args.len()) {
            let mut next = Vec::with_capacity(args.len().div_ceil(MOST_PARTS));
            for part in args.chunks(MOST_PARTS) {
                let id = out.push(module, node.op.clone(), part, None, &node.scope)?;
                out.nodes[id.index()].places.clone_from(&node.places);
                next.push(Value { node: id, index: 0 });
            }
            args = next;
        }
        let id = out.nodes.len();
        let id = u32::try_from(id).map_err(|_| Diagnostic::new("graph-size", "more than 2^32 nodes"))?;
        out.nodes.push(tilewright_ir::graph::Node { args, ..node.clone() });
        moved.push(Value { node: tilewright_ir::graph::NodeId(id), index: 0 });
    }
    out.results = f.results.iter().map(|r| at(&moved, r)).collect::<Result<_, _>>()?;
    Ok(Some(out))
}
