//! Modules of small and of real configurations.

use super::gpt2::Gpt2Names;
use super::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, bind_weights, gpt2, llama, rope_tables};
use crate::formats::Gguf;
use tilewright_ir::dsl::RopeLayout;
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType;
use tilewright_ir::verify::verify;

fn tiny(layers: usize) -> LlamaConfig {
    LlamaConfig {
        layers,
        width: 24,
        heads: 6,
        kv_heads: 2,
        head_size: 4,
        feed_forward: 40,
        vocabulary: 50,
        rope_base: 10_000.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: true,
        capacity: 16,
        dtypes: WeightTypes::new(),
        outputs: Outputs::default(),
    }
}

/// Types of the results of a module that the verifier accepts, and whose text parses back to it.
fn results(module: &Module) -> Vec<String> {
    verify(module).unwrap_or_else(|d| panic!("{d}"));
    let printed = print(module);
    let again = parse("printed", &printed).unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(difference(module, &again), None);
    let entry = module.entry().expect("an entry");
    entry.results.iter().map(|&r| entry.ty(r).to_string()).collect()
}

#[test]
fn blocks_are_one_function_whatever_the_depth() {
    let (two, nine) = (llama(&tiny(2)).expect("a module"), llama(&tiny(9)).expect("a module"));
    assert_eq!(two.functions.len(), 2);
    assert_eq!(nine.functions.len(), 2);
    assert_eq!(two.functions["block"].nodes.len(), nine.functions["block"].nodes.len());
    let (short, long) = (two.entry().expect("main"), nine.entry().expect("main"));
    let ops = |f: &tilewright_ir::graph::Function| f.nodes.len() - f.params.len();
    assert_eq!(ops(long) - ops(short), 7);
    assert_eq!(results(&two)[..2], ["f32[1, 50]", "f32[2, 16, 4]"]);
    let names: Vec<&str> = long.params.iter().map(|p| &*p.name).collect();
    assert!(names.contains(&"blk.8.ffn_down.weight") && names.contains(&"cache.8.v"));
    assert!(long.params.iter().filter(|p| p.role == Role::Donated).count() == 18);
}

#[test]
fn outputs_and_dtypes_follow_the_configuration() {
    let mut config = tiny(3);
    config.outputs = Outputs { all_logits: true, hidden_states: true, loss: false };
    config.tied = false;
    // Whole blocks of 32 fit only the feed-forward of this width.
    config.feed_forward = 64;
    config.dtypes.insert("blk.1.ffn_down.weight".into(), DType::Q4_1);
    config.dtypes.insert("output.weight".into(), DType::F16);
    let module = llama(&config).expect("a module");
    assert_eq!(module.functions.keys().map(|k| k.to_string()).collect::<Vec<_>>(), ["block", "block_1", "main"]);
    let found = results(&module);
    assert_eq!((found.len(), &*found[0], &*found[7]), (11, "f32[seq, 50]", "f32[seq, 24]"));
}

#[test]
fn impossible_configurations_are_errors() {
    let changes: [fn(&mut LlamaConfig); 5] = [
        |c| c.heads = 5,
        |c| c.head_size = 3,
        |c| c.layers = 0,
        |c| c.capacity = usize::MAX,
        |c| c.rope_factors = vec![1.0; 3],
    ];
    for change in changes {
        let mut config = tiny(1);
        change(&mut config);
        assert_eq!(llama(&config).expect_err("an error").code, "model-config");
    }
}

#[test]
fn rope_tables_are_cosines_and_sines() {
    let (cos, sin) = rope_tables(&tiny(1)).expect("tables");
    let (cos, sin) = (cos.to_f64().expect("floats"), sin.to_f64().expect("floats"));
    assert_eq!((cos.len(), cos[0], sin[0]), (32, 1.0, 0.0));
    // Position 3; frequencies 1 and 10000^(-2/4) = 0.01.
    assert!((sin[6] - 3f64.sin()).abs() < 1e-7 && (cos[7] - 0.03f64.cos()).abs() < 1e-7);
}

#[test]
fn gpt2_has_the_names_of_either_convention() {
    let mut config = Gpt2Config::small(64);
    let module = gpt2(&config).expect("a module");
    assert_eq!(results(&module)[..2], ["f32[1, 50257]", "f32[12, 64, 64]"]);
    let entry = module.entry().expect("main");
    let find = |name: &str| entry.params.iter().find(|p| &*p.name == name).map(|p| p.ty.to_string());
    assert_eq!(find("h.11.mlp.c_proj.weight").as_deref(), Some("f32[3072, 768]"));
    assert_eq!(find("wpe.weight").as_deref(), Some("f32[1024, 768]"));
    config.names = Gpt2Names::Gguf;
    let module = gpt2(&config).expect("a module");
    let entry = module.entry().expect("main");
    let down = entry.params.iter().find(|p| &*p.name == "blk.11.ffn_down.weight").expect("a weight");
    assert_eq!(down.ty.to_string(), "f32[768, 3072]");
    // 12 weights a block, 4 others.
    assert_eq!(entry.params.iter().filter(|p| p.role == Role::Weight).count(), 148);
}

#[test]
fn smollm2_builds_and_binds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !std::path::Path::new(path).exists() {
        println!("SKIPPED: no {path}");
        return;
    }
    let gguf = Gguf::open(path).expect("a file");
    let config = LlamaConfig::from_gguf(&gguf, 256).expect("a configuration");
    assert_eq!((config.layers, config.heads, config.kv_heads, config.head_size), (30, 9, 3, 64));
    let module = llama(&config).expect("a module");
    let weights = bind_weights(&gguf, &module).expect("weights");
    // 9 a block, embedding, norm, two tables.
    assert_eq!(weights.len(), 30 * 9 + 4);
    assert_eq!(weights["rope.sin"].shape(), [256, 32]);
    assert_eq!(results(&module)[..2], ["f32[1, 49152]", "f32[3, 256, 64]"]);
    assert_eq!(LlamaConfig::from_gguf(&gguf, 1 << 20).expect_err("too long").code, "model-config");
}
