//! How much a call computes, from the graph and the sizes of the call, before anything runs: what is too much for whoever
//! runs it can be refused at once. Cost: O(nodes) for each function and each set of sizes that it is called with.

use crate::array::Array;
use crate::diag::{Diagnostic, Place};
use crate::graph::{Function, Module, Node};
use crate::infer::control::bind_symbols;
use crate::infer::shown_name;
use crate::op::{GraphOp, Name};
use crate::types::{Bindings, DType, Dim, Symbol, Type};
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node counts at least, in operations: about what a launch costs, beside one operation on an element.
const NODE: u128 = 1000;
/// Multiplications of `dot`, with their additions, that take as long as one operation on an element.
const PRODUCTS: u128 = 16;
/// Functions inside one another that are looked at; whoever runs the module refuses more.
const MAX_DEPTH: usize = 64;
/// Nodes that are looked at. Functions that call each other with ever other sizes could take exponential time.
const MAX_NODES: usize = 1 << 20;

/// How much a call computes. An upper bound: of a `cond` the branch that computes more counts, and an optimiser may
/// leave out what the graph says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Operations: elements that are computed, folded or moved, 16 multiplications of `dot`, and 1000 for each node that
    /// runs. `u128::MAX` is more than could be counted.
    pub operations: u128,
    /// The node that has the most of them in all.
    pub heaviest: Option<Heaviest>,
    /// The largest value, of those that are surely computed.
    pub largest: Option<Largest>,
    function: Name,
}

/// A node by its name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The op as texts name it.
    pub op: &'static str,
    /// The function that it stands in.
    pub function: Name,
    /// Where it was written, if that is known.
    pub place: Option<Place>,
}

/// A node that computes much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heaviest {
    /// The node.
    pub at: At,
    /// How often it runs.
    pub runs: u128,
}

/// A large value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Largest {
    /// The node that makes it.
    pub at: At,
    /// Its dtype, none of blocks.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// What it takes in the interpreter: a byte for a bool, 8 for another number.
    pub bytes: u128,
}

impl Work {
    /// The work of a call of `function` with these sizes. A symbol without a value counts nothing: whoever runs the
    /// function asks for one.
    ///
    /// Errors: `unknown-function`; those of [`bind_symbols`] for a module that the verifier refuses.
    pub fn of(module: &Module, function: &str, sizes: &Bindings) -> Result<Work, Diagnostic> {
        let unknown = || Diagnostic::new("unknown-function", format!("there is no function `@{function}`"));
        let f = module.functions.get(function).ok_or_else(unknown)?;
        let mut walk = Walk { module, known: IndexMap::new(), nodes: 0 };
        let (entry, function) = (walk.function(f, sizes, 0)?, f.name.clone());
        let Some(entry) = entry else {
            return Ok(Work { operations: u128::MAX, heaviest: None, largest: None, function });
        };
        let (heaviest, largest) = walk.extremes();
        Ok(Work { operations: walk.known[entry].total, heaviest, largest, function })
    }

    /// Errors: `too-much-work` for more than `limit` operations, with the node that has most of them.
    pub fn check(&self, limit: u64) -> Result<(), Diagnostic> {
        if self.operations <= u128::from(limit) {
            return Ok(());
        }
        let found = match self.operations {
            u128::MAX => "more operations than can be counted".into(),
            n => format!("{} operations", brief(n)),
        };
        let message = format!("a run of `@{}` takes {found}, expected at most {}", self.function, brief(limit.into()));
        let d = Diagnostic::new("too-much-work", message);
        let Some(Heaviest { at, runs }) = &self.heaviest else {
            return Err(d.note("functions call each other with too many different sizes"));
        };
        let times = if *runs == 1 { "once".into() } else { format!("{} times", brief(*runs)) };
        Err(at.label(d, &format!("most of it is this `{}` of `@{}`, which runs {times}", at.op, at.function)))
    }
}

/// `given`, and the values that the shapes of `inputs` say of symbols of `f` for which it has none.
pub fn sizes(f: &Function, inputs: &[Array], given: &Bindings) -> Bindings {
    let mut sizes = given.clone();
    for (param, input) in f.params.iter().zip(inputs) {
        for (dim, &n) in param.ty.shape.iter().zip(input.shape()) {
            if let Some(s) = f.symbols.iter().find(|s| *dim == Dim::symbol(&s.name)) {
                sizes.entry(s.name.clone()).or_insert(i64::try_from(n).unwrap_or(i64::MAX));
            }
        }
    }
    sizes
}

impl At {
    /// `d` with the place of the node under `label`; a note where no place is known.
    pub fn label(&self, d: Diagnostic, label: &str) -> Diagnostic {
        match &self.place {
            Some(place) => d.at(place.clone(), label),
            None => d.note(label),
        }
    }
}

