//! Types, axes, sizes and data of the variables of a rule, at random, as its conditions allow.

use super::super::eval::{Table, World};
use super::super::lang::{Fold, Head};
use super::super::rules::{Class, Condition, ConditionKind, Rule};
use super::super::term::Term;
use super::super::typing::Typing;
use super::super::widths::{epsilon, rounded};
use super::literals::{Literals, MOST_ELEMENTS};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

/// Sizes that axes are given: nothing, one, odd.
pub(super) const EXTENTS: &[usize] = &[0, 1, 2, 3, 5, 7];
/// A size beyond every strip and vector, at times, for one axis.
const LARGE: usize = 129;
/// The largest product of all sizes.
const MOST_POINTS: usize = 20_000;
/// The most turns of folds inside one another, and those of an axis that a literal makes long.
const MOST_STEPS: usize = 100_000;
const LONG_STEPS: usize = 1 << 22;
/// Of a hundred numbers, those that literals of the rule give, where it has any.
const LITERAL: usize = 25;
/// The axis that no fold of a rule binds.
const OUTER: usize = 3;

/// A small generator (xorshift), so that checks are the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of(&mut self, list: &[f64]) -> f64 {
        list.get(self.below(list.len())).copied().unwrap_or(1.0)
    }

    /// Mixed exponents: with one exponent sums are exact, and reassociation would look exact.
    fn wide(&mut self) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let exponent = self.below(9) as i32 - 5;
        (unit * 4.0 - 1.5) * 2f64.powi(exponent) / 3.0
    }
}

/// Least number above 0, least normal number and largest number of a float dtype.
pub(super) fn edges(dtype: DType) -> [f64; 3] {
    match dtype {
        DType::F16 => [(-24f64).exp2(), (-14f64).exp2(), 65504.0],
        DType::Bf16 => [(-133f64).exp2(), (-126f64).exp2(), 255.0 * 120f64.exp2()],
        DType::F32 => [(-149f64).exp2(), f32::MIN_POSITIVE.into(), f32::MAX.into()],
        _wide => [f64::from_bits(1), f64::MIN_POSITIVE, f64::MAX],
    }
}

/// How the variables of a rule are drawn.
pub(super) struct Plan {
    axes: BTreeSet<Arc<str>>,
    values: BTreeSet<Arc<str>>,
    pub holds: Vec<Condition>,
    class: Class,
    /// Whether two values that f32 does not tell apart may be compared.
    close: bool,
    /// Folds inside one another.
    depth: usize,
    /// The numbers that the rule names.
    literals: Literals,
}

impl Plan {
    pub fn of(rule: &Rule) -> Plan {
        let mut plan = Plan {
            axes: BTreeSet::new(),
            values: BTreeSet::new(),
            holds: rule.truth.clone(),
            class: rule.class.clone(),
            close: false,
            depth: folds(&rule.left).max(folds(&rule.right)),
            literals: Literals::of(rule),
        };
        if let Class::Domain(assumed) = &rule.class {
            plan.holds.extend(assumed.iter().cloned());
        }
        plan.visit(&rule.left);
        plan
    }

    fn visit(&mut self, term: &Term) {
        match term {
            Term::Variable(name) => drop(self.values.insert(name.clone())),
            Term::Number(_) => {}
            Term::Own(x) => self.visit(x),
            Term::Apply(head, args) => {
                self.close |= matches!(head, Head::Scalar(op) if op.info().family == Family::Comparison);
                let binds = matches!(head, Head::Fold(_) | Head::Iota | Head::Extent);
                for (i, arg) in args.iter().enumerate() {
                    match (binds && i == 0, arg) {
                        (true, Term::Variable(name)) => drop(self.axes.insert(name.clone())),
                        (true | false, arg) => self.visit(arg),
                    }
                }
            }
        }
    }

    fn forced(&self, kind: ConditionKind, arguments: &[&Arc<str>]) -> bool {
        self.holds.iter().any(|c| c.kind == kind && c.arguments.iter().eq(arguments.iter().copied()))
    }

    /// Whether a variable may not depend on an axis, by whichever name.
    fn keeps_off(&self, name: &Arc<str>, axis: usize, axes: &BTreeMap<Arc<str>, usize>) -> bool {
        axes.iter().any(|(j, at)| *at == axis && self.forced(ConditionKind::Indep, &[name, j]))
    }

    /// The least size of an axis.
    pub fn least(&self, axis: usize, axes: &BTreeMap<Arc<str>, usize>) -> usize {
        let names = || axes.iter().filter(|(_, at)| **at == axis).map(|(j, _)| j);
        // A position inside an axis needs the axis to have one.
        let inside =
            |j: &Arc<str>| self.holds.iter().any(|c| c.kind == ConditionKind::Inside && c.arguments.get(1) == Some(j));
        usize::from(names().any(|j| self.forced(ConditionKind::Nonempty, &[j]) || inside(j)))
    }

