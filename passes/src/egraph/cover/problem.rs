//! The saturated e-graph as a search sees it: classes that roots need, numbered children first, with their nodes and with
//! what may be stored.

use super::super::facts::{Graph, Sort};
use super::super::lang::{Affine, Attr, AxisId, AxisSet, ENode, Fold, GATHERED, Head, axis_bit};
use super::body::NOWHERE;
use super::{Context, Device};
use crate::schedule::is_half;
use egg::Id;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::{Family, ScalarKind, ScalarOp};
use tilewright_ir::types::DType;

/// Number of a class in a [`Problem`].
pub(super) type Class = usize;

/// What a node does, as far as prices go.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A load: input number and access map.
    Load(u32, Vec<Affine>),
    /// A constant, a position, a size.
    Number,
    /// A load at a computed index.
    Gather(u32, Vec<Affine>),
    /// Another class under other names of axes.
    At(Vec<(AxisId, Affine)>),
    /// A scalar op; its work in elementwise operations, of which this many are special functions.
    Map { work: f64, special: f64 },
    /// A fold over an axis.
    Fold(Fold, AxisId),
}

/// A node of a class.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The node, children canonical.
    pub node: ENode,
    /// What it does.
    pub step: Step,
    /// Value operands.
    pub kids: Vec<Class>,
    /// Axes of its own: of the map, or the position's.
    pub own: AxisSet,
    /// Number of the head among the heads of the problem.
    pub code: u32,
}

/// A class.
#[derive(Clone, Debug)]
pub(super) struct Info {
    /// Its canonical id.
    pub id: Id,
    /// Axes, as the facts say.
    pub free: AxisSet,
    /// Element type.
    pub dtype: DType,
    /// Its nodes, sorted.
    pub choices: Vec<Choice>,
    /// The choice that is a load, a constant, a position or a size, if there is one: never worth storing.
    pub simple: Option<usize>,
    /// Whether a kernel may store it for others to read.
    pub storable: bool,
    /// Whether its only reader is elementwise over the same axes: storing what that one makes is as good.
    pub chain: bool,
    /// Of a value in f32 that f16 or bf16 holds in memory: the choice that converts, and the class that is stored.
    pub narrow: Option<(usize, Class)>,
    /// Classes with a node that reads it.
    pub readers: usize,
    /// Whether a root is this class.
    pub root: bool,
    /// Its axes in memory order, where a root or a value of the graph says.
    pub order: Option<Vec<AxisId>>,
}

/// The classes below the roots.
pub(super) struct Problem<'a> {
    /// Sizes, inputs, roots' orders.
    pub context: &'a Context,
    /// Rates.
    pub device: &'a Device,
    /// Children before parents, but for cycles.
    pub classes: Vec<Info>,
    /// Roots, each once.
    pub roots: Vec<Class>,
    /// Number of a class.
    pub number: BTreeMap<Id, Class>,
    /// Per class, its place in the body that is being read: space that [`super::body::written`] uses.
    pub places: RefCell<Vec<u32>>,
}

/// Work of an elementwise op: operations, and calls of special functions.
pub(crate) fn work(op: &ScalarOp) -> (f64, f64) {
    if op.info().family == Family::Transcendental {
        // In exponentials of the price, rounded, on Zen 5. A power goes by single elements and takes 140 there; so many are enough not to
        // compute it twice.
        let exponentials = match op.kind() {
            ScalarKind::Sin | ScalarKind::Cos => 2.0,
            ScalarKind::Erf => 1.5,
            ScalarKind::Pow => 30.0,
            _other => 1.0,
        };
        return (0.0, exponentials);
    }
    let slow = [ScalarKind::Div, ScalarKind::Sqrt, ScalarKind::Rsqrt, ScalarKind::Rem].contains(&op.kind());
    (if slow { 4.0 } else { 1.0 }, 0.0)
}

