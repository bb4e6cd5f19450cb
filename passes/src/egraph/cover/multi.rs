//! Kernels that store several values: an inner value beside the result that needs it, and siblings that read the same
//! tensor over the same folds, products of the same rows among them whatever their columns. Only for devices whose kernels can.

use super::super::lang::{AxisSet, axis_bit};
use super::body::{Body, Written, written};
use super::enumerate::{Candidate, Search};
use super::kind::{Form, form};
use super::loops::inner_axes;
use super::problem::{Choice, Class, Problem, Step};
use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Cuts of a class that an inner value is exported from.
const EXPORTERS: usize = 6;
/// Cuts of a class that siblings are merged from.
const SIBLINGS: usize = 2;
/// Cuts kept for one set of outputs.
const KEPT: usize = 2;

/// Which classes every way from the roots to a class goes through.
struct Ways {
    dominators: Dominators<NodeIndex>,
}

impl Ways {
    fn new(problem: &Problem<'_>) -> Ways {
        let mut graph = DiGraph::<(), ()>::new();
        let nodes: Vec<NodeIndex> = problem.classes.iter().map(|_| graph.add_node(())).collect();
        let top = graph.add_node(());
        for &root in &problem.roots {
            graph.add_edge(top, nodes[root], ());
        }
        for (class, info) in problem.classes.iter().enumerate() {
            let kids: BTreeSet<Class> = info.choices.iter().flat_map(|c| c.kids.iter().copied()).collect();
            for kid in kids {
                graph.add_edge(nodes[class], nodes[kid], ());
            }
        }
        Ways { dominators: simple_fast(&graph, top) }
    }

    /// Whether nobody reads `inner` but through `outer`: storing both is needless.
    fn needless(&self, inner: Class, outer: Class) -> bool {
        let above = self.dominators.strict_dominators(NodeIndex::new(inner));
        above.is_some_and(|mut d| d.any(|n| n.index() == outer))
    }
}

/// Finds kernels with several outputs among the kept bodies.
pub(super) struct Multi<'s, 'p, 'a> {
    search: &'s mut Search<'p, 'a>,
    found: BTreeMap<Vec<Class>, Vec<Candidate>>,
}

impl<'s, 'p, 'a> Multi<'s, 'p, 'a> {
    /// Cuts with two outputs or more, at most a few for each set of outputs.
    pub fn all(search: &'s mut Search<'p, 'a>) -> Vec<Candidate> {
        let most = search.problem.device.capabilities.most_outputs;
        if most < 2 {
            return Vec::new();
        }
        let ways = Ways::new(search.problem);
        let mut multi = Multi { search, found: BTreeMap::new() };
        multi.exports(&ways);
        multi.siblings(&ways, most);
        let mut out = Vec::new();
        let Multi { search, found } = multi;
        // With what it takes to have the inputs.
        let total = |c: &Candidate| c.price.rank + c.body.inputs.iter().map(|&i| search.flow[i]).sum::<f64>();
        for (_, mut candidates) in found {
            candidates.sort_by(|a, b| total(a).total_cmp(&total(b)).then_with(|| a.body.cmp(&b.body)));
            candidates.dedup_by(|a, b| a.body == b.body);
            candidates.truncate(KEPT);
            out.extend(candidates);
        }
        out
    }

    fn plain(&self, class: Class) -> bool {
        let info = &self.search.problem.classes[class];
        info.storable && info.simple.is_none() && !info.chain && info.dtype.is_float()
    }

    /// Inner values that others may want.
    fn exports(&mut self, ways: &Ways) {
        let problem = self.search.problem;
        for class in 0..problem.classes.len() {
            let bodies: Vec<Body> = self.search.kept[class].iter().take(EXPORTERS).map(|k| k.0.clone()).collect();
            for body in bodies {
                for &(inner, choice) in &body.nodes {
                    if self.search.is_narrow() {
                        return;
                    }
                    let info = &problem.classes[inner];
                    let view = matches!(info.choices.get(choice).map(|c| &c.step), Some(Step::At(_)));
                    let wanted = info.readers > 1 || info.root;
                    let inside = info.free & !problem.classes[class].free == 0;
                    if inner != class && !view && wanted && inside && self.plain(inner) && !ways.needless(inner, class)
                    {
                        self.put(body.clone(), &[class, inner]);
                    }
                }
            }
        }
    }

