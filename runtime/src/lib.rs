//! Runtime: devices, memory plan, launch plan, threads.

pub mod device;
