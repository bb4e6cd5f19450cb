//! A cover computes what the reference interpreter says: cut after cut, each from its own nodes and inputs.

use super::super::super::evaluate::{Chosen, Memory};
use super::super::super::testing::{agree, samples};
use super::super::super::{Import, Limits, Numerics, Saturation, import, saturate, shipped};
use super::super::*;
use tilewright_ir::dsl::{Graph as Dsl, Tensor};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::types::Bindings;

/// A function on its way to kernels.
pub(super) struct Stage {
    pub function: Function,
    pub import: Import,
    pub grown: Saturation,
    pub context: Context,
}

pub(super) fn stage(module: &Module, likely: &[(&str, i64)], limits: Limits) -> Stage {
    let function = module.entry().unwrap().clone();
    let import = import(&function).unwrap();
    let grown = saturate(import.graph.clone(), &shipped().unwrap(), Numerics::Approx, limits).unwrap();
    let likely: Bindings = likely.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let context = Context::new(&function, &import, &grown.graph, &likely).unwrap();
    Stage { function, import, grown, context }
}

impl Stage {
    pub fn cover(&self, device: &str, limits: CoverLimits) -> Cover {
        let roots = &self.context.roots;
        let device = Device::named(device).unwrap();
        let found = cover(&self.grown.graph, roots, &self.context, &device, limits).unwrap();
        well_formed(self, &found, roots);
        found
    }

    pub fn explained(&self, device: &str, limits: CoverLimits) -> (Cover, Explanation) {
        let device = Device::named(device).unwrap();
        explained(&self.grown.graph, &self.context.roots, &self.context, &device, limits).unwrap()
    }
}

/// What holds for every cover.
fn well_formed(stage: &Stage, cover: &Cover, roots: &[Id]) {
    let graph = &stage.grown.graph;
    let mut have = BTreeSet::new();
    for cut in &cover.cuts {
        for input in &cut.inputs {
            assert!(have.contains(input), "{input} is read before it is stored");
            assert!(!cut.nodes.contains_key(input));
        }
        for (class, node) in &cut.nodes {
            assert_eq!(*class, graph.find(*class));
            let known = graph[*class].nodes.iter().any(|n| {
                n.head == node.head && n.children.iter().map(|c| graph.find(*c)).eq(node.children.iter().copied())
            });
            assert!(known, "{node} is no node of {class}");
        }
        for output in &cut.outputs {
            assert!(cut.nodes.contains_key(output) && have.insert(*output), "{output} is stored twice");
        }
        assert!(cut.price.seconds.is_finite() && cut.price.seconds > 0.0);
    }
    assert!(roots.iter().all(|r| have.contains(&graph.find(*r))));
    let sum: f64 = cover.cuts.iter().map(|c| c.price.seconds).sum();
    assert!((sum - cover.price).abs() <= 1e-9 * sum);
}

/// Runs a cover on data and compares every result; results must be f64.
pub(super) fn check(module: &Module, stage: &Stage, cover: &Cover, bindings: &[(&str, i64)]) {
    let (f, import) = (&stage.function, &stage.import);
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let graph = &stage.grown.graph;
    let (want, mut memory) = Memory::of(module, f, import, graph, &bindings, &samples(f, &bindings)).unwrap();
    for cut in &cover.cuts {
        for output in &cut.outputs {
            memory.store(Chosen { nodes: &cut.nodes, inputs: &cut.inputs }, *output).unwrap();
        }
    }
    for (value, want) in f.results.iter().zip(&want) {
        if import.stored.iter().any(|s| s.value == *value) {
            continue;
        }
        let root = import.roots.iter().find(|r| r.value == *value).unwrap();
        agree(&memory.read(graph.find(root.class), &root.axes).unwrap(), want, "a result");
    }
}

/// Covers a program for several devices and checks what each computes; returns the cover for the CPU.
pub(super) fn covered(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> Cover {
    let module = g.finish(results).unwrap();
    let mut first = None;
    let tiny = Limits { iterations: 16, nodes: 1 };
    for (device, limits) in
        [("cpu-avx512", Limits::default()), ("h100", Limits::default()), ("cpu-avx512", tiny), ("cpu-portable", tiny)]
    {
        let stage = stage(&module, bindings, limits);
        let few = CoverLimits { keep: 2, bodies: 10, budget: 5, ..CoverLimits::default() };
        let narrow = CoverLimits { steps: 10, ..few };
        for limits in [CoverLimits::default(), few, narrow] {
            let cover = stage.cover(device, limits);
            check(&module, &stage, &cover, bindings);
            let (same, explanation) = stage.explained(device, limits);
            assert!(same.price == cover.price && same.cuts.len() == cover.cuts.len());
            assert!(explanation.bound <= cover.price * (1.0 + 1e-9) && explanation.bound > 0.0, "{explanation:?}");
            first = first.or(Some(cover));
        }
    }
    first.unwrap()
}
