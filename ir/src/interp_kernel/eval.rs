//! Expressions: integers of indices, and tiles.

use super::exec::Machine;
use super::failed;
use super::scalar::apply;
use super::value::{Axes, Data, Scalar, Tile, Value, count, joined, strides, walk};
use crate::diag::Diagnostic;
use crate::kernel::expr::{BinaryOp, Expr, Ident, TileReduce};
use crate::op::ScalarOp;
use crate::types::DType;

/// An index operation. Errors: a divisor that is not positive.
pub(super) fn binary(op: BinaryOp, a: i64, b: i64) -> Result<i64, Diagnostic> {
    op.apply(a, b).ok_or_else(|| failed(format!("expected a positive divisor, found {b}")))
}

impl Machine {
    /// An integer scalar; truth values give 0 and 1.
    pub(super) fn int(&mut self, e: &Expr) -> Result<i64, Diagnostic> {
        let over = || failed(format!("`{e}` overflows"));
        match e {
            Expr::Int(n) => return Ok(*n),
            Expr::Name(name) => {
                if let Some(Value::Int(n)) = self.lookup(name) {
                    return Ok(*n);
                }
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.int(a)?, self.int(b)?);
                return binary(*op, a, b);
            }
            Expr::Scalar(op, args) => {
                if let [a, b] = args.as_slice() {
                    match op {
                        ScalarOp::Add {} => return self.int(a)?.checked_add(self.int(b)?).ok_or_else(over),
                        ScalarOp::Sub {} => return self.int(a)?.checked_sub(self.int(b)?).ok_or_else(over),
                        ScalarOp::Mul {} => return self.int(a)?.checked_mul(self.int(b)?).ok_or_else(over),
                        ScalarOp::Min {} => return Ok(self.int(a)?.min(self.int(b)?)),
                        ScalarOp::Max {} => return Ok(self.int(a)?.max(self.int(b)?)),
                        _ => {}
                    }
                }
            }
            Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => {}
        }
        let tile = self.eval(e)?;
        match (tile.axes.is_empty(), tile.get(0)?) {
            (true, Scalar::Int(n)) => Ok(n),
            (true, Scalar::Bool(b)) => Ok(b.into()),
            (true | false, s) => Err(failed(format!("expected an integer, found `{e}`, a {} tile", s.kind()))),
        }
    }

    /// A size. Errors: negative.
    pub(super) fn size(&mut self, e: &Expr) -> Result<usize, Diagnostic> {
        let n = self.int(e)?;
        usize::try_from(n).map_err(|_| failed(format!("the size `{e}` is {n}")))
    }

    /// Axes with the values of their sizes.
    pub(super) fn axes(&mut self, axes: &[(Ident, Expr)]) -> Result<Axes, Diagnostic> {
        let axes: Axes = axes.iter().map(|(n, e)| Ok((n.clone(), self.size(e)?))).collect::<Result<_, Diagnostic>>()?;
        count(&axes)?;
        Ok(axes)
    }

    /// The tile of an expression.
    pub(super) fn eval(&mut self, e: &Expr) -> Result<Tile, Diagnostic> {
        match e {
            Expr::Int(n) => Ok(Tile::scalar(Scalar::Int(*n))),
            Expr::Real(x) => Ok(Tile::scalar(Scalar::Float(*x))),
            Expr::Name(name) => match self.lookup(name).cloned() {
                Some(Value::Int(n)) => Ok(Tile::scalar(Scalar::Int(n))),
                Some(Value::Tile(t)) => {
                    self.spend(t.data.len())?;
                    Ok((*t).clone())
                }
                Some(Value::Memory(i)) => {
                    let m = self.memory(i)?;
                    Ok(Tile { axes: m.axes.clone(), data: m.data.clone() })
                }
                Some(Value::View(_) | Value::Pipe(_)) => {
                    Err(failed(format!("`{name}` is a view or a pipe and no tile; load it")))
                }
                None => Err(failed(format!("unknown name `{name}`"))),
            },
            Expr::Scalar(op, args) => {
                let args: Vec<Tile> = args.iter().map(|a| self.eval(a)).collect::<Result<_, _>>()?;
                self.map(op, &args)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.int(a)?, self.int(b)?);
                Ok(Tile::scalar(Scalar::Int(binary(*op, a, b)?)))
            }
            Expr::Reduce(r, x, axis) => {
                let tile = self.eval(x)?;
                self.reduce(*r, &tile, axis)
            }
            Expr::Iota(axis, start, size) => {
                let (start, size) = (self.int(start)?, self.size(size)?);
                let axes = vec![(axis.clone(), size)];
                self.spend(count(&axes)?)?;
                let items: Vec<i64> = (0..size).map(|i| start.wrapping_add(i as i64)).collect();
                Ok(Tile { axes, data: Data::Int(items) })
            }
            Expr::Order(..) => Err(failed("`order` gives two coordinates and stands alone after `let a, b =`")),
        }
    }

    /// A scalar op at every element, operands broadcast by axis name.
    fn map(&mut self, op: &ScalarOp, args: &[Tile]) -> Result<Tile, Diagnostic> {
        let axes = joined(args.iter().map(|a| &a.axes))?;
        let n = count(&axes)?;
        self.spend(n)?;
        let s = |i: usize| args.get(i).map_or_else(|| vec![0; axes.len()], |a| strides(&a.axes, &axes));
        let mut items = Vec::with_capacity(n);
        let mut operands = [Scalar::Int(0); 3];
        walk(&axes, [s(0), s(1), s(2)], |at| {
            for ((slot, a), i) in operands.iter_mut().zip(args).zip(at) {
                *slot = a.get(i)?;
            }
            items.push(apply(op, operands.get(..args.len()).unwrap_or(&[]))?);
            Ok(())
        })?;
        Ok(Tile { axes, data: Data::collect(items)? })
    }

    fn reduce(&mut self, r: TileReduce, tile: &Tile, axis: &Ident) -> Result<Tile, Diagnostic> {
        let Some(at) = tile.axes.iter().position(|a| a.0 == *axis) else {
            return Err(failed(format!("the tile has no axis `{axis}` to reduce")));
        };
        self.spend(tile.data.len())?;
        let mut axes = tile.axes.clone();
        let (_, size) = axes.remove(at);
        let stride: usize = axes.get(at..).unwrap_or(&[]).iter().map(|a| a.1).product();
        let mut items = Vec::new();
        walk(&axes, [strides(&tile.axes, &axes)], |[base]| {
            items.push(fold(r, tile, base, stride, size)?);
            Ok(())
        })?;
        Ok(Tile { axes, data: Data::collect(items)? })
    }
}

