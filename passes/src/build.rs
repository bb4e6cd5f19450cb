//! Nodes of transforms: each is appended in the name of the node that it is made for, whose lines and scope it has.

use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Derivative, Function, Module, Node, Role, Value};
use tilewright_ir::op::{Axes, Dims, GraphOp, Literal, Name, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// Appends nodes to a function. What it appends has the lines and the scope of the node that [`Build::stand_for`] names.
pub struct Build<'a> {
    /// The functions that nodes may call.
    pub module: &'a mut Module,
    /// The function that grows.
    pub f: &'a mut Function,
    places: Vec<Place>,
    scope: std::sync::Arc<str>,
}

/// A name that no function has.
pub fn fresh(module: &Module, wanted: &str) -> Name {
    let mut name: Name = wanted.into();
    let mut number = 1;
    while module.functions.contains_key(&name) {
        name = format!("{wanted}{number}").into();
        number += 1;
    }
    name
}

/// Adds a function after all others.
pub fn add(module: &mut Module, f: Function) {
    module.functions.insert(f.name.clone(), f);
}

/// The number of a parameter. Errors: `unknown-parameter` with those that there are.
pub fn parameter(f: &Function, name: &str) -> Result<usize, Diagnostic> {
    f.params.iter().position(|p| &*p.name == name).ok_or_else(|| {
        let known: Vec<String> = f.params.iter().map(|p| format!("`%{}`", p.name)).collect();
        let there = if known.is_empty() { "it has none".into() } else { format!("only {}", known.join(", ")) };
        Diagnostic::new("unknown-parameter", format!("`@{}` has no parameter `%{name}`, {there}", f.name))
    })
}

/// The function with parameters that nobody gives away.
pub fn kept(mut f: Function) -> Function {
    f.params.iter_mut().filter(|p| p.role == Role::Donated).for_each(|p| p.role = Role::Input);
    f
}

/// The op on other functions.
pub fn renamed(op: &GraphOp, names: &dyn Fn(&Name) -> Result<Name, Diagnostic>) -> Result<GraphOp, Diagnostic> {
    Ok(match op {
        GraphOp::Call { function } => GraphOp::Call { function: names(function)? },
        GraphOp::Cond { yes, no } => GraphOp::Cond { yes: names(yes)?, no: names(no)? },
        GraphOp::Scan { body, carries, length } => {
            GraphOp::Scan { body: names(body)?, carries: *carries, length: length.clone() }
        }
        runs_none => runs_none.clone(),
    })
}

/// The rule by other functions.
pub fn renamed_rule(
    derivative: &Derivative,
    names: &dyn Fn(&Name) -> Result<Name, Diagnostic>,
) -> Result<Derivative, Diagnostic> {
    Ok(match derivative {
        Derivative::Reverse { forward, backward } => {
            Derivative::Reverse { forward: names(forward)?, backward: names(backward)? }
        }
        Derivative::Forward { tangent } => Derivative::Forward { tangent: names(tangent)? },
        plain @ (Derivative::OfOps | Derivative::Zero | Derivative::Checkpoint) => plain.clone(),
    })
}

/// An overflow of a size.
pub fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "a size does not fit in 64 bits")
}

