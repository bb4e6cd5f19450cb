//! NVIDIA devices: compiling with NVRTC, launching through the driver. Both libraries are looked for at run time.

mod cache;
mod executable;
pub mod launch;
pub mod nvrtc;
mod report;

pub use executable::CudaExecutable;
pub use launch::{Argument, Cuda, LoadedKernel};
pub use nvrtc::{Compiled, Nvrtc};
pub use report::{Usage, per_kernel};
