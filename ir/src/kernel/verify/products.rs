//! Products by matrix instructions: the factors have the row's dtype, the accumulator is f32, and the instruction divides
//! what is multiplied, shared among the warps of its layout.

use crate::device::mma::{self, MmaShape};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, BinaryOp, Expr, Ident, IndexDim};
use crate::kernel::tree::{Block, Buffer, Kernel, Stmt};
use crate::op::ScalarOp;
use crate::types::DType;

/// The attribute of accumulators that warps share: `layout(mma16816, warps along m, warps along n)`.
pub const LAYOUT: &str = "mma16816";

struct Checker<'k> {
    constants: &'k [(Ident, i64)],
    /// Names, `pipe.buffer` of slots; the last one wins.
    buffers: Vec<(String, &'k Buffer)>,
}

fn wrong(message: String) -> Diagnostic {
    Diagnostic::new("kernel-product", message)
}

/// Checks every product whose row is one of [`mma::MMA`].
pub(super) fn check(kernel: &Kernel) -> Result<(), Diagnostic> {
    let buffers = kernel.arguments.iter().map(|b| (b.name.to_string(), b)).collect();
    Checker { constants: &kernel.constants, buffers }.block(&kernel.body)
}

impl<'k> Checker<'k> {
    fn block(&mut self, block: &'k Block) -> Result<(), Diagnostic> {
        let mark = self.buffers.len();
        for s in block {
            match s {
                Stmt::Buffer(b) => self.buffers.push((b.name.to_string(), b)),
                Stmt::Pipe(p) => {
                    self.buffers.extend(p.buffers.iter().map(|b| (format!("{}.{}", p.name, b.name), b)));
                }
                Stmt::Mma { to, terms, via, .. } => {
                    if let Some(row) = mma::named(via) {
                        self.product(row, to, terms)?;
                    }
                }
                _other => s.blocks().into_iter().try_for_each(|inside| self.block(inside))?,
            }
        }
        self.buffers.truncate(mark);
        Ok(())
    }

    fn constant(&self, e: &Expr) -> Option<i64> {
        match e {
            Expr::Int(n) => Some(*n),
            Expr::Name(name) => self.constants.iter().find(|c| c.0 == *name).map(|c| c.1),
            Expr::Binary(op, a, b) => BinaryOp::apply(*op, self.constant(a)?, self.constant(b)?),
            Expr::Scalar(ScalarOp::Div {}, args) => match args.as_slice() {
                [a, b] => self.constant(a)?.checked_div(self.constant(b)?),
                _ => None,
            },
            Expr::Real(_) | Expr::Scalar(..) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => None,
        }
    }

    /// Dtype and axes of the tile of an access.
    fn tile(&self, a: &Access) -> Result<(DType, Vec<(Ident, i64)>), Diagnostic> {
        let name = a.field.as_ref().map_or_else(|| a.buffer.to_string(), |f| format!("{}.{f}", a.buffer));
        let found = self.buffers.iter().rev().find(|b| b.0 == name).map(|b| b.1);
        let buffer = found.ok_or_else(|| wrong(format!("expected a buffer for `{a}`, found none")))?;
        let mut axes = Vec::new();
        for (i, (axis, size)) in buffer.axes.iter().enumerate() {
            let size = match a.dims.as_ref().and_then(|d| d.get(i)) {
                None | Some(IndexDim::All) => size,
                Some(IndexDim::Range { size, .. }) => size,
                Some(IndexDim::Point { .. } | IndexDim::Checked { .. }) => continue,
                Some(IndexDim::Gather(_)) => return Err(wrong(format!("`{a}` is gathered"))),
            };
            let size = self.constant(size).ok_or_else(|| wrong(format!("axis `{axis}` of `{a}` is not constant")))?;
            axes.push((axis.clone(), size));
        }
        Ok((buffer.dtype, axes))
    }

    fn product(&self, row: &MmaShape, to: &Access, terms: &[(Access, Access)]) -> Result<(), Diagnostic> {
        let (dtype, result) = self.tile(to)?;
        let ([(m, rows), (n, columns)], DType::F32) = (result.as_slice(), dtype) else {
            return Err(wrong(format!("expected `{to}` to be a matrix in f32 for {}", row.name)));
        };
        let (high, wide) = self.warps(to)?;
        let mut sizes = vec![(m, *rows, high * row.m), (n, *columns, wide * row.n)];
        let mut factors = Vec::new();
        for factor in terms.iter().flat_map(|(a, b)| [a, b]) {
            let (dtype, axes) = self.tile(factor)?;
            if dtype != row.dtype || axes.len() != 2 {
                return Err(wrong(format!("expected `{factor}` to be a matrix in {} for {}", row.dtype, row.name)));
            }
            factors.push(axes);
        }
        for axes in &factors {
            for (axis, size) in axes.iter().filter(|a| a.0 != *m && a.0 != *n) {
                sizes.push((axis, *size, row.k));
            }
        }
        match sizes.iter().find(|(_, size, of)| *of <= 0 || size % of != 0) {
            Some((axis, size, of)) => {
                Err(wrong(format!("expected a multiple of {of} of axis `{axis}` for {}, found {size}", row.name)))
            }
            None => Ok(()),
        }
    }

    /// Warps along the rows and columns of an accumulator; one where it does not say.
    fn warps(&self, to: &Access) -> Result<(i64, i64), Diagnostic> {
        let buffer = self.buffers.iter().rev().find(|b| *b.0 == *to.buffer).map(|b| b.1);
        let Some(layout) = buffer.and_then(|b| b.attrs.iter().find(|a| &*a.name == "layout")) else {
            return Ok((1, 1));
        };
        match layout.args.as_slice() {
            [Expr::Name(name), Expr::Int(high @ 1..=32), Expr::Int(wide @ 1..=32)] if **name == *LAYOUT => {
                Ok((*high, *wide))
            }
            _ => Err(wrong(format!("expected `layout({LAYOUT}, rows, columns)` of `{}`", to.buffer))),
        }
    }
}
