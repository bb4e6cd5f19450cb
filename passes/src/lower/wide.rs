//! Wide concats become trees of narrow ones, so that no kernel has more than a few parts to choose from.
//!
//! before: `concat %0, %1, .., %99999`      after: concats of 32 parts each, and concats of those
//! keeps: types, values bit for bit, places.    cost: O(nodes), and each element moves log32(parts) times.

use super::rewrite::Rewrite;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::GraphOp;

/// Most operands of a concat in one kernel.
const MOST_PARTS: usize = 32;

/// `f` with narrow concats, or `None` if it has no wide one. Errors: `graph-size`.
pub(super) fn narrowed(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    let wide = |op: &GraphOp, parts: usize| matches!(op, GraphOp::Concat { .. }) && parts > MOST_PARTS;
    if !f.nodes.iter().any(|n| wide(&n.op, n.args.len())) {
        return Ok(None);
    }
    let mut new = Rewrite::of(module, f);
    for node in &f.nodes {
        let mut args = new.operands(node)?;
        while wide(&node.op, args.len()) {
            let parts = args.chunks(MOST_PARTS).map(|part| new.push(node.op.clone(), part, node));
            args = parts.collect::<Result<_, _>>()?;
        }
        let made = new.copy(node, args)?;
        new.became(made);
    }
    new.finish(f).map(Some)
}
