//! Checks a rule on random types, axes, sizes and data. Both sides become results of one function of the Graph IR, over symbolic
//! sizes, which must have one type. Rules that keep every bit are compared bit by bit on the strict interpreter, in every
//! element type that they can match; others in f64, twice: as the interpreter computes them, and as `eval.rs` does, which
//! also bounds the rounding. A wrong rule comes back with the smallest data found that shows it, as a program.

mod draw;
mod graph;
mod literals;
mod shrink;

use super::eval::{Bounded, World};
use super::rules::{Class, Condition, Rule};
use super::typing::Typing;
use super::widths::{epsilon, is_half};
use draw::{Plan, Random, Slack, one_pass, opaque};
use graph::{Refused, Sides};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::{element_text, print};
use tilewright_ir::types::DType;

/// Seeds of a thorough check.
pub const SEEDS: RangeInclusive<u64> = 1..=8;
/// Choices of axes per rule, shared by its typings, and the fewest of one typing.
const FRAMES: (usize, usize) = (40, 8);
/// Data sets per choice of axes.
const SETS: usize = 5;
/// Data sets for each axis as long as a literal says, up to so many positions; of longer ones one, of the first typing.
const LONG_SETS: (usize, usize) = (2, 20_000);
/// Elements of constants that a program of a counterexample may have.
const MOST_WRITTEN: usize = 1 << 14;
/// Points compared per data set, where a point takes the evaluator.
const POINTS: usize = 3;
/// Points compared while a counterexample is made small.
const MANY_POINTS: usize = 400;

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleReport {
    /// Element types in which the rule was tested.
    pub types: Vec<String>,
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
    /// The text of a module whose two results are the sides of the rule on this data; or why there is none.
    pub program: Result<String, String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rule `{}` is wrong: {}", self.rule, self.reason)?;
        self.data.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Counterexample {}

/// Evaluates both sides of `rule` on random data in which its `if` conditions and domain hold.
///
/// Errors: the first data set where the sides differ by more than the class allows, made small, or why they cannot be compared.
pub fn check_rule(rule: &Rule, seed: u64) -> Result<RuleReport, Counterexample> {
    let check = Check { rule, plan: Plan::of(rule) };
    let typings = check.typings().map_err(|reason| check.without_data(reason))?;
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let frames = (FRAMES.0 / typings.len()).max(FRAMES.1);
    for (number, typing) in typings.iter().enumerate() {
        if check.ordinary(typing, frames, &mut tally, &mut random)? {
            check.long(typing, number == 0, &mut tally, &mut random)?;
            tally.report.types.push(typing.to_string());
        }
    }
    let Tally { report, points, refused, captured } = tally;
    if report.types.is_empty() {
        return Err(check.without_data(refused.unwrap_or_default()));
    }
    if let Some(axis) = captured {
        return Err(check.without_data(format!("the right side depends on axis ?{axis}, the left side does not")));
    }
    if report.numbers < points / 4 + 1 {
        return Err(check.without_data(format!("only {} of {points} points gave numbers", report.numbers)));
    }
    Ok(report)
}

/// What a check has seen so far.
#[derive(Default)]
struct Tally {
    report: RuleReport,
    points: usize,
    /// Why a typing has no left side.
    refused: Option<String>,
    /// An axis that the right side depends on and the left side does not.
    captured: Option<Arc<str>>,
}

/// [`check_rule`] with each of [`SEEDS`]: what rules pass before they may fire. The report is that of the last.
///
/// Errors: those of [`check_rule`].
pub fn check_thoroughly(rule: &Rule) -> Result<RuleReport, Counterexample> {
    let (first, rest) = (*SEEDS.start(), SEEDS.skip(1));
    rest.fold(check_rule(rule, first), |found, seed| found.and_then(|_| check_rule(rule, seed)))
}

/// For each `if` condition of a rule, what [`check_thoroughly`] finds without it: the counterexample that makes the condition
/// needed.
pub fn without_conditions(rule: &Rule) -> Vec<(Condition, Result<RuleReport, Counterexample>)> {
    let each = (0..rule.truth.len()).map(|i| {
        let mut less = rule.clone();
        let gone = less.truth.remove(i);
        (gone, check_thoroughly(&less))
    });
    each.collect()
}

struct Check<'a> {
    rule: &'a Rule,
    plan: Plan,
}

/// What a comparison saw.
#[derive(Default)]
struct Seen {
    points: usize,
    /// Points where the left side was a number.
    numbers: usize,
    worst: f64,
    /// The position of the first difference, and both values.
    found: Option<(Vec<usize>, String, String)>,
}

