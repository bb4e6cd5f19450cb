//! What DSL programs compute, against loops written out: einsum, einops, attention, composites, a model with caches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use std::collections::BTreeMap;
use tilewright::formats::Gguf;
use tilewright::models::gpt2::Gpt2Names;
use tilewright::models::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, bind_weights, gpt2, llama, rope_tables};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Attention, Graph, RopeLayout, Tensor, einsum};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::DType::{F32, F64};
use tilewright_ir::types::{Bindings, Symbol};

/// Reproducible numbers in -1..1.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut random = Random(seed);
    (0..count).map(|_| random.unit() * 2.0 - 1.0).collect()
}

fn array(seed: u64, shape: &[usize]) -> Array {
    Array::from_f64(shape, &noise(seed, shape.iter().product())).unwrap()
}

/// The result of `build` on f64 inputs of the given values.
fn compute(inputs: &[&Array], build: impl FnOnce(&Graph, &[&Tensor]) -> Tensor) -> (Vec<usize>, Vec<f64>) {
    let g = Graph::new("main");
    let input = |(i, a): (usize, &&Array)| g.input(&format!("x{i}"), a.dtype(), a.shape().to_vec());
    let tensors: Vec<Tensor> = inputs.iter().enumerate().map(input).collect();
    let result = build(&g, &tensors.iter().collect::<Vec<_>>());
    let module = g.finish(&[&result]).unwrap_or_else(|d| panic!("{d}"));
    tilewright_ir::verify::verify(&module).unwrap_or_else(|d| panic!("{d}"));
    let inputs: Vec<Array> = inputs.iter().copied().cloned().collect();
    let results = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap_or_else(|d| panic!("{d}"));
    (results[0].shape().to_vec(), results[0].to_f64().unwrap())
}

#[track_caller]
fn close(found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len());
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "element {i}: found {a}, expected {b}");
    }
}

/// Einsum by its definition: for every assignment of positions to letters, the product of the operands' elements is
/// added to the result's element.
fn naive_einsum(inputs: &[(&str, &Array)], output: &str) -> Vec<f64> {
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (letters, a) in inputs {
        sizes.extend(letters.chars().zip(a.shape().iter().copied()));
    }
    let letters: Vec<char> = sizes.keys().copied().collect();
    let index = |term: &str, at: &BTreeMap<char, usize>| term.chars().fold(0, |n, c| n * sizes[&c] + at[&c]);
    let values: Vec<Vec<f64>> = inputs.iter().map(|(_, a)| a.to_f64().unwrap()).collect();
    let mut out = vec![0.0; output.chars().map(|c| sizes[&c]).product()];
    for n in 0..sizes.values().product() {
        let mut rest = n;
        let mut at = BTreeMap::new();
        for &c in letters.iter().rev() {
            at.insert(c, rest % sizes[&c]);
            rest /= sizes[&c];
        }
        let product: f64 = inputs.iter().zip(&values).map(|((term, _), v)| v[index(term, &at)]).product();
        out[index(output, &at)] += product;
    }
    out
}

#[test]
fn einsum_is_its_definition() {
    let size = |c: char| 2 + (c as usize - 'a' as usize) % 3;
    for pattern in [
        "ab,bc->ac",
        "ab,bc->ca",
        "bhqd,bhkd->bhqk",
        "bhqd,bhkd->kbhq",
        "ab,cd->adcb",
        "ab,ab->ba",
        "ab,ab->",
        "abc->cb",
        "aba->ab",
        "aaa->a",
        "aab,bcc->ca",
        "ab,bc,cd,da->",
        "ab,bc,ac->abc",
        "ab,c->b",
        "a,a,a->a",
        "abcd,dc,ce->eba",
    ] {
        let (left, output) = pattern.split_once("->").unwrap();
        let terms: Vec<&str> = left.split(',').collect();
        let shape = |t: &str| t.chars().map(size).collect::<Vec<usize>>();
        let arrays: Vec<Array> = terms.iter().enumerate().map(|(i, t)| array(i as u64 + 1, &shape(t))).collect();
        let inputs: Vec<(&str, &Array)> = terms.iter().copied().zip(&arrays).collect();
        let (found_shape, found) =
            compute(&arrays.iter().collect::<Vec<_>>(), |_, x| einsum(pattern, x).expect("operands"));
        assert_eq!(found_shape, shape(output), "{pattern}");
        close(&found, &naive_einsum(&inputs, output), 1e-12);
    }
}

