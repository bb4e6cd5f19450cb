//! How far results are from the interpreter's, and how far they may be.

use super::random::Random;
use std::collections::BTreeSet;
use tilewright_ir::array::{Array, room};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::Mode;
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::element_text;
use tilewright_ir::types::DType;

/// How the interpreter rounds, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Rounding {
    /// Every op rounds its result to its dtype; sums of f16 and bf16 run in f32 and round once
    Strict,
    /// Floats are f64 from the inputs to the results; only casts round
    F64,
}

impl Rounding {
    /// The mode of the interpreter.
    pub fn mode(self) -> Mode {
        match self {
            Rounding::Strict => Mode::Strict,
            Rounding::F64 => Mode::Meaning,
        }
    }
}

/// How far one result is from what was expected.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    /// The largest difference of an element, in the unit of [`check`]; NaN where one is NaN and the other is not.
    pub error: f64,
    /// What `error` may be.
    pub tolerance: f64,
    /// The element that differs most; none where all are equal.
    pub worst: Option<Worst>,
    /// Elements that the inputs do not determine: they differ by no more than they move with the inputs, see [`check`].
    pub undetermined: usize,
}

/// The element of a result that differs most.
#[derive(Clone, Debug)]
pub(super) struct Worst {
    /// Its position, one number an axis.
    pub at: Vec<usize>,
    /// What it is.
    pub found: String,
    /// What the interpreter gives, in one mode or two.
    pub expected: Vec<(Mode, String)>,
    /// `|found - expected|`, of the nearer expected one.
    pub absolute: f64,
    /// That over `|expected|`.
    pub relative: f64,
}

impl Difference {
    /// Whether the result is what it should be. A NaN is near to nothing.
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// `[1, 2]: found 1.5, expected 1.0 (f64) or 1.25 (strict); absolute difference 2.5e-1, relative 2.0e-1`.
impl std::fmt::Display for Worst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = |(mode, text): &(Mode, String)| format!("{text} ({})", name(*mode));
        let expected: Vec<String> = self.expected.iter().map(named).collect();
        write!(f, "{:?}: found {}, expected {}", self.at, self.found, expected.join(" or "))?;
        write!(f, "; absolute difference {:.3e}, relative {:.3e}", self.absolute, self.relative)
    }
}

/// The name of a mode on the command line.
pub(super) fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Strict => "strict",
        Mode::Meaning => "f64",
    }
}

/// The difference of each result of the entry of `module` from what `interpret` gives: in the chosen mode, else in f64 and,
/// where that is not near, in f64 or strict.
///
/// An element is right if it is near one of these, or, as a finite float, between them: code may round what it keeps, or
/// keep what it need not round. Near means: equal for integers and bools; else within the tolerance of the coarsest
/// float on the way to the result, in units of `1 + |x|` for f32 and f64, and for halves, which are summed in another order,
/// of `1 + ` the largest finite `|x|` of the result. NaN equals NaN.
///
/// Where that is not so and no mode was chosen, the interpreter runs [`MOVES`] times more, with each float of the inputs moved by as much as
/// the tolerance, as a part of itself. An element that moves with them by as much as it differs is not wrong but
/// *undetermined*: it would be right for inputs that are as near to these as their precision says (backward stability: Higham,
/// Accuracy and Stability of Numerical Algorithms, 2002, section 1.5). Integers and bools must be one of those that were found so.
///
/// Errors: `check` where numbers of results, dtypes or shapes differ; those of the interpreter.
pub(super) fn check(
    module: &Module,
    found: &[Array],
    chosen: Option<Rounding>,
    inputs: &[Array],
    interpret: impl Fn(Mode, &[Array]) -> Result<Vec<Array>, Diagnostic>,
) -> Result<Vec<Difference>, Diagnostic> {
    let mode = chosen.map_or(Mode::Meaning, Rounding::mode);
    let first = (mode, interpret(mode, inputs)?);
    let differences = compare(module, found, &[&first], &[])?;
    if chosen.is_some() || differences.iter().all(Difference::passes) {
        return Ok(differences);
    }
    let strict = (Mode::Strict, interpret(Mode::Strict, inputs)?);
    let differences = compare(module, found, &[&first, &strict], &[])?;
    if differences.iter().all(Difference::passes) {
        return Ok(differences);
    }
    let entry = module.entry()?;
    let relative = (0..found.len()).map(|i| coarsest(module, entry, i).tolerance()).fold(0.0, f64::max);
    let mut random = Random::new(1);
    let mut moved = Vec::new();
    for _ in 0..MOVES {
        let inputs: Vec<Array> = inputs.iter().map(|a| random.near(a, relative)).collect::<Result<_, _>>()?;
        moved.push(interpret(Mode::Meaning, &inputs)?);
    }
    compare(module, found, &[&first, &strict], &moved)
}

