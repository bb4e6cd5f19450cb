//! Sums of products.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{self, Tensor};
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// alpha a b + beta c, with transposes.
pub(super) fn gemm(c: &Call) -> Built {
    let turned = |index: usize, key: &'static str| {
        let x = c.tensor(index)?;
        let _matrix: [i64; 2] = c.sizes(&x, "a factor")?;
        Ok::<Tensor, Diagnostic>(if c.flag(key, false)? { x.transpose(0, 1) } else { x })
    };
    let scaled = |x: Tensor, key: &'static str| {
        let factor = c.float(key, 1.0)?;
        Ok::<Tensor, Diagnostic>(if factor == 1.0 { x } else { x * factor })
    };
    let product = scaled(turned(0, "transA")?.matmul(&turned(1, "transB")?), "alpha")?;
    let beta = c.float("beta", 1.0)?;
    let Some(bias) = c.maybe(2) else { return Ok(product) };
    let bias = if beta == 1.0 { bias } else { bias * beta };
    let shape = c.shape(&product)?;
    Ok(product + bias.broadcast_to(shape))
}

/// Letters name axes, with or without spaces.
pub(super) fn einsum(c: &Call) -> Built {
    let equation: String = c.text("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    // Scalars have no letters, which the notation here cannot write: they are factors.
    let (sides, all) = (equation.split_once("->"), c.tensors()?);
    let terms: Vec<&str> = sides.map_or(equation.as_str(), |(left, _)| left).split(',').collect();
    if terms.len() != all.len() {
        let message = format!("has {} operands in `equation`, found {}", terms.len(), all.len());
        return Err(c.wrong("onnx-attribute", message));
    }
    let named = |term: &str| !term.is_empty();
    let tensors: Vec<&Tensor> = all.iter().zip(&terms).filter(|(_, t)| named(t)).map(|(x, _)| x).collect();
    let scalars: Vec<&Tensor> = all.iter().zip(&terms).filter(|(_, t)| !named(t)).map(|(x, _)| x).collect();
    let left: Vec<&str> = terms.into_iter().filter(|t| named(t)).collect();
    let pattern = match sides {
        Some((_, right)) => format!("{} -> {right}", left.join(",")),
        None => left.join(","),
    };
    if let Some(s) = scalars.iter().find(|s| s.rank() != 0) {
        return Err(c.misfit(format!("has no letters for an operand {}", s.ty())));
    }
    let product = dsl::einsum(&pattern, &tensors);
    let parts = product.iter().chain(scalars).cloned();
    parts.reduce(|x, y| x * y).ok_or_else(|| c.wrong("onnx-input", "needs an operand"))
}

/// An i32 product of bytes less their zero points, one for all or one for each row (column).
pub(super) fn matmul_integer(c: &Call) -> Built {
    let less = |index: usize, zero: usize, rows: bool| {
        let x = c.tensor(index)?;
        let Some(zero) = c.maybe(zero) else { return Ok(x.cast(DType::I32)) };
        let shape = c.shape(&zero)?;
        let zero = match shape[..] {
            [n] if n != 1 && rows => zero.reshape([n, 1]),
            _ => zero,
        };
        Ok::<Tensor, Diagnostic>(x.cast(DType::I32) - zero.cast(DType::I32))
    };
    Ok(less(0, 2, true)?.matmul(&less(1, 3, false)?))
}