impl Check<'_> {
    fn typings(&self) -> Result<Vec<Typing>, String> {
        if let Some(head) = opaque(&self.rule.left).or_else(|| opaque(&self.rule.right)) {
            return Err(format!("the checker does not evaluate `{head}`"));
        }
        let all = Typing::all(self.rule, &self.plan.holds);
        if all.is_empty() {
            return Err("no element types fit the left side: of numbers and sizes they are floats".into());
        }
        if self.rule.right.has_own() && !all.iter().all(|t| is_half(t.own)) {
            return Err("`(cast ..)` is to f16 or bf16, and the left side may be of another dtype".into());
        }
        Ok(if self.rule.class == Class::Exact { all } else { Typing::widest(all) })
    }

    /// Choices of axes with data sets each. False where the left side has no graph in this typing.
    fn ordinary(
        &self,
        typing: &Typing,
        frames: usize,
        tally: &mut Tally,
        random: &mut Random,
    ) -> Result<bool, Counterexample> {
        for _ in 0..frames {
            let frame = self.plan.frame(typing, random);
            let Some(sides) = self.sides(&frame, tally)? else { return Ok(false) };
            for _ in 0..SETS {
                let world = self.plan.fill(&frame, random);
                self.set(&sides, world, tally, random)?;
            }
        }
        Ok(true)
    }

    /// Axes as long as the literals of the rule, and a few positions around that.
    fn long(&self, typing: &Typing, first: bool, tally: &mut Tally, random: &mut Random) -> Result<(), Counterexample> {
        let folded = self.rule.class != Class::Exact || self.one_pass();
        for size in self.plan.sizes(folded) {
            let sets = if size <= LONG_SETS.1 { LONG_SETS.0 } else { usize::from(first) };
            for _ in 0..sets {
                let frame = self.plan.frame(typing, random);
                let Some(sides) = self.sides(&frame, tally)? else { continue };
                for axis in 0..frame.extents.len() - 1 {
                    let world = self.plan.long(&frame, axis, size, random);
                    self.set(&sides, world, tally, random)?;
                }
            }
        }
        Ok(())
    }

    /// Both sides over a choice of axes; none where the left side is no graph.
    fn sides(&self, frame: &World, tally: &mut Tally) -> Result<Option<Sides>, Counterexample> {
        match graph::symbolic(self.rule, frame) {
            Ok(sides) => {
                tally.captured = tally.captured.take().or_else(|| sides.captured.clone());
                Ok(Some(sides))
            }
            Err(Refused::Left(message)) => {
                tally.refused.get_or_insert(message);
                Ok(None)
            }
            Err(Refused::Right(message)) => Err(self.without_data(format!("in {}, {message}", frame.typing))),
        }
    }

    /// Compares both sides on a data set.
    fn set(&self, sides: &Sides, world: World, tally: &mut Tally, random: &mut Random) -> Result<(), Counterexample> {
        let seen = self.compare(sides, &world, POINTS, random).map_err(|message| self.without_data(message))?;
        if seen.found.is_some() {
            return Err(self.counterexample(world));
        }
        tally.points += seen.points;
        tally.report.numbers += seen.numbers;
        tally.report.worst = tally.report.worst.max(seen.worst);
        Ok(())
    }

    fn without_data(&self, reason: String) -> Counterexample {
        let program = Err("there is no data to run it on".into());
        Counterexample { rule: self.rule.name.clone(), reason, data: Vec::new(), program }
    }

    /// Compares both sides: everywhere where bits count, else at so many points, and where they are farthest apart.
    fn compare(&self, sides: &Sides, world: &World, most: usize, random: &mut Random) -> Result<Seen, String> {
        let said = |d: Diagnostic| d.message;
        let inputs = graph::inputs(world).map_err(said)?;
        let results = interp::run(&sides.module, "main", &inputs, &graph::sizes(world), Mode::Strict).map_err(said)?;
        let [left, right] = results.as_slice() else { return Err("a rule has two sides".into()) };
        if self.rule.class == Class::Exact && !self.one_pass() {
            return Ok(bits(left, right));
        }
        let mut seen = Seen::default();
        let (Some(x), Some(y)) = (left.to_f64(), right.to_f64()) else { return Ok(seen) };
        let places: Vec<usize> = match x.len() <= most {
            true => (0..x.len()).collect(),
            false => (0..most).map(|_| random.below(x.len())).chain(farthest(&x, &y)).collect(),
        };
        for i in places {
            let at = position(left.shape(), i);
            let numbers = [x.get(i), y.get(i)].map(|n| n.copied().unwrap_or(f64::NAN));
            let pairs = self.pairs(sides, world, &at, numbers)?;
            seen.points += 1;
            seen.numbers += usize::from(!numbers[0].is_nan());
            for (l, r) in pairs {
                let Some(fraction) = allowed(&self.rule.class, self.slack(world), l, r) else { continue };
                if fraction > 1.0 && seen.found.is_none() {
                    seen.found = Some((at.clone(), format!("{:?}", l.value), format!("{:?}", r.value)));
                }
                seen.worst = seen.worst.max(fraction);
            }
        }
        Ok(seen)
    }

    /// Both sides at a point with bounds of their rounding, as the evaluator and as the interpreter compute them.
    fn pairs(
        &self,
        sides: &Sides,
        world: &World,
        at: &[usize],
        numbers: [f64; 2],
    ) -> Result<Vec<(Bounded, Bounded)>, String> {
        let bounded = |error: [f64; 2]| {
            let [l, r] = [0, 1].map(|i: usize| Bounded { value: numbers[i], error: error[i] });
            (l, r)
        };
        let typing = &world.typing;
        if !(typing.in_reals(&self.rule.left) && typing.in_reals(&self.rule.right)) {
            let units = 16.0 * epsilon(typing.own) / f64::EPSILON;
            return Ok(vec![bounded(numbers.map(|x| units * (1.0 + x.abs())))]);
        }
        let mut point = vec![0; world.extents.len()];
        for (axis, at) in sides.axes.iter().zip(at) {
            if let Some(slot) = point.get_mut(*axis) {
                *slot = *at;
            }
        }
        let (left, right) = (world.eval(&self.rule.left, &mut point)?, world.eval(&self.rule.right, &mut point)?);
        // Graphs have no folds in one pass, so that their bits are those of something else.
        let exact = self.rule.class == Class::Exact;
        let strict = (!exact).then(|| bounded([left.error, right.error]));
        Ok([(left, right)].into_iter().chain(strict).collect())
    }

    fn one_pass(&self) -> bool {
        one_pass(&self.rule.left) || one_pass(&self.rule.right)
    }

    fn slack(&self, world: &World) -> Slack {
        let own = world.typing.own;
        Slack::of(&self.rule.left, own).with(Slack::of(&self.rule.right, own))
    }

    /// What is found in a data set at all of its points.
    fn difference(&self, world: &World) -> Option<(Vec<usize>, String, String)> {
        let sides = graph::symbolic(self.rule, world).ok()?;
        self.compare(&sides, world, MANY_POINTS, &mut Random::new(1)).ok()?.found
    }

    /// The smallest data that differs like `world`.
    fn counterexample(&self, world: World) -> Counterexample {
        let world = shrink::shrink(&self.plan, world, &|w| self.difference(w).is_some());
        let (at, left, right) = self.difference(&world).unwrap_or_default();
        let typing = &world.typing;
        let place = if at.is_empty() { String::new() } else { format!(" at {at:?}") };
        let reason = format!("in {typing}, left is {left}, right is {right}{place}");
        let program = self.program(&world, &reason);
        Counterexample { rule: self.rule.name.clone(), reason, data: show(&world), program }
    }

    /// The module of a counterexample, and what the strict interpreter says of it.
    fn program(&self, world: &World, reason: &str) -> Result<String, String> {
        let elements: usize = world.values.values().map(|t| t.data.len()).sum();
        if elements > MOST_WRITTEN {
            return Err(format!("its data has {elements} numbers"));
        }
        let sides = graph::constant(self.rule, world).map_err(|refused| match refused {
            Refused::Left(message) | Refused::Right(message) => message,
        })?;
        let results = interp::run(&sides.module, "main", &[], &BTreeMap::new(), Mode::Strict).map_err(|d| d.message)?;
        let line = &self.rule.line;
        let mut out = format!("// The rule at {}:{} is wrong: {reason}\n", line.file, line.number);
        out += &self.rule.to_string().lines().map(|l| format!("//   {l}\n")).collect::<String>();
        out += "// Result 0 is its left side, result 1 its right side:\n";
        out += "//   tilewright run FILE --device interpreter --interpreter strict\n";
        if let [left, right] = results.as_slice()
            && let Some((at, left, right)) = bits(left, right).found
        {
            out += &format!("// They differ first at {at:?}, where the strict interpreter gives {left} and {right}.\n");
        } else {
            out += "// The strict interpreter finds them equal.\n";
        }
        if self.one_pass() {
            out += "// A fold in one pass is written as what it means, which may be right where the one pass is not.\n";
        }
        Ok(out + &print(&sides.module))
    }
}

