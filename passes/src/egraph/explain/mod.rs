//! Why kernels compute what the graph says: for each value that a kernel stores, the uses of rules that lead from the
//! term of the graph to the term of the kernel.
//!
//! Compilations do not pay for this. The rules run once more, in an e-graph that keeps the reason of every union
//! (`proof.rs`); the kernels are those of the first run, and their terms are looked up in the second. `steps.rs` reads
//! proofs as uses of rules, `goal.rs` says which terms a kernel's chain begins and ends with, `show.rs` writes terms,
//! `replay.rs` computes both sides of every use on data.

mod goal;
mod proof;
mod replay;
mod show;
mod steps;
#[cfg(test)]
mod tests;

pub use replay::Replay;
pub use show::Texts;

use super::compile::Numerics;
use super::cover::Cut;
use super::facts::Graph;
use super::index::Import;
use super::rules::RuleSet;
use super::saturate::Limits;
use egg::Id;
use goal::Goals;
use proof::Prover;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{NodeId, Value};

/// One use of a rule. Its terms are in [`Chains::terms`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The rule: of a file, or one of [`BUILT_IN`].
    pub rule: Arc<str>,
    /// Whether `before` is the rule's left side; else its right side.
    pub forward: bool,
    /// What is replaced, all of it down to stored tensors.
    pub before: Id,
    /// What replaces it.
    pub after: Id,
    /// Nodes of the graph that have this value, else those whose values are its operands.
    pub nodes: Vec<NodeId>,
}

/// The uses of rules that make two terms equal, in the order in which they read best: operands first.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The term of the graph.
    pub from: Id,
    /// The term of the kernel, in which values that other kernels store, and sizes, are as the graph has them.
    pub to: Id,
    /// The uses of rules, each once. With equal operands having equal results they make `from` equal to `to`.
    pub steps: Vec<Step>,
}

/// What a kernel stores.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its class.
    pub class: Id,
    /// The value of the graph that it is, the last if it is several; none for one that only rules made, which is part of
    /// the chains of the kernels that read it.
    pub value: Option<Value>,
    /// How the kernel comes to compute it. None without a value, and where the rules, stopped by a limit, did not get as
    /// far the second time.
    pub chain: Option<Chain>,
}

/// What a kernel is made of.
#[derive(Clone, Debug)]
pub struct Reason {
    /// What it stores.
    pub stored: Vec<Stored>,
    /// Nodes of the graph whose work it does, those without work among them (views, constants).
    pub replaces: BTreeSet<NodeId>,
}

/// The terms of the chains of a function.
#[derive(Clone, Debug)]
pub struct Chains {
    /// The terms, each once. Nothing is equal here that is not the same.
    pub terms: Graph,
    /// The value of the graph that a term is, the first if it is several, and not one in memory.
    pub values: BTreeMap<Id, Value>,
}

/// Rules that no file has, with their meaning. All are exact.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("push-at", "a view of a result is the result of views; a view of a view is one view"),
    ("wide-number", "a constant or a size in f16 or bf16, converted, is that constant or size in f32"),
    ("same-f64", "a value in f64, converted to f64, is that value"),
    ("same-f32", "a value in f32, converted to f32, is that value"),
    ("same-f16", "a value in f16, converted to f16, is that value"),
    ("same-bf16", "a value in bf16, converted to bf16, is that value"),
    ("same-size", "axes of one size have one size, which may be a number"),
];

/// Explains the kernels `cuts` of a function: the reason of each, and the terms. `graph` is `import`'s e-graph grown by `rules` within `limits`.
///
/// Errors: those of [`super::saturate()`]; a bug where the kernels are none of that e-graph.
pub fn chains(
    import: &Import,
    graph: &Graph,
    cuts: &[Cut],
    rules: &RuleSet,
    numerics: Numerics,
    limits: Limits,
) -> Result<(Vec<Reason>, Chains), Diagnostic> {
    deep(|| {
        let goals = Goals::new(import, graph, cuts);
        let mut prover = Prover::new(import, rules, numerics, limits)?;
        let mut kernels = Vec::with_capacity(cuts.len());
        for (number, cut) in cuts.iter().enumerate() {
            let mut reason = Reason { stored: Vec::new(), replaces: BTreeSet::new() };
            for &class in &cut.outputs {
                let start = goals.start(class);
                let chain = match start {
                    Some((_, from)) => {
                        reason.replaces.extend(goals.replaced(number, from));
                        let to = goals.end(number, class, from, &mut prover)?;
                        prover.chain(from, to)
                    }
                    None => None,
                };
                reason.stored.push(Stored { class, value: start.map(|s| s.0), chain });
            }
            kernels.push(reason);
        }
        let values = prover.values(import);
        Ok((kernels, Chains { terms: prover.terms, values }))
    })?
}

/// Stack for proofs, which are as deep as graphs are: egg's own walks are recursive.
const STACK: usize = 1 << 28;

/// Runs `work` with a deep stack. Errors: `thread` where there is none to be had.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Diagnostic> {
    let failed = |why: String| Diagnostic::new("thread", format!("cannot start a thread to explain kernels: {why}"));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| failed(e.to_string()))?;
        thread.join().map_err(|_| Diagnostic::bug("a proof could not be read"))
    })
}
