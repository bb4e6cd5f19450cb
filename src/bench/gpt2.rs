//! GPT-2 small with random weights: logits of all tokens at batch 1, without caches.

use super::machine::peak_rss_mb;
use super::numpy::NumpyRandom;
use super::{More, Prepared, Row, Setup, digits, giga, mean_size, room, row};
use std::time::{Duration, Instant};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;

const LAYERS: usize = 12;
const WIDTH: usize = 768;
const HEADS: i64 = 12;
const VOCABULARY: usize = 50257;
const CONTEXT: usize = 1024;
const EPSILON: f64 = 1e-5;

/// Measures prompts of 128 and 512 tokens, and hands each row over as it comes. The time to the first result is that of
/// making the graph, compiling it, packing the weights and the first run.
///
/// Errors: `out-of-memory`; those of the compiler and of `show`.
pub fn gpt2(setup: &Setup, mut show: impl FnMut(Row) -> Result<(), Diagnostic>) -> Result<(), Diagnostic> {
    // Weights as they are and as panels.
    room(8 * WIDTH * (VOCABULARY + CONTEXT + 12 * LAYERS * WIDTH), "weights of GPT-2")?;
    let weights = weights()?;
    for tokens in [128, 512] {
        let ids = Array::from_i64(&[1, tokens], &NumpyRandom::new(1).integers(0, VOCABULARY as i64, tokens))?;
        let inputs: Vec<Array> = [ids].into_iter().chain(weights.iter().cloned()).collect();
        let start = Instant::now();
        let mut prepared = Prepared::new(&forward(tokens)?, &inputs, setup)?;
        let first = start.elapsed().as_secs_f64();
        let check = mean_size(prepared.result()?);
        let times = prepared.measure(Duration::from_secs(3))?;
        let per_token = 2 * (12 * LAYERS * WIDTH * WIDTH + WIDTH * VOCABULARY) + 4 * LAYERS * tokens * WIDTH;
        let more = More {
            gflops: giga((tokens * per_token) as f64, times.median),
            first_result_s: Some(digits(first, 3)),
            peak_rss_mb: peak_rss_mb(),
            check,
            ..More::default()
        };
        show(row("gpt2_forward", format!("1x{tokens}"), &times, setup, more))?;
    }
    Ok(())
}

/// The model, its weights declared in the order of [`weights`].
fn forward(tokens: usize) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    g.function("block", |g| {
        let x = g.input("x", DType::F32, (1, tokens, WIDTH));
        [block(g, &x)]
    });
    let ids = g.input("ids", DType::I64, (1, tokens));
    let words = g.weight("wte", DType::F32, (VOCABULARY, WIDTH));
    let positions = g.weight("wpe", DType::F32, (CONTEXT, WIDTH));
    let mut x = words.embedding(&ids) + positions.slice(0, 0, tokens);
    for layer in 0..LAYERS {
        [x] = g.scope(&format!("h.{layer}"), || g.call("block", &[&x]));
    }
    let x = norm(&g, &x, "lnf");
    g.finish(&[&x.linear(&words)])
}

/// One block alone.
pub(super) fn one_block(tokens: usize) -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, (1, tokens, WIDTH));
    g.finish(&[&block(&g, &x)])
}

fn norm(g: &Graph, x: &Tensor, name: &str) -> Tensor {
    let weight = |what: &str| g.weight(&format!("{name}_{what}"), DType::F32, [WIDTH]);
    let (scale, shift) = (weight("g"), weight("b"));
    x.layer_norm(Some(&scale), Some(&shift), EPSILON)
}

fn dense(g: &Graph, x: &Tensor, name: &str, from: usize, to: usize) -> Tensor {
    let matrix = g.weight(&format!("{name}_w"), DType::F32, (from, to));
    let shift = g.weight(&format!("{name}_b"), DType::F32, [to]);
    x.matmul(&matrix) + shift
}

fn block(g: &Graph, x: &Tensor) -> Tensor {
    let all = dense(g, &norm(g, x, "ln1"), "qkv", WIDTH, 3 * WIDTH);
    let part = |i: usize| all.slice(-1, i * WIDTH, (i + 1) * WIDTH).rearrange("b s (h d) -> b h s d", &[("h", HEADS)]);
    let causal = Attention { causal: true, ..Attention::default() };
    let attended = part(0).attention(&part(1), &part(2), causal).rearrange("b h s d -> b s (h d)", &[]);
    let x = x + dense(g, &attended, "out", WIDTH, WIDTH);
    let inner = dense(g, &norm(g, &x, "ln2"), "up", WIDTH, 4 * WIDTH).gelu_tanh();
    x + dense(g, &inner, "down", 4 * WIDTH, WIDTH)
}

/// Normal numbers times 0.02, ones and zeros, in the order in which the model declares them.
fn weights() -> Result<Vec<Array>, Diagnostic> {
    let mut random = NumpyRandom::new(0);
    let mut normal = |shape: &[usize]| {
        let mut data = random.normal(shape.iter().product());
        data.iter_mut().for_each(|x| *x *= 0.02);
        Array::from_f32(shape, &data)
    };
    let same = |n: usize, value: f32| Array::from_f32(&[n], &vec![value; n]);
    let mut out = vec![normal(&[VOCABULARY, WIDTH])?, normal(&[CONTEXT, WIDTH])?];
    for _ in 0..LAYERS {
        out.extend([same(WIDTH, 1.0)?, same(WIDTH, 0.0)?]);
        out.extend([normal(&[WIDTH, 3 * WIDTH])?, same(3 * WIDTH, 0.0)?]);
        out.extend([normal(&[WIDTH, WIDTH])?, same(WIDTH, 0.0)?]);
        out.extend([same(WIDTH, 1.0)?, same(WIDTH, 0.0)?]);
        out.extend([normal(&[WIDTH, 4 * WIDTH])?, same(4 * WIDTH, 0.0)?]);
        out.extend([normal(&[4 * WIDTH, WIDTH])?, same(WIDTH, 0.0)?]);
    }
    out.extend([same(WIDTH, 1.0)?, same(WIDTH, 0.0)?]);
    Ok(out)
}
