//! What a cover needs to know beside the e-graph: likely sizes, orders of roots, where inputs come from.

use super::super::facts::Graph;
use super::super::index::Import;
use super::super::lang::{AxisId, axis_bit};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Role, Value};
use tilewright_ir::types::Bindings;

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InputFacts {
    /// The same at every call: a matrix product may have it packed for nothing.
    pub weight: bool,
    /// Classes that kernels must store before it exists: what the barrier that makes it needs, canonical, ascending.
    pub after: Vec<Id>,
}

/// Facts beside the e-graph.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Likely size of each axis.
    pub extents: Vec<f64>,
    /// Per axis, whether its size is known now.
    pub constant: Vec<bool>,
    /// Largest size of each axis.
    pub longest: Vec<f64>,
    /// Stored tensors by input number.
    pub inputs: Vec<InputFacts>,
    /// Classes that kernels must store, canonical, each once: results and operands of barriers that
    /// are not in memory already.
    pub roots: Vec<Id>,
    /// Classes with their axes in memory order: of roots, then as values of the graph have them, which a class that kernels store keeps
    /// unless products ask for another. The first counts.
    pub orders: Vec<(Id, Vec<AxisId>)>,
}

impl Context {
    /// The context of an imported function. `graph` is its saturated e-graph; `likely` binds symbols to the sizes that
    /// prices are for, and a symbol that it lacks gets a size inside its range.
    ///
    /// Errors: a bug where the import does not fit the function.
    pub fn new(function: &Function, import: &Import, graph: &Graph, likely: &Bindings) -> Result<Context, Diagnostic> {
        let bindings = usual_sizes(graph, likely);
        let sizes =
            graph.analysis.axes.iter().map(|a| a.dim.eval(&bindings).map_or(1.0, |n| n.max(1) as f64)).collect();
        let constant = graph.analysis.axes.iter().map(|a| a.dim.as_const().is_some()).collect();
        let longest = graph.analysis.axes.iter().map(|a| a.dim.bounds(&graph.analysis.symbols).1 as f64).collect();
        let mut inputs: Vec<InputFacts> = Vec::with_capacity(import.stored.len());
        let classes: BTreeMap<Value, Id> = import.roots.iter().map(|r| (r.value, r.class)).collect();
        for stored in &import.stored {
            let node = stored.value.node;
            let mut facts = InputFacts::default();
            if let Some(param) = function.params.get(node.index()) {
                facts.weight = param.role == Role::Weight;
            } else if import.barriers.contains_key(&node) {
                let node = function.nodes.get(node.index());
                for operand in node.map(|n| n.args.as_slice()).unwrap_or_default() {
                    if let Some(before) = import.stored_at(*operand) {
                        // Stored tensors are numbered in program order.
                        let before = inputs.get(before).map(|i| i.after.clone()).unwrap_or_default();
                        facts.after.extend(before);
                        continue;
                    }
                    let class = classes.get(operand);
                    let class = class.ok_or_else(|| Diagnostic::bug("an operand of a barrier is no root"))?;
                    facts.after.push(graph.find(*class));
                }
            } else {
                facts.weight = true;
            }
            // Each once: barriers that read one value twice would double the list at every step.
            facts.after.sort_unstable();
            facts.after.dedup();
            inputs.push(facts);
        }
        let usual = import.classes.iter().filter_map(|(value, class)| {
            let (class, layout) = (graph.find(*class), import.layouts.get(value)?);
            let free = graph[class].data.free;
            let order: Vec<AxisId> = layout.iter().flatten().copied().filter(|a| free & axis_bit(*a) != 0).collect();
            (order.len() == free.count_ones() as usize).then_some((class, order))
        });
        let orders = import.roots.iter().map(|r| (graph.find(r.class), r.axes.clone())).chain(usual).collect();
        let mut seen = BTreeSet::new();
        let computed = import.roots.iter().filter(|r| import.stored_at(r.value).is_none());
        let roots = computed.map(|r| graph.find(r.class)).filter(|c| seen.insert(*c)).collect();
        Ok(Context { extents: sizes, constant, longest, inputs, roots, orders })
    }

    /// Whether an input is the same at every call.
    pub fn is_weight(&self, input: u32) -> bool {
        self.inputs.get(input as usize).is_some_and(|i| i.weight)
    }
}

/// The sizes that prices are for: `likely`, else what a declaration says, else one inside the range.
pub fn usual_sizes(graph: &Graph, likely: &Bindings) -> Bindings {
    let mut bindings = likely.clone();
    for symbol in &graph.analysis.symbols {
        // Neither the least, where nothing pays, nor the most, which is a bound against overflow.
        bindings.entry(symbol.name.clone()).or_insert(symbol.likely.unwrap_or_else(|| symbol.near(USUAL).max(1)));
    }
    bindings
}

/// A usual size of a symbol: tokens of a prompt.
const USUAL: i64 = 256;
