//! Four f32 at a time: the elementary functions as Cranelift instructions, and the vector forms of scalar ops.

use super::calls;
use super::emitter::{Emitter, is_half};
use super::types::unsupported;
use crate::cpu::poly::{self, Lanes};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Of a vector's bits as another's.
pub(super) const CAST: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

/// Appends instructions on F32X4; masks are I32X4 of 0 and -1.
pub struct Quad<'a, 'b>(pub &'a mut FunctionBuilder<'b>);

impl Quad<'_, '_> {
    /// Truth values as the type of what they choose.
    fn float_mask(&mut self, mask: Value) -> Value {
        self.0.ins().bitcast(types::F32X4, CAST, mask)
    }
    fn shift(&mut self, count: u32) -> Value {
        self.0.ins().iconst(types::I32, i64::from(count))
    }

    /// `rounded` has the digits of an f16; here it gets its range: the infinities above, and steps of 2^-24 below 2^-14.
    fn in_range_of_f16(&mut self, x: Value, rounded: Value) -> Value {
        let size = self.abs(x);
        // The unit of numbers around 0.75 is 2^-24, so a sum with it is a multiple of that.
        let (least, shift) = (self.constant(1.0 / 16384.0), self.constant(0.75));
        let small = self.add(size, shift);
        let small = self.sub(small, shift);
        let (beyond, infinity) = (self.constant(65520.0), self.constant(f32::INFINITY));
        let below = self.lt(size, least);
        let above = self.le(beyond, size);
        let rounded = self.abs(rounded);
        let rounded = self.select(below, small, rounded);
        let rounded = self.select(above, infinity, rounded);
        let (bits, sign) = (self.bits(x), self.int_constant(i32::MIN));
        let sign = self.iand(bits, sign);
        let bits = self.bits(rounded);
        let bits = self.ior(bits, sign);
        self.from_bits(bits)
    }
}

impl Lanes for Quad<'_, '_> {
    type V = Value;
    type I = Value;
    type M = Value;

    fn constant(&mut self, x: f32) -> Value {
        let x = self.0.ins().f32const(x);
        self.0.ins().splat(types::F32X4, x)
    }
    fn add(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fadd(a, b)
    }
    fn sub(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fsub(a, b)
    }
    fn mul(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fmul(a, b)
    }
    fn div(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fdiv(a, b)
    }
    fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.0.ins().fma(a, b, c)
    }
    fn abs(&mut self, a: Value) -> Value {
        self.0.ins().fabs(a)
    }
    fn lt(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fcmp(FloatCC::LessThan, a, b)
    }
    fn le(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fcmp(FloatCC::LessThanOrEqual, a, b)
    }
    fn eq(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().fcmp(FloatCC::Equal, a, b)
    }
    fn select(&mut self, mask: Value, a: Value, b: Value) -> Value {
        let mask = self.float_mask(mask);
        self.0.ins().bitselect(mask, a, b)
    }
    fn bits(&mut self, a: Value) -> Value {
        self.0.ins().bitcast(types::I32X4, CAST, a)
    }
    fn from_bits(&mut self, a: Value) -> Value {
        self.0.ins().bitcast(types::F32X4, CAST, a)
    }
    fn to_float(&mut self, a: Value) -> Value {
        self.0.ins().fcvt_from_sint(types::F32X4, a)
    }
    fn int_constant(&mut self, x: i32) -> Value {
        let x = self.0.ins().iconst(types::I32, i64::from(x) & 0xffff_ffff);
        self.0.ins().splat(types::I32X4, x)
    }
    fn iadd(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().iadd(a, b)
    }
    fn isub(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().isub(a, b)
    }
    fn iand(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().band(a, b)
    }
    fn ior(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().bor(a, b)
    }
    fn ixor(&mut self, a: Value, b: Value) -> Value {
        self.0.ins().bxor(a, b)
    }
    fn shl(&mut self, a: Value, count: u32) -> Value {
        let count = self.shift(count);
        self.0.ins().ishl(a, count)
    }
    fn sshr(&mut self, a: Value, count: u32) -> Value {
        let count = self.shift(count);
        self.0.ins().sshr(a, count)
    }
}

