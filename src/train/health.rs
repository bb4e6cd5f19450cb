//! Whether a run still goes anywhere.

use super::metrics::Metrics;
use tilewright_ir::diag::Diagnostic;

/// The least normal f16. Where a smaller scale of the loss is asked for, it is no large scale that makes gradients infinite.
const LEAST_SCALE: f64 = 1.0 / 16384.0;

/// Steps one after the other whose loss is no finite number, after which a run with a scaled loss ends. In f16 a batch may overflow
/// on its own: its step is skipped, and the next ones may be good.
const PATIENCE: u32 = 10;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Health {
    /// Steps in a row without a finite loss.
    bad: u32,
}

impl Health {
    /// Looks at the metrics of the next step.
    ///
    /// Errors: `diverged` for a loss that is no finite number, in f16 for the last of several in a row; without a scale of the loss for
    /// gradients whose norm is none, as they are in the weights by then; and for a scale that is too small to be the reason of infinite
    /// gradients.
    pub(super) fn check(&mut self, metrics: &Metrics) -> Result<(), Diagnostic> {
        let Metrics { step, loss, norm, loss_scale, .. } = metrics;
        self.bad = if loss.is_finite() { 0 } else { self.bad + 1 };
        let patience = if loss_scale.is_some() { PATIENCE } else { 1 };
        if self.bad >= patience {
            let message = match patience {
                1 => format!("the loss of step {step} is {loss}; checkpoints before it stay"),
                _ => format!("the loss is {loss} in {patience} steps one after the other; earlier checkpoints stay"),
            };
            return Err(Diagnostic::new("diverged", message).note("a lower schedule.peak or a longer warm-up may help"));
        }
        if loss_scale.is_none() && !norm.is_finite() {
            let message = format!("the norm of the gradients of step {step} is {norm}; checkpoints before it stay");
            return Err(Diagnostic::new("diverged", message).note("a lower schedule.peak or a longer warm-up may help"));
        }
        if loss_scale.is_some_and(|scale| scale < LEAST_SCALE) {
            let message = format!("the gradients of step {step} are not finite at any loss scale");
            return Err(Diagnostic::new("diverged", message).note("train.precision = \"bf16\" has the range of f32"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(health: &mut Health, loss: f64, loss_scale: Option<f64>) -> Option<Diagnostic> {
        health.check(&metrics(loss, 1.0, loss_scale)).err()
    }

    fn metrics(loss: f64, norm: f64, loss_scale: Option<f64>) -> Metrics {
        let (step, rate, tokens_per_s) = (7, 1.0, 1.0);
        Metrics { step, loss, norm, rate, tokens_per_s, mfu: None, validation: None, loss_scale, checkpointing: None }
    }

    #[test]
    fn without_a_scale_the_first_loss_that_is_no_number_ends_a_run() {
        let mut health = Health::default();
        assert!(seen(&mut health, 2.0, None).is_none());
        for loss in [f64::NAN, f64::INFINITY] {
            let error = seen(&mut Health::default(), loss, None).unwrap();
            assert!(error.code == "diverged" && error.message.contains("step 7"), "{error}");
        }
    }

    /// A scale makes norms that are none, and skips their steps.
    #[test]
    fn without_a_scale_a_norm_that_is_no_number_ends_a_run() {
        let of = |norm, loss_scale| Health::default().check(&metrics(2.0, norm, loss_scale)).err();
        let error = of(f64::NAN, None).unwrap();
        assert!(error.code == "diverged" && error.message.contains("norm of the gradients of step 7"), "{error}");
        assert!(of(f64::INFINITY, None).is_some() && of(1e30, None).is_none() && of(f64::NAN, Some(1024.0)).is_none());
    }

    #[test]
    fn with_a_scale_several_in_a_row_do() {
        let mut health = Health::default();
        let scale = Some(1024.0);
        for _ in 0..3 {
            assert!((1..PATIENCE).all(|_| seen(&mut health, f64::NAN, scale).is_none()));
            assert!(seen(&mut health, 3.0, scale).is_none(), "a good one between");
        }
        assert!((1..PATIENCE).all(|_| seen(&mut health, f64::INFINITY, scale).is_none()));
        assert_eq!(seen(&mut health, f64::NAN, scale).unwrap().code, "diverged");
    }

    #[test]
    fn a_scale_that_is_too_small_does() {
        assert!(seen(&mut Health::default(), 3.0, Some(LEAST_SCALE)).is_none());
        let error = seen(&mut Health::default(), 3.0, Some(LEAST_SCALE / 2.0)).unwrap();
        assert!(error.code == "diverged" && error.message.contains("any loss scale"), "{error}");
    }
}
