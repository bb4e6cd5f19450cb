//! What a program computes and its kernels take, by name scope and over all calls.
//!
//! Operations are those of [`flops::cost`] for each live node of the graph, so they do not depend on which kernels there are; bytes and
//! seconds are those of the kernels that the compiler chooses.

use super::kind::Kind;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::infer::control::bind_symbols;
use tilewright_ir::op::{GraphOp, Name, ScalarOp};
use tilewright_ir::types::{Bindings, Symbol, Type};
use tilewright_passes::Priced;

/// Most functions inside one another; whoever lowers the module refuses more.
const MOST_DEPTH: usize = 64;

/// What some part of a program comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Operations on elements in the graph; a multiplication with an addition is 2.
    pub flops: f64,
    /// Those of matrix products among them.
    pub products: f64,
    /// Kernels that are started.
    pub kernels: f64,
    /// Bytes that these read from memory and write to it.
    pub bytes: f64,
    /// Seconds that they are expected to take.
    pub seconds: f64,
    /// Seconds of computing, if it were all.
    pub compute: f64,
    /// Seconds of reading and writing, if it were all.
    pub memory: f64,
    /// Seconds of starting them.
    pub overhead: f64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.flops += other.flops;
        self.products += other.products;
        self.kernels += other.kernels;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
        self.compute += other.compute;
        self.memory += other.memory;
        self.overhead += other.overhead;
    }
}

impl Tally {
    fn times(self, n: f64) -> Tally {
        Tally {
            flops: n * self.flops,
            products: n * self.products,
            kernels: n * self.kernels,
            bytes: n * self.bytes,
            seconds: n * self.seconds,
            compute: n * self.compute,
            memory: n * self.memory,
            overhead: n * self.overhead,
        }
    }
}

/// Tallies by scope.
pub type Tallies = BTreeMap<Arc<str>, Tally>;

/// The sum of some.
pub fn sum<'t>(tallies: impl IntoIterator<Item = &'t Tally>) -> Tally {
    let mut total = Tally::default();
    tallies.into_iter().for_each(|t| total += *t);
    total
}

/// What a run of the entry of `module` comes to; `prices` are those of its functions in their order, or none. Of the branches of a
/// conditional the one with more operations counts.
///
/// Errors: `symbol` for a size that is missing; `dim-overflow`, `call-depth`; those of a module that the verifier refuses.
pub fn count(module: &Module, prices: &[Priced], sizes: &Bindings) -> Result<Tallies, Diagnostic> {
    let prices = module.functions.keys().cloned().zip(prices).collect();
    let mut walk = Walk { module, prices, known: BTreeMap::new() };
    let all = walk.function(module.entry()?, sizes, 0)?;
    Ok(Arc::unwrap_or_clone(all))
}

/// Operations of matrix products in a step of training, but for those of its optimiser: what the model itself takes.
///
/// Errors: those of [`count`].
pub fn model_flops(step: &Module) -> Result<f64, Diagnostic> {
    let all = count(step, &[], &Bindings::new())?;
    let model = all.iter().filter(|(scope, _)| Kind::of(scope) != Kind::Optimiser);
    Ok(sum(model.map(|(_, tally)| tally)).products)
}

/// A function, and sizes of its symbols.
type Key = (Name, Vec<(Symbol, i64)>);

struct Walk<'a> {
    module: &'a Module,
    prices: BTreeMap<Name, &'a Priced>,
    known: BTreeMap<Key, Arc<Tallies>>,
}

impl Walk<'_> {
    fn function(&mut self, f: &Function, sizes: &Bindings, depth: usize) -> Result<Arc<Tallies>, Diagnostic> {
        let own = f.symbols.iter().filter_map(|s| Some((s.name.clone(), *sizes.get(&s.name)?))).collect();
        let key = (f.name.clone(), own);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        if depth > MOST_DEPTH {
            return Err(Diagnostic::new("call-depth", format!("`@{}` stands in more than {MOST_DEPTH} calls", f.name)));
        }
        let mut out = Tallies::new();
        for (node, _) in f.nodes.iter().zip(f.live()).filter(|(_, live)| *live) {
            if node.callees().is_empty() {
                *out.entry(node.scope.clone()).or_default() += of_node(f, node, sizes)?;
                continue;
            }
            let (times, inner) = self.called(f, node, sizes, depth)?;
            for (scope, tally) in inner.iter() {
                *out.entry(joined(&node.scope, scope)).or_default() += tally.times(times);
            }
        }
        for kernel in self.prices.get(&f.name).into_iter().flat_map(|p| &p.kernels) {
            let p = &kernel.price;
            *out.entry(kernel.scope.clone()).or_default() += Tally {
                kernels: 1.0,
                bytes: p.bytes,
                seconds: p.seconds,
                compute: p.matrix + p.vector,
                memory: p.memory,
                overhead: p.launch,
                ..Tally::default()
            };
        }
        let out = Arc::new(out);
        self.known.insert(key, out.clone());
        Ok(out)
    }

    /// What a node runs, and how often.
    fn called(
        &mut self,
        f: &Function,
        node: &Node,
        sizes: &Bindings,
        depth: usize,
    ) -> Result<(f64, Arc<Tallies>), Diagnostic> {
        let mut types: Vec<Type> = node.args.iter().map(|&a| f.ty(a).clone()).collect();
        let mut times = 1.0;
        match &node.op {
            GraphOp::Cond { .. } => drop(types.drain(..1.min(types.len()))),
            GraphOp::Scan { carries, length, .. } => {
                times = length.eval(sizes).map_err(|m| Diagnostic::new("symbol", m))? as f64;
                for ty in types.iter_mut().skip(*carries) {
                    ty.shape.drain(..1.min(ty.shape.len()));
                }
            }
            _call => {}
        }
        let mut most: Option<(f64, Arc<Tallies>)> = None;
        for name in node.callees() {
            let unknown = || Diagnostic::new("unknown-function", format!("there is no function `@{name}`"));
            let callee = self.module.functions.get(name).ok_or_else(unknown)?;
            let mut inner = sizes.clone();
            for (symbol, dim) in bind_symbols(callee, &types.iter().collect::<Vec<_>>())? {
                inner.insert(symbol, dim.eval(sizes).map_err(|m| Diagnostic::new("symbol", m))?);
            }
            let found = self.function(callee, &inner, depth + 1)?;
            let flops = sum(found.values()).flops;
            if most.as_ref().is_none_or(|(before, _)| flops > *before) {
                most = Some((flops, found));
            }
        }
        Ok((times, most.map(|(_, found)| found).unwrap_or_default()))
    }
}

