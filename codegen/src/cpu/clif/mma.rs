//! Products: calls of micro-kernels.

use super::emitter::Emitter;
use super::types::{Num, Plan, malformed, unsupported};
use crate::cpu::ukernel::{UKERNELS, UKernel};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, Expr};

/// One product with its addresses.
struct Product {
    a: Value,
    b: Value,
    c: Value,
    lda: Value,
    ldb: Value,
    ldc: Value,
    k: Value,
    accumulate: Value,
}

/// Where the right operand's rows and panels are.
struct Panels {
    /// Elements between its rows.
    row: Value,
    /// Bytes from a panel to the next.
    next: Option<Value>,
}

/// Axes of one name have one size, but for the columns, which [`Emitter::panels`] looks at.
fn fits(to: &Plan, a: &Plan, b: &Plan, n_axis: &Ident) -> Result<(), Diagnostic> {
    if [to, a, b].iter().any(|plan| !plan.gathers.is_empty()) {
        return Err(unsupported("gathered operands of a product"));
    }
    for (axis, size) in a.axes.iter().chain(&b.axes).filter(|(axis, _)| axis != n_axis) {
        let other = to.axes.iter().chain(&a.axes).find(|(other, _)| other == axis).map_or(size, |(_, size)| size);
        if (size.constant.is_none() || size.constant != other.constant) && size.value != other.value {
            return Err(malformed(format!("axis `{axis}` of a product has two sizes")));
        }
    }
    Ok(())
}

