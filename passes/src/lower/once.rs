//! Values that must agree with themselves are computed once: an identity that level 2 does not see through stands behind them.
//!
//! before: `%1 = dot %x, %w`, `%2 = reduce_max %1`, `%3 = eq %1, %2`
//! after:  `%1 = dot %x, %w`, `%2 = reshape %1` to its own shape, `%3 = reduce_max %2`, `%4 = eq %2, %3`
//! keeps: types, places, values bit for bit.    cost: that of [`agreeing`].
//!
//! The identity is a name of the same memory: what is above it may be fused, and what is below, but not both into one kernel.

use super::rewrite::Rewrite;
use crate::agree::agreeing;
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::op::GraphOp;

/// `f` with its identities, or `None` if it needs none.
pub(super) fn computed(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    let agreeing = agreeing(f, &f.live());
    if agreeing.once.is_empty() {
        return Ok(None);
    }
    let mut new = Rewrite::of(module, f);
    let mut named: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for (id, node) in (0u32..).map(NodeId).zip(&f.nodes) {
        let first = agreeing.first[id.index()];
        let became = match named.get(&first) {
            Some(known) => *known,
            None => {
                let args = new.operands(node)?;
                let copy = new.copy(node, args)?;
                if agreeing.once.contains(&id) {
                    let shape = node.types[0].shape.clone();
                    let name = new.push(GraphOp::Reshape { shape }, &[Value { node: copy, index: 0 }], node)?.node;
                    named.insert(id, name);
                    name
                } else {
                    copy
                }
            }
        };
        new.became(became);
    }
    new.finish(f).map(Some)
}
