//! How much covers look at: work grows with the program, and ends where the budget does.

use super::super::super::Limits;
use super::super::*;
use super::meaning::stage;
use tilewright_ir::dsl::{Graph as Dsl, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;

const F: DType = DType::F32;

/// `x @ x + x` again and again: each sum reads the one before it under another name.
fn residuals(n: usize) -> Module {
    let g = Dsl::new("main");
    let input = g.input("x", F, [16, 16]);
    let mut x = input.tanh();
    for _ in 0..n {
        x = x.matmul(&input) + &x;
    }
    g.finish(&[&x]).unwrap()
}

/// Each value reads the one before it and any earlier one.
fn fan(n: usize) -> Module {
    let g = Dsl::new("main");
    let mut values: Vec<Tensor> = vec![g.input("x", F, [64, 64]).tanh()];
    let mut state = 7usize;
    for i in 0..n {
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
        let (a, b) = (&values[i], &values[state / 65_536 % (i + 1)]);
        let next = match i % 3 {
            0 => a + b,
            1 => a.maximum(b),
            _ => a * b,
        };
        values.push(next);
    }
    g.finish(&[&values[n]]).unwrap()
}

/// Neighbours are added, which reads each value at two places.
fn neighbours(n: usize) -> Module {
    let g = Dsl::new("main");
    let mut x = g.input("x", F, [500]).tanh();
    for i in 0..n as i64 {
        x = x.slice(0, 0, 499 - i) + x.slice(0, 1, 500 - i);
    }
    g.finish(&[&x]).unwrap()
}

/// E-nodes and steps of a cover.
fn work(module: &Module) -> (usize, Counts) {
    let function = module.entry().unwrap();
    let nodes = super::super::super::import(function).unwrap().graph.total_size();
    let stage = stage(module, &[], Limits::of(nodes));
    (stage.grown.graph.total_size(), stage.cover("cpu-avx512", CoverLimits::default()).counts)
}

#[test]
fn work_grows_with_the_program() {
    type Shape = (&'static str, fn(usize) -> Module, usize);
    let shapes: [Shape; 3] = [("residuals", residuals, 30), ("fan", fan, 200), ("neighbours", neighbours, 30)];
    for (name, program, n) in shapes {
        let ((nodes, one), (more, two)) = (work(&program(n)), work(&program(2 * n)));
        assert!(more < 3 * nodes, "{name}: {nodes} e-nodes, {more} of a program twice as long");
        assert!(two.steps < 4 * one.steps, "{name}: {} steps, {}", one.steps, two.steps);
        assert!(two.narrowed == 0, "{name}: {two:?}");
    }
}

#[test]
fn a_used_up_budget_ends_the_search() {
    let module = fan(400);
    let stage = stage(&module, &[], Limits::default());
    let all = stage.cover("cpu-avx512", CoverLimits::default());
    let few = CoverLimits { steps: 20_000, ..CoverLimits::default() };
    let (less, again) = (stage.cover("cpu-avx512", few), stage.cover("cpu-avx512", few));
    assert!(all.counts.narrowed == 0 && less.counts.narrowed > 100, "{:?}", less.counts);
    assert!(less.counts.steps < all.counts.steps / 2, "{:?} {:?}", less.counts, all.counts);
    // What is found without further candidates is a cover that one would take.
    assert!(less.price < 1.5 * all.price, "{} {}", less.price, all.price);
    let nodes = |c: &Cover| c.cuts.iter().map(|cut| cut.nodes.clone()).collect::<Vec<_>>();
    assert!(less.counts == again.counts && nodes(&less) == nodes(&again));
}

/// What many read is stored, not computed again by each reader.
#[test]
fn values_with_many_readers_are_stored() {
    let cover = stage(&fan(400), &[], Limits::default()).cover("cpu-avx512", CoverLimits::default());
    let computed: usize = cover.cuts.iter().map(|c| c.nodes.len()).sum();
    assert!(computed < 3 * 400, "{computed} values are computed for 400");
}
