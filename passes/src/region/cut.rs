//! From a cut of an e-graph to a region: chosen nodes become terms, atoms become axes. A fold's axis is another axis of the
//! region than the grid's of the same name, so that every bind is plain to see.

use super::mask::leaf;
use super::terms::Terms;
use super::{Affine, AxisId, Index, Output, Region, Term, TermId, overflow};
use crate::egraph::lang::{Affine as Place, Attr, AxisId as Atom, ENode, Fold, GATHERED, Head, Number, axis_bit};
use crate::egraph::{Facts, Graph};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{Literal, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// What a kernel reads, and where that lies in memory.
#[derive(Clone, Debug)]
pub struct Memory<'a> {
    /// Stored tensors by input number: buffer and sizes of its atoms in memory order.
    pub tensors: BTreeMap<usize, (Ident, Vec<Dim>)>,
    /// Stored classes: buffer and atoms in memory order.
    pub classes: BTreeMap<Id, (Ident, Vec<Atom>)>,
    /// Stored tensors that are sizes, by input number: they are not read.
    pub sizes: &'a BTreeMap<usize, Dim>,
    /// Sizes that are not negative whenever the kernel runs.
    pub facts: &'a [Dim],
}

/// What one kernel computes.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Classes that are stored, with their atoms in memory order.
    pub outputs: &'a [(Id, Vec<Atom>)],
    /// The chosen node of each class inside, children canonical.
    pub nodes: &'a BTreeMap<Id, ENode>,
    /// Classes that are read from memory.
    pub inputs: &'a BTreeSet<Id>,
}

/// The positions of atoms: those that are not here are the grid's own.
type Positions = BTreeMap<Atom, Affine>;

struct Builder<'a> {
    graph: &'a Graph,
    memory: &'a Memory<'a>,
    part: &'a Part<'a>,
    axes: Vec<(Ident, Dim)>,
    grid: BTreeMap<Atom, AxisId>,
    folded: BTreeMap<Atom, Vec<AxisId>>,
    inputs: Vec<(Ident, Type)>,
    terms: Terms,
    memo: BTreeMap<(Id, Positions), TermId>,
}

type Built = Result<TermId, Diagnostic>;

fn broken(what: &str) -> Diagnostic {
    Diagnostic::bug(format!("a cut {what}"))
}

/// The region of a cut. Errors: `dim-overflow`; a bug where the cut is not closed.
pub fn region(graph: &Graph, memory: &Memory<'_>, part: &Part<'_>) -> Result<Region, Diagnostic> {
    let mut builder = Builder {
        graph,
        memory,
        part,
        axes: Vec::new(),
        grid: BTreeMap::new(),
        folded: BTreeMap::new(),
        inputs: Vec::new(),
        terms: Terms::default(),
        memo: BTreeMap::new(),
    };
    for &atom in part.outputs.iter().flat_map(|o| &o.1) {
        if !builder.grid.contains_key(&atom) {
            let id = builder.axes.len();
            builder.axes.push((format!("d{id}").into(), builder.size(atom)?));
            builder.grid.insert(atom, id);
        }
    }
    let rank = builder.axes.len();
    let mut outputs = Vec::new();
    for (class, atoms) in part.outputs {
        let root = builder.term(*class, &Positions::new())?;
        let axes = atoms.iter().filter_map(|a| builder.grid.get(a).copied()).collect();
        outputs.push(Output { root, axes });
    }
    let Builder { axes, inputs, terms: Terms { list: terms, free, .. }, .. } = builder;
    if outputs.iter().any(|o| free[o.root].iter().any(|a| !o.axes.contains(a))) {
        return Err(broken("stores a value without all of its axes"));
    }
    let symbols = graph.analysis.symbols.clone();
    Ok(Region { axes, rank, inputs, terms, free, outputs, places: Vec::new(), symbols })
}

