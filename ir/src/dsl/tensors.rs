//! Structures of tensors, as functions take and return them.

use super::Tensor;
use super::nn::{Embedding, LayerNorm, Linear, RmsNorm};
use std::collections::BTreeMap;

/// A tensor, or a structure of tensors: lists, tuples, maps by name, layers of [`nn`](super::nn), and structs of the user's for
/// which it is one line, `Mlp { up: self.up.map_tensors(f), down: self.down.map_tensors(f) }`.
pub trait Tensors: Sized {
    /// The same structure with what `f` gives for each tensor, in an order that does not change.
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;

    /// Its tensors, in that order.
    fn list(&self) -> Vec<Tensor> {
        let mut all = Vec::new();
        self.map_tensors(&mut |t| {
            all.push(t.clone());
            t.clone()
        });
        all
    }

    /// The same structure of other tensors; those that are missing are poisoned.
    #[must_use]
    fn rebuilt(&self, tensors: Vec<Tensor>) -> Self {
        let mut tensors = tensors.into_iter();
        self.map_tensors(&mut |t| tensors.next().unwrap_or_else(|| t.poisoned()))
    }
}

impl Tensors for Tensor {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Tensor {
        f(self)
    }
}

impl<T: Tensors> Tensors for Vec<T> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Vec<T> {
        self.iter().map(|t| t.map_tensors(f)).collect()
    }
}

impl<T: Tensors> Tensors for Option<T> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Option<T> {
        self.as_ref().map(|t| t.map_tensors(f))
    }
}

impl<T: Tensors, const N: usize> Tensors for [T; N] {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> [T; N] {
        self.each_ref().map(|t| t.map_tensors(f))
    }
}

impl<K: Ord + Clone, T: Tensors> Tensors for BTreeMap<K, T> {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> BTreeMap<K, T> {
        self.iter().map(|(k, t)| (k.clone(), t.map_tensors(f))).collect()
    }
}

macro_rules! tuple_tensors {
    ($($T:ident $i:tt),+) => {
        impl<$($T: Tensors),+> Tensors for ($($T,)+) {
            fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                ($(self.$i.map_tensors(f),)+)
            }
        }
    };
}

tuple_tensors!(A 0);
tuple_tensors!(A 0, B 1);
tuple_tensors!(A 0, B 1, C 2);
tuple_tensors!(A 0, B 1, C 2, D 3);

impl Tensors for Linear {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Linear {
        Linear { weight: self.weight.map_tensors(f), bias: self.bias.map_tensors(f) }
    }
}

impl Tensors for Embedding {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Embedding {
        Embedding { weight: self.weight.map_tensors(f) }
    }
}

impl Tensors for LayerNorm {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> LayerNorm {
        LayerNorm { weight: self.weight.map_tensors(f), bias: self.bias.map_tensors(f), epsilon: self.epsilon }
    }
}

impl Tensors for RmsNorm {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> RmsNorm {
        RmsNorm { weight: self.weight.map_tensors(f), epsilon: self.epsilon }
    }
}
