//! What is fuzzed: a target per format.

mod checkpoints;
mod graph_text;
mod kernel_text;
mod lowering;
mod op_program;
mod rules;
mod tokenizer;

use crate::driver::skeleton;
use crate::random::Random;
use tilewright_ir::diag::Diagnostic;

/// What a target says of an input that does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the reader took it.
    pub accepted: bool,
    /// Names the behaviour: inputs with another signature than all before are worth mutating.
    pub signature: String,
}

/// A reader and what must hold of it.
pub trait Target {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// Real inputs.
    fn seeds(&self) -> Vec<Vec<u8>>;
    /// Whether inputs are text.
    fn text(&self) -> bool {
        true
    }
    /// Words that mutations may use beside those of the seeds.
    fn words(&self) -> Vec<String> {
        Vec::new()
    }
    /// Makes parts of a mutated input fit again that would hide the rest, such as a length.
    fn repair(&self, _input: &mut Vec<u8>, _random: &mut Random) {}
    /// Reads `input` and checks what the reader says. Errors: the property that is broken.
    fn run(&self, input: &[u8]) -> Result<Outcome, String>;
}

/// All targets.
pub fn all() -> Vec<Box<dyn Target>> {
    vec![
        Box::new(graph_text::GraphText),
        Box::new(lowering::Lowering),
        Box::new(kernel_text::KernelText),
        Box::new(op_program::OpPrograms),
        Box::new(rules::Rules),
        Box::new(checkpoints::GgufFiles),
        Box::new(checkpoints::SafetensorsFiles),
        Box::new(tokenizer::TokenizerJson),
    ]
}

/// An input that was refused by `error`, which must not be a bug of ours.
fn refused(error: &Diagnostic) -> Result<Outcome, String> {
    if error.code == "bug" {
        return Err(format!("a bug is reported: {error}"));
    }
    let signature = format!("{}: {}", error.code, skeleton(&error.message));
    Ok(Outcome { accepted: false, signature })
}

/// An input that was taken, with what makes it different from others.
fn accepted(signature: impl Into<String>) -> Outcome {
    Outcome { accepted: true, signature: signature.into() }
}
