//! SmolLM2-135M through the interpreter, from the quantised file, against the logits of transformers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::collections::BTreeMap;
use std::path::Path;
use tilewright::conformance::largest_error;
use tilewright::formats::{Gguf, Safetensors};
use tilewright::models::{LlamaConfig, Outputs, bind_weights, llama};
use tilewright_ir::array::Array;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, Symbol};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/smollm2_first.safetensors");

/// The first reference prompt: logits and hidden states of a full pass; then a decode step continues from its caches.
#[test]
fn smollm2_has_the_reference_logits() {
    if !Path::new(MODEL).exists() {
        println!("SKIPPED: {MODEL} is absent; scripts/fetch-models.sh fetches it");
        return;
    }
    let gguf = Gguf::open(MODEL).unwrap();
    let expected = Safetensors::open(EXPECTED).unwrap();
    let mut config = LlamaConfig::from_gguf(&gguf, 16).unwrap();
    config.outputs = Outputs { all_logits: false, hidden_states: true, loss: false };
    let module = llama(&config).unwrap();
    let weights = bind_weights(&gguf, &module).unwrap();
    let entry = module.entry().unwrap();
    let caches = [config.kv_heads, config.capacity, config.head_size];
    let zeros = Array::from_f32(&caches, &vec![0.0; caches.iter().product()]).unwrap();
    let step = |tokens: &Array, past: i64, old: &BTreeMap<String, Array>| {
        let find = |name: &str| match name {
            "tokens" => tokens.clone(),
            name => weights.get(name).or_else(|| old.get(name)).unwrap_or(&zeros).clone(),
        };
        let inputs: Vec<Array> = entry.params.iter().map(|p| find(&p.name)).collect();
        let bindings = Bindings::from([(Symbol::from("past"), past)]);
        let start = std::time::Instant::now();
        let results = run(&module, &entry.name, &inputs, &bindings, Mode::Meaning).unwrap();
        println!("{} tokens after {past}: {:.2} s", tokens.len(), start.elapsed().as_secs_f64());
        results
    };
    let tokens = expected.tensor("p0.ids").unwrap();
    let results = step(&tokens, 0, &BTreeMap::new());
    let argmax = |logits: &Array| {
        let v = logits.to_f64().unwrap();
        (0..v.len()).fold(0, |best, i| if v[i] > v[best] { i } else { best }) as i64
    };
    let logits = Array::from_f32(&[config.vocabulary], &results[0].to_f32().unwrap()).unwrap();
    let error = largest_error(&logits, &expected.tensor("p0.last.logits").unwrap()).unwrap();
    println!("logits: {error:.2e}");
    assert!(error < 1e-3, "{error}");
    // Some elements of the residual stream are in the thousands: this is f32 rounding of the reference.
    let hidden = &results[1 + 2 * config.layers..];
    for layer in [0, 1, 15, 30] {
        let error = largest_error(&hidden[layer], &expected.tensor(&format!("p0.hidden.{layer}")).unwrap()).unwrap();
        println!("hidden {layer}: {error:.2e}");
        assert!(error < 2e-2, "{layer}: {error}");
    }
    let greedy = expected.tensor("p0.greedy").unwrap().to_f64().unwrap();
    assert_eq!(argmax(&logits) as f64, greedy[0]);
    let mut old = BTreeMap::new();
    for layer in 0..config.layers {
        old.insert(format!("cache.{layer}.k"), results[1 + 2 * layer].clone());
        old.insert(format!("cache.{layer}.v"), results[2 + 2 * layer].clone());
    }
    let next = Array::from_i64(&[1], &[greedy[0] as i64]).unwrap();
    let results = step(&next, tokens.len() as i64, &old);
    assert_eq!(argmax(&results[0]) as f64, greedy[1]);
}
