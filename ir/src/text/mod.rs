//! The text of Graph IR modules: `parse(print(m))` is `m`, places aside.
//!
//! ```text
//! func @mlp(%x: f32[batch, 768], weight %w: f32[768, 3072]) -> f32[batch, 3072] where batch in 1..=4096 by 8 {
//!   %0 = dot %x, %w batch=[]x[] contract=[1]x[0] : f32[batch, 3072] @"blocks.0"  // a scope, a comment
//!   return %0
//! }
//! ```
//!
//! Parameters go by their names, other values by number, result i of several as `%4#i`. Line ends mean nothing. The
//! type of a node may be left out; where it stands it is checked. A scope may also stand behind the type of a
//! parameter. Names that are no identifiers stand in quotes. How a function is differentiated
//! ([`crate::graph::Derivative`]) stands behind the types of its results: `-> f32[n] custom_jvp=@rule where n in 1..=4 {`.

mod attrs;
mod dims;
mod lexer;
mod literal;
mod names;
mod parse;
mod print;
mod same;

pub use literal::element_text;
pub(crate) use names::is_ident;
pub use names::{nearest, value as value_name};
pub use parse::{parse, parse_verified};
pub use print::{print, print_node, print_noted};
pub use same::difference;
