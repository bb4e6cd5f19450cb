//! Functions composed of primitives. The optimiser finds fused kernels for them; nothing here is special to it.

use super::Tensor;
use crate::types::{DType, Dim};

impl Tensor {
    /// Sum over `axes` divided by their number of elements.
    #[track_caller]
    pub fn mean(&self, axes: &[i64]) -> Tensor {
        let count = self.count(axes, 0);
        self.sum(axes) / count
    }

    /// [`Tensor::mean`], with the axes kept at size 1.
    #[track_caller]
    pub fn mean_keep(&self, axes: &[i64]) -> Tensor {
        let count = self.count(axes, 0);
        self.sum_keep(axes) / count
    }

    /// Mean squared distance from the mean over `axes`; the divisor is the number of elements less `correction`.
    #[track_caller]
    pub fn var(&self, axes: &[i64], correction: i64) -> Tensor {
        let centred = self - self.mean_keep(axes);
        let count = self.count(axes, correction);
        (&centred * &centred).sum(axes) / count
    }

    /// Number of elements along `axes` less `correction`, as a scalar of this dtype.
    #[track_caller]
    fn count(&self, axes: &[i64], correction: i64) -> Tensor {
        let Some(axes) = self.axes(axes) else { return self.poisoned() };
        let product = axes.iter().try_fold(Dim::constant(1), |n, &a| n.checked_mul(&self.shape()[a]));
        let count = product.and_then(|n| n.checked_sub(&Dim::constant(correction)));
        match count.as_ref().map(|n| (n, n.as_const())) {
            Some((_, Some(n))) => self.graph.scalar(self.dtype(), n),
            Some((n, None)) => self.graph.size(n).cast(self.dtype()),
            None => {
                let error = crate::diag::Diagnostic::new("dim-overflow", "a size does not fit in 64 bits");
                self.mistake(error, &[self])
            }
        }
    }

    /// exp(x) over its sum along `axis`, computed from x less its maximum.
    #[track_caller]
    pub fn softmax(&self, axis: i64) -> Tensor {
        let weights = (self - self.max_keep(&[axis])).exp();
        &weights / weights.sum_keep(&[axis])
    }

    /// Logarithm of [`Tensor::softmax`], without underflow.
    #[track_caller]
    pub fn log_softmax(&self, axis: i64) -> Tensor {
        let shifted = self - self.max_keep(&[axis]);
        &shifted - shifted.exp().sum_keep(&[axis]).log()
    }

    /// log of the sum of exp(x) along `axis`; -inf where all are.
    #[track_caller]
    pub fn logsumexp(&self, axis: i64) -> Tensor {
        let max = self.max_keep(&[axis]);
        // An infinite maximum would give inf - inf.
        let shift = max.abs().eq(f64::INFINITY).select(0.0, &max);
        let sum = (self - &shift).exp().sum_keep(&[axis]);
        (sum.log() + shift).squeeze(axis)
    }

    /// (x - mean) / sqrt(variance + epsilon) over the last axis, times `weight`, plus `bias`.
    #[track_caller]
    pub fn layer_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, epsilon: f64) -> Tensor {
        let centred = self - self.mean_keep(&[-1]);
        let variance = (&centred * &centred).mean_keep(&[-1]);
        let mut out = centred * (variance + epsilon).rsqrt();
        if let Some(weight) = weight {
            out = out * weight;
        }
        if let Some(bias) = bias {
            out = out + bias;
        }
        out
    }

    /// x / sqrt(mean of squares + epsilon) over the last axis, times `weight`.
    #[track_caller]
    pub fn rms_norm(&self, weight: &Tensor, epsilon: f64) -> Tensor {
        let squares = (self * self).mean_keep(&[-1]);
        self * (squares + epsilon).rsqrt() * weight
    }

    /// x times the normal distribution function at x, by erf.
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        self * 0.5 * ((self * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
    }

    /// The tanh approximation of [`Tensor::gelu`] (Hendrycks and Gimpel 2016), as in GPT-2.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Tensor {
        let cube = self * self * self;
        // sqrt(2 / pi)
        let scale = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
        self * 0.5 * (((self + cube * 0.044715) * scale).tanh() + 1.0)
    }

    /// 1 / (1 + exp(-x)). Below the least x whose exponential is finite it is what it is there, so that slopes are 0 and not NaN.
    #[track_caller]
    pub fn sigmoid(&self) -> Tensor {
        let most = match self.dtype() {
            DType::F64 => 709.0,
            DType::F16 => 11.0,
            _other => 88.0,
        };
        1.0 / ((-self).minimum(most).exp() + 1.0)
    }

    /// x times its sigmoid.
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        self * self.sigmoid()
    }

    /// max(x, 0).
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        self.maximum(0i64)
    }

    /// log(1 + exp(x)) without overflow.
    #[track_caller]
    pub fn softplus(&self) -> Tensor {
        self.relu() + (-self.abs()).exp().log1p()
    }

    /// Mean over all positions of the negative log-likelihood of the integer `targets` under `softmax` of the last axis.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &Tensor) -> Tensor {
        let chosen = self.log_softmax(-1).take_along(&targets.unsqueeze(-1), -1);
        let all: Vec<i64> = (0..chosen.rank() as i64).collect();
        -chosen.mean(&all)
    }

    /// Zero above the diagonal `diagonal` of the last two axes (0 is the main one, 1 the one above).
    #[track_caller]
    pub fn tril(&self, diagonal: i64) -> Tensor {
        let Some((rows, columns)) = self.positions() else { return self.poisoned() };
        columns.le(rows + diagonal).select(self, 0i64)
    }

    /// Zero below the diagonal `diagonal` of the last two axes.
    #[track_caller]
    pub fn triu(&self, diagonal: i64) -> Tensor {
        let Some((rows, columns)) = self.positions() else { return self.poisoned() };
        columns.ge(rows + diagonal).select(self, 0i64)
    }

    /// Row and column numbers of the last two axes.
    #[track_caller]
    fn positions(&self) -> Option<(Tensor, Tensor)> {
        let (rows, columns) = (self.axis(-2)?, self.axis(-1)?);
        let shape = [self.shape()[rows].clone(), self.shape()[columns].clone()];
        let columns = self.graph.iota(DType::I64, shape.clone(), 1);
        Some((self.graph.iota(DType::I64, shape, 0), columns))
    }
}
