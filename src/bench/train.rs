//! A training step of a GPT as one program: forward, gradients, AdamW, with donated weights and moments.

use super::machine::peak_rss_mb;
use super::numpy::NumpyRandom;
use super::{More, Row, Setup, digits, giga, measure, row};
use crate::compile::compile;
use crate::optim::{AdamW, Recipe, Schedule, State, Weight, train_step};
use std::time::{Duration, Instant};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::mixed::Policy;

const LAYERS: usize = 6;
const WIDTH: usize = 384;
const HEADS: i64 = 6;
const VOCABULARY: usize = 65;
const BATCH: usize = 8;
const TOKENS: usize = 256;
const EPSILON: f64 = 1e-5;

const RATE: f64 = 1e-3;
const ADAMW: AdamW = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, decay: 0.1 };

/// Measures steps on the same batch, one after the other. `check` is the loss after two steps. The time to the first result is that
/// of making the graph, compiling it and the first step. With a policy the products are in its dtype.
///
/// Errors: `out-of-memory`; those of the compiler.
pub fn train(setup: &Setup, mixed: Option<&Policy>) -> Result<Row, Diagnostic> {
    let weights = weights()?;
    let mut random = NumpyRandom::new(1);
    let mut tokens = || Array::from_i64(&[BATCH, TOKENS], &random.integers(0, VOCABULARY as i64, BATCH * TOKENS));
    let data = [tokens()?, tokens()?];
    let start = Instant::now();
    let mut code = compile(&step(mixed)?, &setup.options)?;
    if setup.profile {
        code.enable_profile();
    }
    let data = [code.share(&data[0])?, code.share(&data[1])?];
    // The number of the step, weights, moments.
    let mut state = vec![code.zeroed_param(data.len(), &Bindings::new())?];
    for w in &weights {
        state.push(code.copy_in(w)?);
    }
    for moment in data.len() + state.len()..code.program().params.len() {
        state.push(code.zeroed_param(moment, &Bindings::new())?);
    }
    let mut run = || -> Result<f64, Diagnostic> {
        let mut inputs = data.to_vec();
        inputs.append(&mut state);
        let mut results = code.run_buffers(&inputs, &Bindings::new())?;
        let loss = results.pop().and_then(|b| b.bytes(4)).ok_or_else(|| Diagnostic::bug("a step without a loss"))?;
        state = results;
        let bytes: [u8; 4] = loss[..].try_into().map_err(|_| Diagnostic::bug("a loss of other than four bytes"))?;
        Ok(f64::from(f32::from_le_bytes(bytes)))
    };
    run()?;
    let first = start.elapsed().as_secs_f64();
    run()?;
    let check = run()?;
    let times = measure(Duration::from_secs(5), || run().map(drop))?;
    if setup.profile {
        code.profile().iter().for_each(|p| crate::cli::note(&p.to_string()));
    }
    let per_token = 2 * (12 * LAYERS * WIDTH * WIDTH + WIDTH * VOCABULARY) + 4 * LAYERS * TOKENS * WIDTH;
    let more = More {
        dtype: mixed.map(|policy| policy.compute().to_string()),
        gflops: giga((3 * BATCH * TOKENS * per_token) as f64, times.median),
        first_result_s: Some(digits(first, 3)),
        peak_rss_mb: peak_rss_mb(),
        check: Some(digits(check, 6)),
        ..More::default()
    };
    Ok(row("train_step", format!("{LAYERS}x{WIDTH} {BATCH}x{TOKENS}"), &times, setup, more))
}

/// Names and shapes of the weights, in the order in which the peers' script draws them.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut out = vec![("wte".into(), vec![VOCABULARY, WIDTH]), ("wpe".into(), vec![TOKENS, WIDTH])];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| out.push((format!("{layer}.{name}"), shape.to_vec()));
        for (name, to) in
            [("ln1", None), ("qkv", Some(3 * WIDTH)), ("out", Some(WIDTH)), ("ln2", None), ("up", Some(4 * WIDTH))]
        {
            match to {
                None => ["g", "b"].iter().for_each(|p| add(&format!("{name}_{p}"), &[WIDTH])),
                Some(to) => {
                    add(&format!("{name}_w"), &[WIDTH, to]);
                    add(&format!("{name}_b"), &[to]);
                }
            }
        }
        add("down_w", &[4 * WIDTH, WIDTH]);
        add("down_b", &[WIDTH]);
    }
    out.extend([("lnf_g".into(), vec![WIDTH]), ("lnf_b".into(), vec![WIDTH])]);
    out
}

/// Normal numbers times 0.02, ones and zeros.
fn weights() -> Result<Vec<Array>, Diagnostic> {
    let mut random = NumpyRandom::new(0);
    let one = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let data = match () {
            () if name.ends_with("_g") => vec![1.0; count],
            () if name.ends_with("_b") => vec![0.0; count],
            () => random.normal(count).iter().map(|x| x * 0.02).collect(),
        };
        Array::from_f32(&shape, &data)
    };
    shapes().into_iter().map(one).collect()
}

/// The step. Parameters: tokens and targets, the state. Results: the new state, the loss before the step.
fn step(mixed: Option<&Policy>) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let batch = ["ids", "targets"].map(|name| g.input(name, DType::I64, (BATCH, TOKENS)));
    let weight = |(name, shape): (String, Vec<usize>)| Weight {
        decays: true,
        ..Weight::new(name, Type::new(DType::F32, shape))
    };
    let weights: Vec<Weight> = shapes().into_iter().map(weight).collect();
    let recipe = Recipe { schedule: Schedule::Constant { peak: RATE, warmup: 0 }, mixed, ..Recipe::of(&ADAMW) };
    let state = State::declare(&g, &recipe, &weights);
    let loss = |w: &[Tensor], _: &[Tensor], [ids, targets]: &[Tensor; 2]| match logits(ids, w) {
        Ok(logits) => logits.cross_entropy(targets),
        Err(error) => g.fail(error),
    };
    let stepped = train_step(&g, &recipe, &weights, &state, &[], &batch, loss);
    let results = [stepped.state.list(), vec![stepped.loss]].concat();
    g.finish(&results.iter().collect::<Vec<_>>())
}

fn logits(ids: &Tensor, weights: &[Tensor]) -> Result<Tensor, Diagnostic> {
    let mut rest = weights.iter();
    let mut next = || rest.next().ok_or_else(|| Diagnostic::bug("a model with too few weights"));
    let (words, positions) = (next()?, next()?);
    let norm = |x: &Tensor, w: &Tensor, b: &Tensor| x.layer_norm(Some(w), Some(b), EPSILON);
    let mut x = words.embedding(ids) + positions;
    for _ in 0..LAYERS {
        let all = norm(&x, next()?, next()?).matmul(next()?) + next()?;
        let part =
            |i: usize| all.slice(-1, i * WIDTH, (i + 1) * WIDTH).rearrange("b s (h d) -> b h s d", &[("h", HEADS)]);
        let causal = Attention { causal: true, ..Attention::default() };
        let attended = part(0).attention(&part(1), &part(2), causal).rearrange("b h s d -> b s (h d)", &[]);
        x = x + (attended.matmul(next()?) + next()?);
        let inner = (norm(&x, next()?, next()?).matmul(next()?) + next()?).gelu_tanh();
        x = x + (inner.matmul(next()?) + next()?);
    }
    Ok(norm(&x, next()?, next()?).linear(words))
}