/// Compares every bit of every element; NaN equals NaN.
fn bits(left: &Array, right: &Array) -> Seen {
    let (x, y) = (left.to_f64().unwrap_or_default(), right.to_f64().unwrap_or_default());
    let size = left.dtype().block().1;
    let mut seen = Seen { points: x.len(), ..Seen::default() };
    let elements = left.bytes().chunks_exact(size).zip(right.bytes().chunks_exact(size));
    for (i, ((l, r), (x, y))) in elements.zip(x.iter().zip(&y)).enumerate() {
        seen.numbers += usize::from(!x.is_nan());
        if l != r && !(x.is_nan() && y.is_nan()) && seen.found.is_none() {
            let text = |a: &Array| element_text(a, i).unwrap_or_default();
            seen.found = Some((position(left.shape(), i), text(left), text(right)));
        }
    }
    seen
}

/// The places of the largest difference and of the largest in relation to the numbers, if there are any.
fn farthest(x: &[f64], y: &[f64]) -> impl Iterator<Item = usize> {
    let mut most = [(0.0, None); 2];
    for (i, (a, b)) in x.iter().zip(y).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        let difference = if same { 0.0 } else { (a - b).abs() };
        for (found, size) in most.iter_mut().zip([difference, difference / (a.abs() + b.abs())]) {
            // What is no number is farthest.
            let size = if size.is_nan() && !same { f64::INFINITY } else { size };
            if size > found.0 {
                *found = (size, Some(i));
            }
        }
    }
    most.into_iter().filter_map(|m| m.1)
}

