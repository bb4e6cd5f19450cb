//! Gradients of single examples and an ensemble of models, by `vmap`: one program each, without a loop.
//!
//! `cargo run --release --example per_example`

use tilewright::array::Array;
use tilewright::autodiff::grad;
use tilewright::compile::{Options, compile};
use tilewright::diag::Diagnostic;
use tilewright::dsl::{Graph, Tensor, Tensors};
use tilewright::passes::vmap::vmap;
use tilewright::types::{Bindings, DType};

/// Two layers.
struct Mlp {
    up: Tensor,
    down: Tensor,
}

impl Tensors for Mlp {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Mlp {
        Mlp { up: self.up.map_tensors(f), down: self.down.map_tensors(f) }
    }
}

impl Mlp {
    /// The squared error of one example, x of 8 numbers.
    fn loss(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let hidden = x.unsqueeze(0).matmul(&self.up).tanh();
        let error = hidden.matmul(&self.down).reshape(()) - y;
        &error * &error
    }
}

fn main() -> Result<(), Diagnostic> {
    let (examples, models) = (6, 3);
    let graph = Graph::new("main");
    let data = (graph.input("x", DType::F32, [examples, 8]), graph.input("y", DType::F32, [examples]));
    let mlp = Mlp { up: graph.weight("up", DType::F32, [8, 16]), down: graph.weight("down", DType::F32, [16, 1]) };
    // How far each example would move the weights: what clipping for differential privacy needs.
    let norms = vmap(|(x, y): &(Tensor, Tensor)| {
        let d = grad(|m: &Mlp| m.loss(x, y))(&mlp);
        ((&d.up * &d.up).sum(&[0, 1]) + (&d.down * &d.down).sum(&[0, 1])).sqrt()
    })(&data);
    // Every model of an ensemble on every example.
    let ensemble = Mlp {
        up: graph.weight("ups", DType::F32, [models, 8, 16]),
        down: graph.weight("downs", DType::F32, [models, 16, 1]),
    };
    let losses = vmap(|m: &Mlp| vmap(|(x, y): &(Tensor, Tensor)| m.loss(x, y))(&data))(&ensemble);
    let module = graph.finish(&[&norms, &losses])?;

    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let inputs: Vec<Array> = module
        .entry()?
        .params
        .iter()
        .map(|p| {
            let shape: Vec<usize> = p.ty.shape.iter().filter_map(|d| usize::try_from(d.as_const()?).ok()).collect();
            Array::from_f32(&shape, &(0..shape.iter().product()).map(|_| number()).collect::<Vec<f32>>())
        })
        .collect::<Result<_, _>>()?;
    let results = compile(&module, &Options::host()?)?.run(&inputs, &Bindings::new())?;
    println!("norms of the gradients of {examples} examples: {:?}", results[0].to_f32().unwrap_or_default());
    for (i, row) in results[1].to_f32().unwrap_or_default().chunks(examples as usize).enumerate() {
        println!("model {i}: losses {row:?}");
    }
    Ok(())
}
