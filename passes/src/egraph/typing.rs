//! Element types of the terms of a rule: every way in which its left side can match, as the ops, casts and `if` conditions
//! allow.

use super::compile::typed;
use super::lang::{Fold, Head};
use super::rules::{Condition, ConditionKind, Rule};
use super::term::Term;
use super::widths::is_half;
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::infer::scalar_type;
use tilewright_ir::op::{Family, ScalarKind, ScalarOp};
use tilewright_ir::types::DType;

/// An element type for every variable of a rule, for positions along its axes, and for its left side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typing {
    variables: BTreeMap<Arc<str>, DType>,
    positions: BTreeMap<Arc<str>, DType>,
    /// Of the left side, and so of numbers, sizes and `(cast ?x)`.
    pub own: DType,
}

impl Typing {
    /// Every way in which the left side of `rule` can match where `holds`, the widest floats first. The right side need not fit.
    pub fn all(rule: &Rule, holds: &[Condition]) -> Vec<Typing> {
        let mut slots = Slots::default();
        let own = slots.named(Name::Own);
        if let Some(left) = slots.term(&rule.left) {
            slots.unite(left, own);
        }
        // A position has the type of its use on the left; the right side makes no other.
        slots
            .typings(typed(&rule.left) || typed(&rule.right))
            .into_iter()
            .filter(|t| t.of(&rule.left) == Ok(t.own) && holds.iter().all(|c| t.allows(c)))
            .collect()
    }

    /// Whether a condition about element types holds.
    fn allows(&self, c: &Condition) -> bool {
        let Some(dtype) = c.arguments.first().and_then(|name| self.variables.get(name)) else { return true };
        match c.kind {
            ConditionKind::Half => is_half(*dtype),
            ConditionKind::Single => *dtype == DType::F32,
            ConditionKind::Wide => *dtype != DType::F16,
            ConditionKind::Positive | ConditionKind::Inside => *dtype != DType::Bool,
            ConditionKind::Indep | ConditionKind::Nonempty | ConditionKind::Varies | ConditionKind::Narrow => true,
            ConditionKind::Indexed | ConditionKind::Unshifted | ConditionKind::Implied | ConditionKind::Fewer => true,
            ConditionKind::Finite | ConditionKind::Moderate | ConditionKind::UnsignedZero => true,
        }
    }

    /// The type of a variable.
    pub fn variable(&self, name: &Arc<str>) -> Option<DType> {
        self.variables.get(name).copied()
    }

    /// The type of positions along an axis.
    pub fn position(&self, axis: &Arc<str>) -> Option<DType> {
        self.positions.get(axis).copied()
    }

    /// The type of a term. `Err` says why it has none.
    pub fn of(&self, term: &Term) -> Result<DType, String> {
        let (head, args) = match term {
            Term::Variable(name) => return self.variable(name).ok_or_else(|| format!("`?{name}` is no value")),
            Term::Number(_) => return Ok(self.own),
            Term::Own(x) => return self.of(x).map(|_| self.own),
            Term::Apply(head, args) => (head, args.as_slice()),
        };
        let all = |args: &[Term]| args.iter().map(|a| self.of(a)).collect::<Result<Vec<_>, _>>();
        match head {
            Head::Scalar(op) => scalar_type(op, &all(args)?).map_err(|d| d.message),
            Head::Fold(fold) => {
                let types = all(args.get(1..).unwrap_or_default())?;
                let float = || types.last().is_some_and(|d| d.is_float());
                let fits = match (fold, types.as_slice()) {
                    (Fold::Sum | Fold::Max | Fold::Min | Fold::Prod, [_]) => true,
                    (Fold::M2, [_]) => float(),
                    (Fold::Esum, [s, w]) | (Fold::EsumIf, [DType::Bool, s, w]) => s == w && float(),
                    (Fold::Sum | Fold::Max | Fold::Min | Fold::Prod | Fold::M2 | Fold::Esum | Fold::EsumIf, _) => false,
                };
                let found: Vec<&str> = types.iter().map(|d| d.name()).collect();
                let own = types.last().copied().filter(|_| fits);
                own.ok_or_else(|| format!("`{head}` takes no {}", found.join(", ")))
            }
            Head::Iota => match args.first() {
                Some(Term::Variable(axis)) => self.position(axis).ok_or_else(|| format!("`?{axis}` has no positions")),
                Some(Term::Number(_) | Term::Own(_) | Term::Apply(..)) | None => {
                    Err("an axis must be a variable".into())
                }
            },
            Head::Extent => Ok(self.own),
            Head::Load | Head::Gather | Head::At | Head::Attr(_) => {
                Err(format!("the checker does not evaluate `{head}`"))
            }
        }
    }

