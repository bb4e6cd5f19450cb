//! The way back: chosen terms as a function of the Graph IR, which means what they mean.
//!
//! before: kernels of a cover, each with a node per class, beside nodes without index form
//! after: scalar ops on operands of one shape, reductions, `dot` where a sum of products has rows or columns, views where
//! operands do not fit, and the nodes without index form as they were
//! keeps: types, parameters, scopes and places of the nodes that the terms were imported from. Not: what is one pass of a
//! kernel. `esum`, `esum-if` and `m2` become what they are defined as.
//! cost: O(nodes * axes), and a sort of the kernels and barriers.

mod build;
mod fold;
mod order;
mod read;
mod select;
mod terms;
#[cfg(test)]
mod tests;

use super::facts::Graph;
use super::index::Import;
use super::lang::{ENode, Head};
use build::{Builder, Group, broken};
use egg::Id;
use order::Unit;
use std::collections::BTreeMap;
use terms::{Cut, Export};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Value};

/// One kernel on its way back.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Classes that are stored.
    pub outputs: &'a [Id],
    /// The chosen node of each class inside, children canonical. Classes that are read are not among them.
    pub nodes: &'a BTreeMap<Id, ENode>,
    /// What it is, for its note.
    pub what: String,
}

/// A line about the nodes that begin here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The first node.
    pub at: NodeId,
    /// What is said.
    pub text: String,
    /// Values that are stored.
    pub stores: Vec<Value>,
}

/// A function that came back.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Equal in meaning, up to what the rules that fired may change.
    pub function: Function,
    /// Where kernels begin, in the order of the nodes.
    pub notes: Vec<Note>,
}

/// A node that needs nothing to be stored.
fn simple(graph: &Graph, class: Id) -> Option<ENode> {
    let simple = |n: &&ENode| matches!(n.head, Head::Load | Head::Attr(_) | Head::Iota | Head::Extent);
    let node = graph[graph.find(class)].nodes.iter().find(simple)?;
    Some(ENode::new(node.head.clone(), node.children.iter().map(|&c| graph.find(c)).collect()))
}

