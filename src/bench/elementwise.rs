//! Memory-bound fused operations, f32. `gb_s` counts each input and the output once.

use super::numpy::NumpyRandom;
use super::{More, Prepared, Row, SECOND, Setup, giga, mean_size, row};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::types::DType;

/// A name, the shapes of the inputs, the function.
type Case = (&'static str, &'static [&'static [usize]], fn(&[Tensor]) -> Tensor);

const EPSILON: f64 = 1e-5;

const CASES: [Case; 6] = [
    ("bias_gelu", &[&[1024, 3072], &[3072]], |x| (&x[0] + &x[1]).gelu_tanh()),
    ("softmax", &[&[4096, 1024]], |x| x[0].softmax(-1)),
    ("layer_norm", &[&[4096, 768], &[768], &[768]], |x| x[0].layer_norm(Some(&x[1]), Some(&x[2]), EPSILON)),
    ("rms_norm", &[&[4096, 768], &[768]], |x| x[0].rms_norm(&x[1], EPSILON)),
    ("swiglu", &[&[1024, 3072], &[1024, 3072]], |x| x[0].silu() * &x[1]),
    ("residual_norm", &[&[4096, 768], &[4096, 768], &[768]], |x| (&x[0] + &x[1]).rms_norm(&x[2], EPSILON)),
];

/// Measures every case, and hands each row over as it comes.
///
/// Errors: those of the compiler and of `show`.
pub fn elementwise(setup: &Setup, mut show: impl FnMut(Row) -> Result<(), Diagnostic>) -> Result<(), Diagnostic> {
    for (name, shapes, function) in CASES {
        let g = Graph::new("main");
        let operand = |(i, s): (usize, &&[usize])| g.input(&format!("x{i}"), DType::F32, s.to_vec());
        let operands: Vec<Tensor> = shapes.iter().enumerate().map(operand).collect();
        let module = g.finish(&[&function(&operands)])?;
        let mut random = NumpyRandom::new(0);
        let input = |s: &&[usize]| Array::from_f32(s, &random.normal(s.iter().product()));
        let inputs: Vec<Array> = shapes.iter().map(input).collect::<Result<_, _>>()?;
        let mut prepared = Prepared::new(&module, &inputs, setup)?;
        let check = mean_size(prepared.result()?);
        let times = prepared.measure(SECOND)?;
        let bytes = 4 * (inputs.iter().map(Array::len).sum::<usize>() + inputs[0].len());
        let gb_s = giga(bytes as f64, times.median);
        let more = More { bytes: Some(bytes), gb_s, check, ..More::default() };
        show(row("elementwise", name.into(), &times, setup, more))?;
    }
    Ok(())
}