    /// Axes of the variables, without sizes and data. Now and then two names stand for one axis.
    pub fn frame(&self, typing: &Typing, random: &mut Random) -> World {
        let mut axes: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut count = 0;
        for name in &self.axes {
            let shared = count > 0 && random.chance(12);
            let at = if shared { random.below(count) } else { count };
            count = count.max(at + 1);
            axes.insert(name.clone(), at);
        }
        let mut values = BTreeMap::new();
        for name in &self.values {
            let constant = self.forced(ConditionKind::Positive, &[name]);
            // Mostly yes: a rule that is wrong where a variable varies must meet one that does.
            let depends =
                (0..=count).map(|axis| !self.keeps_off(name, axis, &axes) && !constant && random.chance(75)).collect();
            values.insert(name.clone(), Table { depends, data: Vec::new() });
        }
        World { extents: vec![0; count + 1], axes, values, typing: typing.clone() }
    }

    /// Sizes and data for a frame.
    pub fn fill(&self, frame: &World, random: &mut Random) -> World {
        let mut world = frame.clone();
        let inner = world.extents.len() - 1;
        for axis in 0..inner {
            let least = self.least(axis, &world.axes);
            world.extents[axis] = EXTENTS[least + random.below(EXTENTS.len() - least)];
        }
        if inner > 0 && self.depth <= 2 && random.chance(5) {
            world.extents[random.below(inner)] = LARGE;
        }
        world.extents[inner] = OUTER;
        while world.extents.iter().map(|n| (*n).max(1)).product::<usize>() > MOST_POINTS {
            world.extents.iter_mut().max().into_iter().for_each(|n| *n /= 2);
        }
        // What is inside many folds is computed once for each of their positions.
        let longest = self.longest(MOST_STEPS);
        world.extents.iter_mut().for_each(|n| *n = (*n).min(longest));
        self.data(&mut world, random);
        world
    }

    /// The longest axis for which so many turns of folds are not passed.
    fn longest(&self, steps: usize) -> usize {
        ((steps as f64).powf(1.0 / self.depth.max(1) as f64) as usize).max(1)
    }

    /// Sizes that literals of the rule ask for; `folded`: folds are computed at each of their positions.
    pub fn sizes(&self, folded: bool) -> Vec<usize> {
        let most = if folded { self.longest(LONG_STEPS).min(MOST_ELEMENTS) } else { MOST_ELEMENTS };
        if self.axes.is_empty() {
            Vec::new()
        } else {
            self.literals.sizes().into_iter().filter(|n| *n <= most).collect()
        }
    }

    /// Data for a frame with one long axis; the others have one or two positions.
    pub fn long(&self, frame: &World, axis: usize, size: usize, random: &mut Random) -> World {
        let mut world = frame.clone();
        let few = 2 * size * (1 << world.extents.len()) <= MOST_POINTS;
        for (at, n) in world.extents.iter_mut().enumerate() {
            *n = if at == axis { size } else { 1 + usize::from(few && random.chance(50)) };
        }
        self.data(&mut world, random);
        world
    }

    /// Draws the data of all variables.
    fn data(&self, world: &mut World, random: &mut Random) {
        for name in &self.values {
            let Some(table) = world.values.get(name) else { continue };
            let points = world.extents.iter().zip(&table.depends).filter(|d| *d.1).map(|d| (*d.0).max(1)).product();
            let data = (0..points).map(|_| self.number(name, world, random)).collect();
            world.values.entry(name.clone()).and_modify(|t| t.data = data);
        }
    }

    /// Whether the conditions allow a number to be `x`.
    pub fn allows(&self, name: &Arc<str>, world: &World, x: f64) -> bool {
        let is = |kind| self.forced(kind, &[name]);
        let inside = self.inside(name, world).is_none_or(|n| x >= 0.0 && x < n as f64 && x.fract() == 0.0);
        let finite = !is(ConditionKind::Finite) || x.is_finite();
        let moderate = !is(ConditionKind::Moderate) || x.abs() < 80.0;
        let positive = !is(ConditionKind::Positive) || (x > 0.0 && x.is_finite());
        inside
            && finite
            && moderate
            && positive
            && !(is(ConditionKind::UnsignedZero) && x == 0.0 && x.is_sign_negative())
    }

    /// The size of the axis that a variable is a position of.
    fn inside(&self, name: &Arc<str>, world: &World) -> Option<usize> {
        let c = self.holds.iter().find(|c| c.kind == ConditionKind::Inside && c.arguments.first() == Some(name))?;
        world.axes.get(c.arguments.get(1)?).and_then(|&i| world.extents.get(i)).copied()
    }

    fn number(&self, name: &Arc<str>, world: &World, random: &mut Random) -> f64 {
        let dtype = world.typing.variable(name).unwrap_or(DType::F64);
        if dtype == DType::Bool {
            return f64::from(u8::from(random.chance(65)));
        }
        let edge = self.class == Class::Exact;
        let literal = if random.chance(LITERAL) { self.literals.number(dtype, edge, random) } else { None };
        if let Some(extent) = self.inside(name, world) {
            return literal.filter(|x| self.allows(name, world, *x)).unwrap_or_else(|| random.below(extent) as f64);
        }
        if !dtype.is_float() {
            return literal.unwrap_or_else(|| integer(dtype, random));
        }
        let x = literal.unwrap_or_else(|| rounded(dtype, self.float(name, dtype, random)));
        if self.allows(name, world, x) { x } else { 1.0 }
    }

