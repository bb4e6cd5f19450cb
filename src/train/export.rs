//! The model of a checkpoint, while the run goes on or after it was killed.

use super::checkpoint::Checkpoints;
use super::config::Config;
use super::model::Learner;
use super::{learned, recipe, weights_of};
use crate::compile::Options;
use crate::formats::check_writable;
use tilewright_ir::diag::{Diagnostic, Place};

/// Writes the model of the checkpoint after `step` steps, or of the last one, into the folder of the run, as a run does at its
/// end. A run that goes on is not disturbed. Gives the number of steps.
///
/// Errors: those of the files; `checkpoint` where there is none.
pub fn export(config: &Config, step: Option<u64>, options: &Options) -> Result<u64, Diagnostic> {
    let config = &mut config.clone();
    let (from, data) = learned(config)?;
    let folder = config.out.join("checkpoints");
    let none = || {
        let which = step.map_or(String::new(), |step| format!(" after step {step}"));
        let error = Diagnostic::new("checkpoint", format!("expected a checkpoint{which}, found none"));
        error.at(Place::Named(folder.display().to_string().into()), "")
    };
    if !folder.exists() {
        return Err(none());
    }
    let checkpoints = Checkpoints::reading(folder.clone(), config.fingerprint(), data.sources);
    check_writable(&config.out.join("model.safetensors"))?;
    let learner = Learner::new(config, from, data.vocabulary, options)?;
    let optimiser = config.optimiser.optimiser(&learner.model);
    let names = recipe(config, &*optimiser, None).state(&learner.weights());
    let found = match step {
        Some(step) => checkpoints.after(step, &names)?,
        None => checkpoints.resume(&names)?,
    };
    let found = found.ok_or_else(none)?;
    let weights = weights_of(config, &names, found.state);
    learner.export(&config.out, &weights, data.tokenizer.as_ref(), options)?;
    Ok(found.step)
}