/// Folds `size` elements from `base` in steps of `stride`.
fn fold(r: TileReduce, tile: &Tile, base: usize, stride: usize, size: usize) -> Result<Scalar, Diagnostic> {
    let Some(kind) = r.fold() else { return arg(r, tile, base, stride, size) };
    if size == 0 {
        return Err(failed("a reduction of no elements"));
    }
    let mut total = tile.get(base)?;
    // Only truth values are combined in another way than numbers; which number does not matter.
    let op = kind.combine(if matches!(total, Scalar::Bool(_)) { DType::Bool } else { DType::F64 });
    for i in 1..size {
        total = apply(&op, &[total, tile.get(base + i * stride)?])?;
    }
    Ok(total)
}

/// The first position of the extreme; a NaN is more extreme than all numbers.
fn arg(r: TileReduce, tile: &Tile, base: usize, stride: usize, size: usize) -> Result<Scalar, Diagnostic> {
    if size == 0 {
        return Err(failed("a reduction of no elements"));
    }
    let better = if r == TileReduce::Argmax { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
    let nan = |s: Scalar| matches!(s, Scalar::Float(x) if x.is_nan());
    let (mut best, mut found) = (tile.get(base)?, 0);
    for i in 1..size {
        let x = tile.get(base + i * stride)?;
        if !nan(best) && (nan(x) || apply(&better, &[x, best])? == Scalar::Bool(true)) {
            (best, found) = (x, i);
        }
    }
    Ok(Scalar::Int(found as i64))
}
