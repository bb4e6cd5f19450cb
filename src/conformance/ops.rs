//! The set `ops`: op programs, one a file, listed in `index.json`.

use super::forced::derivative;
use super::{Failure, Options, Report, execute, largest_error};
use crate::formats::Safetensors;
use crate::formats::op_program::OpProgram;
use serde::Deserialize;
use std::path::Path;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::interp::Mode;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::Form;

/// A line of the index.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    file: String,
    out_abs_max: f64,
    grad_abs_max: f64,
    torch_f32_out_err: f64,
    torch_f32_grad_err: f64,
}

impl Case {
    /// Largest absolute error of an output, or of a gradient. f64: 1e-12 of the largest of them or of 1; f32: sixteen times
    /// the error of torch's own f32 run, and 1e-6 of the largest or of 1.
    fn tolerance(&self, float: DType, gradient: bool) -> f64 {
        let (size, torch) = if gradient {
            (self.grad_abs_max, self.torch_f32_grad_err)
        } else {
            (self.out_abs_max, self.torch_f32_out_err)
        };
        let size = size.max(1.0);
        if float == DType::F64 { 1e-12 * size } else { 16.0 * torch + 1e-6 * size }
    }
}

/// Runs every case of `folder`, with gradients if the options ask for them. Errors: `file`, `conformance-index`,
/// `conformance-set`; failed cases are in the report.
pub fn ops(folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
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
            Ok(part) if part <= 1.0 => {
                report.passed += 1;
                report.largest_part = report.largest_part.max(part);
            }
            Ok(part) => report.failures.push(Failure {
                case: case.name.clone(),
                reason: "in parts of the tolerance".into(),
                error: Some(part),
            }),
            Err(d) => {
                report.failures.push(Failure { case: case.name.clone(), reason: d.to_string(), error: None });
            }
        }
    }
    Ok(report)
}

/// The largest error over all outputs and gradients of a case, each divided by its tolerance.
fn run(folder: &Path, case: &Case, options: &Options) -> Result<f64, Diagnostic> {
    let file = Safetensors::open(folder.join(&case.file))?;
    let program = OpProgram::from_file(&file, options.float)?;
    let mut inputs = program.read_inputs(&file)?;
    let mut expected: Vec<(String, bool)> = program.outputs.iter().map(|name| (format!("out.{name}"), false)).collect();
    let module = if options.grads {
        inputs.extend(program.read_cotangents(&file)?);
        let wrt: Vec<&str> = program.inputs.iter().filter(|i| i.grad).map(|i| i.name.as_str()).collect();
        expected.extend(wrt.iter().map(|name| (format!("grad.{name}"), true)));
        derivative(&program.module, &wrt, Form::Pullback, options, &Bindings::new())?
    } else {
        program.module
    };
    let results = execute(&module, &inputs, options, Mode::Meaning)?;
    if results.len() != expected.len() || results.is_empty() {
        let message = format!("expected {} results, found {}", expected.len(), results.len());
        return Err(Diagnostic::new("conformance-result", message));
    }
    let mut largest = 0f64;
    for ((name, gradient), found) in expected.iter().zip(&results) {
        let error = largest_error(found, &file.tensor(name)?)?;
        largest = largest.max(error / case.tolerance(options.float, *gradient));
    }
    Ok(largest)
}
