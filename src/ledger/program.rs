//! The programs that are counted.

use super::scopes::named;
use super::{Question, Subject};
use crate::models::DecoderConfig;
use crate::models::decoder::Weights;
use crate::optim::{AdamW, Recipe, Schedule, State, Weight, train_step};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::{Form, differentiate};
use tilewright_passes::mixed::mixed;

/// The programs of a subject.
pub(super) struct Programs {
    /// The way forward: logits of all tokens, with training the loss.
    pub forward: Module,
    /// What runs: the way forward, or a step of training.
    pub whole: Module,
    /// Sizes of symbols.
    pub sizes: Bindings,
}

impl Programs {
    /// Builds them. Errors: `sequence-length`, `batch`; those of the model and of differentiation.
    pub fn of(subject: &Subject, question: &Question) -> Result<Programs, Diagnostic> {
        let (forward, whole, sizes) = match subject {
            Subject::Decoder { config, .. } => {
                let config = &question.config(config)?;
                match (question.decode, question.train) {
                    (true, _) => {
                        let past = i64::try_from(question.seq - 1).unwrap_or(i64::MAX);
                        (decoding(config)?, None, Bindings::from([("seq".into(), 1), ("past".into(), past)]))
                    }
                    (_, true) => (loss(config, question)?, Some(step(config, question)?), Bindings::new()),
                    (_, false) => (logits(config, question)?, None, Bindings::new()),
                }
            }
            Subject::Program { module, sizes, .. } => {
                let module = named(module);
                let made = |m: &Module| Ok(differentiate(m, &learned(m)?, Form::ValueAndGradient)?.module);
                let whole = question.train.then(|| made(&module)).transpose()?;
                (module, whole, sizes.clone())
            }
        };
        Ok(Programs { whole: whole.unwrap_or_else(|| forward.clone()), forward, sizes })
    }
}

/// The weights of a program, or all its floats where it has none.
pub(super) fn learned(module: &Module) -> Result<Vec<&str>, Diagnostic> {
    let entry = module.entry()?;
    let floats = || entry.params.iter().filter(|p| p.ty.dtype.is_float());
    let weights: Vec<&str> = floats().filter(|p| p.role == Role::Weight).map(|p| &*p.name).collect();
    Ok(if weights.is_empty() { floats().map(|p| &*p.name).collect() } else { weights })
}

impl Question {
    /// The model as it is asked for. Errors: `sequence-length` for more tokens than it has positions, or none; `batch` for none.
    pub(super) fn config(&self, config: &DecoderConfig) -> Result<DecoderConfig, Diagnostic> {
        let (most, found) = (config.context, self.seq);
        if found == 0 || found > most {
            let message = format!("expected sequences of 1 to {most} tokens, the most of the model, found {found}");
            return Err(Diagnostic::new("sequence-length", message));
        }
        if self.decode && self.batch > 1 {
            let message =
                format!("expected a batch of 1 sequence, as the program that generates has, found {}", self.batch);
            return Err(Diagnostic::new("batch", message));
        }
        if self.batch == 0 {
            return Err(Diagnostic::new("batch", "expected a batch of at least 1 sequence, found 0"));
        }
        Ok(DecoderConfig { float: self.dtype, checkpoint: self.checkpoint, ..config.clone() })
    }
}

fn weights(g: &Graph, config: &DecoderConfig) -> Weights {
    let one = |e: crate::models::decoder::Entry| {
        let weight = g.weight(&e.weight.name, e.weight.ty.dtype, &e.weight.ty.shape);
        (e.role, weight)
    };
    config.entries().into_iter().map(one).collect()
}

/// Closes the graph of `f`, which gets the weights by role; products are as the question has them.
fn forward(
    g: &Graph,
    config: &DecoderConfig,
    question: &Question,
    f: impl Fn(&Weights) -> Tensor,
) -> Result<Module, Diagnostic> {
    let (roles, values): (Vec<String>, Vec<Tensor>) = weights(g, config).into_iter().unzip();
    let computed = |values: &Vec<Tensor>| f(&roles.iter().cloned().zip(values.iter().cloned()).collect());
    let result = match question.policy()? {
        Some(policy) => mixed(&policy, computed)(&values),
        None => computed(&values),
    };
    g.finish(&[&result])
}

fn logits(config: &DecoderConfig, question: &Question) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let ids = g.input("ids", DType::I64, (question.batch, question.seq));
    forward(&g, config, question, |weights| config.logits(&ids, weights, None))
}

/// The program that generates, with weights of the model's dtype.
fn decoding(config: &DecoderConfig) -> Result<Module, Diagnostic> {
    Ok(named(&config.generating(config.context, config.float)?))
}

/// The mean loss over a batch.
pub(super) fn loss(config: &DecoderConfig, question: &Question) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let [ids, targets] = ["ids", "targets"].map(|name| g.input(name, DType::I64, (question.batch, question.seq)));
    forward(&g, config, question, |weights| {
        let logits = config.logits(&ids, weights, None);
        g.scope(LOSS, || logits.cross_entropy(&targets))
    })
}

const LOSS: &str = "loss";

/// A step of AdamW with clipping along a cosine, as `tilewright train` has it.
fn step(config: &DecoderConfig, question: &Question) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let [ids, targets] = ["ids", "targets"].map(|name| g.input(name, DType::I64, (question.batch, question.seq)));
    let optimiser = AdamW::default();
    let schedule = Schedule::Cosine { peak: 3e-4, least: 3e-5, warmup: 100, steps: 1000 };
    let policy = question.policy()?;
    let recipe = Recipe { schedule, clip: Some(1.0), mixed: policy.as_ref(), ..Recipe::of(&optimiser) };
    let entries = config.entries();
    let weights: Vec<Weight> = entries.iter().map(|e| e.weight.clone()).collect();
    let state = State::declare(&g, &recipe, &weights);
    let loss = |w: &[Tensor], _: &[Tensor], (ids, targets): &(Tensor, Tensor)| {
        let all: Weights = entries.iter().map(|e| e.role.clone()).zip(w.iter().cloned()).collect();
        let logits = config.logits(ids, &all, None);
        g.scope(LOSS, || logits.cross_entropy(targets))
    };
    train_step(&g, &recipe, &weights, &state, &[], &(ids, targets), loss).finish(&g)
}

/// Bytes that a token leaves in the caches of the program that generates; f32, as that has them.
///
/// Errors: those of the model.
pub(super) fn cache_bytes(config: &DecoderConfig) -> Result<f64, Diagnostic> {
    let module = config.generating(config.context, DType::F32)?;
    let caches = module.entry()?.params.iter().filter(|p| p.role == Role::Donated);
    let bytes = caches.map(|p| tilewright_ir::flops::type_bytes(&p.ty).and_then(|d| d.as_const()));
    let total = bytes.sum::<Option<i64>>().ok_or_else(|| Diagnostic::bug("caches of no known size"))?;
    Ok(total as f64 / config.context as f64)
}
