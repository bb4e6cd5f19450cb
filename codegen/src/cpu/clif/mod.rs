//! The Cranelift emitter: from kernels to machine code of this processor.
//!
//! `let` tiles are lazy: a statement that stores, sets or reduces is a loop nest over its tile, innermost the contiguous axis,
//! and evaluates expressions there, four f32 at a time where it can (`element`). Reductions, scalars, and tiles whose
//! sources change before they are used, are computed where they stand. No `a * b + c` is contracted.

mod ahead;
mod build;
mod calls;
mod check;
mod element;
mod emitter;
mod grid;
mod index;
mod lanes;
mod mma;
mod module;
mod nest;
mod reduce;
mod scalar;
mod stmt;
mod strips;
mod types;

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub use check::{Check, Outside};
pub use grid::eval;
pub use module::{CpuKernel, CpuModule, asm_text, clif_text, compile};
