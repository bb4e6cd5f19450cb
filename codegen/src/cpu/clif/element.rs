//! Elements of lazy tiles at a place: one, or four neighbours along the inner axis.

use super::emitter::{Emitter, FLAGS, is_half};
use super::lanes::{CAST, has_vector_form};
use super::types::{Affine, Mask, Node, Plan, Tile};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Memo slot of four elements.
const QUAD: u8 = 4;
/// Memo slot of what does not vary along the inner axis.
const UNIFORM: u8 = 5;

/// Where elements are asked for, and what was computed there.
#[derive(Clone, Default)]
pub struct Frame {
    /// Positions along the outer axes.
    pub axes: Vec<(Ident, Value)>,
    /// The inner axis, with the positions of four lanes.
    pub inner: Option<(Ident, [Value; 4])>,
    /// Whether masks are looked at.
    pub checked: bool,
    /// Values by tile and lane.
    pub memo: BTreeMap<(u32, u8), Value>,
    /// Tiles that were prepared.
    pub prepared: BTreeSet<u32>,
    /// Row addresses by load.
    pub rows: BTreeMap<u32, Value>,
}

impl Frame {
    fn varies(&self, tile: &Tile) -> bool {
        self.inner.as_ref().is_some_and(|(axis, _)| tile.has(axis))
    }

    fn position(&self, axis: &Ident, lane: u8) -> Result<Value, Diagnostic> {
        if let Some((inner, lanes)) = &self.inner
            && inner == axis
        {
            return Ok(lanes[usize::from(lane & 3)]);
        }
        let found = self.axes.iter().rev().find(|(other, _)| other == axis);
        found.map(|(_, value)| *value).ok_or_else(|| Diagnostic::bug(format!("no position along axis `{axis}`")))
    }

    /// The frame at a position of the inner axis.
    pub fn at(&self, lanes: [Value; 4], checked: bool) -> Frame {
        let mut frame = self.clone();
        frame.checked = checked;
        if let Some((_, inner)) = &mut frame.inner {
            *inner = lanes;
        }
        frame
    }

    /// The frame at a position of one more outer axis; what varies along it is forgotten.
    pub fn with(&self, axis: &Ident, at: Value) -> Frame {
        let mut frame = Frame { axes: self.axes.clone(), inner: self.inner.clone(), ..Frame::default() };
        frame.axes.push((axis.clone(), at));
        frame.checked = self.checked;
        frame
    }
}

