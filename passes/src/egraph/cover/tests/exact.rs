//! How good covers are: against every choice there is, against the bound, and by the work they may take.

use super::super::super::lang::{Fold, Head};
use super::super::super::{Limits, Saturation};
use super::super::enumerate::Candidates;
use super::super::frontier::{Frontier, Work};
use super::super::problem::{Class, Problem};
use super::super::select::{Choices, Selection};
use super::super::*;
use super::choice::{blocks, llama, random};
use super::meaning::{Stage, check, stage};
use tilewright_ir::dsl::Graph as Dsl;
use tilewright_ir::types::DType;

/// Choices that are looked at before a graph is given up.
const MOST: usize = 100_000;

/// All covers, one class that is needed after the other; whether the search came to its end.
struct All<'s> {
    selection: &'s Selection<'s, 's>,
    candidates: &'s Candidates,
    best: f64,
    looked: usize,
}

impl All<'_> {
    fn go_on(&mut self, choices: &mut Choices, mut needed: Vec<Class>, seconds: f64) -> bool {
        self.looked += 1;
        if seconds >= self.best || self.looked > MOST {
            return self.looked <= MOST;
        }
        let Some(class) = needed.pop() else {
            if let Some((seconds, _)) = self.selection.used(choices) {
                self.best = self.best.min(seconds);
            }
            return true;
        };
        if choices[class].is_some() {
            return self.go_on(choices, needed, seconds);
        }
        let candidates = self.candidates;
        candidates.of[class].iter().all(|&number| {
            let candidate = &candidates.all[number];
            if candidate.outputs.iter().any(|&o| choices[o].is_some()) {
                return true;
            }
            candidate.outputs.iter().for_each(|&o| choices[o] = Some(number));
            let mut more = needed.clone();
            more.extend(candidate.body.inputs.iter().chain(&candidate.after));
            let ended = self.go_on(choices, more, seconds + candidate.price.seconds);
            candidate.outputs.iter().for_each(|&o| choices[o] = None);
            ended
        })
    }
}

/// Seconds of the cheapest cover there is, none where there are too many, and what the search finds; `low` is of a search that
/// knows of no cover.
fn both(stage: &Stage, device: &str, limits: CoverLimits) -> (Option<f64>, Found) {
    let device = Device::named(device).unwrap();
    let roots = &stage.context.roots;
    let problem = Problem::new(&stage.grown.graph, roots, &stage.context, &device, false).unwrap();
    let mut counts = Counts::default();
    let candidates = Candidates::new(&problem, limits, &mut counts).unwrap();
    let selection = Selection::new(&problem, &candidates);
    let mut found = selection.best(limits.budget, &mut counts).unwrap();
    let work = Work { units: &mut 0, limit: limits.budget };
    found.low = found.low.max(Frontier::new(&problem, &candidates).search(f64::INFINITY, work).low);
    let mut all = All { selection: &selection, candidates: &candidates, best: f64::INFINITY, looked: 0 };
    let ended = all.go_on(&mut vec![None; problem.classes.len()], problem.roots.clone(), 0.0);
    (ended.then_some(all.best), found)
}

#[test]
fn the_exact_search_finds_what_all_covers_say() {
    let (mut compared, mut close) = (0, 0);
    // What cannot be inside a kernel is stored before what comes after it.
    let g = Dsl::new("main");
    let e = g.input("x", DType::F32, (64, 64)).exp();
    let barrier = g.finish(&[&e.cumsum(1).exp()]).unwrap();
    for (seed, module) in std::iter::once(barrier).chain((1..=100).map(random)).enumerate() {
        let stage = stage(&module, &[], Limits::default());
        for device in ["cpu-avx512", "h100"] {
            let (best, found) = both(&stage, device, CoverLimits { keep: 2, ..CoverLimits::default() });
            let Some(best) = best else { continue };
            // What searches take for no difference is relative to microseconds.
            let near = |a: f64, b: f64| (a - b).abs() <= 2e-12;
            assert!(near(found.seconds, best), "{seed} {device}: {} found, {best} is possible", found.seconds);
            assert!(found.low <= best + 2e-12, "{seed} {device}: {best} is below the bound {}", found.low);
            compared += 1;
            close += usize::from(near(found.low, best));
        }
    }
    assert!(compared > 60, "{compared}");
    // A bound is less than that where classes read each other.
    assert!(20 * close >= 19 * compared, "the bound is the best in {close} of {compared}");
}

