//! What a device can do, as data that passes read; the code for it lives in the back ends.

pub mod mma;
pub mod ukernel;
