//! Element types of the terms of a rule, as far as its `if` conditions and casts say them. Most rules hold in every float
//! dtype; those about f16 and bf16 do not.

use super::lang::Head;
use super::rules::{Condition, ConditionKind};
use super::term::Term;
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

/// What is known; a dtype that is not known is the same float dtype throughout.
#[derive(Clone, Debug, Default)]
pub(super) struct Widths {
    /// Variables whose dtype a condition says.
    variables: BTreeMap<Arc<str>, DType>,
    /// The dtype of the left side, which `(cast ?x)` casts to.
    own: Option<DType>,
}

impl Widths {
    /// Where these conditions hold, with `half` for either of f16 and bf16.
    pub fn new(left: &Term, holds: &[Condition], half: DType) -> Widths {
        let mut widths = Widths::default();
        for c in holds {
            let dtype = match c.kind {
                ConditionKind::Half => half,
                ConditionKind::Single => DType::F32,
                ConditionKind::Indep | ConditionKind::Nonempty | ConditionKind::Wide | ConditionKind::Positive => {
                    continue;
                }
                ConditionKind::Varies | ConditionKind::Narrow | ConditionKind::Indexed => continue,
                ConditionKind::Unshifted | ConditionKind::Finite | ConditionKind::Moderate => continue,
                ConditionKind::Inside | ConditionKind::UnsignedZero | ConditionKind::Implied => continue,
            };
            widths.variables.extend(c.arguments.first().map(|name| (name.clone(), dtype)));
        }
        widths.spread(left);
        widths.own = widths.of(left);
        widths
    }

    /// Operands of one op have one dtype, so what is known of one is known of all.
    fn spread(&mut self, term: &Term) {
        let Term::Apply(head, args) = term else { return };
        args.iter().for_each(|a| self.spread(a));
        let alike = match head {
            Head::Scalar(ScalarOp::Cast { .. }) | Head::Fold(_) | Head::Iota | Head::Extent => return,
            Head::Load | Head::Gather | Head::At | Head::Attr(_) => return,
            Head::Scalar(ScalarOp::Select {}) => args.get(1..).unwrap_or_default(),
            Head::Scalar(_) => args,
        };
        let Some(dtype) = alike.iter().find_map(|a| self.of(a)) else { return };
        for a in alike {
            if let Term::Variable(name) = a {
                self.variables.insert(name.clone(), dtype);
            }
        }
    }

    /// The dtype of a variable.
    pub fn variable(&self, name: &Arc<str>) -> Option<DType> {
        self.variables.get(name).copied()
    }

    /// The dtype of a term.
    pub fn of(&self, term: &Term) -> Option<DType> {
        let (head, args) = match term {
            Term::Variable(name) => return self.variable(name),
            Term::Number(_) => return None,
            Term::Own(_) => return self.own,
            Term::Apply(head, args) => (head, args),
        };
        match head {
            Head::Scalar(ScalarOp::Cast { to }) => Some(*to),
            Head::Scalar(op) if matches!(op.info().family, Family::Comparison | Family::Logic) => Some(DType::Bool),
            Head::Scalar(ScalarOp::Select {}) => args.iter().skip(1).find_map(|a| self.of(a)),
            Head::Scalar(_) => args.iter().find_map(|a| self.of(a)),
            // The last operand of a fold is what is added up.
            Head::Fold(_) => args.last().and_then(|a| self.of(a)),
            Head::Load | Head::Gather | Head::At | Head::Iota | Head::Extent | Head::Attr(_) => None,
        }
    }

    /// Whether `(cast ?x)` occurs where the left side may be wider than a half.
    pub fn lacks_own(&self, term: &Term) -> bool {
        match term {
            Term::Variable(_) | Term::Number(_) => false,
            Term::Own(x) => !self.own.is_some_and(is_half) || self.lacks_own(x),
            Term::Apply(_, args) => args.iter().any(|a| self.lacks_own(a)),
        }
    }
}

/// Whether it is f16 or bf16.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

/// `x` rounded to f32, f16 or bf16, ties to even; what does not fit is infinite. Other dtypes hold every number here.
pub(super) fn rounded(dtype: DType, x: f64) -> f64 {
    let (precision, least, largest) = match dtype {
        DType::F32 => return f64::from(x as f32),
        DType::F16 => (11, -14, 65504.0),
        DType::Bf16 => (8, -126, 255.0 * 120f64.exp2()),
        _wide => return x,
    };
    // Numbers below the normal ones of f64 are far below every half.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let unit = f64::from(exponent.max(least) - (precision - 1)).exp2();
    if !x.is_finite() {
        return x;
    }
    let near = (x / unit).round_ties_even() * unit;
    if near.abs() > largest { f64::INFINITY.copysign(x) } else { near }
}

/// Twice the largest relative error of rounding to it.
pub(super) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 10f64.exp2().recip(),
        DType::Bf16 => 7f64.exp2().recip(),
        DType::F32 => f64::from(f32::EPSILON),
        _wide => f64::EPSILON,
    }
}
