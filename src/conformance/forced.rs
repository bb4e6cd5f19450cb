//! Checkpointing that is forced on the gradients of cases.

use super::Options;
use super::execute::compiling;
use crate::checkpoint::{Budget, Checkpointing, Plan, program_within, within};
use std::str::FromStr;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Module};
use tilewright_ir::types::Bindings;
use tilewright_passes::autodiff::{Form, differentiate};
use tilewright_passes::checkpoint::{Segments, segmented};

/// What gradients compute again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Forced {
    /// What is cheap.
    #[default]
    Nothing,
    /// Each block of a chain; a program without one as a whole.
    Blocks,
    /// What a budget asks for. By `sqrt` a program without a chain is computed again as a whole.
    Within(Budget),
}

/// `blocks`, or a budget.
impl FromStr for Forced {
    type Err = String;

    fn from_str(text: &str) -> Result<Forced, String> {
        if text == "blocks" { Ok(Forced::Blocks) } else { text.parse().map(Forced::Within) }
    }
}

/// The derivative of the entry of `module`, for `sizes` where it has symbols.
///
/// Errors: `checkpoint-budget`; those of differentiation and of the compiler.
pub(super) fn derivative(
    module: &Module,
    wrt: &[&str],
    form: Form,
    options: &Options,
    sizes: &Bindings,
) -> Result<Module, Diagnostic> {
    let chained = |segments| match segmented(module, segments) {
        Err(d) if d.code == "no-chain" => whole(module),
        made => made,
    };
    let made = match options.checkpoint {
        Forced::Nothing | Forced::Within(Budget::None) => differentiate(module, wrt, form)?,
        Forced::Blocks => differentiate(&chained(Segments::Number(usize::MAX))?, wrt, form)?,
        Forced::Within(Budget::Sqrt) => differentiate(&chained(Segments::Sqrt)?, wrt, form)?,
        Forced::Within(budget) => {
            let curve = within(module, wrt, form, (budget, sizes), &compiling(options)?, &|_done, _of| {})?;
            return Ok(curve.module);
        }
    };
    Ok(made.module)
}

/// The program that `build` makes with gradients by what is forced. Blocks are left to it.
///
/// Errors: `checkpoint-budget`, `no-chain`; those of `build` and of the compiler.
pub(super) fn program(
    build: &dyn Fn(&Checkpointing) -> Result<Module, Diagnostic>,
    options: &Options,
) -> Result<Module, Diagnostic> {
    match options.checkpoint {
        Forced::Nothing | Forced::Blocks => build(&Checkpointing::by(Plan::PLAIN)),
        Forced::Within(budget) => {
            let sizes = Bindings::new();
            Ok(program_within(build, (budget, &sizes), &compiling(options)?, &|_done, _of| {})?.module)
        }
    }
}

/// The module as a region.
fn whole(module: &Module) -> Result<Module, Diagnostic> {
    let mut module = module.clone();
    let name = module.entry()?.name.clone();
    if let Some(f) = module.functions.get_mut(&name).filter(|f| f.derivative == Derivative::OfOps) {
        f.derivative = Derivative::Checkpoint;
    }
    Ok(module)
}
