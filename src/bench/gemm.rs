//! Matrix products `[m, k] x [k, n]`; the right one is a weight, packed when it is first used.

use super::numpy::NumpyRandom;
use super::{More, Prepared, Row, SECOND, Setup, digits, giga, room, row};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Graph;
use tilewright_ir::types::DType;

/// Sizes and dtype of a product.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Rows of the left operand.
    pub m: usize,
    /// What is summed over.
    pub k: usize,
    /// Columns of the right operand.
    pub n: usize,
    /// Of operands and result: f32 or bf16, summed in f32.
    pub dtype: DType,
}

/// Most elements of an operand.
const MOST: usize = 1 << 31;

/// Measures one product.
///
/// Errors: `bench-size` for operands without elements or of more than 2^31; `out-of-memory`; those of the compiler.
pub fn gemm(sizes: Gemm, setup: &Setup) -> Result<Row, Diagnostic> {
    let Gemm { m, k, n, dtype } = sizes;
    let fits = |a: usize, b: usize| a.checked_mul(b).is_some_and(|c| (1..=MOST).contains(&c));
    if !(fits(m, k) && fits(k, n) && fits(m, n)) {
        let message = format!("operands must have 1 to {MOST} elements, found m {m}, k {k}, n {n}");
        return Err(Diagnostic::new("bench-size", message));
    }
    // f32 numbers, arrays and panels of the operands; the result, and its f64 numbers for the check.
    let operands = (m * k).saturating_add(2 * k * n).saturating_mul(8);
    room(operands.saturating_add((m * n).saturating_mul(16)), &format!("{m}x{k}x{n}"))?;
    let g = Graph::new("main");
    let (x, w) = (g.input("a", dtype, (m, k)), g.weight("b", dtype, (k, n)));
    let module = g.finish(&[&x.matmul(&w)])?;
    let mut random = NumpyRandom::new(0);
    let (a, b) = (random.normal(m * k), random.normal(k * n));
    let inputs = [array(dtype, &[m, k], &a)?, array(dtype, &[k, n], &b)?];
    let mut prepared = Prepared::new(&module, &inputs, setup)?;
    let error = largest_error(prepared.result()?, &a, &b, sizes)?;
    let check = super::mean_size(prepared.result()?);
    let times = prepared.measure(SECOND)?;
    let flops = 2.0 * m as f64 * k as f64 * n as f64;
    let more = More {
        dtype: Some(dtype.to_string()),
        gflops: giga(flops, times.median),
        error: Some(digits(error, 2)),
        check,
        ..More::default()
    };
    Ok(row("gemm", format!("{m}x{k}x{n}"), &times, setup, more))
}

fn array(dtype: DType, shape: &[usize], data: &[f32]) -> Result<Array, Diagnostic> {
    if dtype != DType::Bf16 {
        return Array::from_f32(shape, data);
    }
    let bytes: Vec<u8> = data.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
    Array::new(dtype, shape, Bytes::new(bytes))
}

/// Of the first four rows, against f64 sums of the exact inputs, over the root of k.
fn largest_error(c: &Array, a: &[f32], b: &[f32], Gemm { m, k, n, .. }: Gemm) -> Result<f64, Diagnostic> {
    let found = c.to_f64().filter(|f| f.len() == m * n);
    let found = found.ok_or_else(|| Diagnostic::bug("a product of another shape"))?;
    let mut worst = 0.0f64;
    let mut sums = vec![0.0f64; n];
    for i in 0..m.min(4) {
        sums.fill(0.0);
        for (&x, row) in a[i * k..(i + 1) * k].iter().zip(b.chunks_exact(n)) {
            sums.iter_mut().zip(row).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
        }
        for (sum, y) in sums.iter().zip(&found[i * n..]) {
            let error = (sum - y).abs();
            if error.is_nan() {
                return Ok(error);
            }
            worst = worst.max(error);
        }
    }
    Ok(worst / (k as f64).sqrt())
}
