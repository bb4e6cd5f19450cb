//! Accepted `.tw` modules, compiled at every level: kernels are proved, code runs, and integers are what the interpreter
//! says. Floats are left to `tests/differential`, which knows how exact they must be.

use super::{Outcome, Target, accepted, refused};
use crate::{interpret, seeds};
use tilewright::compile::{MAX_OPT_LEVEL, Options, compile};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::parse;

/// See the module.
pub struct Lowering;

impl Target for Lowering {
    fn name(&self) -> &'static str {
        "lower"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::graph_texts()
    }

    fn words(&self) -> Vec<String> {
        super::graph_text::words()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let text = String::from_utf8_lossy(input);
        let module = match parse("fuzz.tw", &text) {
            Ok(module) => module,
            Err(error) => return refused(&error),
        };
        let Some((inputs, sizes)) = interpret::inputs(&module) else { return Ok(accepted("large")) };
        let entry = module.entry().map_err(|d| d.to_string())?;
        let want = interp::run(&module, &entry.name, &inputs, &sizes, Mode::Meaning);
        let mut signature = super::graph_text::signature(&module);
        for opt_level in 0..=MAX_OPT_LEVEL {
            let host = Options::host().map_err(|d| d.to_string())?;
            let options = Options { opt_level, threads: 1, verify: true, ..host };
            let found = match compile(&module, &options) {
                Ok(code) => code.run(&inputs, &sizes),
                // A valid module that cannot be compiled: a limit may say so, a proof may not fail.
                Err(error) if error.code.starts_with("kernel-") => return Err(format!("level {opt_level}: {error}")),
                Err(error) => {
                    signature += &refused(&error)?.signature;
                    continue;
                }
            };
            signature += &compared(&module, &want, &found).map_err(|e| format!("level {opt_level}: {e}"))?;
        }
        Ok(accepted(signature))
    }
}

/// What is wrong if code and interpreter disagree where they must not.
fn compared(
    module: &Module,
    want: &Result<Vec<Array>, Diagnostic>,
    found: &Result<Vec<Array>, Diagnostic>,
) -> Result<String, String> {
    match (want, found) {
        (Ok(want), Ok(found)) => {
            let alike = |(a, b): (&Array, &Array)| a.dtype() == b.dtype() && a.shape() == b.shape();
            if want.len() != found.len() || !want.iter().zip(found).all(alike) {
                return Err("results have other types than the interpreter's".into());
            }
            let floats = module.functions.values().flat_map(|f| &f.nodes).flat_map(|n| &n.types);
            let exact = !floats.clone().any(|t| t.dtype.is_float() || t.dtype.is_block());
            if exact && want != found {
                return Err("integers differ from the interpreter's".into());
            }
            Ok("ran".into())
        }
        (Ok(_), Err(error)) => Err(format!("the interpreter runs what the code refuses: {error}")),
        (Err(error), Ok(_)) => Err(format!("the code runs what the interpreter refuses: {error}")),
        (Err(a), Err(_)) => Ok(a.code.into()),
    }
}
