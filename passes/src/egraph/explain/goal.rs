//! Where chains begin and end: the graph's term of a value that a kernel stores, and the kernel's own.

use super::super::cover::Cut;
use super::super::facts::{Graph, Sort};
use super::super::index::Import;
use super::super::lang::{ENode, Head};
use super::proof::Prover;
use egg::{Id, Language};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};

/// The kernels of a function and what they have to do with its import.
pub(super) struct Goals<'a> {
    import: &'a Import,
    /// Grown.
    graph: &'a Graph,
    cuts: &'a [Cut],
    /// Terms of the import by class, in their order: operands first.
    imported: BTreeMap<Id, Vec<Id>>,
    /// The cut that stores a class.
    producers: BTreeMap<Id, usize>,
}

impl<'a> Goals<'a> {
    pub fn new(import: &'a Import, graph: &'a Graph, cuts: &'a [Cut]) -> Goals<'a> {
        let mut imported: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        for id in (0..import.graph.nodes().len()).map(Id::from) {
            imported.entry(graph.find(id)).or_default().push(id);
        }
        let outputs = cuts.iter().enumerate().flat_map(|(k, c)| c.outputs.iter().map(move |&o| (o, k)));
        Goals { import, graph, cuts, imported, producers: outputs.collect() }
    }

    /// The last value of the graph that a class is, and its term in the import.
    pub fn start(&self, class: Id) -> Option<(Value, Id)> {
        let mut here = self.import.classes.iter().filter(|(_, c)| self.graph.find(**c) == class);
        here.next_back().map(|(value, class)| (*value, *class))
    }

    /// Operands in the import.
    fn operands(&self, id: Id) -> &[Id] {
        self.import.graph.id_to_node(id).children()
    }

    /// The terms below one of the import, itself among them, down to those for which `stop` holds.
    fn below(&self, from: Id, stop: impl Fn(Id) -> bool) -> BTreeSet<Id> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(id) = open.pop() {
            if (id == from || !stop(id)) && seen.insert(id) {
                open.extend(self.operands(id));
            }
        }
        seen
    }

    /// Nodes of the graph between the start of a chain and what the kernel reads from others.
    pub fn replaced(&self, cut: usize, from: Id) -> BTreeSet<NodeId> {
        let inputs = &self.cuts[cut].inputs;
        let inside = self.below(from, |id| inputs.contains(&self.graph.find(id)));
        let inside: BTreeSet<Id> = inside.into_iter().map(|id| self.import.graph.find(id)).collect();
        let nodes = self.import.origins.iter().filter(|(id, _)| inside.contains(*id));
        let computed = |node: &NodeId| self.import.stored.iter().all(|s| s.value.node != *node);
        nodes.flat_map(|(_, nodes)| nodes.iter().copied()).filter(computed).collect()
    }

    /// The kernel's term of a class, in the e-graph of the prover.
    pub fn end(&self, cut: usize, class: Id, from: Id, prover: &mut Prover) -> Result<Id, Diagnostic> {
        let near = self.below(from, |_| false);
        Term { goals: self, near, done: BTreeMap::new() }.class(cut, class, prover)
    }
}

/// A term in the making.
struct Term<'g, 'a> {
    goals: &'g Goals<'a>,
    /// The terms of the import in which the chain begins: what both ends have in common is no matter of rules.
    near: BTreeSet<Id>,
    /// What is made, by kernel and class.
    done: BTreeMap<(usize, Id), Id>,
}

impl Term<'_, '_> {
    fn class(&mut self, cut: usize, class: Id, prover: &mut Prover) -> Result<Id, Diagnostic> {
        if let Some(id) = self.done.get(&(cut, class)) {
            return Ok(*id);
        }
        let goals = self.goals;
        let facts = &goals.graph[class].data;
        let made = if let (Sort::Attr, Some(attr)) = (facts.sort, &facts.attr) {
            prover.add(ENode::attr(attr.clone()))
        } else if let Some(id) = self.size(cut, class) {
            prover.imported(id)?
        } else if let Some(node) = goals.cuts[cut].nodes.get(&class) {
            let children = node.children.iter().map(|&c| self.class(cut, goals.graph.find(c), prover));
            let children = children.collect::<Result<Vec<Id>, _>>()?;
            prover.add(ENode::new(node.head.clone(), children))
        } else if let Some(id) = self.as_imported(class) {
            prover.imported(id)?
        } else {
            // Another kernel stores what only rules made.
            let other = goals.producers.get(&class).filter(|&&k| k != cut);
            self.class(*other.ok_or_else(|| Diagnostic::bug("a kernel reads what none stores"))?, class, prover)?
        };
        self.done.insert((cut, class), made);
        Ok(made)
    }

    /// A constant or a size as the graph has it: that they are the same is the import's doing.
    fn size(&self, cut: usize, class: Id) -> Option<Id> {
        let node = self.goals.cuts[cut].nodes.get(&class)?;
        matches!(node.head, Head::Extent | Head::Attr(_)).then(|| self.as_imported(class))?
    }

    /// A class as the graph has it; of several terms that turned out equal, one that the chain begins with.
    fn as_imported(&self, class: Id) -> Option<Id> {
        let terms = self.goals.imported.get(&class)?;
        terms.iter().rev().find(|id| self.near.contains(id)).or(terms.last()).copied()
    }
}
