//! What the sets with models share: comparisons of one case, and reading of their files.

use super::{Failure, Report};
use crate::formats::Safetensors;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};

/// What the comparisons of one case gave.
#[derive(Default)]
pub(super) struct Checks {
    failed: Vec<String>,
    /// Largest error of the comparisons that failed.
    error: Option<f64>,
    /// Largest error as a part of what was allowed, of the comparisons that passed.
    largest_part: f64,
}

impl Checks {
    pub(super) fn equal(&mut self, what: &str, found: &[u32], expected: &[u32]) {
        if found.len() != expected.len() {
            self.failed.push(format!("{what}: expected {} ids, found {}", expected.len(), found.len()));
        } else if let Some(i) = (0..found.len()).find(|&i| found[i] != expected[i]) {
            self.failed.push(format!("{what}: expected {} at {i}, found {}", expected[i], found[i]));
        }
    }

    /// `tolerance` is of an expected number. Not-a-number is never close.
    pub(super) fn close<T: Copy + Into<f64>>(
        &mut self,
        what: &str,
        found: &[T],
        expected: &[T],
        tolerance: impl Fn(f64) -> f64,
    ) {
        if found.len() != expected.len() {
            self.failed.push(format!("{what}: expected {} numbers, found {}", expected.len(), found.len()));
            return;
        }
        // The largest error as a part of what is allowed, and that error.
        let (mut worst, mut largest) = (0f64, 0f64);
        for (x, y) in found.iter().zip(expected) {
            let (x, y): (f64, f64) = ((*x).into(), (*y).into());
            let error = (x - y).abs();
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error / tolerance(y) > worst {
                (worst, largest) = (error / tolerance(y), error);
            }
        }
        if worst <= 1.0 {
            self.largest_part = self.largest_part.max(worst);
        } else {
            self.failed.push(format!("{what}: error {largest:.3e} is {worst:.3e} times the tolerance"));
            self.error = Some(self.error.map_or(largest, |e| e.max(largest)));
        }
    }

    /// Something that is wrong without a number.
    pub(super) fn fail(&mut self, what: String) {
        self.failed.push(what);
    }

    fn finish(self, case: &str, report: &mut Report) {
        report.largest_part = report.largest_part.max(self.largest_part);
        if self.failed.is_empty() {
            report.passed += 1;
        } else {
            let reason = self.failed.join("; ");
            report.failures.push(Failure { case: case.into(), reason, error: self.error });
        }
    }
}

/// The JSON file at `path`. Errors: `file`, `conformance-index`.
pub(super) fn read_index<T: DeserializeOwned>(path: &Path) -> Result<T, Diagnostic> {
    let at = |d: Diagnostic| d.at(Place::Named(path.display().to_string().into()), "");
    let text = std::fs::read_to_string(path).map_err(|e| at(Diagnostic::new("file", format!("cannot read: {e}"))))?;
    serde_json::from_str(&text).map_err(|e| at(Diagnostic::new("conformance-index", e.to_string())))
}

/// The file or folder `model`, below the current folder or below the folder that holds the data folder. `folder` is that
/// of the set. Errors: `model-file`.
pub(super) fn model_file(folder: &Path, model: &str) -> Result<PathBuf, Diagnostic> {
    let beside = folder.parent().and_then(Path::parent).map(|p| p.join(model));
    let found = [Some(PathBuf::from(model)), beside].into_iter().flatten().find(|p| p.exists());
    found.ok_or_else(|| {
        Diagnostic::new("model-file", format!("there is no {model}; scripts/fetch-models.sh fetches the models"))
    })
}

/// Adds the outcome of `case` to `report`.
pub(super) fn finish(case: &str, checks: Result<Checks, Diagnostic>, report: &mut Report) {
    match checks {
        Ok(checks) => checks.finish(case, report),
        Err(d) => report.failures.push(Failure { case: case.into(), reason: d.to_string(), error: None }),
    }
}

/// The tensor `name` as floats. Errors: those of the file; `conformance-index`.
pub(super) fn floats(file: &Safetensors, name: &str) -> Result<Vec<f32>, Diagnostic> {
    let wrong = || Diagnostic::new("conformance-index", format!("`{name}` has no floats"));
    file.tensor(name)?.to_f32().ok_or_else(wrong)
}

/// The tensor `name` as token ids. Errors: those of the file; `conformance-index`.
pub(super) fn ids(file: &Safetensors, name: &str) -> Result<Vec<u32>, Diagnostic> {
    let wrong = || Diagnostic::new("conformance-index", format!("`{name}` has no token ids"));
    let id = |x: &f64| (x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(x)).then_some(*x as u32);
    file.tensor(name)?.to_f64().and_then(|v| v.iter().map(id).collect()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_fail_on_a_difference() {
        let mut checks = Checks::default();
        checks.close("a", &[1.0, 2.0], &[1.0, 2.0005], |_| 1e-3);
        checks.equal("b", &[1, 2], &[1, 2]);
        assert!(checks.failed.is_empty() && checks.largest_part > 0.4);
        checks.close("c", &[f32::NAN], &[0.0], |_| 1e-3);
        checks.close("d", &[1.0], &[1.01], |_| 1e-3);
        checks.close("e", &[], &[1.0], |_| 1e-3);
        checks.equal("f", &[1, 3], &[1, 2]);
        assert_eq!(checks.failed.len(), 4);
        assert_eq!(checks.error, Some(f64::INFINITY));
    }
}
