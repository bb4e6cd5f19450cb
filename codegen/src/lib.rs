//! Code generation: Kernel IR to CPU machine code and to CUDA C.

pub mod cpu;
pub mod cuda;