impl Emitter<'_> {
    /// The element of a tile without axes.
    pub fn scalar_of(&mut self, tile: &Rc<Tile>) -> Result<Value, Diagnostic> {
        self.element(tile, &mut Frame::default(), 0)
    }

    /// One element.
    pub fn element(&mut self, tile: &Rc<Tile>, frame: &mut Frame, lane: u8) -> Result<Value, Diagnostic> {
        let key = (tile.id, if frame.varies(tile) { lane } else { UNIFORM });
        if let Some(value) = frame.memo.get(&key) {
            return Ok(*value);
        }
        let value = match &tile.node {
            Node::Int(n) => return self.literal(tile.dtype, Some(*n), *n as f64),
            Node::Real(x) => return self.literal(tile.dtype, None, *x),
            Node::Value(value) => return Ok(*value),
            Node::Iota(axis, start) => {
                let at = frame.position(axis, lane)?;
                self.b.ins().iadd(at, *start)
            }
            Node::Op(op, operands) => {
                let mut values = Vec::new();
                for operand in operands {
                    values.push(self.element(operand, frame, lane)?);
                }
                let dtype = operands.get(1).filter(|_| operands.len() == 3).or(operands.first());
                let dtype = dtype.ok_or_else(|| Diagnostic::bug("an operation without operands"))?.dtype;
                self.scalar_op(op, dtype, &values)?
            }
            Node::Load(plan, pad) => self.load_element(tile, plan, pad.as_ref(), frame, lane)?,
        };
        frame.memo.insert(key, value);
        Ok(value)
    }

    fn load_element(
        &mut self,
        tile: &Rc<Tile>,
        plan: &Plan,
        pad: Option<&Rc<Tile>>,
        frame: &mut Frame,
        lane: u8,
    ) -> Result<Value, Diagnostic> {
        let skip_masks = !frame.checked && frame.varies(tile);
        let mut holds: Option<Value> = None;
        if !skip_masks {
            for mask in &plan.masks {
                let one = self.mask_holds(mask, frame, lane)?;
                holds = Some(match holds {
                    Some(all) => self.b.ins().band(all, one),
                    None => one,
                });
            }
        }
        let (Some(holds), Some(pad)) = (holds, pad) else {
            let address = self.address_of(Some(tile.id), plan, frame, lane)?;
            return self.read_from(plan, address);
        };
        let pad = self.element(pad, frame, lane)?;
        let result = self.b.declare_var(super::types::clif_type(tile.dtype)?);
        self.b.def_var(result, pad);
        // What the branch computes is not remembered: it is not there on the other way.
        let mut inside = frame.clone();
        self.when(holds, |e| {
            let address = e.address_of(Some(tile.id), plan, &mut inside, lane)?;
            let value = e.read_from(plan, address)?;
            e.b.def_var(result, value);
            Ok(())
        })?;
        Ok(self.b.use_var(result))
    }

    /// A position as an i64.
    pub fn position_of(&mut self, at: &Affine, frame: &mut Frame, lane: u8) -> Result<Value, Diagnostic> {
        let mut sum = at.start.value;
        for (axis, coefficient) in &at.terms {
            let position = frame.position(axis, lane)?;
            let part = if *coefficient == 1 { position } else { self.b.ins().imul_imm_s(position, *coefficient) };
            sum = self.b.ins().iadd(sum, part);
        }
        if let Some((tile, coefficient)) = &at.gather {
            let value = self.element(tile, frame, lane)?;
            let value = self.widen(value, tile.dtype);
            let part = self.b.ins().imul_imm_s(value, *coefficient);
            sum = self.b.ins().iadd(sum, part);
        }
        Ok(sum)
    }

    /// Whether a masked element exists.
    pub fn mask_holds(&mut self, mask: &Mask, frame: &mut Frame, lane: u8) -> Result<Value, Diagnostic> {
        let at = self.position_of(&mask.at, frame, lane)?;
        let below = self.b.ins().icmp(IntCC::SignedLessThan, at, mask.extent);
        if !mask.low {
            return Ok(below);
        }
        let above = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, at, 0);
        Ok(self.b.ins().band(below, above))
    }

    /// Reads the element at `address` of what a plan accesses.
    fn read_from(&mut self, plan: &Plan, address: Value) -> Result<Value, Diagnostic> {
        let dtype = plan.memory.dtype;
        if !dtype.is_block() {
            return self.read(dtype, address);
        }
        // "Bytes" past the first are elements here, see `memory`.
        let element = self.b.ins().isub(address, plan.memory.base);
        self.called(super::calls::block_element(dtype)?, &[plan.memory.base, element], DType::F32)
    }

    /// Address of an element; `id` is that of the load, whose row address may be known.
    pub fn address_of(
        &mut self,
        id: Option<u32>,
        plan: &Plan,
        frame: &mut Frame,
        lane: u8,
    ) -> Result<Value, Diagnostic> {
        let row = id.and_then(|id| frame.rows.get(&id).copied());
        let mut address = match row {
            Some(row) => row,
            None => self.row_address(plan, frame)?,
        };
        let inner = frame.inner.as_ref().map(|(axis, lanes)| (axis.clone(), lanes[usize::from(lane & 3)]));
        if let Some((axis, at)) = inner
            && let Some(step) = plan.step(&axis)
        {
            let offset = match step.constant {
                Some(0) => return self.gathered(address, plan, frame, lane),
                Some(n) => self.b.ins().imul_imm_s(at, n),
                None => self.b.ins().imul(at, step.value),
            };
            address = self.b.ins().iadd(address, offset);
        }
        self.gathered(address, plan, frame, lane)
    }

    fn gathered(&mut self, mut address: Value, plan: &Plan, frame: &mut Frame, lane: u8) -> Result<Value, Diagnostic> {
        for (tile, extent, number) in &plan.limits {
            let value = self.element(tile, frame, lane)?;
            let value = self.widen(value, tile.dtype);
            self.guard(value, *extent, *number);
        }
        for (tile, stride) in &plan.gathers {
            let value = self.element(tile, frame, lane)?;
            let value = self.widen(value, tile.dtype);
            let offset = self.b.ins().imul(value, stride.value);
            address = self.b.ins().iadd(address, offset);
        }
        Ok(address)
    }

    /// Address where the inner axis is 0, without gathered parts.
    pub fn row_address(&mut self, plan: &Plan, frame: &Frame) -> Result<Value, Diagnostic> {
        let mut address = plan.base;
        for ((axis, _), step) in plan.axes.iter().zip(&plan.steps) {
            let is_inner = frame.inner.as_ref().is_some_and(|(inner, _)| inner == axis);
            if is_inner || step.constant == Some(0) {
                continue;
            }
            let at = frame.position(axis, 0)?;
            let offset = match step.constant {
                Some(n) => self.b.ins().imul_imm_s(at, n),
                None => self.b.ins().imul(at, step.value),
            };
            address = self.b.ins().iadd(address, offset);
        }
        Ok(address)
    }

    /// Computes, ahead of the inner loop, row addresses and all that does not vary along the inner axis.
    pub fn prepare(&mut self, tile: &Rc<Tile>, frame: &mut Frame) -> Result<(), Diagnostic> {
        if !frame.prepared.insert(tile.id) {
            return Ok(());
        }
        if !frame.varies(tile) {
            return self.element(tile, frame, 0).map(|_| ());
        }
        match &tile.node {
            Node::Op(_, operands) => {
                for operand in operands {
                    self.prepare(operand, frame)?;
                }
            }
            Node::Load(plan, _) => {
                let row = self.row_address(plan, frame)?;
                frame.rows.insert(tile.id, row);
                for (gather, _) in &plan.gathers {
                    self.prepare(gather, frame)?;
                }
            }
            Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Iota(..) => {}
        }
        Ok(())
    }

    /// Four neighbours along the inner axis, of floats up to f32, as f32, or truth values.
    pub fn quad(&mut self, tile: &Rc<Tile>, frame: &mut Frame) -> Result<Value, Diagnostic> {
        if let Some(value) = frame.memo.get(&(tile.id, QUAD)) {
            return Ok(*value);
        }
        let value = if !frame.varies(tile) {
            let value = self.element(tile, frame, 0)?;
            if tile.dtype == DType::Bool {
                let mask = self.b.ins().bmask(types::I32, value);
                self.b.ins().splat(types::I32X4, mask)
            } else {
                self.b.ins().splat(types::F32X4, value)
            }
        } else {
            self.varying_quad(tile, frame)?
        };
        frame.memo.insert((tile.id, QUAD), value);
        Ok(value)
    }

    fn varying_quad(&mut self, tile: &Rc<Tile>, frame: &mut Frame) -> Result<Value, Diagnostic> {
        match &tile.node {
            Node::Load(plan, _) if tile.dtype == DType::F32 && contiguous(plan, frame) => {
                let address = self.address_of(Some(tile.id), plan, frame, 0)?;
                return Ok(self.b.ins().load(types::F32X4, FLAGS, address, 0));
            }
            Node::Load(plan, _) if tile.dtype == DType::Bf16 && contiguous(plan, frame) => {
                let address = self.address_of(Some(tile.id), plan, frame, 0)?;
                let bits = self.b.ins().uload16x4(FLAGS, address, 0);
                let bits = self.b.ins().ishl_imm_s(bits, 16);
                return Ok(self.b.ins().bitcast(types::F32X4, CAST, bits));
            }
            Node::Op(op, operands) => {
                let dtypes: Vec<DType> = operands.iter().map(|operand| operand.dtype).collect();
                if has_vector_form(op, &dtypes, tile.dtype) {
                    let mut values = Vec::new();
                    for operand in operands {
                        values.push(self.quad(operand, frame)?);
                    }
                    let from = dtypes.first().copied().unwrap_or(DType::F32);
                    let value = self.vector_op(op, from, &values)?;
                    let rounds = is_half(tile.dtype) && !matches!(op, ScalarOp::Select {});
                    return Ok(if rounds { self.round_quad(tile.dtype, value) } else { value });
                }
            }
            Node::Load(..) | Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Iota(..) => {}
        }
        if let Some(mask) = self.position_mask(tile, frame)? {
            return Ok(mask);
        }
        // No vector form: element by element.
        let truth = tile.dtype == DType::Bool;
        let mut result: Option<Value> = None;
        for lane in 0..4u8 {
            let mut value = self.element(tile, frame, lane)?;
            if truth {
                value = self.b.ins().bmask(types::I32, value);
            }
            result = Some(match result {
                None if truth => self.b.ins().splat(types::I32X4, value),
                None => self.b.ins().splat(types::F32X4, value),
                Some(quad) => self.b.ins().insertlane(quad, value, lane),
            });
        }
        result.ok_or_else(|| Diagnostic::bug("four lanes without a lane"))
    }
}

