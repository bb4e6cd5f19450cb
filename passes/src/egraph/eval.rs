//! Evaluates patterns as scalar functions of named axes in f64, with a first-order bound of the rounding error: the
//! checker's independent idea of what each head means.

use super::lang::{Fold, Head};
use super::term::Term;
use super::typing::Typing;
use super::widths::{epsilon, is_half, rounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::op::{ScalarKind, ScalarOp};
use tilewright_ir::types::DType;

/// A position along an axis in its dtype, in which a long axis wraps or rounds.
fn position(dtype: Option<DType>, at: usize) -> f64 {
    let wide = at as i64;
    match dtype {
        Some(DType::Bool) => f64::from(u8::from(at != 0)),
        Some(DType::I8) => f64::from(wide as i8),
        Some(DType::U8) => f64::from(wide as u8),
        Some(DType::I16) => f64::from(wide as i16),
        Some(DType::U16) => f64::from(wide as u16),
        Some(narrow) => rounded(narrow, wide as f64),
        None => wide as f64,
    }
}

/// A value with a bound of its rounding error, in units of the machine epsilon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded {
    pub value: f64,
    pub error: f64,
}

impl Bounded {
    pub fn exact(value: f64) -> Bounded {
        Bounded { value, error: 0.0 }
    }

    /// The result of one rounded operation whose operands carried `error` into it.
    fn rounded(value: f64, error: f64) -> Bounded {
        Bounded { value, error: error + value.abs() }
    }

    fn truth(value: bool) -> Bounded {
        Bounded::exact(f64::from(u8::from(value)))
    }
}

/// Data of a value variable: one number per point of the axes it depends on.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Per axis: whether the variable depends on it.
    pub depends: Vec<bool>,
    /// Row-major over those axes.
    pub data: Vec<f64>,
}

/// Everything a pattern is evaluated in.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// Sizes of the axes.
    pub extents: Vec<usize>,
    /// Axis variables.
    pub axes: BTreeMap<Arc<str>, usize>,
    /// Value variables.
    pub values: BTreeMap<Arc<str>, Table>,
    /// Element types of terms.
    pub typing: Typing,
}

impl World {
    fn axis(&self, term: Option<&Term>) -> Result<usize, String> {
        match term {
            Some(Term::Variable(name)) => self.axes.get(name).copied().ok_or_else(|| format!("`?{name}` is no axis")),
            Some(Term::Number(_) | Term::Own(_) | Term::Apply(..)) | None => Err("an axis must be a variable".into()),
        }
    }

    /// The value of a variable at a point; tables hold one number even for empty axes.
    fn lookup(&self, table: &Table, point: &[usize]) -> f64 {
        let mut at = 0;
        for (axis, extent) in self.extents.iter().enumerate() {
            if table.depends.get(axis) == Some(&true) {
                at = at * (*extent).max(1) + point.get(axis).copied().unwrap_or(0);
            }
        }
        table.data.get(at).copied().unwrap_or(f64::NAN)
    }

    /// The type of a term whose values are rounded.
    fn narrow(&self, term: &Term) -> Option<DType> {
        // Casts round by themselves.
        if self.typing.is_wide() { None } else { self.typing.of(term).ok() }
    }

    /// The value of `term` at `point`. `Err` names what has no meaning here.
    pub fn eval(&self, term: &Term, point: &mut Vec<usize>) -> Result<Bounded, String> {
        let (head, args) = match term {
            Term::Number(value) => return Ok(Bounded::exact(*value)),
            Term::Variable(name) => {
                let table = self.values.get(name).ok_or_else(|| format!("`?{name}` is no value"))?;
                return Ok(Bounded::exact(self.lookup(table, point)));
            }
            Term::Own(x) => return Ok(stored(Some(self.typing.own), self.eval(x, point)?)),
            Term::Apply(head, args) => (head, args),
        };
        let dtype = self.narrow(term);
        match (head, args.as_slice()) {
            (Head::Scalar(ScalarOp::Cast { to }), [x]) if to.is_float() => Ok(stored(Some(*to), self.eval(x, point)?)),
            (Head::Scalar(op), _) => {
                let args = args.iter().map(|a| self.eval(a, point)).collect::<Result<Vec<_>, _>>()?;
                Ok(stored(dtype, scalar(op.kind(), &args)?))
            }
            (Head::Iota, _) => {
                let axis = self.axis(args.first())?;
                let dtype = match args.first() {
                    Some(Term::Variable(name)) => self.typing.position(name),
                    _no_axis => None,
                };
                Ok(Bounded::exact(position(dtype, point.get(axis).copied().unwrap_or(0))))
            }
            (Head::Extent, _) => {
                let axis = self.axis(args.first())?;
                Ok(Bounded::exact(self.extents.get(axis).copied().unwrap_or(0) as f64))
            }
            (Head::Fold(kind), _) => self.fold(*kind, args, dtype, point),
            (Head::Load | Head::Gather | Head::At | Head::Attr(_), _) => {
                Err(format!("the checker does not evaluate `{head}`"))
            }
        }
    }

