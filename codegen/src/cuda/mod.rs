//! Kernel IR to CUDA C: include-free text that NVRTC compiles, one `__global__` function a kernel.
//!
//! A tile of n elements lives in the registers of the block, element e in thread `e % threads`, or in the two-dimensional
//! layout of the block's matrix accumulator where it has the same axes, which is that of the matrix instructions where these
//! make it. A tile that some statement reads in another
//! distribution lives in shared memory: the emitter finds that out by emitting, notes the name, and starts again.

mod access;
mod describe;
mod emitter;
mod instructions;
mod mma;
mod pipe;
mod prelude;
mod program;
mod reduce;
mod scalar;
mod stmt;
mod tensor;
mod value;

pub use program::{CudaPrograms, emit_programs};

use emitter::{Emitter, Stop};
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Expr;
use tilewright_ir::kernel::tree::{Kernel, Level, Stmt};

/// Declares the shared memory that a launch allocates.
pub const DYNAMIC_SHARED: &str = "extern __shared__ __align__(16) unsigned char dynamic_shared[];";

/// A kernel's function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaKernel {
    /// Name of the function.
    pub name: String,
    /// Its text, without the helpers that it calls.
    pub text: String,
    /// Threads of a block.
    pub threads: i64,
    /// Bytes of shared memory of a block.
    pub shared_bytes: i64,
    /// Those that the launch allocates: all or none.
    pub dynamic_bytes: i64,
}

/// Threads of a block where the kernel does not say.
const DEFAULT_THREADS: i64 = 128;

/// The CUDA C of a kernel for a target `sm_*`. Its parameters are the argument buffers in order, then the symbols as
/// `long long`. The grid is one-dimensional, see [`grids`].
///
/// # Errors
/// `cuda-unsupported` names a construct outside the subset (pipes between roles, clusters, asynchronous products),
/// `cuda-invalid` a kernel that breaks the rules, `cuda-shared-memory` one that needs more shared memory than its target
/// has. Over 48 KB are allocated by the launch.
pub fn emit(kernel: &Kernel) -> Result<String, Diagnostic> {
    let text = emit_as(kernel, &c_word(&kernel.name))?.text;
    let helpers = prelude::helpers(&text);
    Ok(if helpers.is_empty() { text } else { format!("{helpers}\n{text}") })
}

/// The function of a kernel under a name, without the helpers that it calls. Errors: as [`emit`].
fn emit_as(kernel: &Kernel, name: &str) -> Result<CudaKernel, Diagnostic> {
    let mut shared = BTreeSet::new();
    let mut dynamic = false;
    loop {
        match Emitter::new(kernel, &shared, dynamic)?.kernel(name) {
            Ok(done) => return Ok(done),
            Err(Stop::Failed(d)) => return Err(d.note(format!("in kernel `{}`", kernel.name))),
            Err(Stop::Dynamic) => dynamic = true,
            // Every round adds a name, so this ends.
            Err(Stop::Shared(name)) => {
                if !shared.insert(name.clone()) {
                    return Err(Diagnostic::bug(format!("tile `{name}` is shared already")));
                }
            }
        }
    }
}

/// A name with only letters, digits and underscores.
fn c_word(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Bytes of shared memory that a block may have where the launch asks for them.
fn shared_limit(target: &str) -> i64 {
    let kilobytes = match target {
        "sm_80" => 163,
        "sm_90" | "sm_90a" => 227,
        // What all devices since 8.6 have.
        _other => 99,
    };
    kilobytes * 1024
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

/// The extents of each `par .. at grid` of the kernel. A launch has the sum of their products as blocks, those of the first grid
/// first, the last extent of a grid fastest.
pub fn grids(kernel: &Kernel) -> Vec<Vec<Expr>> {
    let extents = kernel.body.iter().filter_map(|s| match s {
        Stmt::Par { vars, level: Level::Grid, .. } => Some(vars.iter().map(|v| v.1.clone()).collect()),
        _ => None,
    });
    let found: Vec<Vec<Expr>> = extents.collect();
    if found.is_empty() { vec![Vec::new()] } else { found }
}

/// The number of blocks that [`grids`] make, as a formula with a sign for products.
fn blocks(kernel: &Kernel, times: &str) -> String {
    let product = |extents: &Vec<Expr>| {
        let extents: Vec<String> = extents.iter().map(describe::expr).collect();
        if extents.is_empty() { "1".to_string() } else { extents.join(times) }
    };
    grids(kernel).iter().map(product).collect::<Vec<_>>().join(" + ")
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("cuda-invalid", message)
}

fn unsupported(what: impl Into<String>) -> Diagnostic {
    Diagnostic::new("cuda-unsupported", format!("the CUDA emitter does not know {}", what.into()))
}
