//! Training of language models: what `tilewright train` does, from a [`Config`].
//!
//! A [`Run`] compiles one program for all steps. The order of the data and all random numbers follow from the seed and the
//! number of the step, so that a run that goes on from a checkpoint gives the bits of one that never stopped.

mod budget;
mod checkpoint;
mod config;
mod data;
mod export;
mod health;
mod hunt;
mod metrics;
mod model;
mod plot;
mod precision;
mod prefetch;
mod validation;

pub use budget::{CheckpointConfig, Within};
pub use checkpoint::{Checkpoints, Resumed};
pub use config::{
    Config, DataConfig, Family, LoraConfig, ModelConfig, OptimiserConfig, SaveConfig, ScheduleConfig, ScheduleKind,
    TokenType, TrainConfig,
};
pub use data::{Batches, Data, Source, Tokens};
pub use export::export;
pub use metrics::Metrics;
pub(crate) use model::read_weights;
pub use precision::{LossScaleConfig, Precision};
pub use validation::ValidationConfig;

use crate::compile::{Options, compile};
use crate::formats::{check_writable, tokenizer_files::TokenizerFiles};
use crate::optim::{LossScale, Optimiser, Recipe};
use health::Health;
use hunt::Hunt;
use metrics::Log;
use model::{Learner, Origin};
use prefetch::Prefetch;
use std::sync::Arc;
use std::time::Instant;
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, Type};
use tilewright_passes::Target;
use tilewright_passes::mixed::Policy;
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::Executable;
use validation::Validation;

/// A run that is ready to go on.
pub struct Run {
    config: Config,
    options: Options,
    learner: Learner,
    tokenizer: Option<TokenizerFiles>,
    checkpoints: Checkpoints,
    batches: Arc<Batches>,
    /// The step.
    module: Module,
    code: Executable,
    /// Names and types of the state.
    names: Vec<(String, Type)>,
    state: Vec<Buffer>,
    frozen: Vec<Buffer>,
    step: u64,
    /// Operations of the model in a step, and those of the machine in a second.
    flops: [f64; 2],
    validation: Option<Validation>,
    within: Option<Within>,
    /// Of how many steps it was to be when the checkpoint was written, if that is another number.
    planned: Option<u64>,
    hunt: Option<Hunt>,
}

impl Run {
    /// Reads the data, makes the model or takes the last checkpoint of `config.out`, and compiles the step.
    ///
    /// Errors: those of the files, of the configuration and of the compiler; `checkpoint`.
    pub fn open(mut config: Config, options: &Options) -> Result<Run, Diagnostic> {
        let (from, data) = learned(&mut config)?;
        let folder = config.out.join("checkpoints");
        let checkpoints = Checkpoints::new(folder, config.save.keep, config.fingerprint(), data.sources)?;
        check_writable(&config.out.join("model.safetensors"))?;
        let learner = Learner::new(&config, from, data.vocabulary, options)?;
        let shape = [config.train.batch, learner.context];
        let batches = Batches::new(data.tokens, config.seed, shape, learner.model.vocabulary)?;
        let optimiser = config.optimiser.optimiser(&learner.model);
        let policy = config.train.precision.policy()?;
        let recipe = recipe(&config, &*optimiser, policy.as_ref());
        let names = recipe.state(&learner.weights());
        let (module, within) = budget::step(&config, &learner, &recipe, options)?;
        let code = compile(&module, options)?;
        let device = Target { isa: options.isa.name() }.device(&options.lowering())?;
        let flops = [learner.flops(&config, &recipe)?, device.matrix.of(config.train.precision.dtype())];
        let part = [config.train.batch / config.train.parts, learner.context];
        let tested = data.validation.map(|tokens| Validation::new(&learner, &tokens, part, policy.as_ref(), options));
        let validation = tested.transpose()?;
        let (step, state, planned) = match checkpoints.resume(&names)? {
            Some(resumed) => (resumed.step, resumed.state, resumed.planned),
            None => (0, first_state(&names, &learner, recipe.scale)?, None),
        };
        if step > config.train.steps {
            let message =
                format!("train.steps: expected at least {step}, those that are done, found {}", config.train.steps);
            return Err(Diagnostic::new("train-config", message));
        }
        // What is resumed lies in a mapped file, and the state is written.
        let state = state.iter().map(|a| code.copy_in(a)).collect::<Result<_, _>>()?;
        let frozen = learner.frozen.iter().map(|(_, a)| code.share(a)).collect::<Result<_, _>>()?;
        let (options, tokenizer) = (options.clone(), data.tokenizer);
        let batches = Arc::new(batches);
        Ok(Run {
            config,
            options,
            learner,
            tokenizer,
            checkpoints,
            batches,
            module,
            code,
            names,
            state,
            frozen,
            step,
            flops,
            validation,
            within,
            planned,
            hunt: None,
        })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.config.train.steps
    }

