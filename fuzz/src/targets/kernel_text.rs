//! Kernel IR text: what is accepted is printed, parsed again, and given to the verifier.

use super::{Outcome, Target, accepted, refused};
use crate::seeds;
use tilewright_ir::kernel::Kernel;
use tilewright_ir::kernel::text::{parse_kernels, print_kernel};
use tilewright_ir::kernel::verify::verify;

/// See the module.
pub struct KernelText;

impl Target for KernelText {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::kernel_texts()
    }

    fn words(&self) -> Vec<String> {
        super::graph_text::words()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let text = String::from_utf8_lossy(input);
        let kernels = match parse_kernels("fuzz", &text) {
            Ok(kernels) => kernels,
            Err(error) => return refused(&error),
        };
        let printed: String = kernels.iter().map(print_kernel).collect();
        let again = parse_kernels("printed", &printed).map_err(|d| format!("what is printed is refused: {d}"))?;
        // Numbers that are NaN are not equal to themselves.
        if again.len() != kernels.len() || again.iter().map(print_kernel).collect::<String>() != printed {
            return Err(format!("another kernel comes back from its text:\n{printed}"));
        }
        if again != kernels && !printed.contains("nan") {
            return Err(format!("an unequal kernel comes back from its text:\n{printed}"));
        }
        let mut signature = String::from("accepted");
        for kernel in &kernels {
            signature += &verified(kernel)?;
        }
        Ok(accepted(signature))
    }
}

fn verified(kernel: &Kernel) -> Result<String, String> {
    Ok(match verify(kernel) {
        Ok(report) => format!(" masks {} removable {}", report.masks.min(3), report.removable.min(3)),
        Err(error) => refused(&error)?.signature,
    })
}
