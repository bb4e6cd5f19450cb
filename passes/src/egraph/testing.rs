//! What tests of terms share: data, extraction by whim, and an evaluator of chosen nodes.

use super::eval::{Bounded, fold_rows, scalar};
use super::lang::{Affine, Attr, AxisId, ENode, Fold, GATHERED, Head};
use super::{Graph, Import};
use egg::{CostFunction, Extractor, Id, Language};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Tensor, concat, stack};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Bindings, DType, Type};

/// Functions of a tensor `[4, 6]` that move elements: views that split axes, overlap and cut across each other.
pub const MOVEMENTS: [fn(&Tensor) -> Tensor; 12] = [
    |x| x.reshape([4, 2, 3]).permute(&[2, 0, 1]).reshape([3, 8]).exp(),
    |x| x.slice(1, 2, 4) + x.slice(1, 1, 3),
    |x| x.slice(1, 3, 6) * x.slice(1, 0, 3),
    |x| x.slice_by(1, 1, 6, 2).exp(),
    |x| x.slice_by(1, 0, 6, 4).exp(),
    |x| x.pad(0, 1, 2, 0.5).pad(1, 2, 0, -1.0).flip(&[0, 1]),
    |x| concat(&[x, &x.slice(1, 0, 1), &x.flip(&[1])], 1).unwrap(),
    |x| stack(&[x, &(x * 2.0), &x.exp()], 1).unwrap().reshape([4, 18]),
    |x| x.slice(0, 3, 4) + x,
    |x| x.reshape([2, 2, 6]).slice(1, 1, 2).reshape([2, 6]).sum(&[0]) + x,
    |x| x.reshape([24]).slice(0, 13, 14) + x,
    |x| x.max(&[0]) + x.min(&[0]) * x.prod(&[0]),
];

/// Data for an input; positions are below 3.
pub(crate) fn sample(seed: usize, ty: &Type, bindings: &Bindings) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    let f = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f64 / 33.0 - 1.4;
    let array = match ty.dtype {
        DType::I64 => Array::from_i64(&shape, &(0..n).map(|i| ((i * 7 + seed) % 3) as i64).collect::<Vec<_>>()),
        DType::F32 => Array::from_f32(&shape, &(0..n).map(|i| f(i) as f32).collect::<Vec<_>>()),
        _other => Array::from_f64(&shape, &(0..n).map(f).collect::<Vec<_>>()),
    };
    array.unwrap()
}

/// Picks different equal terms for different seeds.
pub(crate) struct Whim(pub u64);

impl CostFunction<ENode> for Whim {
    type Cost = u64;
    fn cost<C: FnMut(Id) -> u64>(&mut self, node: &ENode, mut costs: C) -> u64 {
        let text = node.head.to_string();
        let taste = text.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) % 16;
        // One seed takes folds in one pass wherever it can.
        let online = matches!(&node.head, Head::Fold(Fold::Esum | Fold::EsumIf | Fold::M2));
        let taste = if self.0 == 4 && matches!(node.head, Head::Fold(_)) && !online { 1000 } else { taste };
        let own = if self.0 == 0 { 1 } else { 1 + taste };
        node.children.iter().fold(own, |sum, c| sum.saturating_add(costs(*c)))
    }
}

/// The nodes of the term for `root` that a seed picks.
pub(super) fn picked(graph: &Graph, root: Id, seed: u64) -> BTreeMap<Id, ENode> {
    let extractor = Extractor::new(graph, Whim(seed));
    let (mut nodes, mut open) = (BTreeMap::new(), vec![graph.find(root)]);
    while let Some(class) = open.pop() {
        if let Entry::Vacant(slot) = nodes.entry(class) {
            let node = extractor.find_best_node(class).clone().map_children(|c| graph.find(c));
            open.extend(&node.children);
            slot.insert(node);
        }
    }
    nodes
}

