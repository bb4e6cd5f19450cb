//! The table of scalar ops: what `map` applies at every element, and what kernels compute.

use super::macros::op_table;
use crate::types::DType;

op_table!(
    /// A function of numbers. Operands have one dtype unless the row says otherwise; the result has it too.
    ScalarOp,
    /// The kind of a [`ScalarOp`].
    ScalarKind {
    /// x + y; integers wrap around
    Add {} "add" Exactly(2) Arithmetic;
    /// x - y; integers wrap around
    Sub {} "sub" Exactly(2) Arithmetic;
    /// x * y; integers wrap around
    Mul {} "mul" Exactly(2) Arithmetic;
    /// x / y; integers truncate toward zero, x / 0 is 0 and the smallest integer / -1 wraps
    Div {} "div" Exactly(2) Arithmetic;
    /// remainder with the sign of x (C's fmod, %); integer x % 0 is 0
    Rem {} "rem" Exactly(2) Arithmetic;
    /// x to the power y; integers wrap around, a negative exponent truncates the exact result
    Pow {} "pow" Exactly(2) Transcendental;
    /// the larger; NaN if either is
    Max {} "max" Exactly(2) Arithmetic;
    /// the smaller; NaN if either is
    Min {} "min" Exactly(2) Arithmetic;
    /// -x
    Neg {} "neg" Exactly(1) Arithmetic;
    /// magnitude
    Abs {} "abs" Exactly(1) Arithmetic;
    /// -1, 0 or 1; NaN stays
    Sign {} "sign" Exactly(1) Arithmetic;
    /// largest integer not above x
    Floor {} "floor" Exactly(1) Arithmetic;
    /// smallest integer not below x
    Ceil {} "ceil" Exactly(1) Arithmetic;
    /// nearest integer, ties to even
    Round {} "round" Exactly(1) Arithmetic;
    /// integer part, toward zero
    Trunc {} "trunc" Exactly(1) Arithmetic;
    /// square root
    Sqrt {} "sqrt" Exactly(1) Arithmetic;
    /// 1 / sqrt(x)
    Rsqrt {} "rsqrt" Exactly(1) Arithmetic;
    /// e to the x
    Exp {} "exp" Exactly(1) Transcendental;
    /// 2 to the x
    Exp2 {} "exp2" Exactly(1) Transcendental;
    /// exp(x) - 1 without cancellation
    Expm1 {} "expm1" Exactly(1) Transcendental;
    /// natural logarithm
    Log {} "log" Exactly(1) Transcendental;
    /// logarithm to base 2
    Log2 {} "log2" Exactly(1) Transcendental;
    /// log(1 + x) without cancellation
    Log1p {} "log1p" Exactly(1) Transcendental;
    /// hyperbolic tangent
    Tanh {} "tanh" Exactly(1) Transcendental;
    /// error function
    Erf {} "erf" Exactly(1) Transcendental;
    /// sine of radians
    Sin {} "sin" Exactly(1) Transcendental;
    /// cosine of radians
    Cos {} "cos" Exactly(1) Transcendental;
    /// x == y, as bool
    Eq {} "eq" Exactly(2) Comparison;
    /// x != y, as bool; true if either is NaN
    Ne {} "ne" Exactly(2) Comparison;
    /// x < y, as bool
    Lt {} "lt" Exactly(2) Comparison;
    /// x <= y, as bool
    Le {} "le" Exactly(2) Comparison;
    /// x > y, as bool
    Gt {} "gt" Exactly(2) Comparison;
    /// x >= y, as bool
    Ge {} "ge" Exactly(2) Comparison;
    /// bitwise and of integers, logical and of bools
    And {} "and" Exactly(2) Logic;
    /// bitwise or of integers, logical or of bools
    Or {} "or" Exactly(2) Logic;
    /// bitwise exclusive or of integers or bools
    Xor {} "xor" Exactly(2) Logic;
    /// bitwise not of integers, logical not of bools
    Not {} "not" Exactly(1) Logic;
    /// x shifted left by y bits; 0 where y is outside 0..bits
    Shl {} "shl" Exactly(2) Logic;
    /// x shifted right by y bits, arithmetic if signed; 0 or -1 where y is outside 0..bits
    Shr {} "shr" Exactly(2) Logic;
    /// whether x is NaN, as bool
    IsNan {} "is_nan" Exactly(1) Comparison;
    /// y where the bool x holds, else z; operands bool, t, t
    Select {} "select" Exactly(3) Conversion;
    /// x in another dtype: floats round to nearest even, floats to integers truncate and saturate (NaN gives 0), integers wrap, bool is x != 0; block encodings dequantise
    Cast { to: DType } "cast" Exactly(1) Conversion;
});
