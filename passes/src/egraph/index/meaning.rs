//! Imported and rewritten terms mean what the reference interpreter says: every result element, several extractions.

use super::super::evaluate::{Chosen, Memory};
use super::super::testing::{MOVEMENTS, agree, picked, samples};
use super::super::*;
use super::*;
use std::collections::BTreeSet;
use tilewright_ir::dsl::{Attention, Graph as Dsl, RopeLayout, Tensor, concat};
use tilewright_ir::types::{Bindings, DType};

/// Checks one program; returns its barriers and copies.
fn check(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> (usize, usize) {
    let module = g.finish(results).unwrap();
    let f = module.entry().unwrap();
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let import = import(f).unwrap();
    let grown = saturate(import.graph.clone(), &shipped().unwrap(), Numerics::Approx, Limits::default()).unwrap();
    for (graph, seed) in [(&import.graph, 0), (&grown.graph, 0), (&grown.graph, 1), (&grown.graph, 77)] {
        let (want, memory) = Memory::of(&module, f, &import, graph, &bindings, &samples(f, &bindings)).unwrap();
        for (value, want) in f.results.iter().zip(&want) {
            let class = graph.find(import.classes[value]);
            let nodes = picked(graph, class, seed);
            let chosen = Chosen { nodes: &nodes, inputs: &BTreeSet::new() };
            let got = memory.all(chosen, class, &import.layouts[value].concat()).unwrap();
            agree(&got, want, &format!("seed {seed}"));
        }
    }
    (import.barriers.len(), import.copies)
}

const F: DType = DType::F64;

#[test]
fn movement_means_the_same() {
    for (number, program) in MOVEMENTS.iter().enumerate() {
        let g = Dsl::new("main");
        let x = g.input("x", F, [4, 6]);
        // One slice splits the axis into blocks, the next one cuts across them.
        let most = usize::from(number == 1);
        assert!(check(&g, &[&program(&x)], &[]).0 <= most, "program {number}");
    }
    // All at once the axes are split in ways that do not agree; some views then go through memory.
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    let all: Vec<Tensor> = MOVEMENTS.iter().map(|p| p(&x)).collect();
    assert!(check(&g, &all.iter().collect::<Vec<_>>(), &[]).0 > 0);
}

#[test]
fn the_same_tensor_under_two_names() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [3, 3]);
    let gram = x.matmul(&x);
    let (barriers, copies) = check(&g, &[&(&x + x.transpose(0, 1)), &gram, &gram.matmul(&x.transpose(0, 1))], &[]);
    assert_eq!(barriers, 0);
    assert!(copies > 0);
}

/// The product gives the columns of `v` the name of the rows of `a`, so that in the joined tensor both names of `a` change.
#[test]
fn dims_of_a_joined_tensor_trade_names() {
    let g = Dsl::new("main");
    let (v, a) = (g.input("v", F, [1, 4]), g.input("a", F, [4, 4]));
    let joined = concat(&[&v, &a], 0).unwrap();
    assert_eq!(check(&g, &[&v.matmul(&a), &v.maximum(joined)], &[]).0, 0);
}

#[test]
fn what_does_not_factor_means_the_same() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [6, 10]);
    let y = x.exp().reshape([4, 15]);
    let (barriers, _) = check(&g, &[&(&y + y.cumsum(1)), &x.softmax(-1)], &[]);
    assert_eq!(barriers, 2);
}

#[test]
fn attention_means_the_same() {
    for (queries, causal) in [(3, true), (2, true), (3, false)] {
        let g = Dsl::new("main");
        let (q, k, v) =
            (g.input("q", F, [1, 4, queries, 2]), g.input("k", F, [1, 2, 3, 2]), g.input("v", F, [1, 2, 3, 2]));
        let out = q.attention(&k, &v, Attention { causal, ..Attention::default() });
        assert_eq!(check(&g, &[&out], &[]).0, 0);
    }
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=64);
    let (x, w) = (g.input("x", F, [1.into(), s.clone(), 4.into()]), g.weight("w", F, [4, 12]));
    let qkv = x.matmul(&w);
    let head = |i: i64| {
        qkv.slice(2, 4 * i, 4 * (i + 1)).reshape([1.into(), s.clone(), 2.into(), 2.into()]).permute(&[0, 2, 1, 3])
    };
    let out = head(0).attention(&head(1), &head(2), Attention { causal: true, ..Attention::default() });
    let out = out.permute(&[0, 2, 1, 3]).reshape([1.into(), s.clone(), 4.into()]) + &x;
    assert_eq!(check(&g, &[&out], &[("s", 3)]).0, 0);
}

#[test]
fn norms_losses_and_gathers_mean_the_same() {
    let g = Dsl::new("main");
    let (x, w, table) = (g.input("x", F, [3, 4]), g.weight("w", F, [4]), g.weight("table", F, [5, 4]));
    let ids = g.input("ids", DType::I64, [3]);
    let norm = x.layer_norm(Some(&w), Some(&w), 1e-5);
    let rms = table.take(&ids, 0).rms_norm(&w, 1e-5).matmul(&table.transpose(0, 1));
    let (barriers, _) = check(&g, &[&norm, &rms, &rms.cross_entropy(&ids), &x.var(&[-1], 1)], &[]);
    // The two gathers: of the table, and of the loss.
    assert_eq!(barriers, 2);
}

#[test]
fn rope_means_the_same() {
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        let g = Dsl::new("main");
        let (x, angle) = (g.input("x", F, [2, 3, 4]), g.input("angle", F, [3, 2]));
        let y = x.rope(&angle.cos(), &angle.sin(), layout);
        assert_eq!(check(&g, &[&y], &[]).0, 0);
    }
}
