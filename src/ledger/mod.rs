//! What a model computes, moves and holds, by layer and kind of work, beside the formulas of textbooks; and how long it is expected to
//! take. `docs/book/ledger.md` says what each figure means.
//!
//! Operations are counted on the graph that runs: the model's program, its gradients, the step of the optimiser. Bytes and seconds are
//! the compiler's own prices of the kernels that it chooses for the machine. Nothing runs, and no weights are needed.
//!
//! ```
//! use tilewright::ledger::{Kind, Machine, Question, Subject, ledger};
//!
//! let question = Question { seq: 16, ..Question::default() };
//! let found = ledger(&Subject::named("gpt2")?, &question, &Machine::named("h200")?, &|_| {})?;
//! assert_eq!(found.parameters, 124_439_808.0);
//! // Four products of 768 x 3072 in each of 12 layers for 16 tokens, 2 operations each.
//! assert_eq!(found.of(Kind::Mlp).products, 2.0 * 2.0 * 768.0 * 3072.0 * 12.0 * 16.0);
//! # Ok::<(), tilewright::diag::Diagnostic>(())
//! ```

mod count;
mod kind;
mod machine;
mod memory;
mod program;
mod scaling;
mod scopes;
mod subject;
mod svg;
mod text;
mod textbook;

pub use count::{Tallies, Tally, count, model_flops};
pub use kind::{Kind, layer};
pub use machine::Machine;
pub use memory::{Activations, Memory};
pub use scaling::{Optimum, Scaling, Spent, chinchilla_loss, kaplan_loss, optima};
pub use subject::Subject;
pub use svg::roofline;
pub use textbook::{Check, Sizes};

use crate::checkpoint::runs;
use program::Programs;
use serde::Serialize;
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::types::DType;
use tilewright_passes::mixed::Policy;
use tilewright_passes::{Priced, priced};

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// A step of training instead of a way forward.
    pub train: bool,
    /// One token more of a sequence of [`Question::seq`], whose others are in caches, instead of a way forward.
    pub decode: bool,
    /// Sequences of a batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Dtype of the weights and of what is computed.
    pub dtype: DType,
    /// In what products compute, if it is not that; see [`mixed`](tilewright_passes::mixed).
    pub precision: Option<DType>,
    /// Whether training computes blocks again instead of keeping what is in them.
    pub checkpoint: bool,
    /// Operations to be spent on training.
    pub budget: Option<f64>,
}

impl Default for Question {
    /// The way forward of one sequence of 1024 tokens, in f32.
    fn default() -> Question {
        Question {
            train: false,
            decode: false,
            batch: 1,
            seq: 1024,
            dtype: DType::F32,
            precision: None,
            checkpoint: false,
            budget: None,
        }
    }
}

impl Question {
    /// The dtype of products.
    fn products(&self) -> DType {
        self.precision.unwrap_or(self.dtype)
    }

    /// How contractions compute, where that is not as the weights are. Errors: `mixed-precision`.
    fn policy(&self) -> Result<Option<Policy>, Diagnostic> {
        self.precision.filter(|p| *p != self.dtype).map(Policy::new).transpose()
    }
}

/// What limits some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Operations.
    Compute,
    /// Bytes.
    Memory,
    /// Starting kernels.
    Overhead,
}

impl Limit {
    /// Its name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Compute => "compute",
            Limit::Memory => "memory",
            Limit::Overhead => "overhead",
        }
    }
}

/// A kind of work in a layer, or in all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The layer as scopes name it, `h.3`; empty outside of layers, and in rows of all of them.
    pub layer: String,
    /// What kind of work.
    pub kind: Kind,
    /// Weights that are first used there.
    pub parameters: f64,
    /// Operations on elements; a multiplication with an addition is 2.
    pub flops: f64,
    /// Those of matrix products among them.
    pub products: f64,
    /// Kernels that are started.
    pub kernels: f64,
    /// Bytes that they read from memory and write to it.
    pub bytes: f64,
    /// Seconds that they are expected to take.
    pub seconds: f64,
    /// Operations for each byte; none where none are moved.
    pub intensity: Option<f64>,
    /// What takes most of the seconds; none where none are.
    pub limit: Option<Limit>,
}

impl Row {
    fn new(layer: &str, kind: Kind, parameters: f64, t: &Tally) -> Row {
        Row {
            layer: layer.into(),
            kind,
            parameters,
            flops: t.flops,
            products: t.products,
            kernels: t.kernels,
            bytes: t.bytes,
            seconds: t.seconds,
            intensity: (t.bytes > 0.0).then(|| t.flops / t.bytes),
            limit: limit(t),
        }
    }
}

fn limit(t: &Tally) -> Option<Limit> {
    let all = [(Limit::Compute, t.compute), (Limit::Memory, t.memory), (Limit::Overhead, t.overhead)];
    all.into_iter().filter(|(_, s)| *s > 0.0).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(limit, _)| limit)
}

/// A kernel, and how often it runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slow {
    /// The function that it is of.
    pub function: String,
    /// The scope in it that it works for.
    pub scope: String,
    /// Its template, with axes.
    pub template: String,
    /// How often it runs.
    pub times: f64,
    /// Seconds of one run.
    pub seconds: f64,
    /// What takes most of them.
    pub limit: Option<Limit>,
}

