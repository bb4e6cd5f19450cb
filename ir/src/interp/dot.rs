//! `dot`: both operands are copied to row-major `[batch, rows, k]` and `[batch, k, columns]`, then multiplied in tiles.
//!
//! Each result element is summed left to right over k, whatever the tiles, so that both modes give fixed bits.

use super::Mode;
use super::map::pick;
use super::value::{Data, Tensor, allowed, round, strides, walk, wrap};
use crate::diag::Diagnostic;
use crate::op::{Axis, DotDims};
use crate::types::DType;

/// Rows of k and columns of one tile of the right operand: 256 KiB of f64.
const TILE: (usize, usize) = (128, 256);

/// Rows of the left operand up to which a right operand with k innermost is read where it is.
const FEW_ROWS: usize = 4;

/// Sizes of one batch of the product.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    k: usize,
    columns: usize,
}

pub(super) fn dot(mode: Mode, dims: &DotDims, a: &Tensor, b: &Tensor) -> Result<Data, Diagnostic> {
    let free = |t: &Tensor, batch: &[Axis], contract: &[Axis]| -> Vec<Axis> {
        (0..t.shape.len()).filter(|i| !batch.contains(i) && !contract.contains(i)).collect()
    };
    let (free_a, free_b) = (free(a, &dims.batch.0, &dims.contract.0), free(b, &dims.batch.1, &dims.contract.1));
    let product = |t: &Tensor, axes: &[Axis]| axes.iter().map(|&i| t.shape[i]).product::<usize>();
    let sizes = Sizes { rows: product(a, &free_a), k: product(a, &dims.contract.0), columns: product(b, &free_b) };
    let batch = product(a, &dims.batch.0);
    let left = ordered(a, &[&dims.batch.0[..], &free_a, &dims.contract.0].concat())?;
    // A few rows against a matrix whose k is innermost: reordering it would cost more than the product.
    let columns_first = [&dims.batch.1[..], &free_b, &dims.contract.1].concat();
    if sizes.rows <= FEW_ROWS
        && columns_first.iter().copied().eq(0..b.shape.len())
        && let (Mode::Meaning, Data::Float(x), Data::Float(y)) = (mode, left.as_ref().unwrap_or(&*a.data), &*b.data)
    {
        allowed(a.dtype, &[batch, sizes.rows, sizes.columns])?;
        return Ok(Data::Float(product_by_columns(batch, sizes, x, y)));
    }
    let right = ordered(b, &[&dims.batch.1[..], &dims.contract.1, &free_b].concat())?;
    let dtype = a.dtype;
    allowed(dtype, &[batch, sizes.rows, sizes.columns])?;
    Ok(match (left.as_ref().unwrap_or(&*a.data), right.as_ref().unwrap_or(&*b.data)) {
        (Data::Float(x), Data::Float(y)) => Data::Float(match (mode, dtype) {
            (Mode::Meaning, _) | (Mode::Strict, DType::F64) => product_of(batch, sizes, x, y, 0.0, |c, a, b| c + a * b),
            (Mode::Strict, _) => {
                // Products of f32 are exact in f64, and its sums round twice without harm (53 >= 2 * 24 + 2 bits). Those of
                // halves are exact in f32.
                let step = |c, a, b| f64::from((c + f64::from((a * b) as f32)) as f32);
                let sums = product_of(batch, sizes, x, y, 0.0, step);
                if dtype == DType::F32 { sums } else { sums.into_iter().map(|c| round(dtype, c)).collect() }
            }
        }),
        (Data::Int(x), Data::Int(y)) => {
            let low = product_of(batch, sizes, x, y, 0, |c: i64, a, b: i64| c.wrapping_add(b.wrapping_mul(a)));
            Data::Int(low.into_iter().map(|c| wrap(dtype, c.into())).collect())
        }
        (Data::Bool(x), Data::Bool(y)) => Data::Bool(product_of(batch, sizes, x, y, false, |c, a, b| c | (a & b))),
        _ => return Err(Diagnostic::bug("`dot` of operands that are stored differently")),
    })
}

