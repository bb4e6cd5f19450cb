//! Import: a function of the Graph IR as index terms. Views become names of axes, `at` stands where two names must meet,
//! and what has no index form is a barrier: its operands are stored, its results are read back.

mod axes;
#[cfg(test)]
mod meaning;
mod number;
mod plan;
mod terms;
#[cfg(test)]
mod tests;

use super::facts::Graph;
use super::lang::AxisId;
use axes::Coalescer;
use egg::Id;
use plan::{Planned, Planner};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Dim;

/// A value that must be in memory: a result of the function or an operand of a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The value.
    pub value: Value,
    /// Its class.
    pub class: Id,
    /// Its atoms in memory order, major to minor.
    pub axes: Vec<AxisId>,
}

/// A tensor in memory that terms load from: a parameter, a constant, or a barrier's result. Same number as its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: Value,
    /// Sizes of its atoms, major to minor: their product is that of its shape.
    pub atoms: Vec<Dim>,
}

/// An imported function.
#[derive(Clone, Debug)]
pub struct Import {
    /// The terms; none where they were given away to be saturated.
    pub graph: Graph,
    /// Every live value's class, but for parameters that only barriers read.
    pub classes: BTreeMap<Value, Id>,
    /// Every live value's atoms per dim, but for those parameters.
    pub layouts: BTreeMap<Value, Vec<Vec<AxisId>>>,
    /// Function results in order, then operands of barriers in node order, each once, but for those that have no class.
    pub roots: Vec<Root>,
    /// Stored tensors by input number, which rises with the value.
    pub stored: Vec<Stored>,
    /// Nodes without index form, and why.
    pub barriers: BTreeMap<NodeId, String>,
    /// Nodes whose value each class is, by the class number at import.
    pub origins: BTreeMap<Id, Vec<NodeId>>,
    /// `at` terms made.
    pub copies: usize,
}

impl Import {
    /// The number of the stored tensor that is `value`.
    pub fn stored_at(&self, value: Value) -> Option<usize> {
        self.stored.binary_search_by_key(&value, |s| s.value).ok()
    }
}

/// A node without index form.
pub(super) struct Refusal {
    node: NodeId,
    why: String,
}

enum Halt {
    Refused(Refusal),
    Failed(Box<Diagnostic>),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Halt {
        Halt::Refused(refusal)
    }
}

/// Whether a node's value is in memory before the function runs.
fn is_stored(node: &Node) -> bool {
    if let GraphOp::Constant { value } = &node.op {
        return terms::uniform(value).is_none();
    }
    matches!(node.op, GraphOp::Parameter { .. })
}

/// Nodes that all attempts together may visit.
const MOST_VISITS: usize = 1_000_000;

/// Imports the live nodes of `function`.
///
/// Errors: `too-many-axes`; `too-many-barriers` where finding them takes too long; a bug where a barrier does not help.
pub fn import(function: &Function) -> Result<Import, Diagnostic> {
    import_with(function, BTreeMap::new())
}

/// Imports the live nodes of `function`, with barriers where `barriers` has a node and a reason.
///
/// Errors: those of [`import`].
pub fn import_with(function: &Function, mut barriers: BTreeMap<NodeId, String>) -> Result<Import, Diagnostic> {
    let live = function.live();
    barriers.retain(|id, _| live[id.index()]);
    let nodes = (0u32..).map(NodeId).zip(&function.nodes).zip(&live).filter(|n| *n.1).map(|n| n.0);
    barriers.extend(nodes.filter_map(|(id, node)| Some((id, plan::refusal(function, node)?.to_string()))));
    // Each round adds a barrier, so there are at most as many rounds as nodes; bounded, as that is a square.
    let mut visits = 0;
    loop {
        visits += function.nodes.len();
        match attempt(function, &barriers) {
            Ok(import) => return Ok(import),
            Err(Halt::Failed(diag)) => return Err(*diag),
            Err(Halt::Refused(Refusal { node, why })) => {
                if let Some(before) = barriers.insert(node, why.clone()) {
                    let number = node.0;
                    return Err(Diagnostic::bug(format!("the import is stuck at node {number}: {before}; {why}")));
                }
                if visits > MOST_VISITS {
                    let message = format!("{} nodes have no index form, and there are more", barriers.len());
                    return Err(Diagnostic::new("too-many-barriers", message));
                }
            }
        }
    }
}

fn attempt(function: &Function, barriers: &BTreeMap<NodeId, String>) -> Result<Import, Halt> {
    let live = function.live();
    let plans = vec![Planned::default(); function.nodes.len()];
    let mut planner = Planner { function, axes: Coalescer::default(), plans, barriers };
    let nodes = || (0u32..).map(NodeId).zip(&function.nodes).zip(&live).filter(|n| *n.1).map(|n| n.0);
    for (id, node) in nodes() {
        planner.node(id, node)?;
    }
    if !planner.axes.settle() {
        // Which node it was is not known; the last movement that is no barrier gives way.
        let culprit = nodes()
            .filter(|(id, n)| matches!(n.op, GraphOp::Reshape { .. }) && !barriers.contains_key(id))
            .last()
            .ok_or_else(|| Halt::Failed(Box::new(Diagnostic::bug("mirrored axes do not factor"))))?;
        return Err(Refusal { node: culprit.0, why: "two names of one size are split in two ways".into() }.into());
    }
    let mut builder = terms::Builder::new(function, &planner);
    builder.number_axes(nodes().map(|n| n.0)).map_err(|d| Halt::Failed(Box::new(d)))?;
    for (id, node) in nodes() {
        builder.node(id, node)?;
    }
    builder.finish().map_err(|d| Halt::Failed(Box::new(d)))
}
