//! Programs of functions that were lowered before, for modules that have functions in common.

use super::{Options, Target, lowered};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::kernel::Program;
use tilewright_ir::text::print;

/// [`lower_module`](super::lower_module) for one of several modules that have functions in common, each of which is lowered once. `known`
/// begins empty, and is for the same options and target.
///
/// Errors: those of [`lower_module`](super::lower_module).
pub fn lower_module_knowing(
    module: &Module,
    options: impl Into<Options>,
    target: &Target,
    known: &Known,
) -> Result<Vec<Program>, Diagnostic> {
    lowered(module, &options.into(), target, Some(known))
}

/// What was lowered, with the same options and for the same target; see [`lower_module_knowing`].
#[derive(Debug, Default)]
pub struct Known {
    /// By what decides a program: the text of the function and of all that it runs.
    programs: Mutex<HashMap<String, Program>>,
}

impl Known {
    /// The program of `f`, by `lower` where it is not known. Lines in its warnings may be those of another function of the same text.
    pub(super) fn program(
        &self,
        module: &Module,
        f: &Function,
        lower: impl FnOnce() -> Result<Program, Diagnostic>,
    ) -> Result<Program, Diagnostic> {
        // There is none where something calls the entry.
        let Ok(part) = module.part(&f.name) else { return lower() };
        let text = print(&part);
        let all = || self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all().get(&text).cloned();
        if let Some(program) = known {
            return Ok(program);
        }
        let program = lower()?;
        all().insert(text, program.clone());
        Ok(program)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Target, lower_module, lower_module_knowing};
    use super::*;
    use tilewright_ir::text::parse;

    fn module(inner: &str, outer: &str) -> Module {
        let text = format!(
            "func @inner(%x: f32[8]) -> f32[8] {{\n  %0 = {inner} %x\n  return %0\n}}
             func @outer(%x: f32[8]) -> f32[8] {{\n  %0 = {outer} %x\n  %1 = call %0 function=@inner\n  return %1\n}}"
        );
        parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"))
    }

    #[test]
    fn programs_are_those_of_what_is_lowered() {
        let (known, target) = (Known::default(), Target { isa: "avx2" });
        for (inner, outer, count) in
            [("exp", "tanh", 2), ("exp", "tanh", 2), ("exp", "sin", 3), ("cos", "sin", 5), ("exp", "tanh", 5)]
        {
            let module = module(inner, outer);
            let found = lower_module_knowing(&module, 2, &target, &known).unwrap();
            assert_eq!(found, lower_module(&module, 2, &target).unwrap(), "{inner} {outer}");
            // A function is another one where it calls another one.
            assert_eq!(known.programs.lock().unwrap().len(), count, "{inner} {outer}");
        }
    }
}