#[test]
fn einsum_broadcasts_the_ellipsis() {
    let (a, b) = (array(1, &[2, 1, 3, 4]), array(2, &[5, 4, 6]));
    let (shape, found) = compute(&[&a, &b], |_, x| einsum("... i j, ... j k -> ... k i", x).expect("operands"));
    assert_eq!(shape, [2, 5, 6, 3]);
    let a = Array::from_f64(&[2, 3, 4], &a.to_f64().unwrap()).unwrap();
    close(&found, &naive_einsum(&[("aij", &a), ("bjk", &b)], "abki"), 1e-12);
    // The same by matmul.
    let (_, product) = compute(&[&array(1, &[2, 1, 3, 4]), &b], |_, x| x[0].matmul(x[1]).transpose(-1, -2));
    close(&found, &product, 1e-12);
}

#[test]
fn einops_moves_the_right_elements() {
    let x = array(3, &[2, 3, 8]);
    let v = x.to_f64().unwrap();
    let (shape, found) = compute(&[&x], |_, x| x[0].rearrange("b s (h d) -> h (s b) d", &[("h", 4)]));
    assert_eq!(shape, [4, 6, 2]);
    let mut want = Vec::new();
    for h in 0..4 {
        for s in 0..3 {
            for b in 0..2 {
                want.extend((0..2).map(|d| v[b * 24 + s * 8 + h * 2 + d]));
            }
        }
    }
    close(&found, &want, 0.0);
    let (shape, found) = compute(&[&x], |_, x| x[0].reduce("b s (d two) -> d b", ReduceKind::Max, &[("two", 2)]));
    assert_eq!(shape, [4, 2]);
    let of = |d: usize, b: usize| (0..6).map(|i| v[b * 24 + (i / 2) * 8 + d * 2 + i % 2]).fold(f64::MIN, f64::max);
    close(&found, &(0..8).map(|i| of(i / 2, i % 2)).collect::<Vec<_>>(), 0.0);
    let (shape, found) = compute(&[&x], |_, x| x[0].repeat("b s d -> r d (b k) s", &[("r", 2), ("k", 3)]));
    assert_eq!(shape, [2, 8, 6, 3]);
    // r d b k s
    let at = |i: usize| v[(i / 9 % 2) * 24 + (i % 3) * 8 + i / 18 % 8];
    close(&found, &(0..288).map(at).collect::<Vec<_>>(), 0.0);
}

#[test]
fn attention_is_a_weighted_mean() {
    let (heads, groups, queries, keys, size, values) = (4, 2, 3, 5, 6, 2);
    let q = array(1, &[heads, queries, size]);
    let k = array(2, &[groups, keys, size]);
    let v = array(3, &[groups, keys, values]);
    let (shape, found) =
        compute(&[&q, &k, &v], |_, x| x[0].attention(x[1], x[2], Attention { causal: true, ..Attention::default() }));
    assert_eq!(shape, [heads, queries, values]);
    let (q, k, v) = (q.to_f64().unwrap(), k.to_f64().unwrap(), v.to_f64().unwrap());
    let mut want = Vec::new();
    for h in 0..heads {
        let group = h / (heads / groups);
        for i in 0..queries {
            let score = |j: usize| {
                let dot: f64 =
                    (0..size).map(|d| q[(h * queries + i) * size + d] * k[(group * keys + j) * size + d]).sum();
                (dot / (size as f64).sqrt()).exp()
            };
            // Queries are the last positions.
            let seen = i + keys - queries + 1;
            let total: f64 = (0..seen).map(score).sum();
            let mean = |e: usize| (0..seen).map(|j| score(j) * v[(group * keys + j) * values + e]).sum::<f64>() / total;
            want.extend((0..values).map(mean));
        }
    }
    close(&found, &want, 1e-12);
}

