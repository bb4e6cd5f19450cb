//! The state of the emission of one kernel, and small pieces of code that everything uses.

use super::types::{Binding, Node, Num, Tile, malformed};
use crate::cpu::ukernel::Isa;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, Type, Value, types};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Access;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

/// Flags of every access: it cannot trap, but may be unaligned.
pub const FLAGS: MemFlagsData = MemFlagsData::new().with_notrap();

/// Emits one kernel.
pub struct Emitter<'a> {
    /// The function.
    pub b: FunctionBuilder<'a>,
    /// Names in scope, the innermost last.
    pub scope: Vec<(Ident, Binding)>,
    /// Address of the scratch memory.
    pub scratch: Value,
    /// Bytes of scratch given out.
    pub scratch_bytes: usize,
    /// Instruction set of micro-kernels.
    pub isa: Isa,
    /// Calling convention of the host.
    pub call_conv: CallConv,
    /// Tiles made.
    pub tiles: u32,
    /// Accesses of loaded tiles, by number: those that still mean the same.
    pub accesses: Vec<(u32, Access)>,
    /// Where a failed check is written, see [`super::check`].
    pub status: Value,
    /// Checks of indices, by number.
    pub checks: Vec<super::check::Check>,
    /// Positions that are known to lie below extents here.
    pub known: Vec<(Value, Num)>,
}

/// Whether elements of a dtype are computed as f32.
pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

/// Most scratch bytes of a kernel.
const SCRATCH_LIMIT: usize = 1 << 30;

