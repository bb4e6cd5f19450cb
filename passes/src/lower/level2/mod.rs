//! Level 2: the cover of the saturated e-graph becomes kernels. What has no index form is lowered node by node, between
//! them.

mod choice;
mod explain;
mod fixed;
mod layout;
mod order;
mod priced;
#[cfg(test)]
mod tests;
mod units;

use super::{Lower, Options, Origin, Target};
use crate::egraph::cover;
use crate::egraph::export::{Exported, Note, Piece, export};
use crate::egraph::{self, Attr, AxisId, ENode, Graph, Head, Import, lang::axis_bit};
use crate::region::{Region, coalesce, cut};
pub(super) use choice::fired;
#[cfg(feature = "ilp")]
pub(super) use choice::integer;
use choice::{Choice, choose};
use egg::Id;
pub use explain::{Explained, ExplainedKernel, Second};
use order::Place;
pub use priced::{Priced, PricedKernel, priced};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Role, Value};
use tilewright_ir::infer::require::requirements;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::{Bindings, Dim, Type};
use units::Work;

/// One kernel of a cover.
#[derive(Clone, Debug)]
struct Cut {
    /// Classes that are stored.
    outputs: Vec<Id>,
    /// The chosen node of every class inside.
    nodes: BTreeMap<Id, ENode>,
    /// Classes that other cuts store and this one reads.
    inputs: BTreeSet<Id>,
}

/// A function, its e-graph and its cuts.
struct Plan<'a> {
    f: &'a Function,
    import: &'a Import,
    graph: &'a Graph,
    cuts: &'a [Cut],
    /// Values of each class, in the order of the program.
    values: BTreeMap<Id, Vec<Value>>,
    /// Memory order of every stored class.
    orders: BTreeMap<Id, Vec<AxisId>>,
    /// Classes whose order is that of a root.
    fixed: BTreeSet<Id>,
    /// Stored tensors that are sizes: kernels know them.
    sizes: BTreeMap<usize, Dim>,
    /// Sizes that are not negative.
    facts: Vec<Dim>,
}

/// How a root gets into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// It is there: a stored tensor, perhaps under another shape.
    There(Place),
    /// A node without cost is written out.
    Node(Id, ENode),
    /// A cut stores the class in this order.
    Cut(Id),
    /// A cut stores the class in another order; this is a copy.
    Copy(Id),
}

/// Lowers the nodes of a function, or gives the warning of the limit that it is beyond.
pub(super) fn lower(lower: &mut Lower<'_>, options: &Options) -> Result<Option<Diagnostic>, Diagnostic> {
    let f = lower.f;
    let Choice { import, graph, cover, notes, .. } = match choose(f, options, lower.target, &Bindings::new(), false)? {
        Ok(choice) => choice,
        Err(warning) => return Ok(Some(warning)),
    };
    let free = free_roots(f, &import, &graph);
    let cuts: Vec<Cut> = cover.cuts.into_iter().filter_map(|c| needed(c, &free)).collect();
    emit(lower, &import, &graph, &cuts)?;
    lower.warnings.extend(notes);
    Ok(None)
}

/// The kernels that level 2 chooses for a function with their prices and what else was possible, as text.
///
/// Errors: those of the lowering.
pub(super) fn text(f: &Function, options: &Options, target: &Target) -> Result<String, Diagnostic> {
    Ok(match choose(f, options, target, &Bindings::new(), true)? {
        Ok(Choice { import, graph, cover, explanation, notes, added, .. }) => {
            let mut notes: String = notes.iter().map(|n| format!("{n}\n")).collect();
            for fired in added {
                notes += &format!("rule {} of the user: {}, {} times\n", fired.rule, fired.class, fired.times);
            }
            let explanation = explanation.ok_or_else(|| Diagnostic::bug("a cover without its explanation"))?;
            notes + &cover::print_cover(&cover, &explanation, &graph, f, &import)
        }
        Err(warning) => format!("{warning}\n"),
    })
}

