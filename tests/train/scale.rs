//! Mixed precision and dynamic loss scaling of whole steps: the rule against `torch.amp.GradScaler` (`tests/data/loss_scale.py`),
//! and what no rule can be seen by: that a step which is skipped leaves every bit as it was.

use serde::Deserialize;
use tilewright::compile::{Options, compile};
use tilewright::optim::{AdamW, LossScale, Recipe, Schedule, Sgd, State, Weight, train_step};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::mixed::Policy;

#[derive(Deserialize)]
struct Reference {
    x: Vec<f64>,
    y: Vec<f64>,
    w0: Vec<f64>,
    b0: Vec<f64>,
    /// What each step multiplies the prediction by.
    factors: Vec<f64>,
    /// Before each step.
    scale: Vec<f64>,
    /// After each step.
    good: Vec<f64>,
    w: Vec<Vec<f64>>,
    b: Vec<Vec<f64>>,
    /// First moments of w.
    m: Vec<Vec<f64>>,
    updates: Vec<f64>,
    /// The scale after all.
    last: f64,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/loss_scale.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const ADAMW: AdamW = AdamW { betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.1 };
const RULE: LossScale = LossScale { first: 1024.0, growth: 2.0, backoff: 0.5, interval: 3 };

fn weights(dtype: DType) -> [Weight; 2] {
    [Weight::new("w", Type::new(dtype, [4, 3])), Weight::new("b", Type::new(dtype, [3]))]
}

/// `mean((tanh(x w + b) factor - y)^2)`.
fn step(recipe: &Recipe, dtype: DType) -> Module {
    let g = Graph::new("main");
    let lead: Vec<i64> = if recipe.parts > 1 { vec![recipe.parts as i64] } else { Vec::new() };
    let rows = 6 / recipe.parts as i64;
    let shape = |more: &[i64]| [&lead[..], more].concat();
    let batch = (g.input("x", dtype, shape(&[rows, 4])), g.input("y", dtype, shape(&[rows, 3])), {
        g.input("factor", dtype, shape(&[]))
    });
    let weights = weights(dtype);
    let state = State::declare(&g, recipe, &weights);
    let loss = |w: &[Tensor], _: &[Tensor], (x, y, factor): &(Tensor, Tensor, Tensor)| {
        let error = (x.matmul(&w[0]) + &w[1]).tanh() * factor - y;
        (&error * &error).mean(&[0, 1])
    };
    train_step(&g, recipe, &weights, &state, &[], &batch, loss).finish(&g).unwrap_or_else(|d| panic!("{d}"))
}

fn array(dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    match dtype {
        DType::F64 => Array::from_f64(shape, values).unwrap(),
        DType::I64 => Array::from_i64(shape, &values.iter().map(|x| *x as i64).collect::<Vec<_>>()).unwrap(),
        _f32 => Array::from_f32(shape, &values.iter().map(|x| *x as f32).collect::<Vec<_>>()).unwrap(),
    }
}

/// The state at first, by name.
fn first(recipe: &Recipe, dtype: DType) -> Vec<Array> {
    let r = reference();
    let one = |(name, ty): (String, Type)| {
        let shape = ty.concrete(&Bindings::new()).unwrap();
        let zeros = vec![0.0; shape.iter().product()];
        let values = match name.as_str() {
            "w.w" | "average.w" => &r.w0,
            "w.b" | "average.b" => &r.b0,
            LossScale::NAME => &vec![RULE.first],
            _other => &zeros,
        };
        array(ty.dtype, &shape, values)
    };
    recipe.state(&weights(dtype)).into_iter().map(one).collect()
}

/// The states after each step, and the losses.
fn train(recipe: &Recipe, dtype: DType, run: impl Fn(&[Array]) -> Vec<Array>) -> (Vec<Vec<Array>>, Vec<f64>) {
    let r = reference();
    let parts = recipe.parts;
    let lead: &[usize] = if parts > 1 { &[parts] } else { &[] };
    let shape = |columns: usize| [lead, &[6 / parts, columns]].concat();
    let (x, y) = (array(dtype, &shape(4), &r.x), array(dtype, &shape(3), &r.y));
    let (mut state, mut states, mut losses) = (first(recipe, dtype), Vec::new(), Vec::new());
    for factor in &r.factors {
        let factor = array(dtype, lead, &vec![*factor; parts]);
        let mut results = run(&[&[x.clone(), y.clone(), factor], &state[..]].concat());
        let metrics = results.split_off(state.len());
        losses.push(metrics[0].to_f64().unwrap()[0]);
        state = results;
        states.push(state.clone());
    }
    (states, losses)
}

#[track_caller]
fn near(what: &str, found: &Array, expected: &[f64], tolerance: f64) {
    let found = found.to_f64().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{i}]: found {a}, expected {b}");
    }
}

