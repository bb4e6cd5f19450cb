//! Scopes of nodes that have none that says what they are: by the weights that they use, and by what uses them.
//!
//! Programs from files and those that generate name their weights, not their nodes. A node that uses a weight gets its name as a scope; a
//! product of two values that are no weights is one of attention scores; a product with a table of embeddings is the head; all else
//! belongs to what reads it first. Functions in which some node says what it is stay as they are.

use super::kind::Kind;
use std::sync::Arc;
use tilewright_ir::graph::{Function, Module, Node, Role, Value};
use tilewright_ir::op::{Family, GraphOp, ScalarOp};

/// The module with such scopes; it computes the same.
pub(super) fn named(module: &Module) -> Module {
    let mut module = module.clone();
    for f in module.functions.values_mut() {
        if !f.nodes.iter().any(|node| Kind::of(&node.scope) != Kind::Other) {
            name(f);
        }
    }
    module
}

fn name(f: &mut Function) {
    let live = f.live();
    let mut found: Vec<Option<Arc<str>>> = vec![None; f.nodes.len()];
    for i in (f.params.len()..f.nodes.len()).rev().filter(|&i| live[i]) {
        if !f.nodes[i].callees().is_empty() {
            continue;
        }
        let own = own(f, &f.nodes[i]).or_else(|| found[i].clone());
        for arg in &f.nodes[i].args {
            // Readers come from the last to the first.
            if own.is_some() {
                found[arg.node.index()].clone_from(&own);
            }
        }
        found[i] = own;
    }
    for (node, scope) in f.nodes.iter_mut().zip(found).skip(f.params.len()) {
        if let Some(scope) = scope {
            node.scope = if node.scope.is_empty() { scope } else { format!("{}.{scope}", node.scope).into() };
        }
    }
}

/// What a node says itself by its operands.
fn own(f: &Function, node: &Node) -> Option<Arc<str>> {
    if is_moving(&node.op) && !matches!(node.op, GraphOp::Take { .. }) {
        return None;
    }
    let weights = || node.args.iter().filter_map(|&a| weight(f, a));
    let product = matches!(node.op, GraphOp::Dot { .. });
    match weights().find(|name| Kind::of(name) != Kind::Other) {
        Some(name) if product && Kind::of(name) == Kind::Embedding => Some("head".into()),
        Some(name) => Some(name.clone()),
        None if product && weights().next().is_none() => Some("scores".into()),
        None => None,
    }
}

/// The name of the weight that a value is, however it is moved or cast.
fn weight(f: &Function, mut value: Value) -> Option<&Arc<str>> {
    loop {
        let node = f.node(value);
        match &node.op {
            GraphOp::Parameter { index } => {
                let param = f.params.get(*index).filter(|p| p.role == Role::Weight)?;
                return Some(&param.name);
            }
            _ if is_moving(&node.op) => value = *node.args.first()?,
            _computes => return None,
        }
    }
}

fn is_moving(op: &GraphOp) -> bool {
    matches!(op.info().family, Family::Movement | Family::Indexing)
        || matches!(op, GraphOp::Map { op: ScalarOp::Cast { .. } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_ir::text::parse;

    #[test]
    fn weights_and_readers_say_what_a_node_is() {
        let text = "func @main(%x: f32[4, 8], weight %blk.0.attn_q.weight: f32[8, 8], weight %output.weight: f32[8, 16]) -> f32[4, 16] {
  %0 = neg %x
  %1 = dot %0, %blk.0.attn_q.weight contract=[1]x[0]
  %2 = dot %1, %x contract=[1]x[1]
  %3 = exp %2
  %4 = dot %3, %x contract=[1]x[0]
  %5 = dot %4, %output.weight contract=[1]x[0]
  return %5
}";
        let module = named(&parse("t.tw", text).unwrap());
        let kinds: Vec<Kind> = module.entry().unwrap().nodes.iter().skip(3).map(|n| Kind::of(&n.scope)).collect();
        let (q, s) = (Kind::AttentionProjections, Kind::AttentionScores);
        assert_eq!(kinds, [q, q, s, s, s, Kind::Head]);
        let said = text.replace("neg %x", "neg %x : f32[4, 8] @\"mlp\"");
        let module = named(&parse("t.tw", &said).unwrap());
        assert!(module.entry().unwrap().nodes.iter().all(|n| [Kind::Mlp, Kind::Other].contains(&Kind::of(&n.scope))));
    }
}
