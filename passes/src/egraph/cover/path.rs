//! A lower bound by chains: a class costs its cheapest cut, the dearest of what that reads, and beside it every other
//! input that the dearest one cannot have paid for.

use super::enumerate::{Candidate, Candidates};
use super::problem::{Class, Problem};

/// Classes up to which sets of them are kept for each class.
const MOST_CONES: usize = 4096;
/// Roots that are looked at one after the other; any number of them gives a bound.
const MOST_ROOTS: usize = 32;
/// Seconds that are no difference.
const EQUAL: f64 = 1e-12;

/// A set of classes.
#[derive(Clone, Default)]
struct Set(Vec<u64>);

impl Set {
    fn with(count: usize, class: Class) -> Set {
        let mut set = Set(vec![0; count.div_ceil(64)]);
        if let Some(word) = set.0.get_mut(class / 64) {
            *word |= 1 << (class % 64);
        }
        set
    }

    fn has(&self, class: Class) -> bool {
        self.0.get(class / 64).is_some_and(|w| w >> (class % 64) & 1 == 1)
    }

    /// Adds another set; whether that changed anything.
    fn add(&mut self, other: &Set) -> bool {
        let mut changed = false;
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            changed |= *more & !*word != 0;
            *word |= more;
        }
        changed
    }
}

struct Paths<'p> {
    problem: &'p Problem<'p>,
    candidates: &'p Candidates,
    /// Per class, all that some cover of it may store; without entries where there are too many classes.
    cones: Vec<Set>,
    /// Per class, seconds of the cheapest cut that stores it.
    own: Vec<f64>,
}

/// The part of a cut's seconds that one output stands for.
fn part(candidate: &Candidate) -> f64 {
    candidate.price.seconds / candidate.outputs.len().max(1) as f64
}

impl<'p> Paths<'p> {
    fn new(problem: &'p Problem<'p>, candidates: &'p Candidates) -> Paths<'p> {
        let count = problem.classes.len();
        let cheapest = |of: &Vec<usize>| of.iter().map(|&n| part(&candidates.all[n])).fold(f64::INFINITY, f64::min);
        let own = candidates.of.iter().map(cheapest).collect();
        let mut cones: Vec<Set> = Vec::new();
        if count <= MOST_CONES {
            cones = (0..count).map(|c| Set::with(count, c)).collect();
            let mut changed = true;
            while changed {
                changed = false;
                for class in 0..count {
                    let mut cone = std::mem::take(&mut cones[class]);
                    for &number in &candidates.of[class] {
                        let candidate = &candidates.all[number];
                        for &need in candidate.body.inputs.iter().chain(&candidate.outputs).filter(|&&n| n != class) {
                            changed |= cone.add(&cones[need]);
                        }
                    }
                    cones[class] = cone;
                }
            }
        }
        Paths { problem, candidates, cones, own }
    }

    /// Seconds of one of `classes` and of those beside it that its cover cannot store.
    fn together(&self, classes: &[Class], low: &[f64], paid: &Set) -> f64 {
        let mut most = 0.0f64;
        for &first in classes {
            let beside = classes.iter().filter(|&&c| match self.cones.get(first) {
                Some(cone) => !cone.has(c) && !paid.has(c),
                None => false,
            });
            most = most.max(low[first] + beside.map(|&c| self.own[c]).sum::<f64>());
        }
        most
    }

    /// Least seconds of each class where what is in `paid` costs nothing.
    fn values(&self, paid: &Set) -> Vec<f64> {
        let count = self.problem.classes.len();
        let mut low: Vec<f64> = (0..count).map(|c| if paid.has(c) { 0.0 } else { f64::INFINITY }).collect();
        loop {
            let mut changed = false;
            for class in (0..count).filter(|&c| !paid.has(c)) {
                for &number in &self.candidates.of[class] {
                    let candidate = &self.candidates.all[number];
                    let total = part(candidate) + self.together(&candidate.body.inputs, &low, paid);
                    if total < low[class] - EQUAL {
                        (low[class], changed) = (total, true);
                    }
                }
            }
            if !changed {
                return low;
            }
        }
    }
}

/// Seconds that no cover by these candidates goes below: the dearest root, then each further one without what covers of
/// those before it may have stored.
pub(super) fn path(problem: &Problem<'_>, candidates: &Candidates) -> f64 {
    let paths = Paths::new(problem, candidates);
    let mut paid = Set::with(problem.classes.len(), usize::MAX);
    let (mut total, mut left) = (0.0, problem.roots.clone());
    for _ in 0..MOST_ROOTS.min(left.len()) {
        if left.is_empty() {
            break;
        }
        let low = paths.values(&paid);
        let Some(next) = left.iter().copied().max_by(|a, b| low[*a].total_cmp(&low[*b]).then(b.cmp(a))) else { break };
        total += low[next];
        let Some(cone) = paths.cones.get(next) else { break };
        paid.add(cone);
        left.retain(|r| !paid.has(*r));
    }
    total
}
