//! A step of gradient descent within a budget of memory: a program that is built for each way to take its gradient, and what the ways cost.
//!
//! `cargo run --release --example budget`

use tilewright::array::Array;
use tilewright::checkpoint::{Budget, Checkpointing, program_within};
use tilewright::compile::{Options, compile};
use tilewright::diag::Diagnostic;
use tilewright::dsl::{Graph, Tensor};
use tilewright::graph::Module;
use tilewright::types::{Bindings, DType};

const LAYERS: usize = 16;
const WIDTH: usize = 64;
const EXAMPLES: usize = 256;

/// The mean square of a deep network's results, then its weights a step down the gradient. `checkpointing` says what of the way forward is kept.
fn step(checkpointing: &Checkpointing) -> Result<Module, Diagnostic> {
    let graph = Graph::new("main");
    let x = graph.input("x", DType::F32, [EXAMPLES, WIDTH]);
    let weights = (0..LAYERS).map(|i| graph.donated(&format!("w{i}"), DType::F32, [WIDTH, WIDTH]));
    let weights: Vec<Tensor> = weights.collect();
    let block = |x: Tensor, w: &Tensor| &x + x.layer_norm(None, None, 1e-5).matmul(w).gelu_tanh();
    let loss = |weights: &Vec<Tensor>| {
        let y = weights.iter().fold(x.clone(), block);
        (&y * &y).mean(&[0, 1])
    };
    let (value, gradients) = checkpointing.value_and_grad(loss)(&weights);
    let moved = weights.iter().zip(&gradients).map(|(weight, gradient)| weight - gradient * 0.1);
    let results: Vec<Tensor> = [value].into_iter().chain(moved).collect();
    graph.finish(&results.iter().collect::<Vec<_>>())
}

fn main() -> Result<(), Diagnostic> {
    let (options, sizes) = (Options::host()?, Bindings::new());
    let numbers = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin() * 0.3).collect::<Vec<f32>>();
    let mut inputs = vec![Array::from_f32(&[EXAMPLES, WIDTH], &numbers(EXAMPLES * WIDTH, 0.37))?];
    for layer in 0..LAYERS {
        inputs.push(Array::from_f32(&[WIDTH, WIDTH], &numbers(WIDTH * WIDTH, 0.11 + layer as f32))?);
    }
    for budget in [Budget::None, Budget::Sqrt, Budget::Part(0.5), Budget::Bytes(1_500_000), Budget::Least] {
        let curve = program_within(&step, (budget, &sizes), &options, &|_done, _of| {})?;
        let (point, plain) = (curve.point(), &curve.points[0]);
        let results = compile(&curve.module, &options)?.run(&inputs, &sizes)?;
        let loss = results[0].to_f32().and_then(|l| l.first().copied()).unwrap_or(f32::NAN);
        println!(
            "{:>9}: {:.2} MB of arena, {:>4.1} % more operations, loss {loss:.5} ({})",
            budget.to_string(),
            point.cost.peak as f64 / 1e6,
            100.0 * (point.cost.flops / plain.cost.flops - 1.0),
            point.name()
        );
    }
    Ok(())
}
