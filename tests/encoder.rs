//! Encoders: BERT and ALBERT against loops written out, machine code against the interpreter, and padding.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

use std::collections::BTreeMap;
use tilewright::compile::{MAX_OPT_LEVEL, Options, UserRules, compile};
use tilewright::conformance::{self, Device, Forced, run_set};
use tilewright::embed::{EncoderFolder, SentenceEncoder};
use tilewright::formats::{Safetensors, safetensors};
use tilewright::models::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
use tilewright_ir::array::Array;
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

/// Reproducible numbers in -1..1.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tiny(family: EncoderFamily, float: DType) -> EncoderConfig {
    EncoderConfig {
        family,
        layers: 3,
        width: 24,
        embedding_width: if family == EncoderFamily::Bert { 24 } else { 10 },
        heads: 3,
        feed_forward: 40,
        vocabulary: 50,
        positions: 20,
        token_types: 2,
        activation: Activation::Gelu,
        epsilon: 1e-12,
        pad: 0,
        float,
        head: EncoderHead::Embedding,
        hidden_states: true,
        attention: vec![2, 0],
    }
}

/// Weights by name. Those of norms are near 1, so that no layer fades.
fn weights(module: &Module) -> BTreeMap<String, Array> {
    let entry = module.entry().unwrap();
    let weights = entry.params.iter().enumerate().filter(|(_, p)| p.role == Role::Weight);
    let make = |(i, p): (usize, &tilewright_ir::graph::Param)| {
        let shape = p.ty.concrete(&Bindings::new()).unwrap();
        let centre = if p.name.contains("orm.weight") { 1.0 } else { 0.0 };
        let values = noise(i as u64 + 1, shape.iter().product()).iter().map(|x| centre + 0.4 * x).collect::<Vec<_>>();
        let values32: Vec<f32> = values.iter().map(|x| *x as f32).collect();
        // The same numbers in both dtypes.
        let values: Vec<f64> = values32.iter().map(|x| f64::from(*x)).collect();
        let float = p.ty.dtype == DType::F32;
        let array = if float { Array::from_f32(&shape, &values32) } else { Array::from_f64(&shape, &values) };
        (p.name.to_string(), array.unwrap())
    };
    weights.map(make).collect()
}

fn inputs(module: &Module, weights: &BTreeMap<String, Array>, tokens: &Array, mask: &Array) -> Vec<Array> {
    let of = |name: &str| match name {
        "tokens" => tokens.clone(),
        "mask" => mask.clone(),
        _ => weights[name].clone(),
    };
    module.entry().unwrap().params.iter().map(|p| of(&p.name)).collect()
}

/// Texts of the given ids, padded with `pad`.
fn padded(texts: &[&[i64]], seq: usize, pad: i64) -> (Array, Array) {
    let ids: Vec<i64> = texts.iter().flat_map(|t| (0..seq).map(|i| t.get(i).copied().unwrap_or(pad))).collect();
    let mask: Vec<bool> = texts.iter().flat_map(|t| (0..seq).map(|i| i < t.len())).collect();
    let shape = [texts.len(), seq];
    (Array::from_i64(&shape, &ids).unwrap(), Array::from_bool(&shape, &mask).unwrap())
}

const TEXTS: &[&[i64]] = &[&[1, 7, 3, 49, 2], &[1, 2], &[1, 30, 31, 32, 33, 34, 35, 2]];

/// One text through the model, by loops: rows are vectors.
struct Loops<'a> {
    config: &'a EncoderConfig,
    weights: &'a BTreeMap<String, Array>,
}

type Rows = Vec<Vec<f64>>;

