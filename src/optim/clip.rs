//! Clipping by the norm over all gradients.

use tilewright_ir::dsl::Tensor;

/// The root of the sum of squares over all elements of all tensors; none of no tensors.
#[track_caller]
pub fn global_norm(tensors: &[Tensor]) -> Option<Tensor> {
    let squares = |t: &Tensor| (t * t).sum(&(0..t.rank() as i64).collect::<Vec<_>>());
    tensors.iter().map(squares).reduce(|a, b| a + b).map(|sum| sum.sqrt())
}

/// What gradients of the global norm `norm` are multiplied by so that it is at most `limit`: 1 where it is (Pascanu et al., On
/// the difficulty of training recurrent neural networks, 2013). A norm that is no number stays one.
#[track_caller]
pub fn clip_factor(norm: &Tensor, limit: f64) -> Tensor {
    norm.le(limit).select(1.0, limit / norm)
}
