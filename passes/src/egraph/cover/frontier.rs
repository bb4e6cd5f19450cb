//! An exact search for the cheapest cover: from the roots down, class by class, over the sets of classes that have yet to be
//! stored.
//!
//! Classes are looked at in an order in which kernels read what comes before. The latest class of a set is stored by each of
//! its cuts in turn, which leaves the set without it and with what the cut reads. How the classes above came to be stored no
//! longer matters, so equal sets are one and shared work is paid once. A graph of layers has few such sets, however many ways
//! there are to cover it. Each search (A*) goes on from the set that promises the cheapest cover, by the bound of [`Paths`] and
//! by what searches before it have learned; what that one promises is at any time a bound of every cover. A set is
//! dropped where the same one less a class is left after as few seconds. Classes are searched one after the other, roots last, so that
//! each search ends where what is below is known.
//!
//! Work is counted in sets that are made.

use super::enumerate::Candidates;
use super::path::{Paths, Set};
use super::problem::{Class, Problem};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

/// Seconds that are no difference.
const EQUAL: f64 = 1e-12;
/// Pairs of classes of a set that are one more unit of work.
const PAIRS: usize = 64;
/// Classes whose least seconds are one unit.
const CLASSES: usize = 4;
/// Units for one class that is no root.
const EACH: usize = 500;

/// Places in the order of classes, ascending.
type Places = SmallVec<[u32; 8]>;

/// A cover in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// What has yet to be stored.
    needed: Places,
    /// What kernels with several outputs have stored beside what was needed, as far as it may still be read.
    ready: Places,
}

/// A state and how it was come to.
struct Step {
    state: State,
    /// Seconds of the cuts so far.
    seconds: f64,
    /// The step before and the cut that was taken there.
    from: Option<(usize, usize)>,
}

/// Least seconds of classes where some are ready.
struct Low {
    seconds: Vec<f64>,
    ready: Set,
}

/// What is known of covers after a search.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// No cover takes fewer seconds.
    pub low: f64,
    /// The cuts of the cheapest cover if one is cheaper than the one that was known. Where kernels read what comes after them
    /// in the order of classes it may be none, or dearer than `low`.
    pub cuts: Option<Vec<usize>>,
}

/// How much a search may look at.
pub(super) struct Work<'c> {
    /// Units so far.
    pub units: &'c mut usize,
    /// Units at which it ends.
    pub limit: usize,
}

impl Work<'_> {
    fn is_done(&self) -> bool {
        *self.units >= self.limit
    }
}

pub(super) struct Frontier<'p> {
    candidates: &'p Candidates,
    roots: Vec<Class>,
    paths: Paths<'p>,
    /// Classes, what is read first; and the place of each.
    order: Vec<Class>,
    places: Vec<u32>,
    /// Least seconds of each class.
    low: Vec<f64>,
    /// The same where something is ready; made for one search.
    beside: HashMap<Places, Rc<Low>>,
    /// Classes that were looked at for these since somebody asked.
    besides: usize,
    /// Least seconds of states, from searches that went through them.
    learned: HashMap<State, f64>,
    /// The first cut of the cheapest way on, where `learned` is exact.
    exact: HashMap<State, usize>,
    steps: Vec<Step>,
    /// Least seconds so far to each state.
    seen: HashMap<State, f64>,
    /// Steps by what they promise; of equal ones the latest first.
    open: BinaryHeap<Reverse<(u64, Reverse<usize>)>>,
}

impl<'p> Frontier<'p> {
    pub fn new(problem: &'p Problem<'p>, candidates: &'p Candidates) -> Frontier<'p> {
        let order = order(problem, candidates);
        let mut places = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(&class, place)| places[class] = place);
        let paths = Paths::new(problem, candidates, places.clone());
        let low = paths.values(&Set::new(order.len()));
        Frontier {
            candidates,
            roots: problem.roots.clone(),
            paths,
            order,
            places,
            low,
            beside: HashMap::new(),
            besides: 0,
            learned: HashMap::new(),
            exact: HashMap::new(),
            steps: Vec::new(),
            seen: HashMap::new(),
            open: BinaryHeap::new(),
        }
    }

