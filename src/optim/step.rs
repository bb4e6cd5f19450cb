//! A whole training step, as part of a graph.

use super::{At, LossScale, Optimiser, Scaled, Schedule, Weight, accumulated, average, clip_factor, global_norm};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor, Tensors};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Type};
use tilewright_passes::checkpoint::Checkpointing;
use tilewright_passes::mixed::{Policy, mixed};

/// How to train.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// How weights move along gradients.
    pub optimiser: &'a dyn Optimiser,
    /// How fast.
    pub schedule: Schedule,
    /// The most that the norm over all gradients may be.
    pub clip: Option<f64>,
    /// What averages of the weights keep at a step; none without.
    pub average: Option<f64>,
    /// Parts of a batch whose gradients are computed one after the other, to save memory. From 2 on tensors of the batch
    /// have them as their first axis.
    pub parts: usize,
    /// How the contractions of the loss and of its gradient compute; in the dtype that they have without. Weights, moments,
    /// statistics and the update stay in f32.
    pub mixed: Option<&'a Policy>,
    /// How the loss is scaled, which gradients in f16 need.
    pub scale: Option<LossScale>,
    /// What of the way forward is kept for the way back; [`Checkpointing::usual`] without.
    pub checkpointing: Option<&'a Checkpointing>,
}

impl<'a> Recipe<'a> {
    /// Without clipping, averages, parts, mixed precision, scaling and checkpointing, at the rate 1e-3.
    pub fn of(optimiser: &'a dyn Optimiser) -> Recipe<'a> {
        Recipe {
            optimiser,
            schedule: Schedule::Constant { peak: 1e-3, warmup: 0 },
            clip: None,
            average: None,
            parts: 1,
            mixed: None,
            scale: None,
            checkpointing: None,
        }
    }

    /// Names and types of the tensors of the state, in the order of [`State::list`]: `step`, `w.NAME`, `SLOT.NAME`,
    /// `average.NAME`, those of [`LossScale`]. The step and slots start as zeros, averages as the weights.
    pub fn state(&self, weights: &[Weight]) -> Vec<(String, Type)> {
        let named = |what: &str, w: &Weight| (format!("{what}.{}", w.name), w.ty.clone());
        let mut all = vec![(STEP.to_string(), Type::scalar(DType::I64))];
        all.extend(weights.iter().map(|w| named("w", w)));
        for w in weights {
            all.extend(self.optimiser.slots(w).iter().map(|slot| named(slot, w)));
        }
        if self.average.is_some() {
            all.extend(weights.iter().map(|w| named("average", w)));
        }
        if self.scale.is_some() {
            all.extend(LossScale::state(dtype(weights)));
        }
        all
    }
}

const STEP: &str = "step";
/// The scope of what a step does beside the gradients.
const SCOPE: &str = "optimiser";

/// The dtype of the weights, of moments, and of scalars of a step.
fn dtype(weights: &[Weight]) -> DType {
    weights.first().map_or(DType::F32, |w| w.ty.dtype)
}

/// What a run keeps from step to step.
#[derive(Clone)]
pub struct State {
    /// Steps done, i64.
    pub step: Tensor,
    /// The weights.
    pub weights: Vec<Tensor>,
    /// What the optimiser keeps of each weight.
    pub slots: Vec<Vec<Tensor>>,
    /// Averages of the weights, or none.
    pub averages: Vec<Tensor>,
    /// The scale of the loss, if the recipe has one.
    pub scaled: Option<Scaled>,
}

impl State {
    /// The state as donated parameters of the open function, by the names of [`Recipe::state`].
    #[track_caller]
    pub fn declare(g: &Graph, recipe: &Recipe, weights: &[Weight]) -> State {
        let mut all = recipe.state(weights).into_iter().map(|(name, ty)| g.donated(&name, ty.dtype, &ty.shape));
        let mut next = |count: usize| all.by_ref().take(count).collect::<Vec<Tensor>>();
        let step = next(1).pop().unwrap_or_else(|| g.fail(Diagnostic::bug("a state without a step")));
        let values = next(weights.len());
        let slots = weights.iter().map(|w| next(recipe.optimiser.slots(w).len())).collect();
        let averages = next(if recipe.average.is_some() { weights.len() } else { 0 });
        let scaled: Option<[Tensor; 2]> = next(2).try_into().ok();
        let scaled = scaled.map(|[scale, good]| Scaled { scale, good });
        State { step, weights: values, slots, averages, scaled }
    }

