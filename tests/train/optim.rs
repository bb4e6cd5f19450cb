//! Optimisers, schedules, clipping, accumulation and averages against torch's, in f64 (`tests/data/optim.py`).

use serde::Deserialize;
use std::collections::BTreeMap;
use tilewright::compile::{self, compile};
use tilewright::optim::{Adam, AdamW, Muon, Optimiser, Recipe, Schedule, Sgd, State, Weight, train_step};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType, Type};

#[derive(Deserialize)]
struct Reference {
    x: Vec<f64>,
    y: Vec<f64>,
    w0: Vec<f64>,
    b0: Vec<f64>,
    runs: BTreeMap<String, Run>,
    schedules: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Run {
    w: Vec<f64>,
    b: Vec<f64>,
    loss: Vec<f64>,
    norm: Vec<f64>,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn weights(dtype: DType) -> [Weight; 2] {
    [Weight::new("w", Type::new(dtype, [4, 3])), Weight::new("b", Type::new(dtype, [3]))]
}

/// `mean((tanh(x w + b) - y)^2)` of a batch of 6, or of the parts of one.
fn step(recipe: &Recipe, dtype: DType) -> Module {
    let g = Graph::new("main");
    let parts = recipe.parts as i64;
    let shape = |columns: i64| if parts > 1 { vec![parts, 6 / parts, columns] } else { vec![6, columns] };
    let batch = (g.input("x", dtype, shape(4)), g.input("y", dtype, shape(3)));
    let weights = weights(dtype);
    let state = State::declare(&g, recipe, &weights);
    let loss = |w: &[Tensor], _: &[Tensor], (x, y): &(Tensor, Tensor)| {
        let error = (x.matmul(&w[0]) + &w[1]).tanh() - y;
        (&error * &error).mean(&[0, 1])
    };
    train_step(&g, recipe, &weights, &state, &[], &batch, loss).finish(&g).unwrap_or_else(|d| panic!("{d}"))
}

fn array(dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    match dtype {
        DType::F64 => Array::from_f64(shape, values).unwrap(),
        _f32 => Array::from_f32(shape, &values.iter().map(|x| *x as f32).collect::<Vec<_>>()).unwrap(),
    }
}

fn zeros(ty: &Type) -> Array {
    let shape = ty.concrete(&Bindings::new()).unwrap();
    let bytes = ty.dtype.bytes(shape.iter().product()).unwrap();
    Array::new(ty.dtype, &shape, Bytes::new(vec![0u8; bytes])).unwrap()
}

/// The state after six steps, and the metrics of each.
fn train(recipe: &Recipe, dtype: DType, run: impl Fn(&[Array]) -> Vec<Array>) -> (Vec<Vec<f64>>, Vec<[f64; 3]>) {
    let r = reference();
    let parts = recipe.parts;
    let shape = |columns: usize| if parts > 1 { vec![parts, 6 / parts, columns] } else { vec![6, columns] };
    let batch = [array(dtype, &shape(4), &r.x), array(dtype, &shape(3), &r.y)];
    let named = recipe.state(&weights(dtype));
    let mut state: Vec<Array> = named
        .iter()
        .map(|(name, ty)| match name.as_str() {
            "w.w" | "average.w" => array(dtype, &[4, 3], &r.w0),
            "w.b" | "average.b" => array(dtype, &[3], &r.b0),
            _other => zeros(ty),
        })
        .collect();
    let mut metrics = Vec::new();
    for _ in 0..6 {
        let inputs: Vec<Array> = batch.iter().chain(&state).cloned().collect();
        state = run(&inputs);
        let last: Vec<f64> = state.split_off(named.len()).iter().map(|a| a.to_f64().unwrap()[0]).collect();
        metrics.push([last[0], last[1], last[2]]);
    }
    (state.iter().map(|a| a.to_f64().unwrap()).collect(), metrics)
}

fn interpreted(recipe: &Recipe) -> (Vec<Vec<f64>>, Vec<[f64; 3]>) {
    let module = step(recipe, DType::F64);
    tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
    train(recipe, DType::F64, |inputs| run(&module, "main", inputs, &Bindings::new(), Mode::Meaning).unwrap())
}

#[track_caller]
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{i}]: found {a}, expected {b}");
    }
}

#[track_caller]
fn agrees(name: &str, (state, metrics): (Vec<Vec<f64>>, Vec<[f64; 3]>), tolerance: f64) {
    let expected = &reference().runs[name];
    let column = |i: usize| metrics.iter().map(|m| m[i]).collect::<Vec<f64>>();
    assert_eq!(state[0], [6.0]);
    close(&format!("{name}: loss"), &column(0), &expected.loss, tolerance);
    close(&format!("{name}: norm"), &column(1), &expected.norm, tolerance);
    close(&format!("{name}: w"), &state[1], &expected.w, tolerance);
    close(&format!("{name}: b"), &state[2], &expected.b, tolerance);
}

