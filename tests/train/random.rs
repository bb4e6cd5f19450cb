//! Random numbers: JAX's bits, the same on every path, and distributed as they should be.

use tilewright::compile::{self, compile};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Initial, Key, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::DType::{Bf16, F16, F32, F64, I64, U32};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::grad;
use tilewright_passes::vmap::vmap;

fn module(build: impl FnOnce(&Graph) -> Vec<Tensor>) -> Module {
    let g = Graph::new("main");
    let results = build(&g);
    g.finish(&results.iter().collect::<Vec<_>>()).unwrap_or_else(|d| panic!("{d}"))
}

fn interpreted(module: &Module, inputs: &[Array]) -> Vec<Array> {
    run(module, "main", inputs, &Bindings::new(), Mode::Strict).unwrap_or_else(|d| panic!("{d}"))
}

fn numbers(build: impl FnOnce(&Graph) -> Vec<Tensor>) -> Vec<Vec<f64>> {
    interpreted(&module(build), &[]).iter().map(|a| a.to_f64().unwrap()).collect()
}

#[test]
fn keys_and_bits_are_those_of_jax() {
    // jax.random of key(42): bits((2, 3)), uniform((4,)), split(3), fold_in(7).
    let found = numbers(|g| {
        let key = g.key(42);
        let [a, b, c] = key.split();
        let words = [a, b, c, key.fold_in(&g.scalar(I64, 7i64))];
        let words = words.iter().map(|k| k.words().clone());
        [key.bits((2, 3)), key.uniform(F32, [4])].into_iter().chain(words).collect()
    });
    assert_eq!(found[0], [2098992034.0, 2919706841.0, 2646866425.0, 2409546199.0, 1935504149.0, 2516274904.0]);
    assert_eq!(found[1], [0.48870956897735596, 0.6797971725463867, 0.6162714958190918, 0.5610160827636719]);
    assert_eq!(found[2], [1832780943.0, 270669613.0]);
    assert_eq!(found[3], [64467757.0, 2916123636.0]);
    assert_eq!(found[4], [2465931498.0, 255383827.0]);
    assert_eq!(found[5], [2547012911.0, 1371500959.0]);
}

/// Bits, uniform numbers and masks of a shape that is no multiple of anything, some of them used by floats.
fn mixed(g: &Graph) -> Vec<Tensor> {
    let key = Key::of(&g.input("key", U32, [2])).fold_in(&g.input("step", I64, ()));
    let [a, b, c] = key.split();
    let x = g.input("x", F32, (37, 19));
    let mask = b.bernoulli(0.3, (37, 19));
    vec![a.bits((37, 19)), a.uniform(F32, (37, 19)), mask.cast(I64), x.dropout(0.25, &c), b.uniform(F64, [5])]
}

#[test]
fn every_path_gives_the_same_bits() {
    let module = module(mixed);
    let key = Array::new(U32, &[2], tilewright_ir::array::Bytes::new(vec![1u8, 2, 3, 4, 5, 6, 7, 8])).unwrap();
    let x: Vec<f32> = (0..37 * 19).map(|i| (i as f32 - 350.0) / 7.0).collect();
    let inputs = [key, Array::from_i64(&[], &[1_000_003]).unwrap(), Array::from_f32(&[37, 19], &x).unwrap()];
    let expected = interpreted(&module, &inputs);
    for (opt_level, threads) in [(0, 1), (1, 2), (2, 1), (2, 2)] {
        let options = compile::Options { opt_level, threads, ..compile::Options::host().unwrap() };
        let found = compile(&module, &options).unwrap().run(&inputs, &Bindings::new()).unwrap();
        assert!(found == expected, "level {opt_level}, {threads} threads");
    }
}

#[test]
fn examples_have_the_numbers_of_their_keys() {
    let found = numbers(|g| {
        let keys = g.key(9).bits((3, 2));
        let each = vmap(|k: &Tensor| Key::of(k).bits((4, 5)))(&keys);
        let one = |i: i64| Key::of(&keys.slice(0, i, i + 1).squeeze(0)).bits((4, 5));
        vec![each, one(0), one(1), one(2)]
    });
    assert_eq!(found[0], found[1..].concat());
    assert_ne!(found[1], found[2]);
}