/// Lane numbers, little endian.
const LANES: [u8; 16] = [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];

impl Emitter<'_> {
    /// `position < bound` and `position <= bound` for a bound that is the same in all lanes: how many lanes hold.
    fn position_mask(&mut self, tile: &Rc<Tile>, frame: &mut Frame) -> Result<Option<Value>, Diagnostic> {
        let Node::Op(op, operands) = &tile.node else { return Ok(None) };
        let [position, bound] = operands.as_slice() else { return Ok(None) };
        let extra = match op {
            ScalarOp::Lt {} => 0,
            ScalarOp::Le {} => 1,
            _ => return Ok(None),
        };
        let inner = frame.inner.as_ref().map(|(axis, _)| axis.clone());
        let along = matches!(&position.node, Node::Iota(axis, _) if Some(axis) == inner.as_ref());
        if !along || frame.varies(bound) {
            return Ok(None);
        }
        let (first, bound) = (self.element(position, frame, 0)?, self.element(bound, frame, 0)?);
        // Clamped to -1..=4 before it is narrowed: bounds may be any i64.
        let (low, high) = (self.b.ins().iconst(types::I64, -1), self.b.ins().iconst(types::I64, 4));
        let holds = self.b.ins().isub(bound, first);
        let holds = self.b.ins().smin(holds, high);
        let holds = self.b.ins().smax(holds, low);
        let holds = self.b.ins().iadd_imm_s(holds, extra);
        let holds = self.b.ins().ireduce(types::I32, holds);
        let holds = self.b.ins().splat(types::I32X4, holds);
        let lanes = self.b.func.dfg.constants.insert(LANES.to_vec().into());
        let lanes = self.b.ins().vconst(types::I32X4, lanes);
        Ok(Some(self.b.ins().icmp(IntCC::SignedLessThan, lanes, holds)))
    }
}

/// Whether neighbours along the inner axis are neighbours in memory.
pub(super) fn contiguous(plan: &Plan, frame: &Frame) -> bool {
    let Some((axis, _)) = &frame.inner else { return false };
    let element = plan.memory.dtype.block().1 as i64;
    let gathers = plan.gathers.iter().any(|(tile, _)| tile.has(axis));
    !gathers && plan.step(axis).and_then(|step| step.constant) == Some(element)
}
