//! What lowering may do.

use crate::egraph::{DEFAULT_BUDGET, Device, Numerics, UserRules};
use crate::tuned::Tuned;
use std::sync::Arc;

/// How to lower.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// 0: a kernel per node; 1: fusion in a fixed order; 2: kernels chosen by price.
    pub opt_level: u8,
    /// What level 2 may change about rounding.
    pub numerics: Numerics,
    /// Whether every kernel must pass the verifier of kernels, which takes about a fifth of the time of a compilation.
    pub verify: bool,
    /// The rules of level 2.
    pub rules: UserRules,
    /// What level 2 prices kernels by; the shipped description of the target if absent.
    pub device: Option<Arc<Device>>,
    /// Schedules of CPU kernels that were measured to be best.
    pub tuned: Option<Arc<Tuned>>,
    /// Work of choosing kernels for a function at level 2, see [`CoverLimits::budget`](crate::egraph::CoverLimits).
    pub budget: usize,
}

impl From<u8> for Options {
    /// The level with everything else by default: kernels are verified in debug builds.
    fn from(opt_level: u8) -> Options {
        Options {
            opt_level,
            numerics: Numerics::Reassociate,
            verify: cfg!(debug_assertions),
            rules: UserRules::default(),
            device: None,
            tuned: None,
            budget: DEFAULT_BUDGET,
        }
    }
}