/// The index of an element, one number an axis.
fn position(shape: &[usize], mut element: usize) -> Vec<usize> {
    let mut at: Vec<usize> = shape.iter().rev().map(|&n| (element % n.max(1), element /= n.max(1)).0).collect();
    at.reverse();
    at
}

/// The difference as a fraction of what the class allows; `None` where there is nothing to compare.
fn allowed(class: &Class, slack: Slack, left: Bounded, right: Bounded) -> Option<f64> {
    let (x, y) = (left.value, right.value);
    let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    let difference = (x - y).abs();
    let bits = f64::from(u8::from(!same)) * 2.0;
    let allowed = match class {
        Class::Exact => return Some(bits),
        Class::Rounding if same => return Some(0.0),
        Class::Rounding => 4.0 * (slack.relative * x.abs() + slack.absolute),
        Class::Reassociates | Class::Domain(_) => 4.0 * f64::EPSILON * (left.error + right.error),
        Class::Approx(_) => {
            64.0 * f64::EPSILON * (left.error + right.error) + class.bound().map_or(0.0, |bound| bound * x.abs())
        }
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

/// Numbers of a variable that are shown before the last one.
const SHOWN: usize = 64;

/// Sizes of axes and data of variables, one a line.
fn show(world: &World) -> Vec<String> {
    let used = |axis: usize| world.values.values().any(|t| t.depends.get(axis) == Some(&true));
    let label = |axis: usize| {
        let names: Vec<String> =
            world.axes.iter().filter(|(_, at)| **at == axis).map(|(name, _)| format!("?{name}")).collect();
        if names.is_empty() { "(outer)".to_string() } else { names.join(" = ") }
    };
    let named = |axis: usize| world.axes.values().any(|at| *at == axis);
    let shown = (0..world.extents.len()).filter(|&axis| named(axis) || used(axis));
    let sizes = shown.map(|axis| format!("{} of {}", label(axis), world.extents[axis]));
    let values = world.values.iter().map(|(name, table)| {
        let axes: Vec<String> =
            (0..world.extents.len()).filter(|&i| table.depends.get(i) == Some(&true)).map(label).collect();
        let number = |x: &f64| match world.typing.variable(name) {
            Some(DType::Bool) => (*x != 0.0).to_string(),
            Some(dtype) if dtype.is_int() => x.to_string(),
            Some(_) | None => format!("{x:?}"),
        };
        let mut data: Vec<String> = table.data.iter().take(SHOWN).map(number).collect();
        if let Some(last) = table.data.last().filter(|_| table.data.len() > SHOWN) {
            data.extend(["..".into(), number(last)]);
        }
        format!("?{name}[{}] = [{}]", axes.join(", "), data.join(", "))
    });
    sizes.chain(values).collect()
}
