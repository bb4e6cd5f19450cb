//! What chosen terms compute on data, in f64: the meaning that covers and explanations are held against. Slow and obvious.

use super::cover::each;
use super::eval::{Bounded, fold_rows, scalar};
use super::lang::{Affine, Attr, AxisId, ENode, GATHERED, Head};
use super::{Graph, Import};
use egg::Id;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Value};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::{Bindings, DType};

/// A node for each class, and the classes that are read from memory.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    /// The nodes.
    pub nodes: &'a BTreeMap<Id, ENode>,
    /// What is read.
    pub inputs: &'a BTreeSet<Id>,
}

/// Tensors with their values as the interpreter has them, and classes that were stored since.
pub struct Memory<'a> {
    graph: &'a Graph,
    extents: Vec<i64>,
    tensors: Vec<(Vec<i64>, Vec<f64>)>,
    /// By class: its axes and data.
    stored: BTreeMap<Id, (Vec<AxisId>, Vec<f64>)>,
    /// Values of what is evaluated.
    known: RefCell<BTreeMap<(Id, Vec<i64>), f64>>,
    /// How many more values may be computed.
    left: Cell<u64>,
}

fn bug(what: &str) -> Diagnostic {
    Diagnostic::bug(format!("a term has no meaning: {what}"))
}

fn position(e: &Affine, point: &[i64], found: i64) -> i64 {
    let of = |a: AxisId| if a == GATHERED { found } else { point.get(usize::from(a)).copied().unwrap_or(0) };
    e.constant + e.terms.iter().map(|(a, k)| k * of(*a)).sum::<i64>()
}

impl<'a> Memory<'a> {
    /// The results of a function for `inputs`, and the memory that terms of `graph` load from: what the interpreter has
    /// in f64. `graph` has the axes and inputs of `import`.
    ///
    /// Errors: those of the interpreter; a bug where the import does not fit the function.
    pub fn of(
        module: &Module,
        f: &Function,
        import: &Import,
        graph: &'a Graph,
        bindings: &Bindings,
        inputs: &[Array],
    ) -> Result<(Vec<Array>, Memory<'a>), Diagnostic> {
        // The interpreter's values of everything that the terms load, beside the results.
        let mut wide = f.clone();
        for s in &import.stored {
            // What is encoded is read by casts only.
            let op = GraphOp::Map { op: ScalarOp::Cast { to: DType::F32 } };
            let value = if f.ty(s.value).dtype.is_block() {
                Value { node: wide.push(module, op, &[s.value], None, &"".into())?, index: 0 }
            } else {
                s.value
            };
            wide.results.push(value);
        }
        let mut wide_module = Module::default();
        for (name, other) in &module.functions {
            wide_module.functions.insert(name.clone(), if *name == f.name { wide.clone() } else { other.clone() });
        }
        let mut want = run(&wide_module, &f.name, inputs, bindings, Mode::Meaning)?;
        let loaded = want.split_off(f.results.len());
        let size = |d: &tilewright_ir::types::Dim| d.eval(bindings).map_err(|m| Diagnostic::new("symbol", m));
        let extents = graph.analysis.axes.iter().map(|a| size(&a.dim)).collect::<Result<_, _>>()?;
        let mut tensors = Vec::with_capacity(loaded.len());
        for (s, array) in import.stored.iter().zip(&loaded) {
            let shape = s.atoms.iter().map(size).collect::<Result<Vec<i64>, _>>()?;
            let data = array.to_f64().ok_or_else(|| bug("it loads no numbers"))?;
            tensors.push((shape, data));
        }
        let known = RefCell::default();
        Ok((want, Memory { graph, extents, tensors, stored: BTreeMap::new(), known, left: Cell::new(u64::MAX) }))
    }

    /// Every element of `class`, in the order of `axes`. Errors: a bug where a term has no meaning.
    pub fn all(&self, chosen: Chosen<'_>, class: Id, axes: &[AxisId]) -> Result<Vec<f64>, Diagnostic> {
        self.known.borrow_mut().clear();
        self.points(axes, usize::MAX).into_iter().map(|mut point| self.value(chosen, class, &mut point)).collect()
    }

    /// `class` at one of the points of [`Memory::points`], by at most `work` values, those of operands among them; takes
    /// from `work` what it computed. Errors: `too-much-work`; those of [`Memory::all`].
    pub fn at(&self, chosen: Chosen<'_>, class: Id, point: &[i64], work: &mut u64) -> Result<f64, Diagnostic> {
        self.known.borrow_mut().clear();
        self.left.set(*work);
        let value = self.value(chosen, class, &mut point.to_vec());
        *work = self.left.replace(u64::MAX);
        value
    }

    /// Computes and stores a class. Errors: those of [`Memory::all`].
    pub fn store(&mut self, chosen: Chosen<'_>, class: Id) -> Result<(), Diagnostic> {
        let axes: Vec<AxisId> = each(self.graph[class].data.free).collect();
        let data = self.all(chosen, class, &axes)?;
        self.stored.insert(class, (axes, data));
        Ok(())
    }

    /// Every element of a class that was stored, in the order of `axes`. Errors: those of [`Memory::all`].
    pub fn read(&self, class: Id, axes: &[AxisId]) -> Result<Vec<f64>, Diagnostic> {
        self.points(axes, usize::MAX).iter().map(|point| self.load(class, point)).collect()
    }

