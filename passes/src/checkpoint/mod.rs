//! Chains of blocks in segments, of which the way back keeps the beginnings: Chen et al., "Training Deep Nets with Sublinear
//! Memory Cost", 2016. With about sqrt(n) segments of n blocks, memory grows as sqrt(n) at the cost of one more way forward.
//!
//! before: `%1 = call %0, %w0 function=@block`, .., `%9 = call %8, %w8 function=@block`
//! after:  `%1 = call %0, %w0, %w1, %w2 function=@segment`, .., with `func @segment(..) checkpoint`, which calls `@block` three times
//! keeps: results and gradients bit for bit, types, parameters, places.    cost: O(nodes), O(blocks^2) to find repetitions.
//!
//! It runs before differentiation. A `plan` says what functions keep and what segments there are; `budget` makes derivatives of all plans, from
//! which whoever compiles takes what fits, and `closures` takes gradients of closures by a plan. `chain` finds blocks in a function, called or
//! written out; `loops` splits scans.

mod budget;
pub(crate) mod chain;
mod closures;
mod link;
mod loops;
mod plan;

use crate::build::fresh;
pub use budget::{Candidate, MOST, add_candidates, candidates, derivative};
pub use closures::Checkpointing;
pub use plan::{Mix, Plan, Segmented};

use chain::Chain;
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Node};
use tilewright_ir::op::Name;
use tilewright_ir::verify::verify;

/// How many segments a chain gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// The square root of the number of blocks, rounded up.
    Sqrt,
    /// This many, or one for each block if there are fewer blocks.
    Number(usize),
}

impl Segments {
    fn of(self, blocks: usize) -> usize {
        let wanted = match self {
            Segments::Sqrt => (1..=blocks).find(|k| k * k >= blocks).unwrap_or(1),
            Segments::Number(n) => n,
        };
        wanted.clamp(1, blocks.max(1))
    }
}

/// How many blocks the longest chain has that [`segmented`] finds: where it looks, calls of one function after the other, repeated
/// ops, or the steps of a scan. None without a chain.
pub fn blocks(module: &Module) -> Option<usize> {
    let f = module.functions.get(&home(module)?)?;
    let chained = Chain::of(f).map(|c| c.blocks());
    loops::lengths(f).chain(chained).max()
}

/// The module with its chains in segments: those of the entry, or if it has none, of the functions that it calls.
///
/// Errors: `no-chain` where there is none.
pub fn segmented(module: &Module, segments: Segments) -> Result<Module, Diagnostic> {
    let Some(name) = home(module) else {
        let entry = module.entry()?;
        let message = format!("`@{}` has no chain of blocks to make segments of", entry.name);
        return Err(Diagnostic::new("no-chain", message).note(
            "a chain is a scan, or values each of which is made of the one before: calls of one function, or ops that repeat",
        ));
    };
    let mut module = module.clone();
    let mut f = module.functions.get(&name).cloned().ok_or_else(|| Diagnostic::bug("a name without a function"))?;
    if let Some(chain) = Chain::of(&f) {
        f = chain.segmented(&mut module, &f, segments, Derivative::Checkpoint)?;
    }
    f = loops::segmented(&mut module, &f, segments)?;
    module.functions.insert(name, f);
    verify(&module)?;
    Ok(module)
}

/// The function in which chains are: the first that has one, on the way from the entry down.
fn home(module: &Module) -> Option<Name> {
    let (mut open, mut seen) = (vec![module.entry().ok()?.name.clone()], BTreeSet::new());
    while let Some(name) = open.pop() {
        let f = module.functions.get(&name)?;
        if loops::lengths(f).next().is_some() || Chain::of(f).is_some() {
            return Some(name);
        }
        let callees = f.nodes.iter().flat_map(Node::callees).cloned();
        open.extend(callees.filter(|n| seen.insert(n.clone())));
    }
    None
}

/// The module with each block of its chain a function, differentiated by its ops: shared by blocks that are alike. A program without a
/// chain, or with scans only, stays as it is.
fn outlined(module: &Module) -> Result<Module, Diagnostic> {
    let mut module = module.clone();
    let Some(name) = home(&module) else { return Ok(module) };
    let mut f = module.functions.get(&name).cloned().ok_or_else(|| Diagnostic::bug("a name without a function"))?;
    if let Some(chain) = Chain::of(&f).filter(|chain| !chain.is_of_calls(&f)) {
        f = chain.segmented(&mut module, &f, Segments::Number(usize::MAX), Derivative::OfOps)?;
    }
    module.functions.insert(name, f);
    verify(&module)?;
    Ok(module)
}

/// The name of a function with these ops, which is declared before `user` if there is none.
fn declared(module: &mut Module, f: Function, user: &str) -> Name {
    let at = module.functions.get_index_of(user).unwrap_or(module.functions.len());
    if let Some(known) = module.functions.values().take(at).find(|known| known.same_ops(&f)) {
        return known.name.clone();
    }
    let name = fresh(module, &f.name);
    module.functions.shift_insert(at, name.clone(), Function { name: name.clone(), ..f });
    name
}

#[cfg(test)]
mod closure_tests;
#[cfg(test)]
mod tests;