    fn fold(&self, kind: Fold, args: &[Term], dtype: Option<DType>, point: &mut Vec<usize>) -> Result<Bounded, String> {
        let axis = self.axis(args.first())?;
        let extent = self.extents.get(axis).copied().unwrap_or(0);
        let before = point.get(axis).copied().unwrap_or(0);
        let mut rows = Vec::with_capacity(extent);
        let mut result = Ok(());
        for position in 0..extent {
            if let Some(slot) = point.get_mut(axis) {
                *slot = position;
            }
            match args.iter().skip(1).map(|a| self.eval(a, point)).collect::<Result<Vec<_>, _>>() {
                Ok(row) => rows.push(row),
                Err(message) => result = Err(message),
            }
        }
        if let Some(slot) = point.get_mut(axis) {
            *slot = before;
        }
        result?;
        // Folds of halves run in f32 and round once.
        let inside = dtype.map(|d| if is_half(d) { DType::F32 } else { d });
        Ok(stored(dtype, fold_rows(kind, &rows, inside)?))
    }
}

/// A fold whose steps are rounded to a dtype, where one is given.
pub(super) fn fold_rows(kind: Fold, rows: &[Vec<Bounded>], dtype: Option<DType>) -> Result<Bounded, String> {
    let chain = |op: ScalarKind, start: f64| {
        rows.iter().try_fold(Bounded::exact(start), |acc, row| match row.first() {
            Some(x) => Ok(stored(dtype, scalar(op, &[acc, *x])?)),
            None => Err("a fold has no body".into()),
        })
    };
    let pairs = |skip: usize, keep: &dyn Fn(&[Bounded]) -> bool| -> Vec<(Bounded, Bounded)> {
        let kept = rows.iter().filter(|row| keep(row));
        kept.filter_map(|row| Some((*row.get(skip)?, *row.get(skip + 1)?))).collect()
    };
    match kind {
        // -0 is what changes no number: only the sum of nothing is +0.
        Fold::Sum => chain(ScalarKind::Add, if rows.is_empty() { 0.0 } else { -0.0 }),
        Fold::Prod => chain(ScalarKind::Mul, 1.0),
        Fold::Max => chain(ScalarKind::Max, f64::NEG_INFINITY),
        Fold::Min => chain(ScalarKind::Min, f64::INFINITY),
        Fold::Esum => Ok(online(&pairs(0, &|_| true), rows.is_empty())),
        Fold::EsumIf => {
            let holds = |row: &[Bounded]| row.first().is_some_and(|p| p.value != 0.0);
            Ok(online(&pairs(1, &holds), rows.is_empty()))
        }
        Fold::M2 => Ok(chan(&rows.iter().filter_map(|row| row.first().copied()).collect::<Vec<_>>())),
    }
}

/// One pass over (score, weight): running maximum and rescaled sum. A row without any finite score is NaN, as in the
/// two-pass form; nothing at all is 0.
fn online(rows: &[(Bounded, Bounded)], empty: bool) -> Bounded {
    let (mut max, mut sum, mut error) = (f64::NEG_INFINITY, 0.0f64, 0.0f64);
    for (score, weight) in rows {
        if score.value == f64::NEG_INFINITY {
            continue;
        }
        let next = if score.value.is_nan() { f64::NAN } else { max.max(score.value) };
        let keep = if max == f64::NEG_INFINITY { 0.0 } else { (max - next).exp() };
        let term = (score.value - next).exp() * weight.value;
        sum = sum * keep + term;
        // The argument of exp carries the rounding of its difference.
        let argument = 2.0 * score.error + (score.value - next).abs() + score.value.abs() + 2.0;
        error = error * keep + term.abs() * argument + (score.value - next).exp() * weight.error + sum.abs();
        max = if max.is_nan() { max } else { next };
    }
    match max == f64::NEG_INFINITY && !empty {
        true => Bounded::exact(f64::NAN),
        false => Bounded { value: sum, error },
    }
}

/// Chan's running (count, mean, squared distances), one value at a time.
fn chan(rows: &[Bounded]) -> Bounded {
    let (mut count, mut mean, mut m2, mut squares, mut carried) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for x in rows {
        count += 1.0;
        let distance = x.value - mean;
        mean += distance / count;
        m2 += distance * (x.value - mean);
        squares += x.value * x.value;
        carried += 4.0 * x.value.abs() * x.error;
    }
    Bounded::rounded(m2, count * squares + carried)
}

