//! Index arithmetic: sizes, affine positions, and what an access means.

use super::emitter::Emitter;
use super::types::{Affine, Binding, Mask, Memory, Num, Plan, malformed, unsupported};
use cranelift_codegen::ir::{InstBuilder, types};
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, BinaryOp, Buffer, Expr, IndexDim, Space};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// An integer of indices; no tile axes.
    pub fn index(&mut self, expr: &Expr) -> Result<Num, Diagnostic> {
        let affine = self.affine(expr, &[])?;
        if affine.gather.is_some() {
            return Err(malformed("an index depends on a tile"));
        }
        Ok(affine.start)
    }

    /// An integer that must be known now.
    pub fn known(&mut self, expr: &Expr) -> Result<i64, Diagnostic> {
        self.index(expr)?.constant.ok_or_else(|| malformed("the size of a tile is not constant"))
    }

    /// A position over the tile axes behind the names of `axes`.
    fn affine(&mut self, expr: &Expr, axes: &[(Ident, Affine)]) -> Result<Affine, Diagnostic> {
        if let Expr::Name(name) = expr
            && let Some((_, affine)) = axes.iter().find(|(axis, _)| axis == name)
        {
            return Ok(affine.clone());
        }
        let start = match expr {
            Expr::Int(n) => self.num(*n),
            Expr::Name(name) => self.index_name(name)?,
            Expr::Scalar(op, args) => {
                let args = args.iter().map(|arg| self.affine(arg, axes)).collect::<Result<Vec<_>, _>>()?;
                return self.affine_op(op, args, expr);
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.affine(a, axes)?, self.affine(b, axes)?);
                let (a, b) = (plain(a)?, plain(b)?);
                if let Some(divisor) = b.constant.filter(|b| *b <= 0) {
                    return Err(malformed(format!("expected a positive divisor, found {divisor}")));
                }
                match op {
                    BinaryOp::Floor => self.floor_div(a, b),
                    BinaryOp::Ceil => {
                        let one = self.num(1);
                        let less = self.sub(b, one);
                        let up = self.add(a, less);
                        self.floor_div(up, b)
                    }
                    BinaryOp::Mod => {
                        let quotient = self.floor_div(a, b);
                        let back = self.mul(quotient, b);
                        self.sub(a, back)
                    }
                }
            }
            Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => {
                return Err(unsupported("this expression as an index"));
            }
        };
        Ok(Affine { start, terms: Vec::new(), gather: None })
    }

    fn index_name(&mut self, name: &Ident) -> Result<Num, Diagnostic> {
        match self.find(name)?.clone() {
            Binding::Index(num) => match num.constant {
                Some(n) => Ok(self.num(n)),
                None => Ok(num),
            },
            Binding::Tile(tile) if tile.axes.is_empty() && tile.dtype.is_int() => {
                let value = self.scalar_of(&tile)?;
                let value = self.widen(value, tile.dtype);
                Ok(Num { value, constant: None })
            }
            Binding::Register(variable, dtype) if dtype.is_int() => {
                let value = self.b.use_var(variable);
                Ok(Num { value: self.widen(value, dtype), constant: None })
            }
            Binding::Register(..) | Binding::Tile(_) | Binding::Memory(_) | Binding::View(_) => {
                Err(malformed(format!("`{name}` is no integer, but an index")))
            }
        }
    }

    fn affine_op(&mut self, op: &ScalarOp, args: Vec<Affine>, expr: &Expr) -> Result<Affine, Diagnostic> {
        let mut args = args.into_iter();
        let (a, b) = (args.next(), args.next());
        let Some(a) = a else { return Err(malformed("an index operation without operands")) };
        if let (ScalarOp::Cast { .. }, None) = (op, &b) {
            return Ok(a);
        }
        let b = match b {
            Some(b) => b,
            None if matches!(op, ScalarOp::Neg {}) => {
                let minus = self.num(-1);
                return self.scaled(&a, minus);
            }
            None => return Err(unsupported(format!("{expr:?} as an index"))),
        };
        match op {
            ScalarOp::Add {} => self.affine_sum(a, b),
            ScalarOp::Sub {} => {
                let minus = self.num(-1);
                if b.terms.is_empty() && b.gather.is_none() {
                    let start = self.sub(a.start, b.start);
                    return Ok(Affine { start, ..a });
                }
                let b = self.scaled(&b, minus)?;
                self.affine_sum(a, b)
            }
            ScalarOp::Mul {} if b.terms.is_empty() && b.gather.is_none() => self.scaled(&a, b.start),
            ScalarOp::Mul {} => {
                let factor = plain(a)?;
                self.scaled(&b, factor)
            }
            ScalarOp::Div {} | ScalarOp::Rem {} | ScalarOp::Min {} | ScalarOp::Max {} => {
                let (a, b) = (plain(a)?, plain(b)?);
                let start = match op {
                    ScalarOp::Div {} => self.quotient(a, b, false)?,
                    ScalarOp::Rem {} => self.quotient(a, b, true)?,
                    _ => match (a.constant, b.constant, matches!(op, ScalarOp::Min {})) {
                        (Some(x), Some(y), true) => self.num(x.min(y)),
                        (Some(x), Some(y), false) => self.num(x.max(y)),
                        (_, _, true) => Num { value: self.b.ins().smin(a.value, b.value), constant: None },
                        (_, _, false) => Num { value: self.b.ins().smax(a.value, b.value), constant: None },
                    },
                };
                Ok(Affine { start, terms: Vec::new(), gather: None })
            }
            _ => Err(unsupported(format!("`{}` as an index", op.info().name))),
        }
    }

    /// `a / b` or `a % b` as the table of scalar ops has them: towards 0, and 0 for a divisor of 0.
    fn quotient(&mut self, a: Num, b: Num, remainder: bool) -> Result<Num, Diagnostic> {
        if let (Some(x), Some(y)) = (a.constant, b.constant) {
            return Ok(self.num(match (y, remainder) {
                (0, _) => 0,
                (_, true) => x.wrapping_rem(y),
                (_, false) => x.wrapping_div(y),
            }));
        }
        let value = match (b.constant, remainder) {
            (Some(1), false) => return Ok(a),
            // Neither of the divisors that the processor refuses.
            (Some(1..), true) => self.b.ins().srem(a.value, b.value),
            (Some(1..), false) => self.b.ins().sdiv(a.value, b.value),
            (Some(_) | None, _) => self.divide(DType::I64, a.value, b.value, remainder)?,
        };
        Ok(Num { value, constant: None })
    }

    fn affine_sum(&mut self, a: Affine, b: Affine) -> Result<Affine, Diagnostic> {
        let start = self.add(a.start, b.start);
        let mut terms = a.terms;
        for (axis, coefficient) in b.terms {
            match terms.iter_mut().find(|(other, _)| *other == axis) {
                Some((_, sum)) => *sum = sum.wrapping_add(coefficient),
                None => terms.push((axis, coefficient)),
            }
        }
        terms.retain(|(_, coefficient)| *coefficient != 0);
        match (a.gather, b.gather) {
            (Some(_), Some(_)) => Err(unsupported("two gathered tiles in one dim")),
            (gather, None) | (None, gather) => Ok(Affine { start, terms, gather }),
        }
    }

    fn scaled(&mut self, a: &Affine, factor: Num) -> Result<Affine, Diagnostic> {
        let start = self.mul(a.start, factor);
        if a.terms.is_empty() && a.gather.is_none() {
            return Ok(Affine { start, terms: Vec::new(), gather: None });
        }
        let factor = factor.constant.ok_or_else(|| unsupported("a symbolic factor of a tile axis"))?;
        let terms = a.terms.iter().map(|(axis, c)| (axis.clone(), c.wrapping_mul(factor))).collect();
        let gather = a.gather.as_ref().map(|(tile, c)| (tile.clone(), c.wrapping_mul(factor)));
        Ok(Affine { start, terms, gather })
    }

    /// The buffer's extents, strides and address.
    pub fn memory(&mut self, buffer: &Buffer, base: cranelift_codegen::ir::Value) -> Result<Memory, Diagnostic> {
        let mut axes = Vec::new();
        for (axis, size) in &buffer.axes {
            axes.push((axis.clone(), self.index(size)?));
        }
        let (per, bytes) = buffer.dtype.block();
        let mut strides = Vec::new();
        // Panels of a block format: `per` steps of the fold are a block of all columns. Rows of a block format are read element
        // by element: their strides count elements.
        let panels = per > 1 && buffer.attrs.iter().any(|a| &*a.name == "packed");
        let mut stride = self.num(match (per, panels) {
            (1, _) => bytes as i64,
            (_, true) => 0,
            (_, false) => 1,
        });
        let last = axes.len().saturating_sub(1);
        for (at, (_, size)) in axes.iter().enumerate().rev() {
            strides.push(stride);
            stride = if panels && at == last {
                let columns = size.constant.ok_or_else(|| unsupported("symbolic columns of a block panel"))?;
                let block = columns.checked_mul(bytes as i64);
                self.num(block.ok_or_else(|| malformed("the columns of a block panel are beyond 64 bits"))?)
            } else if panels && at + 1 == last {
                let steps = size.constant.filter(|steps| steps % per as i64 == 0);
                let steps = steps.ok_or_else(|| malformed("the steps of a block panel do not fill blocks"))?;
                let blocks = self.num(steps / per as i64);
                self.mul(stride, blocks)
            } else {
                self.mul(stride, *size)
            };
        }
        strides.reverse();
        let span = if panels { per as i64 } else { 1 };
        let argument = !matches!(buffer.space, Space::Cache | Space::Reg);
        Ok(Memory { name: buffer.name.clone(), dtype: buffer.dtype, base, axes, strides, span, argument })
    }

    /// What an access reads or writes.
    pub fn plan(&mut self, access: &Access) -> Result<Plan, Diagnostic> {
        if access.back != 0 || access.field.is_some() {
            return Err(unsupported(format!("pipes and fields (`{}`)", access.buffer)));
        }
        let sizes: Vec<(Ident, Num)> = self.extents(&access.buffer)?;
        let all: Vec<IndexDim> = sizes.iter().map(|_| IndexDim::All).collect();
        let dims = access.dims.as_ref().unwrap_or(&all);
        if dims.len() != sizes.len() {
            let (expected, found) = (sizes.len(), dims.len());
            return Err(malformed(format!("expected {expected} dims of `{}`, found {found}", access.buffer)));
        }
        let (mut axes, mut masks, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (dim, (axis, extent)) in dims.iter().zip(&sizes) {
            positions.push(self.position(dim, (&access.buffer, axis, *extent), &mut axes, &mut masks)?);
        }
        let mut plan = self.resolve(&access.buffer, positions, axes, masks, 0)?;
        for (dim, (axis, extent)) in dims.iter().zip(&sizes) {
            if let IndexDim::Gather(name) = dim
                && let Binding::Tile(tile) = self.find(name)?.clone()
            {
                let number = self.name_check(&access.buffer, axis);
                plan.limits.push((tile, extent.value, number));
            }
        }
        Ok(plan)
    }

    fn extents(&mut self, buffer: &Ident) -> Result<Vec<(Ident, Num)>, Diagnostic> {
        match self.find(buffer)?.clone() {
            Binding::Memory(memory) => Ok(memory.axes.clone()),
            Binding::View(view) => view.axes.iter().map(|(axis, size)| Ok((axis.clone(), self.index(size)?))).collect(),
            Binding::Register(..) => Ok(Vec::new()),
            Binding::Index(_) | Binding::Tile(_) => Err(malformed(format!("`{buffer}` is no buffer"))),
        }
    }

    fn position(
        &mut self,
        dim: &IndexDim,
        (buffer, axis, extent): (&Ident, &Ident, Num),
        axes: &mut Vec<(Ident, Num)>,
        masks: &mut Vec<Mask>,
    ) -> Result<Affine, Diagnostic> {
        match dim {
            IndexDim::All => {
                axes.push((axis.clone(), extent));
                let start = self.num(0);
                Ok(Affine { start, terms: vec![(axis.clone(), 1)], gather: None })
            }
            IndexDim::Point { at, open } => {
                let start = self.index(at)?;
                if !open && self.depends_on_data(at) {
                    self.check(start.value, (buffer, axis, extent));
                }
                let at = Affine { start, terms: Vec::new(), gather: None };
                if *open {
                    masks.push(Mask { at: at.clone(), extent: extent.value, low: false });
                }
                Ok(at)
            }
            IndexDim::Checked { at } => {
                let start = self.index(at)?;
                self.check(start.value, (buffer, axis, extent));
                Ok(Affine { start, terms: Vec::new(), gather: None })
            }
            IndexDim::Range { start, size, open, upto } => {
                let (start, size) = (self.index(start)?, self.index(size)?);
                axes.push((axis.clone(), size));
                let at = Affine { start, terms: vec![(axis.clone(), 1)], gather: None };
                let mut bound = extent.value;
                if let Some(limit) = upto {
                    let limit = self.index(limit)?;
                    bound = self.least(bound, limit.value);
                }
                if *open || upto.is_some() {
                    masks.push(Mask { at: at.clone(), extent: bound, low: false });
                }
                Ok(at)
            }
            IndexDim::Gather(name) => {
                let Binding::Tile(tile) = self.find(name)?.clone() else {
                    return Err(malformed(format!("`{name}` is no loaded index tile")));
                };
                for (axis, size) in &tile.axes {
                    let size = self.num(*size);
                    if !axes.iter().any(|(other, _)| other == axis) {
                        axes.push((axis.clone(), size));
                    }
                }
                let start = self.num(0);
                Ok(Affine { start, terms: Vec::new(), gather: Some((tile, 1)) })
            }
        }
    }

    /// Goes through views down to memory.
    fn resolve(
        &mut self,
        buffer: &Ident,
        positions: Vec<Affine>,
        axes: Vec<(Ident, Num)>,
        mut masks: Vec<Mask>,
        depth: u32,
    ) -> Result<Plan, Diagnostic> {
        match self.find(buffer)?.clone() {
            Binding::Memory(memory) => self.address(memory, &positions, axes, masks),
            Binding::View(view) if depth < 16 => {
                let named: Vec<(Ident, Affine)> =
                    view.axes.iter().map(|(axis, _)| axis.clone()).zip(positions).collect();
                let extents = self.extents(&view.buffer)?;
                if extents.len() != view.dims.len() {
                    return Err(malformed(format!("view `{buffer}` has another rank than `{}`", view.buffer)));
                }
                let mut inside = Vec::new();
                for ((expr, open), (_, extent)) in view.dims.iter().zip(&extents) {
                    let at = self.affine(expr, &named)?;
                    if *open {
                        masks.push(Mask { at: at.clone(), extent: extent.value, low: true });
                    }
                    inside.push(at);
                }
                self.resolve(&view.buffer, inside, axes, masks, depth + 1)
            }
            Binding::View(_) => Err(malformed("views of views without end")),
            Binding::Register(..) => Err(unsupported("accesses of a `reg` scalar by brackets")),
            Binding::Index(_) | Binding::Tile(_) => Err(malformed(format!("`{buffer}` is no buffer"))),
        }
    }

    fn address(
        &mut self,
        memory: Rc<Memory>,
        positions: &[Affine],
        axes: Vec<(Ident, Num)>,
        masks: Vec<Mask>,
    ) -> Result<Plan, Diagnostic> {
        let mut base = Num { value: memory.base, constant: None };
        let mut gathers = Vec::new();
        let zero = self.num(0);
        let mut steps = vec![zero; axes.len()];
        for (axis, (at, stride)) in positions.iter().zip(&memory.strides).enumerate() {
            let whole = memory.span > 1 && axis + 2 == memory.axes.len();
            let start = if whole { self.blocks_before(at, memory.span)? } else { at.start };
            let offset = self.mul(start, *stride);
            base = self.add(base, offset);
            if whole {
                // The micro-kernel goes from step to step.
                continue;
            }
            for (axis, coefficient) in &at.terms {
                let found = axes.iter().position(|(other, _)| other == axis);
                let found = found.ok_or_else(|| Diagnostic::bug("an index over an axis that the access lacks"))?;
                let coefficient = self.num(*coefficient);
                let step = self.mul(coefficient, *stride);
                steps[found] = self.add(steps[found], step);
            }
            if let Some((tile, coefficient)) = &at.gather {
                let coefficient = self.num(*coefficient);
                gathers.push((tile.clone(), self.mul(coefficient, *stride)));
            }
        }
        Ok(Plan { memory, base: base.value, axes, steps, masks, gathers, limits: Vec::new() })
    }

    /// Blocks of `span` steps before a position, which begins one.
    fn blocks_before(&mut self, at: &Affine, span: i64) -> Result<Num, Diagnostic> {
        if at.gather.is_some() {
            return Err(unsupported("gathered steps of a block panel"));
        }
        Ok(match at.start.constant {
            Some(n) => self.num(n / span),
            None => Num { value: self.b.ins().sdiv_imm_s(at.start.value, span), constant: None },
        })
    }

    /// An integer of any width as i64.
    pub fn widen(&mut self, value: cranelift_codegen::ir::Value, dtype: DType) -> cranelift_codegen::ir::Value {
        match dtype.block().1 {
            8 => value,
            _ if dtype.is_signed() => self.b.ins().sextend(types::I64, value),
            _ => self.b.ins().uextend(types::I64, value),
        }
    }
}

/// A position without tile axes.
fn plain(affine: Affine) -> Result<Num, Diagnostic> {
    if affine.terms.is_empty() && affine.gather.is_none() {
        Ok(affine.start)
    } else {
        Err(unsupported("an index that is not affine in the tile's axes"))
    }
}
