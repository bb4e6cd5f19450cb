//! A lower bound of every cover by the enumerated cuts: a feasible point of the dual of the covering problem.
//!
//! A class has a value, what it must cost at least. Consumers (sets of outputs) pay shares of the values of their inputs;
//! shares of one class sum to at most 1, so that shared work is counted once. Any shares give a bound; rounds move them to
//! the consumers that would pay.

use super::enumerate::Candidates;
use super::problem::{Class, Problem};
use std::collections::BTreeMap;

/// Rounds of moving shares.
const ROUNDS: u32 = 120;
/// A share that is none.
const NOTHING: f64 = 1e-12;

struct Dual<'p> {
    problem: &'p Problem<'p>,
    candidates: &'p Candidates,
    /// Per candidate, what it pays: edge and input.
    pays: Vec<Vec<(usize, Class)>>,
    /// Per class, the edges into it.
    into: Vec<Vec<usize>>,
    /// Per candidate and output, the edges that it serves.
    serves: Vec<Vec<Vec<usize>>>,
    share: Vec<f64>,
    /// Per candidate, how its seconds are split among its outputs.
    parts: Vec<Vec<f64>>,
}

impl<'p> Dual<'p> {
    fn new(problem: &'p Problem<'p>, candidates: &'p Candidates) -> Dual<'p> {
        let count = problem.classes.len();
        let mut edges: Vec<(&[Class], Class)> = Vec::new();
        let mut numbers: BTreeMap<(&[Class], Class), usize> = BTreeMap::new();
        let mut pays = vec![Vec::new(); candidates.all.len()];
        for (number, candidate) in candidates.all.iter().enumerate() {
            for &input in &candidate.body.inputs {
                // An edge back in the order of classes pays nothing, so that values are defined by one sweep.
                if candidate.outputs.iter().min() <= Some(&input) {
                    continue;
                }
                let key = (candidate.outputs.as_slice(), input);
                let edge = *numbers.entry(key).or_insert_with(|| {
                    edges.push(key);
                    edges.len() - 1
                });
                pays[number].push((edge, input));
            }
        }
        let mut into = vec![Vec::new(); count];
        for (edge, (_, input)) in edges.iter().enumerate() {
            into[*input].push(edge);
        }
        let root = |class: Class| usize::from(problem.classes[class].root);
        let share = edges.iter().map(|(_, l)| 1.0 / (into[*l].len() + root(*l)) as f64).collect();
        // A kernel with several outputs serves no consumer that it makes itself: that would be needless.
        let serves = candidates
            .all
            .iter()
            .map(|c| {
                let free = |e: &usize| !edges[*e].0.iter().any(|o| c.outputs.contains(o));
                c.outputs.iter().map(|&o| into[o].iter().copied().filter(free).collect()).collect()
            })
            .collect();
        let parts = candidates.all.iter().map(|c| vec![1.0 / c.outputs.len() as f64; c.outputs.len()]).collect();
        Dual { problem, candidates, pays, into, serves, share, parts }
    }

    /// The share of a root's value that no consumer pays.
    fn rest(&self, class: Class) -> f64 {
        if !self.problem.classes[class].root {
            return 0.0;
        }
        (1.0 - self.into[class].iter().map(|&e| self.share[e]).sum::<f64>()).max(0.0)
    }

    /// Values of classes under the shares as they are, and the candidates that attain them.
    fn values(&self) -> (Vec<f64>, Vec<Option<usize>>) {
        let count = self.problem.classes.len();
        let (mut value, mut by) = (vec![f64::INFINITY; count], vec![None; count]);
        for class in 0..count {
            for &number in &self.candidates.of[class] {
                let candidate = &self.candidates.all[number];
                let inputs: f64 = self.pays[number].iter().map(|&(e, l)| self.share[e] * value[l]).sum();
                let full = candidate.price.seconds + inputs;
                let at = candidate.outputs.iter().position(|&o| o == class).unwrap_or(0);
                let part = if candidate.outputs.len() == 1 {
                    1.0
                } else {
                    self.serves[number][at].iter().map(|&e| self.share[e]).sum::<f64>() + self.rest(class)
                };
                let own = self.parts[number][at] * full / part;
                if part > NOTHING && own < value[class] {
                    (value[class], by[class]) = (own, Some(number));
                }
            }
        }
        (value, by)
    }

    /// Moves shares and parts toward what the cheapest candidates use.
    fn step(&mut self, by: &[Option<usize>], step: f64) {
        let (mut used, mut seen) = (vec![false; self.share.len()], vec![false; by.len()]);
        let mut stack = self.problem.roots.clone();
        while let Some(class) = stack.pop() {
            if !std::mem::replace(&mut seen[class], true) {
                for &(edge, input) in by[class].iter().flat_map(|&n| &self.pays[n]) {
                    used[edge] = true;
                    stack.push(input);
                }
            }
        }
        for (number, candidate) in self.candidates.all.iter().enumerate().filter(|c| c.1.outputs.len() > 1) {
            let wanted = candidate.outputs.iter().filter(|&&o| seen[o]).count();
            for (part, &output) in self.parts[number].iter_mut().zip(&candidate.outputs) {
                if wanted > 0 {
                    *part = *part * (1.0 - step) + if seen[output] { step / wanted as f64 } else { 0.0 };
                }
            }
        }
        for (class, edges) in self.into.iter().enumerate() {
            let users = edges.iter().filter(|&&e| used[e]).count();
            let all = users + usize::from(self.problem.classes[class].root);
            for &edge in edges.iter().filter(|_| users > 0) {
                self.share[edge] = self.share[edge] * (1.0 - step) + if used[edge] { step / all as f64 } else { 0.0 };
            }
        }
    }
}

/// Seconds that no cover by these candidates goes below.
pub(super) fn bound(problem: &Problem<'_>, candidates: &Candidates) -> f64 {
    let mut dual = Dual::new(problem, candidates);
    let mut best = 0.0f64;
    for round in 0..ROUNDS {
        let (value, by) = dual.values();
        let total: f64 =
            problem.roots.iter().map(|&r| dual.rest(r)).zip(&problem.roots).fold(0.0, |sum, (rest, &r)| {
                // A root that consumers pay for in full adds nothing, whatever its value is.
                if rest > NOTHING { sum + rest * value[r] } else { sum }
            });
        if total.is_finite() {
            best = best.max(total);
        }
        dual.step(&by, 0.5 / (1.0 + f64::from(round) / 10.0));
    }
    best
}