    /// The steps that the whole run was to have when it wrote the checkpoint, where that is another number now. The schedule goes by the
    /// new one.
    pub fn planned(&self) -> Option<u64> {
        self.planned
    }

    /// From now on keeps a copy of what each step begins with, and ends a run with the error `diverged` where a step makes a NaN or an
    /// infinity in its loss, its gradients or its state, for [`Run::hunted`]. With a scaled loss gradients are none of these: their
    /// steps are skipped.
    ///
    /// Errors: `not-finite` for a state that has one before the first step.
    pub fn hunt(&mut self) -> Result<(), Diagnostic> {
        self.hunt = Some(Hunt::default());
        let values = self.values()?;
        hunt::began(self.step, &self.names, &values)
    }

    /// Runs the step that ended a hunting run with `ended` once more, in the interpreter. Gives the error `not-finite` of the first node,
    /// forward or gradient, that made a NaN or an infinity, with its line and what its operands are; or `ended` with what came in
    /// the way.
    pub fn hunted(&self, ended: Diagnostic) -> Diagnostic {
        let Some(hunt) = self.hunt.as_ref().filter(|_| ended.code == "diverged") else { return ended };
        let frozen: Vec<Array> = self.learner.frozen.iter().map(|(_, a)| a.clone()).collect();
        hunt.find(ended, &self.module, &frozen)
    }

    /// Number of the weights that learn.
    pub fn parameters(&self) -> usize {
        self.learner.first.iter().map(Array::len).sum()
    }

    /// Bytes of the memory that a step needs beside the state.
    pub fn step_bytes(&self) -> Result<usize, Diagnostic> {
        self.code.peak_at(&Bindings::new())
    }

    /// What its budget of memory comes to, if it has one.
    pub fn within(&self) -> Option<&Within> {
        self.within.as_ref()
    }

    /// Does the steps that are left, or those up to number `until`, with checkpoints and metrics as the configuration says; after
    /// the last it writes the model, and says that it did. `seen` gets the metrics of each step. With an `until` of 0 there is a
    /// checkpoint of the first weights.
    ///
    /// Errors: `file`, those of the steps; `diverged` where a loss is no finite number, in f16 several times in a row.
    pub fn finish(&mut self, until: Option<u64>, mut seen: impl FnMut(&Metrics)) -> Result<bool, Diagnostic> {
        let end = until.unwrap_or(u64::MAX).min(self.config.train.steps);
        let mut log = Log::open(&self.config.out, self.step)?;
        let shape = self.learner.batch_shape(&self.config);
        let ahead = Prefetch::start(self.batches.clone(), shape, self.step..end);
        let tokens = self.config.train.batch * self.learner.context;
        let mut within = self.within.clone();
        let mut health = Health::default();
        if self.step == 0 && end == 0 {
            self.save()?;
        }
        while self.step < end {
            let start = Instant::now();
            let batch = ahead.next()?;
            let loss_scale = self.loss_scale();
            if let Some(mut hunt) = self.hunt.take() {
                hunt.begin(&batch, &self.values()?)?;
                self.hunt = Some(hunt);
            }
            let [loss, norm, rate] = self.run(&batch)?;
            self.step += 1;
            let seconds = start.elapsed().as_secs_f64().max(1e-9);
            let [model, machine] = self.flops;
            let (tokens_per_s, mfu) = (tokens as f64 / seconds, Some(model / seconds / machine));
            let last = self.step == end;
            let validation = self.tested(last)?;
            let step = self.step;
            let told = self.step.is_multiple_of(self.config.save.metrics) || self.step == 1 || last;
            let told = told || validation.is_some();
            let checkpointing = within.take_if(|_| told);
            let metrics = Metrics { step, loss, norm, rate, tokens_per_s, mfu, validation, loss_scale, checkpointing };
            seen(&metrics);
            health.check(&metrics)?;
            if let Some(hunt) = &self.hunt {
                hunt.check(&metrics, &self.names, &self.values()?)?;
            }
            if told {
                log.add(&metrics)?;
            }
            if self.step.is_multiple_of(self.config.save.every) || last {
                self.save()?;
                self.draw(&log)?;
            }
        }
        if self.step < self.config.train.steps {
            return Ok(false);
        }
        let weights = weights_of(&self.config, &self.names, self.values()?);
        self.learner.export(&self.config.out, &weights, self.tokenizer.as_ref(), &self.options)?;
        self.draw(&log)?;
        Ok(true)
    }

    fn draw(&self, log: &Log) -> Result<(), Diagnostic> {
        plot::write(&self.config.out.join("loss.svg"), &log.read()?)
    }