#[test]
fn derivatives_drop_what_was_dropped() {
    let inputs = [Array::from_f32(&[64], &[1.5; 64]).unwrap()];
    let module = module(|g| {
        let (key, x) = (g.key(3), g.input("x", F32, [64]));
        vec![x.dropout(0.5, &key), grad(|x: &Tensor| x.dropout(0.5, &key).sum(&[0]))(&x)]
    });
    let found: Vec<Vec<f64>> = interpreted(&module, &inputs).iter().map(|a| a.to_f64().unwrap()).collect();
    assert!(found[0].iter().zip(&found[1]).all(|(y, d)| (*y, *d) == (3.0, 2.0) || (*y, *d) == (0.0, 0.0)));
    let kept = found[1].iter().filter(|d| **d > 0.0).count();
    assert!((20..=44).contains(&kept), "{kept} of 64");
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[test]
fn distributions_have_their_moments_and_limits() {
    let n = 40_000i64;
    let fans = [300, 100];
    let found = numbers(|g| {
        let key = g.key(1);
        let draw = |i: Initial| i.draw(&key, F32, [n]);
        let halves = |dtype: DType| key.uniform(dtype, [n]);
        vec![
            key.normal(F32, [n]),
            draw(Initial::TruncatedNormal { deviation: 0.5 }),
            draw(Initial::XavierUniform { fans }),
            draw(Initial::XavierNormal { fans }),
            draw(Initial::KaimingUniform { inputs: 50, gain: 2f64.sqrt() }),
            draw(Initial::KaimingNormal { inputs: 50, gain: 2f64.sqrt() }),
            halves(F64),
            halves(F16),
            halves(Bf16),
        ]
    });
    // The deviation of a normal number that is cut at two of its deviations is 0.8796 of it.
    let uniform = (1.0 / 12f64).sqrt();
    let means = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5];
    let expected = [1.0, 0.4398, 0.005f64.sqrt(), 0.005f64.sqrt(), 0.2, 0.2, uniform, uniform, uniform];
    for (i, values) in found.iter().enumerate() {
        let (mean, deviation) = moments(values);
        // Five standard errors; halves are on average half a digit too small.
        let allowed = 5.0 * expected[i] / (n as f64).sqrt() + if i == 8 { 0.004 } else { 0.0 };
        assert!((mean - means[i]).abs() < allowed, "{i}: mean {mean}");
        assert!((deviation / expected[i] - 1.0).abs() < 0.02, "{i}: deviation {deviation}, expected {}", expected[i]);
    }
    assert!(found[1].iter().all(|x| x.abs() <= 1.0) && found[6..].iter().flatten().all(|x| (0.0..1.0).contains(x)));
    let limit = (6.0 / 400f64).sqrt();
    assert!(found[2].iter().all(|x| x.abs() <= limit * 1.000_001));
}

#[test]
fn chances_at_the_ends() {
    let found = numbers(|g| [0.0, 1.0].map(|p| g.key(5).bernoulli(p, [1000]).cast(I64)).to_vec());
    assert!(found[0].iter().all(|x| *x == 0.0) && found[1].iter().all(|x| *x == 1.0));
}

#[test]
fn mistakes_are_told() {
    let g = Graph::new("main");
    let bits = Key::of(&g.input("k", U32, [3])).bits([2]);
    assert_eq!(g.finish(&[&bits]).unwrap_err().code, "random-key");
    let g = Graph::new("main");
    let dropped = g.input("x", F32, [3]).dropout(1.0, &g.key(0));
    assert_eq!(g.finish(&[&dropped]).unwrap_err().code, "random-probability");
    let g = Graph::new("main");
    let bits = g.key(0).bits((1 << 20, 1 << 13));
    assert_eq!(g.finish(&[&bits]).unwrap_err().code, "random-size");
}
