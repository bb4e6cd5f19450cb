//! Both sides of a rule as the results of one function of the Graph IR: over parameters with symbolic sizes, to be run on many
//! data sets, or over constants, to be read. A fold in one pass is written as what it means.

use super::super::eval::World;
use super::super::lang::{Fold, Head};
use super::super::rules::Rule;
use super::super::term::Term;
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::op::{GraphOp, Literal, ReduceKind, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};

/// The largest size that the parameters allow.
const MOST: i64 = 1 << 21;

/// A rule as a module whose `main` gives the left and the right side.
pub(super) struct Sides {
    pub module: Module,
    /// Axes of both results.
    pub axes: Vec<usize>,
    /// An axis that the right side depends on and the left side does not.
    pub captured: Option<Arc<str>>,
}

/// Why there is no such module.
pub(super) enum Refused {
    /// The left side is no graph: nothing to rewrite.
    Left(String),
    /// The right side is no graph, or has other types or axes.
    Right(String),
}

/// A value and its axes, ascending.
#[derive(Clone)]
struct Tensor {
    value: Value,
    axes: Vec<usize>,
}

struct Build<'a> {
    world: &'a World,
    f: Function,
    dims: Vec<Dim>,
    variables: BTreeMap<Arc<str>, Tensor>,
}

/// Over parameters: sizes are symbols.
pub(super) fn symbolic(rule: &Rule, world: &World) -> Result<Sides, Refused> {
    let names: Vec<String> = (0..world.extents.len()).map(|i| format!("n{i}")).collect();
    let symbols = names.iter().map(|n| SymbolDecl::new(n, 0, MOST)).collect();
    let dims: Vec<Dim> = names.iter().map(|n| Dim::symbol(n)).collect();
    let mut params = Vec::new();
    let mut axes_of = Vec::new();
    for (name, table) in &world.values {
        let axes: Vec<usize> = (0..dims.len()).filter(|&i| table.depends.get(i) == Some(&true)).collect();
        let dtype = world.typing.variable(name).unwrap_or(DType::F64);
        let shape: Vec<Dim> = axes.iter().filter_map(|&i| dims.get(i).cloned()).collect();
        params.push(Param { name: name.clone(), ty: Type { dtype, shape }, role: Role::Input });
        axes_of.push((name.clone(), axes));
    }
    let f = Function::new("main", symbols, params);
    let variables =
        axes_of.into_iter().enumerate().map(|(i, (name, axes))| (name, Tensor { value: f.param(i), axes })).collect();
    Build { world, f, dims, variables }.sides(rule)
}

/// Over constants: the data of `world`.
pub(super) fn constant(rule: &Rule, world: &World) -> Result<Sides, Refused> {
    let dims = world.extents.iter().map(|&n| Dim::from(n)).collect();
    let mut build = Build { world, f: Function::new("main", Vec::new(), Vec::new()), dims, variables: BTreeMap::new() };
    let arrays = inputs(world).map_err(|d| Refused::Left(d.message))?;
    for ((name, table), array) in world.values.iter().zip(arrays) {
        let axes = (0..world.extents.len()).filter(|&i| table.depends.get(i) == Some(&true)).collect();
        let value = build.constant(array).map_err(|d| Refused::Left(d.message))?;
        build.variables.insert(name.clone(), Tensor { value, axes });
    }
    build.sides(rule)
}

/// The data of the variables, in the order of the parameters.
pub(super) fn inputs(world: &World) -> Result<Vec<Array>, Diagnostic> {
    let each = world.values.iter().map(|(name, table)| {
        let shape: Vec<usize> =
            world.extents.iter().zip(&table.depends).filter(|(_, d)| **d).map(|(n, _)| *n).collect();
        // Tables hold one number even for empty axes.
        let data = if shape.contains(&0) { &[] } else { table.data.as_slice() };
        array(world.typing.variable(name).unwrap_or(DType::F64), &shape, data)
    });
    each.collect()
}

/// The sizes of a data set as symbols.
pub(super) fn sizes(world: &World) -> Bindings {
    world.extents.iter().enumerate().map(|(i, n)| (format!("n{i}").into(), *n as i64)).collect()
}

fn array(dtype: DType, shape: &[usize], data: &[f64]) -> Result<Array, Diagnostic> {
    let mut bytes = Vec::new();
    for &x in data {
        if dtype.is_float() {
            bytes.extend_from_slice(Array::from_number(dtype, x)?.bytes());
        } else if dtype == DType::Bool {
            bytes.push(u8::from(x != 0.0));
        } else {
            let whole = if dtype == DType::U64 { (x as u64).to_le_bytes() } else { (x as i64).to_le_bytes() };
            bytes.extend_from_slice(&whole[..dtype.block().1]);
        }
    }
    Array::new(dtype, shape, Bytes::new(bytes))
}

