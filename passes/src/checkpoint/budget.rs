//! Gradients that keep less and less, for whoever has a budget of memory: each is costed by what is made of it, since neither the arena
//! nor what kernels compute again follows from the graph.
//!
//! Two choices are crossed: which values functions keep ([`Keep`](crate::autodiff::Keep), by the price of a byte), and whether blocks
//! stand in about sqrt(n) segments that are computed again. Prices are powers of two; those that keep the same make one candidate.

use super::Plan;
use crate::autodiff::{Differentiated, Form, differentiate_keeping};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::text::difference;

/// Most candidates.
pub const MOST: usize = 32;

/// A way to differentiate a program.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// How.
    pub plan: Plan,
    /// The derivative.
    pub made: Differentiated,
}

/// The ways to differentiate the entry of `module`, at most [`MOST`]; the first is plain, which keeps all that is costly.
///
/// Errors: those of [`crate::autodiff::differentiate`].
pub fn candidates(module: &Module, wrt: &[&str], form: Form) -> Result<Vec<Candidate>, Diagnostic> {
    let mut out = Vec::new();
    add_candidates(&mut out, Plan::all(), &mut |plan| derivative(module, plan, wrt, form))?;
    Ok(out)
}

/// The derivative of the entry of `module` by `plan`.
///
/// Errors: `no-chain` where the plan needs a chain; those of [`crate::autodiff::differentiate`].
pub fn derivative(module: &Module, plan: Plan, wrt: &[&str], form: Form) -> Result<Differentiated, Diagnostic> {
    let (module, keeps) = plan.applied(module)?;
    differentiate_keeping(&module, wrt, form, keeps)
}

/// Adds what `build` makes of each plan, but for what is there already, up to [`MOST`]. Plans that need a chain are left out where there is
/// none.
///
/// Errors: those of `build`.
pub fn add_candidates(
    out: &mut Vec<Candidate>,
    plans: impl IntoIterator<Item = Plan>,
    build: &mut dyn FnMut(Plan) -> Result<Differentiated, Diagnostic>,
) -> Result<(), Diagnostic> {
    for plan in plans {
        if out.len() >= MOST {
            break;
        }
        let made = match build(plan) {
            Ok(made) => made,
            Err(d) if d.code == "no-chain" && plan != Plan::PLAIN => continue,
            Err(d) => return Err(d),
        };
        if !out.iter().any(|c| difference(&c.made.module, &made.module).is_none()) {
            out.push(Candidate { plan, made });
        }
    }
    Ok(())
}
