//! Pushes primitives, with numpy's broadcasting made explicit.

use super::attrs::wrong;
use std::sync::Arc;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Param, Value};
use tilewright_ir::op::{DotDims, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim};

type Built = Result<Value, Diagnostic>;

/// The function under construction.
pub(super) struct Builder {
    pub(super) function: Function,
    module: Module,
    scope: Arc<str>,
}

impl Builder {
    pub(super) fn new(params: Vec<Param>) -> Builder {
        let function = Function::new("main", Vec::new(), params);
        Builder { function, module: Module::default(), scope: "".into() }
    }

    pub(super) fn push(&mut self, op: GraphOp, args: &[Value]) -> Built {
        let node = self.function.push(&self.module, op, args, None, &self.scope)?;
        Ok(Value { node, index: 0 })
    }

    pub(super) fn dtype(&self, x: Value) -> DType {
        self.function.ty(x).dtype
    }

    pub(super) fn rank(&self, x: Value) -> usize {
        self.function.ty(x).rank()
    }

    /// Sizes; every size of these programs is known.
    pub(super) fn shape(&self, x: Value) -> Result<Vec<i64>, Diagnostic> {
        let sizes = self.function.ty(x).shape.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
        sizes.ok_or_else(|| Diagnostic::bug("a symbolic size in an op program"))
    }

    /// Number of elements along `axes`.
    pub(super) fn count(&self, x: Value, axes: &[usize]) -> Result<i64, Diagnostic> {
        let shape = self.shape(x)?;
        let n = axes.iter().try_fold(1i64, |n, &a| n.checked_mul(shape[a]));
        n.ok_or_else(|| Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"))
    }

    /// A constant scalar of `dtype`.
    pub(super) fn scalar(&mut self, value: f64, dtype: DType) -> Built {
        let array = match dtype {
            DType::F64 => Array::from_f64(&[], &[value])?,
            DType::F32 => Array::from_f32(&[], &[value as f32])?,
            DType::I64 => Array::from_i64(&[], &[value as i64])?,
            other => return Err(wrong(format!("a number beside {other} operands"))),
        };
        self.push(GraphOp::Constant { value: array.into() }, &[])
    }

    /// `value` in the dtype and the shape of `x`.
    pub(super) fn like(&mut self, x: Value, value: f64) -> Built {
        let scalar = self.scalar(value, self.dtype(x))?;
        let shape = self.shape(x)?;
        self.broadcast(scalar, &shape)
    }

    /// Repeats `x` into `shape`, whose last axes are those of `x`.
    pub(super) fn broadcast(&mut self, x: Value, shape: &[i64]) -> Built {
        let own = self.shape(x)?;
        if own == shape {
            return Ok(x);
        }
        let Some(new) = shape.len().checked_sub(own.len()) else {
            return Err(wrong(format!("cannot broadcast {own:?} to {shape:?}")));
        };
        let dims = (new..shape.len()).collect();
        self.push(GraphOp::Broadcast { shape: dims_of(shape), dims }, &[x])
    }

    /// The shape that numpy gives to an elementwise op of these.
    pub(super) fn common(&self, args: &[Value]) -> Result<Vec<i64>, Diagnostic> {
        let mut out: Vec<i64> = Vec::new();
        for &x in args {
            let shape = self.shape(x)?;
            while out.len() < shape.len() {
                out.insert(0, 1);
            }
            let at = out.len() - shape.len();
            for (o, &s) in out[at..].iter_mut().zip(&shape) {
                if *o == 1 {
                    *o = s;
                } else if s != 1 && s != *o {
                    return Err(wrong(format!("cannot broadcast a size {s} to {o}")));
                }
            }
        }
        Ok(out)
    }

    /// A scalar op on operands of one shape.
    pub(super) fn map(&mut self, op: ScalarOp, args: &[Value]) -> Built {
        self.push(GraphOp::Map { op }, args)
    }

    /// A scalar op with numpy's broadcasting.
    pub(super) fn wide(&mut self, op: ScalarOp, args: &[Value]) -> Built {
        let shape = self.common(args)?;
        let args = args.iter().map(|&x| self.broadcast(x, &shape)).collect::<Result<Vec<Value>, Diagnostic>>()?;
        self.map(op, &args)
    }

    /// A scalar op of `x` and a number.
    pub(super) fn with(&mut self, op: ScalarOp, x: Value, number: f64) -> Built {
        let y = self.like(x, number)?;
        self.map(op, &[x, y])
    }

    pub(super) fn add(&mut self, x: Value, y: Value) -> Built {
        self.wide(ScalarOp::Add {}, &[x, y])
    }

    pub(super) fn sub(&mut self, x: Value, y: Value) -> Built {
        self.wide(ScalarOp::Sub {}, &[x, y])
    }

    pub(super) fn mul(&mut self, x: Value, y: Value) -> Built {
        self.wide(ScalarOp::Mul {}, &[x, y])
    }

    pub(super) fn div(&mut self, x: Value, y: Value) -> Built {
        self.wide(ScalarOp::Div {}, &[x, y])
    }

    pub(super) fn reshape(&mut self, x: Value, shape: &[i64]) -> Built {
        if self.shape(x)? == shape {
            return Ok(x);
        }
        self.push(GraphOp::Reshape { shape: dims_of(shape) }, &[x])
    }

    /// Folds `axes`, which stay with size 1 if `keep`.
    pub(super) fn reduce(&mut self, kind: ReduceKind, x: Value, axes: &[usize], keep: bool) -> Built {
        let mut shape = self.shape(x)?;
        let out = self.push(GraphOp::Reduce { kind, axes: axes.to_vec() }, &[x])?;
        if !keep {
            return Ok(out);
        }
        axes.iter().for_each(|&a| shape[a] = 1);
        self.reshape(out, &shape)
    }

    pub(super) fn mean(&mut self, x: Value, axes: &[usize], keep: bool) -> Built {
        let n = self.count(x, axes)?;
        let sum = self.reduce(ReduceKind::Sum, x, axes, keep)?;
        self.with(ScalarOp::Div {}, sum, n as f64)
    }

    pub(super) fn transpose(&mut self, x: Value, perm: Vec<usize>) -> Built {
        if perm.iter().copied().eq(0..perm.len()) && perm.len() == self.rank(x) {
            return Ok(x);
        }
        self.push(GraphOp::Transpose { perm }, &[x])
    }

    /// Elements start, start + step, .. below end along one axis.
    pub(super) fn slice(&mut self, x: Value, axis: usize, start: i64, end: i64, step: i64) -> Built {
        let shape = self.shape(x)?;
        let mut from = vec![Dim::constant(0); shape.len()];
        let mut limit = dims_of(&shape);
        let mut stride = vec![1i64; shape.len()];
        from[axis] = start.into();
        limit[axis] = end.into();
        stride[axis] = step;
        self.push(GraphOp::Slice { start: from, limit, stride }, &[x])
    }

    pub(super) fn iota(&mut self, axis: usize, shape: &[i64]) -> Built {
        self.push(GraphOp::Iota { axis, shape: dims_of(shape), dtype: DType::I64 }, &[])
    }

    pub(super) fn dot(&mut self, x: Value, y: Value, dims: DotDims) -> Built {
        self.push(GraphOp::Dot { dims }, &[x, y])
    }
}

pub(super) fn dims_of(shape: &[i64]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::constant(n)).collect()
}
