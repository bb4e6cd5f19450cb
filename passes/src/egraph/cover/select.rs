//! Choosing cuts: a cover from three greedy starts, improved one change at a time, then the exact search of `frontier`. What
//! several cuts read is paid once.
//!
//! The search is one row of steps, whatever its budget, which only says where it ends: a larger one never gives a dearer cover.

use super::body::written;
use super::bound::bound;
use super::enumerate::{Candidate, Candidates};
use super::frontier::{Frontier, Work};
use super::kind::{form, kind};
use super::path::path;
use super::problem::{Class, Problem};
use super::{Alternative, Counts, Cover, Cut, Explanation};
use petgraph::algo::toposort;
use petgraph::graph::DiGraph;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;

/// Seconds that are no difference.
const EQUAL: f64 = 1e-12;
/// Covers compared from each start.
const START: usize = 2_000;

/// Which candidate stores each class, if it has to be stored.
pub(super) type Choices = Vec<Option<usize>>;

/// A cover in numbers of candidates.
pub(super) struct Found {
    pub choices: Choices,
    pub seconds: f64,
    /// No cover takes fewer seconds.
    pub low: f64,
}

pub(super) struct Selection<'p, 'a> {
    problem: &'p Problem<'a>,
    candidates: &'p Candidates,
    /// Candidates that read a class.
    readers: Vec<Vec<usize>>,
    /// Per candidate, what a walk in progress knows of it; [`UNSEEN`] between walks.
    state: RefCell<Vec<u8>>,
}

const UNSEEN: u8 = 0;
/// What it needs is being visited.
const OPEN: u8 = 1;
const DONE: u8 = 2;

impl<'p, 'a> Selection<'p, 'a> {
    pub fn new(problem: &'p Problem<'a>, candidates: &'p Candidates) -> Selection<'p, 'a> {
        let mut readers = vec![Vec::new(); problem.classes.len()];
        for (number, candidate) in candidates.all.iter().enumerate() {
            for &input in &candidate.body.inputs {
                readers[input].push(number);
            }
        }
        let state = RefCell::new(vec![UNSEEN; candidates.all.len()]);
        Selection { problem, candidates, readers, state }
    }

