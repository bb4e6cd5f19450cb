//! A lower bound by chains: a class costs its cheapest cut, the dearest of what that reads, and beside it every other
//! input that the dearest one cannot have paid for.

use super::enumerate::{Candidate, Candidates};
use super::problem::{Class, Problem};
use smallvec::SmallVec;

/// Classes up to which sets of them are kept for each class.
const MOST_CONES: usize = 4096;
/// Roots that are looked at one after the other; any number of them gives a bound.
const MOST_ROOTS: usize = 32;
/// Seconds that are no difference.
const EQUAL: f64 = 1e-12;
/// More than sums of the same numbers differ by, in whatever order.
const ROUNDED: f64 = 1.0 + 1e-9;

/// A set of classes.
#[derive(Clone, Default)]
pub(super) struct Set(Vec<u64>);

impl Set {
    /// None of `count` classes.
    pub fn new(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)])
    }

    pub fn insert(&mut self, class: Class) {
        if let Some(word) = self.0.get_mut(class / 64) {
            *word |= 1 << (class % 64);
        }
    }

    pub fn has(&self, class: Class) -> bool {
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

/// Least seconds of classes, by chains.
pub(super) struct Paths<'p> {
    problem: &'p Problem<'p>,
    candidates: &'p Candidates,
    /// Per class, the cuts that store it.
    cuts: Vec<Vec<Cut>>,
    /// Per class, all that some cover of it may store; without entries where there are too many classes.
    cones: Vec<Set>,
    /// Per class, seconds of the cheapest cut that stores it.
    own: Vec<f64>,
    /// Places of classes in an order: what a class reads from after itself is taken to be there. Without entries all is read.
    places: Vec<u32>,
}

/// A cut of one class.
struct Cut {
    /// The part of its seconds that the class stands for.
    seconds: f64,
    /// What it reads.
    reads: SmallVec<[Class; 8]>,
}

/// The part of a cut's seconds that one output stands for.
fn part(candidate: &Candidate) -> f64 {
    candidate.price.seconds / candidate.outputs.len().max(1) as f64
}

impl<'p> Paths<'p> {
    pub fn new(problem: &'p Problem<'p>, candidates: &'p Candidates, places: Vec<u32>) -> Paths<'p> {
        let count = problem.classes.len();
        let cheapest = |of: &Vec<usize>| of.iter().map(|&n| part(&candidates.all[n])).fold(f64::INFINITY, f64::min);
        let own = candidates.of.iter().map(cheapest).collect();
        let (cuts, cones) = (Vec::new(), Vec::new());
        let mut paths = Paths { problem, candidates, cuts, cones, own, places };
        let cut = |class: Class, number: &usize| {
            let candidate = &candidates.all[*number];
            Cut { seconds: part(candidate), reads: paths.reads(class, candidate).collect() }
        };
        let of = candidates.of.iter().enumerate();
        paths.cuts = of.map(|(class, of)| of.iter().map(|number| cut(class, number)).collect()).collect();
        if count <= MOST_CONES {
            paths.cones = paths.cones(count);
        }
        paths
    }

    /// Per class, all that some cover of it may store.
    fn cones(&self, count: usize) -> Vec<Set> {
        let mut cones = vec![Set::new(count); count];
        cones.iter_mut().enumerate().for_each(|(class, cone)| cone.insert(class));
        let mut changed = true;
        while changed {
            changed = false;
            for class in 0..count {
                let mut cone = std::mem::take(&mut cones[class]);
                for &number in &self.candidates.of[class] {
                    let candidate = &self.candidates.all[number];
                    let others = candidate.outputs.iter().copied().filter(|&o| o != class);
                    for need in self.reads(class, candidate).chain(others) {
                        changed |= cone.add(&cones[need]);
                    }
                }
                cones[class] = cone;
            }
        }
        cones
    }

    /// What a candidate reads to store a class, or has to come after.
    fn reads<'c>(&self, class: Class, candidate: &'c Candidate) -> impl Iterator<Item = Class> + use<'c, '_> {
        let place = self.places.get(class).copied().unwrap_or(u32::MAX);
        let before = move |input: &Class| self.places.get(*input).is_none_or(|&p| p < place);
        let needs = candidate.body.inputs.iter().chain(&candidate.after);
        needs.copied().filter(move |input| *input != class && before(input))
    }

    /// Seconds of one of `classes` and of those beside it that its cover cannot store.
    pub fn together(&self, classes: &[Class], low: &[f64], paid: &Set) -> f64 {
        let mut most = classes.iter().map(|&first| low[first]).fold(0.0, f64::max);
        // Most that there is beside any, however it is rounded.
        let all = ROUNDED * classes.iter().filter(|c| !paid.has(**c)).map(|&c| self.own[c]).sum::<f64>();
        for &first in classes {
            if low[first] + all <= most {
                continue;
            }
            let beside = classes.iter().filter(|&&c| match self.cones.get(first) {
                Some(cone) => !cone.has(c) && !paid.has(c),
                None => false,
            });
            most = most.max(low[first] + beside.map(|&c| self.own[c]).sum::<f64>());
        }
        most
    }

    /// Whether a cover of a class may store another.
    pub fn reaches(&self, class: Class, other: Class) -> bool {
        self.cones.get(class).is_none_or(|cone| cone.has(other))
    }

    /// Whether a cover of a class may store some of `classes`.
    pub fn meets(&self, class: Class, classes: &Set) -> bool {
        self.cones.get(class).is_none_or(|cone| cone.0.iter().zip(&classes.0).any(|(a, b)| a & b != 0))
    }

    /// Least seconds of each class where what is in `paid` costs nothing.
    pub fn values(&self, paid: &Set) -> Vec<f64> {
        let classes: Vec<Class> = (0..self.problem.classes.len()).collect();
        self.again(paid, vec![f64::INFINITY; classes.len()], &classes)
    }

    /// Values that hold where nothing is paid, for some classes looked at anew where `paid` costs nothing.
    pub fn again(&self, paid: &Set, mut low: Vec<f64>, classes: &[Class]) -> Vec<f64> {
        classes.iter().for_each(|&c| low[c] = if paid.has(c) { 0.0 } else { f64::INFINITY });
        loop {
            let mut changed = false;
            for class in classes.iter().copied().filter(|&c| !paid.has(c)) {
                for Cut { seconds, reads } in &self.cuts[class] {
                    let enough = low[class] - EQUAL;
                    if *seconds >= enough || reads.iter().any(|&read| seconds + low[read] >= enough) {
                        continue;
                    }
                    let total = seconds + self.together(reads, &low, paid);
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
    let paths = Paths::new(problem, candidates, Vec::new());
    let mut paid = Set::new(problem.classes.len());
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