impl Builder<'_> {
    fn size(&self, atom: Atom) -> Result<Dim, Diagnostic> {
        let info = self.graph.analysis.axes.get(usize::from(atom));
        info.map(|a| a.dim.clone()).ok_or_else(|| broken("has an axis without a size"))
    }

    fn facts(&self, class: Id) -> &Facts {
        &self.graph[class].data
    }

    fn attr(&self, node: &ENode, child: usize) -> Result<&Attr, Diagnostic> {
        let attr = node.children.get(child).and_then(|&c| self.facts(c).attr.as_ref());
        attr.ok_or_else(|| broken("has a node without its attribute"))
    }

    fn child(&self, node: &ENode, child: usize) -> Result<Id, Diagnostic> {
        let id = node.children.get(child).ok_or_else(|| broken("has a node without its operand"))?;
        Ok(self.graph.find(*id))
    }

    fn dtype(&self, class: Id) -> Result<DType, Diagnostic> {
        self.facts(class).dtype().ok_or_else(|| broken("computes an attribute"))
    }

    /// The position of an index of the e-graph.
    fn place(&self, place: &Place, at: &Positions) -> Result<Affine, Diagnostic> {
        let mut sum = Affine::constant(Dim::constant(place.constant));
        for &(atom, factor) in &place.terms {
            let known = match (at.get(&atom), self.grid.get(&atom)) {
                (Some(position), _) => position.clone(),
                (None, Some(&axis)) => Affine::axis(axis),
                (None, None) => return Err(broken(&format!("reads at axis {atom}, which nothing binds"))),
            };
            sum = sum.plus(&known, factor).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    fn term(&mut self, class: Id, at: &Positions) -> Built {
        let class = self.graph.find(class);
        let key = (class, at.clone());
        if let Some(&id) = self.memo.get(&key) {
            return Ok(id);
        }
        let part = self.part;
        let id = match part.nodes.get(&class) {
            Some(node) => self.node(class, node, at)?,
            None => match self.graph[class].data.number {
                Some(number) => self.number(number)?,
                None => self.stored(class, at)?,
            },
        };
        self.memo.insert(key, id);
        Ok(id)
    }

    /// An element of a class in memory.
    fn stored(&mut self, class: Id, at: &Positions) -> Built {
        let memory = self.memory;
        let (name, atoms) = memory
            .classes
            .get(&class)
            .filter(|_| self.part.inputs.contains(&class))
            .ok_or_else(|| broken("reads a class that is neither inside nor an input"))?;
        let sizes = atoms.iter().map(|&a| self.size(a)).collect::<Result<Vec<_>, _>>()?;
        let map = atoms.iter().map(|&a| Ok(Index::Affine(self.place(&Place::axis(a), at)?)));
        let map = map.collect::<Result<Vec<_>, Diagnostic>>()?;
        let dtype = self.dtype(class)?;
        Ok(self.load(name, dtype, sizes, map))
    }

    fn load(&mut self, name: &Ident, dtype: DType, sizes: Vec<Dim>, map: Vec<Index>) -> TermId {
        let open = map.iter().zip(&sizes).any(|(index, n)| match index {
            Index::Affine(a) => !self.inside(a, n),
            Index::Term(_) => false,
        });
        let input = (name.clone(), Type { dtype, shape: sizes });
        let number = self.inputs.iter().position(|i| *i == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        self.terms.add(Term::Load { input: number, map, open }, dtype, 0)
    }

    /// Whether a position is proved to be in `0..n`.
    fn inside(&self, a: &Affine, n: &Dim) -> bool {
        if a.plain_axis().is_some_and(|axis| self.axes[axis].1 == *n) {
            return true;
        }
        let symbols = &self.graph.analysis.symbols;
        let one = Dim::constant(1);
        let ends = || {
            let (mut low, mut high) = (a.base.clone(), a.base.clone());
            for &(axis, c) in &a.terms {
                let span = self.axes[axis].1.checked_sub(&one)?.checked_mul(&Dim::constant(c))?;
                if c > 0 {
                    high = high.checked_add(&span)?;
                } else {
                    low = low.checked_add(&span)?;
                }
            }
            let room = n.checked_sub(&one)?.checked_sub(&high)?;
            let known = |size: &Dim| {
                let rest = |fact: &Dim| size.checked_sub(fact).is_some_and(|r| r.bounds(symbols).0 >= 0);
                size.bounds(symbols).0 >= 0 || self.memory.facts.iter().any(rest)
            };
            Some(known(&low) && known(&room))
        };
        ends().unwrap_or(false)
    }

    fn node(&mut self, class: Id, node: &ENode, at: &Positions) -> Built {
        match &node.head {
            Head::Attr(Attr::Const(number)) => self.number(*number),
            Head::Attr(_) => Err(broken("computes an attribute")),
            Head::Scalar(op) => {
                let args = (0..node.children.len())
                    .map(|i| self.child(node, i).and_then(|c| self.term(c, at)))
                    .collect::<Result<Vec<_>, _>>()?;
                let dtype = self.dtype(class)?;
                Ok(self.scalar(op, args, dtype))
            }
            Head::Load => {
                if let Some(size) = self.known_size(node)? {
                    let size = self.terms.add(Term::Size(size), DType::I64, 0);
                    return Ok(self.terms.cast(self.dtype(class)?, size));
                }
                let (name, sizes, dtype) = self.tensor(node)?;
                let places = self.map(node)?;
                let map = places.iter().map(|p| Ok(Index::Affine(self.place(p, at)?)));
                let map = map.collect::<Result<Vec<_>, Diagnostic>>()?;
                Ok(self.load(&name, dtype, sizes, map))
            }
            Head::Gather => {
                let (name, sizes, dtype) = self.tensor(node)?;
                let found = self.term(self.child(node, 2)?, at)?;
                let found = self.terms.cast(DType::I64, found);
                let places = self.map(node)?;
                let map = places.iter().map(|p| match p.as_axis() {
                    Some(GATHERED) => Ok(Index::Term(found)),
                    _other => Ok(Index::Affine(self.place(p, at)?)),
                });
                let map = map.collect::<Result<Vec<_>, Diagnostic>>()?;
                Ok(self.load(&name, dtype, sizes, map))
            }
            Head::At => {
                let Attr::Subst(subst) = self.attr(node, 0)? else { return Err(broken("has an `at` without a map")) };
                let child = self.child(node, 1)?;
                let free = self.facts(child).free;
                let mut inner = at.clone();
                // Where the value does not depend on an axis, its new position may be bound by nothing.
                for (atom, with) in subst.iter().filter(|s| free & axis_bit(s.0) != 0) {
                    inner.insert(*atom, self.place(with, at)?);
                }
                self.term(child, &inner)
            }
            Head::Iota => {
                let position = self.place(&Place::axis(self.axis(node)?), at)?;
                let position = self.terms.add(Term::Iota(position), DType::I64, 0);
                Ok(self.terms.cast(self.dtype(class)?, position))
            }
            Head::Extent => {
                let size = self.size(self.axis(node)?)?;
                let size = self.terms.add(Term::Size(size), DType::I64, 0);
                Ok(self.terms.cast(self.dtype(class)?, size))
            }
            Head::Fold(fold) => self.fold(class, node, *fold, at),
        }
    }

    fn axis(&self, node: &ENode) -> Result<Atom, Diagnostic> {
        match self.attr(node, 0)? {
            Attr::Axis(atom) => Ok(*atom),
            _other => Err(broken("has a fold or position without its axis")),
        }
    }

    fn map(&self, node: &ENode) -> Result<Vec<Place>, Diagnostic> {
        match self.attr(node, 1)? {
            Attr::Map(map) => Ok(map.clone()),
            _other => Err(broken("has a load without its map")),
        }
    }

    /// The size that a load reads, if its tensor is one.
    fn known_size(&self, node: &ENode) -> Result<Option<Dim>, Diagnostic> {
        let Attr::Input(number) = self.attr(node, 0)? else { return Err(broken("loads from no tensor")) };
        Ok(usize::try_from(*number).ok().and_then(|n| self.memory.sizes.get(&n)).cloned())
    }

    fn tensor(&self, node: &ENode) -> Result<(Ident, Vec<Dim>, DType), Diagnostic> {
        let Attr::Input(number) = self.attr(node, 0)? else { return Err(broken("loads from no tensor")) };
        let number = usize::try_from(*number).unwrap_or(usize::MAX);
        let tensor = self.memory.tensors.get(&number).zip(self.graph.analysis.inputs.get(number));
        let ((name, sizes), info) = tensor.ok_or_else(|| broken("loads from an unknown tensor"))?;
        Ok((name.clone(), sizes.clone(), info.dtype))
    }

    /// A scalar op; arithmetic of positions stays a position, so that masks and merged axes can be read off.
    fn scalar(&mut self, op: &ScalarOp, args: Vec<TermId>, dtype: DType) -> TermId {
        if dtype == DType::I64
            && let [a, b] = args[..]
            && [a, b].iter().any(|&t| matches!(self.terms.list[t].0, Term::Iota(_) | Term::Size(_)))
            && let (Some(x), Some(y)) = (leaf(&self.terms.list, a), leaf(&self.terms.list, b))
        {
            let sum = match op {
                ScalarOp::Add {} => x.plus(&y, 1),
                ScalarOp::Sub {} => x.plus(&y, -1),
                ScalarOp::Mul {} => match (y.as_const(), x.as_const()) {
                    (Some(k), _) => Affine::constant(Dim::constant(0)).plus(&x, k),
                    (None, Some(k)) => Affine::constant(Dim::constant(0)).plus(&y, k),
                    (None, None) => None,
                },
                _other => None,
            };
            if let Some(sum) = sum {
                return self.terms.add(Term::Iota(sum), DType::I64, 0);
            }
        }
        self.terms.map(op.clone(), args, dtype)
    }

    fn number(&mut self, number: Number) -> Built {
        let (dtype, value) = (number.dtype, number.value());
        let exact = dtype.folded();
        let array = match exact {
            DType::F32 => Array::from_f32(&[], &[value as f32])?,
            DType::F64 => Array::from_f64(&[], &[value])?,
            _integer => {
                let raw = number.bits.to_le_bytes();
                let raw = raw.get(..exact.block().1).ok_or_else(|| broken("has a constant in a block encoding"))?;
                Array::new(exact, &[], Bytes::new(raw.to_vec()))?
            }
        };
        let id = self.terms.add(Term::Const(Literal(array)), exact, 0);
        Ok(self.terms.cast(dtype, id))
    }

    /// The region's axis for a fold over `atom`: one for all folds over it, unless an outer one is still read inside.
    fn opened(&mut self, atom: Atom, at: &Positions) -> Result<AxisId, Diagnostic> {
        let used = |axis: AxisId| at.iter().any(|(a, p)| *a != atom && p.terms.iter().any(|t| t.0 == axis));
        if let Some(&axis) = self.folded.get(&atom).and_then(|axes| axes.iter().find(|a| !used(**a))) {
            return Ok(axis);
        }
        let axis = self.axes.len();
        self.axes.push((format!("k{axis}").into(), self.size(atom)?));
        self.folded.entry(atom).or_default().push(axis);
        Ok(axis)
    }

    fn fold(&mut self, class: Id, node: &ENode, fold: Fold, at: &Positions) -> Built {
        let atom = self.axis(node)?;
        let axis = self.opened(atom, at)?;
        let mut inner = at.clone();
        inner.insert(atom, Affine::axis(axis));
        let mut args = Vec::new();
        for i in 1..node.children.len() {
            args.push(self.term(self.child(node, i)?, &inner)?);
        }
        let dtype = self.dtype(class)?;
        let simple = |kind| (kind, args.first().copied());
        let (kind, arg) = match fold {
            Fold::Sum => simple(ReduceKind::Sum),
            Fold::Max => simple(ReduceKind::Max),
            Fold::Min => simple(ReduceKind::Min),
            Fold::Prod => simple(ReduceKind::Prod),
            Fold::M2 => {
                let arg = args.first().copied().ok_or_else(|| broken("has a fold of nothing"))?;
                let arg = self.terms.wide(arg);
                let wide = self.terms.dtype(arg);
                let moment = self.terms.add(Term::Moment { axis, arg }, wide, 0);
                return Ok(self.terms.cast(dtype, moment));
            }
            Fold::Esum | Fold::EsumIf => {
                let (mask, key, weight) = match args.as_slice() {
                    &[key, weight] => (None, key, weight),
                    &[mask, key, weight] => (Some(mask), key, weight),
                    _other => return Err(broken("has an online fold without its operands")),
                };
                let (key, weight) = (self.terms.wide(key), self.terms.wide(weight));
                let wide = self.terms.dtype(weight);
                let sum = self.terms.add(Term::Online { axis, key, weight, mask }, wide, 0);
                return Ok(self.terms.cast(dtype, sum));
            }
        };
        let arg = arg.ok_or_else(|| broken("has a fold of nothing"))?;
        let arg = self.wide_fold(kind, arg);
        let sum = self.terms.fold(kind, &[axis], arg);
        Ok(self.terms.cast(dtype, sum))
    }

    /// Half precision is folded in f32, and so are folds inside of folds: what the import made of several axes rounds once.
    fn wide_fold(&mut self, kind: ReduceKind, arg: TermId) -> TermId {
        let (term, dtype) = self.terms.list[arg].clone();
        if dtype.folded() == dtype {
            return arg;
        }
        match term {
            Term::Map(ScalarOp::Cast { .. }, args) => match args.first() {
                Some(&x) if matches!(self.terms.list[x], (Term::Fold { kind: k, .. }, DType::F32) if k == kind) => x,
                Some(_) | None => self.terms.wide(arg),
            },
            _other => self.terms.wide(arg),
        }
    }
}