/// Whether an op with these operand and result dtypes has a vector form. Halves are f32 in registers, and rounded by
/// [`Emitter::round_quad`].
pub fn has_vector_form(op: &ScalarOp, args: &[DType], result: DType) -> bool {
    let float = |dtype: DType| dtype == DType::F32 || is_half(dtype);
    let lanes = |dtype: DType| float(dtype) || dtype == DType::Bool;
    let same_kind = !matches!(op, ScalarOp::Cast { .. }) || args.first().is_some_and(|d| float(*d)) || float(result);
    let comparison_of_bools = args.first() == Some(&DType::Bool)
        && !matches!(
            op,
            ScalarOp::And {}
                | ScalarOp::Or {}
                | ScalarOp::Xor {}
                | ScalarOp::Not {}
                | ScalarOp::Select {}
                | ScalarOp::Cast { .. }
        );
    // A choice between truth values is left to the scalar form.
    let chooses_bools = matches!(op, ScalarOp::Select {}) && !float(result);
    same_kind && !comparison_of_bools && !chooses_bools && lanes(result) && args.iter().all(|dtype| lanes(*dtype))
}

impl Emitter<'_> {
    /// An elementary function of four f32.
    pub fn transcendental(&mut self, op: &ScalarOp, x: Value) -> Result<Value, Diagnostic> {
        let mut quad = Quad(&mut self.b);
        let l = &mut quad;
        Ok(match op {
            ScalarOp::Exp {} => poly::exp(l, x),
            ScalarOp::Exp2 {} => poly::exp2(l, x),
            ScalarOp::Expm1 {} => poly::expm1(l, x),
            ScalarOp::Log {} => poly::log(l, x),
            ScalarOp::Log2 {} => poly::log2(l, x),
            ScalarOp::Log1p {} => poly::log1p(l, x),
            ScalarOp::Tanh {} => poly::tanh(l, x),
            ScalarOp::Erf {} => poly::erf(l, x),
            ScalarOp::Sin {} => self.angle(x, true)?,
            ScalarOp::Cos {} => self.angle(x, false)?,
            _ => return Err(unsupported(format!("`{}` as an elementary function", op.info().name))),
        })
    }

    /// sin or cos; lanes beyond the polynomial's range are replaced by calls, rarely.
    fn angle(&mut self, x: Value, sine: bool) -> Result<Value, Diagnostic> {
        let mut quad = Quad(&mut self.b);
        let y = if sine { poly::sin(&mut quad, x) } else { poly::cos(&mut quad, x) };
        let (size, limit) = (quad.abs(x), quad.constant(poly::TRIG_LIMIT));
        let beyond = quad.lt(limit, size);
        let any = self.b.ins().vany_true(beyond);
        let result = self.b.declare_var(types::F32X4);
        self.b.def_var(result, y);
        let any_of = if sine { poly::sin_any } else { poly::cos_any } as extern "C" fn(f32) -> f32 as usize;
        self.when(any, |e| {
            let mut slow = y;
            for lane in 0..4u8 {
                let x = e.b.ins().extractlane(x, lane);
                let value = e
                    .call(any_of, &[x], Some(types::F32))
                    .ok_or_else(|| Diagnostic::bug("a function call without result"))?;
                slow = e.b.ins().insertlane(slow, value, lane);
            }
            let mask = e.b.ins().bitcast(types::F32X4, CAST, beyond);
            let chosen = e.b.ins().bitselect(mask, slow, y);
            e.b.def_var(result, chosen);
            Ok(())
        })?;
        Ok(self.b.use_var(result))
    }

    /// The vector form of an op, see [`has_vector_form`].
    pub fn vector_op(&mut self, op: &ScalarOp, from: DType, args: &[Value]) -> Result<Value, Diagnostic> {
        let (a, b) = match args {
            [a] => (*a, *a),
            [a, b] | [a, b, _] => (*a, *b),
            _ => return Err(Diagnostic::bug("operands of a vector op")),
        };
        let mut quad = Quad(&mut self.b);
        let l = &mut quad;
        Ok(match op {
            ScalarOp::Add {} => l.add(a, b),
            ScalarOp::Sub {} => l.sub(a, b),
            ScalarOp::Mul {} => l.mul(a, b),
            ScalarOp::Div {} => l.div(a, b),
            ScalarOp::Max {} => self.b.ins().fmax(a, b),
            ScalarOp::Min {} => self.b.ins().fmin(a, b),
            ScalarOp::Neg {} => self.b.ins().fneg(a),
            ScalarOp::Abs {} => l.abs(a),
            ScalarOp::Sign {} => {
                let (zero, one, minus) = (l.constant(0.0), l.constant(1.0), l.constant(-1.0));
                let (above, below) = (l.lt(zero, a), l.lt(a, zero));
                let rest = l.select(below, minus, a);
                l.select(above, one, rest)
            }
            ScalarOp::Floor {} => self.b.ins().floor(a),
            ScalarOp::Ceil {} => self.b.ins().ceil(a),
            ScalarOp::Round {} => self.b.ins().nearest(a),
            ScalarOp::Trunc {} => self.b.ins().trunc(a),
            ScalarOp::Sqrt {} => self.b.ins().sqrt(a),
            ScalarOp::Rsqrt {} => {
                let one = l.constant(1.0);
                let root = l.0.ins().sqrt(a);
                l.div(one, root)
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
            | ScalarOp::Cos {} => self.transcendental(op, a)?,
            ScalarOp::Pow {} => self.lane_calls(calls::pow_float(false), a, b)?,
            ScalarOp::Rem {} => self.lane_calls(calls::rem_float(false), a, b)?,
            ScalarOp::Eq {} => l.eq(a, b),
            ScalarOp::Ne {} => self.b.ins().fcmp(FloatCC::NotEqual, a, b),
            ScalarOp::Lt {} => l.lt(a, b),
            ScalarOp::Le {} => l.le(a, b),
            ScalarOp::Gt {} => l.lt(b, a),
            ScalarOp::Ge {} => l.le(b, a),
            ScalarOp::And {} => l.iand(a, b),
            ScalarOp::Or {} => l.ior(a, b),
            ScalarOp::Xor {} => l.ixor(a, b),
            ScalarOp::Not {} => self.b.ins().bnot(a),
            ScalarOp::IsNan {} => self.b.ins().fcmp(FloatCC::Unordered, a, a),
            ScalarOp::Select {} => {
                let c = *args.get(2).ok_or_else(|| Diagnostic::bug("select without a third operand"))?;
                l.select(a, b, c)
            }
            ScalarOp::Cast { to } => match (from, to) {
                (DType::Bool, _float) => {
                    let (one, zero) = (l.constant(1.0), l.constant(0.0));
                    l.select(a, one, zero)
                }
                (_float, DType::Bool) => {
                    let zero = l.constant(0.0);
                    self.b.ins().fcmp(FloatCC::NotEqual, a, zero)
                }
                _ => a,
            },
            ScalarOp::Shl {} | ScalarOp::Shr {} => return Err(Diagnostic::bug("a shift of floats")),
        })
    }

    /// Four f32 rounded to a half float, to nearest, ties to even, and kept as f32; a NaN stays one, quiet.
    pub fn round_quad(&mut self, dtype: DType, x: Value) -> Value {
        let mut quad = Quad(&mut self.b);
        let l = &mut quad;
        // Digits that go: the last one that stays decides ties.
        let gone = if dtype == DType::Bf16 { 16 } else { 13 };
        let bits = l.bits(x);
        let (one, below) = (l.int_constant(1), l.int_constant((1 << (gone - 1)) - 1));
        let (kept, quiet) = (l.int_constant(-1 << gone), l.int_constant(0x0040_0000));
        let last = l.sshr(bits, gone);
        let last = l.iand(last, one);
        let up = l.iadd(last, below);
        let near = l.iadd(bits, up);
        let near = l.iand(near, kept);
        let mut rounded = l.from_bits(near);
        if dtype == DType::F16 {
            rounded = l.in_range_of_f16(x, rounded);
        }
        let nan = l.ior(bits, quiet);
        let nan = l.iand(nan, kept);
        let nan = l.from_bits(nan);
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        Quad(&mut self.b).select(unordered, nan, rounded)
    }

    fn lane_calls(&mut self, function: usize, a: Value, b: Value) -> Result<Value, Diagnostic> {
        let mut result = a;
        for lane in 0..4u8 {
            let (x, y) = (self.b.ins().extractlane(a, lane), self.b.ins().extractlane(b, lane));
            let value = self
                .call(function, &[x, y], Some(types::F32))
                .ok_or_else(|| Diagnostic::bug("a function call without result"))?;
            result = self.b.ins().insertlane(result, value, lane);
        }
        Ok(result)
    }
}
