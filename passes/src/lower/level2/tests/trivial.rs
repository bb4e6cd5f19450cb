//! Covers for tests: terms by whim, everything in one kernel a root but for what lies below an `at`.

use super::super::Cut;
use crate::egraph::testing::Whim;
use crate::egraph::{ENode, Graph, Head};
use egg::{Extractor, Id, Language};
use std::collections::{BTreeMap, BTreeSet};

/// Cuts that compute `roots`, producers first. `seed` odd: every fold is stored too; from 8 on, every class.
pub(super) fn cover(graph: &Graph, roots: &[Id], seed: u64) -> Vec<Cut> {
    let extractor = Extractor::new(graph, Whim(seed));
    let mut made = Made { graph, extractor, seed, cuts: Vec::new(), done: BTreeSet::new() };
    for &root in roots {
        made.class(graph.find(root));
    }
    made.cuts
}

struct Made<'g> {
    graph: &'g Graph,
    extractor: Extractor<'g, Whim, ENode, crate::egraph::Tables>,
    seed: u64,
    cuts: Vec<Cut>,
    done: BTreeSet<Id>,
}

impl Made<'_> {
    fn simple(&self, class: Id) -> bool {
        let node = self.chosen(class);
        matches!(node.head, Head::Load | Head::Attr(_) | Head::Iota | Head::Extent)
    }

    fn chosen(&self, class: Id) -> ENode {
        // What costs nothing is never stored, so it is what its readers see.
        let nodes = &self.graph[class].nodes;
        let simple = nodes.iter().find(|n| matches!(n.head, Head::Load | Head::Attr(_) | Head::Iota | Head::Extent));
        let node = simple.cloned().unwrap_or_else(|| self.extractor.find_best_node(class).clone());
        node.map_children(|c| self.graph.find(c))
    }

    fn class(&mut self, class: Id) {
        if !self.done.insert(class) {
            return;
        }
        let mut cut = Cut { outputs: vec![class], nodes: BTreeMap::new(), inputs: BTreeSet::new() };
        let mut open = vec![class];
        while let Some(id) = open.pop() {
            if cut.nodes.contains_key(&id) {
                continue;
            }
            let node = self.chosen(id);
            let values: Vec<Id> =
                node.children.iter().copied().filter(|&c| self.graph[c].data.dtype().is_some()).collect();
            for child in values {
                let fold = matches!(self.chosen(child).head, Head::Fold(_));
                let stored = node.head == Head::At || (self.seed % 2 == 1 && fold) || self.seed >= 8;
                if stored && !self.simple(child) {
                    cut.inputs.insert(child);
                } else {
                    open.push(child);
                }
            }
            cut.nodes.insert(id, node);
        }
        cut.inputs.retain(|c| !cut.nodes.contains_key(c));
        for input in cut.inputs.clone() {
            self.class(input);
        }
        self.cuts.push(cut);
    }
}
