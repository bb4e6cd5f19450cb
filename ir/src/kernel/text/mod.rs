//! Text of kernels: `parse(print(k)) == k`, places aside. Printing of programs.

mod expr;
mod lexer;
mod ops;
mod parse;
mod print;
mod program;
#[cfg(test)]
mod tests;

pub use parse::{parse_kernel, parse_kernels};
pub use print::print_kernel;
pub use program::{print_program, print_step};
