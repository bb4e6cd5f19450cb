//! Tilewright: a tensor compiler for transformer models.
//!
//! A model is a graph built with the [`dsl`](tilewright_ir::dsl), parsed from text, or made from a checkpoint; it is
//! lowered to kernels and compiled to machine code for the CPU.

pub mod bench;
pub mod cli;
pub mod compile;
pub mod conformance;
pub mod embed;
pub mod emit;
pub mod formats;
pub mod generate;
pub mod models;
pub mod snapshot;
