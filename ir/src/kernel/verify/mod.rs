//! The verifier of kernels: names, kinds and products (V1), bounds (V3), races between grid points and completeness (V4),
//! the turns of pipes of one team (V6), and that grids of one launch are apart.
//!
//! Bounds are proved for all values of the symbols. A refusal means "not proved". Not checked here: limits of targets,
//! races inside a block, pipes between roles and queues, two statements of one grid that write one buffer at different points.

mod bounds;
mod context;
mod grids;
mod in_place;
mod linear;
mod pipes;
mod products;
mod race;
#[cfg(test)]
mod tests;
mod types;

pub use in_place::may_overwrite;
pub use products::LAYOUT;

use crate::diag::Diagnostic;
use crate::kernel::expr::Ident;
use crate::kernel::tree::{Kernel, Stmt};

/// What was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Axis bounds proved.
    pub bounds: usize,
    /// Positions (`!`) that the machine code checks.
    pub checks: usize,
    /// Masks (`?`) in the text.
    pub masks: usize,
    /// Masks whose bound holds anyway.
    pub removable: usize,
    /// Questions put to the prover.
    pub proofs: usize,
    /// Outputs with whether one statement is proved to write all of it. `false` is "not proved".
    pub outputs: Vec<(Ident, bool)>,
}

impl Report {
    /// Whether all outputs are proved to be written completely.
    pub fn complete(&self) -> bool {
        self.outputs.iter().all(|o| o.1)
    }
}

/// Checks a kernel.
///
/// Errors: `kernel-name`, `kernel-type`, `kernel-product` (V1), `kernel-bounds` (V3), `kernel-race` (V4), `kernel-pipe` (V6). The label of the error is the
/// kernel's first place, its notes show the statement.
pub fn verify(kernel: &Kernel) -> Result<Report, Diagnostic> {
    let result = types::check(kernel)
        .and_then(|()| products::check(kernel))
        .and_then(|()| pipes::check(kernel))
        .and_then(|()| grids::check(kernel))
        .and_then(|()| bounds::check(kernel));
    result.map_err(|mut d| {
        if let Some(p) = kernel.places.first() {
            d = d.at(p.clone(), format!("in kernel `{}`", kernel.name));
        }
        d.note(format!("in kernel `{}`", kernel.name))
    })
}

/// Adds the loops around an error as notes.
fn note_head(d: Diagnostic, s: &Stmt) -> Diagnostic {
    match s {
        Stmt::Par { vars, .. } => {
            let vars: Vec<String> = vars.iter().map(|(v, n)| format!("{v} in {n}")).collect();
            d.note(format!("inside `par {}`", vars.join(", ")))
        }
        Stmt::For { var, low, high, .. } => d.note(format!("inside `for {var} in {low} .. {high}`")),
        Stmt::If { condition, .. } => d.note(format!("inside `if {condition}`")),
        Stmt::Buffer(_)
        | Stmt::Pipe(_)
        | Stmt::Queue(..)
        | Stmt::Roles(_)
        | Stmt::Load { .. }
        | Stmt::Let { .. }
        | Stmt::Set { .. }
        | Stmt::Store { .. }
        | Stmt::Copy { .. }
        | Stmt::Mma { .. }
        | Stmt::Pipeline(..)
        | Stmt::Skip(..)
        | Stmt::Await(..)
        | Stmt::Sync(..)
        | Stmt::TurnWait(..)
        | Stmt::TurnNext(_) => d,
    }
}
