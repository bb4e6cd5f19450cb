//! Checks a rule by evaluating both sides on random data: small extents, mixed exponents, and infinities and NaN where
//! the class promises every bit. A wrong rule comes back with the data that shows it.

use super::eval::{Bounded, Table, World};
use super::lang::{Fold, Head};
use super::rules::{Class, Condition, ConditionKind, Rule};
use super::term::Term;
use super::widths::{Widths, epsilon, rounded};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

/// Data sets per rule.
const TRIALS: usize = 200;
/// Points compared per data set.
const POINTS: usize = 3;
/// Sizes that axes are given: nothing, one, odd.
const EXTENTS: &[usize] = &[0, 1, 2, 3, 5, 7];

/// What a check saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleReport {
    /// Points where both sides were numbers.
    pub numbers: usize,
    /// Largest error, as a fraction of what the class allows; 0 where only bits count.
    pub worst: f64,
}

/// Data that shows a rule to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The rule.
    pub rule: Arc<str>,
    /// The difference.
    pub reason: String,
    /// Extents, position and variables, one a line.
    pub data: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rule `{}` is wrong: {}", self.rule, self.reason)?;
        self.data.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Counterexample {}

/// A small generator (xorshift), so that checks are the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Mixed exponents: with one exponent sums are exact, and reassociation would look exact.
    fn wide(&mut self) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let exponent = self.below(9) as i32 - 5;
        (unit * 4.0 - 1.5) * 2f64.powi(exponent) / 3.0
    }

    fn special(&mut self) -> f64 {
        [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 0.0, -0.0, 1.0][self.below(6)]
    }
}

/// How the variables of a rule are drawn.
struct Plan {
    axes: BTreeSet<Arc<str>>,
    values: BTreeSet<Arc<str>>,
    truths: BTreeSet<Arc<str>>,
    holds: Vec<Condition>,
    specials: bool,
    /// Whether two values that f32 does not tell apart may be compared.
    close: bool,
    /// Twice the largest relative error of one rounding.
    unit: f64,
}

impl Plan {
    fn of(rule: &Rule) -> Plan {
        let mut plan = Plan {
            axes: BTreeSet::new(),
            values: BTreeSet::new(),
            truths: BTreeSet::new(),
            holds: rule.truth.clone(),
            specials: matches!(rule.class, Class::Exact | Class::Rounding),
            close: false,
            unit: f64::EPSILON,
        };
        if let Class::Domain(assumed) = &rule.class {
            plan.holds.extend(assumed.iter().cloned());
        }
        plan.visit(&rule.left, false);
        if rule.right.has_own() {
            plan.unit = plan.unit.max(epsilon(DType::Bf16));
        }
        plan
    }

    fn visit(&mut self, term: &Term, truth: bool) {
        match term {
            Term::Variable(name) => {
                self.values.insert(name.clone());
                if truth {
                    self.truths.insert(name.clone());
                }
            }
            Term::Number(_) => {}
            Term::Own(x) => self.visit(x, truth),
            Term::Apply(head, args) => {
                if let Head::Scalar(ScalarOp::Cast { to }) = head {
                    self.unit = self.unit.max(epsilon(*to));
                }
                self.close |= matches!(head, Head::Scalar(op) if op.info().family == Family::Comparison);
                let binds = matches!(head, Head::Fold(_) | Head::Iota | Head::Extent);
                for (i, arg) in args.iter().enumerate() {
                    match (binds && i == 0, arg) {
                        (true, Term::Variable(name)) => {
                            self.axes.insert(name.clone());
                        }
                        (true | false, arg) => self.visit(arg, wants_truth(head, i)),
                    }
                }
            }
        }
    }

    fn forced(&self, kind: ConditionKind, arguments: &[&Arc<str>]) -> bool {
        self.holds.iter().any(|c| c.kind == kind && c.arguments.iter().eq(arguments.iter().copied()))
    }

    fn draw(&self, rule: &Rule, random: &mut Random) -> World {
        let half = if self.halves() && random.chance(50) { DType::F16 } else { DType::Bf16 };
        let mut world = World { widths: Widths::new(&rule.left, &self.holds, half), ..World::default() };
        for (i, name) in self.axes.iter().enumerate() {
            world.axes.insert(name.clone(), i);
            // A position inside an axis needs the axis to have one.
            let inside = |c: &Condition| c.kind == ConditionKind::Inside && c.arguments.get(1) == Some(name);
            let low = self.forced(ConditionKind::Nonempty, &[name]) || self.holds.iter().any(inside);
            let low = usize::from(low);
            world.extents.push(EXTENTS[low + random.below(EXTENTS.len() - low)]);
        }
        // One axis that no fold of the rule binds.
        world.extents.push(3);
        for name in &self.values {
            let positive = self.forced(ConditionKind::Positive, &[name]);
            let depends: Vec<bool> = (0..world.extents.len())
                .map(|axis| {
                    let kept =
                        self.axes.iter().nth(axis).is_some_and(|j| self.forced(ConditionKind::Indep, &[name, j]));
                    // Mostly yes: a rule that is wrong where a variable varies must meet one that does.
                    !kept && !positive && random.chance(75)
                })
                .collect();
            let points = world.extents.iter().zip(&depends).filter(|d| *d.1).map(|d| (*d.0).max(1)).product();
            let dtype = world.widths.variable(name).unwrap_or(DType::F64);
            let data = (0..points).map(|_| rounded(dtype, self.number(name, &world, random))).collect();
            world.values.insert(name.clone(), Table { depends, data });
        }
        world
    }

    fn halves(&self) -> bool {
        self.holds.iter().any(|c| c.kind == ConditionKind::Half)
    }

