//! Adam, and what AdamW shares with it.

use super::{At, Optimiser, Weight, wrong_slots};
use tilewright_ir::dsl::Tensor;

/// Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015. The decay is part of the gradient, as in
/// `torch.optim.Adam`; see [`AdamW`](super::AdamW) for one that is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// What stays of the first and of the second moment at a step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor of the weight in its gradient.
    pub decay: f64,
}

impl Default for Adam {
    /// Those of torch.
    fn default() -> Adam {
        Adam { betas: [0.9, 0.999], epsilon: 1e-8, decay: 0.0 }
    }
}

/// Names of the moments.
pub(super) const MOMENTS: &[&str] = &["m", "v"];

impl Optimiser for Adam {
    fn slots(&self, _: &Weight) -> &'static [&'static str] {
        MOMENTS
    }

    #[track_caller]
    fn update(&self, at: &At, weight: &Weight, value: &Tensor, gradient: &Tensor, slots: &[Tensor]) -> Vec<Tensor> {
        let [m, v] = slots else { return wrong_slots(value, MOMENTS.len(), slots) };
        let decays = weight.decays && self.decay != 0.0;
        let gradient = if decays { gradient + value * self.decay } else { gradient.clone() };
        let (direction, m, v) = moments(at, self.betas, self.epsilon, &gradient, [m, v]);
        vec![value - &at.rate * direction, m, v]
    }
}

/// The direction of the step, and the new moments.
pub(super) fn moments(
    at: &At,
    betas: [f64; 2],
    epsilon: f64,
    gradient: &Tensor,
    [m, v]: [&Tensor; 2],
) -> (Tensor, Tensor, Tensor) {
    // 1 - beta^step. As a difference it would lose most of its digits in f32 at the first steps.
    let correction = |beta: f64| -(&at.step * beta.ln()).expm1();
    let m = m * betas[0] + gradient * (1.0 - betas[0]);
    let v = v * betas[1] + gradient * gradient * (1.0 - betas[1]);
    let size = (&v / correction(betas[1])).sqrt() + epsilon;
    (&m / correction(betas[0]) / size, m, v)
}