/// Most kernels that are named.
const NAMED: usize = 5;

/// The kernels that take most of the time.
fn slowest(module: &Module, prices: &[Priced]) -> Result<Vec<Slow>, Diagnostic> {
    let runs = runs(module)?;
    let mut all = Vec::new();
    for (f, priced) in module.functions.keys().zip(prices) {
        let times = runs.get(f).copied().unwrap_or(0.0);
        all.extend(priced.kernels.iter().map(|k| {
            let (p, scope, template) = (&k.price, k.scope.to_string(), k.template.clone());
            let limit = limit(&Tally {
                compute: p.matrix + p.vector,
                memory: p.memory,
                overhead: p.launch,
                ..Tally::default()
            });
            Slow { function: f.to_string(), scope, template, times, seconds: p.seconds, limit }
        }));
    }
    all.sort_by(|a: &Slow, b: &Slow| (b.times * b.seconds).total_cmp(&(a.times * a.seconds)));
    all.truncate(NAMED);
    Ok(all)
}

/// What a machine can do, for products of the dtype.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roof {
    /// The machine.
    pub machine: String,
    /// Operations a second of matrix products.
    pub flops: f64,
    /// Operations a second of elementwise code.
    pub vector: f64,
    /// Bytes a second of memory.
    pub bytes: f64,
}

impl Roof {
    /// Operations for each byte at which both take as long.
    pub fn ridge(&self) -> f64 {
        self.flops / self.bytes
    }

    /// Operations a second that it can do at most where each byte serves so many.
    pub fn at(&self, intensity: f64) -> f64 {
        self.flops.min(self.bytes * intensity)
    }
}

/// How long the whole is expected to take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Seconds: the sum of the prices of all kernels.
    pub seconds: f64,
    /// Seconds that no program with these operations and bytes can go below on this machine.
    pub roofline: f64,
    /// What takes most of them.
    pub limit: Option<Limit>,
    /// Tokens a second.
    pub tokens_per_s: Option<f64>,
    /// Model FLOPs utilisation: products of the model a second, as a part of what the machine can do (Chowdhery et al. 2022).
    pub mfu: f64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// The model.
    pub model: String,
    /// One line of its sizes.
    pub sizes: String,
    /// Whether a step of training is counted.
    pub train: bool,
    /// Whether one token more is counted.
    pub decode: bool,
    /// Sequences of a batch; none of a program.
    pub batch: Option<usize>,
    /// Tokens of a sequence; none of a program.
    pub seq: Option<usize>,
    /// The dtype of weights.
    pub dtype: String,
    /// The dtype of products.
    pub precision: String,
    /// All parameters.
    pub parameters: f64,
    /// Operations of the way forward, of the ways back, of the optimiser.
    pub passes: [f64; 3],
    /// Operations of products that the model is made of: of the way forward, with training three times these, whatever is computed again.
    pub model_products: f64,
    /// All of it by kind.
    pub kinds: Vec<Row>,
    /// By layer and kind.
    pub layers: Vec<Row>,
    /// The sum of all.
    pub total: Row,
    /// The machine.
    pub roof: Roof,
    /// How long it takes there.
    pub prediction: Prediction,
    /// Formulas beside counts; none of a program.
    pub checks: Vec<Check>,
    /// Memory of training; none without.
    pub memory: Option<Memory>,
    /// Scaling laws, where there is a budget.
    pub scaling: Option<Scaling>,
    /// The kernels that take most of the time.
    pub slowest: Vec<Slow>,
    /// What could not be as it should.
    pub notes: Vec<String>,
}

impl Ledger {
    /// All work of a kind.
    pub fn of(&self, kind: Kind) -> Row {
        let found = self.kinds.iter().find(|row| row.kind == kind).cloned();
        found.unwrap_or_else(|| Row::new("", kind, 0.0, &Tally::default()))
    }
}