/// A value as its dtype holds it; of a dtype that is not known, as it is.
fn stored(dtype: Option<DType>, x: Bounded) -> Bounded {
    let Some(dtype) = dtype.filter(|d| is_half(*d) || *d == DType::F32) else { return x };
    let value = rounded(dtype, x.value);
    Bounded { value, error: x.error + value.abs() * (epsilon(dtype) / f64::EPSILON) }
}

/// One scalar op. Derivatives bound what operand errors do; comparisons are taken as they come.
pub(super) fn scalar(kind: ScalarKind, args: &[Bounded]) -> Result<Bounded, String> {
    use ScalarKind as K;
    let nothing = Bounded::exact(0.0);
    let of = |i: usize| args.get(i).copied().unwrap_or(nothing);
    let (a, b, c) = (of(0), of(1), of(2));
    let (x, y) = (a.value, b.value);
    Ok(match kind {
        K::Add => Bounded::rounded(x + y, a.error + b.error),
        K::Sub => Bounded::rounded(x - y, a.error + b.error),
        K::Mul => Bounded::rounded(x * y, x.abs() * b.error + y.abs() * a.error),
        K::Div => Bounded::rounded(x / y, a.error / y.abs() + (x / y).abs() * b.error / y.abs()),
        K::Rem => Bounded::rounded(x % y, a.error + b.error),
        K::Max | K::Min => {
            let value = extreme(kind == K::Max, x, y);
            Bounded { value, error: a.error.max(b.error) }
        }
        K::Neg => Bounded { value: -x, ..a },
        K::Abs => Bounded { value: x.abs(), ..a },
        K::Sign => Bounded::exact(if x.is_nan() || x == 0.0 { x } else { x.signum() }),
        K::Floor => Bounded::exact(x.floor()),
        K::Ceil => Bounded::exact(x.ceil()),
        K::Round => Bounded::exact(x.round_ties_even()),
        K::Trunc => Bounded::exact(x.trunc()),
        K::Sqrt => Bounded::rounded(x.sqrt(), a.error / x.abs().sqrt()),
        K::Rsqrt => Bounded::rounded(1.0 / x.sqrt(), 2.0 / x.sqrt().abs() + a.error / x.abs().powf(1.5)),
        K::Exp => Bounded::rounded(x.exp(), x.exp() * (a.error + 1.0)),
        K::Exp2 => Bounded::rounded(x.exp2(), x.exp2() * (a.error + 1.0)),
        K::Expm1 => Bounded::rounded(x.exp_m1(), x.exp() * (a.error + 1.0)),
        K::Log => Bounded::rounded(x.ln(), a.error / x.abs()),
        K::Log2 => Bounded::rounded(x.log2(), 2.0 * a.error / x.abs()),
        K::Log1p => Bounded::rounded(x.ln_1p(), a.error / (1.0 + x).abs()),
        K::Tanh => Bounded::rounded(x.tanh(), a.error),
        // The slope is at most 2 / sqrt(pi).
        K::Erf => Bounded::rounded(libm::erf(x), 1.2 * a.error),
        K::Sin => Bounded::rounded(x.sin(), a.error),
        K::Cos => Bounded::rounded(x.cos(), a.error),
        K::Eq => Bounded::truth(x == y),
        K::Ne => Bounded::truth(x != y),
        K::Lt => Bounded::truth(x < y),
        K::Le => Bounded::truth(x <= y),
        K::Gt => Bounded::truth(x > y),
        K::Ge => Bounded::truth(x >= y),
        K::And => Bounded::truth(x != 0.0 && y != 0.0),
        K::Or => Bounded::truth(x != 0.0 || y != 0.0),
        K::Xor => Bounded::truth((x != 0.0) != (y != 0.0)),
        K::Not => Bounded::truth(x == 0.0),
        K::IsNan => Bounded::truth(x.is_nan()),
        K::Select => {
            if x == 0.0 {
                c
            } else {
                b
            }
        }
        K::Pow => {
            let value = libm::pow(x, y);
            // An exact operand carries nothing, however steep the function is.
            let carried = |error: f64, slope: f64| if error == 0.0 { 0.0 } else { error * slope.abs() };
            let error = carried(a.error, y * libm::pow(x, y - 1.0)) + carried(b.error, value * x.abs().ln());
            Bounded::rounded(value, error + value.abs())
        }
        K::Shl | K::Shr | K::Cast => {
            return Err(format!("the checker does not evaluate `{}`", kind.info().name));
        }
    })
}

/// IEEE maximum or minimum: NaN wins, and -0 is below 0.
fn extreme(largest: bool, x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let x_is_more = if x == y { x.is_sign_positive() } else { x > y };
    if x_is_more == largest { x } else { y }
}