impl<'a> Build<'a> {
    /// Appends to `f`.
    pub fn new(module: &'a mut Module, f: &'a mut Function) -> Build<'a> {
        Build { module, f, places: Vec::new(), scope: "".into() }
    }

    /// What follows is made for `node`.
    pub fn stand_for(&mut self, node: &Node) {
        self.places.clone_from(&node.places);
        self.scope = node.scope.clone();
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.f.ty(v).clone()
    }

    /// The results of a node. Errors: those of type inference.
    pub fn push_all(&mut self, op: GraphOp, args: &[Value]) -> Result<Vec<Value>, Diagnostic> {
        let place = self.places.first().cloned();
        let node = self.f.push(self.module, op, args, place, &self.scope)?;
        let made = &mut self.f.nodes[node.index()];
        made.places.clone_from(&self.places);
        Ok((0..made.types.len()).map(|index| Value { node, index: index as u32 }).collect())
    }

    /// The only result of a node. Errors: those of type inference.
    pub fn push(&mut self, op: GraphOp, args: &[Value]) -> Result<Value, Diagnostic> {
        self.push_all(op, args)?.first().copied().ok_or_else(|| Diagnostic::bug("a node without a result"))
    }

    /// A scalar op at every element.
    pub fn map(&mut self, op: ScalarOp, args: &[Value]) -> Result<Value, Diagnostic> {
        self.push(GraphOp::Map { op }, args)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Add {}, &[a, b])
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Sub {}, &[a, b])
    }

    /// `a * b`.
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Mul {}, &[a, b])
    }

    /// `a / b`.
    pub fn div(&mut self, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Div {}, &[a, b])
    }

    /// `-a`.
    pub fn neg(&mut self, a: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Neg {}, &[a])
    }

    /// `a` where `mask` holds, else `b`.
    pub fn select(&mut self, mask: Value, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(ScalarOp::Select {}, &[mask, a, b])
    }

    /// The float `x` everywhere.
    pub fn full(&mut self, ty: &Type, x: f64) -> Result<Value, Diagnostic> {
        let scalar = self.literal(Array::from_number(ty.dtype, x)?)?;
        self.spread(scalar, &ty.shape)
    }

    /// The zero of a dtype, floats or not, everywhere: false for truth values.
    pub fn zero(&mut self, ty: &Type) -> Result<Value, Diagnostic> {
        let bytes = vec![0; ty.dtype.bytes(1).unwrap_or(0)];
        let scalar = self.literal(Array::new(ty.dtype, &[], Bytes::new(bytes))?)?;
        self.spread(scalar, &ty.shape)
    }

    /// `a * x`.
    pub fn scaled(&mut self, a: Value, x: f64) -> Result<Value, Diagnostic> {
        let factor = self.full(&self.ty(a), x)?;
        self.mul(a, factor)
    }

    /// A tensor known now.
    pub fn literal(&mut self, array: Array) -> Result<Value, Diagnostic> {
        self.push(GraphOp::Constant { value: Literal(array) }, &[])
    }

    /// The scalar `x` in every element of `shape`.
    pub fn spread(&mut self, x: Value, shape: &[Dim]) -> Result<Value, Diagnostic> {
        self.broadcast(x, shape.to_vec(), Vec::new())
    }

    /// See [`GraphOp::Broadcast`]; nothing where the shape stays.
    pub fn broadcast(&mut self, x: Value, shape: Dims, dims: Axes) -> Result<Value, Diagnostic> {
        if self.f.ty(x).shape == shape {
            return Ok(x);
        }
        self.push(GraphOp::Broadcast { shape, dims }, &[x])
    }

    /// Repeats the result of a reduction over `axes` along them again: of type `ty`.
    pub fn unreduce(&mut self, x: Value, ty: &Type, axes: &[usize]) -> Result<Value, Diagnostic> {
        let kept = (0..ty.rank()).filter(|a| !axes.contains(a)).collect();
        self.broadcast(x, ty.shape.clone(), kept)
    }

    /// See [`GraphOp::Reshape`]; nothing where the shape stays.
    pub fn reshape(&mut self, x: Value, shape: Dims) -> Result<Value, Diagnostic> {
        if self.f.ty(x).shape == shape {
            return Ok(x);
        }
        self.push(GraphOp::Reshape { shape }, &[x])
    }

    /// See [`GraphOp::Transpose`]; nothing where the order stays, and one of one.
    pub fn transpose(&mut self, x: Value, perm: Axes) -> Result<Value, Diagnostic> {
        let made = self.f.node(x);
        if let GraphOp::Transpose { perm: first } = &made.op {
            let both = perm.iter().map(|&axis| first[axis]).collect();
            let source = made.args[0];
            return self.transpose(source, both);
        }
        if perm.iter().copied().eq(0..perm.len()) { Ok(x) } else { self.push(GraphOp::Transpose { perm }, &[x]) }
    }

    /// A fold over `axes`; nothing without axes.
    pub fn fold(&mut self, kind: ReduceKind, x: Value, axes: Axes) -> Result<Value, Diagnostic> {
        if axes.is_empty() { Ok(x) } else { self.push(GraphOp::Reduce { kind, axes }, &[x]) }
    }

    /// The sum over `axes`.
    pub fn sum(&mut self, x: Value, axes: Axes) -> Result<Value, Diagnostic> {
        self.fold(ReduceKind::Sum, x, axes)
    }

    /// The box `start..limit` by steps of 1.
    pub fn slice(&mut self, x: Value, start: Dims, limit: Dims) -> Result<Value, Diagnostic> {
        let shape = &self.f.ty(x).shape;
        if start.iter().all(|s| s.is(0)) && *shape == limit {
            return Ok(x);
        }
        let stride = vec![1; shape.len()];
        self.push(GraphOp::Slice { start, limit, stride }, &[x])
    }

    /// `x` with zeros around it: `low` and `high` of them on `axis`.
    pub fn pad_zero(&mut self, x: Value, axis: usize, low: Dim, high: Dim) -> Result<Value, Diagnostic> {
        if low.is(0) && high.is(0) {
            return Ok(x);
        }
        let ty = self.ty(x);
        let zero = self.full(&Type::scalar(ty.dtype), 0.0)?;
        let none = || (Dim::constant(0), Dim::constant(0));
        let mut amounts: Vec<(Dim, Dim)> = (0..ty.rank()).map(|_| none()).collect();
        amounts[axis] = (low, high);
        self.push(GraphOp::Pad { amounts }, &[x, zero])
    }

    /// Whether `a` and `b` compare as `op` says.
    pub fn compare(&mut self, op: ScalarOp, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.map(op, &[a, b])
    }

    /// `x` in another dtype.
    pub fn cast(&mut self, x: Value, to: DType) -> Result<Value, Diagnostic> {
        if self.f.ty(x).dtype == to { Ok(x) } else { self.map(ScalarOp::Cast { to }, &[x]) }
    }
}
