//! Why a function has the kernels that level 2 chooses: each with the chains of rules behind it, what else was possible,
//! and what the levels without rules would take for the same values.

use super::super::{Lower, Lowered, Options, Target};
use super::choice::{Choice, choose};
use super::fixed::Fixed;
use super::priced::{PricedKernel, barriers};
use super::{Cut, emit, free_roots, needed};
use crate::egraph::cover::{self, Price};
use crate::egraph::explain::{Chain, Chains, Reason, Replay, chains};
use crate::egraph::{self, Fired, Graph, Import, Limits, RuleSet};
use egg::Id;
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId};
use tilewright_ir::types::Bindings;

/// What came second for a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Second {
    /// Its template, with axes.
    pub template: String,
    /// What it reads from other kernels.
    pub reads: Vec<Id>,
    /// Seconds by which the whole would be slower.
    pub loss: f64,
}

/// A kernel and why it is one.
#[derive(Clone, Debug)]
pub struct ExplainedKernel {
    /// Its template, with axes.
    pub template: String,
    /// Its terms, a line for each value that is stored or used twice.
    pub terms: String,
    /// Its values, as a picture has them.
    pub drawn: Vec<cover::Drawn>,
    /// What it reads from other kernels.
    pub reads: Vec<Id>,
    /// What it stores with the chains of rules, and the nodes whose work it does.
    pub reason: Reason,
    /// What it is expected to take.
    pub price: Price,
    /// The second choice; none where nothing else computes what it stores.
    pub second: Option<Second>,
}

/// A function and why it has its kernels.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The function, wide concats as trees of narrow ones.
    pub function: Function,
    /// Its terms.
    pub import: Import,
    /// Its terms after all rules: the kernels are chosen from these.
    pub graph: Graph,
    /// Kernels, producers first; numbers of [`super::super::Origin::Cut`] are places here.
    pub kernels: Vec<ExplainedKernel>,
    /// Kernels of what has no terms, which every choice has.
    pub barriers: Vec<(NodeId, PricedKernel)>,
    /// The terms of the chains.
    pub chains: Chains,
    /// The rules that may fire.
    pub rules: RuleSet,
    /// Rules that fired, used or not.
    pub fired: Vec<Fired>,
    /// No choice among the kernels that were looked at takes fewer seconds.
    pub bound: f64,
    /// Limits that the search met.
    pub notes: Vec<Diagnostic>,
    /// The programs of levels 0, 1 and 2.
    pub levels: [Lowered; 3],
    /// Seconds that a kernel of level 0, or 1, is expected to take, by the node that it stores; NaN where there is no price.
    pub before: [BTreeMap<NodeId, f64>; 2],
    /// Sizes for which kernels are priced.
    pub sizes: Bindings,
}

impl Explained {
    /// Explains a function, or gives the warning of the limit that it is beyond.
    pub(in crate::lower) fn of(
        module: &Module,
        f: &Function,
        options: &Options,
        target: &Target,
        likely: &Bindings,
    ) -> Result<Result<Explained, Diagnostic>, Diagnostic> {
        let Choice { import, graph, mut cover, explanation, notes, fired, .. } =
            match choose(f, options, target, likely, true)? {
                Ok(choice) => choice,
                Err(warning) => return Ok(Err(warning)),
            };
        let explanation = explanation.ok_or_else(|| Diagnostic::bug("a cover without its explanation"))?;
        let free = free_roots(f, &import, &graph);
        let (mut chosen, mut seconds, mut bound) = (Vec::new(), Vec::new(), explanation.bound);
        for (mut cut, other) in std::mem::take(&mut cover.cuts).into_iter().zip(explanation.alternatives) {
            if let Some(kernel) = needed(cut.clone(), &free) {
                cut.outputs.clone_from(&kernel.outputs);
                chosen.push((kernel, cut));
                seconds.push(other.cut.map(|c| {
                    let (template, reads) = (cover::template(&graph, &c), c.inputs.into_iter().collect());
                    Second { template, reads, loss: other.loss }
                }));
            } else {
                // What is there already is a kernel in every cover.
                bound = (bound - cut.price.seconds).max(0.0);
            }
        }
        let (cuts, whole): (Vec<Cut>, Vec<cover::Cut>) = chosen.into_iter().unzip();
        let rules = options.rules.rules()?;
        let limits = Limits::of(import.graph.total_size());
        let (reasons, chains) = chains(&import, &graph, &whole, &rules, options.numerics, limits)?;
        let kernels = whole.into_iter().zip(reasons).zip(seconds).map(|((cut, reason), second)| ExplainedKernel {
            template: cover::template(&graph, &cut),
            terms: cover::terms(&graph, &cut),
            drawn: cover::drawn(&graph, &cut),
            price: cut.price,
            reads: cut.inputs.into_iter().collect(),
            reason,
            second,
        });
        let kernels = kernels.collect();
        let level = |n: u8| -> Result<Lowered, Diagnostic> {
            let mut lower = Lower::empty(module, f, target);
            if n == 2 {
                emit(&mut lower, &import, &graph, &cuts)?
            } else {
                lower.nodes(&Options { opt_level: n, ..options.clone() })?
            }
            let origins = std::mem::take(&mut lower.origins);
            Ok(Lowered { program: lower.finish()?, origins })
        };
        let levels = [level(0)?, level(1)?, level(2)?];
        let device = target.device(options)?;
        let fixed = Fixed::new((f, &import), options, likely, &device)?;
        let (before, sizes) = ([fixed.level(0)?, fixed.level(1)?], egraph::cover::usual_sizes(&graph, likely));
        drop(fixed);
        let barriers = barriers((f, &import), &sizes, &device)?;
        Ok(Ok(Explained {
            function: f.clone(),
            import,
            graph,
            kernels,
            barriers,
            chains,
            rules,
            fired,
            bound,
            notes,
            levels,
            before,
            sizes,
        }))
    }
}

impl Explained {
    /// Replays the chains of all kernels on `inputs`, an array for each parameter.
    ///
    /// Errors: those of [`Chains::replay`].
    pub fn replay(&self, module: &Module, bindings: &Bindings, inputs: &[Array]) -> Result<Replay, Diagnostic> {
        let stored = self.kernels.iter().flat_map(|k| &k.reason.stored);
        let chains: Vec<&Chain> = stored.filter_map(|s| s.chain.as_ref()).collect();
        self.chains.replay(&chains, (module, &self.function, &self.import), &self.rules, bindings, inputs)
    }
}