impl Loops<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        self.weights.get(name).unwrap_or_else(|| panic!("no {name}")).to_f64().unwrap()
    }

    fn linear(&self, x: &Rows, name: &str) -> Rows {
        let (w, b) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let dot = |row: &[f64], o: usize| (0..row.len()).map(|i| row[i] * w[o * row.len() + i]).sum::<f64>();
        x.iter().map(|row| (0..b.len()).map(|o| dot(row, o) + b[o]).collect()).collect()
    }

    fn norm(&self, x: &Rows, name: &str) -> Rows {
        let (w, b) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let row = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (variance + self.config.epsilon).sqrt();
            (0..row.len()).map(|i| (row[i] - mean) * scale * w[i] + b[i]).collect()
        };
        x.iter().map(row).collect()
    }

    fn embedding(&self, ids: &[i64]) -> Rows {
        let width = self.config.embedding_width;
        let [words, positions, types] =
            ["word", "position", "token_type"].map(|n| self.values(&format!("embeddings.{n}_embeddings.weight")));
        let at = |p: usize, i: usize| words[ids[p] as usize * width + i] + positions[p * width + i] + types[i];
        let sum: Rows = (0..ids.len()).map(|p| (0..width).map(|i| at(p, i)).collect()).collect();
        let x = self.norm(&sum, "embeddings.LayerNorm");
        match self.config.family {
            EncoderFamily::Bert => x,
            EncoderFamily::Albert => self.linear(&x, "encoder.embedding_hidden_mapping_in"),
        }
    }

    /// The next hidden state, and the probabilities by head, query and key.
    fn layer(&self, x: &Rows, layer: usize) -> (Rows, Vec<f64>) {
        let [query, key, value, dense, norm, up, down, last] = match self.config.family {
            EncoderFamily::Bert => [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ]
            .map(|n| format!("encoder.layer.{layer}.{n}")),
            EncoderFamily::Albert => [
                "attention.query",
                "attention.key",
                "attention.value",
                "attention.dense",
                "attention.LayerNorm",
                "ffn",
                "ffn_output",
                "full_layer_layer_norm",
            ]
            .map(|n| format!("encoder.albert_layer_groups.0.albert_layers.0.{n}")),
        };
        let [q, k, v] = [query, key, value].map(|n| self.linear(x, &n));
        let (n, size) = (x.len(), self.config.width / self.config.heads);
        let (mut attended, mut all) = (vec![vec![0.0; self.config.width]; n], Vec::new());
        for head in 0..self.config.heads {
            let part = |row: &[f64]| row[head * size..(head + 1) * size].to_vec();
            for i in 0..n {
                let score = |j: usize| {
                    part(&q[i]).iter().zip(part(&k[j])).map(|(a, b)| a * b).sum::<f64>() / (size as f64).sqrt()
                };
                let weights: Vec<f64> = (0..n).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..size {
                    let sum: f64 = (0..n).map(|j| weights[j] * v[j][head * size + d]).sum();
                    attended[i][head * size + d] = sum / total;
                }
                all.extend(weights.iter().map(|w| w / total));
            }
        }
        let add = |a: &Rows, b: &Rows| -> Rows {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect()).collect()
        };
        let x = self.norm(&add(x, &self.linear(&attended, &dense)), &norm);
        let gelu = |v: f64| v * 0.5 * (1.0 + libm_erf(v / 2f64.sqrt()));
        let inner: Rows = self.linear(&x, &up).iter().map(|r| r.iter().map(|v| gelu(*v)).collect()).collect();
        (self.norm(&add(&x, &self.linear(&inner, &down)), &last), all)
    }
}

/// erf by its series, which converges everywhere.
fn libm_erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[track_caller]
fn close(what: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}, element {i}: found {a}, expected {b}");
    }
}

/// Row `text` of `array` `[batch, .., seq, n]` without padding; of `[.., seq, seq]` without padded keys, too.
fn shown(array: &Array, text: usize, keys: bool) -> Vec<f64> {
    let (values, length, seq) = (array.to_f64().unwrap(), TEXTS[text].len(), TEXTS[2].len());
    let columns = *array.shape().last().unwrap();
    let own = &values[text * values.len() / TEXTS.len()..(text + 1) * values.len() / TEXTS.len()];
    let rows = own.chunks(columns).enumerate().filter(|(row, _)| row % seq < length);
    rows.flat_map(|(_, r)| &r[..if keys { length } else { columns }]).copied().collect()
}

fn against_loops(family: EncoderFamily) {
    let config = tiny(family, DType::F64);
    let module = encoder(&config).unwrap();
    let weights = weights(&module);
    let (tokens, mask) = padded(TEXTS, TEXTS[2].len(), 13);
    let inputs = inputs(&module, &weights, &tokens, &mask);
    let results = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
    assert_eq!(results.len(), 1 + 4 + 2);
    let loops = Loops { config: &config, weights: &weights };
    for (text, ids) in TEXTS.iter().enumerate() {
        let mut x = loops.embedding(ids);
        close("embedding", &shown(&results[1], text, false), &x.concat(), 1e-12);
        for layer in 0..config.layers {
            let (next, probabilities) = loops.layer(&x, layer);
            x = next;
            close("layer", &shown(&results[2 + layer], text, false), &x.concat(), 1e-11);
            if let Some(at) = config.attention.iter().position(|l| *l == layer) {
                close("probabilities", &shown(&results[5 + at], text, true), &probabilities, 1e-11);
            }
        }
        let mean: Vec<f64> =
            (0..config.width).map(|i| x.iter().map(|r| r[i]).sum::<f64>() / ids.len() as f64).collect();
        let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
        let want: Vec<f64> = mean.iter().map(|m| m / length).collect();
        let found = &results[0].to_f64().unwrap()[text * config.width..(text + 1) * config.width];
        close("pooled", found, &want, 1e-11);
    }
}

#[test]
fn bert_is_what_the_loops_say() {
    against_loops(EncoderFamily::Bert);
}

#[test]
fn albert_is_what_the_loops_say() {
    against_loops(EncoderFamily::Albert);
}

