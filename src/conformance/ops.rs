//! The set `ops`: op programs, one a file, listed in `index.json`.

use super::{Failure, Options, Report, execute, largest_error};
use crate::formats::Safetensors;
use crate::formats::op_program::OpProgram;
use serde::Deserialize;
use std::path::Path;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::interp::Mode;
use tilewright_ir::types::DType;

/// A line of the index.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    file: String,
    out_abs_max: f64,
    torch_f32_out_err: f64,
}

impl Case {
    /// Largest absolute error of an output. f64: 1e-12 of the largest output or of 1; f32: sixteen times the error of
    /// torch's own f32 run, and 1e-6 of the largest output or of 1.
    fn tolerance(&self, float: DType) -> f64 {
        let size = self.out_abs_max.max(1.0);
        if float == DType::F64 { 1e-12 * size } else { 16.0 * self.torch_f32_out_err + 1e-6 * size }
    }
}

/// Runs every case of `folder`. Errors: `file`, `conformance-index`, `not-available` (gradients); failed cases are in the
/// report.
pub fn ops(folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
    if options.grads {
        return Err(Diagnostic::new("not-available", "gradients are not available yet"));
    }
    if !matches!(options.float, DType::F64 | DType::F32) {
        let message = format!("the set ops has tolerances for f64 and f32, found {}", options.float);
        return Err(Diagnostic::new("conformance-set", message));
    }
    let path = folder.join("index.json");
    let at = |d: Diagnostic| d.at(Place::Named(path.display().to_string().into()), "");
    let text = std::fs::read_to_string(&path).map_err(|e| at(Diagnostic::new("file", format!("cannot read: {e}"))))?;
    let cases: Vec<Case> =
        serde_json::from_str(&text).map_err(|e| at(Diagnostic::new("conformance-index", e.to_string())))?;
    let mut report = Report { set: "ops".into(), device: options.device.to_string(), ..Report::default() };
    for case in &cases {
        match run(folder, case, options) {
            Ok(error) if error <= case.tolerance(options.float) => {
                report.passed += 1;
                report.largest_part = report.largest_part.max(error / case.tolerance(options.float));
            }
            Ok(error) => report.failures.push(Failure {
                case: case.name.clone(),
                reason: format!("above the tolerance {:.3e}", case.tolerance(options.float)),
                error: Some(error),
            }),
            Err(d) => {
                report.failures.push(Failure { case: case.name.clone(), reason: d.to_string(), error: None });
            }
        }
    }
    Ok(report)
}

/// The largest error over all outputs of a case.
fn run(folder: &Path, case: &Case, options: &Options) -> Result<f64, Diagnostic> {
    let file = Safetensors::open(folder.join(&case.file))?;
    let program = OpProgram::from_file(&file, options.float)?;
    let inputs = program.read_inputs(&file)?;
    let results = execute(&program.module, &inputs, options, Mode::Meaning)?;
    if results.len() != program.outputs.len() || results.is_empty() {
        let message = format!("expected {} results, found {}", program.outputs.len(), results.len());
        return Err(Diagnostic::new("conformance-result", message));
    }
    let mut largest = 0f64;
    for (name, found) in program.outputs.iter().zip(&results) {
        largest = largest.max(largest_error(found, &file.tensor(&format!("out.{name}"))?)?);
    }
    Ok(largest)
}
