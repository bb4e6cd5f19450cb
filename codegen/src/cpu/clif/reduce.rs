//! Reductions of tiles, in an order that depends on sizes only.

use super::element::{Frame, contiguous};
use super::emitter::Emitter;
use super::nest::Row;
use super::strips::SHORTEST;
use super::types::{Node, Tile, clif_type, malformed};
use crate::cpu::ukernel::folds;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_frontend::Variable;
use std::collections::BTreeMap;
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::TileReduce;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Longest row that is folded without a loop.
const UNROLLED: i64 = 128;

/// What a literal is, perhaps cast.
fn number(tile: &Rc<Tile>) -> Option<f64> {
    match &tile.node {
        Node::Real(x) => Some(*x),
        Node::Int(n) => Some(*n as f64),
        Node::Op(ScalarOp::Cast { .. }, operands) => operands.first().and_then(number),
        Node::Op(..) | Node::Value(_) | Node::Load(..) | Node::Iota(..) => None,
    }
}

/// What a fold of floats starts from.
fn neutral_float(kind: TileReduce) -> Option<f64> {
    match kind {
        TileReduce::Sum => Some(0.0),
        TileReduce::Prod => Some(1.0),
        TileReduce::Max => Some(f64::NEG_INFINITY),
        TileReduce::Min => Some(f64::INFINITY),
        TileReduce::Argmax | TileReduce::Argmin => None,
    }
}

/// What a row is where its positions, from a start on, are below a bound, if it is the fold's neutral element elsewhere: in
/// f32, whose order of sums is that of the rows' sizes anyway.
fn bounded(kind: TileReduce, arg: &Rc<Tile>, axis: &Ident) -> Option<(Rc<Tile>, Value, Rc<Tile>)> {
    let neutral = neutral_float(kind)?;
    let Node::Op(ScalarOp::Select {}, parts) = &arg.node else { return None };
    let [inside, value, other] = parts.as_slice() else { return None };
    let other = number(other)?;
    let Node::Op(ScalarOp::Lt {}, sides) = &inside.node else { return None };
    let [position, bound] = sides.as_slice() else { return None };
    let Node::Iota(along, start) = &position.node else { return None };
    let fits = arg.dtype == DType::F32 && along == axis && !bound.has(axis) && other == neutral;
    fits.then(|| (value.clone(), *start, bound.clone()))
}

