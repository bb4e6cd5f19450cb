//! Measured schedules: of the schedules that a region's kernels on a CPU may have, the one that was the fastest on a machine.

use crate::egraph::cover::json_error;
use crate::schedule::Choice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;

/// A region whose schedule is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// The function that it is of.
    pub function: Ident,
    /// Its kernel; a variant for few rows has `_few` behind that.
    pub kernel: Ident,
    /// What it computes, as [`crate::region::Region::canonical`] has it.
    pub region: String,
    /// What may be chosen, the usual first.
    pub choices: Vec<Choice>,
}

impl Tunable {
    /// Whether it has a kernel of this name in its function: its own, or the variant for few rows.
    pub fn makes(&self, kernel: &str) -> bool {
        kernel.strip_suffix("_few").unwrap_or(kernel) == &*self.kernel
    }
}

/// Measured schedules of a machine, in a file: JSON that can be read and kept under version control.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// Instruction set of the micro-kernels.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// By the text of the region.
    pub regions: BTreeMap<String, Best>,
}

/// What was best for a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// A kernel that computes it, as `function.kernel`.
    pub kernel: String,
    /// The best.
    pub choice: Choice,
    /// Seconds of a run with it, over all kernels of this region.
    pub seconds: f64,
    /// Seconds with the usual choice.
    pub usual: f64,
}

impl Tuned {
    /// What was best for a region, if it was measured.
    pub fn choice(&self, region: &str) -> Option<Choice> {
        self.regions.get(region).map(|best| best.choice)
    }

    /// What `tilewright tune` wrote. Errors: `tuned-syntax`, with the place.
    pub fn parse(file: &str, text: &str) -> Result<Tuned, Diagnostic> {
        serde_json::from_str(text).map_err(|error| json_error("tuned-syntax", file, text, &error))
    }
}
