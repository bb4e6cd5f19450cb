//! Makes a case that is computed wrongly small: fewer results, nodes and sizes, as long as it stays wrong.

use super::case::Case;
use super::rebuild::{Change, rebuild};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::Array;
use tilewright_ir::graph::{Function, NodeId, Value};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Dim;
use tilewright_ir::work::sizes;

/// The smallest case found in which `wrong` holds, as it does in `case`. `budget` is how many cases are tried.
pub(super) fn shrink(case: Case, budget: usize, wrong: &dyn Fn(&Case) -> bool) -> Case {
    let mut search = Search { case, wrong, left: budget };
    while search.result() | search.first_value() | search.callee() | search.operands() | search.sizes() {}
    search.case
}

struct Search<'a> {
    case: Case,
    wrong: &'a dyn Fn(&Case) -> bool,
    left: usize,
}

impl Search<'_> {
    fn entry(&self) -> Option<&Function> {
        self.case.module.entry().ok()
    }

    /// Takes a case that is still wrong.
    fn take(&mut self, smaller: Option<Case>) -> bool {
        let Some(smaller) = smaller.filter(|_| self.left > 0) else { return false };
        self.left -= 1;
        let wrong = (self.wrong)(&smaller);
        if wrong {
            self.case = smaller;
        }
        wrong
    }

    /// One result instead of several.
    fn result(&mut self) -> bool {
        let Some(f) = self.entry().filter(|f| f.results.len() > 1) else { return false };
        let each: Vec<Change<'_>> = f.results.iter().map(|r| Change { results: vec![*r], ..Change::none(f) }).collect();
        each.iter().any(|change| self.take(rebuild(&self.case, change)))
    }

    /// An earlier value as the result: the first one that is wrong, if those after it are wrong because of it.
    fn first_value(&mut self) -> bool {
        let Some(f) = self.entry() else { return false };
        let computed = f.live();
        let values: Vec<Value> = (f.params.len()..f.nodes.len())
            .filter(|&i| computed[i] && !matches!(f.nodes[i].op, GraphOp::Constant { .. }))
            .filter_map(|i| Some(Value { node: NodeId(u32::try_from(i).ok()?), index: 0 }))
            .collect();
        let found = |search: &mut Self, value: Value| {
            let f = search.entry()?;
            let smaller = rebuild(&search.case, &Change { results: vec![value], ..Change::none(f) })?;
            search.left = search.left.checked_sub(1)?;
            (search.wrong)(&smaller).then_some(smaller)
        };
        let (mut right, mut wrong, mut best) = (0, values.len().saturating_sub(1), None);
        while right < wrong {
            let middle = usize::midpoint(right, wrong);
            match values.get(middle).and_then(|v| found(self, *v)) {
                Some(smaller) => (wrong, best) = (middle, Some(smaller)),
                None => right = middle + 1,
            }
        }
        best.into_iter().map(|smaller| self.case = smaller).count() > 0
    }

    /// The interpreter's values.
    fn values(&self, wanted: &[Value]) -> Option<Vec<Array>> {
        let mut module = self.case.module.clone();
        let name = module.entry().ok()?.name.clone();
        module.functions.get_mut(&name)?.results = wanted.to_vec();
        interp::run(&module, &name, &self.case.inputs, &self.case.bindings, Mode::Strict).ok()
    }

    /// The function that a call runs, on what it is called with.
    fn callee(&mut self) -> bool {
        let Some(f) = self.entry() else { return false };
        let calls: Vec<(_, Vec<Value>)> = f
            .nodes
            .iter()
            .filter_map(|n| match &n.op {
                GraphOp::Call { function } => Some((function.clone(), n.args.clone())),
                _other => None,
            })
            .collect();
        calls.into_iter().any(|(function, args)| {
            let smaller = || {
                let inputs = self.values(&args)?;
                let mut module = self.case.module.clone();
                let entry = module.entry().ok()?.name.clone();
                module.functions.shift_remove(&entry);
                let module = module.part(&function).ok()?;
                let bindings = sizes(module.entry().ok()?, &inputs, &self.case.bindings);
                Some(Case { module, inputs, bindings })
            };
            let smaller = smaller();
            self.take(smaller)
        })
    }

    /// Values of the interpreter instead of nodes that compute them, the last ones first.
    fn operands(&mut self) -> bool {
        let mut changed = false;
        let mut kept: BTreeSet<String> = BTreeSet::new();
        loop {
            let Some(f) = self.entry() else { return changed };
            let live = f.live();
            let used = f.nodes.iter().zip(&live).filter(|(_, live)| **live).flat_map(|(n, _)| &n.args);
            let all: BTreeSet<Value> =
                used.filter(|v| !matches!(f.node(**v).op, GraphOp::Parameter { .. })).copied().collect();
            // Numbers change with each step, texts of places and types do not.
            let name = |v: &Value| format!("{:?}{:?}{}", f.node(*v).op, f.node(*v).places, v.index);
            let Some(value) = all.iter().rev().find(|v| !kept.contains(&name(v))).copied() else { return changed };
            kept.insert(name(&value));
            let Some(arrays) = self.values(&[value]) else { continue };
            let Some(f) = self.entry() else { return changed };
            let given: BTreeMap<Value, Array> = std::iter::once(value).zip(arrays).collect();
            let smaller = rebuild(&self.case, &Change { given, ..Change::none(f) });
            changed |= self.take(smaller);
        }
    }

    /// Numbers instead of symbols, then small numbers.
    fn sizes(&mut self) -> bool {
        let mut changed = false;
        if let Some(f) = self.entry().filter(|f| !f.symbols.is_empty()) {
            let bindings = self.case.bindings.clone();
            let known = move |d: &Dim| d.eval(&bindings).map_or_else(|_| d.clone(), Dim::constant);
            let change = Change { dim: &known, symbolic: false, ..Change::none(f) };
            let smaller = rebuild(&self.case, &change);
            changed |= self.take(smaller);
        }
        let Some(f) = self.entry() else { return changed };
        let all = f.nodes.iter().flat_map(|n| &n.types).flat_map(|t| &t.shape).filter_map(Dim::as_const);
        let mut all: Vec<i64> = all.filter(|n| *n > 1).collect();
        all.sort_unstable();
        all.dedup();
        for size in all.into_iter().rev() {
            let smaller = [1, 2, 3, size / 2].into_iter().filter(|n| *n < size && *n > 0);
            changed |= smaller.into_iter().any(|n| self.size(size, n));
        }
        changed
    }

    /// One size instead of another: alone, then in its multiples too.
    fn size(&mut self, from: i64, to: i64) -> bool {
        let alone = move |d: &Dim| if d.is(from) { Dim::constant(to) } else { d.clone() };
        let multiples = move |d: &Dim| match d.as_const() {
            Some(n) if n > 0 && n % from == 0 => Dim::constant(n / from * to),
            Some(_) | None => d.clone(),
        };
        let ways: [&dyn Fn(&Dim) -> Dim; 2] = [&alone, &multiples];
        ways.into_iter().any(|dim| {
            let smaller = self.entry().and_then(|f| rebuild(&self.case, &Change { dim, ..Change::none(f) }));
            self.take(smaller)
        })
    }
}
