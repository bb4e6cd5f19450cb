//! The loss of a model on data that it does not learn.

use super::data::Tokens;
use super::model::Learner;
use super::number;
use crate::compile::{Options, compile};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::Bindings;
use tilewright_passes::mixed::Policy;
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::Executable;

/// Most batches that a loss is the mean of.
const MOST: usize = 16;

/// What a model is tested on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a part of the data such as 0.05, or a list of files")]
pub enum ValidationConfig {
    /// This part of the data, its end, which the model does not learn then.
    Part(f64),
    /// Files of the kind that the model learns, text or tokens.
    Files(Vec<PathBuf>),
}

impl ValidationConfig {
    /// Errors: `train-config`.
    pub(super) fn check(&self) -> Result<(), Diagnostic> {
        let wrong = |expected: &str, found: String| {
            let message = format!("data.validation: expected {expected}, found {found}");
            Err(Diagnostic::new("train-config", message))
        };
        match self {
            ValidationConfig::Part(part) if !(*part > 0.0 && *part <= 0.5) => {
                wrong("a part above 0 and at most 0.5", part.to_string())
            }
            ValidationConfig::Files(files) if files.is_empty() => wrong("at least one file", "none".into()),
            _fits => Ok(()),
        }
    }
}

/// The program of the loss, and the batches that it is computed on: the same ones each time.
pub(super) struct Validation {
    code: Executable,
    batches: Vec<[Array; 2]>,
}

impl Validation {
    /// Windows of `context` tokens that do not overlap, spread over all of `tokens`; at most 16 batches of `batch`.
    ///
    /// Errors: `train-data` for fewer tokens than a window; those of the compiler.
    pub(super) fn new(
        learner: &Learner,
        tokens: &Tokens,
        [batch, context]: [usize; 2],
        policy: Option<&Policy>,
        options: &Options,
    ) -> Result<Validation, Diagnostic> {
        tokens.check(learner.model.vocabulary)?;
        let windows = tokens.len().saturating_sub(1) / context.max(1);
        if windows == 0 {
            let message = format!("data.validation: expected {} tokens, found {}", context + 1, tokens.len());
            return Err(Diagnostic::new("train-data", message));
        }
        let batch = batch.min(windows);
        let count = (windows / batch).min(MOST);
        let start = |number: usize| number * windows / (count * batch) * context;
        let one = |i: usize| tokens.windows((0..batch).map(|j| start(i * batch + j)), context, &[batch, context]);
        let batches = (0..count).map(one).collect::<Result<_, _>>()?;
        Ok(Validation { code: compile(&learner.loss([batch, context], policy)?, options)?, batches })
    }

    /// The mean loss of a token by these weights.
    ///
    /// Errors: those of a run.
    pub(super) fn loss(&self, weights: &[Buffer], frozen: &[Buffer]) -> Result<f64, Diagnostic> {
        let mut total = 0.0;
        for [x, y] in &self.batches {
            let given = [self.code.share(x)?, self.code.share(y)?].into_iter();
            let inputs: Vec<Buffer> = given.chain(weights.iter().cloned()).chain(frozen.iter().cloned()).collect();
            let results = self.code.run_buffers(&inputs, &Bindings::new())?;
            total += results.first().map_or(f64::NAN, number);
        }
        Ok(total / self.batches.len() as f64)
    }
}
