//! What a configuration says of mixed precision.

use crate::optim::LossScale;
use serde::{Deserialize, Serialize};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;
use tilewright_passes::mixed::Policy;

/// In what products of matrices compute.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// bf16.
    Bf16,
    /// f16, with a scaled loss.
    F16,
}

impl Precision {
    // Such runs are described without it, as those were that began before there was a choice.
    pub(super) fn is_full(&self) -> bool {
        *self == Precision::F32
    }

    /// The dtype of products.
    pub(super) fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::Bf16,
            Precision::F16 => DType::F16,
        }
    }

    /// How contractions compute; none for f32.
    pub(super) fn policy(self) -> Result<Option<Policy>, Diagnostic> {
        match self {
            Precision::F32 => Ok(None),
            Precision::Bf16 => Policy::new(DType::Bf16).map(Some),
            Precision::F16 => Policy::new(DType::F16).map(Some),
        }
    }

    /// How the loss is scaled, as gradients that pass through f16 need it; none for others.
    pub(super) fn loss_scale(self, said: Option<&LossScaleConfig>) -> Option<LossScale> {
        let usual = LossScale::default();
        (self == Precision::F16).then(|| LossScale {
            first: said.and_then(|s| s.first).unwrap_or(usual.first),
            interval: said.and_then(|s| s.interval).unwrap_or(usual.interval),
            ..usual
        })
    }
}

/// How the loss is scaled where products are f16; see [`LossScale`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LossScaleConfig {
    /// The scale at first, a power of two; 65536 if absent.
    pub first: Option<f64>,
    /// Good steps after which it doubles; 2000 if absent.
    pub interval: Option<u64>,
}

impl LossScaleConfig {
    /// Errors: `train-config`.
    pub(super) fn check(&self, precision: Precision) -> Result<(), Diagnostic> {
        let wrong = |message: String| Err(Diagnostic::new("train-config", message));
        if precision != Precision::F16 {
            return wrong("loss_scale: expected train.precision = \"f16\" beside it, found another".into());
        }
        // Powers of two change no digits.
        match self.first {
            Some(first) if !(-14..=100).any(|exponent| first == 2f64.powi(exponent)) => {
                return wrong(format!("loss_scale.first: expected a power of two, 2^-14 to 2^100, found {first}"));
            }
            _fits => {}
        }
        match self.interval {
            Some(0) => wrong("loss_scale.interval: expected 1 or more, found 0".into()),
            _fits => Ok(()),
        }
    }
}
