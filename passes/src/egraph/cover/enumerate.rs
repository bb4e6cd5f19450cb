//! Bounded enumeration of cuts: for each class, children first, its nodes with each operand read or computed inside.

use super::super::lang::Affine;
use super::body::{Body, MOST_NODES, Written, written};
use super::kind::{Form, form};
use super::multi::Multi;
use super::price::price;
use super::problem::{Choice, Class, Problem, Step};
use super::{Counts, CoverLimits, Price};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use tilewright_ir::diag::Diagnostic;

/// Ways to combine operands of one node that are followed; the cheapest go on.
const WAYS: usize = 48;
/// The same after steps are used up.
const FEW_WAYS: usize = 6;

/// A cut that a cover may contain.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// What it stores.
    pub outputs: Vec<Class>,
    /// What it computes and reads.
    pub body: Body,
    /// What it takes.
    pub price: Price,
    /// Classes that must be stored before it starts, beside its inputs.
    pub after: Vec<Class>,
}

/// All cuts that were kept.
pub(super) struct Candidates {
    /// The cuts.
    pub all: Vec<Candidate>,
    /// Per class, the cuts that store it.
    pub of: Vec<Vec<usize>>,
}

/// A combination of operands, with a sum of what those that are computed inside take.
struct Way {
    body: Body,
    inside: f64,
}

/// A legal body of a class.
struct Priced {
    body: Body,
    price: Price,
    /// Rank and inputs in full, and rank and inputs shared among their readers.
    totals: [f64; 2],
    /// Whether a larger kernel computes it as this one cannot, see [`Form::is_promising`].
    promising: bool,
}

pub(super) struct Search<'p, 'a> {
    pub problem: &'p Problem<'a>,
    limits: CoverLimits,
    counts: &'p mut Counts,
    /// Steps after which the search is narrow.
    steps: usize,
    /// Kept bodies by class.
    pub kept: Vec<Vec<(Body, Price)>>,
    /// Seconds of the cheapest way to have a class in memory, everything below it included.
    pub flow: Vec<f64>,
    /// Prices by the hash of [`canonical`]: a collision could only make a kernel look cheaper or dearer than it is.
    memo: HashMap<u64, (Price, bool)>,
    /// Space for the key of a body.
    key: Vec<u64>,
}

impl Candidates {
    /// Enumerates. Errors: bugs.
    pub fn new(problem: &Problem<'_>, limits: CoverLimits, counts: &mut Counts) -> Result<Candidates, Diagnostic> {
        let count = problem.classes.len();
        let kept = vec![Vec::new(); count];
        let flow = vec![f64::INFINITY; count];
        let steps = limits.steps;
        let mut search = Search { problem, limits, counts, steps, kept, flow, memo: HashMap::new(), key: Vec::new() };
        let edges = || problem.classes.iter().enumerate().flat_map(|(c, i)| i.choices.iter().map(move |n| (c, n)));
        let cyclic = edges().any(|(class, choice)| choice.kids.iter().any(|&k| k >= class));
        let order = order(problem);
        for _ in 0..if cyclic { 2 } else { 1 } {
            for &class in &order {
                search.class(class);
            }
        }
        search.steps = search.counts.steps + limits.steps / 2;
        let several = Multi::all(&mut search);
        let kept = search.kept;
        let mut out = Candidates { all: Vec::new(), of: vec![Vec::new(); count] };
        for (class, bodies) in kept.into_iter().enumerate() {
            let info = &problem.classes[class];
            if info.storable || info.root {
                for (body, price) in bodies {
                    let after = after(problem, &body);
                    out.push(Candidate { outputs: vec![class], body, price, after });
                }
            }
        }
        several.into_iter().for_each(|c| out.push(c));
        Ok(out)
    }

    fn push(&mut self, candidate: Candidate) {
        for &output in &candidate.outputs {
            self.of[output].push(self.all.len());
        }
        self.all.push(candidate);
    }
}

