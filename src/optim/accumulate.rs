//! Gradients of a batch in parts, one after the other.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor, Tensors};
use tilewright_ir::types::DType;
use tilewright_passes::checkpoint::Checkpointing;

/// The mean over `parts` parts of a batch of the loss and of its gradients by `weights`, as a `scan` whose body is the function
/// `name`: the memory is that of one part. Tensors of the batch have the parts as their first axis; `loss` gets weights,
/// `frozen` and one part, and its gradient is taken by `checkpointing`.
///
/// Errors: `duplicate-function`; those of the loss and of its gradient.
#[track_caller]
pub fn accumulated<B: Tensors>(
    g: &Graph,
    name: &str,
    parts: i64,
    [weights, frozen]: [&[Tensor]; 2],
    batch: &B,
    checkpointing: &Checkpointing,
    loss: impl Fn(&[Tensor], &[Tensor], &B) -> Tensor,
) -> (Tensor, Vec<Tensor>) {
    let (slices, dtype) = (batch.list(), weights.first().map_or(DType::F32, Tensor::dtype));
    g.function(name, |g| {
        let declare = |what: &str, all: &[Tensor], from: usize| -> Vec<Tensor> {
            let one = |(i, t): (usize, &Tensor)| {
                g.input(&format!("{what}.{i}"), t.dtype(), t.shape().get(from..).unwrap_or_default())
            };
            all.iter().enumerate().map(one).collect()
        };
        // Weights stay as they are, sums grow; parts come last.
        let (values, fixed) = (declare("weight", weights, 0), declare("frozen", frozen, 0));
        let (total, sums) = (g.input("loss", dtype, ()), declare("sum", weights, 0));
        let part = batch.rebuilt(declare("part", &slices, 1));
        let (value, gradients) = checkpointing.value_and_grad(|w: &Vec<Tensor>| loss(w, &fixed, &part))(&values);
        let sums = sums.iter().zip(&gradients).map(|(sum, d)| sum + d);
        values.iter().chain(&fixed).cloned().chain([total + value.cast(dtype)]).chain(sums).collect::<Vec<_>>()
    });
    let zeros = weights.iter().map(|w| g.full(w.dtype(), w.shape(), 0.0));
    let carries: Vec<Tensor> =
        weights.iter().chain(frozen).cloned().chain([g.scalar(dtype, 0.0)]).chain(zeros).collect();
    let results = g.scan(name, &carries.iter().collect::<Vec<_>>(), &slices.iter().collect::<Vec<_>>(), parts);
    let mean = |t: &Tensor| t / parts as f64;
    match results.get(weights.len() + frozen.len()..) {
        Some([total, sums @ ..]) => (mean(total), sums.iter().take(weights.len()).map(mean).collect()),
        _mistake => (g.fail(Diagnostic::bug("a scan without its carries")), Vec::new()),
    }
}