/// `12`, `1e13`, `3.45e18`.
fn brief(n: u128) -> String {
    let text = format!("{n:.2e}");
    match text.split_once('e') {
        Some((digits, power)) if n >= 10_000 => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _small => n.to_string(),
    }
}

/// A function with the sizes of its symbols, looked at once.
struct Entry<'m> {
    function: &'m Function,
    /// Operations of one call, callees included.
    total: u128,
    /// The node with the most of its own, and these.
    heaviest: Option<(&'m Node, u128)>,
    /// The largest value, and its bytes.
    largest: Option<(&'m Node, &'m Type, u128)>,
    sizes: Bindings,
    calls: Vec<Called>,
}

/// A callee: its entry, how often a call of the caller runs it, and whether that is sure.
struct Called {
    entry: usize,
    times: u128,
    sure: bool,
}

struct Walk<'m> {
    module: &'m Module,
    /// Callees before their callers.
    known: IndexMap<(Name, Vec<(Symbol, i64)>), Entry<'m>>,
    nodes: usize,
}

impl<'m> Walk<'m> {
    /// The entry of `f`; none where there are too many to look at, or calls too deep.
    fn function(&mut self, f: &'m Function, sizes: &Bindings, depth: usize) -> Result<Option<usize>, Diagnostic> {
        let own = f.symbols.iter().filter_map(|s| Some((s.name.clone(), *sizes.get(&s.name)?))).collect();
        let key = (f.name.clone(), own);
        if let Some(index) = self.known.get_index_of(&key) {
            return Ok(Some(index));
        }
        self.nodes = self.nodes.saturating_add(f.nodes.len().max(1));
        if self.nodes > MAX_NODES {
            return Ok(None);
        }
        let sizes = sizes.clone();
        let mut entry = Entry { function: f, total: 0, heaviest: None, largest: None, sizes, calls: Vec::new() };
        for (node, _) in f.nodes.iter().zip(f.live()).filter(|(_, live)| *live) {
            let own = operations(f, node, &entry.sizes);
            entry.total = entry.total.saturating_add(own);
            if own > entry.heaviest.map_or(0, |(_, most)| most) {
                entry.heaviest = Some((node, own));
            }
            for ty in node.types.iter().filter(|ty| !ty.dtype.is_block()) {
                let n = elements(ty, &entry.sizes).saturating_mul(if ty.dtype == DType::Bool { 1 } else { 8 });
                if n > entry.largest.map_or(0, |(_, _, most)| most) {
                    entry.largest = Some((node, ty, n));
                }
            }
            if depth < MAX_DEPTH && !self.callees(f, node, &mut entry, depth)? {
                return Ok(None);
            }
        }
        Ok(Some(self.known.insert_full(key, entry).0))
    }

    /// Adds what the functions that `node` runs compute. False where that is too much to look at.
    fn callees(
        &mut self,
        f: &'m Function,
        node: &Node,
        entry: &mut Entry<'m>,
        depth: usize,
    ) -> Result<bool, Diagnostic> {
        let mut types: Vec<Type> = node.args.iter().map(|&a| f.ty(a).clone()).collect();
        let mut times = 1;
        match &node.op {
            GraphOp::Cond { .. } => drop(types.drain(..1.min(types.len()))),
            GraphOp::Scan { carries, length, .. } => {
                times = size(length, &entry.sizes);
                for ty in types.iter_mut().skip(*carries) {
                    ty.shape.drain(..1.min(ty.shape.len()));
                }
            }
            _call => {}
        }
        let mut found: Vec<usize> = Vec::new();
        for name in node.callees() {
            let Some(callee) = self.module.functions.get(name) else { continue };
            let symbols = bind_symbols(callee, &types.iter().collect::<Vec<_>>())?;
            let Some(index) = self.function(callee, &inner(&entry.sizes, &symbols), depth + 1)? else {
                return Ok(false);
            };
            found.push(index);
        }
        let sure = found.len() == 1 && times > 0;
        // Of two branches the one that computes more counts.
        let Some(entry_index) = found.into_iter().max_by_key(|&i| self.known[i].total) else { return Ok(true) };
        let each = self.known[entry_index].total.saturating_add(NODE);
        entry.total = entry.total.saturating_add(each.saturating_mul(times));
        entry.calls.push(Called { entry: entry_index, times, sure });
        Ok(true)
    }

