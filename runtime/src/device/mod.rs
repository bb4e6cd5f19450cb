//! Devices other than the CPU, and the plan that they follow.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod plan;

pub use plan::Plan;
