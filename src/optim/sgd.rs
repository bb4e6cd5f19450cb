//! Stochastic gradient descent with momentum.

use super::{At, Optimiser, Weight, wrong_slots};
use tilewright_ir::dsl::Tensor;

/// `g += decay w; b = momentum b + g; w -= rate b`, as `torch.optim.SGD` without dampening. Nesterov's form moves along
/// `g + momentum b` (Sutskever et al., On the importance of initialization and momentum in deep learning, 2013).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sgd {
    /// 0 for none, and then nothing is kept.
    pub momentum: f64,
    /// Whether the gradient is looked at one step ahead.
    pub nesterov: bool,
    /// Factor of the weight in its gradient.
    pub decay: f64,
}

impl Optimiser for Sgd {
    fn slots(&self, _: &Weight) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum"] }
    }

    #[track_caller]
    fn update(&self, at: &At, weight: &Weight, value: &Tensor, gradient: &Tensor, slots: &[Tensor]) -> Vec<Tensor> {
        let decays = weight.decays && self.decay != 0.0;
        let gradient = if decays { gradient + value * self.decay } else { gradient.clone() };
        match slots {
            [] if self.momentum == 0.0 => vec![value - &at.rate * gradient],
            [buffer] if self.momentum != 0.0 => {
                let buffer = buffer * self.momentum + &gradient;
                let along = if self.nesterov { gradient + &buffer * self.momentum } else { buffer.clone() };
                vec![value - &at.rate * along, buffer]
            }
            other => wrong_slots(value, self.slots(weight).len(), other),
        }
    }
}