/// Counts a subject on a machine; `progress` hears what is being done.
///
/// Errors: `sequence-length`, `batch`, `budget`; those of the model, of differentiation and of the compiler.
pub fn ledger(
    subject: &Subject,
    question: &Question,
    machine: &Machine,
    progress: &dyn Fn(&str),
) -> Result<Ledger, Diagnostic> {
    let scaling = question.budget.map(optima).transpose()?;
    progress("building the program");
    let programs = Programs::of(subject, question)?;
    let sizes = &programs.sizes;
    progress("choosing kernels");
    let prices = priced(&programs.whole, machine.options.lowering(), &machine.isa(), sizes)?;
    let (whole, forward) = (count(&programs.whole, &prices, sizes)?, count(&programs.forward, &[], sizes)?);
    let (layers, kinds) = rows(&programs.forward, &whole)?;
    let all = count::sum(whole.values());
    let parameters = layers.iter().map(|row| row.parameters).sum();
    let total = Row::new("", Kind::Other, parameters, &all);
    let of_forward = count::sum(forward.values());
    // The ways back multiply twice for each product of the way forward.
    let model_products = of_forward.products * if question.train { 3.0 } else { 1.0 };
    let of_optimiser = kinds.iter().find(|row| row.kind == Kind::Optimiser).map_or(0.0, |row| row.flops);
    let roof = Roof {
        machine: machine.device.name.clone(),
        flops: machine.device.matrix.of(question.products()),
        vector: machine.device.vector.of(question.dtype),
        bytes: machine.device.memory.0,
    };
    let mut found = Ledger {
        model: subject.name().into(),
        sizes: subject.sizes(),
        train: question.train,
        decode: question.decode,
        batch: None,
        seq: None,
        dtype: question.dtype.to_string(),
        precision: question.products().to_string(),
        parameters,
        passes: [of_forward.flops, all.flops - of_forward.flops - of_optimiser, of_optimiser],
        model_products,
        prediction: Prediction {
            seconds: all.seconds,
            roofline: (model_products / roof.flops).max(all.bytes / roof.bytes),
            limit: limit(&all),
            tokens_per_s: None,
            mfu: if all.seconds > 0.0 { model_products / all.seconds / roof.flops } else { 0.0 },
        },
        kinds,
        layers,
        total,
        roof,
        checks: Vec::new(),
        memory: None,
        scaling,
        slowest: slowest(&programs.whole, &prices)?,
        notes: prices.iter().flat_map(|p| &p.notes).map(|d| d.message.clone()).collect(),
    };
    if let Subject::Decoder { config, .. } = subject {
        found.of_decoder(&question.config(config)?, question, machine, progress)?;
    }
    Ok(found)
}

impl Ledger {
    /// What only models by their sizes have: formulas, memory, a budget.
    fn of_decoder(
        &mut self,
        config: &crate::models::DecoderConfig,
        question: &Question,
        machine: &Machine,
        progress: &dyn Fn(&str),
    ) -> Result<(), Diagnostic> {
        let Question { batch, seq, train, decode, .. } = *question;
        let mut sizes = Sizes::new(config, batch, seq);
        if decode {
            sizes = sizes.decoding();
        }
        let tokens = if decode { 1.0 } else { (batch * seq) as f64 };
        (self.batch, self.seq) = (Some(batch), Some(seq));
        self.prediction.tokens_per_s = (self.prediction.seconds > 0.0).then(|| tokens / self.prediction.seconds);
        self.checks = sizes.checks(self.parameters, &|kind| self.of(kind).products, train);
        self.checks.push(sizes.cache(4.0, program::cache_bytes(config)?));
        if decode {
            let element = config.float.bytes(1).unwrap_or(0) as f64;
            self.checks.push(sizes.decoded_bytes([element, 4.0], self.total.bytes));
        }
        if train {
            let element = config.float.bytes(1).unwrap_or(0) as f64;
            let weights = self.parameters * element;
            let activations = memory::activations(config, question, machine, progress)?;
            self.memory = Some(Memory { weights, gradients: weights, optimiser: 2.0 * weights, activations });
        }
        if let (Some(scaling), Some(budget)) = (&mut self.scaling, question.budget) {
            let step = self.model_products * if train { 1.0 } else { 3.0 };
            let seconds = train.then_some(self.prediction.seconds);
            scaling.model = Some(Spent::new(budget, [self.parameters, sizes.blocks()], [step, tokens], seconds));
        }
        Ok(())
    }
}

/// Rows by layer and kind, and by kind. Weights belong where `forward` uses them first.
fn rows(forward: &Module, whole: &Tallies) -> Result<(Vec<Row>, Vec<Row>), Diagnostic> {
    let mut all: BTreeMap<(String, Kind), (f64, Tally)> = BTreeMap::new();
    let key = |scope: &str| (layer(scope).to_string(), Kind::of(scope));
    for (scope, tally) in whole {
        all.entry(key(scope)).or_default().1 += *tally;
    }
    for (param, home) in forward.entry()?.params.iter().zip(count::homes(forward)?) {
        // Tables of angles are made, not learned.
        if param.role == Role::Weight && !param.name.starts_with("rope.") {
            let size = param.ty.elements().and_then(|d| d.as_const()).unwrap_or(0);
            all.entry(key(&home)).or_default().0 += size as f64;
        }
    }
    all.retain(|_, (parameters, tally)| *parameters > 0.0 || *tally != Tally::default());
    let mut kinds: BTreeMap<Kind, (f64, Tally)> = BTreeMap::new();
    for ((_, kind), (parameters, tally)) in &all {
        let sum = kinds.entry(*kind).or_default();
        sum.0 += parameters;
        sum.1 += *tally;
    }
    let mut layers: Vec<Row> = all.iter().map(|((layer, kind), (n, t))| Row::new(layer, *kind, *n, t)).collect();
    // Layers by their number, not its digits.
    let number = |row: &Row| row.layer.rsplit('.').next().and_then(|n| n.parse::<u64>().ok());
    layers.sort_by_key(|row| (number(row), row.kind));
    Ok((layers, kinds.iter().map(|(kind, (n, t))| Row::new("", *kind, *n, t)).collect()))
}
