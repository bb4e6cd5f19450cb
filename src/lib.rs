//! Tilewright: a tensor compiler for transformer models.
//!
//! A model is a graph built with the [`dsl`], parsed from [`text`], or made from a checkpoint ([`formats`]); it is lowered
//! to kernels and compiled to machine code.
//!
//! ```
//! use tilewright::array::Array;
//! use tilewright::compile::{Options, compile};
//! use tilewright::dsl::Graph;
//! use tilewright::types::{Bindings, DType};
//!
//! # fn main() -> Result<(), tilewright::diag::Diagnostic> {
//! // relu(x w), for as many rows as a call brings.
//! let graph = Graph::new("main");
//! let n = graph.symbol("n", 1..=1024);
//! let x = graph.input("x", DType::F32, (n, 2));
//! let w = graph.weight("w", DType::F32, (2, 2));
//! let module = graph.finish(&[&x.matmul(&w).relu()])?;
//!
//! let code = compile(&module, &Options::host()?)?;
//! let rows = Array::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let weights = Array::from_f32(&[2, 2], &[1.0, 1.0, 1.0, -1.0])?;
//! let results = code.run(&[rows, weights], &Bindings::new())?;
//! assert_eq!(results[0].to_f32(), Some(vec![3.0, 0.0, 7.0, 0.0, 11.0, 0.0]));
//! # Ok(())
//! # }
//! ```
//!
//! A mistake, such as a second operand of other than 2 rows, is kept in the graph and is the error of `finish`: a
//! [`Diagnostic`](diag::Diagnostic) that names both lines and both types.
//!
//! Features, all on by default: `cuda` (programs on NVIDIA GPUs), `models` (tokenizers and chat templates, with them
//! `generate`, `embed` and `train`), `cli` (the programs, which need both). Graphs, compilation for CPUs, CUDA text and the readers
//! of checkpoints need none.

#[cfg(feature = "cli")]
pub mod bench;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compile;
#[cfg(feature = "cli")]
pub mod conformance;
#[cfg(feature = "models")]
pub mod embed;
pub mod emit;
pub mod explain;
pub mod formats;
#[cfg(feature = "models")]
pub mod generate;
pub mod ledger;
pub mod models;
pub mod optim;
pub mod programs;
pub mod snapshot;
#[cfg(feature = "models")]
pub mod train;
pub mod tune;

pub use tilewright_ir::{array, diag, dsl, graph, interp, text, types};
pub use tilewright_passes::autodiff;
pub use {
    tilewright_codegen as codegen, tilewright_ir as ir, tilewright_passes as passes, tilewright_runtime as runtime,
};
