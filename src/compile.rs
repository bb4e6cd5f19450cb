//! From a module to something that runs: the stages in order.

use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::Program;
use tilewright_ir::verify::verify;
use tilewright_passes::egraph::Numerics;
use tilewright_passes::{LowerOptions, Target, lower_module};
use tilewright_runtime::executable::Executable;

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// 0: each primitive is a kernel of its own; 1: fusion in a fixed order; 2: kernels chosen by price.
    pub opt_level: u8,
    /// What level 2 may change about rounding.
    pub numerics: Numerics,
    /// Threads of the CPU pool. They never change a result.
    pub threads: usize,
    /// Instruction set of the micro-kernels.
    pub isa: Isa,
}

impl Options {
    /// The default level, the best instruction set of this machine unless `TILEWRIGHT_CPU` names one, all cores.
    ///
    /// Errors: `cpu-feature` if `TILEWRIGHT_CPU` is unknown or not available here.
    pub fn host() -> Result<Options, Diagnostic> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (opt_level, numerics) = (DEFAULT_OPT_LEVEL, Numerics::default());
        Ok(Options { opt_level, numerics, threads, isa: host_isa()? })
    }
}

/// The highest level.
pub const MAX_OPT_LEVEL: u8 = 2;

/// The level that is used unless the user names one.
pub const DEFAULT_OPT_LEVEL: u8 = 1;

fn host_isa() -> Result<Isa, Diagnostic> {
    let Ok(name) = std::env::var("TILEWRIGHT_CPU") else { return Ok(Isa::best()) };
    let isa = match name.as_str() {
        "avx512" => Isa::Avx512,
        "avx2" => Isa::Avx2,
        "portable" => Isa::Portable,
        _ => {
            let message = format!("TILEWRIGHT_CPU is `{name}`, expected avx512, avx2 or portable");
            return Err(Diagnostic::new("cpu-feature", message));
        }
    };
    if isa.available() { Ok(isa) } else { Err(Diagnostic::new("cpu-feature", format!("this machine has no {name}"))) }
}

/// Verifies a module and lowers each function to a program of kernels.
///
/// Errors: those of the verifier and of the lowering.
pub fn lower(module: &Module, options: &Options) -> Result<Vec<Program>, Diagnostic> {
    verify(module)?;
    let isa = match options.isa {
        Isa::Avx512 => "avx512",
        Isa::Avx2 => "avx2",
        Isa::Portable => "portable",
    };
    let lowering = LowerOptions { opt_level: options.opt_level, numerics: options.numerics };
    lower_module(module, lowering, &Target { isa })
}

/// Compiles a module for the CPU.
///
/// Errors: those of [`lower`] and of the emitter.
pub fn compile(module: &Module, options: &Options) -> Result<Executable, Diagnostic> {
    Executable::compile(lower(module, options)?, options.isa, options.threads)
}
