//! How weights start, from a key.

use super::random::Key;
use super::{Shape, Tensor};
use crate::types::DType;

/// Distributions of first weights. `fans` are the inputs and the outputs of the layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Normal numbers.
    Normal {
        /// Their standard deviation.
        deviation: f64,
    },
    /// Normal numbers without those beyond two standard deviations.
    TruncatedNormal {
        /// Their standard deviation before that.
        deviation: f64,
    },
    /// Between plus and minus `limit`.
    Uniform {
        /// The largest.
        limit: f64,
    },
    /// Uniform, of variance `2 / (inputs + outputs)` (Glorot and Bengio 2010).
    XavierUniform {
        /// Inputs and outputs.
        fans: [usize; 2],
    },
    /// Normal, of that variance.
    XavierNormal {
        /// Inputs and outputs.
        fans: [usize; 2],
    },
    /// Uniform, of variance `gain^2 / inputs` (He et al. 2015); the gain of relu is the root of 2.
    KaimingUniform {
        /// Inputs.
        inputs: usize,
        /// Factor.
        gain: f64,
    },
    /// Normal, of that variance.
    KaimingNormal {
        /// Inputs.
        inputs: usize,
        /// Factor.
        gain: f64,
    },
}

impl Initial {
    /// Numbers of this distribution.
    #[track_caller]
    pub fn draw(self, key: &Key, dtype: DType, shape: impl Shape) -> Tensor {
        let xavier = |fans: [usize; 2]| (2.0 / (fans[0] + fans[1]).max(1) as f64).sqrt();
        let kaiming = |inputs: usize, gain: f64| gain / (inputs.max(1) as f64).sqrt();
        match self {
            Initial::Normal { deviation } => key.normal(dtype, shape) * deviation,
            Initial::TruncatedNormal { deviation } => key.truncated_normal(dtype, shape, -2.0, 2.0) * deviation,
            Initial::Uniform { limit } => key.uniform_between(dtype, shape, -limit, limit),
            Initial::XavierNormal { fans } => key.normal(dtype, shape) * xavier(fans),
            Initial::KaimingNormal { inputs, gain } => key.normal(dtype, shape) * kaiming(inputs, gain),
            // A uniform number between plus and minus x has the variance x^2 / 3.
            Initial::XavierUniform { fans } => {
                Initial::Uniform { limit: 3f64.sqrt() * xavier(fans) }.draw(key, dtype, shape)
            }
            Initial::KaimingUniform { inputs, gain } => {
                Initial::Uniform { limit: 3f64.sqrt() * kaiming(inputs, gain) }.draw(key, dtype, shape)
            }
        }
    }
}