/// A scope inside another.
fn joined(outer: &Arc<str>, inner: &Arc<str>) -> Arc<str> {
    match (outer.is_empty(), inner.is_empty()) {
        (true, _) => inner.clone(),
        (_, true) => outer.clone(),
        _both => format!("{outer}.{inner}").into(),
    }
}

fn of_node(f: &Function, node: &Node, sizes: &Bindings) -> Result<Tally, Diagnostic> {
    let args: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
    let overflow =
        || Diagnostic::new("dim-overflow", format!("a node of `@{}` has too many operations to count", f.name));
    let cost = flops::cost(&node.op, &args, &node.types).ok_or_else(overflow)?;
    let flops = cost.flops.eval(sizes).map_err(|m| Diagnostic::new("symbol", m))? as f64;
    let products = if matches!(node.op, GraphOp::Dot { .. }) { flops } else { 0.0 };
    Ok(Tally { flops, products, ..Tally::default() })
}

/// For each parameter of the entry the scope in which it is used first, through calls: where a weight belongs.
pub fn homes(module: &Module) -> Result<Vec<Arc<str>>, Diagnostic> {
    let entry = module.entry()?;
    let each = |i: usize| home(module, entry, i, 0).unwrap_or_else(|| "".into());
    Ok((0..entry.params.len()).map(each).collect())
}

fn home(module: &Module, f: &Function, param: usize, depth: usize) -> Option<Arc<str>> {
    let mut value = f.param(param);
    let live = f.live();
    let user = |value: Value| (0..f.nodes.len()).find(|&i| live[i] && f.nodes[i].args.contains(&value));
    let mut node = &f.nodes[user(value)?];
    // A cast of a weight stands where the weight does.
    while let GraphOp::Map { op: ScalarOp::Cast { .. } } = node.op
        && node.scope.is_empty()
    {
        value = Value { node: NodeId(u32::try_from(user(value)?).ok()?), index: 0 };
        node = &f.nodes[user(value)?];
    }
    let at = node.args.iter().position(|a| *a == value)?;
    let at = if matches!(node.op, GraphOp::Cond { .. }) { at.checked_sub(1)? } else { at };
    let inside = node.callees().first().and_then(|name| module.functions.get(*name));
    let inside = inside.filter(|_| depth < MOST_DEPTH).and_then(|callee| home(module, callee, at, depth + 1));
    Some(inside.map_or_else(|| node.scope.clone(), |inside| joined(&node.scope, &inside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_ir::text::parse;

    #[test]
    fn calls_and_loops_count_as_often_as_they_run() {
        let text = r#"
func @layer(%x: f32[n, 8], weight %w: f32[8, 8]) -> f32[n, 8] where n in 1..=64 {
  %0 = dot %x, %w contract=[1]x[0] @"mlp"
  return %0
}
func @main(%x: f32[4, 8], weight %a: f32[8, 8], weight %ws: f32[3, 8, 8]) -> f32[4, 8] {
  %0 = call %x, %a function=@layer @"h.0"
  %1 = scan %0, %ws body=@layer carries=1 length=3 @"h.1"
  %2 = add %1, %x
  return %2
}"#;
        let module = parse("t.tw", text).unwrap();
        let all = count(&module, &[], &Bindings::new()).unwrap();
        let one = |scope: &str| all.get(scope).map(|t| (t.flops, t.products));
        assert_eq!(one("h.0.mlp"), Some((512.0, 512.0)));
        assert_eq!(one("h.1.mlp"), Some((1536.0, 1536.0)));
        assert_eq!(one(""), Some((32.0, 0.0)));
        assert_eq!(homes(&module).unwrap().iter().map(|h| &**h).collect::<Vec<_>>(), ["h.0.mlp", "h.0.mlp", "h.1.mlp"]);
    }
}
