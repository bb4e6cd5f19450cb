//! Elementary functions of whole rows: the arguments are computed into scratch memory, a micro-kernel with wider vectors
//! than Cranelift's replaces them, and the rest of the expression reads the strip.

use super::element::{Frame, contiguous};
use super::emitter::Emitter;
use super::nest::Row;
use super::types::{Node, Plan, Tile};
use crate::cpu::ukernel::elementary::{Elementary, elementary};
use crate::cpu::ukernel::halves::converts;
use cranelift_codegen::ir::{InstBuilder, types};
use std::collections::BTreeMap;
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Shortest row for which a call pays.
pub(super) const SHORTEST: i64 = 16;

impl Emitter<'_> {
    /// `tile` with its elementary functions of f32 computed for the positions of `row`; bits do not change. `done` has
    /// what became of tiles.
    pub fn strips(
        &mut self,
        tile: &Rc<Tile>,
        frame: &Frame,
        row: &Row<'_>,
        done: &mut BTreeMap<u32, Rc<Tile>>,
    ) -> Result<Rc<Tile>, Diagnostic> {
        let Node::Op(op, operands) = &tile.node else { return Ok(tile.clone()) };
        if !(tile.costly || tile.halves) || row.size < SHORTEST || !tile.has(row.axis) {
            return Ok(tile.clone());
        }
        if let Some(known) = done.get(&tile.id) {
            return Ok(known.clone());
        }
        let mut changed = false;
        let mut parts = Vec::with_capacity(operands.len());
        for operand in operands {
            let part = self.strips(operand, frame, row, done)?;
            changed |= part.id != operand.id;
            parts.push(part);
        }
        let function = self.strip_function(tile, row);
        let out = match (function, parts.as_slice()) {
            (Some(function), [argument]) => {
                let axes = vec![(row.axis.clone(), row.size)];
                let plan = self.scratch_plan(DType::F32, &axes)?;
                self.fill(&plan, argument, frame.clone(), row, true)?;
                let offset = self.b.ins().imul_imm_s(row.begin, 4);
                let address = self.b.ins().iadd(plan.base, offset);
                let count = self.b.ins().isub(row.end, row.begin);
                self.call(function as usize, &[count, address], None);
                self.tile(DType::F32, axes, Node::Load(plan, None))
            }
            _ if changed => self.tile(tile.dtype, tile.axes.clone(), Node::Op(op.clone(), parts)),
            _ => self.widened(tile, frame, row)?.unwrap_or_else(|| tile.clone()),
        };
        done.insert(tile.id, out.clone());
        Ok(out)
    }

    /// A row of halves in memory that lie side by side, as f32.
    fn widened(&mut self, tile: &Tile, frame: &Frame, row: &Row<'_>) -> Result<Option<Rc<Tile>>, Diagnostic> {
        let Node::Op(ScalarOp::Cast { to: DType::F32 }, operands) = &tile.node else { return Ok(None) };
        let [load] = operands.as_slice() else { return Ok(None) };
        let (Node::Load(plan, _), Some((widen, _))) = (&load.node, converts(self.isa, load.dtype)) else {
            return Ok(None);
        };
        let mut frame = frame.clone();
        if !contiguous(plan, &frame) {
            return Ok(None);
        }
        self.prepare(load, &mut frame)?;
        let axes = vec![(row.axis.clone(), row.size)];
        let strip = self.scratch_plan(DType::F32, &axes)?;
        let (low, high) = self.clear_range(load, &mut frame, row.begin, row.end)?;
        // What a mask may hide is read one by one.
        let one = self.b.ins().iconst(types::I64, 1);
        for (begin, end) in [(row.begin, low), (high, row.end)].into_iter().filter(|(begin, end)| begin != end) {
            self.each(begin, end, one, |e, at| {
                let value = e.element(load, &mut frame.at([at; 4], true), 0)?;
                let offset = e.b.ins().imul_imm_s(at, 4);
                let address = e.b.ins().iadd(strip.base, offset);
                e.write(DType::F32, value, address)
            })?;
        }
        let from = self.address_of(Some(load.id), plan, &mut frame.at([low; 4], false), 0)?;
        let offset = self.b.ins().imul_imm_s(low, 4);
        let to = self.b.ins().iadd(strip.base, offset);
        let count = self.b.ins().isub(high, low);
        self.call(widen as usize, &[count, from, to], None);
        Ok(Some(self.tile(DType::F32, axes, Node::Load(strip, None))))
    }

    /// Writes a row of halves: in f32 first, as a strip. Whether that could be done.
    pub fn fill_halves(
        &mut self,
        to: &Plan,
        tile: &Rc<Tile>,
        frame: &Frame,
        row: &Row<'_>,
    ) -> Result<bool, Diagnostic> {
        let Some((_, narrow)) = converts(self.isa, tile.dtype) else { return Ok(false) };
        // What is rounded at last is rounded by the function; other halves are so in f32.
        let value = match &tile.node {
            Node::Op(ScalarOp::Cast { .. }, operands) if operands.iter().all(|x| x.dtype == DType::F32) => &operands[0],
            _other => tile,
        };
        if row.size < SHORTEST || !to.gathers.is_empty() || !value.has(row.axis) {
            return Ok(false);
        }
        let strip = self.scratch_plan(DType::F32, &[(row.axis.clone(), row.size)])?;
        if !self.fill_in_place(&strip, value, frame, row)? {
            let value = self.strips(value, frame, row, &mut BTreeMap::new())?;
            self.fill(&strip, &value, frame.clone(), row, true)?;
        }
        let offset = self.b.ins().imul_imm_s(row.begin, 4);
        let from = self.b.ins().iadd(strip.base, offset);
        let offset = self.b.ins().imul_imm_s(row.begin, 2);
        let address = self.row_address(to, frame)?;
        let address = self.b.ins().iadd(address, offset);
        let count = self.b.ins().isub(row.end, row.begin);
        self.call(narrow as usize, &[count, from, address], None);
        Ok(true)
    }

    /// The micro-kernel that replaces the arguments of `tile` along `row` by its elements.
    fn strip_function(&self, tile: &Tile, row: &Row<'_>) -> Option<Elementary> {
        let Node::Op(op, operands) = &tile.node else { return None };
        let floats = tile.dtype == DType::F32 && operands.iter().all(|x| x.dtype == DType::F32);
        if floats && row.size >= SHORTEST && tile.has(row.axis) { elementary(self.isa, op) } else { None }
    }

    /// Writes a row whose elements are those of an elementary function: its arguments first, which the function replaces
    /// where they lie. Whether that could be done.
    pub fn fill_in_place(
        &mut self,
        to: &Plan,
        tile: &Rc<Tile>,
        frame: &Frame,
        row: &Row<'_>,
    ) -> Result<bool, Diagnostic> {
        let Node::Op(_, operands) = &tile.node else { return Ok(false) };
        let (Some(function), [argument]) = (self.strip_function(tile, row), operands.as_slice()) else {
            return Ok(false);
        };
        let argument = self.strips(argument, frame, row, &mut BTreeMap::new())?;
        self.fill(to, &argument, frame.clone(), row, true)?;
        let offset = self.b.ins().imul_imm_s(row.begin, 4);
        let address = self.row_address(to, frame)?;
        let address = self.b.ins().iadd(address, offset);
        let count = self.b.ins().isub(row.end, row.begin);
        self.call(function as usize, &[count, address], None);
        Ok(true)
    }
}