    /// The node with the most operations in all, and the largest value. The last entry is the one that runs.
    fn extremes(&self) -> (Option<Heaviest>, Option<Largest>) {
        let mut runs = vec![(0u128, false); self.known.len()];
        if let Some(last) = runs.last_mut() {
            *last = (1, true);
        }
        let (mut heaviest, mut largest) = ((0u128, None), (0u128, None));
        for (i, entry) in self.known.values().enumerate().rev() {
            let (times, sure) = runs[i];
            for call in &entry.calls {
                let callee = &mut runs[call.entry];
                callee.0 = callee.0.saturating_add(times.saturating_mul(call.times));
                callee.1 |= sure && call.sure;
            }
            let at = |node: &Node| At {
                op: shown_name(&node.op),
                function: entry.function.name.clone(),
                place: node.places.first().cloned(),
            };
            if let Some((node, own)) = entry.heaviest
                && own.saturating_mul(times) > heaviest.0
            {
                heaviest = (own.saturating_mul(times), Some(Heaviest { at: at(node), runs: times }));
            }
            if let Some((node, ty, bytes)) = entry.largest.filter(|_| sure)
                && bytes > largest.0
                && let Ok(shape) = ty.concrete(&entry.sizes)
            {
                largest = (bytes, Some(Largest { at: at(node), dtype: ty.dtype, shape, bytes }));
            }
        }
        (heaviest.1, largest.1)
    }
}

/// The sizes of a callee's symbols; those that no parameter says are the caller's.
fn inner(outer: &Bindings, symbols: &BTreeMap<Symbol, Dim>) -> Bindings {
    let mut sizes = outer.clone();
    for (symbol, dim) in symbols {
        match dim.eval(outer) {
            Ok(n) => drop(sizes.insert(symbol.clone(), n)),
            Err(_) => drop(sizes.remove(symbol)),
        }
    }
    sizes
}

/// A size of the call: 0 for one that a run refuses as negative or without a value, the most for one that overflows.
fn size(dim: &Dim, sizes: &Bindings) -> u128 {
    match dim.eval(sizes) {
        Ok(n) => u128::try_from(n).unwrap_or(0),
        Err(_) => {
            let mut symbols: Vec<Arc<str>> = Vec::new();
            dim.collect_symbols(&mut symbols);
            if symbols.iter().all(|s| sizes.contains_key(s)) { u128::MAX } else { 0 }
        }
    }
}

fn elements(ty: &Type, sizes: &Bindings) -> u128 {
    let all: Vec<u128> = ty.shape.iter().map(|d| size(d, sizes)).collect();
    // Nothing of something too large is nothing.
    if all.contains(&0) { 0 } else { all.into_iter().fold(1, u128::saturating_mul) }
}

