//! Programs: what one function of the graph becomes. Steps in order over named buffers.

use super::expr::{Expr, Ident};
use super::tree::Kernel;
use crate::diag::Diagnostic;
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

/// Rearranges matrices into the panels `[batch.., ceil(n/nr), k, nr]` of a micro-kernel, zero padded. Done once for weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// Source buffer; element `(k, n)` of the first matrix is at `offset + k * k_stride + n * n_stride`. Block encodings:
    /// rows n of k, one matrix.
    pub from: Ident,
    /// Destination buffer of the program's work.
    pub to: Ident,
    /// Dtype of the source; the panels of a block encoding are opaque bytes.
    pub dtype: DType,
    /// Dtype of the panels: that of the source, or f32 for halves. Panels of halves have two steps of `k` side by side.
    pub panels: DType,
    /// Elements before the first matrix.
    pub offset: Dim,
    /// Batch axes, outermost first: how many, and elements between neighbours.
    pub batch: Vec<(Dim, Dim)>,
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
    /// Done only where this holds for the symbols; none is always.
    pub when: Option<Expr>,
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

/// A program that may be run, with the values of its symbols in ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// The function's name.
    pub function: Ident,
    /// Values of its symbols in ours.
    pub symbols: Vec<(Symbol, Dim)>,
}

/// A call of one of two programs.
#[derive(Clone, Debug, PartialEq)]
pub struct CondStep {
    /// Buffer of the bool scalar that chooses.
    pub predicate: Ident,
    /// Run where it holds.
    pub yes: Branch,
    /// Run where it does not.
    pub no: Branch,
    /// Buffers for the parameters of either.
    pub arguments: Vec<Ident>,
    /// Names that the results get here.
    pub results: Vec<Ident>,
}

/// What a parameter of a scanned program gets.
#[derive(Clone, Debug, PartialEq)]
pub enum ScanArgument {
    /// This buffer at every step.
    Fixed(Ident),
    /// This buffer at first, then the result of the same number of the step before.
    Carry(Ident),
    /// At step i the slice i of this buffer's leading axis.
    Slice(Ident),
}

/// What becomes of a result of a scanned program.
#[derive(Clone, Debug, PartialEq)]
pub enum ScanResult {
    /// It is the fixed argument of the same number again.
    Fixed,
    /// The last one gets this name, or the first argument of the same number if there is no step.
    Carry(Ident),
    /// Step i writes slice i of this buffer's leading axis.
    Stack(Ident),
}

/// Calls of one program, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanStep {
    /// What is called.
    pub body: Branch,
    /// How often.
    pub length: Dim,
    /// One for each parameter of the program.
    pub arguments: Vec<ScanArgument>,
    /// One for each result of the program.
    pub results: Vec<ScanResult>,
}

impl ScanArgument {
    /// The buffer.
    pub fn name(&self) -> &Ident {
        match self {
            ScanArgument::Fixed(name) | ScanArgument::Carry(name) | ScanArgument::Slice(name) => name,
        }
    }
}

impl ScanResult {
    /// The buffer, if it has one of its own.
    pub fn name(&self) -> Option<&Ident> {
        match self {
            ScanResult::Fixed => None,
            ScanResult::Carry(name) | ScanResult::Stack(name) => Some(name),
        }
    }
}

/// One step. The results of a call, a `cond` or a `scan` lie in memory of their own, or in that of an argument whose
/// parameter is donated: nobody reads that argument afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Runs a kernel.
    Launch(Launch),
    /// Runs another program.
    Call(CallStep),
    /// Runs one of two programs.
    Cond(CondStep),
    /// Runs a program several times.
    Scan(ScanStep),
    /// Packs a matrix.
    Pack(Pack),
}

impl Step {
    /// Every buffer that the step names, in order; some more than once.
    pub fn names(&self) -> Vec<&Ident> {
        match self {
            Step::Launch(l) => l.arguments.iter().collect(),
            Step::Call(c) => c.arguments.iter().chain(&c.results).collect(),
            Step::Cond(c) => std::iter::once(&c.predicate).chain(&c.arguments).chain(&c.results).collect(),
            Step::Scan(s) => {
                let results = s.results.iter().filter_map(ScanResult::name);
                s.arguments.iter().map(ScanArgument::name).chain(results).collect()
            }
            Step::Pack(p) => vec![&p.from, &p.to],
        }
    }
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
    /// What the lowering has to say: `donated-copy` for memory that is given away, but must be copied all the same.
    pub warnings: Vec<Diagnostic>,
}