    fn float(&self, name: &Arc<str>, dtype: DType, random: &mut Random) -> f64 {
        let [least, normal, most] = edges(dtype);
        let is = |kind| self.forced(kind, &[name]);
        if is(ConditionKind::Positive) {
            let edge = self.class == Class::Exact && random.chance(10);
            return if edge { random.of(&[least, normal, most]) } else { random.wide().abs() + 0.01 };
        }
        if self.close && random.chance(30) {
            return 1.0 + random.below(3) as f64 * 40f64.exp2().recip();
        }
        let ordinary = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 0.0, -0.0, 1.0];
        match self.class {
            Class::Exact if random.chance(20) => {
                random.of(&[&ordinary[..], &TIES, &[least, -least, normal, most, -most]].concat())
            }
            Class::Rounding if random.chance(15) => random.of(&ordinary),
            // Nothing divides by 0, and exp of the others is 0 or infinite.
            Class::Reassociates | Class::Domain(_) | Class::Approx(_)
                if random.chance(10) && !is(ConditionKind::Moderate) =>
            {
                random.of(&[0.0, 0.0, 0.0, 800.0, -800.0, 1000.0])
            }
            Class::Exact | Class::Rounding | Class::Reassociates | Class::Domain(_) | Class::Approx(_) => random.wide(),
        }
    }
}

/// Numbers that are just above the middle of two neighbours in f16, and in bf16: rounded to f32 first, they are the middle.
const TIES: [f64; 2] = [1.0 + 1.0 / 2048.0 + 1.0 / (1u64 << 40) as f64, 1.0 + 1.0 / 256.0 + 1.0 / (1u64 << 40) as f64];

/// Mostly small; at times the ends of the dtype, as far as f64 tells them apart.
fn integer(dtype: DType, random: &mut Random) -> f64 {
    let bits = 8 * dtype.block().1 as i32;
    let (low, high) = match dtype.is_signed() {
        true => (-2f64.powi(bits - 1), (2f64.powi(bits - 1) - 1.0).min(2f64.powi(53))),
        false => (0.0, (2f64.powi(bits) - 1.0).min(2f64.powi(53))),
    };
    let small = random.below(17) as f64;
    match random.below(10) {
        0 => random.of(&[low, high, high - 1.0]),
        1..=4 if dtype.is_signed() => -small,
        _others => small,
    }
}

/// How deep folds are inside one another.
fn folds(term: &Term) -> usize {
    match term {
        Term::Variable(_) | Term::Number(_) => 0,
        Term::Own(x) => folds(x),
        Term::Apply(head, args) => {
            let own = usize::from(matches!(head, Head::Fold(_)));
            own + args.iter().map(folds).max().unwrap_or(0)
        }
    }
}

/// A head that has no meaning without a graph around it.
pub(super) fn opaque(term: &Term) -> Option<&Head> {
    match term {
        Term::Variable(_) | Term::Number(_) => None,
        Term::Own(x) => opaque(x),
        Term::Apply(head @ (Head::Load | Head::Gather | Head::At | Head::Attr(_)), _) => Some(head),
        Term::Apply(_, args) => args.iter().find_map(opaque),
    }
}

/// Whether a term has a fold in one pass, which graphs have no op for.
pub(super) fn one_pass(term: &Term) -> bool {
    match term {
        Term::Variable(_) | Term::Number(_) => false,
        Term::Own(x) => one_pass(x),
        Term::Apply(Head::Fold(Fold::Esum | Fold::EsumIf | Fold::M2), _) => true,
        Term::Apply(_, args) => args.iter().any(one_pass),
    }
}

/// What one rounding may change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slack {
    /// As a part of the number, doubled.
    pub relative: f64,
    /// Of numbers so small that the dtype has few digits for them.
    pub absolute: f64,
}

impl Slack {
    /// Of the coarsest dtype among `own`, which is that of `(cast ?x)`, and the casts of a term.
    pub fn of(term: &Term, own: DType) -> Slack {
        let here = |dtype: DType| {
            let absolute = if dtype.is_float() { edges(dtype)[0] } else { 0.0 };
            Slack { relative: epsilon(dtype), absolute }
        };
        match term {
            Term::Variable(_) | Term::Number(_) => here(own),
            Term::Own(x) => Slack::of(x, own),
            Term::Apply(head, args) => {
                let cast = if let Head::Scalar(ScalarOp::Cast { to }) = head { *to } else { own };
                args.iter().map(|a| Slack::of(a, own)).fold(here(own).with(here(cast)), Slack::with)
            }
        }
    }

    /// The larger of both.
    pub fn with(self, other: Slack) -> Slack {
        let (relative, absolute) = (self.relative.max(other.relative), self.absolute.max(other.absolute));
        Slack { relative, absolute }
    }
}
