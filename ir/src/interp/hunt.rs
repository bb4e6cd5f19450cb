//! The hunt for the node that makes the first NaN or infinity.

use super::value::{Data, Tensor};
use crate::diag::Diagnostic;
use crate::graph::Node;
use crate::infer::shown_name;
use crate::op::GraphOp;

/// How many elements are of which kind.
#[derive(Default)]
struct Kinds {
    nan: usize,
    infinite: usize,
}

impl Kinds {
    fn of(t: &Tensor) -> Kinds {
        let Data::Float(v) = &*t.data else { return Kinds::default() };
        let count = |what: fn(&f64) -> bool| v.iter().filter(|x| what(x)).count();
        Kinds { nan: count(|x| x.is_nan()), infinite: count(|x| x.is_infinite()) }
    }
}

/// Whether the node made a NaN of operands without one, or an infinity of finite operands: what it made, where, and of what.
/// Nodes that run functions, and those without operands, make nothing themselves.
///
/// Errors: `not-finite`.
pub(super) fn check(function: &str, node: &Node, args: &[Tensor], results: &[Tensor]) -> Result<(), Diagnostic> {
    let runs = matches!(node.op, GraphOp::Call { .. } | GraphOp::Cond { .. } | GraphOp::Scan { .. });
    if runs || args.is_empty() {
        return Ok(());
    }
    let before = args
        .iter()
        .map(Kinds::of)
        .fold(Kinds::default(), |a, b| Kinds { nan: a.nan + b.nan, infinite: a.infinite + b.infinite });
    for result in results {
        let made = Kinds::of(result);
        let from_finite = before.nan == 0 && before.infinite == 0;
        if (made.nan > 0 && before.nan == 0) || (made.infinite > 0 && from_finite) {
            return Err(found(function, node, args, result, &made));
        }
    }
    Ok(())
}

fn found(function: &str, node: &Node, args: &[Tensor], result: &Tensor, made: &Kinds) -> Diagnostic {
    let all = result.floats().map_or(0, <[f64]>::len);
    let bad = |x: &f64| if made.nan > 0 { x.is_nan() } else { x.is_infinite() };
    let at = result.floats().ok().and_then(|v| v.iter().position(bad)).unwrap_or(0);
    let (what, count) = if made.nan > 0 { ("NaN", made.nan) } else { ("infinity", made.infinite) };
    let place = position(at, &result.shape);
    let op = shown_name(&node.op);
    let scope = if node.scope.is_empty() { String::new() } else { format!(", scope {}", node.scope) };
    let message =
        format!("`{op}` in `@{function}`{scope} makes {what} in {count} of {all} elements, the first at {place}");
    let error = Diagnostic::new("not-finite", message);
    args.iter().enumerate().fold(error, |d, (i, t)| {
        // At each element by itself, the operands at this place made it.
        let there = if t.shape == result.shape { element(t, at) } else { None };
        let there = there.map_or_else(String::new, |x| format!("; {x} at {place}"));
        d.note(format!("operand {i}: {}, {}{there}", t.ty(), statistics(t)))
    })
}

fn element(t: &Tensor, at: usize) -> Option<String> {
    match &*t.data {
        Data::Float(v) => v.get(at).map(|x| format!("{x:?}")),
        Data::Int(v) => v.get(at).map(i64::to_string),
        Data::Bool(v) => v.get(at).map(bool::to_string),
        Data::Block(_) => None,
    }
}

/// Range, mean and kinds of the elements.
fn statistics(t: &Tensor) -> String {
    match &*t.data {
        Data::Float(v) => {
            let finite: Vec<f64> = v.iter().copied().filter(|x| x.is_finite()).collect();
            let kinds = Kinds::of(t);
            let zeros = v.iter().filter(|x| **x == 0.0).count();
            let counts = [(zeros, "zeros"), (kinds.infinite, "infinite")];
            let counts =
                counts.iter().filter(|(n, _)| *n > 0).fold(String::new(), |s, (n, of)| format!("{s}, {n} {of}"));
            if finite.is_empty() {
                return format!("nothing finite{counts}");
            }
            let fold = |f: fn(f64, f64) -> f64| finite.iter().copied().reduce(f).unwrap_or(0.0);
            let mean = finite.iter().map(|x| x / finite.len() as f64).sum::<f64>();
            format!("{:.4e} to {:.4e}, mean {mean:.4e}{counts}", fold(f64::min), fold(f64::max))
        }
        Data::Int(v) => match (v.iter().min(), v.iter().max()) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => "empty".into(),
        },
        Data::Bool(v) => format!("{} of {} true", v.iter().filter(|x| **x).count(), v.len()),
        Data::Block(_) => "blocks".into(),
    }
}

/// The place of an element, axis by axis.
fn position(mut at: usize, shape: &[usize]) -> String {
    let mut place = vec![0; shape.len()];
    for (slot, &n) in place.iter_mut().zip(shape).rev() {
        (*slot, at) = (at % n.max(1), at / n.max(1));
    }
    format!("{place:?}")
}