/// Classes in the order in which they are looked at: what a class is made of first, and a value in f32 before the half that
/// holds it, whichever of them was numbered first.
fn order(problem: &Problem<'_>) -> Vec<Class> {
    let count = problem.classes.len();
    if problem.classes.iter().all(|info| info.narrow.is_none()) {
        return (0..count).collect();
    }
    let kids = |class: Class| {
        let info = &problem.classes[class];
        let converts = info.narrow.map(|(choice, _)| choice);
        let others = info.choices.iter().enumerate().filter(move |(i, _)| Some(*i) != converts);
        others.flat_map(|(_, c)| c.kids.iter().copied())
    };
    let (mut order, mut seen) = (Vec::with_capacity(count), vec![false; count]);
    for start in 0..count {
        let mut open = vec![(start, false)];
        while let Some((class, done)) = open.pop() {
            if done {
                order.push(class);
            } else if !std::mem::replace(&mut seen[class], true) {
                open.push((class, true));
                open.extend(kids(class).filter(|&k| !seen[k]).map(|k| (k, false)));
            }
        }
    }
    order
}

/// Classes that barriers read to make what the body loads.
fn after(problem: &Problem<'_>, body: &Body) -> Vec<Class> {
    let mut found = Vec::new();
    for &(class, choice) in &body.nodes {
        let step = problem.classes[class].choices.get(choice).map(|c| &c.step);
        if let Some(Step::Load(input, _) | Step::Gather(input, _)) = step
            && let Some(facts) = problem.context.inputs.get(*input as usize)
        {
            found.extend(facts.after.iter().filter_map(|id| problem.number.get(id)));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

impl Search<'_, '_> {
    /// Whether steps are used up.
    pub fn is_narrow(&self) -> bool {
        self.counts.steps >= self.steps
    }

    /// Counts work that is no body.
    pub fn spend(&mut self, steps: usize) {
        self.counts.steps += steps;
    }

    fn class(&mut self, class: Class) {
        let problem = self.problem;
        let info = &problem.classes[class];
        self.counts.narrowed += usize::from(self.is_narrow());
        if let Some(simple) = info.simple {
            let body = Body::single(class, simple);
            if let Some((price, _)) = self.price(&body, &[class]) {
                self.flow[class] = price.seconds;
                self.kept[class] = vec![(body, price)];
            }
            return;
        }
        let mut made: Vec<Body> = Vec::new();
        for (number, choice) in info.choices.iter().enumerate() {
            made.extend(self.ways(class, number, choice));
        }
        made.sort_unstable();
        made.dedup();
        self.counts.enumerated += made.len();
        let total = made.len();
        let mut legal: Vec<Priced> = Vec::new();
        for body in made {
            if let Some((price, promising)) = self.price(&body, &[class]) {
                let totals = [false, true].map(|split| price.rank + self.inputs(&body, split));
                legal.push(Priced { body, price, totals, promising });
            }
        }
        if let Some(least) = legal.iter().map(|p| p.totals[0] - p.price.rank + p.price.seconds).min_by(f64::total_cmp) {
            self.flow[class] = least;
        }
        let kept = self.keep(legal);
        self.counts.pruned += total - kept.len();
        self.kept[class] = kept;
    }

    /// Bodies of a class that begin with one of its nodes.
    fn ways(&mut self, class: Class, number: usize, choice: &Choice) -> Vec<Body> {
        let mut ways = vec![Way { body: Body::single(class, number), inside: 0.0 }];
        for (at, &kid) in choice.kids.iter().enumerate() {
            if kid == class {
                return Vec::new();
            }
            if choice.kids[..at].contains(&kid) {
                continue;
            }
            let info = &self.problem.classes[kid];
            let large = self.kept[kid].iter().all(|(b, _)| b.nodes.len() > MOST_NODES / 2);
            let read = info.simple.is_none() && info.storable && (!info.chain || large) && self.flow[kid].is_finite();
            let converted = info.narrow.filter(|(_, half)| {
                let half = &self.problem.classes[*half];
                half.storable && (!half.chain || large)
            });
            let converted = converted.filter(|(_, half)| *half != class && self.flow[*half].is_finite());
            let converted = converted.and_then(|(n, half)| Body::single(kid, n).join(&Body::input(half), kid));
            let view = matches!(choice.step, Step::At(_)) && info.simple.is_none();
            let input = Body::input(kid);
            let mut options: Vec<(&Body, f64)> = Vec::new();
            if read {
                options.push((&input, 0.0));
            }
            if !view {
                options.extend(converted.iter().map(|body| (body, 0.0)));
                options.extend(self.kept[kid].iter().map(|(body, price)| (body, price.rank)));
            }
            let mut next = Vec::with_capacity(ways.len() * options.len());
            for way in &ways {
                for (option, rank) in &options {
                    if let Some(body) = way.body.join(option, class) {
                        next.push(Way { body, inside: way.inside + rank });
                    }
                }
            }
            ways = self.fewer(next);
        }
        ways.into_iter().map(|w| w.body).collect()
    }

    /// Seconds of reading what a body reads, in full or in shares of all that could read it.
    fn inputs(&self, body: &Body, split: bool) -> f64 {
        let share = |l: &Class| if split { self.problem.classes[*l].readers.max(1) as f64 } else { 1.0 };
        body.inputs.iter().map(|l| self.flow[*l] / share(l)).sum()
    }

    /// The most promising ways: half of them with inputs paid in full, half with inputs shared.
    fn fewer(&self, mut ways: Vec<Way>) -> Vec<Way> {
        let most = if self.is_narrow() { FEW_WAYS } else { WAYS };
        if ways.len() <= most {
            return ways;
        }
        // What reads all that it can is dear in both, as what it reads is paid in full by each that needs it.
        let smallest = ways.iter().min_by(|a, b| (a.body.nodes.len(), &a.body).cmp(&(b.body.nodes.len(), &b.body)));
        let smallest = smallest.map(|w| Way { body: w.body.clone(), inside: w.inside });
        for (split, keep) in [(false, 0), (true, most / 2)] {
            let rest = ways.split_off(keep);
            let mut rest: Vec<(f64, Way)> =
                rest.into_iter().map(|w| (w.inside + self.inputs(&w.body, split), w)).collect();
            rest.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.body.cmp(&b.1.body)));
            ways.extend(rest.into_iter().map(|r| r.1));
        }
        ways.truncate(most);
        ways.extend(smallest.filter(|s| ways.iter().all(|w| w.body != s.body)));
        ways
    }

    /// A cut that stores `outputs`: a body as it is written, and its form.
    pub fn candidate(&mut self, body: Body, outputs: Vec<Class>, w: &Written<'_>, form: Form) -> Candidate {
        self.counts.enumerated += 1;
        self.counts.steps += body.nodes.len() + body.inputs.len();
        let (price, _) = self.remembered(w, || form);
        let after = after(self.problem, &body);
        Candidate { outputs, body, price, after }
    }

    /// The legal body's price and whether its form is promising.
    fn price(&mut self, body: &Body, outputs: &[Class]) -> Option<(Price, bool)> {
        self.counts.steps += body.nodes.len() + body.inputs.len();
        let problem = self.problem;
        let w = written(problem, body, outputs)?;
        Some(self.remembered(&w, || form(problem, &w)))
    }

    /// The price of a body and whether its form is promising, from memory if an equal one was seen.
    fn remembered(&mut self, w: &Written<'_>, form: impl FnOnce() -> Form) -> (Price, bool) {
        canonical(self.problem, w, &mut self.key);
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(price) = self.memo.get(&key) {
            self.counts.remembered += 1;
            return *price;
        }
        let f = form();
        let found = (price(self.problem, w, &f), f.is_promising(self.problem, w));
        self.memo.insert(key, found);
        found
    }

    /// The best of both rankings, one for each set of inputs, the smallest, and the best of the promising ones.
    fn keep(&self, mut legal: Vec<Priced>) -> Vec<(Body, Price)> {
        let spent = self.is_narrow() || self.counts.enumerated > self.limits.bodies;
        let most = if spent { 2 } else { self.limits.keep.max(1) };
        let smallest = legal.iter().map(|p| (p.body.nodes.len(), &p.body)).min().map(|s| s.1.clone());
        let mut kept: Vec<(Body, Price)> = Vec::new();
        for (ranking, limit) in [(0, most), (1, most + most / 2)] {
            legal.sort_by(|a, b| by_total(a, b, ranking));
            for p in &legal {
                if kept.len() < limit && !kept.iter().any(|k| k.0.inputs == p.body.inputs) {
                    kept.push((p.body.clone(), p.price));
                }
            }
        }
        if let Some(promising) = legal.iter().filter(|p| p.promising).min_by(|a, b| by_total(a, b, 0))
            && !kept.iter().any(|k| k.0 == promising.body)
        {
            kept.push((promising.body.clone(), promising.price));
        }
        if let Some(smallest) = smallest
            && !kept.iter().any(|k| k.0 == smallest)
            && let Some(found) = legal.into_iter().find(|p| p.body == smallest)
        {
            kept.push((found.body, found.price));
        }
        kept
    }
}

fn by_total(a: &Priced, b: &Priced, ranking: usize) -> Ordering {
    a.totals[ranking]
        .total_cmp(&b.totals[ranking])
        .then(a.body.nodes.len().cmp(&b.body.nodes.len()))
        .then_with(|| a.body.cmp(&b.body))
}

/// A body without names: equal for equal kernels of different layers. Everything that a price depends on is in it.
fn canonical(problem: &Problem<'_>, w: &Written<'_>, key: &mut Vec<u64>) {
    let mut axes: Vec<u8> = Vec::new();
    key.clear();
    let mut axis = |a: u8| match axes.iter().position(|&x| x == a) {
        Some(i) => i as u64,
        None => {
            axes.push(a);
            axes.len() as u64 - 1
        }
    };
    let mut map = |key: &mut Vec<u64>, entries: &[Affine]| {
        for entry in entries {
            key.push(entry.constant as u64);
            for term in &entry.terms {
                // The stand-in of a gathered index is no axis.
                key.extend([axis(term.0), term.1 as u64]);
            }
            key.push(u64::MAX);
        }
    };
    let named = |a: u8| [Affine::axis(a)];
    for local in &w.locals {
        let code = local.choice.map_or(0, |c| u64::from(c.code) + 1);
        key.extend([u64::MAX - 1, code << 8 | problem.classes[local.class].dtype as u64]);
        let Some(choice) = local.choice else {
            super::problem::each(local.free).for_each(|a| map(key, &named(a)));
            continue;
        };
        // The values of a body are far fewer than 2^16.
        key.extend(local.kids.chunks(4).map(|c| c.iter().fold(0, |word, &k| word << 16 | (k as u64 + 1))));
        match &choice.step {
            Step::Load(input, entries) | Step::Gather(input, entries) => {
                key.push(u64::from(problem.context.is_weight(*input)));
                map(key, entries);
            }
            Step::At(subst) => {
                for (from, to) in subst {
                    map(key, &named(*from));
                    map(key, std::slice::from_ref(to));
                }
            }
            Step::Fold(_, over) => map(key, &named(*over)),
            Step::Number => super::problem::each(choice.own).for_each(|a| map(key, &named(a))),
            Step::Map { .. } => {}
        }
    }
    for &output in &w.outputs {
        key.extend([u64::MAX - 2, output as u64]);
        let order = &problem.classes[w.locals[output].class].order;
        order.iter().flatten().for_each(|&a| map(key, &named(a)));
    }
    key.push(u64::MAX - 3);
    for a in axes {
        key.push(problem.extent(a).to_bits());
        key.extend([u64::from(problem.is_constant(a)), problem.longest(a).to_bits()]);
    }
}
