//! A small GPT in f32, bf16 and f16 beside torch in f32, under autocast, and with its GradScaler: the same first weights and batches
//! (`tests/data/autocast.py`). `TILEWRIGHT_CURVES` names the files of another such run, whose curves are printed.

use serde::Deserialize;
use std::collections::BTreeMap;
use tilewright::compile::{Options, compile};
use tilewright::formats::Safetensors;
use tilewright::models::decoder::{DecoderConfig, DecoderFamily, DecoderNames, Weights};
use tilewright::optim::{AdamW, LossScale, Recipe, Schedule, State, Weight, train_step};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::mixed::Policy;

#[derive(Deserialize)]
struct Run {
    layers: usize,
    width: usize,
    heads: usize,
    context: usize,
    batch: usize,
    steps: usize,
    vocabulary: usize,
    peak: f64,
    warmup: u64,
    betas: [f64; 2],
    decay: f64,
    clip: f64,
    first: f64,
    interval: u64,
    /// Torch's, by precision.
    loss: BTreeMap<String, Vec<f64>>,
    /// Torch's, of f16.
    scale: Vec<f64>,
}

impl Run {
    fn model(&self) -> DecoderConfig {
        DecoderConfig {
            family: DecoderFamily::Gpt,
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            kv_heads: self.heads,
            head_size: self.width / self.heads,
            feed_forward: 4 * self.width,
            vocabulary: self.vocabulary,
            context: self.context,
            epsilon: 1e-5,
            rope_base: 10_000.0,
            tied: true,
            names: DecoderNames::Short,
            float: DType::F32,
            lora: None,
            checkpoint: false,
        }
    }

    fn weights(&self) -> Vec<Weight> {
        self.model().entries().into_iter().map(|e| e.weight).collect()
    }

    fn step(&self, recipe: &Recipe) -> Module {
        let g = Graph::new("main");
        let batch = ["x", "y"].map(|name| g.input(name, DType::I64, (self.batch, self.context)));
        let (model, weights) = (self.model(), self.weights());
        let state = State::declare(&g, recipe, &weights);
        let roles: Vec<String> = model.entries().into_iter().map(|e| e.role).collect();
        let loss = |w: &[Tensor], _: &[Tensor], [x, y]: &[Tensor; 2]| {
            let weights: Weights = roles.iter().cloned().zip(w.iter().cloned()).collect();
            model.logits(x, &weights, None).cross_entropy(y)
        };
        train_step(&g, recipe, &weights, &state, &[], &batch, loss).finish(&g).unwrap_or_else(|d| panic!("{d}"))
    }

    /// Losses and scales of all steps.
    fn curve(&self, file: &Safetensors, dtype: DType) -> (Vec<f64>, Vec<f64>) {
        let optimiser = AdamW { betas: self.betas, epsilon: 1e-8, decay: self.decay };
        let policy = Policy::new(dtype).ok();
        let rule = LossScale { first: self.first, interval: self.interval, ..LossScale::default() };
        let recipe = Recipe {
            schedule: Schedule::Constant { peak: self.peak, warmup: self.warmup },
            clip: Some(self.clip),
            mixed: policy.as_ref(),
            scale: (dtype == DType::F16).then_some(rule),
            ..Recipe::of(&optimiser)
        };
        let names = recipe.state(&self.weights());
        let code = compile(&self.step(&recipe), &Options { threads: 1, ..Options::host().unwrap() });
        let code = code.unwrap_or_else(|d| panic!("{d}"));
        let first = |(name, ty): &(String, tilewright_ir::types::Type)| match name.strip_prefix("w.") {
            Some(name) => file.tensor(&format!("init.{name}")).unwrap(),
            None if name == LossScale::NAME => Array::from_f32(&[], &[self.first as f32]).unwrap(),
            None => {
                let shape = ty.concrete(&Bindings::new()).unwrap();
                let bytes = ty.dtype.bytes(shape.iter().product()).unwrap();
                Array::new(ty.dtype, &shape, Bytes::new(vec![0u8; bytes])).unwrap()
            }
        };
        let mut state: Vec<Array> = names.iter().map(first).collect();
        let scale = names.iter().position(|(name, _)| name == LossScale::NAME);
        let (mut losses, mut scales) = (Vec::new(), Vec::new());
        for step in 0..self.steps {
            scales.extend(scale.map(|i| state[i].to_f64().unwrap()[0]));
            let batch = ["x", "y"].map(|name| {
                let all = file.tensor(name).unwrap();
                let size = all.bytes().len() / self.steps;
                Array::new(DType::I64, &all.shape()[1..], all.bytes().slice(step * size, size).unwrap()).unwrap()
            });
            let mut results = code.run(&[&batch[..], &state].concat(), &Bindings::new()).unwrap();
            let metrics = results.split_off(state.len());
            losses.push(metrics[0].to_f64().unwrap()[0]);
            state = results;
        }
        (losses, scales)
    }
}

fn farthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn losses_stay_as_near_to_f32_as_torchs_do() {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/autocast").to_string();
    let other = std::env::var("TILEWRIGHT_CURVES").ok();
    let path = other.as_ref().unwrap_or(&usual);
    let run: Run = serde_json::from_str(&std::fs::read_to_string(format!("{path}.json")).unwrap()).unwrap();
    let file = Safetensors::open(format!("{path}.safetensors")).unwrap();
    let full = &run.loss["f32"];
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::Bf16), ("f16", DType::F16)] {
        let (losses, scales) = run.curve(&file, dtype);
        let (ours, theirs) = (farthest(&losses, full), farthest(&run.loss[name], full));
        if other.is_some() {
            let every = (run.steps / 10).max(1);
            let at: Vec<usize> = (0..run.steps).filter(|i| *i == 0 || (i + 1) % every == 0).collect();
            println!("{name}: farthest from torch in f32 {ours:.2e}, torch's own {theirs:.2e}");
            at.iter().for_each(|&i| println!("  {:5} {:.4} {:.4}", i + 1, losses[i], run.loss[name][i]));
            println!("  scales {:?} and {:?}", scales.last(), run.scale.last());
            continue;
        }
        // Torch's: 2.4e-3 in bf16, 7e-5 in f16.
        let most = match dtype {
            DType::F32 => 2e-5,
            DType::Bf16 => 5e-3,
            _f16 => 2e-4,
        };
        assert!(ours <= most, "{name}: {ours} from torch's f32, torch {theirs}: {losses:?}");
        assert!(dtype == DType::F32 || ours > 1e-6, "{name} computes in f32");
        assert!(dtype != DType::F16 || scales == run.scale, "{scales:?}, expected {:?}", run.scale);
    }
}