    /// Points of some axes, a position for every axis of the graph each: all of them, or about `most`, evenly spread.
    pub fn points(&self, axes: &[AxisId], most: usize) -> Vec<Vec<i64>> {
        let extent = |axis: AxisId| self.extents.get(usize::from(axis)).copied().unwrap_or(1);
        let total: usize = axes.iter().map(|a| usize::try_from(extent(*a)).unwrap_or(0)).product();
        let point = |flat: usize| {
            let (mut point, mut rest) = (vec![0; self.extents.len()], flat as i64);
            for axis in axes.iter().rev() {
                point[usize::from(*axis)] = rest % extent(*axis);
                rest /= extent(*axis);
            }
            point
        };
        (0..total).step_by(total.div_ceil(most).max(1)).map(point).collect()
    }

    fn attr(&self, id: Option<&Id>) -> Result<&'a Attr, Diagnostic> {
        id.and_then(|id| self.graph[*id].data.attr.as_ref()).ok_or_else(|| bug("an operand is no attribute"))
    }

    fn load(&self, class: Id, point: &[i64]) -> Result<f64, Diagnostic> {
        let (axes, data) = self.stored.get(&class).ok_or_else(|| bug("it is neither computed nor read"))?;
        let mut flat = 0;
        for axis in axes {
            let (i, n) = (point[usize::from(*axis)], self.extents[usize::from(*axis)]);
            if !(0..n).contains(&i) {
                return Ok(f64::NAN);
            }
            flat = flat * n + i;
        }
        usize::try_from(flat).ok().and_then(|i| data.get(i)).copied().ok_or_else(|| bug("it lies beyond its tensor"))
    }

    fn value(&self, chosen: Chosen<'_>, class: Id, point: &mut Vec<i64>) -> Result<f64, Diagnostic> {
        let free = self.graph[class].data.free;
        let at = (class, each(free).map(|a| point[usize::from(a)]).collect());
        if let Some(value) = self.known.borrow().get(&at) {
            return Ok(*value);
        }
        let less = self.left.get().checked_sub(1);
        self.left.set(less.ok_or_else(|| Diagnostic::new("too-much-work", "a term has too many values below it"))?);
        let value = self.compute(chosen, class, point)?;
        self.known.borrow_mut().insert(at, value);
        Ok(value)
    }

    fn compute(&self, chosen: Chosen<'_>, class: Id, point: &mut Vec<i64>) -> Result<f64, Diagnostic> {
        let Some(node) = chosen.nodes.get(&class) else {
            return if chosen.inputs.contains(&class) {
                self.load(class, point)
            } else {
                Err(bug("it is neither computed nor read"))
            };
        };
        let kid = |i: usize| node.children.get(i).copied().ok_or_else(|| bug("an operand is missing"));
        match &node.head {
            Head::Attr(Attr::Const(n)) => Ok(n.value()),
            Head::Attr(_) => Err(bug("an attribute is no value")),
            Head::Iota | Head::Extent => {
                let Attr::Axis(axis) = self.attr(node.children.first())? else { return Err(bug("no axis")) };
                let from = if node.head == Head::Iota { &point[..] } else { &self.extents[..] };
                Ok(from[usize::from(*axis)] as f64)
            }
            Head::Scalar(ScalarOp::Cast { .. }) => self.value(chosen, kid(0)?, point),
            // A selected value that is not chosen may be anything.
            Head::Scalar(op) => {
                let args = node.children.iter().map(|c| Ok(Bounded::exact(self.value(chosen, *c, point)?)));
                let args: Vec<Bounded> = args.collect::<Result<_, Diagnostic>>()?;
                Ok(scalar(op.kind(), &args).map_err(Diagnostic::bug)?.value)
            }
            Head::Load | Head::Gather => {
                let (Attr::Input(t), Attr::Map(map)) =
                    (self.attr(node.children.first())?, self.attr(node.children.get(1))?)
                else {
                    return Err(bug("a load of nothing"));
                };
                let found = node.children.get(2).map_or(Ok(0.0), |c| self.value(chosen, *c, point))? as i64;
                let (shape, data) = self.tensors.get(*t as usize).ok_or_else(|| bug("a load of nothing"))?;
                let at = map.iter().map(|m| position(m, point, found)).zip(shape);
                let flat = at.clone().fold(0, |sum, (i, n)| sum * n + i);
                let inside = map.len() == shape.len() && at.clone().all(|(i, n)| (0..*n).contains(&i));
                let place = usize::try_from(flat).ok().filter(|_| inside);
                Ok(place.and_then(|i| data.get(i)).copied().unwrap_or(f64::NAN))
            }
            Head::At => {
                let Attr::Subst(map) = self.attr(node.children.first())? else { return Err(bug("a view of nothing")) };
                let mut moved = point.clone();
                for (axis, with) in map {
                    moved[usize::from(*axis)] = position(with, point, 0);
                }
                self.value(chosen, kid(1)?, &mut moved)
            }
            Head::Fold(kind) => {
                let Attr::Axis(axis) = self.attr(node.children.first())? else { return Err(bug("no axis")) };
                let axis = usize::from(*axis);
                let before = point[axis];
                let mut rows = Vec::new();
                for i in 0..self.extents[axis] {
                    point[axis] = i;
                    let row = node.children.iter().skip(1);
                    let row = row.map(|c| Ok(Bounded::exact(self.value(chosen, *c, point)?)));
                    rows.push(row.collect::<Result<_, Diagnostic>>()?);
                }
                point[axis] = before;
                Ok(fold_rows(*kind, &rows, None).map_err(Diagnostic::bug)?.value)
            }
        }
    }
}
