//! The sets `onnx_node` and `nnsmith`: foreign graphs, one a file.

use super::{Failure, Options, Report, execute};
use crate::formats::Safetensors;
use crate::formats::onnx::{OnnxGraph, OnnxProgram, left_out};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::interp::Mode;
use tilewright_ir::types::DType;

/// What a case gave.
enum Outcome {
    /// The largest error as a part of what is allowed.
    Compared(f64),
    /// The op that is left out, with the reason.
    Skipped(String),
}

/// Runs every case of `folder`, in order of name.
///
/// Errors: `file`, `not-available` (gradients); failed cases are in the report.
pub fn onnx(set: &str, folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
    if options.grads {
        return Err(Diagnostic::new("not-available", format!("the set {set} has no gradients")));
    }
    let mut report = Report { set: set.into(), device: options.device.to_string(), ..Report::default() };
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for path in cases(folder)? {
        let case = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match run(set, &path, options) {
            Ok(Outcome::Compared(part)) if part <= 1.0 => {
                report.passed += 1;
                report.largest_part = report.largest_part.max(part);
            }
            Ok(Outcome::Compared(part)) => {
                let reason = format!("{part:.3e} times the tolerance");
                report.failures.push(Failure { case, reason, error: None });
            }
            Ok(Outcome::Skipped(reason)) => *skipped.entry(reason).or_default() += 1,
            Err(d) => report.failures.push(Failure { case, reason: d.to_string(), error: None }),
        }
    }
    report.skipped = skipped.values().sum();
    report.notes = skipped.into_iter().map(|(reason, n)| format!("skipped {n}: {reason}")).collect();
    Ok(report)
}

fn cases(folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let fail = |e: std::io::Error| {
        let error = Diagnostic::new("file", format!("cannot read: {e}"));
        error.at(Place::Named(folder.display().to_string().into()), "")
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn run(set: &str, path: &Path, options: &Options) -> Result<Outcome, Diagnostic> {
    let file = Safetensors::open(path)?;
    if let Some((op, reason)) = left_out(&OnnxGraph::from_file(&file)?) {
        return Ok(Outcome::Skipped(format!("{op}: {reason}")));
    }
    let (program, arguments) = OnnxProgram::from_file(&file)?;
    // ONNX gives every value a dtype, and what comes after a rounding (floor, a comparison) may depend on it.
    let results = execute(&program.module, &arguments, options, Mode::Strict)?;
    if results.len() != program.outputs.len() || results.is_empty() {
        let message = format!("expected {} results, found {}", program.outputs.len(), results.len());
        return Err(Diagnostic::new("conformance-result", message));
    }
    // The expected values of NNSmith's models are those of torch before export, which casts some f64 scalars to f32.
    let any_float = set == "nnsmith";
    let mut largest = 0f64;
    for (name, found) in program.outputs.iter().zip(&results) {
        largest = largest.max(part(found, &file.tensor(&format!("out.{name}"))?, any_float)?);
    }
    Ok(Outcome::Compared(largest))
}

/// The largest error as a part of what is allowed, which is that of ONNX's own runner: 1e-3 of the element and 1e-7, for
/// f16 1e-2 and 1e-3; other dtypes are to be equal.
///
/// `any_float`: floats may have another width than the expected ones.
///
/// Errors: `conformance-result` for other types.
fn part(found: &Array, expected: &Array, any_float: bool) -> Result<f64, Diagnostic> {
    let ty = |a: &Array| format!("{}{:?}", a.dtype(), a.shape());
    let floats = any_float && found.dtype().is_float() && expected.dtype().is_float();
    let fits = found.shape() == expected.shape() && (found.dtype() == expected.dtype() || floats);
    let (Some(x), Some(y), true) = (found.to_f64(), expected.to_f64(), fits) else {
        return Err(Diagnostic::new("conformance-result", format!("expected {}, found {}", ty(expected), ty(found))));
    };
    if !expected.dtype().is_float() {
        return Ok(if found == expected { 0.0 } else { f64::INFINITY });
    }
    let (relative, absolute) =
        if [found.dtype(), expected.dtype()].contains(&DType::F16) { (1e-2, 1e-3) } else { (1e-3, 1e-7) };
    let each = x.iter().zip(&y).map(|(x, y)| {
        if x == y || (x.is_nan() && y.is_nan()) {
            0.0
        } else if x.is_finite() && y.is_finite() {
            (x - y).abs() / (absolute + relative * y.abs())
        } else {
            f64::INFINITY
        }
    });
    Ok(each.fold(0.0, f64::max))
}
