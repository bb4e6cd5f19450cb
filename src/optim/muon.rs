//! Muon: momentum whose direction is made orthogonal, for matrices between hidden states.

use super::{AdamW, At, Optimiser, Weight, decayed, wrong_slots};
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::Dim;

/// Keller Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024 (`github.com/KellerJordan/Muon`,
/// `muon_update`): `b = momentum b + (1 - momentum) g`, the direction is Nesterov's, made orthogonal and scaled by
/// `sqrt(max(1, out / in))`. Other weights than [hidden](Weight::hidden) ones take AdamW's step.
///
/// Numerics: Newton-Schulz runs in the weight's dtype, where the reference has bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// What stays of the direction at a step.
    pub momentum: f64,
    /// Whether the gradient is looked at one step ahead.
    pub nesterov: bool,
    /// Steps of Newton-Schulz.
    pub steps: usize,
    /// What a hidden weight loses at a step, times the rate.
    pub decay: f64,
    /// Whether matrices are stored `[in, out]`, as those of GPT-2 are; else `[out, in]`.
    pub inputs_first: bool,
    /// For the other weights.
    pub other: AdamW,
    /// The rate of the other weights, as a part of that of the hidden ones.
    pub other_rate: f64,
}

impl Default for Muon {
    /// Those of the reference, where hidden weights have the rate 0.02 and others 3e-4.
    fn default() -> Muon {
        Muon {
            momentum: 0.95,
            nesterov: true,
            steps: 5,
            decay: 0.0,
            inputs_first: false,
            other: AdamW { betas: [0.9, 0.95], epsilon: 1e-10, decay: 0.0 },
            other_rate: 3e-4 / 0.02,
        }
    }
}

impl Optimiser for Muon {
    fn slots(&self, weight: &Weight) -> &'static [&'static str] {
        if self.takes(weight) { &["momentum"] } else { self.other.slots(weight) }
    }

    #[track_caller]
    fn update(&self, at: &At, weight: &Weight, value: &Tensor, gradient: &Tensor, slots: &[Tensor]) -> Vec<Tensor> {
        if !self.takes(weight) {
            let at = At { rate: &at.rate * self.other_rate, step: at.step.clone() };
            return self.other.update(&at, weight, value, gradient, slots);
        }
        let [buffer] = slots else { return wrong_slots(value, 1, slots) };
        let mix = |a: &Tensor, b: &Tensor| a * self.momentum + b * (1.0 - self.momentum);
        let buffer = mix(buffer, gradient);
        let along = if self.nesterov { mix(&buffer, gradient) } else { buffer.clone() };
        let (inputs, outputs) = if self.inputs_first { (0, 1) } else { (1, 0) };
        let size = |axis: usize| weight.ty.shape.get(axis).and_then(Dim::as_const).unwrap_or(1) as f64;
        let scale = (size(outputs) / size(inputs)).max(1.0).sqrt();
        let along = orthogonalised(&along, self.steps) * scale;
        vec![decayed(at, weight, value, self.decay) - &at.rate * along, buffer]
    }
}

impl Muon {
    /// Whether a weight is a hidden matrix of known sizes.
    fn takes(&self, weight: &Weight) -> bool {
        weight.hidden && weight.ty.rank() == 2 && weight.ty.shape.iter().all(|d| d.as_const().is_some())
    }
}

/// About `U V^T` for a matrix `U S V^T`: Newton-Schulz by a polynomial of degree five that moves singular values to
/// 0.7..1.2 quickly and no closer (Jordan's `zeropower_via_newtonschulz5`).
///
/// Shapes: a matrix of known sizes, to the same.
#[track_caller]
pub fn orthogonalised(matrix: &Tensor, steps: usize) -> Tensor {
    const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
    let [a, b, c] = COEFFICIENTS;
    let size = |axis: i64| matrix.dim(axis).as_const().unwrap_or(0);
    // The products are squares of the smaller side.
    let tall = size(0) > size(1);
    let turned = |x: &Tensor| if tall { x.transpose(0, 1) } else { x.clone() };
    let x = turned(matrix);
    let mut x = &x / ((&x * &x).sum(&[0, 1]).sqrt() + 1e-7);
    for _ in 0..steps {
        // `linear` contracts the second axes.
        let square = x.linear(&x);
        let mixed = &square * b + square.matmul(&square) * c;
        x = &x * a + mixed.matmul(&x);
    }
    turned(&x)
}
