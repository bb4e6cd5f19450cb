//! Language models in folders: what `generate` computes from one is what the model computes as it is trained.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tilewright::compile::Options;
use tilewright::formats::safetensors;
use tilewright::generate::ModelFolder;
use tilewright::models::decoder::{DecoderConfig, Entry, Weights};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::Graph;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType};

const VOCABULARY: usize = 7;
const CONTEXT: usize = 12;

fn gpt(tied: bool) -> String {
    let sizes = format!("\"vocab_size\": {VOCABULARY}, \"n_positions\": {CONTEXT}, \"tie_word_embeddings\": {tied}");
    format!("{{\"model_type\": \"gpt2\", \"n_layer\": 2, \"n_embd\": 16, \"n_head\": 4, \"n_inner\": 24, {sizes}}}")
}

pub(super) fn llama(tied: bool) -> String {
    format!(
        r#"{{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 24, "vocab_size": {VOCABULARY},
        "max_position_embeddings": {CONTEXT}, "rope_theta": 500.0, "tie_word_embeddings": {tied}}}"#
    )
}

pub(super) fn config(json: &str) -> DecoderConfig {
    DecoderConfig::from_json("config.json", json).unwrap()
}

/// Weights of no pattern, large enough that every one of them matters.
pub(super) fn weights(config: &DecoderConfig) -> Vec<(Entry, Array)> {
    let mut seed = 1u32;
    let mut number = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let one = |entry: Entry| {
        let shape: Vec<usize> = entry.weight.ty.shape.iter().map(|d| d.as_const().unwrap() as usize).collect();
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| number() * 0.5).collect();
        (entry, Array::from_f32(&shape, &values).unwrap())
    };
    config.entries().into_iter().map(one).collect()
}

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"post_processor":null,
"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[\\s\\S]"},"behavior":"Isolated","invert":false},"decoder":{"type":"Fuse"},
"model":{"type":"WordLevel","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6},"unk_token":"?"}}"#;

pub(super) fn write(folder: &Path, config: &str, weights: &[(Entry, Array)], prefix: &str) {
    let named: Vec<(String, &Array)> = weights.iter().map(|(e, a)| (format!("{prefix}{}", e.weight.name), a)).collect();
    let named: Vec<(&str, &Array)> = named.iter().map(|(n, a)| (n.as_str(), *a)).collect();
    safetensors::write(folder.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
}

/// Logits of `tokens` by the model as it is trained, on the interpreter.
fn trained(config: &DecoderConfig, weights: &[(Entry, Array)], tokens: &[i64]) -> Vec<f64> {
    let g = Graph::new("main");
    let ids = g.input("ids", DType::I64, (1, tokens.len()));
    let declare = |(e, _): &(Entry, Array)| (e.role.clone(), g.input(&e.role, DType::F32, &e.weight.ty.shape));
    let given: Weights = weights.iter().map(declare).collect();
    let module = g.finish(&[&config.logits(&ids, &given, None)]).unwrap_or_else(|d| panic!("{d}"));
    let mut inputs = vec![Array::from_i64(&[1, tokens.len()], tokens).unwrap()];
    inputs.extend(weights.iter().map(|(_, a)| a.clone()));
    run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap()[0].to_f64().unwrap()
}

#[test]
fn logits_are_those_of_training() {
    let tokens = [3, 1, 4, 1, 5, 0, 2, 6, 5];
    for (json, prefix) in
        [(gpt(true), ""), (gpt(true), "transformer."), (gpt(false), ""), (llama(true), ""), (llama(false), "")]
    {
        let config = config(&json);
        let weights = weights(&config);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &json, &weights, prefix);
        let mut model = ModelFolder::open(folder.path()).unwrap().model(CONTEXT, &Options::host().unwrap()).unwrap();
        let expected = trained(&config, &weights, &tokens);
        // The caches go on from one call to the next.
        for (from, to) in [(0, 5), (5, 6), (6, 9)] {
            let new: Vec<u32> = tokens[from..to].iter().map(|t| *t as u32).collect();
            let found = model.read(&new).unwrap().logits;
            let expected = &expected[(to - 1) * VOCABULARY..to * VOCABULARY];
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-4, "{json} {to}: {found}, expected {expected}");
            }
        }
    }
}

pub(super) fn tilewright(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn the_command_reads_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let json = llama(true);
    let config = config(&json);
    let weights = weights(&config);
    write(folder.path(), &json, &weights, "");
    let generate =
        |prompt: &str| tilewright(&["generate", "--model", path, "--prompt", prompt, "--greedy", "--max-tokens", "3"]);
    let greedy = |text: &str| {
        let tokens: Vec<i64> = text.bytes().map(|b| i64::from(b - b'a')).collect();
        let logits = trained(&config, &weights, &tokens);
        let last = &logits[logits.len() - VOCABULARY..];
        (0..VOCABULARY).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap()
    };
    let mut text = String::from("cab");
    (0..3).for_each(|_| text.push((b'a' + greedy(&text) as u8) as char));
    let (ok, answer, said) = generate("cab");
    assert!(ok, "{said}");
    assert_eq!(answer, format!("{}\n", &text[3..]));

    // What a run writes as `config.json` is the same model.
    std::fs::write(folder.path().join("config.json"), config.to_json(&[])).unwrap();
    assert_eq!(generate("cab").1, answer);
    for (from, to, code) in [
        ("\"llama\"", "\"mamba\"", "model-config"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "checkpoint-tensor"),
        ("\"intermediate_size\": 24", "\"intermediate_size\": 25", "weight-mismatch"),
        ("\"vocab_size\": 7", "\"vocab_size\": 5", "vocabulary"),
    ] {
        assert!(json.contains(from), "{from}");
        std::fs::write(folder.path().join("config.json"), json.replace(from, to)).unwrap();
        let (ok, _, said) = generate("cab");
        assert!(!ok && said.contains(&format!("error[{code}]")), "{to}: {said}");
    }
}