#[test]
fn machine_code_is_what_the_interpreter_says() {
    for family in [EncoderFamily::Bert, EncoderFamily::Albert] {
        for head in [EncoderHead::Embedding, EncoderHead::Logits] {
            let config = EncoderConfig { head, activation: Activation::GeluTanh, ..tiny(family, DType::F32) };
            let module = encoder(&config).unwrap();
            let weights = weights(&module);
            let (tokens, mask) = padded(TEXTS, 11, 0);
            let inputs = inputs(&module, &weights, &tokens, &mask);
            let expected = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
            for opt_level in 0..=MAX_OPT_LEVEL {
                let options = Options { opt_level, ..Options::host().unwrap() };
                let found = compile(&module, &options).unwrap().run(&inputs, &Bindings::new()).unwrap();
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let what = format!("{family:?}, {head:?}, level {opt_level}, result {i}");
                    close(&what, &found.to_f64().unwrap(), &expected.to_f64().unwrap(), 2e-5);
                }
            }
        }
    }
}

/// A folder with random weights in f32, for `family`.
fn folder(family: EncoderFamily, place: &tempfile::TempDir) -> EncoderFolder {
    let config = EncoderConfig { hidden_states: false, attention: Vec::new(), ..tiny(family, DType::F32) };
    let weights = weights(&encoder(&config).unwrap());
    let path = place.path().join("model.safetensors");
    let tensors: Vec<(&str, &Array)> = weights.iter().map(|(n, a)| (&**n, a)).collect();
    safetensors::write(&path, &tensors, &BTreeMap::new()).unwrap();
    EncoderFolder::new(config, place.path().into(), Safetensors::open(&path).unwrap())
}

#[test]
fn padding_changes_nothing() {
    for family in [EncoderFamily::Bert, EncoderFamily::Albert] {
        let place = tempfile::tempdir().unwrap();
        let mut folder = folder(family, &place);
        for opt_level in 0..=MAX_OPT_LEVEL {
            let options = Options { opt_level, ..Options::host().unwrap() };
            let texts: Vec<Vec<u32>> = TEXTS.iter().map(|t| t.iter().map(|i| *i as u32).collect()).collect();
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let model = SentenceEncoder::new(&folder, &options).unwrap();
            let together = model.embed(&texts).unwrap();
            // Other padding: the same bits.
            folder.config.pad = 29;
            let other = SentenceEncoder::new(&folder, &options).unwrap();
            folder.config.pad = 0;
            assert_eq!(other.embed(&texts).unwrap(), together, "{family:?}, level {opt_level}");
            // Other lengths of padding, and none: other orders of sums.
            let long = vec![5u32; 20];
            let longer = model.embed(&[texts[0], texts[1], texts[2], &long]).unwrap();
            for (i, text) in texts.iter().enumerate() {
                let alone = model.embed(&[text]).unwrap().remove(0);
                for (a, (b, c)) in alone.iter().zip(together[i].iter().zip(&longer[i])) {
                    assert!((a - b).abs() < 1e-6 && (a - c).abs() < 1e-6, "{family:?}, level {opt_level}, text {i}");
                }
                let length: f32 = alone.iter().map(|x| x * x).sum();
                assert!((length - 1.0).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn a_mean_of_zero_stays_zero() {
    let module = encoder(&tiny(EncoderFamily::Bert, DType::F64)).unwrap();
    let zero = |a: &Array| Array::from_f64(a.shape(), &vec![0.0; a.len()]).unwrap();
    let weights = weights(&module).iter().map(|(name, a)| (name.clone(), zero(a))).collect();
    let (tokens, mask) = padded(TEXTS, 8, 0);
    let results =
        run(&module, "main", &inputs(&module, &weights, &tokens, &mask), &Bindings::new(), Mode::Meaning).unwrap();
    assert!(results[0].to_f64().unwrap().iter().all(|x| *x == 0.0));
}

#[test]
fn tokens_that_the_model_lacks_are_errors() {
    let place = tempfile::tempdir().unwrap();
    let model = SentenceEncoder::new(&folder(EncoderFamily::Bert, &place), &Options::host().unwrap()).unwrap();
    assert!(model.embed(&[]).unwrap().is_empty());
    assert_eq!(model.embed(&[&[1], &[50]]).unwrap_err().code, "token");
    assert_eq!(model.embed(&[&[1], &[]]).unwrap_err().code, "token");
    assert_eq!(model.embed(&[&[1; 21]]).unwrap_err().code, "text-length");
    assert_eq!(model.embed(&[&[1; 20]]).unwrap().len(), 1);
}

/// A trained ALBERT (rxnmapper's, MIT) on two reactions, against numbers by transformers.
#[test]
fn a_trained_albert_gives_the_recorded_logits() {
    let data = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    let interpreter = (Device::Interpreter, DType::F64, 0);
    for (device, float, opt_level) in
        [interpreter].into_iter().chain((0..=MAX_OPT_LEVEL).map(|l| (Device::Cpu, DType::F32, l)))
    {
        let numerics = Numerics::default();
        let options = conformance::Options {
            device,
            grads: false,
            checkpoint: Forced::Nothing,
            opt_level,
            numerics,
            float,
            threads: None,
            rules: UserRules::default(),
        };
        let report = run_set("rxn_albert", data, &options).unwrap();
        assert_eq!(report.to_string(), format!("rxn_albert on {device}: 1 passed, 0 failed, 0 skipped"));
        // No run is equal to another's f32 run: something was compared.
        assert!(report.largest_part > 1e-4, "{}", report.largest_part);
    }
}
