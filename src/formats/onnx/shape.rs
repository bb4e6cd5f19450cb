//! Tensors made of sizes and numbers: shapes, constants, ranges, diagonals.

use super::call::{Call, extreme, int_array, integers};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;
type Value = Result<Array, Diagnostic>;

/// Sizes from `start` to `end`, which are cut to the rank.
pub(super) fn shape(c: &Call) -> Value {
    let sizes = c.shape(&c.tensor(0)?)?;
    let rank = sizes.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
    let (start, end) = (place(c.int("start", 0)?), place(c.int("end", rank)?));
    int_array(&sizes[start..end.max(start)])
}

pub(super) fn size(c: &Call) -> Value {
    let sizes = c.shape(&c.tensor(0)?)?;
    Array::from_i64(&[], &[c.product(&sizes)?])
}

/// One of the `value` attributes.
pub(super) fn constant(c: &Call) -> Value {
    if let Some(array) = c.tensor_attribute("value")? {
        return Ok(array);
    }
    if let Some(i) = c.maybe_int("value_int")? {
        return Array::from_i64(&[], &[i]);
    }
    if let Some(list) = c.int_list("value_ints")? {
        return int_array(&list);
    }
    if let Some(x) = c.maybe_float("value_float")? {
        return Array::from_f32(&[], &[x as f32]);
    }
    if let Some(list) = c.float_list("value_floats")? {
        return Array::from_f32(&[list.len()], &list.iter().map(|&x| x as f32).collect::<Vec<f32>>());
    }
    let message = "needs one of value, value_int, value_ints, value_float, value_floats; texts are left out";
    Err(c.wrong("onnx-attribute", message))
}

pub(super) fn constant_of_shape(c: &Call) -> Built {
    let shape = sizes(c, 0)?;
    let value = match c.tensor_attribute("value")? {
        Some(value) if value.len() == 1 => c.graph.constant(value).reshape(()),
        Some(value) => {
            let message = format!("needs a `value` of one element, found {:?}", value.shape());
            return Err(c.wrong("onnx-attribute", message));
        }
        None => c.graph.scalar(DType::F32, 0.0),
    };
    Ok(value.broadcast_to(shape))
}

/// Operand `index` as sizes.
pub(super) fn sizes(c: &Call, index: usize) -> Result<Vec<i64>, Diagnostic> {
    let shape = c.ints(index)?;
    match shape.iter().find(|d| **d < 0) {
        Some(d) => Err(c.misfit(format!("needs sizes of at least 0 as operand {index}, found {d}"))),
        None => Ok(shape),
    }
}

/// start, start + delta, .. before limit.
pub(super) fn range(c: &Call) -> Built {
    let arrays = [c.array(0)?, c.array(1)?, c.array(2)?];
    let dtype = arrays[0].dtype();
    if arrays.iter().any(|a| a.len() != 1 || a.dtype() != dtype || dtype == DType::Bool) {
        return Err(c.wrong("onnx-input", "needs three numbers of one dtype"));
    }
    let count = if dtype.is_int() {
        let number = |a: &Array| integers(a).and_then(|v| v.first().copied()).map(i128::from);
        let [Some(start), Some(limit), Some(delta)] = arrays.map(number) else {
            return Err(c.wrong("onnx-input", "needs numbers below 2^63"));
        };
        let span = limit - start;
        // Rounded up where both have the same sign; nothing if not.
        if delta == 0 { None } else { i64::try_from((span + delta - delta.signum()).div_euclid(delta).max(0)).ok() }
    } else {
        let number = |a: &Array| a.to_f64().and_then(|v| v.first().copied()).unwrap_or(f64::NAN);
        let [start, limit, delta] = arrays.map(number);
        let count = ((limit - start) / delta).ceil().max(0.0);
        // Sizes above 2^53 are no numbers of a float.
        (count <= 9_007_199_254_740_992.0 && delta != 0.0 && !(limit - start).is_nan()).then_some(count as i64)
    };
    let count = count.ok_or_else(|| c.wrong("onnx-input", "needs a step that leads to the limit"))?;
    let (start, delta) = (c.tensor(0)?.reshape(()), c.tensor(2)?.reshape(()));
    Ok(c.graph.iota(dtype, [count], 0) * delta + start)
}

/// Ones on the diagonal `k` of a matrix.
pub(super) fn eye_like(c: &Call) -> Built {
    let x = c.tensor(0)?;
    let dtype = c.maybe_int("dtype")?.map_or(Ok(x.dtype()), |code| c.dtype("dtype", code))?;
    let shape: [i64; 2] = c.sizes(&x, "the operand")?;
    let rows = c.graph.iota(DType::I64, shape, 0);
    let columns = c.graph.iota(DType::I64, shape, 1);
    Ok(columns.eq(rows + c.int("k", 0)?).cast(dtype))
}

/// The part above (or below) the diagonal `k` of the last two axes.
pub(super) fn trilu(c: &Call) -> Built {
    let (x, diagonal) = (c.tensor(0)?, c.int_operand(1, 0)?);
    Ok(if c.flag("upper", true)? { x.triu(diagonal) } else { x.tril(diagonal) })
}

/// The largest (or smallest) number of a dtype, as a scalar.
pub(super) fn extreme_of(c: &Call, dtype: DType, largest: bool) -> Built {
    Ok(c.graph.constant(extreme(dtype, largest)?))
}
