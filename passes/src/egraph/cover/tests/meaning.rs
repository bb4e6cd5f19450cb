//! A cover computes what the reference interpreter says: cut after cut, each from its own nodes and inputs.

use super::super::super::eval::{Bounded, fold_rows, scalar};
use super::super::super::lang::{Affine, Attr, GATHERED, Head};
use super::super::super::{Import, Limits, Numerics, Saturation, import, saturate, shipped};
use super::super::*;
use std::cell::RefCell;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph as Dsl, Tensor};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Bindings, DType, Type};

/// Tensors by class: sizes of all axes, the class's axes, data.
struct Memory<'a> {
    graph: &'a Graph,
    extents: Vec<i64>,
    tensors: Vec<(Vec<i64>, Vec<f64>)>,
    stored: BTreeMap<Id, (Vec<AxisId>, Vec<f64>)>,
    /// Values of the cut that is evaluated.
    known: RefCell<BTreeMap<(Id, Vec<i64>), f64>>,
}

fn position(e: &Affine, point: &[i64], found: i64) -> i64 {
    let of = |a: AxisId| if a == GATHERED { found } else { point[usize::from(a)] };
    e.constant + e.terms.iter().map(|(a, k)| k * of(*a)).sum::<i64>()
}

fn axes_of(set: u128) -> Vec<AxisId> {
    (0..128).filter(|a| set >> a & 1 == 1).collect()
}

impl Memory<'_> {
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

    fn value(&self, cut: &Cut, class: Id, point: &mut Vec<i64>) -> f64 {
        let free = self.graph[class].data.free;
        let at = (class, axes_of(free).into_iter().map(|a| point[usize::from(a)]).collect());
        if let Some(value) = self.known.borrow().get(&at) {
            return *value;
        }
        let value = self.compute(cut, class, point);
        self.known.borrow_mut().insert(at, value);
        value
    }

    fn compute(&self, cut: &Cut, class: Id, point: &mut Vec<i64>) -> f64 {
        let Some(node) = cut.nodes.get(&class) else {
            assert!(cut.inputs.contains(&class), "{class} is neither computed nor read");
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
            Head::Scalar(ScalarOp::Cast { .. }) => self.value(cut, kid(0), point),
            Head::Scalar(op) => {
                let args: Vec<Bounded> =
                    node.children.iter().map(|c| Bounded::exact(self.value(cut, *c, point))).collect();
                scalar(op.kind(), &args).unwrap().value
            }
            Head::Load | Head::Gather => {
                let (Attr::Input(t), Attr::Map(map)) = (self.attr(kid(0)), self.attr(kid(1))) else { panic!("load") };
                let found = node.children.get(2).map_or(0, |c| self.value(cut, *c, point) as i64);
                let at: Vec<i64> = map.iter().map(|m| position(m, point, found)).collect();
                let (shape, data) = &self.tensors[t as usize];
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
                self.value(cut, kid(1), &mut moved)
            }
            Head::Fold(kind) => {
                let Attr::Axis(axis) = self.attr(kid(0)) else { panic!("axis") };
                let axis = usize::from(axis);
                let before = point[axis];
                let mut rows = Vec::new();
                for i in 0..self.extents[axis] {
                    point[axis] = i;
                    let row = node.children[1..].iter().map(|c| Bounded::exact(self.value(cut, *c, point)));
                    rows.push(row.collect());
                }
                point[axis] = before;
                fold_rows(*kind, &rows).unwrap().value
            }
        }
    }

    /// Every element of `class`, in the order of `axes`.
    fn all(&self, cut: &Cut, class: Id, axes: &[AxisId]) -> Vec<f64> {
        let total: i64 = axes.iter().map(|a| self.extents[usize::from(*a)]).product();
        (0..total)
            .map(|flat| {
                let (mut point, mut rest) = (vec![0; self.extents.len()], flat);
                for axis in axes.iter().rev() {
                    point[usize::from(*axis)] = rest % self.extents[usize::from(*axis)];
                    rest /= self.extents[usize::from(*axis)];
                }
                self.value(cut, class, &mut point)
            })
            .collect()
    }
}

/// A function on its way to kernels.
pub(super) struct Stage {
    pub function: Function,
    pub import: Import,
    pub grown: Saturation,
    pub context: Context,
}

pub(super) fn stage(module: &Module, likely: &[(&str, i64)], limits: Limits) -> Stage {
    let function = module.entry().unwrap().clone();
    let import = import(&function).unwrap();
    let grown = saturate(import.graph.clone(), &shipped().unwrap(), Numerics::Approx, limits).unwrap();
    let likely: Bindings = likely.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let context = Context::new(&function, &import, &grown.graph, &likely).unwrap();
    Stage { function, import, grown, context }
}

impl Stage {
    pub fn cover(&self, device: &str, limits: CoverLimits) -> Cover {
        let roots = &self.context.roots;
        let device = Device::named(device).unwrap();
        let found = cover(&self.grown.graph, roots, &self.context, &device, limits).unwrap();
        well_formed(self, &found, roots);
        found
    }
}

