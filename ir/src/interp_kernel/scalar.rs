//! Scalar ops on f64, i64 and bool.

use super::failed;
use super::value::Scalar;
use crate::diag::Diagnostic;
use crate::op::ScalarOp;
use crate::types::DType;

/// `op` of its operands; integers among floats become floats.
pub(super) fn apply(op: &ScalarOp, args: &[Scalar]) -> Result<Scalar, Diagnostic> {
    let wrong = || {
        let kinds: Vec<&str> = args.iter().map(|a| a.kind()).collect();
        failed(format!("`{}` has no meaning on {}", op.info().name, kinds.join(", ")))
    };
    match (op, args) {
        (ScalarOp::Cast { to }, [x]) => return Ok(cast(*to, *x)),
        (ScalarOp::Select {}, [Scalar::Bool(p), a, b]) => {
            let chosen = if *p { *a } else { *b };
            let float = matches!(a, Scalar::Float(_)) || matches!(b, Scalar::Float(_));
            return Ok(match chosen {
                Scalar::Int(x) if float => Scalar::Float(x as f64),
                Scalar::Int(_) | Scalar::Float(_) | Scalar::Bool(_) => chosen,
            });
        }
        (_, _) => {}
    }
    if args.iter().all(|a| matches!(a, Scalar::Int(_))) {
        let v: Vec<i64> = args.iter().map(|a| if let Scalar::Int(x) = a { *x } else { 0 }).collect();
        return int(op, &v).ok_or_else(wrong);
    }
    if args.iter().all(|a| matches!(a, Scalar::Bool(_))) {
        let v: Vec<bool> = args.iter().map(|a| *a == Scalar::Bool(true)).collect();
        return boolean(op, &v).ok_or_else(wrong);
    }
    let mut v = Vec::with_capacity(args.len());
    for a in args {
        v.push(match a {
            Scalar::Float(x) => *x,
            Scalar::Int(x) => *x as f64,
            Scalar::Bool(_) => return Err(wrong()),
        });
    }
    float(op, &v).ok_or_else(wrong)
}

fn cast(to: DType, x: Scalar) -> Scalar {
    let as_float = match x {
        Scalar::Float(v) => v,
        Scalar::Int(v) => v as f64,
        Scalar::Bool(v) => f64::from(u8::from(v)),
    };
    if to == DType::Bool {
        return Scalar::Bool(as_float != 0.0);
    }
    if to.is_float() || to.is_block() {
        return Scalar::Float(as_float);
    }
    Scalar::Int(match (x, to) {
        (Scalar::Float(v), DType::I8) => (v as i8).into(),
        (Scalar::Float(v), DType::U8) => (v as u8).into(),
        (Scalar::Float(v), DType::I16) => (v as i16).into(),
        (Scalar::Float(v), DType::U16) => (v as u16).into(),
        (Scalar::Float(v), DType::I32) => (v as i32).into(),
        (Scalar::Float(v), DType::U32) => (v as u32).into(),
        (Scalar::Float(v), DType::U64) => (v as u64).cast_signed(),
        (Scalar::Float(v), _) => v as i64,
        (Scalar::Bool(v), _) => v.into(),
        (Scalar::Int(v), DType::I8) => (v as i8).into(),
        (Scalar::Int(v), DType::U8) => (v as u8).into(),
        (Scalar::Int(v), DType::I16) => (v as i16).into(),
        (Scalar::Int(v), DType::U16) => (v as u16).into(),
        (Scalar::Int(v), DType::I32) => (v as i32).into(),
        (Scalar::Int(v), DType::U32) => (v as u32).into(),
        (Scalar::Int(v), _) => v,
    })
}