impl Choice {
    fn of(graph: &Graph, number: &BTreeMap<Id, Class>, node: &ENode, heads: &mut Vec<Head>) -> Option<Choice> {
        let children: Vec<Id> = node.children.iter().map(|&c| graph.find(c)).collect();
        let attr = |i: usize| children.get(i).and_then(|&c| graph[c].data.attr.as_ref());
        let (step, own) = match &node.head {
            Head::Attr(Attr::Const(_)) => (Step::Number, 0),
            Head::Attr(_) => return None,
            Head::Extent => (Step::Number, 0),
            Head::Iota => (Step::Number, attr(0).map_or(0, |a| if let Attr::Axis(x) = a { axis_bit(*x) } else { 0 })),
            Head::Load | Head::Gather => {
                let (Attr::Input(input), Attr::Map(map)) = (attr(0)?, attr(1)?) else { return None };
                let free = map.iter().fold(0, |set, e| set | e.free()) & !axis_bit(GATHERED);
                let load = node.head == Head::Load;
                (if load { Step::Load(*input, map.clone()) } else { Step::Gather(*input, map.clone()) }, free)
            }
            Head::At => match attr(0)? {
                Attr::Subst(map) => (Step::At(map.clone()), 0),
                _other => return None,
            },
            Head::Scalar(op) => {
                let (work, special) = work(op);
                (Step::Map { work, special }, 0)
            }
            Head::Fold(fold) => match attr(0)? {
                Attr::Axis(axis) => (Step::Fold(*fold, *axis), 0),
                _other => return None,
            },
        };
        let values = children.iter().filter(|&&c| graph[c].data.sort != Sort::Attr);
        let kids = values.map(|c| number.get(c).copied()).collect::<Option<Vec<Class>>>()?;
        let code = heads.iter().position(|h| *h == node.head).unwrap_or_else(|| {
            heads.push(node.head.clone());
            heads.len() - 1
        });
        let node = ENode::new(node.head.clone(), children);
        Some(Choice { node, step, kids, own, code: u32::try_from(code).unwrap_or(u32::MAX) })
    }

    /// Axes of the node's value if those of its operands are `kids`, as it is written.
    pub fn free(&self, mut kids: impl Iterator<Item = AxisSet>) -> AxisSet {
        match &self.step {
            Step::Load(..) | Step::Number => self.own,
            Step::Gather(..) => kids.fold(self.own, |set, k| set | k),
            Step::At(map) => {
                let inner = kids.next().unwrap_or(0);
                let kept = map.iter().fold(inner, |set, (axis, _)| set & !axis_bit(*axis));
                let moved = map.iter().filter(|(axis, _)| inner & axis_bit(*axis) != 0);
                moved.fold(kept, |set, (_, with)| set | with.free())
            }
            Step::Map { .. } => kids.fold(0, |set, k| set | k),
            Step::Fold(_, axis) => kids.fold(0, |set, k| set | k) & !axis_bit(*axis),
        }
    }
}

/// Classes below the roots, children first; and their numbers.
fn postorder(graph: &Graph, roots: &[Id]) -> Vec<Id> {
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    let mut stack: Vec<(Id, bool)> = roots.iter().rev().map(|&r| (graph.find(r), false)).collect();
    while let Some((class, done)) = stack.pop() {
        if done {
            order.push(class);
        } else if seen.insert(class) {
            stack.push((class, true));
            for node in graph[class].nodes.iter().rev() {
                let kids = node.children.iter().rev().map(|&c| graph.find(c));
                stack.extend(
                    kids.filter(|k| graph[*k].data.sort != Sort::Attr && !seen.contains(k)).map(|k| (k, false)),
                );
            }
        }
    }
    order
}

/// A value in f16 or bf16 that is one in f32, rounded, is not computed in halves: that would round every operand as well.
fn round_once(graph: &Graph, dtype: DType, choices: &mut Vec<Choice>) {
    let cast = |c: &Choice| matches!(c.node.head, Head::Scalar(ScalarOp::Cast { .. }));
    // The value in f32 may be there only because it is this half, converted.
    let rounds = |c: &Choice| {
        let from = c.node.children.first().map(|&k| &graph[k]);
        let other = |n: &ENode| !matches!(n.head, Head::Scalar(ScalarOp::Cast { .. }));
        cast(c) && from.is_some_and(|f| f.data.dtype() == Some(DType::F32) && f.nodes.iter().any(other))
    };
    if is_half(dtype) && choices.iter().any(rounds) {
        choices.retain(|c| match &c.step {
            Step::Map { .. } => cast(c),
            Step::Fold(..) => false,
            Step::Load(..) | Step::Number | Step::Gather(..) | Step::At(_) => true,
        });
    }
}

/// Values in f16 or bf16 that are factors of sums of products, converted: matrix units multiply halves, so a factor that the
/// kernel of a product computes has to be one.
fn half_factors(graph: &Graph, order: &[Id]) -> BTreeSet<Id> {
    let nodes = |id: &Id, head: &Head| {
        let found = graph[*id].nodes.iter().filter(|n| n.head == *head);
        found.flat_map(|n| n.children.iter().copied()).collect::<Vec<Id>>()
    };
    let bodies = order.iter().flat_map(|id| nodes(id, &Head::Fold(Fold::Sum)));
    let factors = bodies.flat_map(|b| nodes(&b, &Head::Scalar(ScalarOp::Mul {})));
    let halves = factors.flat_map(|f| nodes(&f, &Head::Scalar(ScalarOp::Cast { to: DType::F32 })));
    halves.map(|h| graph.find(h)).collect()
}

