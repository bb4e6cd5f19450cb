//! C types of dtypes, literals, casts and the scalar table.

use super::{invalid, unsupported};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// The C type in memory; f16 and bf16 are raw bits there.
pub(super) fn stored(d: DType) -> Result<&'static str, Diagnostic> {
    Ok(match d {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16 | DType::Bf16 | DType::U16 => "unsigned short",
        DType::I8 => "signed char",
        DType::U8 => "unsigned char",
        DType::I16 => "short",
        DType::I32 => "int",
        DType::U32 => "unsigned int",
        DType::I64 => "long long",
        DType::U64 => "unsigned long long",
        DType::Bool => "bool",
        DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => {
            return Err(unsupported(format!("buffers of the block encoding {d}")));
        }
    })
}

/// The C type in registers; f16 and bf16 values are rounded floats there.
pub(super) fn computed(d: DType) -> Result<&'static str, Diagnostic> {
    match d {
        DType::F16 | DType::Bf16 => Ok("float"),
        _ => stored(d),
    }
}

/// Reads an element of memory.
pub(super) fn read(d: DType, place: String) -> String {
    match d {
        DType::F16 => format!("f16_to_f32({place})"),
        DType::Bf16 => format!("bf16_to_f32({place})"),
        _ => place,
    }
}

/// The bits of a value for memory.
pub(super) fn write(d: DType, value: String) -> String {
    // A value that was just rounded has its bits already.
    let inner = |call: &str| {
        value.strip_prefix(call).filter(|v| super::value::bare(v) != *v).map(|v| super::value::bare(v).to_string())
    };
    match d {
        DType::F16 if inner("f16_to_f32").is_some() => inner("f16_to_f32").unwrap_or_default(),
        DType::Bf16 if inner("bf16_to_f32").is_some() => inner("bf16_to_f32").unwrap_or_default(),
        DType::F16 => format!("f32_to_f16({value})"),
        DType::Bf16 => format!("f32_to_bf16({value})"),
        _ => value,
    }
}

/// Rounds a float result to a 16-bit dtype.
fn rounded(d: DType, value: String) -> String {
    match d {
        DType::F16 | DType::Bf16 => read(d, write(d, value)),
        _ => value,
    }
}

/// A literal of a dtype.
pub(super) fn literal(d: DType, x: f64) -> Result<String, Diagnostic> {
    if d == DType::Bool {
        return Ok(if x != 0.0 { "true" } else { "false" }.to_string());
    }
    if d.is_float() {
        let double = d == DType::F64;
        if x.is_nan() || x.is_infinite() {
            let name = if x.is_nan() { "NAN" } else { "INFINITY" };
            let sign = if x == f64::NEG_INFINITY { "-" } else { "" };
            return Ok(format!("{sign}{name}_{}", if double { "F64" } else { "F32" }));
        }
        let text = if double { format!("{x:?}") } else { format!("{:?}f", x as f32) };
        return Ok(rounded(d, if x < 0.0 { format!("({text})") } else { text }));
    }
    Err(invalid(format!("expected an integer for {d}, found the float {x}")))
}

/// An integer literal in the dtype of its context.
pub(super) fn integer(d: DType, n: i64) -> Result<String, Diagnostic> {
    if d.is_float() || d == DType::Bool {
        return literal(d, n as f64);
    }
    if n == i64::MIN {
        return Ok("(-9223372036854775807LL - 1)".to_string());
    }
    // An unsigned number beyond int is told from a negative one by its type only.
    if d == DType::U64 && !(0..=i64::from(i32::MAX)).contains(&n) {
        return Ok(format!("{}ULL", n.cast_unsigned()));
    }
    if d == DType::U32 && !(0..=i64::from(i32::MAX)).contains(&n) {
        return Ok(format!("{}U", n as u32));
    }
    let wide = i32::try_from(n).is_err();
    let text = format!("{n}{}", if wide { "LL" } else { "" });
    Ok(if n < 0 { format!("({text})") } else { text })
}

/// The value converted.
pub(super) fn cast(from: DType, to: DType, x: String) -> Result<String, Diagnostic> {
    if from == to {
        return Ok(x);
    }
    let ty = computed(to)?;
    computed(from)?;
    if to == DType::Bool {
        return Ok(format!("({x} != 0)"));
    }
    if from.is_float() && to.is_int() {
        let (low, high) = int_bounds(to);
        return Ok(format!("float_to_int<{ty}>({x}, {low}, {high})"));
    }
    // Through f32 these would round twice. An integer that f32 does not hold is infinite in f16 anyway.
    let narrow = matches!(from, DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::Bool);
    let exact = match (from, to) {
        (DType::F64, DType::F16 | DType::Bf16) => Some("double_to_odd"),
        (_, DType::Bf16) if !from.is_float() && !narrow => Some("int_to_odd"),
        (_, _) => None,
    };
    if let Some(f) = exact {
        return Ok(rounded(to, format!("{f}({})", super::value::bare(&x))));
    }
    if computed(from)? == ty {
        return Ok(rounded(to, x));
    }
    Ok(rounded(to, format!("({ty}){x}")))
}

/// Smallest and largest value as C.
pub(super) fn int_bounds(d: DType) -> (String, String) {
    let bits = 8 * d.block().1 as u32;
    let bits = bits.clamp(8, 64);
    if d.is_unsigned() {
        return ("0".to_string(), format!("{}ULL", u64::MAX >> (64 - bits)));
    }
    let high = i64::MAX >> (64 - bits);
    (format!("(-{high}LL - 1)"), format!("{high}LL"))
}

