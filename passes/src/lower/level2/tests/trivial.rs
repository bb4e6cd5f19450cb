//! Covers for tests: terms by whim, everything in one kernel a root but for what lies below an `at`.

use super::super::Cut;
use crate::egraph::{ENode, Fold, Graph, Head};
use egg::{CostFunction, Extractor, Id, Language};
use std::collections::{BTreeMap, BTreeSet};

/// Picks different equal terms for different seeds.
struct Whim(u64);

impl CostFunction<ENode> for Whim {
    type Cost = u64;
    fn cost<C: FnMut(Id) -> u64>(&mut self, node: &ENode, mut costs: C) -> u64 {
        let text = node.head.to_string();
        let taste = text.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) % 16;
        // One seed takes folds in one pass wherever it can.
        let online = matches!(&node.head, Head::Fold(Fold::Esum | Fold::EsumIf | Fold::M2));
        let taste = if self.0 == 4 && matches!(node.head, Head::Fold(_)) && !online { 1000 } else { taste };
        let own = if self.0 == 0 { 1 } else { 1 + taste };
        node.children.iter().fold(own, |sum, c| sum.saturating_add(costs(*c)))
    }
}

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
