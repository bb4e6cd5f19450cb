//! Replays chains: both sides of every use of a rule, computed on data, and the equalities alone make the ends equal.

use super::super::cover::each;
use super::super::evaluate::{Chosen, Memory};
use super::super::index::Import;
use super::super::lang::{AxisId, ENode};
use super::super::rules::{Class, RuleSet};
use super::{BUILT_IN, Chain, Chains, Step};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::types::Bindings;

/// Points at which both sides of a step are computed, spread over all.
const POINTS: usize = 12;
/// Values that may be computed for one step.
const WORK: u64 = 2_000_000;
/// What may differ where a rule keeps no bits, times 1 + |x|; the terms are computed in f64.
const NEAR: f64 = 1e-8;

/// What a replay has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Uses of rules.
    pub steps: usize,
    /// Values compared.
    pub values: usize,
    /// Uses of rules that were too large to compute even once.
    pub skipped: usize,
}

impl Chains {
    /// Replays the chains of a function on `inputs`, for which the interpreter gives what the terms load.
    ///
    /// Errors: `replay` for the first step whose sides differ by more than the class of its rule allows, and for steps that
    /// do not lead from the one end of their chain to the other; those of the interpreter.
    pub fn replay(
        &self,
        chains: &[&Chain],
        (module, f, import): (&Module, &Function, &Import),
        rules: &RuleSet,
        bindings: &Bindings,
        inputs: &[Array],
    ) -> Result<Replay, Diagnostic> {
        let (_, memory) = Memory::of(module, f, import, &self.terms, bindings, inputs)?;
        let nodes: BTreeMap<Id, ENode> =
            (0..self.terms.nodes().len()).map(|i| (Id::from(i), self.terms.id_to_node(Id::from(i)).clone())).collect();
        let mut looked = Replay::default();
        let mut seen: BTreeSet<&Step> = BTreeSet::new();
        for chain in chains {
            if !self.leads(chain) {
                return Err(Diagnostic::new("replay", "the steps of a chain do not make its ends equal"));
            }
            for step in chain.steps.iter().filter(|s| seen.insert(s)) {
                let values = self.step(step, &memory, &nodes, rules)?;
                looked.steps += 1;
                looked.values += values;
                looked.skipped += usize::from(values == 0);
            }
        }
        Ok(looked)
    }

    /// Computes both sides of a step; gives the number of values, 0 where that is too much work.
    fn step(
        &self,
        step: &Step,
        memory: &Memory<'_>,
        nodes: &BTreeMap<Id, ENode>,
        rules: &RuleSet,
    ) -> Result<usize, Diagnostic> {
        let rule = rules.rules.iter().find(|r| r.name == step.rule);
        let exact = match rule.map(|r| &r.class) {
            Some(Class::Exact) => true,
            Some(Class::Rounding | Class::Reassociates | Class::Approx(_) | Class::Domain(_)) => false,
            None if BUILT_IN.iter().any(|b| *b.0 == *step.rule) => true,
            None => return Err(Diagnostic::new("replay", format!("there is no rule `{}`", step.rule))),
        };
        let chosen = Chosen { nodes, inputs: &BTreeSet::new() };
        let free = self.terms[step.before].data.free | self.terms[step.after].data.free;
        let axes: Vec<AxisId> = each(free).collect();
        let (mut count, mut work) = (0, WORK);
        for point in memory.points(&axes, POINTS) {
            let mut side = |id: Id| match memory.at(chosen, id, &point, &mut work) {
                Err(d) if d.code == "too-much-work" => Ok(None),
                other => other.map(Some),
            };
            let (Some(a), Some(b)) = (side(step.before)?, side(step.after)?) else { break };
            count += 1;
            let same = a == b || (a.is_nan() && b.is_nan());
            if !(same || !exact && (a - b).abs() <= NEAR * (1.0 + a.abs())) {
                let message = format!("a use of `{}` makes {b:e} of {a:e}", step.rule);
                let places = rule.map(|r| format!("{}:{}", r.line.file, r.line.number));
                return Err(places.into_iter().fold(Diagnostic::new("replay", message), Diagnostic::note));
            }
        }
        Ok(count)
    }

    /// Whether the equalities of the steps, with equal operands having equal results, make the ends of a chain equal.
    pub fn leads(&self, chain: &Chain) -> bool {
        // An e-graph without rules is this closure; without facts, as wrong equalities must not make it fail.
        let mut graph: egg::EGraph<ENode, ()> = egg::EGraph::default();
        let mut of: Vec<Id> = Vec::new();
        for node in self.terms.nodes() {
            let children = node.children.iter().map(|c| of[usize::from(*c)]).collect();
            of.push(graph.add(ENode::new(node.head.clone(), children)));
        }
        for step in &chain.steps {
            graph.union(of[usize::from(step.before)], of[usize::from(step.after)]);
        }
        graph.rebuild();
        graph.find(of[usize::from(chain.from)]) == graph.find(of[usize::from(chain.to)])
    }
}
