//! Steps of optimisers: a learning rate, a step number, then lists of tensors of one length, one list for each role.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;

type Built = Result<Vec<Tensor>, Diagnostic>;

/// The learning rate, the step number in its dtype, and for each tensor its operand in each of `N` lists.
fn operands<const N: usize>(c: &Call) -> Result<(Tensor, Tensor, Vec<[Tensor; N]>), Diagnostic> {
    let (rate, all) = (c.tensor(0)?, c.tensors()?);
    let step = c.tensor(1)?.cast(rate.dtype());
    let (lists, n) = (&all[2..], (all.len() - 2) / N);
    if n * N != lists.len() || n == 0 {
        let message = format!("needs {N} lists of tensors of one length after two operands, found {}", lists.len());
        return Err(c.wrong("onnx-input", message));
    }
    Ok((rate, step, (0..n).map(|i| std::array::from_fn(|role| lists[role * n + i].clone())).collect()))
}

/// The results of all tensors, role by role.
fn by_role<const N: usize>(made: Vec<[Tensor; N]>) -> Vec<Tensor> {
    (0..N).flat_map(|role| made.iter().map(move |m| m[role].clone())).collect()
}

pub(super) fn adagrad(c: &Call) -> Built {
    let (rate, step, all) = operands(c)?;
    let (decay, norm) = (c.float("decay_factor", 0.0)?, c.float("norm_coefficient", 0.0)?);
    let epsilon = c.float("epsilon", 1e-6)?;
    let rate = rate / (step * decay + 1.0);
    let step = |[x, gradient, squares]: &[Tensor; 3]| {
        let gradient = x * norm + gradient;
        let squares = squares + &gradient * &gradient;
        [x - &rate * gradient / (squares.sqrt() + epsilon), squares]
    };
    Ok(by_role(all.iter().map(step).collect()))
}

pub(super) fn adam(c: &Call) -> Built {
    let (rate, step, all) = operands(c)?;
    // No default of epsilon: see the table of what is left out.
    let (alpha, beta, epsilon) = (c.float("alpha", 0.9)?, c.float("beta", 0.999)?, c.needed_float("epsilon")?);
    let (norm, after) = (c.float("norm_coefficient", 0.0)?, c.float("norm_coefficient_post", 0.0)?);
    let left = |decay: f64| 1.0 - c.graph.scalar(step.dtype(), decay).pow(&step);
    // Before the first step nothing is to be corrected.
    let rate = step.gt(0.0).select(&rate * left(beta).sqrt() / left(alpha), &rate);
    let step = |[x, gradient, momentum, squares]: &[Tensor; 4]| {
        let gradient = x * norm + gradient;
        let momentum = momentum * alpha + &gradient * (1.0 - alpha);
        let squares = squares * beta + (&gradient * &gradient) * (1.0 - beta);
        let x = x - &rate * (&momentum / (squares.sqrt() + epsilon));
        [x * (1.0 - after), momentum, squares]
    };
    Ok(by_role(all.iter().map(step).collect()))
}

pub(super) fn momentum(c: &Call) -> Built {
    let (rate, step, all) = operands(c)?;
    let (alpha, beta, norm) = (c.needed_float("alpha")?, c.needed_float("beta")?, c.needed_float("norm_coefficient")?);
    let nesterov = c.word("mode", &["standard", "nesterov"])? == "nesterov";
    // The first step takes the whole gradient.
    let beta = step.gt(0.0).select(c.graph.scalar(step.dtype(), beta), 1.0);
    let step = |[x, gradient, velocity]: &[Tensor; 3]| {
        let gradient = x * norm + gradient;
        let velocity = velocity * alpha + &beta * &gradient;
        let change = if nesterov { gradient + &velocity * alpha } else { velocity.clone() };
        [x - &rate * change, velocity]
    };
    Ok(by_role(all.iter().map(step).collect()))
}
