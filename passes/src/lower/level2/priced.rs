//! What the kernels of a function are expected to take, each with the scope of the model that it works for.

use super::super::{Options, Target, depth, prepared};
use super::choice::{Choice, choose};
use super::{free_roots, needed};
use crate::egraph::cover::{self, Bound, Cut, Device, Price};
use crate::egraph::{Attr, Graph, Head, Import, Numerics};
use crate::fuse;
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops::{cost, type_bytes};
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::{Bindings, DType, Dim, Type};

/// A kernel with its price.
#[derive(Clone, Debug, PartialEq)]
pub struct PricedKernel {
    /// The name scope of the nodes that it computes; of several the one with most of the operations.
    pub scope: Arc<str>,
    /// Its template with its axes; of one that a fixed order of fusion makes, the op of its result.
    pub template: String,
    /// What it is expected to take.
    pub price: Price,
}

/// The kernels of a function, without those of the functions that it runs.
#[derive(Clone, Debug)]
pub struct Priced {
    /// In no order that matters.
    pub kernels: Vec<PricedKernel>,
    /// Why some are not those of level 2.
    pub notes: Vec<Diagnostic>,
}

/// The prices of each function, in module order, for the sizes `likely`. What has no index form, and the kernels of a function beyond a
/// limit of level 2, are priced by what they read, write and compute.
///
/// Errors: those of [`lower_module`](super::super::lower_module); `symbol` for a size that is missing.
pub fn priced(
    module: &Module,
    options: impl Into<Options>,
    target: &Target,
    likely: &Bindings,
) -> Result<Vec<Priced>, Diagnostic> {
    depth(module)?;
    let options = options.into();
    let target = &target.allowed(&options);
    let each = |f: &Function| {
        let narrow = prepared(module, f, &options)?;
        of_function(narrow.as_ref().unwrap_or(f), &options, target, likely)
    };
    module.functions.values().map(each).collect()
}

fn of_function(f: &Function, options: &Options, target: &Target, likely: &Bindings) -> Result<Priced, Diagnostic> {
    let device = target.device(options)?;
    let Choice { import, graph, cover, notes, .. } = match choose(f, options, target, likely, false)? {
        Ok(choice) => choice,
        Err(warning) => {
            let (stored, live) = (fuse::stored(f, 1, options.numerics == Numerics::Exact)?, f.live());
            let plain = Plain { f, stored: &|n| stored[n.index()], sizes: likely, device: &device };
            let roots = (0u32..).map(NodeId).take(f.nodes.len()).filter(|n| stored[n.index()] && live[n.index()]);
            let kernels = roots.filter_map(|n| plain.kernel(n).transpose()).collect::<Result<_, _>>()?;
            return Ok(Priced { kernels, notes: vec![warning] });
        }
    };
    let sizes = cover::usual_sizes(&graph, likely);
    let (free, scopes) = (free_roots(f, &import, &graph), Scopes::new(f, &import, &graph, &sizes));
    let kept: Vec<Cut> = cover.cuts.into_iter().filter(|cut| needed(cut.clone(), &free).is_some()).collect();
    let all = scopes.of_all(&kept);
    let named = |(cut, scope): (&Cut, Arc<str>)| {
        let template = cover::template(&graph, cut).trim().to_string();
        PricedKernel { scope, template, price: cut.price }
    };
    let mut kernels: Vec<PricedKernel> = kept.iter().zip(all).map(named).collect();
    kernels.extend(barriers((f, &import), &sizes, &device)?.into_iter().map(|b| b.1));
    Ok(Priced { kernels, notes })
}

/// The kernels of what has no terms, with the nodes that they compute.
pub(super) fn barriers(
    (f, import): (&Function, &Import),
    sizes: &Bindings,
    device: &Device,
) -> Result<Vec<(NodeId, PricedKernel)>, Diagnostic> {
    let plain = Plain { f, stored: &|_| true, sizes, device };
    let priced = import.barriers.keys().map(|&node| Ok(plain.kernel(node)?.map(|kernel| (node, kernel))));
    priced.filter_map(Result::transpose).collect()
}

/// Work of a node, and its scope.
type Work = (f64, Arc<str>);

/// The heavier of two; at the same work one with a name.
fn heavier(a: Option<Work>, b: Option<Work>) -> Option<Work> {
    let weight = |w: &Work| (w.0, !w.1.is_empty());
    match (a, b) {
        (Some(a), Some(b)) if weight(&a) >= weight(&b) => Some(a),
        (a, None) => a,
        (_, b) => b,
    }
}

