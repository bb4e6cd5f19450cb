//! What is rewritten in a function before its kernels are chosen.

use super::{Options, identity, lookups, once, one_hot, parts, slices, wide};
use crate::egraph::Numerics;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};

/// A function and what became of it so far.
struct Rewritten<'a> {
    module: &'a Module,
    f: &'a Function,
    now: Option<Function>,
    /// What the passes that changed something did, for readers.
    said: Vec<&'static str>,
}

impl Rewritten<'_> {
    fn by(
        &mut self,
        did: Option<&'static str>,
        pass: impl FnOnce(&Module, &Function) -> Result<Option<Function>, Diagnostic>,
    ) -> Result<(), Diagnostic> {
        if let Some(new) = pass(self.module, self.now.as_ref().unwrap_or(self.f))? {
            self.now = Some(new);
            self.said.extend(did);
        }
        Ok(())
    }
}

/// `f` as it is lowered, where that is not as it stands.
pub(super) fn prepared(module: &Module, f: &Function, options: &Options) -> Result<Option<Function>, Diagnostic> {
    Ok(rewritten(module, f, options)?.now)
}

/// `f` as [`prepared`], and what was done before the rules that changes how numbers are made.
pub(super) fn prepared_saying(
    module: &Module,
    f: &Function,
    options: &Options,
) -> Result<(Option<Function>, Vec<Diagnostic>), Diagnostic> {
    let Rewritten { now, said, .. } = rewritten(module, f, options)?;
    let note = |did: &&str| Diagnostic::new("before-rules", format!("before the rules, and at each level here: {did}"));
    Ok((now, said.iter().map(note).collect()))
}

fn rewritten<'a>(module: &'a Module, f: &'a Function, options: &Options) -> Result<Rewritten<'a>, Diagnostic> {
    let mut now = Rewritten { module, f, now: None, said: Vec::new() };
    now.by(None, |m, f| Ok(identity::bypassed(m, f)))?;
    now.by(None, wide::narrowed)?;
    if options.opt_level < 2 {
        return Ok(now);
    }
    now.by(None, once::computed)?;
    let reorders = options.numerics >= Numerics::Reassociate;
    if reorders {
        now.by(Some("products with one-hot operands look up, if what they multiply is finite"), one_hot::looked_up)?;
        now.by(Some("products of joined operands are sums of products of the parts"), parts::split)?;
    }
    // A product of fewer rows may be another kernel, which adds in another order.
    if options.numerics != Numerics::Exact {
        now.by(Some("slices of products are products of slices"), slices::moved)?;
    }
    now.by(Some("lookups are made before what computes all elements"), |m, f| lookups::moved(m, f, reorders))?;
    Ok(now)
}