    /// All its tensors.
    pub fn list(&self) -> Vec<Tensor> {
        let slots = self.slots.iter().flatten();
        let scaled = self.scaled.iter().flat_map(|s| [&s.scale, &s.good]);
        let all = [&self.step].into_iter().chain(&self.weights).chain(slots).chain(&self.averages);
        all.chain(scaled).cloned().collect()
    }
}

/// What a step gives.
#[derive(Clone)]
pub struct Stepped {
    /// The new state.
    pub state: State,
    /// The loss before the step.
    pub loss: Tensor,
    /// The norm over all gradients, before clipping.
    pub norm: Tensor,
    /// The rate of this step.
    pub rate: Tensor,
}

impl Stepped {
    /// Closes the graph: its results are the new state, the loss, the norm, the rate.
    ///
    /// Errors: the first mistake that was made.
    pub fn finish(&self, g: &Graph) -> Result<Module, Diagnostic> {
        let all = [self.state.list(), vec![self.loss.clone(), self.norm.clone(), self.rate.clone()]].concat();
        g.finish(&all.iter().collect::<Vec<_>>())
    }
}

/// Appends the step of `recipe` along the gradient of `loss`, which gets weights, `frozen` and the batch, or each part of it. What
/// `frozen` has stays as it is. Weights of one kind and type share one function of their update.
///
/// Errors: `no-gradient`, `not-scalar`, `no-chain`, and those of the loss, when the graph is finished.
#[track_caller]
pub fn train_step<B: Tensors>(
    g: &Graph,
    recipe: &Recipe,
    weights: &[Weight],
    state: &State,
    frozen: &[Tensor],
    batch: &B,
    loss: impl Fn(&[Tensor], &[Tensor], &B) -> Tensor,
) -> Stepped {
    let (loss, gradients) = derivative(g, recipe, state, frozen, batch, loss);
    let dtype = dtype(weights);
    let inverse = state.scaled.as_ref().map(|s| 1.0 / &s.scale);
    let unscaled = |x: &Tensor| inverse.as_ref().map_or(x.clone(), |inverse| x * inverse.cast(x.dtype()));
    let loss = unscaled(&loss);
    let norm = g.scope(SCOPE, || global_norm(&gradients.iter().map(unscaled).collect::<Vec<_>>()));
    let norm = norm.unwrap_or_else(|| g.scalar(dtype, 0.0));
    let clip = recipe.clip.map(|limit| clip_factor(&norm, limit));
    let rate = recipe.schedule.rate(&state.step, dtype);
    let step = &state.step + 1;
    // The sum of all squares is finite where all gradients are.
    let finite = recipe.scale.map(|_| norm.lt(f64::INFINITY));
    let factor = inverse.into_iter().chain(clip).reduce(|a, b| a * b);
    let scalars: Vec<Tensor> =
        [rate.clone(), step.cast(dtype)].into_iter().chain(factor).chain(finite.clone()).collect();
    let (step, scaled) = match (&recipe.scale, &state.scaled, &finite) {
        (Some(rule), Some(before), Some(finite)) => {
            (finite.select(&step, &state.step), Some(rule.update(before, finite)))
        }
        _unscaled => (step, None),
    };
    let mut next = State { step, weights: Vec::new(), slots: Vec::new(), averages: Vec::new(), scaled };
    let mut known = BTreeMap::new();
    let before = state.weights.iter().zip(&state.slots);
    for (i, ((weight, gradient), (value, slots))) in weights.iter().zip(&gradients).zip(before).enumerate() {
        let donated = [value].into_iter().chain(slots).chain(state.averages.get(i));
        let args: Vec<&Tensor> = donated.chain([gradient]).chain(&scalars).collect();
        let kind = (weight.ty.to_string(), weight.decays, weight.hidden);
        let number = known.len();
        let function = known.entry(kind).or_insert_with(|| {
            let name = format!("update{number}");
            g.function(&name, |g| update(g, recipe, weight));
            name
        });
        let mut results = g.scope(SCOPE, || g.call_all(function, &args)).into_iter();
        next.weights.extend(results.next());
        next.slots.push(results.by_ref().take(slots.len()).collect());
        next.averages.extend(results.next());
    }
    Stepped { state: next, loss, norm, rate }
}

/// The loss and its gradients, both times the scale, if there is one.
#[track_caller]
fn derivative<B: Tensors>(
    g: &Graph,
    recipe: &Recipe,
    state: &State,
    frozen: &[Tensor],
    batch: &B,
    loss: impl Fn(&[Tensor], &[Tensor], &B) -> Tensor,
) -> (Tensor, Vec<Tensor>) {
    // The scale is the last of what stays as it is.
    let scale = state.scaled.iter().map(|s| &s.scale);
    let fixed: Vec<Tensor> = frozen.iter().chain(scale).cloned().collect();
    let scaled = |weights: &[Tensor], fixed: &[Tensor], batch: &B| {
        let (frozen, scale) = fixed.split_at(frozen.len());
        let loss = match recipe.mixed {
            Some(policy) => mixed(policy, |w: &Vec<Tensor>| loss(w, frozen, batch))(&weights.to_vec()),
            None => loss(weights, frozen, batch),
        };
        scale.first().map_or(loss.clone(), |scale| match loss.dtype() {
            // The product may be too large for f16, though the gradients are not.
            DType::F16 | DType::Bf16 => loss.cast(scale.dtype()) * scale,
            dtype => &loss * scale.cast(dtype),
        })
    };
    let usual = Checkpointing::usual();
    let checkpointing = recipe.checkpointing.unwrap_or(&usual);
    if recipe.parts > 1 {
        accumulated(g, "part_of_batch", recipe.parts as i64, [&state.weights, &fixed], batch, checkpointing, scaled)
    } else {
        checkpointing.value_and_grad(|w: &Vec<Tensor>| scaled(w, &fixed, batch))(&state.weights)
    }
}

/// The update of one weight as a function: the weight, its slots and average, which are donated, its gradient, the rate, the
/// number of the step, perhaps the factor that clips and takes the scale away, and whether gradients are finite: where they are
/// not, all stays.
fn update(g: &Graph, recipe: &Recipe, weight: &Weight) -> Vec<Tensor> {
    let (dtype, shape) = (weight.ty.dtype, &weight.ty.shape);
    let value = g.donated("weight", dtype, shape);
    let slots = recipe.optimiser.slots(weight).iter().map(|name| g.donated(&format!("slot.{name}"), dtype, shape));
    let slots: Vec<Tensor> = slots.collect();
    let before = recipe.average.map(|keep| (g.donated("average", dtype, shape), keep));
    let gradient = g.input("gradient", dtype, shape);
    let at = At { rate: g.input("rate", dtype, ()), step: g.input("step", dtype, ()) };
    let factored = recipe.clip.is_some() || recipe.scale.is_some();
    let gradient = if factored { gradient * g.input("factor", dtype, ()) } else { gradient };
    let mut results = recipe.optimiser.update(&at, weight, &value, &gradient, &slots);
    if let (Some((before, keep)), Some(value)) = (&before, results.first()) {
        results.push(average(before, value, *keep));
    }
    if recipe.scale.is_some() {
        let finite = g.input("finite", DType::Bool, ());
        let before = [&value].into_iter().chain(&slots).chain(before.iter().map(|(average, _)| average));
        results = results.iter().zip(before).map(|(after, before)| finite.select(after, before)).collect();
    }
    results
}
