//! Transforms on Graph IR: e-graph rewriting, fusion, cost model, schedules.

pub mod agree;
pub mod autodiff;
mod build;
pub mod checkpoint;
pub mod egraph;
mod extract;
pub mod fuse;
pub mod lower;
pub mod mixed;
mod outline;
pub mod region;
pub mod schedule;
pub mod tuned;
pub mod vmap;
pub mod walk;

#[cfg(feature = "ilp")]
pub use lower::integer;
pub use lower::{Explained, ExplainedKernel, Lowered, Options as LowerOptions, Origin, Priced, PricedKernel, Second};
pub use lower::{Known, lower_module_knowing};
pub use lower::{Target, explained, fired, lower_module, optimized, priced, regions, tunables};
pub use outline::outlined;
