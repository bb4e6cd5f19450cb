//! Ops at every element that are more than one primitive.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// Folds all operands.
pub(super) fn fold(c: &Call, combine: fn(Tensor, Tensor) -> Tensor) -> Built {
    let all = c.tensors()?;
    let first = c.tensor(0)?;
    Ok(all.into_iter().skip(1).fold(first, combine))
}

pub(super) fn mean(c: &Call) -> Built {
    Ok(fold(c, |x, y| x + y)? / c.count() as f64)
}

pub(super) fn cast(c: &Call) -> Built {
    let to = c.dtype("to", c.needed_int("to")?)?;
    // About 8-bit floats only.
    c.flag("saturate", true)?;
    Ok(c.tensor(0)?.cast(to))
}

pub(super) fn cast_like(c: &Call) -> Built {
    c.flag("saturate", true)?;
    Ok(c.tensor(0)?.cast(c.tensor(1)?.dtype()))
}

/// The bounds are operands, or attributes before opset 11.
pub(super) fn clip(c: &Call) -> Built {
    let mut x = c.tensor(0)?;
    for (i, key) in [(1, "min"), (2, "max")] {
        let number = if c.opset < 11 { c.maybe_float(key)? } else { None };
        let bound = number.map(|n| c.graph.scalar(x.dtype(), n)).or_else(|| c.maybe(i));
        let Some(bound) = bound else { continue };
        x = if i == 1 { x.maximum(bound) } else { x.minimum(bound) };
    }
    Ok(x)
}

/// The exponent takes the dtype of the base, except that a float exponent of an integer makes a power of floats.
pub(super) fn power(c: &Call) -> Built {
    let (x, y) = (c.tensor(0)?, c.tensor(1)?);
    let dtype = x.dtype();
    if dtype.is_int() && y.dtype().is_float() {
        return Ok(x.cast(DType::F64).pow(y.cast(DType::F64)).cast(dtype));
    }
    Ok(x.pow(y.cast(dtype)))
}

/// The remainder with the sign of the divisor; with `fmod`, that of the dividend.
pub(super) fn modulo(c: &Call) -> Built {
    let (x, y) = (c.tensor(0)?, c.tensor(1)?);
    let rest = &x % &y;
    if c.flag("fmod", false)? || x.dtype().is_unsigned() {
        return Ok(rest);
    }
    let differ = rest.lt(0i64) ^ y.lt(0i64);
    Ok((rest.ne(0i64) & differ).select(&rest + &y, &rest))
}

pub(super) fn leaky_relu(c: &Call) -> Built {
    let x = c.tensor(0)?;
    Ok(x.lt(0.0).select(&x * c.float("alpha", 0.01)?, &x))
}

pub(super) fn gelu(c: &Call) -> Built {
    let x = c.tensor(0)?;
    Ok(match c.word("approximate", &["none", "tanh"])? {
        "tanh" => x.gelu_tanh(),
        _exact => x.gelu(),
    })
}

pub(super) fn swish(c: &Call) -> Built {
    let x = c.tensor(0)?;
    Ok(&x * (&x * c.float("alpha", 1.0)?).sigmoid())
}

pub(super) fn is_inf(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let (below, above) = (c.flag("detect_negative", true)?, c.flag("detect_positive", true)?);
    let negative = x.eq(f64::NEG_INFINITY);
    let positive = x.eq(f64::INFINITY);
    Ok(match (below, above) {
        (true, true) => negative | positive,
        (true, false) => negative,
        (false, true) => positive,
        (false, false) => &negative & !&negative,
    })
}
