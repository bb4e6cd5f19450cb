//! Layers with named parameters: weights of the open function, called by their path.
//!
//! In a [`Graph::function`], the path starts at the function; a [`Graph::call`] in the scope `blocks.3` then makes the
//! weight `blocks.3.attn.qkv.weight` of the caller from the callee's `attn.qkv.weight`, up to the entry.

use super::{Graph, Tensor};
use crate::types::{DType, Dim};

/// `x W^T + b`; the weight is stored `[out, in]`.
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Weights `name.weight` of `dtype` (perhaps a block encoding) and, if asked, `name.bias` in f32.
    #[track_caller]
    pub fn new(g: &Graph, name: &str, dtype: DType, from: impl Into<Dim>, to: impl Into<Dim>, bias: bool) -> Linear {
        let to = to.into();
        let weight = g.weight(&format!("{name}.weight"), dtype, (to.clone(), from));
        let plain = if dtype.is_block() { DType::F32 } else { dtype };
        let bias = if bias { Some(g.weight(&format!("{name}.bias"), plain, (to,))) } else { None };
        Linear { weight, bias }
    }

    /// `[.., in]` to `[.., out]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let product = x.linear(&self.weight);
        match &self.bias {
            Some(bias) => product + bias,
            None => product,
        }
    }
}

/// A table of rows.
pub struct Embedding {
    /// `[rows, width]`.
    pub weight: Tensor,
}

impl Embedding {
    /// The weight `name.weight`.
    #[track_caller]
    pub fn new(g: &Graph, name: &str, dtype: DType, rows: impl Into<Dim>, width: impl Into<Dim>) -> Embedding {
        Embedding { weight: g.weight(&format!("{name}.weight"), dtype, (rows, width)) }
    }

    /// Integers `[..]` to `[.., width]`, in f32 if the table is a block encoding.
    #[track_caller]
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.weight.embedding(ids)
    }
}

/// Layer norm over the last axis.
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Tensor,
    /// `[width]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Weights `name.weight` and `name.bias` in f32.
    #[track_caller]
    pub fn new(g: &Graph, name: &str, width: impl Into<Dim>, epsilon: f64) -> LayerNorm {
        let width = width.into();
        let weight = g.weight(&format!("{name}.weight"), DType::F32, (width.clone(),));
        LayerNorm { weight, bias: g.weight(&format!("{name}.bias"), DType::F32, (width,)), epsilon }
    }

    /// `[.., width]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(Some(&self.weight), Some(&self.bias), self.epsilon)
    }
}

/// RMS norm over the last axis (Zhang and Sennrich 2019).
pub struct RmsNorm {
    /// `[width]`.
    pub weight: Tensor,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl RmsNorm {
    /// The weight `name.weight` in f32.
    #[track_caller]
    pub fn new(g: &Graph, name: &str, width: impl Into<Dim>, epsilon: f64) -> RmsNorm {
        RmsNorm { weight: g.weight(&format!("{name}.weight"), DType::F32, (width,)), epsilon }
    }

    /// `[.., width]` to the same.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(&self.weight, self.epsilon)
    }
}