/// What level 2 leaves of a function, as a function again, with a note where each kernel begins. A function beyond a
/// limit stays as it is, which its note says.
///
/// Errors: those of the lowering.
pub(super) fn optimized(
    module: &Module,
    f: &Function,
    options: &Options,
    target: &Target,
) -> Result<Exported, Diagnostic> {
    let Choice { import, graph, cover, .. } = match choose(f, options, target, &Bindings::new(), false)? {
        Ok(choice) => choice,
        Err(warning) => {
            let at = Lower::value(f.params.len(), 0).node;
            let notes = vec![Note { at, text: warning.message, stores: Vec::new() }];
            return Ok(Exported { function: f.clone(), notes });
        }
    };
    let free = free_roots(f, &import, &graph);
    let named = cover.cuts.into_iter().enumerate().filter_map(|(number, cut)| {
        let what = format!("kernel {number}: {}", cut.kind.name());
        Some((needed(cut, &free)?, what))
    });
    let cuts: Vec<(Cut, String)> = named.collect();
    let piece = cuts.iter().map(|(cut, what)| Piece { outputs: &cut.outputs, nodes: &cut.nodes, what: what.clone() });
    let pieces: Vec<Piece<'_>> = piece.collect();
    export(module, f, &import, &graph, &pieces)
}

/// Classes whose roots all cost no computation.
fn free_roots(f: &Function, import: &Import, graph: &Graph) -> BTreeSet<Id> {
    let (free, computed): (Vec<_>, Vec<_>) =
        import.roots.iter().partition(|r| free_source(f, import, graph, r).is_some());
    let mut classes: BTreeSet<Id> = free.iter().map(|r| graph.find(r.class)).collect();
    computed.iter().for_each(|r| {
        classes.remove(&graph.find(r.class));
    });
    classes
}

/// A cut without the roots that cost no computation: they are not kernels, or copies of their own.
fn needed(cut: cover::Cut, free: &BTreeSet<Id>) -> Option<Cut> {
    let outputs: Vec<Id> = cut.outputs.into_iter().filter(|c| !free.contains(c)).collect();
    if outputs.is_empty() { None } else { Some(Cut { outputs, nodes: cut.nodes, inputs: cut.inputs }) }
}

/// The source of a root that costs no computation.
fn free_source(f: &Function, import: &Import, graph: &Graph, root: &egraph::Root) -> Option<Source> {
    if let Some(number) = import.stored_at(root.value) {
        return Some(Source::There(Place::Tensor(number)));
    }
    if let GraphOp::Constant { .. } = f.node(root.value).op {
        return Some(Source::There(Place::Constant(root.value.node)));
    }
    let class = graph.find(root.class);
    let attr = |node: &ENode, i: usize| node.children.get(i).and_then(|&c| graph[c].data.attr.clone());
    let size = |a: &AxisId| graph.analysis.axes.get(usize::from(*a)).map(|a| &a.dim);
    for node in &graph[class].nodes {
        let (Head::Load, Some(Attr::Input(number)), Some(Attr::Map(map))) = (&node.head, attr(node, 0), attr(node, 1))
        else {
            continue;
        };
        let number = number as usize;
        let whole: Option<Vec<AxisId>> = map.iter().map(egraph::Affine::as_axis).collect();
        let sizes = import.stored.get(number).map(|s| s.atoms.iter());
        if whole.as_ref() == Some(&root.axes) && sizes.is_some_and(|s| s.map(Some).eq(root.axes.iter().map(size))) {
            return Some(Source::There(Place::Tensor(number)));
        }
    }
    let simple = |n: &&ENode| matches!(n.head, Head::Load | Head::Attr(_) | Head::Iota | Head::Extent);
    graph[class].nodes.iter().find(simple).map(|n| {
        let children = n.children.iter().map(|&c| graph.find(c)).collect();
        Source::Node(class, ENode::new(n.head.clone(), children))
    })
}

