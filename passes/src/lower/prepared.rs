//! What is rewritten in a function before its kernels are chosen.

use super::{Options, identity, lookups, once, slices, wide};
use crate::egraph::Numerics;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};

/// `f` as it is lowered, where that is not as it stands.
pub(super) fn prepared(module: &Module, f: &Function, options: &Options) -> Result<Option<Function>, Diagnostic> {
    let direct = identity::bypassed(module, f);
    let narrow = wide::narrowed(module, direct.as_ref().unwrap_or(f))?.or(direct);
    if options.opt_level < 2 {
        return Ok(narrow);
    }
    let reorders = options.numerics >= Numerics::Reassociate;
    let once = once::computed(module, narrow.as_ref().unwrap_or(f))?.or(narrow);
    // A product of fewer rows may be another kernel, which adds in another order.
    let cut = match options.numerics {
        Numerics::Exact => once,
        Numerics::Rounding | Numerics::Reassociate | Numerics::Approx => {
            slices::moved(module, once.as_ref().unwrap_or(f))?.or(once)
        }
    };
    Ok(lookups::moved(module, cut.as_ref().unwrap_or(f), reorders)?.or(cut))
}
