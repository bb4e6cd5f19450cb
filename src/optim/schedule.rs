//! Learning rates as functions of the number of steps done.

use std::f64::consts::PI;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

/// The rate after `step` steps, counted from 0. In a warm-up of `warmup` steps it is `peak (step + 1) / warmup`. After the
/// last of `steps` it stays where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// The same after the warm-up.
    Constant {
        /// Largest rate.
        peak: f64,
        /// Steps to get there.
        warmup: u64,
    },
    /// Half a cosine from `peak` to `least` (Loshchilov and Hutter, SGDR, 2017, without restarts).
    Cosine {
        /// Largest rate.
        peak: f64,
        /// Rate at the end.
        least: f64,
        /// Steps to the largest.
        warmup: u64,
        /// All steps.
        steps: u64,
    },
    /// A line from `peak` to `least`.
    Linear {
        /// Largest rate.
        peak: f64,
        /// Rate at the end.
        least: f64,
        /// Steps to the largest.
        warmup: u64,
        /// All steps.
        steps: u64,
    },
    /// Warm-up, stable, decay: `peak` until the last `decay` steps, then a line to `least` (Hu et al., MiniCPM, 2024).
    Wsd {
        /// Largest rate.
        peak: f64,
        /// Rate at the end.
        least: f64,
        /// Steps to the largest.
        warmup: u64,
        /// Steps down from it.
        decay: u64,
        /// All steps.
        steps: u64,
    },
}

impl Schedule {
    /// The rate of the step after `step` ones, an integer scalar, in `dtype`.
    #[track_caller]
    pub fn rate(&self, step: &Tensor, dtype: DType) -> Tensor {
        let step = step.cast(dtype);
        // How much of the way from `from` to `to` is gone, 0 to 1.
        let gone = |from: u64, to: u64| {
            ((&step - from as f64) / to.saturating_sub(from).max(1) as f64).maximum(0.0).minimum(1.0)
        };
        let (peak, warmup, rate) = match *self {
            Schedule::Constant { peak, warmup } => (peak, warmup, step.graph().scalar(dtype, peak)),
            Schedule::Cosine { peak, least, warmup, steps } => {
                (peak, warmup, ((gone(warmup, steps) * PI).cos() + 1.0) * (0.5 * (peak - least)) + least)
            }
            Schedule::Linear { peak, least, warmup, steps } => {
                (peak, warmup, gone(warmup, steps) * (least - peak) + peak)
            }
            Schedule::Wsd { peak, least, warmup, decay, steps } => {
                (peak, warmup, gone(steps.saturating_sub(decay), steps) * (least - peak) + peak)
            }
        };
        if warmup == 0 {
            return rate;
        }
        step.lt(warmup as f64).select((&step + 1.0) * (peak / warmup as f64), rate)
    }
}
