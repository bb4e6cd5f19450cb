//! Gradients that keep less and less, for whoever has a budget of memory: each is costed by what is made of it, since neither the arena
//! nor what kernels compute again follows from the graph.
//!
//! Two choices are crossed: which values functions keep ([`Keep`], by the price of a byte), and whether blocks stand in about
//! sqrt(n) segments that are computed again. Prices are powers of two; those that keep the same make one candidate.

use super::{Segments, blocks, outlined, segmented};
use crate::autodiff::{Differentiated, Form, Keep, differentiate_keeping};
use crate::build::{Build, add, fresh, kept};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::difference;

/// Most candidates.
const MOST: usize = 32;
/// Logarithms of prices of a byte in operations: a product of matrices has between 16 and 16384 for each byte that it makes.
const PRICES: std::ops::RangeInclusive<i32> = -6..=14;

/// What is computed again beside what [`Keep`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmented {
    /// Nothing.
    No,
    /// All of each segment of a chain, but what its blocks keep once it is computed again.
    Sqrt,
}

/// A way to differentiate a module.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What functions keep.
    pub keep: Keep,
    /// What segments there are.
    pub segments: Segmented,
    /// The derivative.
    pub made: Differentiated,
}

/// The ways to differentiate the entry of `module`, at most 32; the first is plain, which keeps all that is costly.
///
/// Errors: those of [`crate::autodiff::differentiate`].
pub fn candidates(module: &Module, wrt: &[&str], form: Form) -> Result<Vec<Candidate>, Diagnostic> {
    let chained = blocks(module).is_some();
    let plain = if chained { outlined(module)? } else { wrapped(module)? };
    let mut bases = vec![(Segmented::No, plain.clone())];
    if chained {
        bases.push((Segmented::Sqrt, segmented(&plain, Segments::Sqrt)?));
    }
    let mut out: Vec<Candidate> = Vec::new();
    let first = differentiate_keeping(module, wrt, form, Keep::Costly)?;
    out.push(Candidate { keep: Keep::Costly, segments: Segmented::No, made: first });
    for (segments, base) in bases {
        let prices = PRICES.map(|p| Keep::PerByte(f64::from(p).exp2()));
        for keep in [Keep::Costly].into_iter().chain(prices).chain([Keep::Nothing]) {
            let made = differentiate_keeping(&base, wrt, form, keep)?;
            let known = out.iter().any(|c| difference(&c.made.module, &made.module).is_none());
            if !known && out.len() < MOST {
                out.push(Candidate { keep, segments, made });
            }
        }
    }
    Ok(out)
}

/// The module with an entry that calls what it was: of a program in one function, what that keeps is chosen, too.
fn wrapped(module: &Module) -> Result<Module, Diagnostic> {
    let mut out = module.clone();
    let name = module.entry()?.name.clone();
    let Some(f) = out.functions.shift_remove(&name) else { return Err(Diagnostic::bug("an entry without a name")) };
    let inner = Function { name: fresh(&out, &format!("{name}.whole")), ..kept(f.clone()) };
    let mut entry = Function::new(&name, f.symbols.clone(), f.params.clone());
    for (made, node) in entry.nodes.iter_mut().zip(&f.nodes) {
        made.places.clone_from(&node.places);
    }
    let args: Vec<_> = (0..f.params.len()).map(|i| entry.param(i)).collect();
    let op = GraphOp::Call { function: inner.name.clone() };
    add(&mut out, inner);
    entry.results = Build::new(&mut out, &mut entry).push_all(op, &args)?;
    add(&mut out, entry);
    Ok(out)
}