impl<'a> Plan<'a> {
    fn new(f: &'a Function, import: &'a Import, graph: &'a Graph, cuts: &'a [Cut]) -> Result<Plan<'a>, Diagnostic> {
        let mut values: BTreeMap<Id, Vec<Value>> = BTreeMap::new();
        for (value, class) in &import.classes {
            values.entry(graph.find(*class)).or_default().push(*value);
        }
        let sizes = import.stored.iter().enumerate().filter_map(|(i, s)| match &f.node(s.value).op {
            GraphOp::Size { dim } => Some((i, dim.clone())),
            _other => None,
        });
        let sizes = sizes.collect();
        let facts = requirements(f)?.into_iter().map(|r| r.size).collect();
        let (orders, fixed) = (BTreeMap::new(), BTreeSet::new());
        Ok(Plan { f, import, graph, cuts, values, orders, fixed, sizes, facts })
    }

    /// Whether the atoms are exactly those that a class depends on.
    fn exact(&self, class: Id, atoms: &[AxisId]) -> bool {
        self.graph[class].data.free == atoms.iter().fold(0, |set, &a| set | axis_bit(a))
    }

    /// How each root gets into memory; sets the orders of the classes.
    fn sources(&mut self) -> Result<Vec<Source>, Diagnostic> {
        let there: Vec<Option<Source>> =
            self.import.roots.iter().map(|r| free_source(self.f, self.import, self.graph, r)).collect();
        let mut readers: BTreeMap<Id, usize> = BTreeMap::new();
        let roots = self.import.roots.iter().map(|r| self.graph.find(r.class));
        roots.for_each(|class| *readers.entry(class).or_default() += 1);
        self.cuts.iter().flat_map(|c| &c.inputs).for_each(|class| *readers.entry(*class).or_default() += 1);
        for root in self.import.roots.iter().zip(&there).filter(|(_, s)| s.is_none()).map(|(r, _)| r) {
            let class = self.graph.find(root.class);
            let others = readers.get(&class).is_some_and(|n| *n > 1);
            // A root that is repeated along an axis is stored so only where nobody else reads the class.
            let fits = self.exact(class, &root.axes) || !others;
            if fits && self.fixed.insert(class) {
                self.orders.insert(class, root.axes.clone());
            }
        }
        for cut in self.cuts {
            for &class in &cut.outputs {
                if !self.orders.contains_key(&class) {
                    let order = layout::candidates(self, class).into_iter().next();
                    self.orders.insert(class, order.unwrap_or_default());
                }
            }
        }
        layout::choose(self)?;
        let source = |(root, there): (&egraph::Root, Option<Source>)| {
            let class = self.graph.find(root.class);
            let same = || self.orders.get(&class) == Some(&root.axes);
            there.unwrap_or_else(|| if same() { Source::Cut(class) } else { Source::Copy(class) })
        };
        Ok(self.import.roots.iter().zip(there).map(source).collect())
    }

    fn sizes(&self, atoms: &[AxisId]) -> Result<Vec<Dim>, Diagnostic> {
        let size = |a: &AxisId| self.graph.analysis.axes.get(usize::from(*a)).map(|a| a.dim.clone());
        atoms.iter().map(|a| size(a).ok_or_else(|| Diagnostic::bug("an axis without a size"))).collect()
    }

    /// What a kernel reads, with buffers named by `tensor` and `class`.
    fn memory(
        &self,
        part: &cut::Part<'_>,
        tensor: &dyn Fn(Value) -> Result<Ident, Diagnostic>,
        class: &dyn Fn(Id) -> Result<Ident, Diagnostic>,
    ) -> Result<cut::Memory<'_>, Diagnostic> {
        let (mut tensors, mut classes) = (BTreeMap::new(), BTreeMap::new());
        for place in self.loads(part.nodes) {
            if let Place::Tensor(number) = place
                && let Some(stored) = self.import.stored.get(number)
            {
                tensors.insert(number, (tensor(stored.value)?, stored.atoms.clone()));
            }
        }
        for id in part.inputs {
            if let Some(order) = self.orders.get(id) {
                classes.insert(*id, (class(*id)?, order.clone()));
            }
        }
        Ok(cut::Memory { tensors, classes, sizes: &self.sizes, facts: &self.facts })
    }

    fn outputs(&self, cut: usize) -> Vec<(Id, Vec<AxisId>)> {
        self.cuts[cut].outputs.iter().map(|c| (*c, self.orders.get(c).cloned().unwrap_or_default())).collect()
    }

    /// Tensors that a cut loads from.
    fn loads(&self, nodes: &BTreeMap<Id, ENode>) -> Vec<Place> {
        let mut found = Vec::new();
        for node in nodes.values().filter(|n| matches!(n.head, Head::Load | Head::Gather)) {
            if let Some(Attr::Input(number)) = node.children.first().and_then(|&c| self.graph[c].data.attr.clone()) {
                found.push(Place::Tensor(number as usize));
            }
        }
        found.retain(|p| !matches!(p, Place::Tensor(n) if self.sizes.contains_key(n)));
        found.sort_unstable();
        found.dedup();
        found
    }

    fn first_value(&self, class: Id) -> usize {
        self.values.get(&class).and_then(|v| v.first()).map_or(usize::MAX, |v| v.node.index())
    }
}

