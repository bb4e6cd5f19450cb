//! One element at a time: the table of scalar ops, casts, loads and stores of every dtype.

use super::calls;
use super::emitter::{Emitter, FLAGS};
use super::types::{clif_type, malformed, unsupported};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tilewright_ir::array::round_to_odd;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

impl Emitter<'_> {
    pub(super) fn called(&mut self, address: usize, args: &[Value], dtype: DType) -> Result<Value, Diagnostic> {
        let ty = clif_type(dtype)?;
        self.call(address, args, Some(ty)).ok_or_else(|| Diagnostic::bug("a function call without result"))
    }

    /// Reads an element.
    pub fn read(&mut self, dtype: DType, at: Value) -> Result<Value, Diagnostic> {
        match dtype {
            DType::F16 | DType::Bf16 => {
                let bits = self.b.ins().load(types::I16, FLAGS, at, 0);
                self.half_value(dtype, bits)
            }
            _ => Ok(self.b.ins().load(clif_type(dtype)?, FLAGS, at, 0)),
        }
    }

    /// Writes an element.
    pub fn write(&mut self, dtype: DType, value: Value, at: Value) -> Result<(), Diagnostic> {
        let value = match dtype {
            DType::F16 | DType::Bf16 => self.half_bits(dtype, value, false)?,
            _ => value,
        };
        self.b.ins().store(FLAGS, value, at, 0);
        Ok(())
    }

    fn half_bits(&mut self, dtype: DType, value: Value, wide: bool) -> Result<Value, Diagnostic> {
        if dtype == DType::Bf16 && !wide {
            return Ok(self.bf16_bits(value));
        }
        self.called(calls::float_to_half(dtype == DType::Bf16, wide), &[value], DType::U16)
    }

    /// The upper half of an f32, rounded to nearest, ties to even; a NaN stays one, quiet.
    fn bf16_bits(&mut self, value: Value) -> Value {
        let bits = self.b.ins().bitcast(types::I32, cranelift_codegen::ir::MemFlagsData::new(), value);
        let high = self.b.ins().ushr_imm_u(bits, 16);
        let odd = self.b.ins().band_imm_u(high, 1);
        let up = self.b.ins().iadd_imm_s(odd, 0x7fff);
        let sum = self.b.ins().iadd(bits, up);
        let near = self.b.ins().ushr_imm_u(sum, 16);
        let quiet = self.b.ins().bor_imm_u(high, 0x40);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, value, value);
        let bits = self.b.ins().select(nan, quiet, near);
        self.b.ins().ireduce(types::I16, bits)
    }

    fn half_value(&mut self, dtype: DType, bits: Value) -> Result<Value, Diagnostic> {
        if dtype == DType::F16 {
            return self.called(calls::half_to_float(), &[bits], DType::F32);
        }
        let bits = self.b.ins().uextend(types::I32, bits);
        let bits = self.b.ins().ishl_imm_s(bits, 16);
        Ok(self.b.ins().bitcast(types::F32, cranelift_codegen::ir::MemFlagsData::new(), bits))
    }

    /// Rounds an f32 (f64 with `wide`) to a half float, kept as f32.
    fn round_half(&mut self, dtype: DType, value: Value, wide: bool) -> Result<Value, Diagnostic> {
        let bits = self.half_bits(dtype, value, wide)?;
        self.half_value(dtype, bits)
    }

    /// A literal of a dtype.
    pub fn literal(&mut self, dtype: DType, int: Option<i64>, real: f64) -> Result<Value, Diagnostic> {
        Ok(match dtype {
            DType::F64 => self.b.ins().f64const(real),
            DType::F32 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => {
                self.b.ins().f32const(real as f32)
            }
            DType::F16 => self.b.ins().f32const(half::f16::from_f32(round_to_odd(real)).to_f32()),
            DType::Bf16 => self.b.ins().f32const(half::bf16::from_f32(round_to_odd(real)).to_f32()),
            _ => {
                let n = int.ok_or_else(|| malformed(format!("the literal {real} is no {dtype}")))?;
                let n = if dtype == DType::Bool { i64::from(n != 0) } else { n };
                let ty = clif_type(dtype)?;
                let bits = ty.bits();
                let n = if bits < 64 { n & ((1i64 << bits) - 1) } else { n };
                self.b.ins().iconst(ty, n)
            }
        })
    }

    /// The op on elements; `dtype` is that of the first operand (of the second for `select`).
    pub fn scalar_op(&mut self, op: &ScalarOp, dtype: DType, args: &[Value]) -> Result<Value, Diagnostic> {
        let (a, b) = match args {
            [a] => (*a, *a),
            [a, b] | [a, b, _] => (*a, *b),
            _ => return Err(malformed(format!("operands of `{}`", op.info().name))),
        };
        match op {
            ScalarOp::Cast { to } => return self.cast(a, dtype, *to),
            ScalarOp::Select {} => {
                let c = *args.get(2).ok_or_else(|| malformed("select without a third operand"))?;
                return Ok(self.b.ins().select(a, b, c));
            }
            _ => {}
        }
        if dtype.is_float() {
            let value = self.float_op(op, dtype, a, b)?;
            let rounds = matches!(dtype, DType::F16 | DType::Bf16) && self.b.func.dfg.value_type(value) == types::F32;
            if rounds { self.round_half(dtype, value, false) } else { Ok(value) }
        } else {
            self.int_op(op, dtype, a, b)
        }
    }

    fn float_op(&mut self, op: &ScalarOp, dtype: DType, a: Value, b: Value) -> Result<Value, Diagnostic> {
        let wide = dtype == DType::F64;
        let compute = if wide { DType::F64 } else { DType::F32 };
        let compare = |e: &mut Self, code| e.b.ins().fcmp(code, a, b);
        Ok(match op {
            ScalarOp::Add {} => self.b.ins().fadd(a, b),
            ScalarOp::Sub {} => self.b.ins().fsub(a, b),
            ScalarOp::Mul {} => self.b.ins().fmul(a, b),
            ScalarOp::Div {} => self.b.ins().fdiv(a, b),
            ScalarOp::Rem {} => self.called(calls::rem_float(wide), &[a, b], compute)?,
            ScalarOp::Pow {} => self.called(calls::pow_float(wide), &[a, b], compute)?,
            ScalarOp::Max {} => self.b.ins().fmax(a, b),
            ScalarOp::Min {} => self.b.ins().fmin(a, b),
            ScalarOp::Neg {} => self.b.ins().fneg(a),
            ScalarOp::Abs {} => self.b.ins().fabs(a),
            ScalarOp::Sign {} => {
                let zero = self.literal(compute, None, 0.0)?;
                let (one, minus) = (self.literal(compute, None, 1.0)?, self.literal(compute, None, -1.0)?);
                let above = self.b.ins().fcmp(FloatCC::GreaterThan, a, zero);
                let below = self.b.ins().fcmp(FloatCC::LessThan, a, zero);
                let rest = self.b.ins().select(below, minus, a);
                self.b.ins().select(above, one, rest)
            }
            ScalarOp::Floor {} => self.b.ins().floor(a),
            ScalarOp::Ceil {} => self.b.ins().ceil(a),
            ScalarOp::Round {} => self.b.ins().nearest(a),
            ScalarOp::Trunc {} => self.b.ins().trunc(a),
            ScalarOp::Sqrt {} => self.b.ins().sqrt(a),
            ScalarOp::Rsqrt {} => {
                let (one, root) = (self.literal(compute, None, 1.0)?, self.b.ins().sqrt(a));
                self.b.ins().fdiv(one, root)
            }
            ScalarOp::Exp {}
            | ScalarOp::Exp2 {}
            | ScalarOp::Expm1 {}
            | ScalarOp::Log {}
            | ScalarOp::Log2 {}
            | ScalarOp::Log1p {}
            | ScalarOp::Tanh {}
            | ScalarOp::Erf {}
            | ScalarOp::Sin {}
            | ScalarOp::Cos {} => {
                if wide {
                    let address = calls::wide(op).ok_or_else(|| Diagnostic::bug("an f64 function is missing"))?;
                    self.called(address, &[a], DType::F64)?
                } else {
                    let lanes = self.b.ins().splat(types::F32X4, a);
                    let lanes = self.transcendental(op, lanes)?;
                    self.b.ins().extractlane(lanes, 0u8)
                }
            }
            ScalarOp::Eq {} => compare(self, FloatCC::Equal),
            ScalarOp::Ne {} => compare(self, FloatCC::NotEqual),
            ScalarOp::Lt {} => compare(self, FloatCC::LessThan),
            ScalarOp::Le {} => compare(self, FloatCC::LessThanOrEqual),
            ScalarOp::Gt {} => compare(self, FloatCC::GreaterThan),
            ScalarOp::Ge {} => compare(self, FloatCC::GreaterThanOrEqual),
            ScalarOp::IsNan {} => self.b.ins().fcmp(FloatCC::Unordered, a, a),
            ScalarOp::And {}
            | ScalarOp::Or {}
            | ScalarOp::Xor {}
            | ScalarOp::Not {}
            | ScalarOp::Shl {}
            | ScalarOp::Shr {}
            | ScalarOp::Select {}
            | ScalarOp::Cast { .. } => return Err(malformed(format!("`{}` of {dtype}", op.info().name))),
        })
    }

    fn int_op(&mut self, op: &ScalarOp, dtype: DType, a: Value, b: Value) -> Result<Value, Diagnostic> {
        let signed = dtype.is_signed();
        let code = |yes: IntCC, no: IntCC| if signed { yes } else { no };
        let compare = |e: &mut Self, code| e.b.ins().icmp(code, a, b);
        Ok(match op {
            ScalarOp::Add {} => self.b.ins().iadd(a, b),
            ScalarOp::Sub {} => self.b.ins().isub(a, b),
            ScalarOp::Mul {} => self.b.ins().imul(a, b),
            ScalarOp::Div {} => self.divide(dtype, a, b, false)?,
            ScalarOp::Rem {} => self.divide(dtype, a, b, true)?,
            ScalarOp::Pow {} => {
                let (x, y) = (self.widen(a, dtype), self.widen(b, dtype));
                let power = self.called(calls::pow_int(signed), &[x, y], DType::I64)?;
                self.narrow(power, dtype)?
            }
            ScalarOp::Max {} if signed => self.b.ins().smax(a, b),
            ScalarOp::Max {} => self.b.ins().umax(a, b),
            ScalarOp::Min {} if signed => self.b.ins().smin(a, b),
            ScalarOp::Min {} => self.b.ins().umin(a, b),
            ScalarOp::Neg {} => self.b.ins().ineg(a),
            ScalarOp::Abs {} if signed => self.b.ins().iabs(a),
            ScalarOp::Sign {} => {
                let ty = clif_type(dtype)?;
                let zero = self.b.ins().iconst(ty, 0);
                let above = self.b.ins().icmp(code(IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan), a, zero);
                let below = self.b.ins().icmp(code(IntCC::SignedLessThan, IntCC::UnsignedLessThan), a, zero);
                let sign = self.b.ins().isub(above, below);
                if ty == types::I8 { sign } else { self.b.ins().sextend(ty, sign) }
            }
            ScalarOp::Abs {} | ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => a,
            ScalarOp::Eq {} => compare(self, IntCC::Equal),
            ScalarOp::Ne {} => compare(self, IntCC::NotEqual),
            ScalarOp::Lt {} => compare(self, code(IntCC::SignedLessThan, IntCC::UnsignedLessThan)),
            ScalarOp::Le {} => compare(self, code(IntCC::SignedLessThanOrEqual, IntCC::UnsignedLessThanOrEqual)),
            ScalarOp::Gt {} => compare(self, code(IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan)),
            ScalarOp::Ge {} => compare(self, code(IntCC::SignedGreaterThanOrEqual, IntCC::UnsignedGreaterThanOrEqual)),
            ScalarOp::And {} => self.b.ins().band(a, b),
            ScalarOp::Or {} => self.b.ins().bor(a, b),
            ScalarOp::Xor {} => self.b.ins().bxor(a, b),
            ScalarOp::Not {} if dtype == DType::Bool => self.b.ins().bxor_imm_s(a, 1),
            ScalarOp::Not {} => self.b.ins().bnot(a),
            ScalarOp::Shl {} => self.shift(dtype, a, b, true)?,
            ScalarOp::Shr {} => self.shift(dtype, a, b, false)?,
            ScalarOp::IsNan {} => self.b.ins().iconst(types::I8, 0),
            ScalarOp::Sqrt {}
            | ScalarOp::Rsqrt {}
            | ScalarOp::Exp {}
            | ScalarOp::Exp2 {}
            | ScalarOp::Expm1 {}
            | ScalarOp::Log {}
            | ScalarOp::Log2 {}
            | ScalarOp::Log1p {}
            | ScalarOp::Tanh {}
            | ScalarOp::Erf {}
            | ScalarOp::Sin {}
            | ScalarOp::Cos {}
            | ScalarOp::Select {}
            | ScalarOp::Cast { .. } => return Err(malformed(format!("`{}` of {dtype}", op.info().name))),
        })
    }

    /// Quotient or remainder: x / 0 and x % 0 are 0, the smallest integer / -1 wraps.
    pub fn divide(&mut self, dtype: DType, a: Value, b: Value, remainder: bool) -> Result<Value, Diagnostic> {
        let (signed, ty) = (dtype.is_signed(), clif_type(dtype)?);
        // In 32 or 64 bits, which every target divides.
        let (x, y) = (self.widen(a, dtype), self.widen(b, dtype));
        let (zero, one) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, 1));
        let none = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let minus = self.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
        let special = if signed { self.b.ins().bor(none, minus) } else { none };
        let divisor = self.b.ins().select(special, one, y);
        let result = match (signed, remainder) {
            (true, false) => self.b.ins().sdiv(x, divisor),
            (true, true) => self.b.ins().srem(x, divisor),
            (false, false) => self.b.ins().udiv(x, divisor),
            (false, true) => self.b.ins().urem(x, divisor),
        };
        let result = if signed && !remainder {
            let negated = self.b.ins().ineg(x);
            self.b.ins().select(minus, negated, result)
        } else {
            result
        };
        let result = self.b.ins().select(none, zero, result);
        Ok(if ty == types::I64 { result } else { self.b.ins().ireduce(ty, result) })
    }

    fn shift(&mut self, dtype: DType, a: Value, count: Value, left: bool) -> Result<Value, Diagnostic> {
        let ty = clif_type(dtype)?;
        let bits = i64::from(ty.bits());
        let inside = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, count, bits);
        let (zero, last) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, bits - 1));
        Ok(match (left, dtype.is_signed()) {
            (true, _) => {
                let y = self.b.ins().ishl(a, count);
                self.b.ins().select(inside, y, zero)
            }
            (false, true) => {
                let count = self.b.ins().select(inside, count, last);
                self.b.ins().sshr(a, count)
            }
            (false, false) => {
                let y = self.b.ins().ushr(a, count);
                self.b.ins().select(inside, y, zero)
            }
        })
    }

    /// A 64-bit integer beyond what f64 holds with one bit for all that it would lose.
    fn sticky(&mut self, x: Value, from: DType) -> Value {
        if !matches!(from, DType::I64 | DType::U64) {
            return x;
        }
        let least = if from == DType::I64 { 1i64 << 53 } else { 0 };
        let shifted = self.b.ins().iadd_imm_s(x, least);
        let exact = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThanOrEqual, shifted, least + (1 << 53));
        let low = self.b.ins().band_imm_s(x, 0xfff);
        let high = self.b.ins().bxor(x, low);
        let lost = self.b.ins().icmp_imm_s(IntCC::NotEqual, low, 0);
        let marked = self.b.ins().bor_imm_s(high, 0x800);
        let rounded = self.b.ins().select(lost, marked, high);
        self.b.ins().select(exact, x, rounded)
    }

    fn narrow(&mut self, value: Value, to: DType) -> Result<Value, Diagnostic> {
        let ty = clif_type(to)?;
        Ok(if ty == types::I64 { value } else { self.b.ins().ireduce(ty, value) })
    }

    /// A cast with the table's meaning.
    pub fn cast(&mut self, a: Value, from: DType, to: DType) -> Result<Value, Diagnostic> {
        if from == to {
            return Ok(a);
        }
        if from.is_block() && !to.is_block() {
            // Reading has dequantised it.
            return self.cast(a, DType::F32, to);
        }
        if to.is_block() {
            return Err(unsupported(format!("casts from {from} to {to}")));
        }
        if to == DType::Bool {
            let zero = self.literal(from, Some(0), 0.0)?;
            return Ok(if from.is_float() {
                self.b.ins().fcmp(FloatCC::NotEqual, a, zero)
            } else {
                self.b.ins().icmp(IntCC::NotEqual, a, zero)
            });
        }
        let half = matches!(to, DType::F16 | DType::Bf16);
        match (from.is_float(), to.is_float()) {
            (true, true) => match (from, to) {
                (DType::F64, _) if half => self.round_half(to, a, true),
                (_, _) if half => self.round_half(to, a, false),
                (DType::F64, _) => Ok(self.b.ins().fdemote(types::F32, a)),
                (_, DType::F64) => Ok(self.b.ins().fpromote(types::F64, a)),
                (_, _) => Ok(a),
            },
            (false, true) => {
                let wide = self.widen(a, from);
                // Through f64 for half floats, which must not round by itself.
                let wide = if half { self.sticky(wide, from) } else { wide };
                let ty = if half { types::F64 } else { clif_type(to)? };
                let value = if from == DType::U64 {
                    self.b.ins().fcvt_from_uint(ty, wide)
                } else {
                    self.b.ins().fcvt_from_sint(ty, wide)
                };
                if half { self.round_half(to, value, true) } else { Ok(value) }
            }
            (true, false) => {
                let ty = clif_type(to)?;
                if to == DType::U64 {
                    return Ok(self.b.ins().fcvt_to_uint_sat(types::I64, a));
                }
                let wide = self.b.ins().fcvt_to_sint_sat(types::I64, a);
                if to == DType::I64 {
                    return Ok(wide);
                }
                let bits = ty.bits();
                let (low, high) = if to.is_signed() {
                    (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
                } else {
                    (0, (1i64 << bits) - 1)
                };
                let (low, high) = (self.b.ins().iconst(types::I64, low), self.b.ins().iconst(types::I64, high));
                let value = self.b.ins().smax(wide, low);
                let value = self.b.ins().smin(value, high);
                self.narrow(value, to)
            }
            (false, false) => {
                let value = self.widen(a, from);
                self.narrow(value, to)
            }
        }
    }
}
