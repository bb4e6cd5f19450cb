//! Kernels are what their texts say, and are proved.

use tilewright_ir::kernel::Kernel;
use tilewright_ir::kernel::text::{parse_kernel, print_kernel};
use tilewright_ir::kernel::verify::verify;

/// A kernel is what its text says, and its verifier proves its bounds.
pub fn check(kernel: &Kernel) -> Result<(), String> {
    let text = print_kernel(kernel);
    let again = parse_kernel("k", &text).map_err(|d| format!("{d}\n{text}"))?;
    if print_kernel(&again) != text {
        return Err(format!("parses to another kernel:\n{text}\n{}", print_kernel(&again)));
    }
    verify(kernel).map_err(|d| format!("{d}\n{text}"))?;
    Ok(())
}