/// A node for each class, and the classes that are read from memory.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub nodes: &'a BTreeMap<Id, ENode>,
    pub inputs: &'a BTreeSet<Id>,
}

/// Tensors with their values as the interpreter has them, and classes that were stored since.
pub(super) struct Memory<'a> {
    graph: &'a Graph,
    extents: Vec<i64>,
    tensors: Vec<(Vec<i64>, Vec<f64>)>,
    /// By class: its axes and data.
    stored: BTreeMap<Id, (Vec<AxisId>, Vec<f64>)>,
    /// Values of what is evaluated.
    known: RefCell<BTreeMap<(Id, Vec<i64>), f64>>,
}

fn position(e: &Affine, point: &[i64], found: i64) -> i64 {
    let of = |a: AxisId| if a == GATHERED { found } else { point[usize::from(a)] };
    e.constant + e.terms.iter().map(|(a, k)| k * of(*a)).sum::<i64>()
}

fn axes_of(set: u128) -> Vec<AxisId> {
    (0..128).filter(|a| set >> a & 1 == 1).collect()
}

impl<'a> Memory<'a> {
    /// The results of a function on samples, and the memory that terms of `graph` load from.
    pub fn of(
        module: &Module,
        f: &Function,
        import: &Import,
        graph: &'a Graph,
        bindings: &Bindings,
    ) -> (Vec<Array>, Memory<'a>) {
        let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, bindings)).collect();
        // The interpreter's values of everything that the terms load, beside the results.
        let mut wide = f.clone();
        wide.results.extend(import.stored.iter().map(|s| s.value));
        let mut wide_module = Module::default();
        for (name, other) in &module.functions {
            wide_module.functions.insert(name.clone(), if *name == f.name { wide.clone() } else { other.clone() });
        }
        let mut want = run(&wide_module, &f.name, &inputs, bindings, Mode::Meaning).unwrap();
        let loaded = want.split_off(f.results.len());
        let tensors = import.stored.iter().zip(&loaded);
        let memory = Memory {
            graph,
            extents: graph.analysis.axes.iter().map(|a| a.dim.eval(bindings).unwrap()).collect(),
            tensors: tensors
                .map(|(s, a)| (s.atoms.iter().map(|d| d.eval(bindings).unwrap()).collect(), a.to_f64().unwrap()))
                .collect(),
            stored: BTreeMap::new(),
            known: RefCell::default(),
        };
        (want, memory)
    }

    /// Every element of `class`, in the order of `axes`.
    pub fn all(&self, chosen: Chosen<'_>, class: Id, axes: &[AxisId]) -> Vec<f64> {
        self.known.borrow_mut().clear();
        self.points(axes).into_iter().map(|mut point| self.value(chosen, class, &mut point)).collect()
    }

    /// Computes and stores a class.
    pub fn store(&mut self, chosen: Chosen<'_>, class: Id) {
        let axes = axes_of(self.graph[class].data.free);
        let data = self.all(chosen, class, &axes);
        self.stored.insert(class, (axes, data));
    }

    /// Every element of a class that was stored, in the order of `axes`.
    pub fn read(&self, class: Id, axes: &[AxisId]) -> Vec<f64> {
        self.points(axes).iter().map(|point| self.load(class, point)).collect()
    }

    fn points(&self, axes: &[AxisId]) -> Vec<Vec<i64>> {
        let total: i64 = axes.iter().map(|a| self.extents[usize::from(*a)]).product();
        let point = |flat| {
            let (mut point, mut rest) = (vec![0; self.extents.len()], flat);
            for axis in axes.iter().rev() {
                point[usize::from(*axis)] = rest % self.extents[usize::from(*axis)];
                rest /= self.extents[usize::from(*axis)];
            }
            point
        };
        (0..total).map(point).collect()
    }

    fn attr(&self, id: Id) -> Attr {
        self.graph[id].data.attr.clone().unwrap()
    }

    fn load(&self, class: Id, point: &[i64]) -> f64 {
        let (axes, data) = &self.stored[&class];
        let mut flat = 0;
        for axis in axes {
            let (i, n) = (point[usize::from(*axis)], self.extents[usize::from(*axis)]);
            if !(0..n).contains(&i) {
                return f64::NAN;
            }
            flat = flat * n + i;
        }
        data[flat as usize]
    }

    fn value(&self, chosen: Chosen<'_>, class: Id, point: &mut Vec<i64>) -> f64 {
        let free = self.graph[class].data.free;
        let at = (class, axes_of(free).into_iter().map(|a| point[usize::from(a)]).collect());
        if let Some(value) = self.known.borrow().get(&at) {
            return *value;
        }
        let value = self.compute(chosen, class, point);
        self.known.borrow_mut().insert(at, value);
        value
    }

    fn compute(&self, chosen: Chosen<'_>, class: Id, point: &mut Vec<i64>) -> f64 {
        let Some(node) = chosen.nodes.get(&class) else {
            assert!(chosen.inputs.contains(&class), "{class} is neither computed nor read");
            return self.load(class, point);
        };
        let kid = |i: usize| node.children[i];
        match &node.head {
            Head::Attr(Attr::Const(n)) => n.value(),
            Head::Attr(a) => panic!("{a} is no value"),
            Head::Iota | Head::Extent => {
                let Attr::Axis(axis) = self.attr(kid(0)) else { panic!("axis") };
                let from = if node.head == Head::Iota { &point[..] } else { &self.extents[..] };
                from[usize::from(axis)] as f64
            }
            Head::Scalar(ScalarOp::Cast { .. }) => self.value(chosen, kid(0), point),
            // A selected value that is not chosen may be anything.
            Head::Scalar(op) => {
                let args: Vec<Bounded> =
                    node.children.iter().map(|c| Bounded::exact(self.value(chosen, *c, point))).collect();
                scalar(op.kind(), &args).unwrap().value
            }
            Head::Load | Head::Gather => {
                let (Attr::Input(t), Attr::Map(map)) = (self.attr(kid(0)), self.attr(kid(1))) else { panic!("load") };
                let found = node.children.get(2).map_or(0, |c| self.value(chosen, *c, point) as i64);
                let at: Vec<i64> = map.iter().map(|m| position(m, point, found)).collect();
                let (shape, data) = &self.tensors[t as usize];
                assert_eq!(shape.len(), at.len());
                let inside = at.iter().zip(shape).all(|(i, n)| (0..*n).contains(i));
                let flat = at.iter().zip(shape).fold(0, |sum, (i, n)| sum * n + i);
                if inside { data[flat as usize] } else { f64::NAN }
            }
            Head::At => {
                let Attr::Subst(map) = self.attr(kid(0)) else { panic!("at") };
                let mut moved = point.clone();
                for (axis, with) in &map {
                    moved[usize::from(*axis)] = position(with, point, 0);
                }
                self.value(chosen, kid(1), &mut moved)
            }
            Head::Fold(kind) => {
                let Attr::Axis(axis) = self.attr(kid(0)) else { panic!("axis") };
                let axis = usize::from(axis);
                let before = point[axis];
                let mut rows = Vec::new();
                for i in 0..self.extents[axis] {
                    point[axis] = i;
                    let row = node.children[1..].iter().map(|c| Bounded::exact(self.value(chosen, *c, point)));
                    rows.push(row.collect());
                }
                point[axis] = before;
                fold_rows(*kind, &rows, None).unwrap().value
            }
        }
    }
}

/// Panics unless all elements agree, up to rounding in f64.
pub(super) fn agree(got: &[f64], want: &Array, what: &str) {
    let want = want.to_f64().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let close = (got - want).abs() <= 1e-11 * (1.0 + want.abs());
        assert!(close || (got.is_nan() && want.is_nan()), "{what}, element {i}: {got}, not {want}");
    }
}