/// How often the inputs are moved.
const MOVES: usize = 4;

/// Results of the interpreter, and the mode in which it ran.
type Reference = (Mode, Vec<Array>);

fn compare(
    module: &Module,
    found: &[Array],
    expected: &[&Reference],
    moved: &[Vec<Array>],
) -> Result<Vec<Difference>, Diagnostic> {
    let entry = module.entry()?;
    for (_, expected) in expected {
        if found.len() != expected.len() || found.len() != entry.results.len() {
            let (want, found) = (expected.len(), found.len());
            return Err(Diagnostic::new("check", format!("expected {want} results, found {found}")));
        }
    }
    let each = found.iter().enumerate().map(|(i, found)| {
        let expected: Vec<(Mode, &Array)> = expected.iter().map(|(mode, all)| (*mode, &all[i])).collect();
        let moved: Vec<&Array> = moved.iter().filter_map(|all| all.get(i)).collect();
        let dtype = found.dtype();
        let coarsest =
            if dtype.is_float() { coarsest(module, entry, i).max(precision(dtype)) } else { Precision::Exact };
        difference(found, &expected, &moved, coarsest).map_err(|d| d.note(format!("result {i}")))
    });
    each.collect()
}

/// An error that names the first result that differs too much.
pub(super) fn verdict(differences: &[Difference], found: &[Array]) -> Result<(), Diagnostic> {
    for (i, (d, found)) in differences.iter().zip(found).enumerate() {
        if !d.passes() {
            let (dtype, error, most) = (found.dtype(), d.error, d.tolerance);
            let place = d.worst.as_ref().map_or_else(String::new, |worst| format!(" at {worst}"));
            let message = format!("result {i} ({dtype}{:?}) differs from the interpreter{place}", found.shape());
            let note = format!("the scaled difference is {error:.3e}, expected at most {most:.1e}");
            return Err(Diagnostic::new("check", message).note(note));
        }
    }
    Ok(())
}

/// Precisions of dtypes, the coarsest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Exact,
    F64,
    F32,
    F16,
    Bf16,
}

impl Precision {
    /// Some thousands of roundings for wide floats; some units in the last place for halves, which are summed in f32.
    fn tolerance(self) -> f64 {
        match self {
            Precision::Exact => 0.0,
            Precision::F64 => 1e-9,
            Precision::F32 => 1e-4,
            Precision::F16 => 8.0 * f64::from(half::f16::EPSILON),
            Precision::Bf16 => 8.0 * f64::from(half::bf16::EPSILON),
        }
    }
}

fn precision(dtype: DType) -> Precision {
    match dtype {
        DType::F64 => Precision::F64,
        DType::F32 => Precision::F32,
        DType::F16 => Precision::F16,
        DType::Bf16 => Precision::Bf16,
        DType::I8
        | DType::U8
        | DType::I16
        | DType::U16
        | DType::I32
        | DType::U32
        | DType::I64
        | DType::U64
        | DType::Bool
        | DType::Q8_0
        | DType::Q4_0
        | DType::Q4_1
        | DType::Q4K
        | DType::Q6K => Precision::Exact,
    }
}

/// The coarsest float that is computed on the way to a result. Parameters and constants are what they are.
fn coarsest(module: &Module, f: &Function, result: usize) -> Precision {
    let mut needed = f.clone();
    needed.results = f.results.get(result).copied().into_iter().collect();
    let live = needed.live();
    let mut worst = Precision::Exact;
    let mut seen = BTreeSet::new();
    let mut todo: Vec<(&Function, Option<&[bool]>)> = vec![(f, Some(&live))];
    while let Some((f, live)) = todo.pop() {
        for (i, node) in f.nodes.iter().enumerate() {
            if live.is_some_and(|live| !live[i]) {
                continue;
            }
            if !matches!(node.op, GraphOp::Parameter { .. } | GraphOp::Constant { .. }) {
                worst = node.types.iter().map(|t| precision(t.dtype)).fold(worst, Precision::max);
            }
            for name in node.callees() {
                if let Some(callee) = module.functions.get(name)
                    && seen.insert(name)
                {
                    todo.push((callee, None));
                }
            }
        }
    }
    worst
}

