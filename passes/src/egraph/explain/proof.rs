//! The e-graph that keeps the reason of every union: the same import, the same rules.

use super::super::compile::{IndexRewrite, Numerics};
use super::super::facts::Graph;
use super::super::index::Import;
use super::super::lang::{Attr, ENode, Head};
use super::super::rules::RuleSet;
use super::super::saturate::{Limits, prune, rewrites};
use super::Chain;
use super::steps::Reader;
use egg::{Id, Language};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};

/// Proves that terms are equal.
pub(super) struct Prover {
    /// Grown, with reasons.
    graph: Graph,
    /// The terms of the import, by their numbers there.
    of: Vec<Id>,
    /// Nodes of the function whose value a class is.
    nodes: BTreeMap<Id, Vec<NodeId>>,
    /// Terms of the chains.
    pub terms: Graph,
    /// The class of each of them.
    classes: BTreeMap<Id, Id>,
}

/// All rules in every round, as [`super::super::saturate`] runs them. egg's runner is not for this: in debug builds it checks
/// every proof between rounds, written out as trees, of which there is no end where blocks follow one another.
fn grow(graph: &mut Graph, rewrites: &[IndexRewrite], limits: Limits) {
    for _ in 0..limits.iterations {
        prune(graph);
        let found: Vec<_> = rewrites.iter().map(|r| r.search_with_limit(graph, limits.nodes)).collect();
        let mut changed = false;
        for (rewrite, matches) in rewrites.iter().zip(&found) {
            changed |= !rewrite.apply(graph, matches).is_empty();
            if graph.total_size() > limits.nodes {
                break;
            }
        }
        graph.rebuild();
        if !changed || graph.total_size() > limits.nodes {
            break;
        }
    }
}

impl Prover {
    /// Errors: those of [`super::super::compile()`].
    pub fn new(import: &Import, rules: &RuleSet, numerics: Numerics, limits: Limits) -> Result<Prover, Diagnostic> {
        let mut tables = import.graph.analysis.clone();
        tables.rounded.clear();
        let terms = Graph::new(tables.clone());
        let mut graph = Graph::new(tables).with_explanations_enabled();
        // That would be a search of its own, and chains are as short without it.
        graph = graph.without_explanation_length_optimization();
        let mut of: Vec<Id> = Vec::with_capacity(import.graph.nodes().len());
        for node in import.graph.nodes() {
            let node = node.clone().map_children(|c| of[usize::from(c)]);
            of.push(graph.add_uncanonical(node));
        }
        // The import makes no other unions; what follows from these follows here, too.
        for (id, node) in import.graph.nodes().iter().enumerate() {
            let first = usize::from(import.graph.find(Id::from(id)));
            if first != id && matches!(node.head, Head::Extent | Head::Attr(Attr::Const(_))) {
                graph.union_trusted(of[id], of[first], "same-size");
            }
        }
        graph.rebuild();
        graph.analysis.rounded = import.graph.analysis.rounded.iter().map(|id| of[usize::from(*id)]).collect();
        let rewrites = rewrites(&graph, rules, numerics)?;
        grow(&mut graph, &rewrites, limits);
        let mut nodes: BTreeMap<Id, Vec<NodeId>> = BTreeMap::new();
        for (class, here) in &import.origins {
            nodes.entry(graph.find(of[usize::from(*class)])).or_default().extend(here);
        }
        nodes.values_mut().for_each(|n| n.sort_unstable());
        Ok(Prover { graph, of, nodes, terms, classes: BTreeMap::new() })
    }

    /// A term of this e-graph; its operands are such terms.
    pub fn add(&mut self, node: ENode) -> Id {
        self.graph.add_uncanonical(node)
    }

    /// A term of the import. Errors: a bug where there is none of that number.
    pub fn imported(&self, id: Id) -> Result<Id, Diagnostic> {
        self.of.get(usize::from(id)).copied().ok_or_else(|| Diagnostic::bug("no such term was imported"))
    }

    /// How a term of the import becomes a term of this e-graph; none if the rules do not make them equal.
    pub fn chain(&mut self, from: Id, to: Id) -> Option<Chain> {
        let from = *self.of.get(usize::from(from))?;
        if self.graph.find(from) != self.graph.find(to) {
            return None;
        }
        let proof = self.graph.explain_id_equivalence(from, to);
        let mut reader = Reader::new(&mut self.terms);
        let (from, to) = reader.read(&proof.explanation_trees)?;
        let mut steps = reader.steps;
        for step in &mut steps {
            step.nodes = self.origins(step.before);
        }
        Some(Chain { from, to, steps })
    }

    /// The class of a term of a chain.
    fn class(&mut self, term: Id) -> Option<Id> {
        if let Some(class) = self.classes.get(&term) {
            return Some(*class);
        }
        let node = self.terms.id_to_node(term).clone();
        let children = node.children.iter().map(|&c| self.class(c)).collect::<Option<Vec<Id>>>()?;
        let class = self.graph.lookup(ENode::new(node.head, children))?;
        self.classes.insert(term, class);
        Some(class)
    }

    /// Nodes of the function with the value of a term, else those nearest below it.
    fn origins(&mut self, term: Id) -> Vec<NodeId> {
        let (mut found, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![term]);
        while let Some(id) = open.pop() {
            match self.class(id).and_then(|class| self.nodes.get(&class)) {
                Some(nodes) => found.extend(nodes.iter().copied()),
                None => open.extend(self.terms.id_to_node(id).children.iter().filter(|c| seen.insert(**c))),
            }
        }
        found.into_iter().collect()
    }

    /// The first value of the function that each term of the chains is, where that is not one in memory.
    pub fn values(&mut self, import: &Import) -> BTreeMap<Id, Value> {
        let mut first: BTreeMap<Id, Value> = BTreeMap::new();
        for (value, class) in import.classes.iter().rev() {
            if import.stored.iter().all(|s| s.value != *value) {
                first.insert(self.graph.find(self.of[usize::from(*class)]), *value);
            }
        }
        let terms: Vec<Id> = (0..self.terms.nodes().len()).map(Id::from).collect();
        let leaf = |node: &ENode| matches!(node.head, Head::Attr(_) | Head::Load | Head::Iota | Head::Extent);
        let named = terms.into_iter().filter_map(|term| {
            let value = *first.get(&self.class(term)?)?;
            (!leaf(self.terms.id_to_node(term))).then_some((term, value))
        });
        named.collect()
    }
}
