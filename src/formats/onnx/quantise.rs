//! Numbers on a grid: `x = (q - zero) * scale`.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// A scale or zero point beside `x`: one for all, one for each place of the axis, or one for each block along it.
fn beside(c: &Call, x: &Tensor, t: Tensor, axis: i64, block: i64) -> Built {
    let (shape, own) = (c.shape(x)?, c.shape(&t)?);
    if c.product(&own)? == 1 {
        return Ok(t.reshape(()));
    }
    let axis = c.axis(axis, shape.len())?;
    if block == 0 {
        let [n] = own[..] else { return Err(c.misfit(format!("needs a list of scales, found {}", t.ty()))) };
        let mut wide = vec![1; shape.len()];
        wide[axis] = n;
        return Ok(t.reshape(wide));
    }
    if block < 0 || own.len() != shape.len() {
        return Err(c.misfit(format!("does not fit blocks of {block}, {} and scales {}", x.ty(), t.ty())));
    }
    let mut repeated = own.clone();
    repeated.insert(axis + 1, block);
    let mut merged = own.clone();
    merged[axis] = c.product(&[own[axis], block])?;
    if merged[axis] < shape[axis] {
        return Err(c.misfit(format!("has {} blocks of {block} for an axis of {}", own[axis], shape[axis])));
    }
    let each = t.unsqueeze(axis as i64 + 1).broadcast_to(repeated).reshape(merged);
    Ok(each.slice(axis as i64, 0, shape[axis]))
}

/// round(x / scale) + zero, as far as the dtype goes.
fn on_grid(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>, dtype: DType) -> Tensor {
    // The dtypes have 16 bits at most, so f32 has every value that does not saturate.
    let steps = (x / scale).round().cast(DType::F32);
    zero.map_or(steps.clone(), |zero| &steps + zero.cast(DType::F32)).cast(dtype)
}

fn grid_dtype(c: &Call, dtype: DType) -> Result<DType, Diagnostic> {
    if matches!(dtype, DType::I8 | DType::U8 | DType::I16 | DType::U16) {
        return Ok(dtype);
    }
    Err(c.wrong("dtype-mismatch", format!("needs a result of i8, u8, i16 or u16, found {dtype}")))
}

pub(super) fn quantise(c: &Call) -> Built {
    let (x, scale) = (c.tensor(0)?, c.tensor(1)?);
    let (axis, block) = (c.int("axis", 1)?, c.int("block_size", 0)?);
    // About 8-bit floats only.
    c.flag("saturate", true)?;
    let code = c.int("output_dtype", 0)?;
    let dtype = match (code, c.maybe(2)) {
        (0, zero) => zero.map_or(DType::U8, |z| z.dtype()),
        (code, _) => c.dtype("output_dtype", code)?,
    };
    let precision = c.int("precision", 0)?;
    let wide = if precision == 0 { scale.dtype() } else { c.dtype("precision", precision)? };
    let zero = c.maybe(2).map(|z| beside(c, &x, z, axis, block)).transpose()?;
    let scale = beside(c, &x, scale, axis, block)?;
    Ok(on_grid(&x.cast(wide), &scale.cast(wide), zero.as_ref(), grid_dtype(c, dtype)?))
}

pub(super) fn dequantise(c: &Call) -> Built {
    let (x, scale) = (c.tensor(0)?, c.tensor(1)?);
    let (axis, block) = (c.int("axis", 1)?, c.int("block_size", 0)?);
    let code = c.int("output_dtype", 0)?;
    let dtype = if code == 0 { scale.dtype() } else { c.dtype("output_dtype", code)? };
    let mut steps = x.cast(DType::I32);
    if let Some(zero) = c.maybe(2) {
        steps = steps - beside(c, &x, zero, axis, block)?.cast(DType::I32);
    }
    let scale = beside(c, &x, scale, axis, block)?;
    Ok((steps.cast(scale.dtype()) * scale).cast(dtype))
}

/// Bytes over the range of `x` and 0, their scale and zero point.
pub(super) fn dynamic(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let x = c.tensor(0)?;
    let all: Vec<i64> = (0..x.rank() as i64).collect();
    let (low, high) = (x.min(&all).minimum(0.0), x.max(&all).maximum(0.0));
    let scale = (high - &low) / 255.0;
    // All zeros: any scale is right.
    let scale = scale.eq(0.0).select(1.0, &scale);
    let zero = (-low / &scale).round().cast(DType::U8);
    Ok(vec![on_grid(&x, &scale, Some(&zero), DType::U8), scale, zero])
}
