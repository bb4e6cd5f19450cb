//! Attention and rotary positions, from primitives.

use super::{Tensor, concat, stack};
use crate::diag::Diagnostic;
use crate::op::{Axes, DotDims};
use crate::types::{DType, Dim};

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element i with element i + d/2 (GPT-NeoX, Hugging Face's Llama).
    Half,
    /// Element 2i with element 2i + 1 (Meta's Llama, GGUF's llama).
    Interleaved,
}

/// What [`Tensor::attention`] does beside `softmax(q k^T) v`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention<'a> {
    /// Query i sees keys up to i + (keys - queries): the queries are the last positions.
    pub causal: bool,
    /// Factor of the scores; 1 / sqrt(head size) if absent.
    pub scale: Option<f64>,
    /// bool: where false, a key is not seen; float: added to the scores. Broadcasts to `[.., heads, queries, keys]`.
    pub mask: Option<&'a Tensor>,
}

impl Tensor {
    /// Rotary position embedding (Su et al. 2021): rotates pairs of elements of the last axis, of size d, by angles whose
    /// cosines and sines `[.., positions, d/2]` broadcast to this tensor's pairs.
    #[track_caller]
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, layout: RopeLayout) -> Tensor {
        if self.is_poisoned() {
            return self.clone();
        }
        let size = self.dim(-1);
        let Some(half) = size.div_exact(&Dim::constant(2)) else {
            let message = format!("`rope` needs an even last axis, found {}", self.ty());
            return self.mistake(Diagnostic::new("shape-mismatch", message), &[self]);
        };
        let (a, b) = match layout {
            RopeLayout::Half => (self.slice(-1, 0, half.clone()), self.slice(-1, half.clone(), size.clone())),
            RopeLayout::Interleaved => {
                let mut shape = self.shape()[..self.rank() - 1].to_vec();
                shape.extend([half, Dim::constant(2)]);
                let pairs = self.reshape(shape);
                (pairs.slice(-1, 0, 1).squeeze(-1), pairs.slice(-1, 1, 2).squeeze(-1))
            }
        };
        let (x, y) = (&a * cos - &b * sin, &a * sin + &b * cos);
        let joined = match layout {
            RopeLayout::Half => concat(&[&x, &y], -1),
            RopeLayout::Interleaved => stack(&[&x, &y], -1),
        };
        joined.map_or(self.poisoned(), |j| j).reshape_like(self)
    }

    #[track_caller]
    fn reshape_like(&self, other: &Tensor) -> Tensor {
        if self.is_poisoned() { self.clone() } else { self.reshape(other.shape()) }
    }

    /// `softmax(q k^T scale) v` with this tensor as q `[.., heads, queries, d]`, `keys` `[.., groups, keys, d]`, `values`
    /// `[.., groups, keys, e]`; result `[.., heads, queries, e]`. Each group of heads shares keys and values, so `heads`
    /// is a multiple of `groups`. Errors: `shape-mismatch`.
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, options: Attention<'_>) -> Tensor {
        if self.is_poisoned() || keys.is_poisoned() || values.is_poisoned() {
            return self.poisoned();
        }
        let rank = self.rank();
        let wrong = |what: String| {
            let found = format!("found {}, {}, {}", self.ty(), keys.ty(), values.ty());
            Diagnostic::new("shape-mismatch", format!("`attention` needs {what}; {found}"))
        };
        if rank < 3 || keys.rank() != rank || values.rank() != rank {
            return self.mistake(wrong("three operands of one rank, at least 3".into()), &[self, keys, values]);
        }
        let (heads, groups) = (self.dim(-3), keys.dim(-3));
        let Some(each) = heads.div_exact(&groups) else {
            let error = wrong(format!("heads to be a multiple of groups, {heads} of {groups}"));
            return self.mistake(error, &[self, keys, values]);
        };
        let (queries, size) = (self.dim(-2), self.dim(-1));
        let lead = &self.shape()[..rank - 3];
        let grouped = [lead, &[groups.clone(), each.clone(), queries.clone(), size.clone()]].concat();
        let scale = options.scale.unwrap_or_else(|| size.as_const().map_or(1.0, |d| 1.0 / (d as f64).sqrt()));
        if options.scale.is_none() && size.as_const().is_none() {
            return self.mistake(wrong("a scale where the head size is symbolic".into()), &[self]);
        }
        let batch: Axes = (0..rank - 2).collect();
        let pairs =
            |l: usize, r: usize| DotDims { batch: (batch.clone(), batch.clone()), contract: (vec![l], vec![r]) };
        // [.., groups, each, queries, keys]
        let mut scores = self.reshape(grouped).dot(keys, pairs(rank, rank - 1)) * scale;
        if let Some(mask) = options.mask {
            let mask = mask.split_heads(&groups, &each);
            scores = scores.masked(&mask);
        }
        if options.causal {
            scores = scores.masked(&self.causal_mask(keys));
        }
        let out = scores.softmax(-1).dot(values, pairs(rank, rank - 2));
        let shape = [lead, &[heads, queries, values.dim(-1)]].concat();
        if out.is_poisoned() { out } else { out.reshape(shape) }
    }

    /// Hides where a bool mask is false; adds a float mask.
    #[track_caller]
    fn masked(&self, mask: &Tensor) -> Tensor {
        if mask.dtype() == DType::Bool { mask.select(self, f64::NEG_INFINITY) } else { self + mask }
    }

    /// `[queries, keys]`: whether the query's position, counted from the end, is not before the key's.
    #[track_caller]
    fn causal_mask(&self, keys: &Tensor) -> Tensor {
        let (queries, keys) = (self.dim(-2), keys.dim(-2));
        let Some(offset) = keys.checked_sub(&queries) else { return self.poisoned() };
        let shape = [queries, keys];
        let rows = self.graph.iota(DType::I64, shape.clone(), 0);
        let columns = self.graph.iota(DType::I64, shape, 1);
        let rows = if offset.is(0) { rows } else { rows + self.graph.size(offset) };
        columns.le(rows)
    }

    /// `[.., heads, queries, keys]` as `[.., groups, each, queries, keys]`, where there is an axis of heads.
    #[track_caller]
    fn split_heads(&self, groups: &Dim, each: &Dim) -> Tensor {
        if self.rank() < 3 {
            return self.clone();
        }
        let at = self.rank() - 3;
        let mut shape = self.shape().to_vec();
        let split = if shape[at].is(1) { [Dim::constant(1), Dim::constant(1)] } else { [groups.clone(), each.clone()] };
        shape.splice(at..=at, split);
        self.reshape(shape)
    }
}
