//! What the kernels of a fixed order of fusion take by the prices of covers, and the terms of a function without rules. Where rules
//! make more kernels than are looked at, the fixed order can be the cheaper one.

use super::super::Options;
use super::choice::roots;
use super::{free_roots, needed};
use crate::egraph::cover::{Context, Cover, Device, partition};
use crate::egraph::{Graph, Import, Limits, Numerics, RuleSet, saturate};
use crate::fuse;
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, NodeId, Value};
use tilewright_ir::types::Bindings;

/// A function as it stands.
pub(super) struct Fixed<'a> {
    f: &'a Function,
    import: &'a Import,
    device: &'a Device,
    /// Whether each fold has one order.
    one_order: bool,
    /// Its terms, without rules.
    graph: Graph,
    /// Their sizes and inputs.
    context: Context,
}

impl<'a> Fixed<'a> {
    /// Of an import that keeps its terms.
    ///
    /// Errors: those of the lowering.
    pub fn new(
        (f, import): (&'a Function, &'a Import),
        options: &Options,
        likely: &Bindings,
        device: &'a Device,
    ) -> Result<Fixed<'a>, Diagnostic> {
        let limits = Limits::of(import.graph.total_size());
        let graph = saturate(import.graph.clone(), &RuleSet::default(), options.numerics, limits)?.graph;
        let context = Context::new(f, import, &graph, likely)?;
        Ok(Fixed { f, import, device, one_order: options.numerics == Numerics::Exact, graph, context })
    }

    /// Seconds of the kernels of level 0 or 1, by the node that they store; NaN where there is no price.
    pub fn level(&self, level: u8) -> Result<BTreeMap<NodeId, f64>, Diagnostic> {
        let stored = fuse::stored(self.f, level, self.one_order)?;
        let live = self.f.live();
        let nodes = (0u32..).map(NodeId).zip(stored).zip(live).filter(|((_, stored), live)| *stored && *live);
        let mut first: BTreeMap<Id, NodeId> = BTreeMap::new();
        for ((node, _), _) in nodes {
            if let Some(class) = self.import.classes.get(&Value { node, index: 0 }) {
                first.entry(self.graph.find(*class)).or_insert(node);
            }
        }
        let classes: BTreeSet<Id> = first.keys().copied().collect();
        let prices = partition(&self.graph, (&classes, &roots(self.import, &self.graph)), &self.context, self.device)?;
        Ok(first.into_iter().map(|(class, node)| (node, prices.get(&class).copied().unwrap_or(0.0))).collect())
    }

    /// The terms by which the function is covered without rules. Those of halves stay: they say in which dtype a half is computed,
    /// and prices of others are none.
    pub fn terms(&self, options: &Options, likely: &Bindings) -> Result<(Graph, Context), Diagnostic> {
        let mut rules = options.rules.rules()?;
        rules.rules.retain(|rule| &*rule.group == HALVES);
        let limits = Limits::of(self.import.graph.total_size());
        let graph = saturate(self.import.graph.clone(), &rules, options.numerics, limits)?.graph;
        let context = Context::new(self.f, self.import, &graph, likely)?;
        Ok((graph, context))
    }

    /// Whether the kernels of level 1 take clearly less than so many seconds.
    pub fn takes_less(&self, seconds: f64) -> Result<bool, Diagnostic> {
        let all: f64 = self.level(1)?.values().sum();
        Ok(all < seconds * (1.0 - ROUNDING))
    }
}

/// The group of rules that compute halves in f32.
const HALVES: &str = "halves";

/// Prices are sums in different orders.
pub(super) const ROUNDING: f64 = 1e-6;

/// Seconds of the kernels of a cover that are started.
pub(super) fn seconds(f: &Function, import: &Import, graph: &Graph, cover: &Cover) -> f64 {
    let free = free_roots(f, import, graph);
    let started = cover.cuts.iter().filter(|cut| needed((*cut).clone(), &free).is_some());
    started.map(|cut| cut.price.seconds).sum()
}
