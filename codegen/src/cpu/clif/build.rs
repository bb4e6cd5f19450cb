//! From expressions to lazy tiles. Reductions are computed where they stand.

use super::emitter::Emitter;
use super::types::{Binding, Node, Plan, Tile, malformed, unsupported};
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, Expr};
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// The tile of an expression; `hint` is the dtype that literals take where nothing else says it.
    pub fn build(&mut self, expr: &Expr, hint: Option<DType>) -> Result<Rc<Tile>, Diagnostic> {
        match expr {
            Expr::Int(n) => Ok(self.tile(hint.unwrap_or(DType::I64), Vec::new(), Node::Int(*n))),
            Expr::Real(x) => Ok(self.tile(hint.unwrap_or(DType::F32), Vec::new(), Node::Real(*x))),
            Expr::Name(name) => match self.find(name)?.clone() {
                Binding::Index(num) => match num.constant {
                    Some(n) => Ok(self.tile(hint.unwrap_or(DType::I64), Vec::new(), Node::Int(n))),
                    None => Ok(self.tile(DType::I64, Vec::new(), Node::Value(num.value))),
                },
                Binding::Register(variable, dtype) => {
                    let value = self.b.use_var(variable);
                    Ok(self.tile(dtype, Vec::new(), Node::Value(value)))
                }
                Binding::Tile(tile) => Ok(tile),
                Binding::Memory(_) | Binding::View(_) => {
                    let whole = Access::whole(name);
                    let plan = self.plan(&whole)?;
                    let tile = self.load(plan, None)?;
                    self.accesses.push((tile.id, whole));
                    Ok(tile)
                }
            },
            Expr::Scalar(op, args) => self.build_op(op, args, hint),
            Expr::Binary(..) => {
                let value = self.index(expr)?.value;
                Ok(self.tile(DType::I64, Vec::new(), Node::Value(value)))
            }
            Expr::Reduce(kind, arg, axis) => {
                let arg = self.build(arg, hint)?;
                self.reduce(*kind, &arg, axis)
            }
            Expr::Iota(axis, start, size) => {
                let (size, start) = (self.known(size)?, self.index(start)?);
                Ok(self.tile(DType::I64, vec![(axis.clone(), size)], Node::Iota(axis.clone(), start.value)))
            }
            Expr::Order(..) => Err(unsupported("`order`")),
        }
    }

    /// Whether an expression's dtype is that of its context.
    fn is_literal(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Int(_) | Expr::Real(_) => true,
            Expr::Name(name) => matches!(self.find(name), Ok(Binding::Index(num)) if num.constant.is_some()),
            Expr::Scalar(ScalarOp::Cast { .. }, _) => false,
            Expr::Scalar(op, args) => {
                op.info().family != Family::Comparison && args.iter().all(|arg| self.is_literal(arg))
            }
            Expr::Binary(..) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => false,
        }
    }

    fn build_op(&mut self, op: &ScalarOp, args: &[Expr], hint: Option<DType>) -> Result<Rc<Tile>, Diagnostic> {
        if !op.info().arity.accepts(args.len()) {
            return Err(malformed(format!("`{}` has {} operands", op.info().name, args.len())));
        }
        let first = usize::from(matches!(op, ScalarOp::Select {}));
        let comparison = op.info().family == Family::Comparison;
        let cast = matches!(op, ScalarOp::Cast { .. });
        let mut tiles: Vec<Option<Rc<Tile>>> = vec![None; args.len()];
        let mut context = if comparison || cast { None } else { hint };
        for (slot, arg) in tiles.iter_mut().zip(args).skip(first) {
            if !self.is_literal(arg) {
                let built = self.build(arg, hint.filter(|_| !comparison && !cast))?;
                context = Some(built.dtype);
                *slot = Some(built);
            }
        }
        if context.is_none() && args.iter().any(has_real) {
            // What is cast to a float is rounded to it at once.
            context = Some(match op {
                ScalarOp::Cast { to } if to.is_float() => *to,
                _ => DType::F32,
            });
        }
        let mut operands: Vec<Rc<Tile>> = Vec::new();
        for (at, (slot, arg)) in tiles.into_iter().zip(args).enumerate() {
            let hint = if at < first { Some(DType::Bool) } else { context };
            operands.push(match slot {
                Some(tile) => tile,
                None => self.build(arg, hint)?,
            });
        }
        self.operation(op, operands)
    }

    /// An elementwise op on tiles, which broadcast by axis name.
    pub fn operation(&mut self, op: &ScalarOp, operands: Vec<Rc<Tile>>) -> Result<Rc<Tile>, Diagnostic> {
        let first = usize::from(matches!(op, ScalarOp::Select {}));
        let mut same = operands.iter().skip(first).map(|tile| tile.dtype);
        let dtype = same.next().ok_or_else(|| malformed("an operation without operands"))?;
        if let Some(other) = same.find(|other| *other != dtype) {
            return Err(malformed(format!("operands of `{}` are {dtype} and {other}", op.info().name)));
        }
        if first == 1 && operands[0].dtype != DType::Bool {
            return Err(malformed(format!("the condition of `select` is {}, not bool", operands[0].dtype)));
        }
        let mut axes: Vec<(Ident, i64)> = Vec::new();
        for (axis, size) in operands.iter().flat_map(|tile| &tile.axes) {
            match axes.iter().find(|(other, _)| other == axis) {
                Some((_, other)) if other != size => {
                    return Err(malformed(format!("axis `{axis}` has sizes {other} and {size}")));
                }
                Some(_) => {}
                None => axes.push((axis.clone(), *size)),
            }
        }
        let result = match op {
            ScalarOp::Cast { to } => *to,
            _ if op.info().family == Family::Comparison => DType::Bool,
            _ => dtype,
        };
        if matches!(op, ScalarOp::Cast { .. }) && result == dtype {
            return Ok(operands[0].clone());
        }
        Ok(self.tile(result, axes, Node::Op(op.clone(), operands)))
    }

    /// A lazy load.
    pub fn load(&mut self, plan: Plan, pad: Option<&Expr>) -> Result<Rc<Tile>, Diagnostic> {
        let dtype = plan.memory.dtype;
        super::types::clif_type(dtype)?;
        let mut axes = Vec::new();
        for (axis, size) in &plan.axes {
            let size =
                size.constant.ok_or_else(|| malformed(format!("axis `{axis}` of a tile has no constant size")))?;
            axes.push((axis.clone(), size));
        }
        let pad = match (pad, plan.masks.is_empty()) {
            (_, true) => None,
            (Some(pad), false) => Some(self.build(pad, Some(dtype))?),
            (None, false) => Some(self.tile(dtype, Vec::new(), Node::Int(0))),
        };
        if let Some(pad) = pad.as_ref().filter(|pad| pad.dtype != dtype || !pad.axes.is_empty()) {
            let (found, axes) = (pad.dtype, pad.axes.len());
            return Err(malformed(format!(
                "the pad of a load of {dtype} is a {found} with {axes} axes, not one {dtype}"
            )));
        }
        Ok(self.tile(dtype, axes, Node::Load(plan, pad)))
    }
}

fn has_real(expr: &Expr) -> bool {
    match expr {
        Expr::Real(_) => true,
        Expr::Scalar(_, args) => args.iter().any(has_real),
        Expr::Int(_) | Expr::Name(_) | Expr::Binary(..) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => false,
    }
}
