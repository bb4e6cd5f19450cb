//! Reverse rules of scalar ops: `ct` times the partial derivative, for each operand that asks.
//!
//! At the edges they do as torch does: a tie of `max` or `min` is shared, `abs` has slope 0 at 0, `select` hides what the
//! branch that was not taken would give, unless it is NaN or infinite, `pow` has slope 0 for the exponent 0 and in the exponent for a base of 0.

use crate::build::Build;
use std::f64::consts::{FRAC_2_SQRT_PI, LN_2};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::ScalarOp;

/// Cotangents of the operands `x` of `y = op(x)`, where `want` asks for them.
pub fn vjp(
    b: &mut Build<'_>,
    op: &ScalarOp,
    x: &[Value],
    (y, ct): (Value, Value),
    want: &[bool],
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let mut out = vec![None; x.len()];
    for (i, slot) in out.iter_mut().enumerate().filter(|(i, _)| want[*i]) {
        *slot = operand(b, op, x, (y, ct), i)?;
    }
    Ok(out)
}

#[allow(clippy::too_many_lines, reason = "one arm per op")]
fn operand(
    b: &mut Build<'_>,
    op: &ScalarOp,
    x: &[Value],
    (y, ct): (Value, Value),
    i: usize,
) -> Result<Option<Value>, Diagnostic> {
    let other = |x: &[Value]| x[1 - i];
    let ty = b.ty(x[i]);
    Ok(Some(match op {
        ScalarOp::Add {} => ct,
        ScalarOp::Sub {} if i == 0 => ct,
        ScalarOp::Sub {} => b.neg(ct)?,
        ScalarOp::Mul {} => b.mul(ct, other(x))?,
        ScalarOp::Div {} if i == 0 => b.div(ct, x[1])?,
        ScalarOp::Div {} => {
            let slope = b.div(y, x[1])?;
            let part = b.mul(ct, slope)?;
            b.neg(part)?
        }
        ScalarOp::Rem {} if i == 0 => ct,
        ScalarOp::Rem {} => {
            let quotient = b.div(x[0], x[1])?;
            let whole = b.map(ScalarOp::Trunc {}, &[quotient])?;
            let part = b.mul(ct, whole)?;
            b.neg(part)?
        }
        ScalarOp::Pow {} => pow(b, x, (y, ct), i)?,
        ScalarOp::Max {} | ScalarOp::Min {} => {
            let wins = if matches!(op, ScalarOp::Max {}) { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
            let (won, tie) = (b.compare(wins, x[i], other(x))?, b.compare(ScalarOp::Eq {}, x[0], x[1])?);
            let (zero, half) = (b.full(&ty, 0.0)?, b.scaled(ct, 0.5)?);
            let rest = b.select(tie, half, zero)?;
            b.select(won, ct, rest)?
        }
        ScalarOp::Neg {} => b.neg(ct)?,
        ScalarOp::Abs {} => {
            let sign = b.map(ScalarOp::Sign {}, &[x[0]])?;
            b.mul(ct, sign)?
        }
        // Steps: flat wherever they have a slope.
        ScalarOp::Sign {} | ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => {
            return Ok(None);
        }
        ScalarOp::Sqrt {} => {
            let half = b.scaled(ct, 0.5)?;
            b.div(half, y)?
        }
        ScalarOp::Rsqrt {} => {
            let square = b.mul(y, y)?;
            let cube = b.mul(square, y)?;
            let part = b.mul(ct, cube)?;
            b.scaled(part, -0.5)?
        }
        ScalarOp::Exp {} => b.mul(ct, y)?,
        ScalarOp::Exp2 {} => {
            let part = b.mul(ct, y)?;
            b.scaled(part, LN_2)?
        }
        ScalarOp::Expm1 {} => {
            let part = b.mul(ct, y)?;
            b.add(part, ct)?
        }
        ScalarOp::Log {} => b.div(ct, x[0])?,
        ScalarOp::Log2 {} => {
            let part = b.div(ct, x[0])?;
            b.scaled(part, 1.0 / LN_2)?
        }
        ScalarOp::Log1p {} => {
            let one = b.full(&ty, 1.0)?;
            let above = b.add(x[0], one)?;
            b.div(ct, above)?
        }
        ScalarOp::Tanh {} => {
            let (square, one) = (b.mul(y, y)?, b.full(&ty, 1.0)?);
            let slope = b.sub(one, square)?;
            b.mul(ct, slope)?
        }
        ScalarOp::Erf {} => {
            let square = b.mul(x[0], x[0])?;
            let power = b.neg(square)?;
            let bell = b.map(ScalarOp::Exp {}, &[power])?;
            let part = b.mul(ct, bell)?;
            b.scaled(part, FRAC_2_SQRT_PI)?
        }
        ScalarOp::Sin {} => {
            let slope = b.map(ScalarOp::Cos {}, &[x[0]])?;
            b.mul(ct, slope)?
        }
        ScalarOp::Cos {} => {
            let sine = b.map(ScalarOp::Sin {}, &[x[0]])?;
            let part = b.mul(ct, sine)?;
            b.neg(part)?
        }
        ScalarOp::Select {} => {
            let zero = b.full(&ty, 0.0)?;
            let (yes, no) = if i == 1 { (ct, zero) } else { (zero, ct) };
            b.select(x[0], yes, no)?
        }
        ScalarOp::Cast { to: _ } => b.cast(ct, ty.dtype)?,
        // Their results are no floats.
        ScalarOp::Eq {}
        | ScalarOp::Ne {}
        | ScalarOp::Lt {}
        | ScalarOp::Le {}
        | ScalarOp::Gt {}
        | ScalarOp::Ge {}
        | ScalarOp::And {}
        | ScalarOp::Or {}
        | ScalarOp::Xor {}
        | ScalarOp::Not {}
        | ScalarOp::Shl {}
        | ScalarOp::Shr {}
        | ScalarOp::IsNan {} => return Ok(None),
    }))
}

/// `x^p`: `p x^(p-1)`, 0 for `0^0`; and `y ln x`, 0 for the base 0 unless the exponent is negative.
fn pow(b: &mut Build<'_>, x: &[Value], (y, ct): (Value, Value), i: usize) -> Result<Value, Diagnostic> {
    let (base, power, ty) = (x[0], x[1], b.ty(x[0]));
    let zero = b.full(&ty, 0.0)?;
    if i == 0 {
        let one = b.full(&ty, 1.0)?;
        let less = b.sub(power, one)?;
        let lower = b.map(ScalarOp::Pow {}, &[base, less])?;
        let slope = b.mul(power, lower)?;
        let part = b.mul(ct, slope)?;
        // Elsewhere it is 0 by itself, with the right slope in the exponent.
        let (none, nothing) = (b.compare(ScalarOp::Eq {}, power, zero)?, b.compare(ScalarOp::Eq {}, base, zero)?);
        let flat = b.map(ScalarOp::And {}, &[none, nothing])?;
        return b.select(flat, zero, part);
    }
    let log = b.map(ScalarOp::Log {}, &[base])?;
    let slope = b.mul(y, log)?;
    let part = b.mul(ct, slope)?;
    let (nothing, grows) = (b.compare(ScalarOp::Eq {}, base, zero)?, b.compare(ScalarOp::Ge {}, power, zero)?);
    let flat = b.map(ScalarOp::And {}, &[nothing, grows])?;
    b.select(flat, zero, part)
}