#[test]
fn rope_rotates_pairs() {
    let x = array(4, &[2, 3, 4]);
    let angles = array(5, &[3, 2]);
    let v = x.to_f64().unwrap();
    let angle = angles.to_f64().unwrap();
    for (layout, pair) in [(RopeLayout::Half, [0, 1, 2, 3]), (RopeLayout::Interleaved, [0, 2, 1, 3])] {
        let (_, found) = compute(&[&x, &angles], |_, x| x[0].rope(&x[1].cos(), &x[1].sin(), layout));
        let mut want = vec![0.0; 24];
        for row in 0..6 {
            for i in 0..2 {
                let (a, b) = (row * 4 + pair[i], row * 4 + pair[i + 2]);
                let (sin, cos) = angle[(row % 3) * 2 + i].sin_cos();
                want[a] = v[a] * cos - v[b] * sin;
                want[b] = v[b] * cos + v[a] * sin;
            }
        }
        close(&found, &want, 1e-12);
    }
}

#[test]
fn composites_are_their_formulas() {
    let x = array(6, &[5]);
    let v = x.to_f64().unwrap();
    let each = |op: fn(&Tensor) -> Tensor, want: fn(f64) -> f64| {
        let (_, found) = compute(&[&x], |_, x| op(x[0]));
        close(&found, &v.iter().map(|&x| want(x)).collect::<Vec<_>>(), 1e-12);
    };
    each(Tensor::sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
    each(Tensor::silu, |x| x / (1.0 + (-x).exp()));
    each(Tensor::softplus, |x| (1.0 + x.exp()).ln());
    each(Tensor::relu, |x| x.max(0.0));
    each(Tensor::gelu_tanh, |x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    });
    let mean = v.iter().sum::<f64>() / 5.0;
    let var = |less: f64| v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (5.0 - less);
    close(&compute(&[&x], |_, x| x[0].var(&[0], 1)).1, &[var(1.0)], 1e-12);
    let norm: Vec<f64> = v.iter().map(|x| (x - mean) / (var(0.0) + 1e-3).sqrt()).collect();
    close(&compute(&[&x], |_, x| x[0].layer_norm(None, None, 1e-3)).1, &norm, 1e-12);
    let square = v.iter().map(|x| x * x).sum::<f64>() / 5.0;
    let rms: Vec<f64> = v.iter().map(|x| x * x / (square + 1e-3).sqrt()).collect();
    close(&compute(&[&x], |_, x| x[0].rms_norm(x[0], 1e-3)).1, &rms, 1e-12);
    let sum: f64 = v.iter().map(|x| x.exp()).sum();
    close(&compute(&[&x], |_, x| x[0].softmax(0)).1, &v.iter().map(|x| x.exp() / sum).collect::<Vec<_>>(), 1e-12);
    close(&compute(&[&x], |_, x| x[0].logsumexp(0)).1, &[sum.ln()], 1e-12);
    let log: Vec<f64> = v.iter().map(|x| x - sum.ln()).collect();
    close(&compute(&[&x], |_, x| x[0].log_softmax(-1)).1, &log, 1e-12);
    let empty = |g: &Graph| g.full(F64, [3], f64::NEG_INFINITY).logsumexp(0);
    assert_eq!(compute(&[], |g, _| empty(g)).1, [f64::NEG_INFINITY]);
    let target = Array::from_i64(&[1], &[3]).unwrap();
    let loss = compute(&[&x, &target], |_, x| x[0].unsqueeze(0).cross_entropy(x[1])).1;
    close(&loss, &[-log[3]], 1e-12);
    // Reference values: erf(1) = 0.8427007929497149, so gelu(sqrt 2) = sqrt(2) (1 + erf(1)) / 2.
    let gelu = compute(&[], |g, _| g.scalar(F64, std::f64::consts::SQRT_2).gelu()).1;
    close(&gelu, &[std::f64::consts::SQRT_2 * (1.0 + 0.842_700_792_949_714_9) / 2.0], 1e-12);
    let square = |g: &Graph| g.full(F64, [3, 3], 1.0);
    assert_eq!(compute(&[], |g, _| square(g).tril(0)).1, [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(compute(&[], |g, _| square(g).triu(1)).1, [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
}

/// Runs a call of a model: results in order.
fn call(module: &Module, values: &BTreeMap<String, Array>, past: i64) -> Vec<Array> {
    let entry = module.entry().unwrap();
    let inputs: Vec<Array> = entry.params.iter().map(|p| values[&*p.name].clone()).collect();
    let bindings = Bindings::from([(Symbol::from("past"), past)]);
    run(module, "main", &inputs, &bindings, Mode::Meaning).unwrap_or_else(|d| panic!("{d}"))
}

/// Gives `parts` to a model one after the other, with the caches of the call before; all first results in order.
fn decode(module: &Module, values: &mut BTreeMap<String, Array>, parts: &[&[i64]]) -> Vec<f64> {
    let (mut out, mut past) = (Vec::new(), 0);
    for part in parts {
        values.insert("tokens".into(), Array::from_i64(&[part.len()], part).unwrap());
        let results = call(module, values, past);
        past += part.len() as i64;
        out.extend(results[0].to_f64().unwrap());
        for (i, cache) in results[1..].iter().enumerate() {
            values.insert(format!("cache.{}.{}", i / 2, ["k", "v"][i % 2]), cache.clone());
        }
    }
    out
}

#[test]
fn decoding_with_caches_gives_the_logits_of_one_call() {
    let config = LlamaConfig {
        layers: 2,
        width: 16,
        heads: 4,
        kv_heads: 2,
        head_size: 4,
        feed_forward: 24,
        vocabulary: 11,
        rope_base: 100.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: true,
        capacity: 8,
        dtypes: WeightTypes::new(),
        outputs: Outputs { all_logits: true, hidden_states: false, loss: false },
    };
    let module = llama(&config).unwrap();
    let mut values = BTreeMap::new();
    for (i, p) in module.entry().unwrap().params.iter().enumerate().filter(|(_, p)| p.ty.dtype == F32) {
        let shape = p.ty.concrete(&Bindings::new()).unwrap();
        let data: Vec<f32> = noise(i as u64 + 9, shape.iter().product()).iter().map(|x| *x as f32 * 0.5).collect();
        values.insert(p.name.to_string(), Array::from_f32(&shape, &data).unwrap());
    }
    let (cos, sin) = rope_tables(&config).unwrap();
    values.extend([("rope.cos".to_string(), cos), ("rope.sin".to_string(), sin)]);
    let tokens = [3i64, 1, 4, 1, 5, 9];
    let whole = decode(&module, &mut values.clone(), &[&tokens]);
    let pieces = decode(&module, &mut values, &[&tokens[..3], &tokens[3..4], &tokens[4..]]);
    // Caches round to f32 between calls.
    close(&pieces, &whole, 1e-5);
    assert!(whole[..11] != whole[33..44], "the same token at other positions gives other logits");
}

#[test]
fn gpt2_is_its_formula() {
    let (width, context) = (4, 6);
    let mut config = Gpt2Config {
        layers: 1,
        width,
        heads: 2,
        feed_forward: 8,
        vocabulary: 7,
        context,
        capacity: 5,
        names: Gpt2Names::Gguf,
        outputs: Outputs { all_logits: true, hidden_states: false, loss: false },
        ..Gpt2Config::small(5)
    };
    let module = gpt2(&config).unwrap();
    let mut values = BTreeMap::new();
    for (i, p) in module.entry().unwrap().params.iter().enumerate().filter(|(_, p)| p.ty.dtype == F32) {
        let shape = p.ty.concrete(&Bindings::new()).unwrap();
        let data: Vec<f32> = noise(i as u64 + 3, shape.iter().product()).iter().map(|x| *x as f32).collect();
        values.insert(p.name.to_string(), Array::from_f32(&shape, &data).unwrap());
    }
    let found = decode(&module, &mut values.clone(), &[&[2, 5], &[1]]);

    let get = |name: &str| values[name].to_f64().unwrap();
    let norm = |x: &[f64], name: &str| -> Vec<f64> {
        let (w, b) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let mean = x.iter().sum::<f64>() / width as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
        (0..width).map(|i| (x[i] - mean) / (var + 1e-5).sqrt() * w[i] + b[i]).collect()
    };
    let product = |x: &[f64], w: &[f64]| -> Vec<f64> {
        w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let linear = |x: &[f64], name: &str| -> Vec<f64> {
        let sums = product(x, &get(&format!("{name}.weight")));
        sums.iter().zip(get(&format!("{name}.bias"))).map(|(a, b)| a + b).collect()
    };
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let (words, places) = (get("token_embd.weight"), get("position_embd.weight"));
    let (mut want, mut seen) = (Vec::new(), Vec::new());
    for (i, token) in [2usize, 5, 1].into_iter().enumerate() {
        let row = |table: &[f64], r: usize| table[r * width..(r + 1) * width].to_vec();
        let x = add(&row(&words, token), &row(&places, i));
        let qkv = linear(&norm(&x, "blk.0.attn_norm"), "blk.0.attn_qkv");
        seen.push(qkv.clone());
        let mut attended = Vec::new();
        for head in [0, 2] {
            let score = |past: &Vec<f64>| {
                let dot = qkv[head] * past[4 + head] + qkv[head + 1] * past[5 + head];
                (dot / 2f64.sqrt()).exp()
            };
            let total: f64 = seen.iter().map(score).sum();
            attended.extend((0..2).map(|e| seen.iter().map(|p| score(p) * p[8 + head + e]).sum::<f64>() / total));
        }
        let x = add(&x, &linear(&attended, "blk.0.attn_output"));
        let inner: Vec<f64> = linear(&norm(&x, "blk.0.ffn_norm"), "blk.0.ffn_up").into_iter().map(gelu).collect();
        let x = add(&x, &linear(&inner, "blk.0.ffn_down"));
        want.extend(product(&norm(&x, "output_norm"), &words));
    }
    close(&found, &want, 1e-5);

    // The other convention: other names, matrices transposed.
    config.names = Gpt2Names::HuggingFace;
    let renamed = [
        ("blk.", "h."),
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
        ("token_embd", "wte"),
        ("position_embd", "wpe"),
        ("output_norm", "ln_f"),
    ];
    let mut others = BTreeMap::new();
    for (name, array) in &values {
        let matrix = name.starts_with("blk.") && array.shape().len() == 2;
        let turned = |a: &Array| {
            let (v, [rows, columns]) = (a.to_f32().unwrap(), [a.shape()[0], a.shape()[1]]);
            let data: Vec<f32> = (0..v.len()).map(|i| v[i % rows * columns + i / rows]).collect();
            Array::from_f32(&[columns, rows], &data).unwrap()
        };
        let other = renamed.iter().fold(name.clone(), |n, (from, to)| n.replace(from, to));
        others.insert(other, if matrix { turned(array) } else { array.clone() });
    }
    close(&decode(&gpt2(&config).unwrap(), &mut others, &[&[2, 5], &[1]]), &found, 1e-9);
}

#[test]
fn smollm2_agrees_with_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !std::path::Path::new(path).exists() {
        println!("SKIPPED: no {path}");
        return;
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/smollm2_prompt.json"));
    let expected: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let numbers =
        |key: &str| -> Vec<f64> { expected[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let integers = |key: &str| -> Vec<i64> { numbers(key).into_iter().map(|v| v as i64).collect() };
    let gguf = Gguf::open(path).unwrap();
    let module = llama(&LlamaConfig::from_gguf(&gguf, 16).unwrap()).unwrap();
    let mut values = bind_weights(&gguf, &module).unwrap();
    for cache in module.entry().unwrap().params.iter().filter(|p| p.name.starts_with("cache.")) {
        values.insert(cache.name.to_string(), Array::from_f32(&[3, 16, 64], &[0.0; 3 * 16 * 64]).unwrap());
    }
    let (ids, greedy) = (integers("ids"), integers("greedy"));
    let logits = decode(&module, &mut values, &[&ids, &greedy[..1]]);
    let (prompt, next) = logits.split_at(49152);
    let chosen: Vec<f64> = integers("top20_ids").iter().map(|&i| prompt[i as usize]).collect();
    // PyTorch's f32 is itself within 4e-5 of f64 here.
    close(&chosen, &numbers("top20_logits"), 1e-5);
    let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    assert_eq!([best(prompt), best(next)], greedy[..2]);
}