fn recipe(parts: usize) -> Recipe<'static> {
    let schedule = Schedule::Constant { peak: 0.05, warmup: 0 };
    Recipe { schedule, parts, scale: Some(RULE), ..Recipe::of(&ADAMW) }
}

#[track_caller]
fn follows_torch(recipe: &Recipe, states: &[Vec<Array>], tolerance: f64) {
    let r = reference();
    let names: Vec<String> = recipe.state(&weights(DType::F64)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["step", "w.w", "w.b", "m.w", "v.w", "m.b", "v.b", LossScale::NAME, LossScale::GOOD]);
    for (i, state) in states.iter().enumerate() {
        let [step, w, b, m, _, _, _, scale, good] = &state[..] else { panic!("{} tensors", state.len()) };
        near(&format!("step {i}: updates"), step, &[r.updates[i]], 0.0);
        near(&format!("step {i}: w"), w, &r.w[i], tolerance);
        near(&format!("step {i}: b"), b, &r.b[i], tolerance);
        near(&format!("step {i}: m"), m, &r.m[i], tolerance);
        near(&format!("step {i}: scale"), scale, &[*r.scale.get(i + 1).unwrap_or(&r.last)], 0.0);
        near(&format!("step {i}: good"), good, &[r.good[i]], 0.0);
    }
}

#[test]
fn the_scale_moves_as_torchs_does() {
    for parts in [1, 3] {
        let recipe = recipe(parts);
        let module = step(&recipe, DType::F64);
        tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
        let interpreted = |inputs: &[Array]| run(&module, "main", inputs, &Bindings::new(), Mode::Meaning).unwrap();
        let (states, losses) = train(&recipe, DType::F64, interpreted);
        follows_torch(&recipe, &states, 1e-12);
        // The loss is that of the step, whatever it is scaled by.
        let plain = Recipe { scale: None, ..recipe };
        let module = step(&plain, DType::F64);
        let interpreted = |inputs: &[Array]| run(&module, "main", inputs, &Bindings::new(), Mode::Meaning).unwrap();
        let first = train(&plain, DType::F64, interpreted).1[0];
        assert_eq!(losses[0], first);
    }
}

#[test]
fn machine_code_skips_the_same_steps() {
    for opt_level in [1, 2] {
        let recipe = recipe(1);
        let code = compile(&step(&recipe, DType::F32), &Options { opt_level, threads: 1, ..Options::host().unwrap() });
        let code = code.unwrap_or_else(|d| panic!("{d}"));
        let (states, _) = train(&recipe, DType::F32, |inputs| code.run(inputs, &Bindings::new()).unwrap());
        follows_torch(&recipe, &states, 1e-5);
        // Steps 4, 5 and 10 overflow: but for the scale nothing moves, not by a bit.
        for i in [4, 5, 10] {
            assert_eq!(states[i][..7], states[i - 1][..7], "level {opt_level}, step {i}");
        }
    }
}