impl Build<'_> {
    fn sides(mut self, rule: &Rule) -> Result<Sides, Refused> {
        let left = self.term(&rule.left).map_err(|d| Refused::Left(d.message))?;
        let right = self.term(&rule.right).map_err(|d| Refused::Right(d.message))?;
        let extra = right.axes.iter().find(|a| !left.axes.contains(a));
        let captured = extra.and_then(|axis| self.world.axes.iter().find(|(_, at)| *at == axis));
        let captured = captured.map(|(name, _)| name.clone());
        let mut axes = [&left.axes[..], &right.axes[..]].concat();
        axes.sort_unstable();
        axes.dedup();
        let left = self.along(&left, &axes).map_err(|d| Refused::Left(d.message))?;
        let right = self.along(&right, &axes).map_err(|d| Refused::Right(d.message))?;
        let (want, found) = (self.f.ty(left.value).dtype, self.f.ty(right.value).dtype);
        if self.f.ty(left.value) != self.f.ty(right.value) {
            return Err(Refused::Right(format!("left is {want}, right is {found}")));
        }
        self.f.results = vec![left.value, right.value];
        let mut module = Module::default();
        module.functions.insert(self.f.name.clone(), self.f);
        Ok(Sides { module, axes, captured })
    }

    fn push(&mut self, op: GraphOp, args: &[Value]) -> Result<Value, Diagnostic> {
        let node = self.f.push(&Module::default(), op, args, None, &"".into())?;
        Ok(Value { node, index: 0 })
    }

    fn constant(&mut self, array: Array) -> Result<Value, Diagnostic> {
        self.push(GraphOp::Constant { value: Literal(array) }, &[])
    }

    fn number(&mut self, dtype: DType, x: f64) -> Result<Tensor, Diagnostic> {
        Ok(Tensor { value: self.constant(array(dtype, &[], &[x])?)?, axes: Vec::new() })
    }

    /// Repeats a value along axes that it lacks; `axes` are ascending.
    fn along(&mut self, x: &Tensor, axes: &[usize]) -> Result<Tensor, Diagnostic> {
        if x.axes == axes {
            return Ok(x.clone());
        }
        let shape = axes.iter().filter_map(|&a| self.dims.get(a).cloned()).collect();
        let dims = x.axes.iter().filter_map(|a| axes.iter().position(|b| a == b)).collect();
        let value = self.push(GraphOp::Broadcast { shape, dims }, &[x.value])?;
        Ok(Tensor { value, axes: axes.to_vec() })
    }

    fn map(&mut self, op: &ScalarOp, args: &[Tensor]) -> Result<Tensor, Diagnostic> {
        let mut axes: Vec<usize> = args.iter().flat_map(|a| &a.axes).copied().collect();
        axes.sort_unstable();
        axes.dedup();
        let args = args.iter().map(|a| Ok(self.along(a, &axes)?.value)).collect::<Result<Vec<Value>, Diagnostic>>()?;
        Ok(Tensor { value: self.push(GraphOp::Map { op: op.clone() }, &args)?, axes })
    }

    fn reduce(&mut self, kind: ReduceKind, axis: usize, x: &Tensor) -> Result<Tensor, Diagnostic> {
        let mut axes = x.axes.clone();
        if let Err(place) = axes.binary_search(&axis) {
            axes.insert(place, axis);
        }
        let x = self.along(x, &axes)?;
        let at = axes.iter().position(|a| *a == axis).unwrap_or(0);
        axes.remove(at);
        Ok(Tensor { value: self.push(GraphOp::Reduce { kind, axes: vec![at] }, &[x.value])?, axes })
    }

    fn axis(&self, term: Option<&Term>) -> Result<usize, Diagnostic> {
        let name = if let Some(Term::Variable(name)) = term { self.world.axes.get(name) } else { None };
        name.copied().ok_or_else(|| Diagnostic::bug("a rule's axis is no axis"))
    }

    fn extent(&mut self, axis: usize, dtype: DType) -> Result<Tensor, Diagnostic> {
        let dim = self.dims.get(axis).cloned().ok_or_else(|| Diagnostic::bug("an axis without a size"))?;
        if let Some(n) = dim.as_const() {
            return self.number(dtype, n as f64);
        }
        let size = Tensor { value: self.push(GraphOp::Size { dim }, &[])?, axes: Vec::new() };
        self.map(&ScalarOp::Cast { to: dtype }, &[size])
    }

    fn term(&mut self, term: &Term) -> Result<Tensor, Diagnostic> {
        let own = self.world.typing.own;
        let (head, args) = match term {
            Term::Variable(name) => {
                let known = self.variables.get(name).cloned();
                return known.ok_or_else(|| Diagnostic::bug(format!("`?{name}` is no value")));
            }
            Term::Number(x) => return self.number(own, *x),
            Term::Own(x) => {
                let x = self.term(x)?;
                return self.map(&ScalarOp::Cast { to: own }, &[x]);
            }
            Term::Apply(head, args) => (head, args.as_slice()),
        };
        match head {
            Head::Scalar(op) => {
                let args = args.iter().map(|a| self.term(a)).collect::<Result<Vec<_>, _>>()?;
                self.map(op, &args)
            }
            Head::Fold(fold) => self.fold(*fold, args),
            Head::Iota => {
                let axis = self.axis(args.first())?;
                let (dtype, shape) = (self.world.typing.of(term), self.dims.get(axis).cloned().into_iter().collect());
                let dtype = dtype.map_err(|message| Diagnostic::new("rule-types", message))?;
                Ok(Tensor { value: self.push(GraphOp::Iota { axis: 0, shape, dtype }, &[])?, axes: vec![axis] })
            }
            Head::Extent => {
                let axis = self.axis(args.first())?;
                self.extent(axis, own)
            }
            Head::Load | Head::Gather | Head::At | Head::Attr(_) => {
                Err(Diagnostic::new("no-graph-form", format!("the checker does not evaluate `{head}`")))
            }
        }
    }

    fn fold(&mut self, fold: Fold, args: &[Term]) -> Result<Tensor, Diagnostic> {
        let axis = self.axis(args.first())?;
        let args = args.iter().skip(1).map(|a| self.term(a)).collect::<Result<Vec<_>, _>>()?;
        let kind = match (fold, args.as_slice()) {
            (Fold::Sum, [_]) => ReduceKind::Sum,
            (Fold::Max, [_]) => ReduceKind::Max,
            (Fold::Min, [_]) => ReduceKind::Min,
            (Fold::Prod, [_]) => ReduceKind::Prod,
            (Fold::M2, [x]) => return self.second_moment(axis, x),
            (Fold::Esum, [s, w]) => return self.online(axis, None, s, w),
            (Fold::EsumIf, [p, s, w]) => return self.online(axis, Some(p), s, w),
            _other => return Err(Diagnostic::bug("a fold lacks its operands")),
        };
        let x = args.first().cloned().ok_or_else(|| Diagnostic::bug("a fold lacks its operand"))?;
        self.reduce(kind, axis, &x)
    }

    /// (m2 j x): sum_j (x - sum_j x / n)^2.
    fn second_moment(&mut self, axis: usize, x: &Tensor) -> Result<Tensor, Diagnostic> {
        let dtype = self.f.ty(x.value).dtype;
        let (sum, count) = (self.reduce(ReduceKind::Sum, axis, x)?, self.extent(axis, dtype)?);
        let mean = self.map(&ScalarOp::Div {}, &[sum, count])?;
        let distance = self.map(&ScalarOp::Sub {}, &[x.clone(), mean])?;
        let square = self.map(&ScalarOp::Mul {}, &[distance.clone(), distance])?;
        self.reduce(ReduceKind::Sum, axis, &square)
    }

    /// (esum j s w): sum_j exp(s - max_j s) * w. (esum-if j p s w) has -inf for s, and 0 for w, where p does not hold.
    fn online(&mut self, axis: usize, p: Option<&Tensor>, s: &Tensor, w: &Tensor) -> Result<Tensor, Diagnostic> {
        let (mut s, mut w) = (s.clone(), w.clone());
        if let Some(p) = p {
            let dtype = self.f.ty(s.value).dtype;
            let (hidden, nothing) = (self.number(dtype, f64::NEG_INFINITY)?, self.number(dtype, 0.0)?);
            s = self.map(&ScalarOp::Select {}, &[p.clone(), s, hidden])?;
            w = self.map(&ScalarOp::Select {}, &[p.clone(), w, nothing])?;
        }
        let most = self.reduce(ReduceKind::Max, axis, &s)?;
        let below = self.map(&ScalarOp::Sub {}, &[s, most])?;
        let share = self.map(&ScalarOp::Exp {}, &[below])?;
        let product = self.map(&ScalarOp::Mul {}, &[share, w])?;
        self.reduce(ReduceKind::Sum, axis, &product)
    }
}