    /// Whether every float is f64, but for casts.
    pub fn is_wide(&self) -> bool {
        self.variables.values().chain([&self.own]).all(|d| *d == DType::F64 || !d.is_float())
    }

    /// Whether [`super::eval::World::eval`] computes a term: it has no arithmetic of integers and no folds of truth values.
    pub fn in_reals(&self, term: &Term) -> bool {
        let (head, args) = match term {
            Term::Variable(_) | Term::Number(_) => return true,
            Term::Own(x) => return self.in_reals(x),
            Term::Apply(head, args) => (head, args.as_slice()),
        };
        let is = |term: Option<&Term>, want: fn(DType) -> bool| term.is_some_and(|t| self.of(t).is_ok_and(want));
        match head {
            Head::Scalar(ScalarOp::Cast { to }) => to.is_float() && args.iter().all(|a| self.in_reals(a)),
            Head::Scalar(op) => {
                let numbers = match op.info().family {
                    Family::Arithmetic | Family::Transcendental => is(args.first(), DType::is_float),
                    Family::Logic => is(args.first(), |d| d == DType::Bool),
                    _comparison_or_select => true,
                };
                let shifts = matches!(op.kind(), ScalarKind::Shl | ScalarKind::Shr);
                numbers && !shifts && args.iter().all(|a| self.in_reals(a))
            }
            Head::Fold(_) => is(args.last(), DType::is_float) && args.iter().skip(1).all(|a| self.in_reals(a)),
            Head::Iota | Head::Extent => true,
            Head::Load | Head::Gather | Head::At | Head::Attr(_) => false,
        }
    }

    /// The widest floats of each mix of kinds of numbers: what rules that round otherwise are tested in. Rules about halves are
    /// tested in both.
    pub fn widest(all: Vec<Typing>) -> Vec<Typing> {
        let halves = all.first().is_some_and(|t| t.variables.values().any(|d| is_half(*d)));
        let kind = |d: DType| if d.is_float() && !(halves && is_half(d)) { DType::F64 } else { d };
        let key = |t: &Typing| -> Vec<DType> {
            t.variables.values().chain(t.positions.values()).chain([&t.own]).map(|d| kind(*d)).collect()
        };
        let mut kept: Vec<Typing> = Vec::new();
        for typing in all {
            if !kept.iter().any(|t| key(t) == key(&typing)) {
                kept.push(typing);
            }
        }
        kept
    }
}

/// `f32`, or where variables differ, each: `?a i64, ?x f32`.
impl std::fmt::Display for Typing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.variables.values().chain(self.positions.values()).all(|d| *d == self.own) {
            return write!(f, "{}", self.own);
        }
        let values = self.variables.iter().map(|(name, d)| format!("?{name} {d}"));
        let positions = self.positions.iter().map(|(axis, d)| format!("(iota ?{axis}) {d}"));
        f.write_str(&values.chain(positions).collect::<Vec<_>>().join(", "))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Own,
    Value(Arc<str>),
    Position(Arc<str>),
}

/// Terms that have one type, by union-find.
#[derive(Default)]
struct Slots {
    parent: Vec<usize>,
    fixed: Vec<Option<DType>>,
    names: BTreeMap<Name, usize>,
    contradicts: bool,
}

/// Types that a class of the e-graph can have where a rule matches it: `compile` lets rules fire at floats and truth values.
const AT_THE_TOP: &[DType] = &[DType::F64, DType::F32, DType::F16, DType::Bf16, DType::Bool];
/// Types below casts, comparisons and selects: integers too, of each kind of width and sign.
const BELOW: &[DType] =
    &[DType::F64, DType::F32, DType::F16, DType::Bf16, DType::Bool, DType::I64, DType::I32, DType::U8];
/// The same where a rule has many variables that are independent of each other.
const FEW: &[DType] = &[DType::F64, DType::Bool, DType::I64];
/// Groups of variables up to which all types are tried.
const MANY: usize = 3;
/// Combinations of types that are looked at; beyond, further variables have their first type.
const MOST_TYPINGS: usize = 512;

impl Slots {
    fn new_slot(&mut self, fixed: Option<DType>) -> usize {
        self.parent.push(self.parent.len());
        self.fixed.push(fixed);
        self.parent.len() - 1
    }