/// Which nodes the classes of kernels are.
struct Scopes<'a> {
    graph: &'a Graph,
    import: &'a Import,
    /// The heaviest node whose value a class is.
    classes: BTreeMap<Id, Work>,
    /// The heaviest node that computes with a value, however that is moved before.
    readers: BTreeMap<Value, Work>,
}

impl<'a> Scopes<'a> {
    fn new(f: &Function, import: &'a Import, graph: &'a Graph, sizes: &Bindings) -> Scopes<'a> {
        let work = |node: &Node| (operations(f, node, sizes).unwrap_or(0.0), node.scope.clone());
        let mut classes: BTreeMap<Id, Work> = BTreeMap::new();
        for (value, class) in import.classes.iter().filter(|(v, _)| v.node.index() >= f.params.len()) {
            let (class, new) = (graph.find(*class), work(f.node(*value)));
            let known = classes.remove(&class);
            classes.extend(heavier(known, Some(new)).map(|w| (class, w)));
        }
        let mut readers: BTreeMap<Value, Work> = BTreeMap::new();
        for (i, node) in f.nodes.iter().enumerate().rev() {
            let own = work(node);
            let passed = readers.get(&Value { node: NodeId(i as u32), index: 0 }).cloned();
            let best = if own.0 > 0.0 { Some(own) } else { passed };
            for arg in &node.args {
                let known = readers.remove(arg);
                readers.extend(heavier(known, best.clone()).map(|w| (*arg, w)));
            }
        }
        Scopes { graph, import, classes, readers }
    }

    /// The scope of each kernel: that of the heaviest node whose value is a class of it. Where rules have left none, or none that has
    /// the operations of its products, that of what computes with the tensors that it reads; and else that of a kernel whose result it
    /// reads.
    fn of_all(&self, cuts: &[Cut]) -> Vec<Arc<str>> {
        let stored = |node: &crate::egraph::ENode| {
            let attr = node.children.first().and_then(|&c| self.graph[c].data.attr.clone());
            match (&node.head, attr) {
                (Head::Load, Some(Attr::Input(number))) => Some(self.import.stored.get(number as usize)?.value),
                _other => None,
            }
        };
        let own =
            |cut: &Cut| cut.nodes.keys().filter_map(|c| self.classes.get(c)).cloned().map(Some).fold(None, heavier);
        // Of several the one whose work is most like that of the kernel.
        let unlike = |cut: &Cut, work: &Work| (work.0.max(1.0) / cut.price.flops.max(1.0)).ln().abs();
        let read = |cut: &Cut| {
            let loads = cut.nodes.values().filter_map(stored).filter_map(|v| self.readers.get(&v)).cloned();
            loads.min_by(|a, b| unlike(cut, a).total_cmp(&unlike(cut, b)))
        };
        let whole = |cut: &Cut, work: &Work| !work.1.is_empty() && work.0 >= 0.5 * cut.price.flops;
        let first = |cut: &Cut| {
            let own = own(cut);
            let work = own.clone().filter(|work| whole(cut, work)).or_else(|| read(cut)).or(own);
            work.map(|(_, scope)| scope)
        };
        let mut found: Vec<Arc<str>> = cuts.iter().map(|cut| first(cut).unwrap_or_default()).collect();
        let makers: BTreeMap<Id, usize> =
            cuts.iter().enumerate().flat_map(|(i, cut)| cut.outputs.iter().map(move |o| (*o, i))).collect();
        // As far as names go: from one kernel to the next at a time.
        for _ in 0..cuts.len() {
            let unnamed = |i: &usize| found[*i].is_empty();
            let from = |i: usize| {
                let makers = cuts[i].inputs.iter().filter_map(|c| makers.get(c));
                makers.map(|m| found[*m].clone()).find(|scope| !scope.is_empty()).map(|scope| (i, scope))
            };
            let more: Vec<(usize, Arc<str>)> = (0..cuts.len()).filter(unnamed).filter_map(from).collect();
            if more.is_empty() {
                break;
            }
            more.into_iter().for_each(|(i, scope)| found[i] = scope);
        }
        found
    }
}