fn difference(
    found: &Array,
    expected: &[(Mode, &Array)],
    moved: &[&Array],
    precision: Precision,
) -> Result<Difference, Diagnostic> {
    for (_, expected) in expected {
        if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
            let text = |a: &Array| format!("{}{:?}", a.dtype(), a.shape());
            return Err(Diagnostic::new("check", format!("expected {}, found {}", text(expected), text(found))));
        }
    }
    let tolerance = precision.tolerance();
    // The result and what is expected, as f64.
    room(found.len().saturating_mul(8 * (1 + expected.len() + moved.len())))?;
    let values: Option<Vec<Vec<f64>>> = expected.iter().map(|(_, a)| a.to_f64()).collect();
    let (Some(x), Some(values)) = (found.to_f64(), values) else {
        // Encoded blocks are copied, never computed.
        let same = expected.iter().any(|(_, a)| found.bytes()[..] == a.bytes()[..]);
        let error = if same { 0.0 } else { f64::NAN };
        return Ok(Difference { error, tolerance, worst: None, undetermined: 0 });
    };
    let moved: Vec<Vec<f64>> = moved.iter().filter_map(|a| a.to_f64()).collect();
    let finite = values.iter().flatten().filter(|v| v.is_finite());
    let scale = Scale { precision, largest: finite.fold(0.0f64, |most, v| most.max(v.abs())) };
    let size = found.dtype().block().1;
    let (mut error, mut worst, mut undetermined) = (0.0, None, 0);
    for (i, &x) in x.iter().enumerate() {
        let bits = |a: &Array| a.bytes()[i * size..][..size] == found.bytes()[i * size..][..size];
        // Numbers of 64 bits may be equal as f64 and yet differ.
        if expected.iter().any(|(_, a)| bits(a)) {
            continue;
        }
        let all = values.iter().map(|v| v[i]);
        let here = if precision == Precision::Exact { scale.unequal(x, all) } else { scale.distance(x, all) };
        let near = here <= tolerance;
        if !near && reaches(x, values[0][i], moved.iter().map(|m| m[i]), found.dtype().is_float()) {
            undetermined += 1;
            continue;
        }
        if here > error || (here.is_nan() && !f64::is_nan(error)) {
            worst = Some(i);
        }
        error = worse(error, here);
    }
    let worst = worst.map(|i| {
        let text = |a: &Array| element_text(a, i).unwrap_or_default();
        let near = values.iter().map(|v| v[i]).min_by(|a, b| (x[i] - a).abs().total_cmp(&(x[i] - b).abs()));
        let (near, absolute) = near.map_or((f64::NAN, f64::NAN), |near| (near, (x[i] - near).abs()));
        Worst {
            at: position(found.shape(), i),
            found: text(found),
            expected: expected.iter().map(|(mode, a)| (*mode, text(a))).collect(),
            absolute,
            relative: absolute / near.abs(),
        }
    });
    Ok(Difference { error, tolerance, worst, undetermined })
}

/// Whether `x` is one of the results for moved inputs or, as a finite float, no further from `y`, the result for inputs that
/// did not move, than they are.
fn reaches(x: f64, y: f64, moved: impl Iterator<Item = f64>, float: bool) -> bool {
    let within = |m: f64| float && m.is_finite() && (x - y).abs() <= (m - y).abs();
    moved.into_iter().any(|m| m == x || (m.is_nan() && x.is_nan()) || within(m))
}

/// What a difference is measured in.
struct Scale {
    precision: Precision,
    /// The largest finite number that is expected.
    largest: f64,
}

impl Scale {
    /// How far a float is from the nearest of those expected; 0 between finite ones.
    fn distance(&self, x: f64, expected: impl Iterator<Item = f64> + Clone) -> f64 {
        let finite = expected.clone().filter(|y| y.is_finite());
        let (low, high) = (finite.clone().fold(f64::INFINITY, f64::min), finite.fold(f64::NEG_INFINITY, f64::max));
        if (low..=high).contains(&x) {
            return 0.0;
        }
        let apart = |y: f64| {
            if x == y || (x.is_nan() && y.is_nan()) {
                return 0.0;
            }
            let unit = match self.precision {
                Precision::Exact => 1.0,
                Precision::F64 | Precision::F32 => 1.0 + y.abs(),
                Precision::F16 | Precision::Bf16 => 1.0 + self.largest,
            };
            // Of two that are not finite, and of one, the difference is not, whatever the unit.
            if x.is_finite() && y.is_finite() { (x - y).abs() / unit } else { f64::NAN }
        };
        // `min` passes over NaN.
        expected.map(apart).fold(f64::NAN, f64::min)
    }

