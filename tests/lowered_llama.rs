//! A small Llama with quantised weights lowers to packed products and a few kernels a block.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use tilewright::models::{LlamaConfig, Outputs, WeightTypes, llama};
use tilewright_ir::dsl::RopeLayout;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::{Step, text::print_program};
use tilewright_ir::types::DType;
use tilewright_passes::{Target, lower_module};

#[test]
fn every_matrix_of_a_block_is_packed() {
    let mut config = LlamaConfig {
        layers: 2,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        feed_forward: 96,
        vocabulary: 40,
        rope_base: 10_000.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: false,
        capacity: 32,
        dtypes: WeightTypes::new(),
        outputs: Outputs::default(),
    };
    for name in config.names().filter(|n| !n.contains("norm")) {
        config.dtypes.insert(name, DType::Q4_1);
    }
    let module = llama(&config).unwrap();
    let programs = lower_module(&module, 1, &Target { isa: "avx512" }).unwrap();
    let packs = |i: usize| programs[i].steps.iter().filter(|s| matches!(s, Step::Pack(_))).count();
    assert!(programs[0].kernels.len() <= 22);
    // Seven weights; keys and values where there are enough rows, since heads of 16 are narrower than a panel.
    assert_eq!((packs(0), packs(programs.len() - 1)), (9, 1));
    // At the level that chooses by price nothing but products and what surrounds them is left, and no cache is copied.
    let sizes = LlamaConfig { width: 512, heads: 8, head_size: 64, feed_forward: 1536, vocabulary: 4096, ..config };
    let module = llama(&sizes).unwrap();
    let programs = lower_module(&module, 2, &Target { isa: "avx512" }).unwrap();
    let shown = || programs.iter().map(print_program).collect::<String>();
    let packs = |i: usize| programs[i].steps.iter().filter(|s| matches!(s, Step::Pack(_))).count();
    // Seven weights, keys and values where there are enough rows.
    assert_eq!((packs(0), packs(programs.len() - 1)), (9, 1), "{}", shown());
    assert!(programs[0].kernels.len() <= 16, "{}", shown());
    for program in &programs {
        let copies: Vec<_> = program.kernels.iter().map(|k| &k.name).filter(|n| n.contains("copy")).collect();
        assert!(copies.is_empty(), "{copies:?}");
        let given = program.params.iter().filter(|p| p.role == Role::Donated).map(|p| &p.buffer.name);
        for cache in given.filter(|_| &*program.name != "main") {
            assert!(
                program.work.iter().any(|w| w.alias_of.as_ref() == Some(cache)),
                "`{cache}` is not updated in place"
            );
        }
    }
}