    fn number(&self, name: &Arc<str>, world: &World, random: &mut Random) -> f64 {
        if self.truths.contains(name) {
            return f64::from(u8::from(random.chance(65)));
        }
        let inside = self.holds.iter().find(|c| c.kind == ConditionKind::Inside && c.arguments.first() == Some(name));
        if let Some(axis) = inside.and_then(|c| c.arguments.get(1)) {
            let extent = world.axes.get(axis).and_then(|&i| world.extents.get(i)).copied().unwrap_or(1);
            return random.below(extent) as f64;
        }
        if self.forced(ConditionKind::Positive, &[name]) {
            return random.wide().abs() + 0.01;
        }
        if self.close && random.chance(30) {
            return 1.0 + random.below(3) as f64 * 40f64.exp2().recip();
        }
        let tame = [ConditionKind::Finite, ConditionKind::Moderate, ConditionKind::UnsignedZero];
        if self.specials && random.chance(15) && !tame.iter().any(|k| self.forced(*k, &[name])) {
            return random.special();
        }
        random.wide()
    }
}

fn wants_truth(head: &Head, operand: usize) -> bool {
    match head {
        Head::Scalar(op) => op.info().family == Family::Logic || (*op == ScalarOp::Select {} && operand == 0),
        Head::Fold(Fold::EsumIf) => operand == 1,
        Head::Fold(Fold::Sum | Fold::Max | Fold::Min | Fold::Prod | Fold::Esum | Fold::M2) => false,
        Head::Load | Head::Gather | Head::At | Head::Iota | Head::Extent | Head::Attr(_) => false,
    }
}

/// The difference as a fraction of what the class allows; `None` where there is nothing to compare.
fn compare(class: &Class, unit: f64, left: Bounded, right: Bounded) -> Option<f64> {
    let (x, y) = (left.value, right.value);
    let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    let difference = (x - y).abs();
    let bits = f64::from(u8::from(!same)) * 2.0;
    let allowed = match class {
        Class::Exact => return Some(bits),
        Class::Rounding if same => return Some(0.0),
        Class::Rounding => 4.0 * unit * x.abs(),
        Class::Reassociates | Class::Domain(_) => 4.0 * f64::EPSILON * (left.error + right.error),
        Class::Approx(_) => 64.0 * f64::EPSILON * (left.error + right.error),
    };
    if same || x == y {
        return Some(0.0);
    }
    if matches!(class, Class::Rounding) || !allowed.is_nan() {
        let fraction = difference / allowed;
        return Some(if fraction.is_nan() { f64::INFINITY } else { fraction });
    }
    // One side is no finite number: reassociation promises nothing unless the other is one.
    (x.is_finite() != y.is_finite()).then_some(f64::INFINITY)
}

/// Evaluates both sides of `rule` on random data in which its `if` conditions and domain hold.
///
/// Errors: the first data set where the sides differ by more than the class allows, or why they cannot be compared.
pub fn check_rule(rule: &Rule, seed: u64) -> Result<RuleReport, Counterexample> {
    let plan = Plan::of(rule);
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1);
    let mut report = RuleReport { numbers: 0, worst: 0.0 };
    let fail = |reason: String, data: Vec<String>| Counterexample { rule: rule.name.clone(), reason, data };
    let widths = Widths::new(&rule.left, &plan.holds, DType::Bf16);
    if widths.lacks_own(&rule.right) {
        return Err(fail(
            "`(cast ..)` is to f16 or bf16, and the left side may be of another dtype".into(),
            Vec::new(),
        ));
    }
    let (left, right) = (widths.of(&rule.left), widths.of(&rule.right));
    if left != right {
        let name = |d: Option<DType>| d.map_or("a dtype that no condition says", DType::name);
        return Err(fail(format!("left is {}, right is {}", name(left), name(right)), Vec::new()));
    }
    for _ in 0..TRIALS {
        let world = plan.draw(rule, &mut random);
        for _ in 0..POINTS {
            let mut point: Vec<usize> = world.extents.iter().map(|e| random.below(*e)).collect();
            let sides = world.eval(&rule.left, &mut point).and_then(|l| Ok((l, world.eval(&rule.right, &mut point)?)));
            let (left, right) = sides.map_err(|message| fail(message, Vec::new()))?;
            let Some(fraction) = compare(&rule.class, plan.unit, left, right) else { continue };
            if fraction > 1.0 {
                let reason = format!("left is {}, right is {}", left.value, right.value);
                return Err(fail(reason, show(&world, &point)));
            }
            report.worst = report.worst.max(fraction);
            report.numbers += usize::from(!left.value.is_nan());
        }
    }
    if report.numbers < TRIALS {
        let message = format!("only {} of {} points gave numbers", report.numbers, TRIALS * POINTS);
        return Err(fail(message, Vec::new()));
    }
    Ok(report)
}

fn show(world: &World, point: &[usize]) -> Vec<String> {
    let names: BTreeMap<usize, &Arc<str>> = world.axes.iter().map(|(name, i)| (*i, name)).collect();
    let label = |axis: usize| names.get(&axis).map_or_else(|| "(outer)".to_string(), |n| format!("?{n}"));
    let mut lines: Vec<String> = world
        .extents
        .iter()
        .enumerate()
        .map(|(i, e)| format!("{} at {} of {e}", label(i), point.get(i).copied().unwrap_or(0)))
        .collect();
    for (name, table) in &world.values {
        let axes: Vec<String> = (0..world.extents.len()).filter(|&i| table.depends[i]).map(label).collect();
        lines.push(format!("?{name}[{}] = {:?}", axes.join(", "), table.data));
    }
    lines
}