/// The function that `pieces` compute. `source` is a function of `module`, `graph` its e-graph, perhaps saturated.
///
/// Errors: `no-graph-form` for views of block-encoded tensors that nothing decodes, which no rule makes so far;
/// `dim-overflow`, `graph-size`; a bug where the pieces do not compute what the function needs.
pub fn export(
    module: &Module,
    source: &Function,
    import: &Import,
    graph: &Graph,
    pieces: &[Piece<'_>],
) -> Result<Exported, Diagnostic> {
    let mut hints: BTreeMap<Id, Vec<Vec<Group>>> = BTreeMap::new();
    for (value, class) in &import.classes {
        if let Some(layout) = import.layouts.get(value) {
            let known = hints.entry(graph.find(*class)).or_default();
            if !known.contains(layout) {
                known.push(layout.clone());
            }
        }
    }
    let mut origins: BTreeMap<Id, Vec<NodeId>> = BTreeMap::new();
    for (class, nodes) in &import.origins {
        origins.entry(graph.find(*class)).or_default().extend(nodes);
    }
    origins.values_mut().for_each(|nodes| nodes.sort_unstable());
    let params = (0..source.params.len()).map(|i| (source.param(i), source.param(i)));
    let mut export = Export {
        build: Builder::new(module, &graph.analysis.axes, source)?,
        source,
        graph,
        import,
        hints,
        origins,
        stored: BTreeMap::new(),
        values: params.collect(),
    };
    let mut notes = Vec::new();
    for unit in order::order(source, import, graph, pieces)? {
        let before = export.build.out.nodes.len();
        let (text, stores) = match unit {
            Unit::Piece(number) => (pieces[number].what.clone(), export.piece(&pieces[number])?),
            Unit::Barrier(node) => {
                export.barrier(node)?;
                let why = import.barriers.get(&node).cloned().unwrap_or_default();
                (format!("a node as it was: {why}"), Vec::new())
            }
        };
        notes.push((before..export.build.out.nodes.len(), text, stores));
    }
    let before = export.build.out.nodes.len();
    export.build.scope = "".into();
    export.build.places.clear();
    for &result in &source.results {
        let value = export.root(result)?;
        export.build.out.results.push(value);
    }
    notes.push((before..export.build.out.nodes.len(), "results that no kernel computes".into(), Vec::new()));
    Ok(compact(export.build.out, notes))
}

impl Export<'_> {
    /// The nodes of a kernel; the values that it stores.
    fn piece(&mut self, piece: &Piece<'_>) -> Result<Vec<Value>, Diagnostic> {
        let outputs: Vec<Id> = piece.outputs.iter().map(|&o| self.graph.find(o)).collect();
        let mut cut = Cut { nodes: piece.nodes, outputs: &outputs, done: BTreeMap::new() };
        let mut stores = Vec::new();
        for &class in &outputs {
            let tensor = self.class(&mut cut, class)?;
            let tensor = self.build.full(&tensor)?;
            self.stored.insert(class, tensor.clone());
            let import = self.import;
            let roots = import.roots.iter().filter(|r| self.graph.find(r.class) == class);
            let roots: Vec<Value> = roots.map(|r| r.value).collect();
            for &root in &roots {
                (self.build.scope, self.build.places) = self.from(root.node);
                stores.push(self.root(root)?);
            }
            if roots.is_empty() {
                stores.push(tensor.value);
            }
        }
        Ok(stores)
    }

    fn from(&self, node: NodeId) -> (std::sync::Arc<str>, Vec<tilewright_ir::diag::Place>) {
        let node = &self.source.nodes[node.index()];
        (node.scope.clone(), node.places.clone())
    }

    /// A node without index form on what its operands became.
    fn barrier(&mut self, id: NodeId) -> Result<(), Diagnostic> {
        let source = self.source;
        let node = &source.nodes[id.index()];
        (self.build.scope, self.build.places) = self.from(id);
        let args = node.args.iter().map(|&a| self.root(a)).collect::<Result<Vec<Value>, _>>()?;
        let new = self.build.node(node.op.clone(), &args)?;
        if self.build.out.nodes[new.index()].types != node.types {
            return Err(broken("a node changes its type"));
        }
        for index in (0u32..).take(node.types.len()) {
            self.values.insert(Value { node: id, index }, Value { node: new, index });
        }
        Ok(())
    }
}

/// Leaves out nodes that no result needs.
fn compact(mut function: Function, notes: Vec<(std::ops::Range<usize>, String, Vec<Value>)>) -> Exported {
    let live = function.live();
    let count = function.params.len();
    let mut moved: Vec<Option<NodeId>> = Vec::with_capacity(live.len());
    let mut next = 0u32;
    for (i, live) in live.iter().enumerate() {
        let kept = *live || i < count;
        moved.push(kept.then_some(NodeId(next)));
        next += u32::from(kept);
    }
    let at = |v: &Value| moved.get(v.node.index()).copied().flatten().map(|node| Value { node, index: v.index });
    let mut kept = moved.iter().map(Option::is_some);
    function.nodes.retain(|_| kept.next().unwrap_or(false));
    for node in &mut function.nodes {
        node.args = node.args.iter().filter_map(at).collect();
    }
    function.results = function.results.iter().filter_map(at).collect();
    let mut out: Vec<Note> = Vec::new();
    for (range, text, stores) in notes {
        let stores: Vec<Value> = stores.iter().filter_map(at).collect();
        // What another kernel computes too has its nodes there.
        if let Some(first) = moved[range].iter().flatten().next() {
            out.push(Note { at: *first, text, stores });
        }
    }
    Exported { function, notes: out }
}
