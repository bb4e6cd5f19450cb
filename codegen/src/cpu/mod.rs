//! CPU code: micro-kernels and the Cranelift emitter.

pub mod clif;
pub mod pack;
pub mod poly;
pub mod ukernel;
