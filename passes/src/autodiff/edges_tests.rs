//! Gradients at the edges. The numbers are what torch 2 gives in f64 for `f(x).sum().backward()`, recorded; where ours differ there is
//! a rule, which the book states.

use super::grad;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType::F64};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

type Function = fn(&[Tensor]) -> Tensor;

/// A name, a function, where it is differentiated, and its gradients by each input.
type Row = (&'static str, Function, &'static [&'static [f64]], &'static [&'static [f64]]);

fn constant(x: &Tensor, numbers: &[f64]) -> Tensor {
    x.graph().constant(Array::from_f64(&[numbers.len()], numbers).unwrap())
}

const AS_TORCH: &[Row] = &[
    ("a maximum is shared", |x| x[0].max(&[0]), &[&[2.0, 2.0, 1.0]], &[&[0.5, 0.5, 0.0]]),
    ("a minimum is shared", |x| x[0].min(&[0]), &[&[1.0, 2.0, 1.0]], &[&[0.5, 0.0, 0.5]]),
    ("maximum", |x| x[0].maximum(&x[1]), &[&[1.0, 2.0], &[1.0, 1.0]], &[&[0.5, 1.0], &[0.5, 0.0]]),
    ("minimum", |x| x[0].minimum(&x[1]), &[&[1.0, 2.0, -0.0], &[1.0, 1.0, 0.0]], &[&[0.5, 0.0, 0.5], &[0.5, 1.0, 0.5]]),
    ("abs", |x| x[0].abs(), &[&[0.0, -0.0, 2.0, -2.0]], &[&[0.0, 0.0, 1.0, -1.0]]),
    ("sqrt", |x| x[0].sqrt(), &[&[0.0, 4.0]], &[&[INF, 0.25]]),
    ("rsqrt", |x| x[0].rsqrt(), &[&[0.0, 4.0]], &[&[-INF, -0.0625]]),
    ("x log x", |x| &x[0] * x[0].log(), &[&[0.0, 1.0]], &[&[NAN, 1.0]]),
    ("log", |x| x[0].log(), &[&[0.0, -1.0, 1.0]], &[&[INF, -1.0, 1.0]]),
    ("1 / x", |x| 1.0 / &x[0], &[&[0.0, 2.0]], &[&[-INF, -0.25]]),
    ("pow in the base", |x| x[0].pow(constant(&x[0], &[0.0, 2.0, 0.5, -1.0])), &[&[0.0; 4]], &[&[0.0, 0.0, INF, -INF]]),
    (
        "pow in the exponent",
        |x| constant(&x[0], &[0.0, 0.0, 2.0, -2.0]).pow(&x[0]),
        &[&[2.0, 0.0, 3.0, 2.0]],
        &[&[0.0, 0.0, 5.545177444479562, NAN]],
    ),
    ("a product with a zero", |x| x[0].prod(&[0]), &[&[0.0, 2.0, 3.0]], &[&[6.0, 0.0, 0.0]]),
    ("a product with two zeros", |x| x[0].prod(&[0]), &[&[0.0, 0.0, 3.0]], &[&[0.0, 0.0, 0.0]]),
    (
        "softmax with a masked element",
        |x| x[0].softmax(0) * constant(&x[0], &[1.0, 2.0, 3.0]),
        &[&[-INF, 0.0, 1.0]],
        &[&[0.0, -0.19661193324148196, 0.1966119332414816]],
    ),
    ("softmax of a masked row", |x| x[0].softmax(0) * constant(&x[0], &[1.0, 2.0]), &[&[-INF, -INF]], &[&[NAN, NAN]]),
    (
        "logsumexp with a masked element",
        |x| x[0].logsumexp(0),
        &[&[-INF, 0.0, 1.0]],
        &[&[0.0, 0.2689414213699951, 0.7310585786300049]],
    ),
    ("the norm of a zero row, by hand", |x| (&x[0] * &x[0]).sum(&[0]).sqrt(), &[&[0.0, 0.0]], &[&[NAN, NAN]]),
    (
        "a branch that is safe",
        |x| {
            let positive = x[0].gt(0.0);
            positive.select(positive.select(&x[0], 1.0).sqrt(), 0.0)
        },
        &[&[4.0, -1.0, 0.0]],
        &[&[0.25, 0.0, 0.0]],
    ),
    (
        "a branch that is not: its slope is 0 times NaN",
        |x| x[0].gt(0.0).select(x[0].sqrt(), 0.0),
        &[&[4.0, -1.0, 0.0]],
        &[&[0.25, NAN, NAN]],
    ),
    ("floor", |x| x[0].floor() + &x[0] * 0.0, &[&[1.0, 1.5]], &[&[0.0, 0.0]]),
    ("sign", |x| x[0].sign() + &x[0] * 0.0, &[&[0.0, 2.0]], &[&[0.0, 0.0]]),
    ("remainder", |x| &x[0] % &x[1], &[&[5.0, -5.0], &[3.0, 3.0]], &[&[1.0, 1.0], &[-1.0, 1.0]]),
    ("log1p", |x| x[0].log1p(), &[&[-1.0, 0.0]], &[&[INF, 1.0]]),
    ("expm1", |x| x[0].expm1(), &[&[-INF, 0.0]], &[&[0.0, 1.0]]),
    ("tanh", |x| x[0].tanh(), &[&[-INF, INF]], &[&[0.0, 0.0]]),
    ("sigmoid where exp overflows", |x| x[0].sigmoid(), &[&[0.0, 800.0, -800.0]], &[&[0.25, 0.0, 0.0]]),
    ("softplus at 0", |x| x[0].softplus(), &[&[0.0]], &[&[0.5]]),
];

const BY_OUR_RULES: &[Row] = &[
    // It is max(x, 0), whose tie is shared; torch gives 0.
    ("relu at 0", |x| x[0].relu(), &[&[0.0, -0.0, 1.0, -1.0]], &[&[0.5, 0.5, 1.0, 0.0]]),
    // No element is the largest where one is NaN, and none has a gradient; torch gives 1 and 1, and NaN for the fold.
    ("maximum with NaN", |x| x[0].maximum(&x[1]), &[&[0.0, NAN], &[NAN, 1.0]], &[&[0.0, 0.0], &[0.0, 0.0]]),
    // The slope is the sign, and that of NaN is NaN; torch, whose sign of NaN is 0, gives 0.
    ("abs at NaN", |x| x[0].abs(), &[&[NAN, -2.0]], &[&[NAN, -1.0]]),
    ("a fold with NaN", |x| x[0].max(&[0]), &[&[NAN, 2.0]], &[&[0.0, 0.0]]),
];

#[test]
fn edges_are_those_of_torch_or_of_a_rule() {
    for (name, f, inputs, want) in AS_TORCH.iter().chain(BY_OUR_RULES) {
        let g = Graph::new("main");
        let input = |(i, x): (usize, &&[f64])| g.input(&format!("x{i}"), F64, [x.len() as i64]);
        let tensors: Vec<Tensor> = inputs.iter().enumerate().map(input).collect();
        let loss = |x: &Vec<Tensor>| {
            let y = f(x);
            if y.rank() == 0 { y } else { y.sum(&[0]) }
        };
        let gradients = grad(loss)(&tensors);
        let module = g.finish(&gradients.iter().collect::<Vec<_>>()).unwrap_or_else(|d| panic!("{name}: {d}"));
        let arrays: Vec<Array> = inputs.iter().map(|x| Array::from_f64(&[x.len()], x).unwrap()).collect();
        let found = run(&module, "main", &arrays, &Bindings::new(), Mode::Meaning).unwrap();
        for (found, want) in found.iter().zip(*want) {
            let found = found.to_f64().unwrap();
            let same = |(a, b): (&f64, &f64)| a == b || (a - b).abs() < 1e-12 || (a.is_nan() && b.is_nan());
            assert!(
                found.len() == want.len() && found.iter().zip(*want).all(same),
                "{name}: {found:?}, expected {want:?}"
            );
        }
    }
}