impl Emitter<'_> {
    /// A known number.
    pub fn num(&mut self, n: i64) -> Num {
        Num { value: self.b.ins().iconst(types::I64, n), constant: Some(n) }
    }

    /// a + b
    pub fn add(&mut self, a: Num, b: Num) -> Num {
        match (a.constant, b.constant) {
            (Some(0), _) => b,
            (_, Some(0)) => a,
            (Some(x), Some(y)) => self.num(x.wrapping_add(y)),
            (None, _) | (_, None) => Num { value: self.b.ins().iadd(a.value, b.value), constant: None },
        }
    }

    /// a - b
    pub fn sub(&mut self, a: Num, b: Num) -> Num {
        match (a.constant, b.constant) {
            (_, Some(0)) => a,
            (Some(x), Some(y)) => self.num(x.wrapping_sub(y)),
            (None, _) | (_, None) => Num { value: self.b.ins().isub(a.value, b.value), constant: None },
        }
    }

    /// a * b
    pub fn mul(&mut self, a: Num, b: Num) -> Num {
        match (a.constant, b.constant) {
            (Some(1), _) => b,
            (_, Some(1)) => a,
            (Some(0), _) | (_, Some(0)) => self.num(0),
            (Some(x), Some(y)) => self.num(x.wrapping_mul(y)),
            (None, _) | (_, None) => Num { value: self.b.ins().imul(a.value, b.value), constant: None },
        }
    }

    /// The smaller, signed.
    pub fn least(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().smin(a, b)
    }

    /// `floor(a / b)`, b > 0.
    pub fn floor_div(&mut self, a: Num, b: Num) -> Num {
        if let (Some(x), Some(y)) = (a.constant, b.constant)
            && y > 0
        {
            return self.num(x.div_euclid(y));
        }
        if b.constant == Some(1) {
            return a;
        }
        // A divisor of 0 would trap; 1 in its place keeps hostile kernels harmless.
        let one = self.b.ins().iconst(types::I64, 1);
        let divisor = if b.constant.is_some_and(|b| b > 0) { b.value } else { self.b.ins().smax(b.value, one) };
        let quotient = self.b.ins().sdiv(a.value, divisor);
        let back = self.b.ins().imul(quotient, divisor);
        let below = self.b.ins().icmp(IntCC::SignedLessThan, a.value, back);
        let below = self.b.ins().uextend(types::I64, below);
        Num { value: self.b.ins().isub(quotient, below), constant: None }
    }

    /// `low, low + step, ..` below `high`; `body` gets the position.
    pub fn each(
        &mut self,
        low: Value,
        high: Value,
        step: Value,
        body: impl FnOnce(&mut Self, Value) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let (header, inside, after) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let at = self.b.append_block_param(header, types::I64);
        self.b.ins().jump(header, &[low.into()]);
        self.b.switch_to_block(header);
        // The way out is named first: Cranelift walks the blocks that the header dominates from the last one named, and
        // moves what a loop does not change out of it only while it has not walked past the loop's end.
        let done = self.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, at, high);
        self.b.ins().brif(done, after, &[], inside, &[]);
        self.b.seal_block(inside);
        self.b.switch_to_block(inside);
        body(self, at)?;
        let next = self.b.ins().iadd(at, step);
        self.b.ins().jump(header, &[next.into()]);
        self.b.seal_block(header);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
        Ok(())
    }

    /// Emits `body` where `condition` holds.
    pub fn when(
        &mut self,
        condition: Value,
        body: impl FnOnce(&mut Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, inside, &[], after, &[]);
        self.b.seal_block(inside);
        self.b.switch_to_block(inside);
        body(self)?;
        self.b.ins().jump(after, &[]);
        self.b.seal_block(after);
        self.b.switch_to_block(after);
        Ok(())
    }

    /// Calls a function of the host by its address.
    pub fn call(&mut self, address: usize, args: &[Value], result: Option<Type>) -> Option<Value> {
        let mut signature = Signature::new(self.call_conv);
        for arg in args {
            signature.params.push(AbiParam::new(self.b.func.dfg.value_type(*arg)));
        }
        signature.returns.extend(result.map(AbiParam::new));
        let signature = self.b.import_signature(signature);
        let address = self.b.ins().iconst(types::I64, address.cast_signed() as i64);
        let call = self.b.ins().call_indirect(signature, address, args);
        self.b.inst_results(call).first().copied()
    }

    /// The meaning of a name.
    pub fn find(&self, name: &str) -> Result<&Binding, Diagnostic> {
        let found = self.scope.iter().rev().find(|(other, _)| **other == *name);
        found.map(|(_, binding)| binding).ok_or_else(|| malformed(format!("`{name}` is not declared")))
    }

    /// Binds a name.
    pub fn bind(&mut self, name: &Ident, binding: Binding) {
        self.forget(name);
        self.scope.push((name.clone(), binding));
    }

    /// An access that reads `name` means another box from here on.
    pub fn forget(&mut self, name: &str) {
        self.accesses.retain(|(_, access)| !access.names(name));
    }

    /// A new tile.
    pub fn tile(&mut self, dtype: DType, axes: Vec<(Ident, i64)>, node: Node) -> Rc<Tile> {
        self.tiles += 1;
        let costly = match &node {
            Node::Op(op, operands) => {
                op.info().family == Family::Transcendental || operands.iter().any(|operand| operand.costly)
            }
            Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Load(..) | Node::Iota(..) => false,
        };
        let halves = match &node {
            Node::Op(ScalarOp::Cast { to: DType::F32 }, operands) => {
                operands.iter().any(|x| x.halves || is_half(x.dtype))
            }
            Node::Op(_, operands) => operands.iter().any(|operand| operand.halves),
            Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Load(..) | Node::Iota(..) => false,
        };
        Rc::new(Tile { id: self.tiles, dtype, axes, costly, halves, node })
    }

    /// Scratch memory, 64-byte aligned.
    pub fn allocate(&mut self, bytes: usize) -> Result<Value, Diagnostic> {
        let start = self.scratch_bytes;
        let end = start.checked_add(bytes).and_then(|n| n.checked_next_multiple_of(64)).filter(|n| *n <= SCRATCH_LIMIT);
        self.scratch_bytes =
            end.ok_or_else(|| malformed(format!("scratch of {bytes} more bytes is above {SCRATCH_LIMIT} in all")))?;
        Ok(self.b.ins().iadd_imm_s(self.scratch, start as i64))
    }
}
