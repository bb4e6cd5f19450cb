//! A feed-forward block as Llama has it: RMS norm, SwiGLU, and the residual.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Graph;
use tilewright_ir::dsl::nn::{Linear, RmsNorm};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType::F32;

/// `x + down(silu(gate(norm x)) * up(norm x))` for up to 512 rows `x`.
///
/// # Errors
/// Those of the graph: none for sizes above 0.
pub fn block(width: i64, hidden: i64) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let tokens = g.symbol("tokens", 1..=512);
    let x = g.input("x", F32, [tokens, width.into()]);
    let normal = RmsNorm::new(&g, "norm", width, 1e-5).forward(&x);
    let gate = Linear::new(&g, "gate", F32, width, hidden, false).forward(&normal);
    let up = Linear::new(&g, "up", F32, width, hidden, false).forward(&normal);
    let down = Linear::new(&g, "down", F32, hidden, width, false);
    g.finish(&[&(x + down.forward(&(gate.silu() * up)))])
}
