//! The optimiser and the rates of a run, as a configuration says them.

use crate::models::decoder::DecoderConfig;
use crate::optim::{Adam, AdamW, Muon, Optimiser, Schedule, Sgd};
use serde::{Deserialize, Serialize};
use tilewright_ir::diag::Diagnostic;

/// An optimiser by name; what is absent is as its paper has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "name", rename_all = "lowercase")]
pub enum OptimiserConfig {
    /// Stochastic gradient descent.
    Sgd {
        /// 0 if absent.
        #[serde(default)]
        momentum: f64,
        /// False if absent.
        #[serde(default)]
        nesterov: bool,
        /// 0 if absent.
        #[serde(default)]
        decay: f64,
    },
    /// Adam.
    Adam {
        /// 0.9 and 0.999 if absent.
        betas: Option<[f64; 2]>,
        /// 0 if absent.
        #[serde(default)]
        decay: f64,
    },
    /// AdamW.
    Adamw {
        /// 0.9 and 0.95 if absent.
        betas: Option<[f64; 2]>,
        /// 0.1 if absent.
        decay: Option<f64>,
    },
    /// Muon for hidden matrices, AdamW for the rest.
    Muon {
        /// 0.95 if absent.
        momentum: Option<f64>,
        /// Of hidden matrices; 0 if absent.
        #[serde(default)]
        decay: f64,
        /// The rate of the others as a part of that of hidden matrices; 0.015 if absent.
        other_rate: Option<f64>,
    },
}

impl Default for OptimiserConfig {
    fn default() -> OptimiserConfig {
        OptimiserConfig::Adamw { betas: None, decay: None }
    }
}

impl OptimiserConfig {
    /// What moments keep of the step before.
    pub(super) fn kept(&self) -> Vec<(&'static str, f64)> {
        match self {
            OptimiserConfig::Sgd { momentum, .. } => vec![("optimiser.momentum", *momentum)],
            OptimiserConfig::Muon { momentum, .. } => vec![("optimiser.momentum", momentum.unwrap_or(0.0))],
            OptimiserConfig::Adam { betas, .. } | OptimiserConfig::Adamw { betas, .. } => {
                betas.iter().flatten().map(|beta| ("optimiser.betas", *beta)).collect()
            }
        }
    }

    /// Factors that are 0 or more.
    pub(super) fn factors(&self) -> [(&'static str, f64); 2] {
        let (decay, other_rate) = match *self {
            OptimiserConfig::Sgd { decay, .. } | OptimiserConfig::Adam { decay, .. } => (decay, 0.0),
            OptimiserConfig::Adamw { decay, .. } => (decay.unwrap_or(0.0), 0.0),
            OptimiserConfig::Muon { decay, other_rate, .. } => (decay, other_rate.unwrap_or(0.0)),
        };
        [("optimiser.decay", decay), ("optimiser.other_rate", other_rate)]
    }

    /// The optimiser, for matrices stored as those of `model` are.
    pub fn optimiser(&self, model: &DecoderConfig) -> Box<dyn Optimiser> {
        match *self {
            OptimiserConfig::Sgd { momentum, nesterov, decay } => Box::new(Sgd { momentum, nesterov, decay }),
            OptimiserConfig::Adam { betas, decay } => {
                let usual = Adam::default();
                Box::new(Adam { betas: betas.unwrap_or(usual.betas), decay, ..usual })
            }
            OptimiserConfig::Adamw { betas, decay } => {
                Box::new(AdamW { betas: betas.unwrap_or([0.9, 0.95]), decay: decay.unwrap_or(0.1), ..AdamW::default() })
            }
            OptimiserConfig::Muon { momentum, decay, other_rate } => {
                let usual = Muon { inputs_first: model.inputs_first(), decay, ..Muon::default() };
                let (momentum, other_rate) =
                    (momentum.unwrap_or(usual.momentum), other_rate.unwrap_or(usual.other_rate));
                Box::new(Muon { momentum, other_rate, ..usual })
            }
        }
    }
}

/// Rates.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// `constant`, `cosine`, `linear` or `wsd`; cosine if absent.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// Largest rate.
    pub peak: f64,
    /// Rate at the end; a tenth of the largest if absent.
    pub least: Option<f64>,
    /// Steps to the largest.
    #[serde(default)]
    pub warmup: u64,
    /// Steps down from it, of `wsd`; a fifth of all if absent.
    pub decay: Option<u64>,
}

/// The form of a schedule.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The same after the warm-up.
    Constant,
    /// Half a cosine.
    #[default]
    Cosine,
    /// A line.
    Linear,
    /// Warm-up, stable, decay.
    Wsd,
}

impl ScheduleConfig {
    /// Errors: `train-config` for a warm-up, or a decay after it, that is longer than the run of `steps` steps, a decay of another
    /// kind than `wsd`, and a last rate that is below 0 or above the largest.
    pub(super) fn check(&self, steps: u64) -> Result<(), Diagnostic> {
        let wrong = |message: String| Err(Diagnostic::new("train-config", message));
        let Some(rest) = steps.checked_sub(self.warmup) else {
            let found = self.warmup;
            return wrong(format!("schedule.warmup: expected at most {steps}, which is train.steps, found {found}"));
        };
        if let Some(least) = self.least.filter(|least| !(0.0..=self.peak).contains(least)) {
            let peak = self.peak;
            return wrong(format!("schedule.least: expected 0 to {peak}, which is schedule.peak, found {least}"));
        }
        if let (Some(decay), true) = (self.decay, self.kind != ScheduleKind::Wsd) {
            return wrong(format!(
                "schedule.decay: expected `kind = \"wsd\"` beside it, found {decay} with another kind"
            ));
        }
        match self.decay {
            Some(decay) if decay > rest => wrong(format!(
                "schedule.decay: expected at most {rest}, which is train.steps less schedule.warmup, found {decay}"
            )),
            _fits => Ok(()),
        }
    }

    /// The rates of a run of `steps` steps.
    pub(super) fn schedule(&self, steps: u64) -> Schedule {
        let ScheduleConfig { kind, peak, least, warmup, decay } = self.clone();
        let least = least.unwrap_or(peak / 10.0);
        match kind {
            ScheduleKind::Constant => Schedule::Constant { peak, warmup },
            ScheduleKind::Cosine => Schedule::Cosine { peak, least, warmup, steps },
            ScheduleKind::Linear => Schedule::Linear { peak, least, warmup, steps },
            ScheduleKind::Wsd => {
                Schedule::Wsd { peak, least, warmup, decay: decay.unwrap_or(steps.div_ceil(5)), steps }
            }
        }
    }
}
