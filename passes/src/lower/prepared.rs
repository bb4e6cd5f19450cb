//! What is rewritten in a function before its kernels are chosen.

use super::{Options, identity, lookups, once, one_hot, parts, slices, wide};
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
    let once = once::computed(module, narrow.as_ref().unwrap_or(f))?.or(narrow);
    if options.numerics == Numerics::Exact {
        return Ok(lookups::moved(module, once.as_ref().unwrap_or(f), false)?.or(once));
    }
    let reorders = options.numerics >= Numerics::Reassociate;
    let hot = if reorders { one_hot::looked_up(module, once.as_ref().unwrap_or(f))?.or(once) } else { once };
    let split = if reorders { parts::split(module, hot.as_ref().unwrap_or(f))?.or(hot) } else { hot };
    // A product of fewer rows may be another kernel, which adds in another order.
    let cut = slices::moved(module, split.as_ref().unwrap_or(f))?.or(split);
    Ok(lookups::moved(module, cut.as_ref().unwrap_or(f), reorders)?.or(cut))
}
