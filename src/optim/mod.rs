//! Training as one program: optimisers, schedules, clipping, accumulation and averages, all as ops of the graph.
//!
//! An [`Optimiser`] says how one weight moves; [`train_step`] makes of it, a [`Recipe`] and a loss the whole step
//!
//! ```text
//! (state, batch) -> (state', loss, norm of the gradient, rate)
//! ```
//!
//! whose state is donated, so that weights and moments are written where they lie. Nothing of it is computed outside of the
//! program: the number of the step is part of the state, and the rate a function of it.
//!
//! ```
//! use tilewright::dsl::{Graph, Tensor};
//! use tilewright::optim::{AdamW, Recipe, Schedule, State, Weight, train_step};
//! use tilewright::types::{DType, Type};
//!
//! let g = Graph::new("main");
//! let (x, y) = (g.input("x", DType::F32, (8, 3)), g.input("y", DType::F32, [8]));
//! let optimiser = AdamW::default();
//! let schedule = Schedule::Cosine { peak: 1e-2, least: 1e-3, warmup: 10, steps: 100 };
//! let recipe = Recipe { schedule, ..Recipe::of(&optimiser) };
//! let weights = [Weight::new("w", Type::new(DType::F32, [3]))];
//! let state = State::declare(&g, &recipe, &weights);
//! let loss = |w: &[Tensor], _: &[Tensor], (x, y): &(Tensor, Tensor)| {
//!     let error = x.matmul(&w[0]) - y;
//!     (&error * &error).mean(&[0])
//! };
//! let module = train_step(&g, &recipe, &weights, &state, &[], &(x, y), loss).finish(&g)?;
//! // The number of the step, the weight, its two moments; then loss, norm, rate.
//! assert_eq!(module.entry()?.results.len(), 4 + 3);
//! # Ok::<(), tilewright::diag::Diagnostic>(())
//! ```

mod accumulate;
mod adam;
mod adamw;
mod average;
mod clip;
mod muon;
mod scale;
mod schedule;
mod sgd;
mod step;

pub use accumulate::accumulated;
pub use adam::Adam;
pub use adamw::AdamW;
pub use average::average;
pub use clip::{clip_factor, global_norm};
pub use muon::{Muon, orthogonalised};
pub use scale::{LossScale, Scaled};
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use step::{Recipe, State, Stepped, train_step};

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::Type;

/// What an optimiser knows of a weight before it has values.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its name, as in a checkpoint.
    pub name: String,
    /// Its type; a float.
    pub ty: Type,
    /// Whether it decays. By custom matrices do, gains and biases do not.
    pub decays: bool,
    /// Whether it is a matrix between hidden states, as [`Muon`] wants them: no embedding, no output matrix.
    pub hidden: bool,
}

impl Weight {
    /// A weight that decays if it has two axes or more, and is hidden if it has exactly two.
    pub fn new(name: impl Into<String>, ty: Type) -> Weight {
        Weight { name: name.into(), decays: ty.rank() >= 2, hidden: ty.rank() == 2, ty }
    }
}

/// Where a run is, as scalars of the weight's dtype.
pub struct At {
    /// The learning rate.
    pub rate: Tensor,
    /// The number of this step, from 1.
    pub step: Tensor,
}

/// How a weight moves along its gradient.
pub trait Optimiser {
    /// What is kept for a weight from step to step: tensors of its type, zeros at first. The names stand in checkpoints.
    fn slots(&self, weight: &Weight) -> &'static [&'static str];

    /// The weight after the step, then its slots. Errors: `operand-count` for another number of slots than asked for.
    fn update(&self, at: &At, weight: &Weight, value: &Tensor, gradient: &Tensor, slots: &[Tensor]) -> Vec<Tensor>;
}

/// `value` less the part `rate * decay` of it, if this weight decays (Loshchilov and Hutter, Decoupled Weight Decay
/// Regularization, 2019).
fn decayed(at: &At, weight: &Weight, value: &Tensor, decay: f64) -> Tensor {
    if weight.decays && decay != 0.0 { value * (1.0 - &at.rate * decay) } else { value.clone() }
}

/// The mistake of an update with other slots than the optimiser asked for.
#[track_caller]
fn wrong_slots(value: &Tensor, expected: usize, slots: &[Tensor]) -> Vec<Tensor> {
    let message = format!("expected {expected} slots of this optimiser, found {}", slots.len());
    vec![value.graph().fail(Diagnostic::new("operand-count", message))]
}