impl Emitter<'_> {
    /// `mma to += a * b, ... via row init e`.
    pub fn mma(
        &mut self,
        to: &Access,
        terms: &[(Access, Access)],
        via: &Ident,
        init: Option<&Expr>,
    ) -> Result<(), Diagnostic> {
        let row = UKERNELS.iter().find(|row| *row.name == **via);
        let row = row.ok_or_else(|| unsupported(format!("the product `{via}`")))?;
        if row.isa > self.isa || !(row.available)() {
            return Err(unsupported(format!("`{via}` on `{:?}`", self.isa)));
        }
        let mut accumulate = match init {
            Some(init) => {
                let starts = self.condition(init)?;
                let goes_on = self.b.ins().icmp_imm_s(IntCC::Equal, starts, 0);
                self.b.ins().uextend(types::I64, goes_on)
            }
            None => self.b.ins().iconst(types::I64, 1),
        };
        let to = self.plan(to)?;
        for (a, b) in terms {
            let (a, b) = (self.plan(a)?, self.plan(b)?);
            self.term(row, &to, &a, &b, accumulate)?;
            accumulate = self.b.ins().iconst(types::I64, 1);
        }
        Ok(())
    }

    fn term(&mut self, row: &UKernel, to: &Plan, a: &Plan, b: &Plan, accumulate: Value) -> Result<(), Diagnostic> {
        let bytes_c = row.c.block().1 as i64;
        if to.memory.dtype != row.c || a.memory.dtype != row.a {
            let (a, c) = (a.memory.dtype, to.memory.dtype);
            return Err(malformed(format!("`{}` takes {} and gives {}, found {a} and {c}", row.name, row.a, row.c)));
        }
        let Some(((n_axis, n), outer)) = to.axes.split_last() else {
            return Err(malformed("a product without columns"));
        };
        let columns = n.constant.filter(|n| *n > 0 && n % row.nr as i64 == 0);
        let columns = columns.ok_or_else(|| malformed(format!("columns of `{}` come in {}s", row.name, row.nr)))?;
        if to.step(n_axis).and_then(|step| step.constant) != Some(bytes_c) {
            return Err(unsupported("a product whose columns are not contiguous"));
        }
        let m_axis = match outer {
            [] => None,
            [(axis, size)] => Some((axis.clone(), *size)),
            _ => return Err(unsupported("a product with batch axes")),
        };
        let is_row = |axis: &Ident| m_axis.as_ref().is_some_and(|(row, _)| row == axis);
        let fold: Vec<&(Ident, Num)> = a.axes.iter().filter(|(axis, _)| !is_row(axis)).collect();
        let [(k_axis, k)] = fold.as_slice() else { return Err(unsupported("a product over other than one axis")) };
        let bytes_a = row.a.block().1 as i64;
        if a.step(k_axis).and_then(|step| step.constant) != Some(bytes_a) {
            return Err(unsupported("a product whose left fold is not contiguous"));
        }
        fits(to, a, b, n_axis)?;
        let masked = |plan: &Plan| plan.masks.iter().any(|m| m.at.terms.iter().all(|(axis, _)| axis != k_axis));
        if self.rows_left(to, n_axis)?.is_some() || masked(b) {
            return Err(unsupported("masked columns of a product"));
        }
        let mut depth = k.value;
        for plan in [a, b] {
            if let Some(left) = self.rows_left(plan, k_axis)? {
                depth = self.b.ins().smin(depth, left);
            }
        }
        let panel = self.panels(row, b, k_axis, n_axis, columns)?;
        let zero = self.b.ins().iconst(types::I64, 0);
        let depth = self.b.ins().smax(depth, zero);
        let mut rows = match &m_axis {
            Some((_, size)) => size.value,
            None => self.b.ins().iconst(types::I64, 1),
        };
        if let Some((axis, _)) = &m_axis {
            for plan in [to, a] {
                if let Some(left) = self.rows_left(plan, axis)? {
                    rows = self.b.ins().smin(rows, left);
                }
            }
        }
        let stride = |e: &mut Self, plan: &Plan| {
            m_axis.as_ref().and_then(|(axis, _)| plan.step(axis)).unwrap_or_else(|| e.num(0)).value
        };
        let (stride_a, stride_c) = (stride(self, a), stride(self, to));
        let product = Product {
            a: a.base,
            b: b.base,
            c: to.base,
            lda: self.b.ins().sdiv_imm_s(stride_a, bytes_a),
            ldb: panel.row,
            ldc: self.b.ins().sdiv_imm_s(stride_c, bytes_c),
            k: depth,
            accumulate,
        };
        let panels = columns / row.nr as i64;
        if panels == 1 {
            return self.panel(row, &product, rows, stride_a, stride_c);
        }
        let panel_step = panel.next.ok_or_else(|| malformed("a product over several panels, but one given"))?;
        let (one, count) = (self.b.ins().iconst(types::I64, 1), self.b.ins().iconst(types::I64, panels));
        self.each(zero, count, one, |e, at| {
            let offset = e.b.ins().imul(at, panel_step);
            let b = e.b.ins().iadd(product.b, offset);
            let offset = e.b.ins().imul_imm_s(at, row.nr as i64 * bytes_c);
            let c = e.b.ins().iadd(product.c, offset);
            e.panel(row, &Product { b, c, ..product }, rows, stride_a, stride_c)
        })
    }

    /// How the right operand lies: packed panels, or for plain floats its own rows, contiguous along the columns.
    fn panels(
        &mut self,
        row: &UKernel,
        b: &Plan,
        k_axis: &Ident,
        n_axis: &Ident,
        columns: i64,
    ) -> Result<Panels, Diagnostic> {
        // Several packed panels: one more axis of b counts them.
        let others: Vec<&(Ident, Num)> = b.axes.iter().filter(|(axis, _)| axis != k_axis && axis != n_axis).collect();
        let size = b.axes.iter().find(|(axis, _)| axis == n_axis).and_then(|(_, size)| size.constant);
        let panels = match others.as_slice() {
            [] => Some(1),
            [(_, count)] => count.constant,
            _ => return Err(unsupported("a product with a right operand of several more axes")),
        };
        let packed = size == Some(row.nr as i64) && panels.is_some_and(|n| n >= columns / row.nr as i64);
        let whole = row.k_step == 1 && others.is_empty() && size == Some(columns);
        if !packed && !whole {
            let (name, nr) = (&b.memory.name, row.nr);
            return Err(malformed(format!(
                "`{name}` is {panels:?} panels of {size:?} columns, not {columns} in {nr}s"
            )));
        }
        let next = others.first().and_then(|(axis, _)| b.step(axis)).map(|step| step.value);
        if row.k_step != 1 {
            let packed = self.num(row.nr as i64).value;
            return Ok(Panels { row: packed, next });
        }
        let bytes = row.b.block().1 as i64;
        let step = b.step(k_axis).ok_or_else(|| malformed(format!("`{}` has no axis `{k_axis}`", b.memory.name)))?;
        if b.step(n_axis).and_then(|step| step.constant) != Some(bytes) {
            return Err(unsupported(format!("a product whose right columns `{n_axis}` are not contiguous")));
        }
        let next = if whole { Some(self.num(row.nr as i64 * bytes).value) } else { next };
        Ok(Panels { row: self.b.ins().sdiv_imm_s(step.value, bytes), next })
    }

    /// All rows of one panel, MR at a time.
    fn panel(
        &mut self,
        row: &UKernel,
        product: &Product,
        rows: Value,
        stride_a: Value,
        stride_c: Value,
    ) -> Result<(), Diagnostic> {
        let zero = self.b.ins().iconst(types::I64, 0);
        let most = self.b.ins().iconst(types::I64, row.mr as i64);
        self.each(zero, rows, most, |e, at| {
            let left = e.b.ins().isub(rows, at);
            let m = e.b.ins().smin(left, most);
            let offset = e.b.ins().imul(at, stride_a);
            let a = e.b.ins().iadd(product.a, offset);
            let offset = e.b.ins().imul(at, stride_c);
            let c = e.b.ins().iadd(product.c, offset);
            let args = [m, product.k, a, product.lda, product.b, product.ldb, c, product.ldc, product.accumulate];
            e.call(row.function as usize, &args, None);
            Ok(())
        })
    }
}
