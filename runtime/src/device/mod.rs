//! Devices that programs run on.

pub mod cuda;