    /// One step; the loss, the norm and the rate.
    fn run(&mut self, batch: &[Array; 2]) -> Result<[f64; 3], Diagnostic> {
        let mut inputs = vec![self.code.share(&batch[0])?, self.code.share(&batch[1])?];
        inputs.append(&mut self.state);
        inputs.extend(self.frozen.iter().cloned());
        let mut results = self.code.run_buffers(&inputs, &Bindings::new())?;
        let metrics = results.split_off(self.names.len());
        self.state = results;
        match &metrics[..] {
            [loss, norm, rate] => Ok([number(loss), number(norm), number(rate)]),
            _other => Err(Diagnostic::bug("a step without its metrics")),
        }
    }

    /// The loss on other data, in steps that measure it.
    fn tested(&self, last: bool) -> Result<Option<f64>, Diagnostic> {
        let Some(validation) = &self.validation else { return Ok(None) };
        if !(self.step.is_multiple_of(self.config.save.validation) || last) {
            return Ok(None);
        }
        let weights = weights_of(&self.config, &self.names, self.state.clone());
        validation.loss(&weights, &self.frozen).map(Some)
    }

    /// What the next step multiplies the loss by.
    fn loss_scale(&self) -> Option<f64> {
        let at = self.names.iter().position(|(name, _)| name == LossScale::NAME)?;
        self.state.get(at).map(number)
    }

    /// The state as arrays, which share its memory until the next step.
    fn values(&self) -> Result<Vec<Array>, Diagnostic> {
        let one = |((_, ty), buffer): (&(String, Type), &Buffer)| {
            let shape = ty.concrete(&Bindings::new()).map_err(Diagnostic::bug)?;
            let bytes = element_count(&shape).and_then(|n| ty.dtype.bytes(n)).and_then(|n| buffer.bytes(n));
            Array::new(ty.dtype, &shape, bytes.ok_or_else(|| Diagnostic::bug("a state without bytes"))?)
        };
        self.names.iter().zip(&self.state).map(one).collect()
    }

    fn save(&self) -> Result<(), Diagnostic> {
        self.checkpoints.write(self.step, &self.names, &self.values()?)
    }
}

/// The model that a run starts from, if it does, and the data. Takes from the model what the configuration leaves to it.
fn learned(config: &mut Config) -> Result<(Option<Origin>, Data), Diagnostic> {
    let from = config.model.from.as_deref().map(Origin::open).transpose()?;
    if let Some(from) = &from {
        config.complete(from.context());
    }
    let mut data = Data::open(&config.data, from.as_ref().and_then(|m| m.tokenizer.as_ref()))?;
    if let (Some(path), Some(from), Some(_)) = (&config.model.from, &from, &config.lora) {
        data.sources.push(from.source(path));
    }
    Ok((from, data))
}

/// What of a state is the weights that the run is for: averages, where they are kept.
fn weights_of<T>(config: &Config, names: &[(String, Type)], state: Vec<T>) -> Vec<T> {
    let prefix = if config.train.average.is_some() { "average." } else { "w." };
    names.iter().zip(state).filter(|((name, _), _)| name.starts_with(prefix)).map(|(_, value)| value).collect()
}

/// A scalar of f32.
fn number(buffer: &Buffer) -> f64 {
    let bytes = buffer.bytes(4).and_then(|b| <[u8; 4]>::try_from(&b[..]).ok());
    bytes.map_or(f64::NAN, |b| f64::from(f32::from_le_bytes(b)))
}

fn recipe<'a>(config: &Config, optimiser: &'a dyn Optimiser, mixed: Option<&'a Policy>) -> Recipe<'a> {
    Recipe {
        optimiser,
        schedule: config.schedule(),
        clip: Some(config.train.clip).filter(|limit| *limit > 0.0),
        average: config.train.average,
        parts: config.train.parts,
        mixed,
        scale: config.train.precision.loss_scale(config.loss_scale.as_ref()),
        checkpointing: None,
    }
}

/// Zeros but for the weights, averages, which start as these, and the scale of the loss.
fn first_state(
    names: &[(String, Type)],
    learner: &Learner,
    scale: Option<LossScale>,
) -> Result<Vec<Array>, Diagnostic> {
    let weights = |name: &str| {
        let own = name.strip_prefix("w.").or_else(|| name.strip_prefix("average."))?;
        learner.learns.iter().position(|e| e.weight.name == own).map(|i| learner.first[i].clone())
    };
    let scale = |name: &str| scale.filter(|_| name == LossScale::NAME).map(|scale| scale.first);
    let one = |(name, ty): &(String, Type)| match (weights(name), scale(name)) {
        (Some(array), _) => Ok(array),
        (None, Some(first)) => Array::from_number(ty.dtype, first),
        (None, None) => {
            let shape = ty.concrete(&Bindings::new()).map_err(Diagnostic::bug)?;
            let bytes = element_count(&shape).and_then(|n| ty.dtype.bytes(n));
            let bytes = bytes.ok_or_else(|| Diagnostic::bug("a state that overflows"))?;
            Array::new(ty.dtype, &shape, Bytes::new(vec![0u8; bytes]))
        }
    };
    names.iter().map(one).collect()
}
