//! Dynamic loss scaling, for gradients that pass through f16.

use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::{DType, Type};

/// The loss is multiplied by a number so that gradients do not vanish below the least f16 (6e-8), and the gradients are divided by
/// it in the dtype of the weights (Micikevicius et al., Mixed Precision Training, 2018). A step whose gradients are not all
/// finite leaves the state as it is, and the scale shrinks; it grows after some steps that were good. This is the rule of
/// `torch.amp.GradScaler`.
///
/// Powers of two change no digit of what they scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The scale at first.
    pub first: f64,
    /// Factor after `interval` good steps one after the other, unless the scale would be infinite then.
    pub growth: f64,
    /// Factor after a step that was not.
    pub backoff: f64,
    /// See `growth`.
    pub interval: u64,
}

impl Default for LossScale {
    /// Those of torch.
    fn default() -> LossScale {
        LossScale { first: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

impl LossScale {
    /// The name of the scale in the state: it starts as [`LossScale::first`].
    pub const NAME: &'static str = "loss_scale";
    /// The name of the number of good steps since it changed, which starts as 0.
    pub const GOOD: &'static str = "loss_scale.good_steps";

    /// Names and types of what is kept from step to step, for weights of `dtype`.
    pub(super) fn state(dtype: DType) -> [(String, Type); 2] {
        [(Self::NAME, dtype), (Self::GOOD, DType::I64)].map(|(name, dtype)| (name.into(), Type::scalar(dtype)))
    }

    /// What is kept after a step whose gradients were `finite`, a bool scalar.
    #[track_caller]
    pub fn update(&self, before: &Scaled, finite: &Tensor) -> Scaled {
        let Scaled { scale, good } = before;
        let good = good + 1;
        let due = finite & &good.ge(i64::try_from(self.interval).unwrap_or(i64::MAX));
        let grown = scale * self.growth;
        let grown = grown.lt(f64::INFINITY).select(&grown, scale);
        let zero = good.graph().scalar(DType::I64, 0);
        Scaled {
            scale: finite.select(due.select(&grown, scale), scale * self.backoff),
            good: (finite & &!&due).select(&good, &zero),
        }
    }
}

/// The scale as part of a state.
#[derive(Clone)]
pub struct Scaled {
    /// What the loss is multiplied by, a scalar of the dtype of the weights.
    pub scale: Tensor,
    /// Good steps since it changed, i64.
    pub good: Tensor,
}