/// Emits the steps of a function whose values the cuts compute.
fn emit(lower: &mut Lower<'_>, import: &Import, graph: &Graph, cuts: &[Cut]) -> Result<(), Diagnostic> {
    let f = lower.f;
    let mut plan = Plan::new(f, import, graph, cuts)?;
    let sources = plan.sources()?;
    let units = units::units(&plan, &sources, lower)?;
    let owned = |place: Place| match place {
        Place::Class(_) => true,
        Place::Constant(_) => false,
        Place::Tensor(number) => import.stored.get(number).is_some_and(|s| {
            let param = f.params.get(s.value.node.index());
            param.map_or(import.barriers.contains_key(&s.value.node), |p| p.role == Role::Donated)
        }),
    };
    let kept = f.results.iter().map(|r| units.places.get(r).copied());
    let kept = kept.collect::<Option<Vec<_>>>().ok_or_else(|| Diagnostic::bug("a result has no place"))?;
    let order = order::order(&units.units, &owned, &kept).ok_or_else(|| Diagnostic::bug("kernels need each other"))?;
    lower.in_place = Some(order.in_place);
    let roots = import.roots.iter().map(|r| r.value);
    for value in import.stored.iter().map(|s| s.value).chain(roots) {
        if let GraphOp::Constant { value: literal } = &f.node(value).op
            && lower.buffers.name(value).is_err()
        {
            lower.buffers.constant(value, &literal.0)?;
        }
    }
    let mut there: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    for (root, source) in sources.iter().enumerate() {
        if let Source::There(Place::Tensor(number)) = source
            && let Some(stored) = import.stored.get(*number)
        {
            there.entry(stored.value.node).or_default().push(root);
        }
    }
    let mut emitter = Emitter { lower, plan: &plan, sources: &sources, there, names: BTreeMap::new() };
    for node in emitter.there.keys().copied().collect::<Vec<_>>() {
        emitter.roots_that_are_there(node)?;
    }
    for unit in order.units {
        let first = emitter.lower.steps.len();
        let origin = match &units.work[unit] {
            Work::Cut(cut) => {
                emitter.cut(*cut)?;
                Origin::Cut(*cut)
            }
            Work::Root(root) => {
                emitter.root(*root)?;
                Origin::Root(import.roots[*root].value)
            }
            Work::Barrier(node) => {
                emitter.lower.node(node.index())?;
                emitter.roots_that_are_there(*node)?;
                Origin::Node(*node)
            }
        };
        emitter.lower.origins.push((origin, first..emitter.lower.steps.len()));
    }
    Ok(())
}

struct Emitter<'a, 'm> {
    lower: &'a mut Lower<'m>,
    plan: &'a Plan<'a>,
    sources: &'a [Source],
    /// Roots that are stored tensors, by the nodes that make these.
    there: BTreeMap<NodeId, Vec<usize>>,
    /// Buffers of classes.
    names: BTreeMap<Id, Ident>,
}