/// A scalar op on operands of dtype `d` (for comparisons: of the operands), every operand already C.
pub(super) fn apply(op: &ScalarOp, d: DType, a: &[String]) -> Result<String, Diagnostic> {
    let [x, y] = match a {
        [x] => [x.as_str(), ""],
        [x, y] => [x.as_str(), y.as_str()],
        _ => return Err(invalid("expected one or two operands")),
    };
    if let Some(text) = compare(op, d, x, y) {
        return Ok(text);
    }
    if d.is_float() {
        return Ok(rounded(d, float(op, d, x, y)?));
    }
    integer_op(op, d, x, y)
}

fn compare(op: &ScalarOp, d: DType, x: &str, y: &str) -> Option<String> {
    let sign = match op {
        ScalarOp::Eq {} => "==",
        ScalarOp::Ne {} => "!=",
        ScalarOp::Lt {} => "<",
        ScalarOp::Le {} => "<=",
        ScalarOp::Gt {} => ">",
        ScalarOp::Ge {} => ">=",
        ScalarOp::IsNan {} if d.is_float() => return Some(format!("is_nan({x})")),
        ScalarOp::IsNan {} => return Some("false".to_string()),
        _ => return None,
    };
    Some(format!("({x} {sign} {y})"))
}

fn float(op: &ScalarOp, d: DType, x: &str, y: &str) -> Result<String, Diagnostic> {
    let f = if d == DType::F64 { "" } else { "f" };
    let infix = |sign: &str| format!("({x} {sign} {y})");
    let call = |name: &str| format!("{name}{f}({})", super::value::bare(x));
    Ok(match op {
        ScalarOp::Add {} => infix("+"),
        ScalarOp::Sub {} => infix("-"),
        ScalarOp::Mul {} => infix("*"),
        ScalarOp::Div {} => infix("/"),
        ScalarOp::Rem {} => format!("fmod{f}({x}, {y})"),
        ScalarOp::Pow {} => format!("pow{f}({x}, {y})"),
        ScalarOp::Max {} => format!("max_of({x}, {y})"),
        ScalarOp::Min {} => format!("min_of({x}, {y})"),
        ScalarOp::Neg {} => format!("(-{x})"),
        ScalarOp::Abs {} => call("fabs"),
        ScalarOp::Sign {} => format!("sign_of({x})"),
        ScalarOp::Floor {} => call("floor"),
        ScalarOp::Ceil {} => call("ceil"),
        ScalarOp::Round {} => call("rint"),
        ScalarOp::Trunc {} => call("trunc"),
        ScalarOp::Sqrt {} => call("sqrt"),
        ScalarOp::Rsqrt {} => call("rsqrt"),
        ScalarOp::Exp {} => call("exp"),
        ScalarOp::Exp2 {} => call("exp2"),
        ScalarOp::Expm1 {} => call("expm1"),
        ScalarOp::Log {} => call("log"),
        ScalarOp::Log2 {} => call("log2"),
        ScalarOp::Log1p {} => call("log1p"),
        ScalarOp::Tanh {} => call("tanh"),
        ScalarOp::Erf {} => call("erf"),
        ScalarOp::Sin {} => call("sin"),
        ScalarOp::Cos {} => call("cos"),
        _ => return Err(invalid(format!("`{op:?}` has no meaning for {d}"))),
    })
}

fn integer_op(op: &ScalarOp, d: DType, x: &str, y: &str) -> Result<String, Diagnostic> {
    let ty = computed(d)?;
    let logical = d == DType::Bool;
    // Signed overflow is undefined in C; unsigned arithmetic wraps.
    let wide = if d.block().1 == 8 { "unsigned long long" } else { "unsigned int" };
    let wrap = |sign: &str| format!("({ty})(({wide}){x} {sign} ({wide}){y})");
    Ok(match op {
        ScalarOp::And {} => format!("({ty})({x} & {y})"),
        ScalarOp::Or {} => format!("({ty})({x} | {y})"),
        ScalarOp::Xor {} => format!("({ty})({x} ^ {y})"),
        ScalarOp::Not {} if logical => format!("(!{x})"),
        ScalarOp::Max {} => format!("max_of<{ty}>({x}, {y})"),
        ScalarOp::Min {} => format!("min_of<{ty}>({x}, {y})"),
        _ if logical => return Err(invalid(format!("`{op:?}` has no meaning for bool"))),
        ScalarOp::Not {} => format!("({ty})(~{x})"),
        ScalarOp::Add {} => wrap("+"),
        ScalarOp::Sub {} => wrap("-"),
        ScalarOp::Mul {} => wrap("*"),
        ScalarOp::Div {} => format!("int_div<{ty}>({x}, {y})"),
        ScalarOp::Rem {} => format!("int_rem<{ty}>({x}, {y})"),
        ScalarOp::Pow {} => format!("int_pow<{ty}, {wide}>({x}, {y})"),
        ScalarOp::Shl {} => format!("int_shl<{ty}, {wide}>({x}, {y})"),
        ScalarOp::Shr {} => format!("int_shr<{ty}>({x}, {y})"),
        ScalarOp::Neg {} => format!("({ty})(0 - ({wide}){x})"),
        ScalarOp::Abs {} => format!("({x} < 0 ? ({ty})(0 - ({wide}){x}) : {x})"),
        ScalarOp::Sign {} => format!("({ty})(({x} > 0) - ({x} < 0))"),
        ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => x.to_string(),
        _ => return Err(invalid(format!("`{op:?}` has no meaning for {d}"))),
    })
}
