//! What a Tilewright program is and means: types, ops, Graph IR, Kernel IR, text, DSL, reference interpreter.
//!
//! This crate chooses nothing and emits nothing; the other crates read and transform what is declared here.

pub mod array;
pub mod blocks;
pub mod device;
pub mod diag;
pub mod dsl;
pub mod flops;
pub mod graph;
pub mod infer;
pub mod interp;
pub mod interp_kernel;
pub mod kernel;
pub mod op;
pub mod text;
pub mod types;
pub mod verify;
pub mod work;
