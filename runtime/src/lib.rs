//! Runtime: buffers, threads, the execution of compiled programs, and the CUDA driver.
//!
//! A program is a list of steps over named buffers; this crate gives the buffers memory, packs weights once, and runs
//! the kernels' grid items on a fixed pool of threads.

pub mod buffer;
pub mod checksum;
pub mod device;
pub mod executable;
pub mod plan;
pub mod threads;