    fn named(&mut self, name: Name) -> usize {
        if let Some(&slot) = self.names.get(&name) {
            return slot;
        }
        let slot = self.new_slot(None);
        self.names.insert(name, slot);
        slot
    }

    fn find(&self, mut slot: usize) -> usize {
        while self.parent[slot] != slot {
            slot = self.parent[slot];
        }
        slot
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        self.contradicts |= matches!((self.fixed[a], self.fixed[b]), (Some(x), Some(y)) if x != y);
        self.fixed[a] = self.fixed[a].or(self.fixed[b]);
        self.parent[b] = a;
    }

    /// The slot of a term; none for what has no type.
    fn term(&mut self, term: &Term) -> Option<usize> {
        let (head, args) = match term {
            Term::Variable(name) => return Some(self.named(Name::Value(name.clone()))),
            Term::Number(_) => return Some(self.named(Name::Own)),
            Term::Own(x) => {
                self.term(x);
                return Some(self.named(Name::Own));
            }
            Term::Apply(head, args) => (head, args),
        };
        let binds = usize::from(matches!(head, Head::Fold(_) | Head::Iota | Head::Extent));
        let slots: Vec<Option<usize>> = args.iter().skip(binds).map(|a| self.term(a)).collect();
        let alike = match head {
            Head::Scalar(ScalarOp::Select {}) | Head::Fold(Fold::EsumIf) => {
                let truth = self.new_slot(Some(DType::Bool));
                slots.first().copied().flatten().into_iter().for_each(|p| self.unite(p, truth));
                slots.get(1..).unwrap_or_default()
            }
            Head::Scalar(_) | Head::Fold(_) => &slots,
            Head::Extent => return Some(self.named(Name::Own)),
            Head::Iota => {
                let Some(Term::Variable(axis)) = args.first() else { return None };
                return Some(self.named(Name::Position(axis.clone())));
            }
            Head::Load | Head::Gather | Head::At | Head::Attr(_) => return None,
        };
        let known: Vec<usize> = alike.iter().flatten().copied().collect();
        known.windows(2).for_each(|w| self.unite(w[0], w[1]));
        match head {
            Head::Scalar(ScalarOp::Cast { to }) => Some(self.new_slot(Some(*to))),
            Head::Scalar(op) if op.info().family == Family::Comparison => Some(self.new_slot(Some(DType::Bool))),
            _same => known.first().copied(),
        }
    }

    /// Types for all names; those of the left side are floats where `float`.
    fn typings(&self, float: bool) -> Vec<Typing> {
        let own = self.names.get(&Name::Own).map(|s| self.find(*s));
        let mut groups: Vec<usize> = self.names.values().map(|s| self.find(*s)).collect();
        groups.sort_unstable();
        groups.dedup();
        let free = groups.iter().filter(|&&g| self.fixed[g].is_none()).count();
        let mut rows: Vec<Vec<DType>> = if self.contradicts { Vec::new() } else { vec![Vec::new()] };
        for &group in &groups {
            let candidates: Vec<DType> = match self.fixed[group] {
                Some(dtype) => vec![dtype],
                None if Some(group) == own => AT_THE_TOP.to_vec(),
                None if free > MANY => FEW.to_vec(),
                None => BELOW.to_vec(),
            };
            let fits = |d: &&DType| Some(group) != own || (!float && **d == DType::Bool) || d.is_float();
            let mut candidates: Vec<DType> = candidates.iter().filter(fits).copied().collect();
            if rows.len() * candidates.len() > MOST_TYPINGS {
                candidates.truncate(1);
            }
            rows = rows.iter().flat_map(|r| candidates.iter().map(|d| [&r[..], &[*d]].concat())).collect();
        }
        let typing = |row: Vec<DType>| {
            let at = |slot: usize| groups.iter().position(|g| *g == self.find(slot)).and_then(|i| row.get(i)).copied();
            let mut typing = Typing { variables: BTreeMap::new(), positions: BTreeMap::new(), own: DType::Bool };
            for (name, slot) in &self.names {
                let dtype = at(*slot)?;
                match name {
                    Name::Own => typing.own = dtype,
                    Name::Value(name) => drop(typing.variables.insert(name.clone(), dtype)),
                    Name::Position(axis) => drop(typing.positions.insert(axis.clone(), dtype)),
                }
            }
            Some(typing)
        };
        rows.into_iter().filter_map(typing).collect()
    }
}