    /// Values with nested axes that fold the same axes of the same tensor.
    fn siblings(&mut self, ways: &Ways, most: usize) {
        let problem = self.search.problem;
        let folds = |body: &Body| {
            let axes = body.nodes.iter().filter_map(|n| problem.classes[n.0].choices.get(n.1).and_then(Choice::folds));
            axes.fold(0, |set, a| set | axis_bit(a))
        };
        let mut tops: Vec<(Class, Body, AxisSet)> = Vec::new();
        let mut products: BTreeSet<Class> = BTreeSet::new();
        for class in (0..problem.classes.len()).filter(|&c| self.plain(c)) {
            for (body, _) in self.search.kept[class].iter().take(SIBLINGS) {
                let axes = folds(body);
                if axes != 0 {
                    let is_product = |w: Written<'_>| matches!(form(problem, &w), Form::Products(_));
                    if written(problem, body, &[class]).is_some_and(is_product) {
                        products.insert(class);
                    }
                    tops.push((class, body.clone(), axes));
                }
            }
        }
        let mut level: Vec<(Vec<Class>, Body, AxisSet)> = tops.iter().map(|t| (vec![t.0], t.1.clone(), t.2)).collect();
        for _ in 1..most {
            let mut next: BTreeMap<(Vec<Class>, Body), AxisSet> = BTreeMap::new();
            for (outputs, body, axes) in &level {
                for (class, other, _) in tops.iter().filter(|t| t.2 == *axes && outputs.last() < Some(&t.0)) {
                    self.search.spend(1);
                    if self.search.is_narrow() {
                        return;
                    }
                    let nested = outputs.iter().all(|&o| {
                        let (a, b) = (problem.classes[o].free, problem.classes[*class].free);
                        let beside = products.contains(&o) && products.contains(class);
                        let fits = a & !b == 0 || b & !a == 0 || beside;
                        let apart = !ways.needless(o, *class) && !ways.needless(*class, o);
                        fits && apart && other.chosen(o).is_none() && !other.inputs.contains(&o)
                    });
                    let apart = body.chosen(*class).is_none() && !body.inputs.contains(class);
                    if nested
                        && apart
                        && self.shares(body, other, *axes)
                        && let Some(both) = body.join(other, usize::MAX)
                    {
                        let outputs: Vec<Class> = outputs.iter().copied().chain([*class]).collect();
                        self.put(both.clone(), &outputs);
                        next.insert((outputs, both), *axes);
                    }
                }
            }
            level = next.into_iter().map(|((outputs, body), axes)| (outputs, body, axes)).collect();
        }
    }

    /// Whether both read one tensor along the folded axes.
    fn shares(&self, a: &Body, b: &Body, axes: AxisSet) -> bool {
        let problem = self.search.problem;
        let streams = |class: Class| problem.classes[class].free & axes != 0;
        let loads = |class: &Class| problem.classes[*class].simple.is_some() && streams(*class);
        let load = a.nodes.iter().any(|n| loads(&n.0) && b.chosen(n.0).is_some());
        load || a.inputs.iter().any(|l| streams(*l) && b.inputs.binary_search(l).is_ok())
    }

    fn put(&mut self, body: Body, outputs: &[Class]) {
        let problem = self.search.problem;
        let mut sorted = outputs.to_vec();
        sorted.sort_unstable();
        let Some(w) = written(problem, &body, &sorted) else { return };
        let form = form(problem, &w);
        if apart(problem, &w, &form) {
            let candidate = self.search.candidate(body, sorted.clone(), &w, form);
            self.found.entry(sorted).or_default().push(candidate);
        }
    }
}

/// Whether each point of the grid writes elements of its own: an output that lacks an axis has that axis as a loop.
fn apart(problem: &Problem<'_>, w: &Written<'_>, form: &Form) -> bool {
    match form {
        Form::Pointwise | Form::Loops(_) => {
            let inner = inner_axes(problem, w).axes();
            w.outputs.iter().all(|&o| w.grid & !inner & !w.locals[o].free == 0)
        }
        Form::Products(_) | Form::Beside(_) | Form::Attention { .. } => true,
    }
}