impl<'a> Problem<'a> {
    /// The problem of storing `roots`. `loose` lets every class be stored: the last resort of a graph that saturation left
    /// in the middle of its work.
    ///
    /// Errors: a bug where a node has attributes that it cannot have.
    pub fn new(
        graph: &Graph,
        roots: &[Id],
        context: &'a Context,
        device: &'a Device,
        loose: bool,
    ) -> Result<Problem<'a>, Diagnostic> {
        let order = postorder(graph, roots);
        let number: BTreeMap<Id, Class> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let kept = if device.capabilities.prologue { half_factors(graph, &order) } else { BTreeSet::new() };
        let mut heads = Vec::new();
        let mut classes = Vec::with_capacity(order.len());
        // Of several orders the first counts.
        let orders: BTreeMap<Id, &Vec<AxisId>> = context.orders.iter().rev().map(|(id, order)| (*id, order)).collect();
        for &id in &order {
            let data = &graph[id].data;
            let dtype = data.dtype().ok_or_else(|| Diagnostic::bug("a root is an attribute"))?;
            let mut choices = Vec::new();
            for node in &graph[id].nodes {
                let choice = Choice::of(graph, &number, node, &mut heads);
                choices.push(choice.ok_or_else(|| Diagnostic::bug(format!("`{node}` has the wrong attributes")))?);
            }
            if !kept.contains(&id) {
                round_once(graph, dtype, &mut choices);
            }
            choices.sort_by(|a, b| (&a.node.head, &a.kids).cmp(&(&b.node.head, &b.kids)));
            let simple = choices.iter().position(|c| matches!(c.step, Step::Load(..) | Step::Number));
            let info = Info {
                id,
                free: data.free,
                dtype,
                choices,
                simple,
                storable: false,
                chain: false,
                narrow: None,
                readers: 0,
                root: false,
                order: orders.get(&id).copied().cloned(),
            };
            classes.push(info);
        }
        let mut unique: Vec<Class> = Vec::new();
        for root in roots {
            let class = number.get(&graph.find(*root)).copied().ok_or_else(|| Diagnostic::bug("a root is missing"))?;
            if !std::mem::replace(&mut classes[class].root, true) {
                unique.push(class);
            }
        }
        let places = RefCell::new(vec![NOWHERE; classes.len()]);
        let mut problem = Problem { context, device, classes, roots: unique, number, places };
        problem.mark(loose);
        Ok(problem)
    }

    /// Decides what may be stored.
    fn mark(&mut self, loose: bool) {
        let count = self.classes.len();
        let mut readers: Vec<BTreeSet<Class>> = vec![BTreeSet::new(); count];
        for (class, info) in self.classes.iter().enumerate() {
            for kid in info.choices.iter().flat_map(|c| &c.kids) {
                readers[*kid].insert(class);
            }
        }
        let pairs = self.pairs();
        for &(half, wide, _) in &pairs {
            // Where nothing else reads the half, it is no reader of its own.
            if !self.classes[half].root && readers[half].len() == 1 {
                readers[wide].remove(&half);
            }
        }
        // A factor of a product may have to lie in memory whatever it is; what an `at` reads must, if nothing else makes
        // the class of the `at`.
        let (mut factor, mut viewed) = (vec![false; count], vec![false; count]);
        for info in &self.classes {
            let view = info.choices.iter().all(|c| matches!(c.step, Step::At(_)));
            for choice in &info.choices {
                if let Step::Fold(Fold::Sum, _) = choice.step {
                    for factors in choice.kids.iter().flat_map(|&k| self.products(k)) {
                        factors.iter().for_each(|&f| factor[f] = true);
                    }
                }
                if view {
                    choice.kids.iter().for_each(|&k| viewed[k] = true);
                }
            }
        }
        // Whether all choices are elementwise.
        let all = |i: &Info| i.choices.iter().all(|c| matches!(c.step, Step::Map { .. }));
        let elementwise: Vec<bool> = self.classes.iter().map(all).collect();
        for class in 0..count {
            let info = &self.classes[class];
            let step = |want: fn(&Step) -> bool| info.choices.iter().any(|c| want(&c.step));
            let block = info.choices.iter().any(|c| {
                let dequantises = matches!(c.node.head, Head::Scalar(ScalarOp::Cast { .. }));
                dequantises
                    && c.kids.iter().any(|&k| self.classes[k].dtype.is_block() && self.classes[k].simple.is_some())
            });
            let view = step(|s| matches!(s, Step::At(_)));
            let number = info.dtype.is_float() && !block && (!view || factor[class]);
            let counted = info.dtype.is_int() && step(|s| matches!(s, Step::Fold(..) | Step::Gather(..)));
            let possible = info.simple.is_none() && !info.dtype.is_block();
            let storable = possible && (number || counted || viewed[class] || info.root || loose);
            let only = readers[class].iter().next().filter(|_| readers[class].len() == 1 && !info.root);
            let chain = only.is_some_and(|&reader| elementwise[reader] && self.classes[reader].free == info.free);
            let count = readers[class].len();
            let info = &mut self.classes[class];
            (info.storable, info.chain, info.readers) = (storable, chain && !viewed[class], count);
        }
        self.part_folds();
        for (half, wide, choice) in pairs {
            let info = &mut self.classes[wide];
            info.storable &= info.root || viewed[wide];
            if self.classes[half].simple.is_none() {
                self.classes[wide].narrow = Some((choice, half));
                self.classes[half].chain = self.classes[wide].chain;
            }
        }
    }

    /// Values in f16 or bf16 with the classes that are these in f32, and which of their choices converts the half. To store
    /// the half is to store the other in half of the bytes.
    fn pairs(&self) -> Vec<(Class, Class, usize)> {
        let mut found = Vec::new();
        for (wide, info) in self.classes.iter().enumerate().filter(|(_, i)| i.dtype == DType::F32) {
            let half = |c: &Choice| match (&c.node.head, c.kids.as_slice()) {
                (Head::Scalar(ScalarOp::Cast { .. }), [half]) => {
                    Some(*half).filter(|&h| is_half(self.classes[h].dtype))
                }
                _other => None,
            };
            let pair = info.choices.iter().enumerate().find_map(|(choice, c)| half(c).map(|half| (half, wide, choice)));
            found.extend(pair);
        }
        found
    }

    /// A kernel may have room for one of the folds that an elementwise value combines (two products), so none of them has
    /// to be inside.
    fn part_folds(&mut self) {
        let fold = |c: &Choice| matches!(c.step, Step::Fold(..));
        let is_fold: Vec<bool> = self.classes.iter().map(|info| info.choices.iter().any(fold)).collect();
        let mut holds = vec![false; self.classes.len()];
        let mut apart = BTreeSet::new();
        for (class, info) in self.classes.iter().enumerate() {
            for choice in &info.choices {
                let kids: BTreeSet<Class> =
                    choice.kids.iter().copied().filter(|&k| self.classes[k].chain && holds[k]).collect();
                holds[class] |= fold(choice) || !kids.is_empty();
                // One that others read as well has room elsewhere, and may be what this kernel is for.
                let shared = choice.kids.iter().any(|k| is_fold[*k] && !kids.contains(k));
                if kids.len() > 1 || shared && !fold(choice) {
                    apart.extend(kids);
                }
            }
        }
        for class in apart {
            self.classes[class].chain = false;
        }
    }

    /// Operands of the products that a class is.
    fn products(&self, class: Class) -> impl Iterator<Item = &Vec<Class>> {
        let mul = |c: &&Choice| matches!(c.node.head, Head::Scalar(ScalarOp::Mul {}));
        self.classes[class].choices.iter().filter(mul).map(|c| &c.kids)
    }

    /// Likely size of an axis, at least 1.
    pub fn extent(&self, axis: AxisId) -> f64 {
        self.context.extents.get(usize::from(axis)).copied().unwrap_or(1.0).max(1.0)
    }

    /// Whether the size of an axis is known now.
    pub fn is_constant(&self, axis: AxisId) -> bool {
        self.context.constant.get(usize::from(axis)).copied().unwrap_or(false)
    }

    /// Largest size of an axis.
    pub fn longest(&self, axis: AxisId) -> f64 {
        self.context.longest.get(usize::from(axis)).copied().unwrap_or(f64::INFINITY)
    }

    /// Likely number of points of some axes.
    pub fn points(&self, axes: AxisSet) -> f64 {
        each(axes).map(|a| self.extent(a)).product()
    }
}

/// The axes of a set, in order.
pub(in crate::egraph) fn each(axes: AxisSet) -> impl Iterator<Item = AxisId> {
    let mut rest = axes;
    std::iter::from_fn(move || {
        let next = rest.trailing_zeros();
        if next >= AxisSet::BITS {
            return None;
        }
        rest &= rest - 1;
        u8::try_from(next).ok()
    })
}