fn int(op: &ScalarOp, v: &[i64]) -> Option<Scalar> {
    let (a, b) = (*v.first()?, v.get(1).copied().unwrap_or(0));
    let shift = u32::try_from(b).ok().filter(|s| *s < 64);
    Some(Scalar::Int(match op {
        ScalarOp::Add {} => a.wrapping_add(b),
        ScalarOp::Sub {} => a.wrapping_sub(b),
        ScalarOp::Mul {} => a.wrapping_mul(b),
        ScalarOp::Div {} => {
            if b == 0 {
                0
            } else {
                a.wrapping_div(b)
            }
        }
        ScalarOp::Rem {} => {
            if b == 0 {
                0
            } else {
                a.wrapping_rem(b)
            }
        }
        ScalarOp::Max {} => a.max(b),
        ScalarOp::Min {} => a.min(b),
        ScalarOp::Neg {} => a.wrapping_neg(),
        ScalarOp::Abs {} => a.wrapping_abs(),
        ScalarOp::Sign {} => a.signum(),
        ScalarOp::Floor {} | ScalarOp::Ceil {} | ScalarOp::Round {} | ScalarOp::Trunc {} => a,
        ScalarOp::And {} => a & b,
        ScalarOp::Or {} => a | b,
        ScalarOp::Xor {} => a ^ b,
        ScalarOp::Not {} => !a,
        ScalarOp::Shl {} => shift.map_or(0, |s| a << s),
        ScalarOp::Shr {} => shift.map_or(if a < 0 { -1 } else { 0 }, |s| a >> s),
        ScalarOp::Pow {} => match u32::try_from(b) {
            Ok(n) => a.wrapping_pow(n),
            Err(_) if b > 0 => return None,
            Err(_) => {
                if a == 1 {
                    1
                } else if a == -1 {
                    if b % 2 == 0 { 1 } else { -1 }
                } else {
                    0
                }
            }
        },
        ScalarOp::Eq {} => return Some(Scalar::Bool(a == b)),
        ScalarOp::Ne {} => return Some(Scalar::Bool(a != b)),
        ScalarOp::Lt {} => return Some(Scalar::Bool(a < b)),
        ScalarOp::Le {} => return Some(Scalar::Bool(a <= b)),
        ScalarOp::Gt {} => return Some(Scalar::Bool(a > b)),
        ScalarOp::Ge {} => return Some(Scalar::Bool(a >= b)),
        ScalarOp::IsNan {} => return Some(Scalar::Bool(false)),
        // a literal such as `sqrt(2)` is a float
        ScalarOp::Sqrt {} | ScalarOp::Rsqrt {} | ScalarOp::Exp {} | ScalarOp::Exp2 {} | ScalarOp::Expm1 {} => {
            return float(op, &[a as f64]);
        }
        ScalarOp::Log {} | ScalarOp::Log2 {} | ScalarOp::Log1p {} | ScalarOp::Tanh {} | ScalarOp::Erf {} => {
            return float(op, &[a as f64]);
        }
        ScalarOp::Sin {} | ScalarOp::Cos {} => return float(op, &[a as f64]),
        ScalarOp::Select {} | ScalarOp::Cast { .. } => return None,
    }))
}

fn boolean(op: &ScalarOp, v: &[bool]) -> Option<Scalar> {
    let (a, b) = (*v.first()?, v.get(1).copied().unwrap_or(false));
    Some(Scalar::Bool(match op.info().name {
        "and" => a && b,
        "or" => a || b,
        "xor" | "ne" => a != b,
        "eq" => a == b,
        "not" => !a,
        "lt" => !a && b,
        "le" => !a || b,
        "gt" => a && !b,
        "ge" => a || !b,
        "max" => a || b,
        "min" => a && b,
        _ => return None,
    }))
}

fn float(op: &ScalarOp, v: &[f64]) -> Option<Scalar> {
    let (a, b) = (*v.first()?, v.get(1).copied().unwrap_or(0.0));
    Some(Scalar::Float(match op {
        ScalarOp::Add {} => a + b,
        ScalarOp::Sub {} => a - b,
        ScalarOp::Mul {} => a * b,
        ScalarOp::Div {} => a / b,
        ScalarOp::Rem {} => a % b,
        ScalarOp::Pow {} => a.powf(b),
        ScalarOp::Max {} => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.max(b)
            }
        }
        ScalarOp::Min {} => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.min(b)
            }
        }
        ScalarOp::Neg {} => -a,
        ScalarOp::Abs {} => a.abs(),
        ScalarOp::Sign {} => {
            if a == 0.0 || a.is_nan() {
                a
            } else {
                a.signum()
            }
        }
        ScalarOp::Floor {} => a.floor(),
        ScalarOp::Ceil {} => a.ceil(),
        ScalarOp::Round {} => a.round_ties_even(),
        ScalarOp::Trunc {} => a.trunc(),
        ScalarOp::Sqrt {} => a.sqrt(),
        ScalarOp::Rsqrt {} => 1.0 / a.sqrt(),
        ScalarOp::Exp {} => a.exp(),
        ScalarOp::Exp2 {} => a.exp2(),
        ScalarOp::Expm1 {} => a.exp_m1(),
        ScalarOp::Log {} => a.ln(),
        ScalarOp::Log2 {} => a.log2(),
        ScalarOp::Log1p {} => a.ln_1p(),
        ScalarOp::Tanh {} => a.tanh(),
        ScalarOp::Erf {} => libm::erf(a),
        ScalarOp::Sin {} => a.sin(),
        ScalarOp::Cos {} => a.cos(),
        ScalarOp::Eq {} => return Some(Scalar::Bool(a == b)),
        ScalarOp::Ne {} => return Some(Scalar::Bool(a != b)),
        ScalarOp::Lt {} => return Some(Scalar::Bool(a < b)),
        ScalarOp::Le {} => return Some(Scalar::Bool(a <= b)),
        ScalarOp::Gt {} => return Some(Scalar::Bool(a > b)),
        ScalarOp::Ge {} => return Some(Scalar::Bool(a >= b)),
        ScalarOp::IsNan {} => return Some(Scalar::Bool(a.is_nan())),
        ScalarOp::And {} | ScalarOp::Or {} | ScalarOp::Xor {} | ScalarOp::Not {} => return None,
        ScalarOp::Shl {} | ScalarOp::Shr {} | ScalarOp::Select {} | ScalarOp::Cast { .. } => return None,
    }))
}
