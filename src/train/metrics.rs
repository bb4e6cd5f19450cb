//! Metrics of steps, as lines of JSON.

use super::budget::Within;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};

/// What a step gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metrics {
    /// Its number, from 1.
    pub step: u64,
    /// The loss before it. No number where it overflows, which ends the run, or with a scaled loss skips the step.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The norm over all gradients before clipping. No number in a step that was skipped, see [`LossScale`](crate::optim::LossScale).
    #[serde(deserialize_with = "number")]
    pub norm: f64,
    /// The rate.
    pub rate: f64,
    /// Tokens a second of this step.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation (Chowdhery et al., PaLM, 2022): products of the model a second as a part of what the machine's description
    /// has. What checkpointing computes again does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The loss after it on data that the model does not learn, in steps that measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// What the loss of this step was multiplied by, in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// What a budget of memory comes to, in the first line that a process writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointing: Option<Within>,
}

/// JSON has no infinities and no NaN: they are written as null.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The file `metrics.jsonl` of a run.
pub(super) struct Log {
    path: PathBuf,
    file: std::fs::File,
}

impl Log {
    /// Opens the file to go on after `step` steps: lines of later ones, which will come again, leave it.
    ///
    /// Errors: `file`.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Log, Diagnostic> {
        let path = folder.join("metrics.jsonl");
        let before: Vec<Metrics> = read(&path)?.into_iter().filter(|m| m.step <= step).collect();
        let text = before.iter().map(line).collect::<Result<String, _>>()?;
        crate::formats::write_whole(&path, |out| out.write_all(text.as_bytes()))?;
        let file = std::fs::OpenOptions::new().append(true).open(&path).map_err(|e| failed(&path, &e))?;
        Ok(Log { path, file })
    }

    /// Adds a line. Errors: `file`.
    pub(super) fn add(&mut self, metrics: &Metrics) -> Result<(), Diagnostic> {
        self.file.write_all(line(metrics)?.as_bytes()).map_err(|e| failed(&self.path, &e))
    }

    /// All lines. Errors: `file`.
    pub(super) fn read(&self) -> Result<Vec<Metrics>, Diagnostic> {
        read(&self.path)
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Diagnostic {
    let error = Diagnostic::new("file", format!("cannot write the metrics: {e}"));
    error.at(Place::Named(path.display().to_string().into()), "")
}

fn line(metrics: &Metrics) -> Result<String, Diagnostic> {
    let text =
        serde_json::to_string(metrics).map_err(|e| Diagnostic::bug(format!("metrics cannot be written: {e}")))?;
    Ok(text + "\n")
}

/// The lines of a file; none if it is absent. A last line that a killed run left unfinished is not counted.
fn read(path: &Path) -> Result<Vec<Metrics>, Diagnostic> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(path, &e)),
    }
}
