//! How far results are from the interpreter's, and how far they may be.

use std::collections::BTreeSet;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::DType;

/// How far one result is from what was expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    /// The largest difference of an element, in the unit of [`compare`]; NaN where one is NaN and the other is not.
    pub error: f64,
    /// What `error` may be.
    pub tolerance: f64,
}

impl Difference {
    /// Whether the result is what it should be. A NaN is near to nothing.
    pub fn passes(self) -> bool {
        self.error <= self.tolerance
    }
}

/// The difference of each result of the entry of `module`. Its unit: 1 for integers and bools, which must be equal;
/// `1 + |x|` for f32 and f64; for halves, which are rounded between kernels or not, `1 + ` the largest finite `|x|` of the
/// result. The tolerance is that of the coarsest float on the way to the result. NaN equals NaN.
///
/// Errors: `check` where numbers of results, dtypes or shapes differ.
pub(super) fn compare(module: &Module, found: &[Array], expected: &[Array]) -> Result<Vec<Difference>, Diagnostic> {
    let entry = module.entry()?;
    if found.len() != expected.len() || found.len() != entry.results.len() {
        let (want, found) = (expected.len(), found.len());
        return Err(Diagnostic::new("check", format!("expected {want} results, found {found}")));
    }
    let each = found.iter().zip(expected).enumerate();
    each.map(|(i, (found, expected))| {
        let dtype = expected.dtype();
        let coarsest =
            if dtype.is_float() { coarsest(module, entry, i).max(precision(dtype)) } else { Precision::Exact };
        difference(found, expected, coarsest).map_err(|d| d.note(format!("result {i}")))
    })
    .collect()
}

/// An error that names the first result that differs too much.
pub(super) fn verdict(differences: &[Difference], expected: &[Array]) -> Result<(), Diagnostic> {
    for (i, (d, expected)) in differences.iter().zip(expected).enumerate() {
        if !d.passes() {
            let (dtype, error, most) = (expected.dtype(), d.error, d.tolerance);
            let message = format!(
                "result {i} ({dtype}) differs from the interpreter by {error:.3e}, expected at most {most:.1e}"
            );
            return Err(Diagnostic::new("check", message));
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

fn difference(found: &Array, expected: &Array, precision: Precision) -> Result<Difference, Diagnostic> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        let text = |a: &Array| format!("{}{:?}", a.dtype(), a.shape());
        return Err(Diagnostic::new("check", format!("expected {}, found {}", text(expected), text(found))));
    }
    let tolerance = precision.tolerance();
    let (Some(x), Some(y)) = (found.to_f64(), expected.to_f64()) else {
        // Encoded blocks are copied, never computed.
        let same = found.bytes()[..] == expected.bytes()[..];
        return Ok(Difference { error: if same { 0.0 } else { f64::NAN }, tolerance });
    };
    let largest = y.iter().filter(|v| v.is_finite()).fold(0.0f64, |most, v| most.max(v.abs()));
    let mut error = 0.0f64;
    for (&x, &y) in x.iter().zip(&y) {
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let unit = match precision {
            Precision::Exact => 1.0,
            Precision::F64 | Precision::F32 => 1.0 + y.abs(),
            Precision::F16 | Precision::Bf16 => 1.0 + largest,
        };
        error = worse(error, (x - y).abs() / unit);
    }
    // 64-bit integers that are the same as f64.
    if precision == Precision::Exact && error == 0.0 && found.bytes()[..] != expected.bytes()[..] {
        error = 1.0;
    }
    Ok(Difference { error, tolerance })
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

    #[test]
    fn a_nan_before_a_finite_difference_is_not_hidden() {
        let m = module("func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
        let found = compare(&m, &floats(&[f32::NAN, 1.5]), &floats(&[1.0, 1.0])).unwrap();
        assert!(found[0].error.is_nan() && !found[0].passes(), "{found:?}");
        let same = compare(&m, &floats(&[f32::NAN, f32::INFINITY]), &floats(&[f32::NAN, f32::INFINITY])).unwrap();
        assert!(same[0].error == 0.0 && same[0].passes());
        let infinite = compare(&m, &floats(&[f32::INFINITY, 1.0]), &floats(&[1.0, 1.0])).unwrap();
        assert!(!infinite[0].passes());
    }

    #[test]
    fn other_shapes_and_numbers_of_results_are_errors() {
        let m = module("func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
        assert_eq!(compare(&m, &floats(&[1.0]), &floats(&[1.0, 1.0])).unwrap_err().code, "check");
        assert_eq!(compare(&m, &[], &floats(&[1.0, 1.0])).unwrap_err().code, "check");
        let integers = [Array::from_i64(&[2], &[1, 1]).unwrap()];
        assert_eq!(compare(&m, &integers, &floats(&[1.0, 1.0])).unwrap_err().code, "check");
    }

    #[test]
    fn integers_must_be_equal() {
        let m = module("func @main(%x: i64[1]) -> i64[1] { %0 = neg %x\n return %0 }");
        let big = |x: i64| [Array::from_i64(&[1], &[x]).unwrap()];
        let found = compare(&m, &big((1 << 60) + 1), &big(1 << 60)).unwrap();
        assert!(!found[0].passes());
        assert!(compare(&m, &big(1 << 60), &big(1 << 60)).unwrap()[0].passes());
    }

    #[test]
    fn tolerances_are_those_of_the_coarsest_float_on_the_way() {
        let text = "func @main(%x: bf16[2], %y: f32[2]) -> (f32[2], f32[2]) {
            %0 = exp %x\n %1 = cast %0 to=f32\n %2 = exp %y\n return %1, %2 }";
        let m = module(text);
        let results = |x: f32| [floats(&[x, 4.0]), floats(&[x, 4.0])].concat();
        let found = compare(&m, &results(1.01), &results(1.0)).unwrap();
        assert_eq!(found.iter().map(|d| d.passes()).collect::<Vec<_>>(), [true, false], "{found:?}");
    }
}