/// Operations of a node itself, without the functions that it runs.
fn operations(f: &Function, node: &Node, sizes: &Bindings) -> u128 {
    let written = || node.types.iter().map(|ty| elements(ty, sizes)).fold(0, u128::saturating_add);
    let operand = |i: usize| node.args.get(i).map_or(0, |&a| elements(f.ty(a), sizes));
    let own = match &node.op {
        GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Size { .. } | GraphOp::Reshape { .. } => {
            return 0;
        }
        GraphOp::Reduce { .. } | GraphOp::Argmax { .. } | GraphOp::Argmin { .. } | GraphOp::Cumsum { .. } => operand(0),
        GraphOp::Dot { dims } => {
            let contracted = node.args.first().map(|&a| &f.ty(a).shape);
            let folded = dims.contract.0.iter().filter_map(|&axis| contracted?.get(axis)).map(|d| size(d, sizes));
            written().saturating_add(folded.fold(written(), u128::saturating_mul) / PRODUCTS)
        }
        GraphOp::ScatterAdd { .. } => written().saturating_add(operand(2)),
        GraphOp::Iota { .. }
        | GraphOp::Map { .. }
        | GraphOp::Broadcast { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Flip { .. }
        | GraphOp::Slice { .. }
        | GraphOp::Pad { .. }
        | GraphOp::Concat { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. }
        | GraphOp::UpdateSlice { .. } => written(),
        // Counted for each time that they run a function, which writes their results.
        GraphOp::Call { .. } | GraphOp::Cond { .. } | GraphOp::Scan { .. } => return 0,
    };
    own.saturating_add(NODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(text: &str, sizes: &[(&str, i64)]) -> Work {
        let module = crate::text::parse("t.tw", text).unwrap_or_else(|d| panic!("{d}"));
        let sizes = sizes.iter().map(|(s, v)| ((*s).into(), *v)).collect();
        Work::of(&module, &module.entry().unwrap().name, &sizes).unwrap()
    }

    #[test]
    fn nodes_count_what_they_compute_fold_or_move() {
        let text =
            "func @main(%x: f32[n, 300], %w: f32[300, 20], %i: i64[7]) -> (f32[n], f32[7, 20]) where n in 1..=99 {
            %0 = dot %x, %w contract=[1]x[0]
            %1 = sum %0 axes=[1]
            %2 = take %0, %i axis=0
            %3 = exp %x
            return %1, %2 }";
        // No result needs the exponential.
        assert_eq!(work(text, &[("n", 50)]).operations, 50 * 300 * 20 / 16 + 50 * 20 + 50 * 20 + 7 * 20 + 3 * NODE);
    }

    #[test]
    fn calls_and_steps_multiply_and_the_heavier_branch_counts() {
        let text = "func @small(%x: f32[n]) -> f32[n] where n in 0..=9999 { %0 = neg %x\n return %0 }
            func @twice(%x: f32[m]) -> f32[m] where m in 0..=9999 {
                %0 = call %x function=@small\n %1 = call %0 function=@small\n return %1 }
            func @main(%p: bool[], %x: f32[2000]) -> f32[2000] {
                %0 = scan %x body=@twice carries=1 length=30
                %1 = cond %p, %0 yes=@small no=@twice
                return %1 }";
        let found = work(text, &[]);
        let twice = 2 * (2000 + NODE + NODE);
        assert_eq!(found.operations, 31 * (twice + NODE));
        let heaviest = found.heaviest.clone().unwrap();
        assert_eq!((heaviest.at.op, &*heaviest.at.function, heaviest.runs), ("neg", "small", 62));
        let error = found.check(200_000).unwrap_err();
        assert_eq!(error.code, "too-much-work");
        assert_eq!(error.message, "a run of `@main` takes 2.79e5 operations, expected at most 2e5");
        assert_eq!(error.labels[0].0.to_string(), "t.tw:1:62");
        assert_eq!(error.labels[0].1, "most of it is this `neg` of `@small`, which runs 62 times");
        assert!(found.check(u64::try_from(found.operations).unwrap()).is_ok());
    }

    #[test]
    fn what_cannot_be_counted_is_too_much() {
        let mut text = String::from(
            "func @f0(%x: f32[n]) -> f32[n] where n in 1..=4000000000000000000 { %0 = neg %x\n return %0 }\n",
        );
        for n in 1..=62 {
            let before = n - 1;
            text += &format!(
                "func @f{n}(%x: f32[n]) -> f32[n] where n in 1..=4000000000000000000 {{
                   %0 = call %x function=@f{before}\n %1 = call %0 function=@f{before}\n return %1 }}\n"
            );
        }
        // Each function is looked at once for its sizes, and 2^62 * 4e18 is still a number.
        let found = work(&text, &[("n", 4_000_000_000_000_000_000)]);
        let calls = (1u128 << 63) - 2;
        assert_eq!(found.operations, (1 << 62) * (4_000_000_000_000_000_000 + NODE) + calls * NODE);
        assert_eq!(found.heaviest.unwrap().runs, 1 << 62);
    }

    /// `2n` and `2n + 1` of sizes that are such themselves never come again.
    #[test]
    fn too_many_sizes_are_too_much() {
        let mut text = String::from(
            "func @f0(%x: bool[n]) -> bool[] where n in 1..=4000000000000000000 { %0 = reduce_max %x axes=[0]\n return %0 }\n",
        );
        for n in 1..=60 {
            let before = n - 1;
            text += &format!(
                "func @f{n}(%x: bool[n]) -> bool[] where n in 1..=4000000000000000000 {{
                   %0 = constant bool[1] = [true]\n %1 = concat %x, %x axis=0\n %2 = concat %x, %x, %0 axis=0
                   %3 = call %1 function=@f{before}\n %4 = call %2 function=@f{before}\n %5 = and %3, %4\n return %5 }}\n"
            );
        }
        let found = work(&text, &[("n", 1)]);
        assert_eq!((found.operations, &found.heaviest), (u128::MAX, &None));
        assert!(found.check(u64::MAX).unwrap_err().message.contains("more operations than can be counted"));
    }

    #[test]
    fn nothing_of_something_is_nothing_and_the_largest_value_is_sure() {
        let text = "func @big(%x: f32[]) -> f32[] {
                %0 = broadcast %x shape=[1000000000, 1000000000] dims=[]\n %1 = sum %0 axes=[0, 1]\n return %1 }
            func @id(%x: f32[]) -> f32[] { return %x }
            func @main(%p: bool[], %x: f32[], %y: f32[0, 4000000000]) -> (f32[], f32[0, 4000000000]) {
                %0 = cond %p, %x yes=@id no=@big\n %1 = neg %y\n return %0, %1 }";
        let found = work(text, &[]);
        assert_eq!(found.operations, 2 * 1_000_000_000u128.pow(2) + 4 * NODE);
        assert_eq!(found.largest.map(|l| l.bytes), Some(8));
        assert_eq!(
            work(&text.replace("cond %p, %x yes=@id no=@big", "call %x function=@big"), &[]).largest.unwrap().at.op,
            "broadcast"
        );
    }
}
