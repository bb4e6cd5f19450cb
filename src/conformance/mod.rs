//! Conformance: runs reference data through a device and compares with the expected results.
//!
//! A data folder has one folder per set. A case passes, or fails with a reason and its largest error; nothing is skipped
//! by name. The binary `conformance` is the command line of this module.

mod checks;
mod encoder;
mod execute;
mod forced;
mod onnx;
mod ops;
mod smollm2;
mod train;

pub use encoder::{minilm, rxn_albert};
pub use execute::{Device, Runner, execute};
pub use forced::Forced;
pub use onnx::onnx;
pub use ops::ops;
pub use smollm2::smollm2;
pub use train::train;

use std::fmt;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;
use tilewright_passes::egraph::{Numerics, UserRules};

/// How cases are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub device: Device,
    /// Whether gradients are compared, too.
    pub grads: bool,
    /// What gradients compute again.
    pub checkpoint: Forced,
    /// Optimisation level, from 0.
    pub opt_level: u8,
    /// Which rewrites may fire.
    pub numerics: Numerics,
    /// Dtype of the floats of a case: f64 or f32.
    pub float: DType,
    /// Threads of the CPU pool; all cores if absent. They never change a result.
    pub threads: Option<usize>,
    /// The rules of level 2.
    pub rules: UserRules,
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Name of the case.
    pub case: String,
    /// What failed.
    pub reason: String,
    /// Largest absolute error, where there are numbers to compare.
    pub error: Option<f64>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.reason)?;
        match self.error {
            Some(e) => write!(f, " (largest error {e:.3e})"),
            None => Ok(()),
        }
    }
}

/// What a set gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name of the set.
    pub set: String,
    /// Name of the device.
    pub device: String,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failures: Vec<Failure>,
    /// Cases that the device does not run.
    pub skipped: usize,
    /// Why cases were skipped.
    pub notes: Vec<String>,
    /// Largest error as a part of what was allowed, over all comparisons that passed.
    pub largest_part: f64,
}

/// The last line of a run: `ops on interpreter: 123 passed, 0 failed, 0 skipped`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (set, device, failed) = (&self.set, &self.device, self.failures.len());
        write!(f, "{set} on {device}: {} passed, {failed} failed, {} skipped", self.passed, self.skipped)
    }
}

/// The sets that there are.
pub const SETS: &[&str] = &["ops", "onnx_node", "nnsmith", "smollm2", "minilm", "rxn_albert", "train"];

/// Runs the set `name` of the folder `data`.
///
/// Errors: `conformance-set` for an unknown name or a folder without cases; those of reading the set. Cases that fail are part of the report.
pub fn run_set(name: &str, data: &std::path::Path, options: &Options) -> Result<Report, Diagnostic> {
    let report = match name {
        "ops" => ops(&data.join("ops"), options),
        "onnx_node" | "nnsmith" => onnx(name, &data.join(name), options),
        "smollm2" => smollm2(&data.join("smollm2"), options),
        "minilm" => minilm(&data.join("minilm"), options),
        "rxn_albert" => rxn_albert(&data.join("rxn_albert"), options),
        "train" => train(&data.join("train"), options),
        other => Err(Diagnostic::new(
            "conformance-set",
            format!("there is no set `{other}`, expected one of {}", SETS.join(" ")),
        )),
    }?;
    // Nothing passes where nothing was compared.
    if report.passed + report.failures.len() + report.skipped == 0 {
        let message = format!("expected cases of the set `{name}`, found none in {}", data.join(name).display());
        return Err(Diagnostic::new("conformance-set", message));
    }
    Ok(report)
}

/// Largest absolute difference of two arrays of one shape; equal infinities and NaN beside NaN differ by 0.
///
/// Errors: `conformance-result` for shapes or dtypes that cannot be compared.
pub fn largest_error(found: &Array, expected: &Array) -> Result<f64, Diagnostic> {
    let message = || format!("expected a shape {:?}, found {:?}", expected.shape(), found.shape());
    let differ = || Diagnostic::new("conformance-result", message());
    if found.shape() != expected.shape() {
        return Err(differ());
    }
    let (a, b) = (found.to_f64().ok_or_else(differ)?, expected.to_f64().ok_or_else(differ)?);
    let error = |(x, y): (&f64, &f64)| {
        if x == y || (x.is_nan() && y.is_nan()) {
            0.0
        } else if x.is_nan() || y.is_nan() {
            f64::INFINITY
        } else {
            (x - y).abs()
        }
    };
    Ok(a.iter().zip(&b).map(error).fold(0.0, f64::max))
}
