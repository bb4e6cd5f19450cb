//! Elementary functions of whole rows: the arguments are computed into scratch memory, a micro-kernel with wider vectors
//! than Cranelift's replaces them, and the rest of the expression reads the strip.

use super::element::Frame;
use super::emitter::Emitter;
use super::nest::Row;
use super::types::{Node, Tile};
use crate::cpu::ukernel::elementary::elementary;
use cranelift_codegen::ir::InstBuilder;
use std::collections::BTreeMap;
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Shortest row for which a call pays.
const SHORTEST: i64 = 16;

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
        if !tile.costly || row.size < SHORTEST || !tile.has(row.axis) {
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
        let function = if tile.dtype == DType::F32 { elementary(self.isa, op) } else { None };
        let out = match (function, parts.as_slice()) {
            (Some(function), [argument]) if argument.dtype == DType::F32 => {
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
            _ => tile.clone(),
        };
        done.insert(tile.id, out.clone());
        Ok(out)
    }
}
