//! Softmax and normalisation.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// Over one axis; before opset 13 over it and all axes behind it.
pub(super) fn softmax(c: &Call, log: bool) -> Built {
    let x = c.tensor(0)?;
    let shape = c.shape(&x)?;
    let of = |x: &Tensor, axis: i64| if log { x.log_softmax(axis) } else { x.softmax(axis) };
    if c.opset >= 13 {
        return Ok(of(&x, c.axis(c.int("axis", -1)?, shape.len())? as i64));
    }
    let axis = c.axis(c.int("axis", 1)?, shape.len())?;
    let flat = [&shape[..axis], &[c.product(&shape[axis..])?]].concat();
    Ok(of(&x.reshape(flat), axis as i64).reshape(shape))
}

/// The operand in the dtype in which statistics are computed, its axes from `axis` on, and epsilon.
struct Statistics {
    x: Tensor,
    dtype: DType,
    axes: Vec<i64>,
    epsilon: f64,
}

impl Statistics {
    fn of(c: &Call) -> Result<Statistics, Diagnostic> {
        let x = c.tensor(0)?;
        let stash = c.dtype("stash_type", c.int("stash_type", 1)?)?;
        let axis = c.axis(c.int("axis", -1)?, x.rank())?;
        let epsilon = c.float("epsilon", 1e-5)?;
        let dtype = x.dtype();
        // A wider dtype than the stash keeps its width.
        let wide = if dtype.block().1 < stash.block().1 { x.cast(stash) } else { x.clone() };
        Ok(Statistics { x: wide, dtype, axes: (axis as i64..x.rank() as i64).collect(), epsilon })
    }
}

/// The normalised operand, its mean, and the inverse of its deviation.
pub(super) fn layer_norm(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let Statistics { x, dtype, axes, epsilon } = Statistics::of(c)?;
    let mean = x.mean_keep(&axes);
    let centred = &x - &mean;
    let inverse = ((&centred * &centred).mean_keep(&axes) + epsilon).rsqrt();
    let mut y = (centred * &inverse).cast(dtype) * c.tensor(1)?;
    if let Some(bias) = c.maybe(2) {
        y = y + bias;
    }
    Ok(vec![y, mean, inverse])
}

pub(super) fn rms_norm(c: &Call) -> Built {
    let Statistics { x, dtype, axes, epsilon } = Statistics::of(c)?;
    let inverse = ((&x * &x).mean_keep(&axes) + epsilon).rsqrt();
    Ok((x * inverse).cast(dtype) * c.tensor(1)?)
}