    /// Searches for the cheapest cover. `known` are seconds of a cover: if that is the cheapest, none is found.
    pub fn search(mut self, known: f64, mut work: Work<'_>) -> Outcome {
        for place in 0..self.order.len() {
            let class = self.order[place];
            if self.candidates.of[class].is_empty() {
                continue;
            }
            let limit = work.limit.min(*work.units + EACH);
            let found = self.cheapest(&[class], f64::INFINITY, &mut Work { units: &mut *work.units, limit });
            self.low[class] = self.low[class].max(found.low);
            if work.is_done() {
                break;
            }
        }
        let roots = self.roots.clone();
        self.cheapest(&roots, known, &mut work)
    }

    /// Begins a search with what stores some classes.
    fn start(&mut self, classes: &[Class], known: f64) {
        self.steps.clear();
        self.seen.clear();
        self.open.clear();
        self.beside.clear();
        self.besides = 0;
        let mut start = State::default();
        classes.iter().for_each(|&class| insert(&mut start.needed, self.places[class]));
        self.add(start, 0.0, None, known);
    }

    /// Searches for the cheapest way to store some classes.
    fn cheapest(&mut self, classes: &[Class], known: f64, work: &mut Work<'_>) -> Outcome {
        self.start(classes, known);
        let mut low = 0.0f64;
        let mut goal = None;
        while let Some(&Reverse((promise, Reverse(number)))) = self.open.peek() {
            low = low.max(f64::from_bits(promise));
            let state = &self.steps[number].state;
            if state.needed.is_empty() || self.exact.contains_key(state) {
                goal = Some(number);
                break;
            }
            if work.is_done() {
                break;
            }
            self.open.pop();
            if self.is_undominated(number) {
                *work.units += self.expand(number, known);
            }
        }
        if self.open.is_empty() {
            low = known;
        }
        self.learn(low, goal);
        Outcome { low, cuts: goal.map(|n| self.cuts(n)) }
    }

    /// Keeps what a search says of the states that it came to: from there on all but their seconds is needed yet.
    fn learn(&mut self, low: f64, goal: Option<usize>) {
        for step in self.steps.iter().filter(|_| low.is_finite()) {
            let rest = low - step.seconds;
            if rest > 0.0 {
                let known = self.learned.entry(step.state.clone()).or_insert(0.0);
                *known = known.max(rest);
            }
        }
        let mut at = goal;
        while let Some((before, cut)) = at.and_then(|number| self.steps[number].from) {
            self.exact.insert(self.steps[before].state.clone(), cut);
            at = Some(before);
        }
    }

    /// The cuts that lead to a step, and those of the cheapest way on if that is known.
    fn cuts(&self, number: usize) -> Vec<usize> {
        let (mut cuts, mut at) = (Vec::new(), number);
        while let Some((before, cut)) = self.steps[at].from {
            cuts.push(cut);
            at = before;
        }
        cuts.reverse();
        let mut state = self.steps[number].state.clone();
        while let Some(&cut) = self.exact.get(&state) {
            cuts.push(cut);
            state = self.after(&state, cut);
        }
        cuts
    }

    /// Whether nothing cheaper led to the state of a step, and nothing as cheap to one that needs a class less: whatever stores
    /// the classes of the one stores those of the other.
    fn is_undominated(&self, number: usize) -> bool {
        let Step { state, seconds, .. } = &self.steps[number];
        if self.seen.get(state).is_some_and(|least| least < seconds) {
            return false;
        }
        let without = |at: usize| {
            let mut less = state.clone();
            less.needed.remove(at);
            self.forget(&mut less);
            less
        };
        let needed = 0..state.needed.len();
        !needed.map(without).any(|less| self.seen.get(&less).is_some_and(|least| least <= seconds))
    }

    /// Drops what is ready and no cover of what is needed may read.
    fn forget(&self, State { needed, ready }: &mut State) {
        let class = |place: u32| self.order[place as usize];
        ready.retain(|p| needed.iter().any(|&n| n > *p && self.paths.reaches(class(n), class(*p))));
    }