/// What holds for every cover.
fn well_formed(stage: &Stage, cover: &Cover, roots: &[Id]) {
    let graph = &stage.grown.graph;
    let mut have = BTreeSet::new();
    for cut in &cover.cuts {
        for input in &cut.inputs {
            assert!(have.contains(input), "{input} is read before it is stored");
            assert!(!cut.nodes.contains_key(input));
        }
        for (class, node) in &cut.nodes {
            assert_eq!(*class, graph.find(*class));
            let known = graph[*class].nodes.iter().any(|n| {
                n.head == node.head && n.children.iter().map(|c| graph.find(*c)).eq(node.children.iter().copied())
            });
            assert!(known, "{node} is no node of {class}");
        }
        for output in &cut.outputs {
            assert!(cut.nodes.contains_key(output) && have.insert(*output), "{output} is stored twice");
        }
        assert!(cut.price.seconds.is_finite() && cut.price.seconds > 0.0);
    }
    assert!(roots.iter().all(|r| have.contains(&graph.find(*r))));
    assert!(cover.bound <= cover.price * (1.0 + 1e-9) && cover.bound > 0.0, "{} {}", cover.bound, cover.price);
    let sum: f64 = cover.cuts.iter().map(|c| c.price.seconds).sum();
    assert!((sum - cover.price).abs() <= 1e-9 * sum);
}

fn sample(seed: usize, ty: &Type, bindings: &Bindings) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    if ty.dtype == DType::I64 {
        return Array::from_i64(&shape, &(0..n).map(|i| ((i * 7 + seed) % 3) as i64).collect::<Vec<_>>()).unwrap();
    }
    let f = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f64 / 33.0 - 1.4;
    Array::from_f64(&shape, &(0..n).map(f).collect::<Vec<_>>()).unwrap()
}

/// Runs a cover on data and compares every result; results must be f64.
pub(super) fn check(module: &Module, stage: &Stage, cover: &Cover, bindings: &[(&str, i64)]) {
    let (f, import) = (&stage.function, &stage.import);
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &bindings)).collect();
    let mut wide = f.clone();
    wide.results.extend(import.stored.iter().map(|s| s.value));
    let mut wide_module = Module::default();
    for (name, other) in &module.functions {
        wide_module.functions.insert(name.clone(), if *name == f.name { wide.clone() } else { other.clone() });
    }
    let want = run(&wide_module, &f.name, &inputs, &bindings, Mode::Meaning).unwrap();
    let graph = &stage.grown.graph;
    let tensors = import.stored.iter().zip(&want[f.results.len()..]);
    let mut memory = Memory {
        graph,
        extents: graph.analysis.axes.iter().map(|a| a.dim.eval(&bindings).unwrap()).collect(),
        tensors: tensors
            .map(|(s, a)| (s.atoms.iter().map(|d| d.eval(&bindings).unwrap()).collect(), a.to_f64().unwrap()))
            .collect(),
        stored: BTreeMap::new(),
        known: RefCell::default(),
    };
    for cut in &cover.cuts {
        memory.known.borrow_mut().clear();
        for output in &cut.outputs {
            let axes = axes_of(graph[*output].data.free);
            let data = memory.all(cut, *output, &axes);
            memory.stored.insert(*output, (axes, data));
        }
    }
    for (value, want) in f.results.iter().zip(&want) {
        if import.stored.iter().any(|s| s.value == *value) {
            continue;
        }
        let root = import.roots.iter().find(|r| r.value == *value).unwrap();
        let class = graph.find(root.class);
        for (flat, want) in (0i64..).zip(want.to_f64().unwrap()) {
            let (mut point, mut rest) = (vec![0; memory.extents.len()], flat);
            for axis in root.axes.iter().rev() {
                point[usize::from(*axis)] = rest % memory.extents[usize::from(*axis)];
                rest /= memory.extents[usize::from(*axis)];
            }
            let got = memory.load(class, &point);
            let close = (got - want).abs() <= 1e-11 * (1.0 + want.abs());
            assert!(close || (got.is_nan() && want.is_nan()), "element {flat}: {got}, not {want}");
        }
    }
}

/// Covers a program for several devices and checks what each computes; returns the cover for the CPU.
pub(super) fn covered(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> Cover {
    let module = g.finish(results).unwrap();
    let mut first = None;
    let tiny = Limits { iterations: 16, nodes: 1 };
    for (device, limits) in
        [("cpu-avx512", Limits::default()), ("h100", Limits::default()), ("cpu-avx512", tiny), ("cpu-portable", tiny)]
    {
        let stage = stage(&module, bindings, limits);
        let few = CoverLimits { keep: 2, bodies: 10, evaluations: 5, ..CoverLimits::default() };
        for limits in [CoverLimits::default(), few] {
            let cover = stage.cover(device, limits);
            check(&module, &stage, &cover, bindings);
            first = first.or(Some(cover));
        }
    }
    first.unwrap()
}
