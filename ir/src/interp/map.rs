//! `map`: scalar ops at every element, selects and casts.

use super::Mode;
use super::scalar::{Integer, Rule, boolean, float, integer};
use super::value::{Data, Tensor, plain_data, round, wide, wrap};
use crate::diag::Diagnostic;
use crate::op::ScalarOp;
use crate::types::DType;

/// `op` at every element of operands that fit.
pub(super) fn map(mode: Mode, op: &ScalarOp, args: &[Tensor], result: DType) -> Result<Data, Diagnostic> {
    if let ScalarOp::Cast { to } = op {
        return cast(mode, &args[0], *to);
    }
    if let ScalarOp::Select {} = op {
        return select(args);
    }
    let dtype = args[0].dtype;
    match &*args[0].data {
        Data::Float(x) => {
            let y = args.get(1).map(Tensor::floats).transpose()?.unwrap_or_default();
            apply(op, float(op), x, y, |v| v, Data::Float).map(|d| rounded(mode, result, d))
        }
        Data::Int(x) => {
            let y = args.get(1).map(Tensor::ints).transpose()?.unwrap_or_default();
            let out = |v: Vec<Integer>| Data::Int(v.into_iter().map(Integer::stored).collect());
            apply(op, integer(op), x, y, |v| Integer::new(dtype, v), out)
        }
        Data::Bool(x) => {
            let y = args.get(1).map(Tensor::bools).transpose()?.unwrap_or_default();
            apply(op, boolean(op), x, y, |v| v, Data::Bool)
        }
        Data::Block(_) => Err(no_rule(op, dtype)),
    }
}

/// Runs a rule over stored elements; `read` gives what the rule works on, `wrap` stores its results.
fn apply<S: Copy, T>(
    op: &ScalarOp,
    rule: Rule<T>,
    x: &[S],
    y: &[S],
    read: impl Fn(S) -> T,
    store: impl Fn(Vec<T>) -> Data,
) -> Result<Data, Diagnostic> {
    Ok(match rule {
        Rule::One(f) => store(x.iter().map(|&a| f(read(a))).collect()),
        Rule::Two(f) => store(x.iter().zip(y).map(|(&a, &b)| f(read(a), read(b))).collect()),
        Rule::Test(f) => Data::Bool(x.iter().map(|&a| f(read(a))).collect()),
        Rule::Compare(f) => Data::Bool(x.iter().zip(y).map(|(&a, &b)| f(read(a), read(b))).collect()),
        Rule::None => return Err(Diagnostic::bug(format!("`{}` has no rule for its operands", op.info().name))),
    })
}

fn no_rule(op: &ScalarOp, dtype: DType) -> Diagnostic {
    Diagnostic::bug(format!("`{}` has no rule for {dtype}", op.info().name))
}

/// Rounds floats to their dtype in strict mode.
pub(super) fn rounded(mode: Mode, dtype: DType, data: Data) -> Data {
    match (mode, data) {
        (Mode::Strict, Data::Float(mut v)) => {
            v.iter_mut().for_each(|x| *x = round(dtype, *x));
            Data::Float(v)
        }
        (_, data) => data,
    }
}

fn select(args: &[Tensor]) -> Result<Data, Diagnostic> {
    fn choose<T: Copy>(p: &[bool], y: &[T], z: &[T]) -> Vec<T> {
        p.iter().zip(y.iter().zip(z)).map(|(&p, (&y, &z))| if p { y } else { z }).collect()
    }
    let p = args[0].bools()?;
    match &*args[1].data {
        Data::Float(y) => Ok(Data::Float(choose(p, y, args[2].floats()?))),
        Data::Int(y) => Ok(Data::Int(choose(p, y, args[2].ints()?))),
        Data::Bool(y) => Ok(Data::Bool(choose(p, y, args[2].bools()?))),
        Data::Block(_) => Err(no_rule(&ScalarOp::Select {}, args[1].dtype)),
    }
}

/// Whether every value of `from` is one of the float dtype `to`.
fn holds(to: DType, from: DType) -> bool {
    to == DType::F64 || to == from || (to == DType::F32 && from != DType::F64)
}

/// `x` in another dtype. Integers and block encodings are rounded to a float dtype in both modes.
pub(super) fn cast(mode: Mode, x: &Tensor, to: DType) -> Result<Data, Diagnostic> {
    let from = x.dtype;
    if to.is_float() {
        let mut values: Vec<f64> = match &*x.data {
            Data::Float(v) if mode == Mode::Meaning && holds(to, from) => return Ok(Data::Float(v.clone())),
            Data::Float(v) => v.clone(),
            Data::Int(v) => return Ok(Data::Float(v.iter().map(|&i| from_integer(to, wide(from, i))).collect())),
            Data::Bool(v) => v.iter().map(|&b| f64::from(u8::from(b))).collect(),
            Data::Block(_) => x.dequantised()?,
        };
        values.iter_mut().for_each(|v| *v = round(to, *v));
        return Ok(Data::Float(values));
    }
    if to == DType::Bool {
        return match &*x.data {
            Data::Float(v) => Ok(Data::Bool(v.iter().map(|&f| f != 0.0).collect())),
            Data::Int(v) => Ok(Data::Bool(v.iter().map(|&i| i != 0).collect())),
            Data::Bool(v) => Ok(Data::Bool(v.clone())),
            Data::Block(_) => Err(no_rule(&ScalarOp::Cast { to }, from)),
        };
    }
    match &*x.data {
        Data::Float(v) => Ok(Data::Int(v.iter().map(|&f| saturate(to, f)).collect())),
        Data::Int(v) => Ok(Data::Int(v.iter().map(|&i| wrap(to, wide(from, i))).collect())),
        Data::Bool(v) => Ok(Data::Int(v.iter().map(|&b| i64::from(b)).collect())),
        Data::Block(_) => Err(no_rule(&ScalarOp::Cast { to }, from)),
    }
}

/// One rounding to `to`, although 64 bits do not fit f64.
fn from_integer(to: DType, i: i128) -> f64 {
    if to == DType::F64 {
        return i as f64;
    }
    // Keeps 53 bits and sets the last one if any bit is lost ("round to odd"): then rounding to fewer bits is right.
    let magnitude = i.unsigned_abs();
    let lost = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let kept = (magnitude >> lost) | u128::from(magnitude & ((1 << lost) - 1) != 0);
    let near = libm::ldexp(kept as f64, lost as i32);
    round(to, if i < 0 { -near } else { near })
}

/// Toward zero, to the nearest value of an integer dtype; NaN gives 0.
fn saturate(to: DType, f: f64) -> i64 {
    // `as` truncates, saturates and turns NaN to 0.
    match to {
        DType::I8 => i64::from(f as i8),
        DType::U8 => i64::from(f as u8),
        DType::I16 => i64::from(f as i16),
        DType::U16 => i64::from(f as u16),
        DType::I32 => i64::from(f as i32),
        DType::U32 => i64::from(f as u32),
        DType::U64 => (f as u64) as i64,
        _ => f as i64,
    }
}

/// Copies of plain data at the chosen places.
pub(super) fn pick(x: &Tensor, places: &[usize]) -> Result<Data, Diagnostic> {
    plain_data!(&*x.data, v => places.iter().map(|&p| v[p]).collect())
}
