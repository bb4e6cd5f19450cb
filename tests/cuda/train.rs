//! Training steps in mixed precision as CUDA text, through NVRTC where it is there.

use tilewright::compile::{Options, lower_gpu};
use tilewright::optim::{LossScale, Recipe, Sgd, State, Weight, train_step};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Type};
use tilewright_passes::mixed::Policy;
use tilewright_runtime::device::cuda::{Nvrtc, per_kernel};

const WIDTH: i64 = 64;
const WORDS: i64 = 40;

/// A block with attention, a feed-forward network and the loss over words: forward, gradients, clipping and SGD with momentum.
fn step(dtype: DType) -> Module {
    let g = Graph::new("main");
    let batch = ["ids", "targets"].map(|name| g.input(name, DType::I64, (2, 32)));
    let shapes =
        [("words", WORDS, WIDTH), ("qkv", WIDTH, 3 * WIDTH), ("up", WIDTH, 2 * WIDTH), ("down", 2 * WIDTH, WIDTH)];
    let weights = shapes.map(|(name, rows, columns)| Weight::new(name, Type::new(DType::F32, [rows, columns])));
    let optimiser = Sgd { momentum: 0.9, ..Sgd::default() };
    let policy = Policy::new(dtype).unwrap();
    let scale = (dtype == DType::F16).then(LossScale::default);
    let recipe = Recipe { mixed: Some(&policy), scale, clip: Some(1.0), ..Recipe::of(&optimiser) };
    let state = State::declare(&g, &recipe, &weights);
    let loss = |w: &[Tensor], _: &[Tensor], [ids, targets]: &[Tensor; 2]| {
        let x = w[0].embedding(ids);
        let all = x.layer_norm(None, None, 1e-5).matmul(&w[1]);
        let part = |i: i64| all.slice(-1, i * WIDTH, (i + 1) * WIDTH).rearrange("b s (h d) -> b h s d", &[("h", 2)]);
        let causal = Attention { causal: true, ..Attention::default() };
        let x = x + part(0).attention(&part(1), &part(2), causal).rearrange("b h s d -> b s (h d)", &[]);
        let x = &x + x.layer_norm(None, None, 1e-5).matmul(&w[2]).gelu_tanh().matmul(&w[3]);
        x.linear(&w[0]).cross_entropy(targets)
    };
    train_step(&g, &recipe, &weights, &state, &[], &batch, loss).finish(&g).unwrap_or_else(|d| panic!("{d}"))
}

#[test]
fn training_steps_in_halves_compile() {
    let nvrtc = Nvrtc::load();
    for (dtype, isa) in [(DType::Bf16, "sm_80"), (DType::Bf16, "sm_90a"), (DType::F16, "sm_90a")] {
        let module = step(dtype);
        for opt_level in [1, 2] {
            let programs = lower_gpu(&module, &Options { opt_level, ..Options::host().unwrap() }, isa).unwrap();
            let emitted = emit_programs(&programs).unwrap();
            let name =
                if dtype == DType::Bf16 { "mma.sync.aligned.m16n8k16.row.col.f32.bf16" } else { "f32.f16.f16.f32" };
            assert!(emitted.text.contains(name), "no product of {dtype} on tensor cores");
            match &nvrtc {
                Ok(nvrtc) => {
                    let done = nvrtc.compile("step", &emitted.text, isa).unwrap_or_else(|d| panic!("{d}"));
                    assert_eq!(per_kernel(&done.log).len(), emitted.kernels.iter().flatten().count(), "{}", done.log);
                }
                Err(d) => {
                    assert_eq!(d.code, "nvrtc-missing");
                    println!("SKIPPED: {}", d.message);
                }
            }
        }
    }
}
