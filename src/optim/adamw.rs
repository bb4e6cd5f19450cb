//! AdamW.

use super::adam::{MOMENTS, moments};
use super::{At, Optimiser, Weight, decayed, wrong_slots};
use tilewright_ir::dsl::Tensor;

/// Adam whose decay moves the weight itself (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), as
/// `torch.optim.AdamW`. [`Weight::decays`] is the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// What stays of the first and of the second moment at a step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// What a weight loses at a step, times the rate.
    pub decay: f64,
}

impl Default for AdamW {
    /// Those of torch.
    fn default() -> AdamW {
        AdamW { betas: [0.9, 0.999], epsilon: 1e-8, decay: 1e-2 }
    }
}

impl Optimiser for AdamW {
    fn slots(&self, _: &Weight) -> &'static [&'static str] {
        MOMENTS
    }

    #[track_caller]
    fn update(&self, at: &At, weight: &Weight, value: &Tensor, gradient: &Tensor, slots: &[Tensor]) -> Vec<Tensor> {
        let [m, v] = slots else { return wrong_slots(value, MOMENTS.len(), slots) };
        let (direction, m, v) = moments(at, self.betas, self.epsilon, gradient, [m, v]);
        vec![decayed(at, weight, value, self.decay) - &at.rate * direction, m, v]
    }
}