    /// The states after one; gives the work that it was.
    fn expand(&mut self, number: usize, known: f64) -> usize {
        let (state, seconds) = (self.steps[number].state.clone(), self.steps[number].seconds);
        let Some(&latest) = state.needed.last() else { return 0 };
        let candidates = self.candidates;
        let cuts = &candidates.of[self.order[latest as usize]];
        for &cut in cuts {
            let next = self.after(&state, cut);
            self.add(next, seconds + candidates.all[cut].price.seconds, Some((number, cut)), known);
        }
        let sets = cuts.len() * (1 + state.needed.len().pow(2) / PAIRS);
        sets + std::mem::take(&mut self.besides) / CLASSES
    }

    /// The state in which a cut has stored the latest class of another.
    fn after(&self, state: &State, cut: usize) -> State {
        let candidate = &self.candidates.all[cut];
        let mut next = state.clone();
        let Some(latest) = next.needed.pop() else { return next };
        for &output in &candidate.outputs {
            let place = self.places[output];
            if place < latest {
                remove(&mut next.needed, place);
                insert(&mut next.ready, place);
            }
        }
        for &need in candidate.body.inputs.iter().chain(&candidate.after) {
            let place = self.places[need];
            // What comes later is taken to be there: that can only make a cover look cheaper.
            if place < latest && next.ready.binary_search(&place).is_err() {
                insert(&mut next.needed, place);
            }
        }
        self.forget(&mut next);
        next
    }

    /// Adds a step unless an equal state is reached by as few seconds, or it cannot lead to a cover of fewer than `known`.
    fn add(&mut self, state: State, seconds: f64, from: Option<(usize, usize)>, known: f64) {
        if self.seen.get(&state).is_some_and(|&least| least <= seconds) {
            return;
        }
        let learned = self.learned.get(&state).copied().unwrap_or(0.0);
        let promise = seconds + self.rest(&state).max(learned);
        if promise >= known - EQUAL {
            return;
        }
        self.seen.insert(state.clone(), seconds);
        self.open.push(Reverse((promise.to_bits(), Reverse(self.steps.len()))));
        self.steps.push(Step { state, seconds, from });
    }

    /// Seconds that no way to store what a state needs goes below.
    fn rest(&mut self, state: &State) -> f64 {
        let classes: SmallVec<[Class; 8]> = state.needed.iter().map(|&p| self.order[p as usize]).collect();
        if state.ready.is_empty() {
            return self.paths.together(&classes, &self.low, &Set::default());
        }
        let low = match self.beside.get(&state.ready) {
            Some(low) => low.clone(),
            None => {
                let low = Rc::new(self.low_beside(&state.ready));
                self.beside.insert(state.ready.clone(), low.clone());
                low
            }
        };
        self.paths.together(&classes, &low.seconds, &low.ready)
    }

    /// Least seconds where some classes are ready: others only for what may read them.
    fn low_beside(&mut self, places: &Places) -> Low {
        let mut ready = Set::new(self.order.len());
        places.iter().for_each(|&p| ready.insert(self.order[p as usize]));
        let first = places.first().map_or(0, |&p| p as usize);
        let later = self.order[first..].iter().copied();
        let readers: Vec<Class> = later.filter(|&c| self.paths.meets(c, &ready)).collect();
        self.besides += readers.len();
        Low { seconds: self.paths.again(&ready, self.low.clone(), &readers), ready }
    }
}

/// Classes, those that the cuts of a class read before it; what reads each other in the order of their numbers.
fn order(problem: &Problem<'_>, candidates: &Candidates) -> Vec<Class> {
    let mut graph = DiGraph::<(), ()>::new();
    let nodes: Vec<NodeIndex> = problem.classes.iter().map(|_| graph.add_node(())).collect();
    for candidate in &candidates.all {
        for &need in candidate.body.inputs.iter().chain(&candidate.after) {
            candidate.outputs.iter().for_each(|&o| {
                graph.add_edge(nodes[o], nodes[need], ());
            });
        }
    }
    let sorted = tarjan_scc(&graph).into_iter().map(|mut group| {
        group.sort_unstable();
        group
    });
    sorted.flatten().map(NodeIndex::index).collect()
}

fn insert(places: &mut Places, place: u32) {
    if let Err(at) = places.binary_search(&place) {
        places.insert(at, place);
    }
}

fn remove(places: &mut Places, place: u32) {
    if let Ok(at) = places.binary_search(&place) {
        places.remove(at);
    }
}
