//! Measured schedules: of the schedules that a region's kernels on a CPU may have, the one that was the fastest on a machine.

use crate::schedule::Choice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tilewright_ir::diag::{Diagnostic, Place};
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
        serde_json::from_str(text).map_err(|error| {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
            let column = u32::try_from(error.column()).unwrap_or(u32::MAX).max(1);
            let place = Place::Text { file: file.into(), line, column, length: 1 };
            Diagnostic::new("tuned-syntax", format!("not a file of `tilewright tune`: {error}")).at(place, "here")
        })
    }
}