/// `t` with its axes in this order, or `None` if they are in it already.
fn ordered(t: &Tensor, axes: &[Axis]) -> Result<Option<Data>, Diagnostic> {
    if axes.iter().copied().eq(0..t.shape.len()) {
        return Ok(None);
    }
    let all = strides(&t.shape);
    let shape: Vec<usize> = axes.iter().map(|&i| t.shape[i]).collect();
    let steps: Vec<isize> = axes.iter().map(|&i| all[i]).collect();
    if let Data::Float(v) = &*t.data {
        let mut out = Vec::with_capacity(v.len());
        walk(&shape, &steps, 0, |at| out.push(v[at]));
        return Ok(Some(Data::Float(out)));
    }
    let mut places = Vec::new();
    walk(&shape, &steps, 0, |at| places.push(at));
    pick(t, &places).map(Some)
}

/// `c[i, j] = step(c[i, j], a[i, k], b[k, j])` for k from 0, per batch.
fn product_of<T: Copy>(
    batch: usize,
    s: Sizes,
    a: &[T],
    b: &[T],
    zero: T,
    step: impl Fn(T, T, T) -> T + Copy,
) -> Vec<T> {
    let mut out = vec![zero; batch * s.rows * s.columns];
    if s.columns == 0 || s.rows == 0 {
        return out;
    }
    for n in 0..batch {
        let (a, b) = (&a[n * s.rows * s.k..], &b[n * s.k * s.columns..]);
        let out = &mut out[n * s.rows * s.columns..][..s.rows * s.columns];
        for k0 in (0..s.k).step_by(TILE.0) {
            let k1 = (k0 + TILE.0).min(s.k);
            for j0 in (0..s.columns).step_by(TILE.1) {
                let j1 = (j0 + TILE.1).min(s.columns);
                for i in 0..s.rows {
                    let c = &mut out[i * s.columns + j0..i * s.columns + j1];
                    tile_row(&a[i * s.k + k0..i * s.k + k1], &b[k0 * s.columns..], s.columns, j0, c, step);
                }
            }
        }
    }
    out
}

/// The same sums in the same order for `b[j, k]`, four columns at a time so that additions need not wait for each other.
fn product_by_columns(batch: usize, s: Sizes, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = Vec::with_capacity(batch * s.rows * s.columns);
    for n in 0..batch {
        let column = |j: usize| &b[(n * s.columns + j) * s.k..][..s.k];
        for i in 0..s.rows {
            let row = &a[(n * s.rows + i) * s.k..][..s.k];
            let fours = s.columns / 4 * 4;
            for j in (0..fours).step_by(4) {
                let (b0, b1, b2, b3) = (column(j), column(j + 1), column(j + 2), column(j + 3));
                let mut c = [0f64; 4];
                for (k, &x) in row.iter().enumerate() {
                    c = [c[0] + x * b0[k], c[1] + x * b1[k], c[2] + x * b2[k], c[3] + x * b3[k]];
                }
                out.extend(c);
            }
            for j in fours..s.columns {
                out.push(row.iter().zip(column(j)).fold(0.0, |c, (x, y)| c + x * y));
            }
        }
    }
    out
}

/// Adds `a[k] * b[k, j0..]` to `c`, four k at a time to read and write `c` less often.
fn tile_row<T: Copy>(a: &[T], b: &[T], columns: usize, j0: usize, c: &mut [T], step: impl Fn(T, T, T) -> T) {
    let n = c.len();
    let row = |k: usize| &b[k * columns + j0..][..n];
    let (fours, rest) = a.as_chunks::<4>();
    for (q, x) in fours.iter().enumerate() {
        let (b0, b1, b2, b3) = (row(4 * q), row(4 * q + 1), row(4 * q + 2), row(4 * q + 3));
        for j in 0..n {
            c[j] = step(step(step(step(c[j], x[0], b0[j]), x[1], b1[j]), x[2], b2[j]), x[3], b3[j]);
        }
    }
    for (r, &x) in rest.iter().enumerate() {
        for (c, &y) in c.iter_mut().zip(row(4 * fours.len() + r)) {
            *c = step(*c, x, y);
        }
    }
}
