//! Transforms on Graph IR: e-graph rewriting, fusion, cost model, schedules.

pub mod autodiff;
pub mod egraph;
pub mod fuse;
pub mod lower;
pub mod region;
pub mod schedule;

pub use lower::{Options as LowerOptions, Target, fired, lower_module, optimized, regions};
