//! Kernel IR to CUDA C: include-free text that NVRTC compiles, one `__global__` function a kernel.
//!
//! A tile of n elements lives in the registers of the block, element e in thread `e % threads`, or in the two-dimensional
//! layout of the block's matrix accumulator where it has the same axes. A tile that some statement reads in another
//! distribution lives in shared memory: the emitter finds that out by emitting, notes the name, and starts again.

mod access;
mod describe;
mod emitter;
mod mma;
mod prelude;
mod reduce;
mod scalar;
mod stmt;
mod value;

use emitter::{Emitter, Stop};
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Expr;
use tilewright_ir::kernel::tree::{Kernel, Level, Stmt};

/// Threads of a block where the kernel does not say.
const DEFAULT_THREADS: i64 = 128;

/// The CUDA C of a kernel for a target `sm_*`. Its parameters are the argument buffers in order, then the symbols as
/// `long long`. The grid is one-dimensional, see [`grid`].
///
/// # Errors
/// `cuda-unsupported` names a construct outside the subset (pipes, roles, clusters, asynchronous products),
/// `cuda-invalid` a kernel that breaks the rules, `cuda-shared-memory` one that needs over 48 KB of shared memory.
pub fn emit(kernel: &Kernel) -> Result<String, Diagnostic> {
    let mut shared = BTreeSet::new();
    loop {
        match Emitter::new(kernel, &shared)?.kernel() {
            Ok(text) => return Ok(text),
            Err(Stop::Failed(d)) => return Err(d.note(format!("in kernel `{}`", kernel.name))),
            // Every round adds a name, so this ends.
            Err(Stop::Shared(name)) => {
                if !shared.insert(name.clone()) {
                    return Err(Diagnostic::bug(format!("tile `{name}` is shared already")));
                }
            }
        }
    }
}

/// Threads of a block.
///
/// # Errors
/// Not a multiple of 32 in 32..=1024.
pub fn threads(kernel: &Kernel) -> Result<i64, Diagnostic> {
    let n = match kernel.attrs.iter().find(|a| &*a.name == "threads") {
        None => DEFAULT_THREADS,
        Some(a) => match a.args.as_slice() {
            [Expr::Int(n)] => *n,
            _ => 0,
        },
    };
    if (32..=1024).contains(&n) && n % 32 == 0 {
        return Ok(n);
    }
    Err(invalid(format!("expected threads(n) with a multiple of 32 up to 1024, found {n}")))
}

/// The extents of the kernel's `par .. at grid`; the launch has their product as blocks, the last extent fastest.
pub fn grid(kernel: &Kernel) -> Vec<Expr> {
    let extents = kernel.body.iter().find_map(|s| match s {
        Stmt::Par { vars, level: Level::Grid, .. } => Some(vars.iter().map(|v| v.1.clone()).collect()),
        _ => None,
    });
    extents.unwrap_or_default()
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("cuda-invalid", message)
}

fn unsupported(what: impl Into<String>) -> Diagnostic {
    Diagnostic::new("cuda-unsupported", format!("the CUDA emitter does not know {}", what.into()))
}
