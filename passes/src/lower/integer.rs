//! Covers of all functions of a module beside what a solver of integer programs says.

use super::{Options, Target, depth, level2, prepared};
use crate::egraph::cover::Integer;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::types::Bindings;

/// What an integer program of at most `nodes` nodes says of the kernels of each function at level 2, in module order; for
/// one beyond a limit of that level, the warning that says so.
///
/// Errors: those of [`lower_module`]; `ilp-solver`.
pub fn integer(
    module: &Module,
    options: impl Into<Options>,
    target: &Target,
    likely: &Bindings,
    nodes: u64,
) -> Result<Vec<Result<Integer, Diagnostic>>, Diagnostic> {
    depth(module)?;
    let options = options.into();
    let target = &target.allowed(&options);
    let each = |f: &Function| {
        let narrow = prepared(module, f, &options)?;
        level2::integer(narrow.as_ref().unwrap_or(f), &options, target, likely, nodes)
    };
    module.functions.values().map(each).collect()
}
