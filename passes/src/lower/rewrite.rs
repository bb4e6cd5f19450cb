//! A function that is written again, node by node: what passes before the lowering share.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::GraphOp;

/// How often each node's values are read or returned.
pub(super) fn uses(f: &Function) -> Vec<usize> {
    let live = f.live();
    let mut uses = vec![0; f.nodes.len()];
    let read = f.nodes.iter().zip(live).filter(|n| n.1).flat_map(|n| &n.0.args);
    for v in read.chain(&f.results) {
        uses[v.node.index()] += 1;
    }
    uses
}

/// The new function so far, and the new node of each old one.
pub(super) struct Rewrite<'m> {
    module: &'m Module,
    pub out: Function,
    moved: Vec<NodeId>,
}

impl<'m> Rewrite<'m> {
    /// Nothing of `f` is written yet.
    pub fn of(module: &'m Module, f: &Function) -> Rewrite<'m> {
        let out = Function { nodes: Vec::new(), results: Vec::new(), ..f.clone() };
        Rewrite { module, out, moved: Vec::with_capacity(f.nodes.len()) }
    }

    /// The functions that nodes may call.
    pub fn module(&self) -> &'m Module {
        self.module
    }

    /// The new value of an old one.
    pub fn at(&self, v: Value) -> Result<Value, Diagnostic> {
        let node = self.moved.get(v.node.index()).ok_or_else(|| Diagnostic::bug("an operand after its user"))?;
        Ok(Value { node: *node, index: v.index })
    }

    /// The new values of a node's operands.
    pub fn operands(&self, node: &Node) -> Result<Vec<Value>, Diagnostic> {
        node.args.iter().map(|&a| self.at(a)).collect()
    }

    /// The node as it is, of `args`. Errors: `graph-size`.
    pub fn copy(&mut self, node: &Node, args: Vec<Value>) -> Result<NodeId, Diagnostic> {
        let id = u32::try_from(self.out.nodes.len());
        let id = id.map_err(|_| Diagnostic::new("graph-size", "more than 2^32 nodes"))?;
        self.out.nodes.push(Node { args, ..node.clone() });
        Ok(NodeId(id))
    }

    /// A new node in the name of `of`. Errors: those of type inference.
    pub fn push(&mut self, op: GraphOp, args: &[Value], of: &Node) -> Result<Value, Diagnostic> {
        let node = self.out.push(self.module, op, args, None, &of.scope)?;
        self.out.nodes[node.index()].places.clone_from(&of.places);
        Ok(Value { node, index: 0 })
    }

    /// The next old node has become this one.
    pub fn became(&mut self, node: NodeId) {
        self.moved.push(node);
    }

    /// The function, with the results of `f`.
    pub fn finish(mut self, f: &Function) -> Result<Function, Diagnostic> {
        self.out.results = f.results.iter().map(|&r| self.at(r)).collect::<Result<_, _>>()?;
        Ok(self.out)
    }
}