    fn candidate(&self, number: usize) -> &'p Candidate {
        &self.candidates.all[number]
    }

    /// The candidate that stores a class, if it is chosen for all that it stores.
    fn producer(&self, choices: &Choices, class: Class) -> Option<usize> {
        let number = choices[class]?;
        self.candidate(number).outputs.iter().all(|&o| choices[o] == Some(number)).then_some(number)
    }

    /// The candidates that roots need under `choices`, and their seconds. `None` where something has no producer or
    /// waits for itself.
    pub fn used(&self, choices: &Choices) -> Option<(f64, Vec<usize>)> {
        let mut state = self.state.borrow_mut();
        let (mut order, mut seen) = (Vec::new(), Vec::new());
        let found = self.walk(choices, &mut state, &mut seen, &mut order);
        seen.iter().for_each(|&n| state[n] = UNSEEN);
        found?;
        Some((order.iter().map(|&n| self.candidate(n).price.seconds).sum(), order))
    }

    fn walk(&self, choices: &Choices, state: &mut [u8], seen: &mut Vec<usize>, order: &mut Vec<usize>) -> Option<()> {
        let mut stack: Vec<(usize, bool)> = Vec::new();
        for &root in self.problem.roots.iter().rev() {
            stack.push((self.producer(choices, root)?, false));
        }
        while let Some((number, done)) = stack.pop() {
            if done {
                state[number] = DONE;
                order.push(number);
                continue;
            }
            if state[number] != UNSEEN {
                continue;
            }
            state[number] = OPEN;
            seen.push(number);
            stack.push((number, true));
            let candidate = self.candidate(number);
            for &need in candidate.body.inputs.iter().chain(&candidate.after) {
                let producer = self.producer(choices, need)?;
                match state[producer] {
                    UNSEEN => stack.push((producer, false)),
                    OPEN => return None,
                    _done => {}
                }
            }
        }
        Some(())
    }

    /// The least fixed point of seconds per class; finite values need no cycle. `share` is the part of each class's
    /// seconds that one reader pays.
    fn greedy(&self, share: &[f64]) -> Choices {
        let count = self.problem.classes.len();
        let mut cost = vec![f64::INFINITY; count];
        let mut choices: Choices = vec![None; count];
        loop {
            let mut changed = false;
            for class in 0..count {
                for &number in &self.candidates.of[class] {
                    let candidate = self.candidate(number);
                    if candidate.outputs.len() > 1 {
                        continue;
                    }
                    let paid = |l: &Class| if cost[*l].is_finite() { cost[*l] * share[*l] } else { f64::INFINITY };
                    // What comes first is stored anyway; it must only be possible.
                    let first = |l: &Class| if cost[*l].is_finite() { 0.0 } else { f64::INFINITY };
                    let inputs = candidate.body.inputs.iter().map(paid).sum::<f64>();
                    let total = candidate.price.seconds + inputs + candidate.after.iter().map(first).sum::<f64>();
                    if total < cost[class] - EQUAL {
                        (cost[class], choices[class], changed) = (total, Some(number), true);
                    }
                }
            }
            if !changed {
                return choices;
            }
        }
    }

    /// Shares for the last start: what several could read is stored, and so costs nobody anything.
    fn stored(&self) -> Vec<f64> {
        self.problem.classes.iter().map(|i| if i.root || i.readers > 1 { 0.0 } else { 1.0 }).collect()
    }

    /// Shares for the first two starts: an input is paid in full, or in equal parts by all that could read it, which favours
    /// storing what many read.
    fn shares(&self, shared: bool) -> Vec<f64> {
        let readers = |class: Class| {
            let outputs: BTreeSet<&[Class]> =
                self.readers[class].iter().map(|&r| self.candidate(r).outputs.as_slice()).collect();
            outputs.len().max(1) as f64
        };
        (0..self.problem.classes.len()).map(|c| if shared { 1.0 / readers(c) } else { 1.0 }).collect()
    }

    /// The best cover found by as much work as `budget`; `None` if there is none.
    pub fn best(&self, budget: usize, counts: &mut Counts) -> Option<Found> {
        let mut best: Option<(f64, Choices)> = None;
        for shared in [false, true] {
            let start = self.greedy(&self.shares(shared));
            let Some(found) = self.search(start, budget, counts) else { continue };
            if best.as_ref().is_none_or(|b| found.0 < b.0 - EQUAL) {
                best = Some(found);
            }
        }
        // Where many values have many readers, the two starts compute them again and again, and changes one at a time do not
        // come out of it in time.
        let start = self.greedy(&self.stored());
        if let Some((seconds, _)) = self.used(&start)
            && best.as_ref().is_none_or(|b| seconds < b.0 - EQUAL)
        {
            best = self.search(start, budget, counts).or(best);
        }
        let (seconds, choices) = best?;
        Some(self.exactly(Found { choices, seconds, low: 0.0 }, budget, counts))
    }

    /// The cheapest cover, as far as the budget goes.
    fn exactly(&self, mut found: Found, budget: usize, counts: &mut Counts) -> Found {
        let limit = budget.saturating_sub(counts.evaluations);
        if limit > 0 {
            let work = Work { units: &mut counts.states, limit };
            let outcome = Frontier::new(self.problem, self.candidates).search(found.seconds, work);
            found.low = outcome.low;
            self.take(&mut found, outcome.cuts);
        }
        found
    }

    /// Takes other cuts where they are a cheaper cover.
    fn take(&self, found: &mut Found, cuts: Option<Vec<usize>>) {
        let mut choices = found.choices.clone();
        for cut in cuts.into_iter().flatten() {
            self.candidate(cut).outputs.iter().for_each(|&o| choices[o] = Some(cut));
        }
        if let Some((seconds, _)) = self.used(&choices)
            && seconds < found.seconds - EQUAL
        {
            (found.choices, found.seconds) = (choices, seconds);
        }
    }

    /// Small changes until none helps, then new starts from what the cover stores, until none helps.
    fn search(&self, start: Choices, budget: usize, counts: &mut Counts) -> Option<(f64, Choices)> {
        let limit = budget.min(counts.evaluations + START);
        let mut best = self.improve(start, limit, counts)?;
        // A new start looks at every candidate; charged so that time is bounded whatever the size.
        let charge = 1 + self.candidates.all.len() / 500;
        loop {
            let (_, used) = self.used(&best.1)?;
            let mut better = None;
            for share in self.restarts(&used) {
                if counts.evaluations >= limit {
                    break;
                }
                counts.evaluations += charge;
                let next = self.greedy(&share);
                if let Some((seconds, _)) = self.used(&next)
                    && seconds < best.0 - EQUAL
                {
                    better = Some(next);
                    break;
                }
            }
            let Some(next) = better else { return Some(best) };
            best = self.improve(next, limit, counts)?;
        }
    }

    /// Shares for greedy in which what a cover stores is free, but for one cut's inputs and all that follows from them;
    /// then with one more class free.
    fn restarts<'s>(&'s self, used: &'s [usize]) -> impl Iterator<Item = Vec<f64>> + 's {
        let mut free = vec![1.0; self.problem.classes.len()];
        let stored = used.iter().flat_map(|&n| &self.candidate(n).outputs);
        stored.for_each(|&c| free[c] = 0.0);
        let more = (0..free.len()).filter(|&c| free[c] > 0.0 && !self.readers[c].is_empty()).collect::<Vec<Class>>();
        let start = free.clone();
        let without = move |&cut: &usize| {
            let mut share = start.clone();
            self.candidate(cut).body.inputs.iter().for_each(|&l| share[l] = 1.0);
            for &number in used {
                let candidate = self.candidate(number);
                if candidate.body.inputs.iter().any(|&l| share[l] > 0.0) {
                    candidate.outputs.iter().for_each(|&o| share[o] = 1.0);
                }
            }
            share
        };
        used.iter().map(without).chain(more.into_iter().map(move |class| {
            let mut share = free.clone();
            share[class] = 0.0;
            share
        }))
    }

    /// Takes the first change that makes the cover cheaper, until none does.
    fn improve(&self, mut choices: Choices, limit: usize, counts: &mut Counts) -> Option<(f64, Choices)> {
        let (mut best, mut used) = self.used(&choices)?;
        loop {
            let mut better = false;
            for change in self.changes(&choices, &used) {
                if counts.evaluations >= limit {
                    return Some((best, choices));
                }
                counts.evaluations += 1;
                let before: Vec<Option<usize>> = change.iter().map(|&(class, _)| choices[class]).collect();
                change.iter().for_each(|&(class, number)| choices[class] = Some(number));
                match self.used(&choices) {
                    Some((seconds, order)) if seconds < best - EQUAL => (best, used, better) = (seconds, order, true),
                    _worse => {
                        // Backwards, in case a class is named twice.
                        change.iter().zip(before).rev().for_each(|(&(class, _), was)| choices[class] = was);
                    }
                }
            }
            if !better {
                return Some((best, choices));
            }
        }
    }

    /// Changes worth trying: another cut for one that is used; for one class, every reader reads it or none does.
    fn changes(&self, choices: &Choices, used: &[usize]) -> Vec<Vec<(Class, usize)>> {
        let mut out = Vec::new();
        let produced: BTreeSet<Class> = used.iter().flat_map(|&n| self.candidate(n).outputs.iter().copied()).collect();
        for &class in &produced {
            let others = self.candidates.of[class].iter().filter(|&&n| choices[class] != Some(n));
            out.extend(others.map(|&n| self.candidate(n).outputs.iter().map(|&o| (o, n)).collect()));
        }
        // Instead of one cut with several outputs, the cheapest for each.
        for &number in used.iter().filter(|&&n| self.candidate(n).outputs.len() > 1) {
            let single = |&o: &Class| {
                let of = self.candidates.of[o].iter().filter(|&&n| self.candidate(n).outputs.len() == 1);
                let seconds = |n: &usize| self.candidate(*n).price.seconds;
                of.min_by(|a, b| seconds(a).total_cmp(&seconds(b)).then(a.cmp(b))).map(|&n| (o, n))
            };
            out.push(self.candidate(number).outputs.iter().filter_map(single).collect());
        }
        // Per class, those that have it inside and could read it, then those that read it and could have it inside.
        let mut readers: Vec<(Class, bool, Class)> = Vec::new();
        for &reader in &produced {
            let Some(now) = choices[reader] else { continue };
            let body = &self.candidate(now).body;
            readers.extend(body.nodes.iter().map(|n| (n.0, false, reader)));
            readers.extend(body.inputs.iter().map(|&l| (l, true, reader)));
        }
        readers.sort_unstable();
        for group in readers.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter(|g| g.len() > 1) {
            let other = |&(class, reads, reader): &(Class, bool, Class)| {
                let fits = |n: &&usize| {
                    let c = self.candidate(**n);
                    c.outputs.len() == 1 && (c.body.inputs.binary_search(&class).is_ok()) != reads
                };
                let seconds = |n: &usize| self.candidate(*n).price.seconds;
                let of = self.candidates.of[reader].iter().filter(fits);
                of.min_by(|a, b| seconds(a).total_cmp(&seconds(b)).then(a.cmp(b))).map(|&n| (reader, n))
            };
            let change: Vec<(Class, usize)> = group.iter().filter_map(other).collect();
            if change.len() > 1 {
                out.push(change);
            }
        }
        out
    }

    /// A cut with ids. Errors: a bug where the candidate is no kernel.
    fn cut(&self, number: usize) -> Result<Cut, Diagnostic> {
        let problem = self.problem;
        let candidate = self.candidate(number);
        let w = written(problem, &candidate.body, &candidate.outputs)
            .ok_or_else(|| Diagnostic::bug("a chosen cut is no kernel"))?;
        let id = |class: Class| problem.classes[class].id;
        // Only what the outputs need: a join may have left more.
        let mut nodes = BTreeMap::new();
        let mut inputs = BTreeSet::new();
        for local in &w.locals {
            match local.choice {
                Some(choice) => {
                    nodes.insert(id(local.class), choice.node.clone());
                }
                None => {
                    inputs.insert(id(local.class));
                }
            }
        }
        let outputs = candidate.outputs.iter().map(|&o| id(o)).collect();
        let kind = kind(problem, &w, &form(problem, &w));
        Ok(Cut { outputs, nodes, inputs, kind, price: candidate.price })
    }

    /// The cover with its cuts in order.
    pub fn finish(&self, found: &Found, counts: Counts) -> Result<Cover, Diagnostic> {
        let cuts = self.order(found)?.into_iter().map(|number| self.cut(number)).collect::<Result<_, _>>()?;
        Ok(Cover { cuts, price: found.seconds, counts })
    }

    /// The chosen candidates, producers first.
    fn order(&self, found: &Found) -> Result<Vec<usize>, Diagnostic> {
        let broken = || Diagnostic::bug("the chosen cover is none");
        let (_, used) = self.used(&found.choices).ok_or_else(broken)?;
        let mut graph = DiGraph::<usize, ()>::new();
        let indices: BTreeMap<usize, _> = used.iter().map(|&n| (n, graph.add_node(n))).collect();
        for (&number, &to) in &indices {
            let candidate = self.candidate(number);
            for need in candidate.body.inputs.iter().chain(&candidate.after) {
                let producer = found.choices[*need].and_then(|p| indices.get(&p)).ok_or_else(broken)?;
                graph.add_edge(*producer, to, ());
            }
        }
        let order = toposort(&graph, None).map_err(|_| broken())?;
        Ok(order.into_iter().map(|at| graph[at]).collect())
    }

    /// What an integer program says of a cover.
    #[cfg(feature = "ilp")]
    pub fn integer(&self, found: &Found, nodes: u64) -> Result<super::Integer, Diagnostic> {
        super::ilp::solve(self.problem, self.candidates, found.seconds, nodes)
    }

    /// How good a cover is that was made of `found`; the work is added to its counts.
    pub fn explain(&self, found: &Found, cover: &mut Cover) -> Result<Explanation, Diagnostic> {
        let low = path(self.problem, self.candidates).max(bound(self.problem, self.candidates)).max(found.low);
        let runner_up = |number: usize| self.runner_up(found, number, &mut cover.counts);
        let alternatives = self.order(found)?.into_iter().map(runner_up).collect::<Result<_, _>>()?;
        Ok(Explanation { bound: low.min(found.seconds), alternatives })
    }

    /// The cheapest cover in which another cut stores the same.
    fn runner_up(&self, found: &Found, number: usize, counts: &mut Counts) -> Result<Alternative, Diagnostic> {
        let mut best: Option<(f64, usize)> = None;
        for &other in self.candidate(number).outputs.iter().flat_map(|&o| &self.candidates.of[o]) {
            if other == number {
                continue;
            }
            counts.evaluations += 1;
            let mut next = found.choices.clone();
            self.candidate(other).outputs.iter().for_each(|&o| next[o] = Some(other));
            if let Some((seconds, _)) = self.used(&next)
                && best.is_none_or(|b| seconds < b.0)
            {
                best = Some((seconds, other));
            }
        }
        match best {
            Some((seconds, other)) => Ok(Alternative { cut: Some(self.cut(other)?), loss: seconds - found.seconds }),
            None => Ok(Alternative { cut: None, loss: f64::INFINITY }),
        }
    }
}