impl Emitter<'_, '_> {
    /// Names roots that are tensors which `node` stores, perhaps under other shapes, if these have names yet.
    fn roots_that_are_there(&mut self, node: NodeId) -> Result<(), Diagnostic> {
        for &number in self.there.get(&node).into_iter().flatten() {
            let (root, source) = (&self.plan.import.roots[number], &self.sources[number]);
            let Source::There(Place::Tensor(number)) = source else { continue };
            let Some(stored) = self.plan.import.stored.get(*number) else { continue };
            if let (Err(_), Ok(name)) = (self.lower.buffers.name(root.value), self.lower.buffers.name(stored.value)) {
                self.lower.buffers.work(root.value, self.plan.f.ty(root.value), Some(name));
            }
        }
        Ok(())
    }

    fn cut(&mut self, number: usize) -> Result<(), Diagnostic> {
        let plan = self.plan;
        let cut = &plan.cuts[number];
        let outputs = plan.outputs(number);
        let part = cut::Part { outputs: &outputs, nodes: &cut.nodes, inputs: &cut.inputs };
        let region = self.region(&part)?;
        let mut names = Vec::new();
        for (class, order) in &outputs {
            names.push(self.class_buffer(*class, order)?);
        }
        let last = |c: &Id| plan.values.get(c).and_then(|v| v.last());
        let name = match cut.outputs.iter().find_map(last) {
            Some(v) => format!("{}_{}", plan.f.node(*v).op.info().name, v.node.0),
            None => format!("region_{number}"),
        };
        self.lower.launch_region(&region, &name, names)
    }

    /// The buffer of a class; roots that are this class in this order get it too.
    fn class_buffer(&mut self, class: Id, order: &[AxisId]) -> Result<Ident, Diagnostic> {
        let plan = self.plan;
        let roots = plan.import.roots.iter().zip(self.sources);
        let mine: Vec<Value> = roots.filter(|(_, s)| **s == Source::Cut(class)).map(|(r, _)| r.value).collect();
        let name = match mine.split_first() {
            Some((&first, rest)) => {
                self.lower.buffers.work(first, plan.f.ty(first), None);
                let name = self.lower.buffers.name(first)?;
                for &value in rest {
                    self.lower.buffers.work(value, plan.f.ty(value), Some(name.clone()));
                }
                name
            }
            None => {
                let dtype = plan.graph[class].data.dtype().ok_or_else(|| Diagnostic::bug("stores an attribute"))?;
                self.lower.buffers.class(self.names.len(), Type { dtype, shape: plan.sizes(order)? })
            }
        };
        self.names.insert(class, name.clone());
        Ok(name)
    }

    /// Writes out a root that is a view, an input, a constant, or a class in another order.
    fn root(&mut self, number: usize) -> Result<(), Diagnostic> {
        let plan = self.plan;
        let (root, source) = (&plan.import.roots[number], &self.sources[number]);
        let (nodes, inputs, class) = match source {
            Source::Node(class, node) => (BTreeMap::from([(*class, node.clone())]), BTreeSet::new(), *class),
            Source::Copy(class) => (BTreeMap::new(), BTreeSet::from([*class]), *class),
            Source::There(_) | Source::Cut(_) => return Err(Diagnostic::bug("a copy of what is there")),
        };
        let outputs = vec![(class, root.axes.clone())];
        let region = self.region(&cut::Part { outputs: &outputs, nodes: &nodes, inputs: &inputs })?;
        self.lower.buffers.work(root.value, plan.f.ty(root.value), None);
        let name = self.lower.buffers.name(root.value)?;
        let what = if nodes.is_empty() { "transposed" } else { "stored" };
        self.lower.launch_region(&region, &format!("{what}_{}", root.value.node.0), vec![name])
    }

    fn region(&self, part: &cut::Part<'_>) -> Result<Region, Diagnostic> {
        let plan = self.plan;
        let class =
            |c: Id| self.names.get(&c).cloned().ok_or_else(|| Diagnostic::bug("a class is read that has no buffer"));
        let memory = plan.memory(part, &|v| self.lower.buffers.name(v), &class)?;
        let mut region = coalesce(cut::region(plan.graph, &memory, part)?);
        let computed = part.nodes.keys().flat_map(|c| plan.values.get(c).into_iter().flatten());
        for place in computed.flat_map(|v| &plan.f.node(*v).places) {
            if !region.places.contains(place) {
                region.places.push(place.clone());
            }
        }
        Ok(region)
    }
}