    /// How far a number is from the nearest of those expected, none of which it equals bit for bit.
    fn unequal(&self, x: f64, expected: impl Iterator<Item = f64>) -> f64 {
        let least = expected.map(|y| (x - y).abs()).fold(f64::NAN, f64::min);
        // The integers differ although they are one f64.
        least.max(1.0)
    }
}

/// The index of an element, one number an axis.
fn position(shape: &[usize], mut element: usize) -> Vec<usize> {
    let mut at: Vec<usize> = shape.iter().rev().map(|&n| (element % n.max(1), element /= n.max(1)).0).collect();
    at.reverse();
    at
}

/// The larger of two errors; NaN is the largest.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Module {
        tilewright_ir::text::parse("t.tw", text).unwrap_or_else(|d| panic!("{d}"))
    }

    fn floats(values: &[f32]) -> Vec<Array> {
        vec![Array::from_f32(&[values.len()], values).unwrap()]
    }

    fn of(dtype: DType, values: &[f64]) -> Vec<Array> {
        let bytes: Vec<u8> =
            values.iter().flat_map(|x| Array::from_number(dtype, *x).unwrap().bytes().to_vec()).collect();
        vec![Array::new(dtype, &[values.len()], tilewright_ir::array::Bytes::new(bytes)).unwrap()]
    }

    fn in_f64(m: &Module, found: &[Array], expected: &[Array]) -> Result<Vec<Difference>, Diagnostic> {
        check(m, found, Some(Rounding::F64), &[], |_, _| Ok(expected.to_vec()))
    }

    /// Whether each element would pass alone, of an f16 graph whose results are `meaning` in f64 and `strict` else.
    fn passes(found: &[f64], meaning: &[f64], strict: &[f64]) -> Vec<bool> {
        let m = module("func @main(%x: f16[1]) -> f16[1] { %0 = neg %x\n return %0 }");
        let one = |x: f64| of(DType::F16, &[x]);
        let each = found.iter().zip(meaning.iter().zip(strict)).map(|(&x, (&y, &z))| {
            let interpret = |mode, _: &[Array]| Ok(one(if mode == Mode::Strict { z } else { y }));
            check(&m, &one(x), None, &[], interpret).unwrap()[0].passes()
        });
        each.collect()
    }

    #[test]
    fn halves_may_be_rounded_on_the_way_or_not() {
        let inf = f64::INFINITY;
        // Overflow on the way: the large number or the infinity, and nothing between.
        assert_eq!(
            passes(&[90.0, inf, 500.0, -inf, f64::NAN], &[90.0; 5], &[inf; 5]),
            [true, true, false, false, false]
        );
        // A difference that strict rounding loses: anything between, and what is near; not what lies outside.
        assert_eq!(passes(&[0.0, 4.0, 8.0, 9.0, -1.0], &[0.0; 5], &[8.0; 5]), [true, true, true, false, false]);
        // Where both agree there is one answer.
        assert_eq!(passes(&[1.0, 1.001, 1.5], &[1.0; 3], &[1.0; 3]), [true, true, false]);
    }

    #[test]
    fn a_mode_that_was_chosen_is_the_only_one() {
        let m = module("func @main(%x: f16[1]) -> f16[1] { %0 = neg %x\n return %0 }");
        let interpret = |mode, _: &[Array]| Ok(of(DType::F16, &[if mode == Mode::Strict { 8.0 } else { 0.0 }]));
        let found = of(DType::F16, &[8.0]);
        let passes = |chosen| check(&m, &found, chosen, &[], interpret).unwrap()[0].passes();
        assert_eq!([Some(Rounding::F64), Some(Rounding::Strict), None].map(passes), [false, true, true]);
    }

    #[test]
    fn what_the_inputs_do_not_determine_is_no_error() {
        let text = "func @main(%x: f32[2]) -> (f32[2], bool[2]) {
            %0 = cos %x\n %1 = constant f32[] = 0.5\n %2 = broadcast %1 shape=[2] dims=[]\n %3 = lt %0, %2\n return %0, %3 }";
        let m = module(text);
        let inputs = floats(&[1e7, 0.5]);
        let bindings = tilewright_ir::types::Bindings::new();
        let interpret = |mode, inputs: &[Array]| tilewright_ir::interp::run(&m, "main", inputs, &bindings, mode);
        let exact = interpret(Mode::Meaning, &inputs).unwrap();
        let check = |cos: [f32; 2], less: [bool; 2]| {
            let less =
                Array::new(DType::Bool, &[2], tilewright_ir::array::Bytes::new(less.map(u8::from).to_vec())).unwrap();
            let found = [floats(&cos), vec![less]].concat();
            check(&m, &found, None, &inputs, interpret).unwrap()
        };
        let (near, far) = (exact[0].to_f64().unwrap()[1] as f32, exact[0].to_f64().unwrap()[0] as f32);
        let least = exact[1].bytes()[0] == 1;
        // The cosine of ten million is any number, the one of a half is not.
        let one = check([-far / 2.0, near], [!least, false]);
        assert!(one.iter().all(Difference::passes) && one.iter().all(|d| d.undetermined == 1), "{one:?}");
        let other = check([far, near + 0.01], [least, true]);
        assert!(other.iter().all(|d| !d.passes() && d.undetermined == 0), "{other:?}");
        assert!(!check([2.5, near], [least, false])[0].passes(), "no cosine");
    }

    #[test]
    fn a_difference_says_where_and_how_large() {
        let m = module("func @main(%x: f32[2, 3]) -> f32[2, 3] { %0 = neg %x\n return %0 }");
        let of = |x: f32| vec![Array::from_f32(&[2, 3], &[0.0, 0.0, 0.0, 0.0, 0.0, x]).unwrap()];
        let found = of(1.5);
        let differences = in_f64(&m, &found, &of(1.25)).unwrap();
        let error = verdict(&differences, &found).unwrap_err().to_string();
        let want = "result 0 (f32[2, 3]) differs from the interpreter at [1, 2]: found 1.5, expected 1.25 (f64); \
                    absolute difference 2.500e-1, relative 2.000e-1";
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn a_nan_before_a_finite_difference_is_not_hidden() {
        let m = module("func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
        let found = in_f64(&m, &floats(&[f32::NAN, 1.5]), &floats(&[1.0, 1.0])).unwrap();
        assert!(found[0].error.is_nan() && !found[0].passes(), "{found:?}");
        assert_eq!(found[0].worst.as_ref().unwrap().at, [0]);
        let same = in_f64(&m, &floats(&[f32::NAN, f32::INFINITY]), &floats(&[f32::NAN, f32::INFINITY])).unwrap();
        assert!(same[0].error == 0.0 && same[0].passes());
        let infinite = in_f64(&m, &floats(&[f32::INFINITY, 1.0]), &floats(&[1.0, 1.0])).unwrap();
        assert!(!infinite[0].passes());
    }

    #[test]
    fn other_shapes_and_numbers_of_results_are_errors() {
        let m = module("func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
        assert_eq!(in_f64(&m, &floats(&[1.0]), &floats(&[1.0, 1.0])).unwrap_err().code, "check");
        assert_eq!(in_f64(&m, &[], &floats(&[1.0, 1.0])).unwrap_err().code, "check");
        let integers = [Array::from_i64(&[2], &[1, 1]).unwrap()];
        assert_eq!(in_f64(&m, &integers, &floats(&[1.0, 1.0])).unwrap_err().code, "check");
    }

    #[test]
    fn integers_must_be_equal() {
        let m = module("func @main(%x: i64[1]) -> i64[1] { %0 = neg %x\n return %0 }");
        let big = |x: i64| [Array::from_i64(&[1], &[x]).unwrap()];
        let found = in_f64(&m, &big((1 << 60) + 1), &big(1 << 60)).unwrap();
        assert!(!found[0].passes());
        assert!(in_f64(&m, &big(1 << 60), &big(1 << 60)).unwrap()[0].passes());
    }

    #[test]
    fn tolerances_are_those_of_the_coarsest_float_on_the_way() {
        let text = "func @main(%x: bf16[2], %y: f32[2]) -> (f32[2], f32[2]) {
            %0 = exp %x\n %1 = cast %0 to=f32\n %2 = exp %y\n return %1, %2 }";
        let m = module(text);
        let results = |x: f32| [floats(&[x, 4.0]), floats(&[x, 4.0])].concat();
        let found = in_f64(&m, &results(1.01), &results(1.0)).unwrap();
        assert_eq!(found.iter().map(Difference::passes).collect::<Vec<_>>(), [true, false], "{found:?}");
    }
}