const ADAMW: AdamW = AdamW { betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.1 };

fn at(optimiser: &dyn Optimiser, peak: f64) -> Recipe<'_> {
    Recipe { schedule: Schedule::Constant { peak, warmup: 0 }, ..Recipe::of(optimiser) }
}

#[test]
fn optimisers_are_torchs() {
    let momentum = Sgd { momentum: 0.9, nesterov: false, decay: 0.05 };
    let adam = Adam { betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.05 };
    let muon = Muon { decay: 0.1, inputs_first: true, other_rate: 0.2, ..Muon::default() };
    let all: [(&str, &dyn Optimiser, f64); 6] = [
        ("sgd", &Sgd::default(), 0.1),
        ("momentum", &momentum, 0.1),
        ("nesterov", &Sgd { nesterov: true, ..momentum }, 0.1),
        ("adam", &adam, 0.05),
        ("adamw", &ADAMW, 0.05),
        ("muon", &muon, 0.05),
    ];
    for (name, optimiser, peak) in all {
        agrees(name, interpreted(&at(optimiser, peak)), 1e-12);
    }
}

#[test]
fn clipping_is_torchs() {
    agrees("adamw_clipped", interpreted(&Recipe { clip: Some(0.2), ..at(&ADAMW, 0.05) }), 1e-12);
}

#[test]
fn parts_of_a_batch_give_its_gradient() {
    for parts in [2, 3] {
        agrees("adamw_clipped", interpreted(&Recipe { clip: Some(0.2), parts, ..at(&ADAMW, 0.05) }), 1e-12);
    }
}

#[test]
fn a_step_is_machine_code() {
    for parts in [1, 2] {
        let recipe = Recipe { clip: Some(0.2), parts, average: Some(0.9), ..at(&ADAMW, 0.05) };
        let code = compile(&step(&recipe, DType::F32), &compile::Options::host().unwrap()).unwrap();
        let run = |inputs: &[Array]| code.run(inputs, &Bindings::new()).unwrap();
        agrees("adamw_clipped", train(&recipe, DType::F32, run), 1e-5);
    }
}

#[test]
fn averages_follow_the_weights() {
    let recipe = Recipe { average: Some(0.75), ..at(&ADAMW, 0.05) };
    let module = step(&recipe, DType::F64);
    let mut expected = reference().w0;
    let follow = |inputs: &[Array]| run(&module, "main", inputs, &Bindings::new(), Mode::Meaning).unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    let (state, _) = train(&recipe, DType::F64, |inputs| {
        let results = follow(inputs);
        seen.borrow_mut().push(results[1].to_f64().unwrap());
        results
    });
    for w in seen.borrow().iter() {
        expected.iter_mut().zip(w).for_each(|(a, w)| *a = 0.75 * *a + 0.25 * w);
    }
    let at = recipe.state(&weights(DType::F64)).iter().position(|(name, _)| name == "average.w").unwrap();
    close("average", &state[at], &expected, 1e-12);
}

#[test]
fn schedules_are_torchs() {
    let (peak, least, warmup, steps, decay) = (0.01, 0.001, 4, 20, 6);
    for (name, schedule) in [
        ("constant", Schedule::Constant { peak, warmup }),
        ("cosine", Schedule::Cosine { peak, least, warmup, steps }),
        ("linear", Schedule::Linear { peak, least, warmup, steps }),
        ("wsd", Schedule::Wsd { peak, least, warmup, decay, steps }),
    ] {
        let g = Graph::new("main");
        let rate = schedule.rate(&g.input("step", DType::I64, ()), DType::F64);
        let module = g.finish(&[&rate]).unwrap();
        let rate = |step: i64| {
            let input = Array::from_i64(&[], &[step]).unwrap();
            run(&module, "main", &[input], &Bindings::new(), Mode::Meaning).unwrap()[0].to_f64().unwrap()[0]
        };
        let found: Vec<f64> = (0..20).map(rate).collect();
        close(name, &found, &reference().schedules[name], 1e-15);
        let end = if name == "constant" { peak } else { least };
        close(name, &[rate(20), rate(1000)], &[end, end], 1e-15);
    }
}

#[test]
fn mistakes_are_told() {
    let g = Graph::new("main");
    let recipe = at(&ADAMW, 0.1);
    let weights = [Weight::new("w", Type::new(DType::F32, [3]))];
    let state = State::declare(&g, &recipe, &weights);
    let nothing = Vec::<Tensor>::new();
    let loss = |w: &[Tensor], _: &[Tensor], _: &Vec<Tensor>| w[0].clone();
    let error = train_step(&g, &recipe, &weights, &state, &[], &nothing, loss).finish(&g).unwrap_err();
    assert_eq!(error.code, "not-scalar", "{error}");
}
