//! The reference interpreter: what a Graph IR module means. Obvious and slow; no optimisation decides a value here.
//!
//! Floats are held as f64 whatever their dtype, integers as i64 (u64 as its bits), so that each op is written once.
//! Every operand is checked against its type with all sizes known before an op runs, by the same rules that type
//! inference uses; values are freed after their last use. Cost: O(elements) per op, O(products) for `dot`.

mod control;
mod dot;
mod eval;
mod frame;
mod hunt;
mod indexing;
mod map;
mod movement;
mod reduce;
mod scalar;
#[cfg(test)]
mod tests;
mod value;

use crate::array::Array;
use crate::diag::Diagnostic;
use crate::graph::Module;
use crate::types::Bindings;
use crate::work::{Largest, Work};

/// How float values are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// What the program means: every float is computed and accumulated in f64. A value is rounded to its dtype only by a
    /// `cast` to a float dtype that does not hold every value of the operand's, where an input was given in that dtype,
    /// and at the end, where it becomes a result.
    Meaning,
    /// Every op rounds its result to its dtype. Folds (reductions, running sums, `dot`) go left to right in row-major order in
    /// [`DType::folded`](crate::types::DType::folded), rounded after every product and every addition: those of f16 and
    /// bf16 run in f32 and round to their dtype once. `scatter_add` rounds every addition. Elementary functions are those
    /// of f64, rounded.
    Strict,
}

/// Evaluates `function` of `module` on `inputs`, one per parameter.
///
/// A parameter dim that is a bare symbol binds it to the size found; `bindings` adds values of other symbols, and must
/// agree. Results have the dtypes and sizes of the function's results.
///
/// Errors: `unknown-function`, `operand-count`, `dtype-mismatch`, `shape-mismatch` and `unbound-symbol` for inputs that
/// do not fit; `symbol-range` for sizes outside their declared range; `index-out-of-range` for indices outside an axis;
/// `too-large` for a value above 4 GiB ([`fits`] says so beforehand); `out-of-memory`; `call-depth`; and those of [`crate::infer::infer`] for a module that is wrong.
pub fn run(
    module: &Module,
    function: &str,
    inputs: &[Array],
    bindings: &Bindings,
    mode: Mode,
) -> Result<Vec<Array>, Diagnostic> {
    let machine = frame::Machine { module, mode, hunt: false };
    machine.results(function, inputs, bindings)
}

/// [`run`] that ends at the first node that makes a NaN of operands without one, or an infinity of finite operands; nodes
/// without operands may be what they are.
///
/// Errors: `not-finite` with the node, its line and those of the calls around it, and what its operands are; those of [`run`].
pub fn hunt(
    module: &Module,
    function: &str,
    inputs: &[Array],
    bindings: &Bindings,
    mode: Mode,
) -> Result<Vec<Array>, Diagnostic> {
    let machine = frame::Machine { module, mode, hunt: true };
    machine.results(function, inputs, bindings)
}

/// Whether [`run`] allows the values of a call that has this work: those that are surely computed, before anything runs.
///
/// Errors: `too-large`, as those of [`run`].
pub fn fits(work: &Work) -> Result<(), Diagnostic> {
    let Some(Largest { at, dtype, shape, .. }) = &work.largest else { return Ok(()) };
    let label = format!("in this `{}` of `@{}`", at.op, at.function);
    value::small(*dtype, shape).map(drop).map_err(|d| at.label(d, &label))
}
