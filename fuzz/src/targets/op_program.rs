//! Op programs: what is accepted is a module that verifies and whose text parses to the same.

use super::graph_text::signature;
use super::{Outcome, Target, accepted, refused};
use crate::{interpret, seeds};
use tilewright::formats::op_program::OpProgram;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType;
use tilewright_ir::verify::verify;

/// See the module.
pub struct OpPrograms;

impl Target for OpPrograms {
    fn name(&self) -> &'static str {
        "op-program"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::op_programs()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let text = String::from_utf8_lossy(input);
        let program = match OpProgram::parse(&text, DType::F32) {
            Ok(program) => program,
            Err(error) => return refused(&error),
        };
        if let Err(error) = verify(&program.module) {
            return refused(&error);
        }
        let printed = print(&program.module);
        let again = parse("printed.tw", &printed).map_err(|d| format!("what is printed is refused: {d}\n{printed}"))?;
        if let Some(found) = difference(&program.module, &again) {
            return Err(format!("another module comes back from its text: {found}"));
        }
        let ran = interpret::small(&program.module)?;
        Ok(accepted(format!("{} {ran}", signature(&program.module))))
    }
}
