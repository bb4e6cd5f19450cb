//! The language in which models are written: a [`Graph`] under construction and [`Tensor`] handles into it.
//!
//! No method panics on a user's mistake. The first mistake is kept in the graph with the Rust lines of the op and of its
//! operands, every tensor computed from the failed one is poisoned (its ops do nothing, [`Tensor::dim`] gives 1), and
//! [`Graph::finish`] returns it.
//!
//! Binary ops broadcast as in NumPy, and write the broadcasts into the graph, where nothing is implicit. Dtypes are never
//! promoted; plain numbers take the dtype of the tensor beside them. Axes may be negative: -1 is the last.

mod attention;
mod composite;
mod control;
mod einops;
mod einsum;
mod elementwise;
mod graph;
mod indexing;
mod initial;
mod literal;
mod movement;
pub mod nn;
mod operators;
mod pattern;
mod random;
mod reduce;
mod shape;
mod tensor;
mod tensors;
mod transform;

pub use attention::{Attention, RopeLayout};
pub use einsum::einsum;
pub use graph::Graph;
pub use initial::Initial;
pub use literal::Scalar;
pub use movement::{concat, stack};
pub use random::Key;
pub use shape::Shape;
pub use tensor::{Operand, Tensor};
pub use tensors::Tensors;
pub use transform::Traced;

#[cfg(test)]
mod tests;
