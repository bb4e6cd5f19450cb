//! Programs: what one function of the graph becomes. Steps in order over named buffers.

use super::expr::{Expr, Ident};
use super::tree::Kernel;
use crate::graph::Role;
use crate::infer::require::Requirement;
use crate::types::{DType, Dim, Symbol, SymbolDecl, Type};

/// A buffer of a program, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramBuffer {
    /// Name.
    pub name: Ident,
    /// Type.
    pub ty: Type,
    /// The same memory as this earlier buffer: a reshape, or an update in place.
    pub alias_of: Option<Ident>,
}

/// `launch kernel(buffers) when(condition)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// Buffer names in the kernel's argument order.
    pub arguments: Vec<Ident>,
    /// Launched only where this holds for the symbols; none is always.
    pub when: Option<Expr>,
}

/// Rearranges a matrix into the panels `[ceil(n/nr)][k][nr]` of a micro-kernel, zero padded. Done once for weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// Source buffer; element `(k, n)` is at `k * k_stride + n * n_stride`. Block encodings: rows n of k.
    pub from: Ident,
    /// Destination buffer of the program's work.
    pub to: Ident,
    /// Dtype of the source; the panels of a block encoding are opaque bytes.
    pub dtype: DType,
    /// Rows of the panels.
    pub k: Dim,
    /// Columns in all.
    pub n: Dim,
    /// Elements between neighbours in k.
    pub k_stride: Dim,
    /// Elements between neighbours in n.
    pub n_stride: Dim,
    /// Columns of a panel.
    pub nr: usize,
}

/// A call of another program.
#[derive(Clone, Debug, PartialEq)]
pub struct CallStep {
    /// The function's name.
    pub function: Ident,
    /// Buffers for its parameters.
    pub arguments: Vec<Ident>,
    /// Names that its results get here.
    pub results: Vec<Ident>,
    /// Values of its symbols in ours.
    pub symbols: Vec<(Symbol, Dim)>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Runs a kernel.
    Launch(Launch),
    /// Runs another program.
    Call(CallStep),
    /// Packs a matrix.
    Pack(Pack),
}

/// A parameter of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramParam {
    /// The buffer.
    pub buffer: ProgramBuffer,
    /// How callers use it.
    pub role: Role,
}

/// A compiled function: buffers, kernels, steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Name of the function.
    pub name: Ident,
    /// Symbols.
    pub symbols: Vec<SymbolDecl>,
    /// What must hold for their values at a call.
    pub requirements: Vec<Requirement>,
    /// Buffers that callers pass, in order.
    pub params: Vec<ProgramParam>,
    /// Names of the buffers that are returned, in order.
    pub results: Vec<Ident>,
    /// All other buffers, constants included.
    pub work: Vec<ProgramBuffer>,
    /// Values of constant buffers.
    pub constants: Vec<(Ident, crate::array::Array)>,
    /// Kernels.
    pub kernels: Vec<Kernel>,
    /// Steps in order.
    pub steps: Vec<Step>,
}