#[test]
fn blocks_are_covered_as_well_as_can_be() {
    let gpt2 = blocks(1, DType::F32, 768, 12);
    let llama = llama(DType::F32, DType::F32, 576, (9, 3), 1536);
    for (name, module) in [("GPT-2", &gpt2), ("Llama", &llama)] {
        for tokens in [1, 128, 512] {
            let stage = stage(module, &[("b", 1), ("s", tokens), ("seq", tokens), ("past", 0)], Limits::default());
            for device in ["cpu-avx512", "cpu-avx2", "a100", "h200"] {
                let (cover, explanation) = stage.explained(device, CoverLimits::default());
                let gap = 1.0 - explanation.bound / cover.price;
                assert!(gap < 1e-6, "{name} of {tokens} tokens on {device}: a gap of {gap}, {:?}", cover.counts);
            }
        }
    }
}

/// A row of budgets around every step of the search: each may only make it cheaper.
#[test]
fn more_budget_never_costs() {
    let budgets = (0..16).map(|n| n * 97).chain((0..12).map(|n| 1_600 << n));
    let budgets: Vec<usize> = budgets.collect();
    let mut cheaper = 0;
    for (module, device) in [
        (blocks(2, DType::F32, 768, 12), "h100"),
        (random(17), "h100"),
        (random(23), "h100"),
        (random(5), "cpu-avx512"),
    ] {
        let stage = stage(&module, &[("b", 1), ("s", 128)], Limits::default());
        let mut last = f64::INFINITY;
        for &budget in &budgets {
            let cover = stage.cover(device, CoverLimits { budget, ..CoverLimits::default() });
            assert!(cover.price <= last * (1.0 + 1e-12), "{} after {last} with {budget}", cover.price);
            assert!(cover.counts.evaluations <= budget + 100, "{:?} of {budget}", cover.counts);
            cheaper += usize::from(cover.price < last && last.is_finite());
            last = cover.price;
        }
    }
    assert!(cheaper > 3, "{cheaper}");
}

/// Two results, each cheap where the other is there: somebody has to begin.
#[test]
fn a_cover_has_no_cycle() {
    let g = Dsl::new("main");
    let n = g.symbol("n", 1..=4096);
    let square = || [n.clone(), n.clone()];
    let (x, w, y) =
        (g.input("x", DType::F64, square()), g.weight("w", DType::F64, square()), g.input("y", DType::F64, square()));
    let dear = x.matmul(&w).tanh();
    let sum = &dear + &y;
    let back = &sum - &y;
    let module = g.finish(&[&dear, &sum, &back]).unwrap();
    let Stage { function, import, grown, .. } = stage(&module, &[], Limits::default());
    let likely = [("n".into(), 2048)].into();
    let mut graph = grown.graph;
    let class = |n: usize| import.roots[n].class;
    graph.union(class(0), class(2));
    graph.rebuild();
    let context = Context::new(&function, &import, &graph, &likely).unwrap();
    let stage = Stage { function, import, grown: Saturation { graph, ..grown }, context };
    for device in ["cpu-avx512", "h100", "cpu-portable"] {
        for budget in [0, 10, 1_000, 60_000] {
            let limits = CoverLimits { budget, ..CoverLimits::default() };
            let cover = stage.cover(device, limits);
            let sums = |c: &Cut| c.nodes.values().any(|n| n.head == Head::Fold(Fold::Sum));
            assert!(cover.cuts.iter().any(sums), "nobody computes the product on {device}");
            check(&module, &stage, &cover, &[("n", 3)]);
            let (_, explanation) = stage.explained(device, limits);
            assert!(explanation.bound <= cover.price * (1.0 + 1e-9));
        }
    }
}