/// Gradients that are too small for f16 come through with a scale, and the update is that of f32; without they are 0.
#[test]
fn small_gradients_pass_through_f16() {
    let policy = Policy::new(DType::F16).unwrap();
    let sgd = Sgd::default();
    let schedule = Schedule::Constant { peak: 1.0, warmup: 0 };
    let moved = |mixed: Option<&Policy>, scale: Option<LossScale>, small: f64| {
        let recipe = Recipe { schedule, mixed, scale, ..Recipe::of(&sgd) };
        let g = Graph::new("main");
        let x = g.input("x", DType::F32, [4, 4]);
        let weights = [Weight::new("w", Type::new(DType::F32, [4, 4]))];
        let state = State::declare(&g, &recipe, &weights);
        let loss = |w: &[Tensor], _: &[Tensor], x: &Tensor| x.matmul(&w[0]).sum(&[0, 1]) * small;
        let module = train_step(&g, &recipe, &weights, &state, &[], &x, loss).finish(&g).unwrap();
        let ones = Array::from_f32(&[4, 4], &[1.0; 16]).unwrap();
        let zeros = Array::from_f32(&[4, 4], &[0.0; 16]).unwrap();
        let mut inputs = vec![ones, Array::from_i64(&[], &[0]).unwrap(), zeros];
        if let Some(rule) = scale {
            let good = Array::from_i64(&[], &[0]).unwrap();
            inputs.extend([Array::from_f32(&[], &[rule.first as f32]).unwrap(), good]);
        }
        let results = run(&module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap();
        results[1].to_f64().unwrap()[0]
    };
    // A quarter of the least f16.
    let small = 2f64.powi(-26);
    assert_eq!(moved(None, None, small), -4.0 * small);
    assert_eq!(moved(Some(&policy), None, small), 0.0);
    assert_eq!(moved(Some(&policy), Some(LossScale::default()), small), -4.0 * small);
    // And what the scale makes too large is skipped.
    assert_eq!(moved(Some(&policy), Some(LossScale::default()), 1.0), 0.0);
    assert_eq!(moved(Some(&policy), Some(LossScale { first: 1024.0, ..LossScale::default() }), 1.0), -4.0);
}

/// A loss of f16 that is finite, times a scale, is no f16 any more; its gradients are.
#[test]
fn a_loss_in_f16_may_be_large() {
    let sgd = Sgd::default();
    let schedule = Schedule::Constant { peak: 1.0, warmup: 0 };
    let scale = LossScale { first: 4096.0, ..LossScale::default() };
    for parts in [1, 2] {
        let recipe = Recipe { schedule, parts, scale: Some(scale), ..Recipe::of(&sgd) };
        let g = Graph::new("main");
        let shape: Vec<i64> = if parts > 1 { vec![parts as i64, 4] } else { vec![4] };
        let x = g.input("x", DType::F32, shape.clone());
        let weights = [Weight::new("w", Type::new(DType::F32, [4]))];
        let state = State::declare(&g, &recipe, &weights);
        let loss = |w: &[Tensor], _: &[Tensor], x: &Tensor| (x * &w[0]).cast(DType::F16).sum(&[0]);
        let module = train_step(&g, &recipe, &weights, &state, &[], &x, loss).finish(&g).unwrap();
        let ones =
            Array::from_f32(&shape.iter().map(|n| *n as usize).collect::<Vec<_>>(), &vec![1.0; 4 * parts]).unwrap();
        let hundreds = Array::from_f32(&[4], &[100.0; 4]).unwrap();
        let [step, good] = [0, 0].map(|n| Array::from_i64(&[], &[n]).unwrap());
        let inputs = [ones, step, hundreds, Array::from_f32(&[], &[4096.0]).unwrap(), good];
        let results = run(&module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap();
        let found: Vec<f64> = results.iter().map(|r| r.to_f64().unwrap_or_default()[0]).collect();
        // The step, the weight, the scale, good steps; the loss, the norm, the rate.
        assert_eq!(found, [1.0, 99.0, 4096.0, 1.0, 400.0, 2.0, 1.0], "{parts} parts");
    }
}
