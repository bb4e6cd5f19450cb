//! Averages of weights over the steps.

use tilewright_ir::dsl::Tensor;

/// The exponential moving average after a step: `keep` of it stays, the rest is the new value (Polyak and Juditsky 1992; in
/// this form Tarvainen and Valpola 2017). A run starts with the first weights as averages.
#[track_caller]
pub fn average(average: &Tensor, value: &Tensor, keep: f64) -> Tensor {
    average * keep + value * (1.0 - keep)
}