impl Emitter<'_> {
    /// `sum(arg, axis)` and the like.
    pub fn reduce(&mut self, kind: TileReduce, arg: &Rc<Tile>, axis: &Ident) -> Result<Rc<Tile>, Diagnostic> {
        let size = arg.axes.iter().find(|(other, _)| other == axis).map(|(_, size)| *size);
        let size = size.ok_or_else(|| malformed(format!("a reduction over `{axis}`, which its tile lacks")))?;
        let dtype = if kind.fold().is_some() { arg.dtype } else { DType::I64 };
        let axes: Vec<(Ident, i64)> = arg.axes.iter().filter(|(other, _)| other != axis).cloned().collect();
        if axes.is_empty() {
            let value = self.reduce_row(kind, arg, (axis, size), Frame::default())?;
            return Ok(self.tile(dtype, axes, Node::Value(value)));
        }
        let plan = self.scratch_plan(dtype, &axes)?;
        self.nest(&axes, Frame::default(), &mut |e, mut frame| {
            let value = e.reduce_row(kind, arg, (axis, size), frame.clone())?;
            let address = e.address_of(None, &plan, &mut frame, 0)?;
            e.write(dtype, value, address)
        })?;
        Ok(self.tile(dtype, axes, Node::Load(plan, None)))
    }

    /// What a fold starts from.
    fn neutral(&mut self, kind: TileReduce, dtype: DType) -> Result<Value, Diagnostic> {
        let bits = clif_type(dtype)?.bits();
        let (least, most) = match (dtype.is_signed(), bits) {
            _ if dtype == DType::Bool => (0, 1),
            (true, _) => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
            (false, 64) => (0, -1),
            (false, _) => (0, (1i64 << bits.min(62)) - 1),
        };
        let whole = match kind {
            TileReduce::Sum | TileReduce::Argmax | TileReduce::Argmin => 0,
            TileReduce::Prod => 1,
            TileReduce::Max => least,
            TileReduce::Min => most,
        };
        self.literal(dtype, Some(whole), neutral_float(kind).unwrap_or(0.0))
    }

    /// One row. Numerics: f32 in four vectors of partial sums over groups of 16, the rest of the groups of 4 onto the first,
    /// then pairwise, then the tail in order.
    fn reduce_row(
        &mut self,
        kind: TileReduce,
        arg: &Rc<Tile>,
        (axis, size): (&Ident, i64),
        mut frame: Frame,
    ) -> Result<Value, Diagnostic> {
        let zero = self.b.ins().iconst(types::I64, 0);
        let end = self.b.ins().iconst(types::I64, size);
        frame.inner = Some((axis.clone(), [zero; 4]));
        frame.checked = true;
        let row = Row { axis, size, begin: zero, end, whole: true };
        let (arg, end) = match bounded(kind, arg, axis) {
            Some((inside, start, bound)) => (inside, self.within(start, &bound, &frame, size)?),
            None => (arg.clone(), end),
        };
        let arg = &self.strips(&arg, &frame, &row, &mut BTreeMap::new())?;
        self.prepare(arg, &mut frame)?;
        let Some(fold) = kind.fold() else { return self.position_row(kind, arg, frame, end) };
        let fold = fold.combine(arg.dtype);
        let start = self.neutral(kind, arg.dtype)?;
        let sum = self.b.declare_var(clif_type(arg.dtype)?);
        self.b.def_var(sum, start);
        if arg.dtype != DType::F32 || size < 4 {
            self.fold_each(&fold, arg, &frame, (zero, end), sum)?;
            return Ok(self.b.use_var(sum));
        }
        let (low, high) = self.clear_range(arg, &mut frame.clone(), zero, end)?;
        if low != zero {
            self.fold_each(&fold, arg, &frame, (zero, low), sum)?;
        }
        let known = high == end && low == zero && end == row.end;
        let whole = self.whole_quads(low, high, 4);
        let mut total = match self.fold_call(kind, arg, (&frame, size), (low, whole))? {
            Some(total) => total,
            None if known && size % 16 == 0 && size <= UNROLLED => {
                let values = self.fold_unrolled(&fold, arg, &frame, (start, size))?;
                self.across(&fold, &values)?
            }
            None => self.fold_loops(&fold, arg, (&frame, start), (low, high), known.then_some(size))?,
        };
        if low != zero {
            let head = self.b.use_var(sum);
            total = self.scalar_op(&fold, DType::F32, &[head, total])?;
        }
        self.b.def_var(sum, total);
        if !known || size % 4 != 0 {
            self.fold_each(&fold, arg, &frame, (whole, end), sum)?;
        }
        Ok(self.b.use_var(sum))
    }

    /// How many of `size` positions from `start` on are below `bound`.
    fn within(&mut self, start: Value, bound: &Rc<Tile>, frame: &Frame, size: i64) -> Result<Value, Diagnostic> {
        let bound = self.element(bound, &mut frame.clone(), 0)?;
        let (zero, size) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, size));
        let room = self.b.ins().isub(bound, start);
        let room = self.b.ins().smin(room, size);
        Ok(self.b.ins().smax(room, zero))
    }

    /// Elements `low..high`, a multiple of 4, by a micro-kernel, where they lie in memory side by side.
    fn fold_call(
        &mut self,
        kind: TileReduce,
        arg: &Rc<Tile>,
        (frame, size): (&Frame, i64),
        (low, high): (Value, Value),
    ) -> Result<Option<Value>, Diagnostic> {
        let Node::Load(plan, _) = &arg.node else { return Ok(None) };
        let function = folds::fold(self.isa, kind).filter(|_| size >= SHORTEST && contiguous(plan, frame));
        let Some(function) = function else { return Ok(None) };
        let address = self.address_of(Some(arg.id), plan, &mut frame.at([low; 4], false), 0)?;
        let count = self.b.ins().isub(high, low);
        Ok(self.call(function as usize, &[count, address], Some(types::F32)))
    }

    /// The whole groups of 4 of elements `low..high`; `known` is their number if it is known.
    fn fold_loops(
        &mut self,
        fold: &ScalarOp,
        arg: &Rc<Tile>,
        (frame, start): (&Frame, Value),
        (low, high): (Value, Value),
        known: Option<i64>,
    ) -> Result<Value, Diagnostic> {
        let quads: Vec<Variable> = (0..4).map(|_| self.b.declare_var(types::F32X4)).collect();
        let splat = self.b.ins().splat(types::F32X4, start);
        quads.iter().for_each(|quad| self.b.def_var(*quad, splat));
        let wide = self.whole_quads(low, high, 16);
        if known.is_none_or(|size| size >= 16) {
            self.fold_quads(fold, arg, frame, (low, wide), &quads)?;
        }
        let whole = self.whole_quads(low, high, 4);
        if known.is_none_or(|size| size % 16 >= 4) {
            self.fold_quads(fold, arg, frame, (wide, whole), &quads[..1])?;
        }
        let values: Vec<Value> = quads.iter().map(|quad| self.b.use_var(*quad)).collect();
        self.across(fold, &values)
    }

    /// Four vectors to one element, pairwise.
    fn across(&mut self, fold: &ScalarOp, values: &[Value]) -> Result<Value, Diagnostic> {
        let (a, b) = (self.vector_op(fold, DType::F32, &values[..2])?, self.vector_op(fold, DType::F32, &values[2..])?);
        let all = self.vector_op(fold, DType::F32, &[a, b])?;
        let lanes: Vec<Value> = (0..4u8).map(|lane| self.b.ins().extractlane(all, lane)).collect();
        let a = self.scalar_op(fold, DType::F32, &lanes[..2])?;
        let b = self.scalar_op(fold, DType::F32, &lanes[2..])?;
        self.scalar_op(fold, DType::F32, &[a, b])
    }

    /// The four vectors of a short row, without a loop.
    fn fold_unrolled(
        &mut self,
        fold: &ScalarOp,
        arg: &Rc<Tile>,
        frame: &Frame,
        (start, size): (Value, i64),
    ) -> Result<[Value; 4], Diagnostic> {
        let splat = self.b.ins().splat(types::F32X4, start);
        let mut values = [splat; 4];
        for first in (0..size).step_by(4) {
            let at = self.b.ins().iconst(types::I64, first);
            let lanes = self.lanes(at);
            let value = self.quad(arg, &mut frame.at(lanes, false))?;
            let sum = &mut values[(first / 4 % 4) as usize];
            *sum = self.vector_op(fold, DType::F32, &[*sum, value])?;
        }
        Ok(values)
    }

    fn fold_each(
        &mut self,
        fold: &ScalarOp,
        arg: &Rc<Tile>,
        frame: &Frame,
        (low, high): (Value, Value),
        sum: Variable,
    ) -> Result<(), Diagnostic> {
        let one = self.b.ins().iconst(types::I64, 1);
        // Half floats are summed in f32 and rounded once by whoever stores them.
        let dtype = if matches!(arg.dtype, DType::F16 | DType::Bf16) { DType::F32 } else { arg.dtype };
        self.each(low, high, one, |e, at| {
            let value = e.element(arg, &mut frame.at([at; 4], true), 0)?;
            let old = e.b.use_var(sum);
            let new = e.scalar_op(fold, dtype, &[old, value])?;
            e.b.def_var(sum, new);
            Ok(())
        })
    }

    fn fold_quads(
        &mut self,
        fold: &ScalarOp,
        arg: &Rc<Tile>,
        frame: &Frame,
        (low, high): (Value, Value),
        quads: &[Variable],
    ) -> Result<(), Diagnostic> {
        let step = self.b.ins().iconst(types::I64, 4 * quads.len() as i64);
        self.each(low, high, step, |e, at| {
            for (index, quad) in quads.iter().enumerate() {
                let first = e.b.ins().iadd_imm_s(at, 4 * index as i64);
                let lanes = e.lanes(first);
                let value = e.quad(arg, &mut frame.at(lanes, false))?;
                let old = e.b.use_var(*quad);
                let new = e.vector_op(fold, DType::F32, &[old, value])?;
                e.b.def_var(*quad, new);
            }
            Ok(())
        })
    }

    /// Position of the first largest or smallest; NaN counts as that.
    fn position_row(
        &mut self,
        kind: TileReduce,
        arg: &Rc<Tile>,
        frame: Frame,
        end: Value,
    ) -> Result<Value, Diagnostic> {
        let (best, place) = (self.b.declare_var(clif_type(arg.dtype)?), self.b.declare_var(types::I64));
        let (zero, one) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, 1));
        let start = self.neutral(kind, arg.dtype)?;
        self.b.def_var(best, start);
        self.b.def_var(place, zero);
        let op = if kind == TileReduce::Argmax { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
        self.each(zero, end, one, |e, at| {
            let value = e.element(arg, &mut frame.at([at; 4], true), 0)?;
            let (old, old_place) = (e.b.use_var(best), e.b.use_var(place));
            let mut better = e.scalar_op(&op, arg.dtype, &[value, old])?;
            if arg.dtype.is_float() {
                let nan = e.b.ins().fcmp(FloatCC::Unordered, value, value);
                let settled = e.b.ins().fcmp(FloatCC::Ordered, old, old);
                better = e.b.ins().bor(better, nan);
                better = e.b.ins().band(better, settled);
            }
            let first = e.b.ins().icmp_imm_s(IntCC::Equal, at, 0);
            better = e.b.ins().bor(better, first);
            let (new, new_place) = (e.b.ins().select(better, value, old), e.b.ins().select(better, at, old_place));
            e.b.def_var(best, new);
            e.b.def_var(place, new_place);
            Ok(())
        })?;
        Ok(self.b.use_var(place))
    }
}