/// Operations of a node; none for what runs functions, and for sizes that are not known.
fn operations(f: &Function, node: &Node, sizes: &Bindings) -> Option<f64> {
    let args: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
    Some(cost(&node.op, &args, &node.types)?.flops.eval(sizes).ok()? as f64)
}

/// Kernels of a fixed order of fusion.
struct Plain<'a> {
    f: &'a Function,
    /// Whether the results of a node lie in memory.
    stored: &'a dyn Fn(NodeId) -> bool,
    sizes: &'a Bindings,
    device: &'a Device,
}

/// What a kernel computes and reads.
#[derive(Default)]
struct Load {
    seen: BTreeSet<Value>,
    matrix: f64,
    vector: f64,
    flops: f64,
    bytes: f64,
    heaviest: Option<Work>,
}

impl Plain<'_> {
    /// The kernel that stores the results of a node; none for one that does nothing, or runs functions.
    fn kernel(&self, root: NodeId) -> Result<Option<PricedKernel>, Diagnostic> {
        let node = &self.f.nodes[root.index()];
        let free = matches!(
            node.op,
            GraphOp::Parameter { .. } | GraphOp::Constant { .. } | GraphOp::Size { .. } | GraphOp::Reshape { .. }
        );
        if free || !node.callees().is_empty() {
            return Ok(None);
        }
        let mut load = Load::default();
        match node.op {
            // In place, as it most often is.
            GraphOp::UpdateSlice { .. } => load.bytes += self.bytes(self.f.ty(node.args[1]))?,
            _ => {
                for ty in &node.types {
                    load.bytes += self.bytes(ty)?;
                }
            }
        }
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            self.add(id, &mut load, &mut open)?;
        }
        let (memory, launch) = (load.bytes / self.device.memory.0, self.device.launch.0);
        let (matrix, vector) = (load.matrix, load.vector);
        let compute = matrix + vector;
        let bound = match (launch >= compute.max(memory), memory >= compute, matrix >= vector) {
            (true, ..) => Bound::Launch,
            (_, true, _) => Bound::Memory,
            (_, _, true) => Bound::Matrix,
            (..) => Bound::Vector,
        };
        let seconds = compute.max(memory) + launch;
        let (flops, bytes) = (load.flops, load.bytes);
        let price = Price { seconds, rank: seconds, flops, bytes, matrix, vector, memory, launch, bound };
        let scope = load.heaviest.map_or_else(|| node.scope.clone(), |(_, scope)| scope);
        let template = tilewright_ir::infer::shown_name(&node.op).to_string();
        Ok(Some(PricedKernel { scope, template, price }))
    }

    /// Adds a node that is computed inside, and what it reads.
    fn add(&self, id: NodeId, load: &mut Load, open: &mut Vec<NodeId>) -> Result<(), Diagnostic> {
        let node = &self.f.nodes[id.index()];
        let operations = operations(self.f, node, self.sizes).unwrap_or(0.0);
        let dtype = node.args.last().map_or(DType::F32, |&a| self.f.ty(a).dtype);
        if let GraphOp::Dot { .. } = node.op {
            load.matrix += operations / self.device.matrix.of(dtype);
            load.flops += operations;
        } else {
            load.vector += operations / self.device.vector.of(dtype);
        }
        load.heaviest = heavier(load.heaviest.take(), Some((operations, node.scope.clone())));
        // Of what is looked up, no more is read than written.
        let looked_up = matches!(node.op, GraphOp::Take { .. } | GraphOp::TakeAlong { .. } | GraphOp::Slice { .. });
        for (i, &arg) in node.args.iter().enumerate().filter(|(_, a)| load.seen.insert(**a)) {
            if i == 0 && matches!(node.op, GraphOp::UpdateSlice { .. }) {
                continue;
            } else if !(self.stored)(arg.node) {
                open.push(arg.node);
            } else if looked_up && i == 0 {
                load.bytes += self.bytes(&node.types[0])?;
            } else {
                load.bytes += self.bytes(self.f.ty(arg))?;
            }
        }
        Ok(())
    }

    fn bytes(&self, ty: &Type) -> Result<f64, Diagnostic> {
        let unknown = || Diagnostic::new("symbol", format!("the size of {ty} in `@{}` is not known", self.f.name));
        let bytes: Option<Dim> = type_bytes(ty);
        Ok(bytes.and_then(|d| d.eval(self.sizes).ok()).ok_or_else(unknown)? as f64)
    }
}
