//! Which integer inputs choose places, and how many places there are: random ones must be inside.

use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, Value};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::{Bindings, Dim};

/// Most calls inside one another; deeper ones are refused by whoever runs them.
const MAX_DEPTH: usize = 64;
/// What is allowed of integers that reach an index through arithmetic: 0 and 1 stay small under sums and products.
const THROUGH_ARITHMETIC: usize = 2;

/// For each parameter of `f`, how many places there are where its elements choose one: elements must be below. `None`
/// for those that choose nothing. Sizes are those under `bindings`.
///
/// Errors: `symbol` where a size is not known.
pub(super) fn limits(module: &Module, f: &Function, bindings: &Bindings) -> Result<Vec<Option<usize>>, Diagnostic> {
    let wanted = vec![None; f.results.len()];
    walk(module, f, bindings, &wanted, 0)
}

/// Backwards from the results, whose own limits are `wanted`, and from every index operand.
fn walk(
    module: &Module,
    f: &Function,
    bindings: &Bindings,
    wanted: &[Option<usize>],
    depth: usize,
) -> Result<Vec<Option<usize>>, Diagnostic> {
    let mut least: BTreeMap<Value, usize> = BTreeMap::new();
    for (&result, &limit) in f.results.iter().zip(wanted) {
        note(&mut least, result, limit);
    }
    for (i, node) in f.nodes.iter().enumerate().rev() {
        let of = |index: usize| Value { node: tilewright_ir::graph::NodeId(i as u32), index: index as u32 };
        let own = least.get(&of(0)).copied();
        match &node.op {
            GraphOp::Take { axis } | GraphOp::TakeAlong { axis } | GraphOp::ScatterAdd { axis } => {
                let [x, ids, rest @ ..] = &*node.args else { continue };
                let places = f.ty(*x).shape.get(*axis).map(|d| size(d, bindings)).transpose()?;
                note(&mut least, *ids, places);
                for arg in [x].into_iter().chain(rest) {
                    note(&mut least, *arg, own);
                }
            }
            GraphOp::Call { function } => {
                let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                called(module, f, bindings, (node, function, &node.args), (&all, depth), &mut least)?;
            }
            GraphOp::Cond { yes, no } => {
                let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                for function in [yes, no] {
                    let args = node.args.get(1..).unwrap_or_default();
                    called(module, f, bindings, (node, function, args), (&all, depth), &mut least)?;
                }
            }
            GraphOp::Scan { body, .. } => {
                let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                called(module, f, bindings, (node, body, &node.args), (&all, depth), &mut least)?;
            }
            op => {
                let moved = moves(op);
                for &arg in &node.args {
                    note(&mut least, arg, own.map(|n| if moved { n } else { n.min(THROUGH_ARITHMETIC) }));
                }
            }
        }
    }
    Ok((0..f.params.len()).map(|i| least.get(&f.param(i)).copied()).collect())
}

/// The limits of a callee's parameters, for the arguments of a call.
fn called(
    module: &Module,
    f: &Function,
    bindings: &Bindings,
    (_node, function, args): (&Node, &str, &[Value]),
    (wanted, depth): (&[Option<usize>], usize),
    least: &mut BTreeMap<Value, usize>,
) -> Result<(), Diagnostic> {
    let Some(callee) = module.functions.get(function).filter(|_| depth < MAX_DEPTH) else { return Ok(()) };
    let mut inner = bindings.clone();
    for (param, &arg) in callee.params.iter().zip(args) {
        // A scan hands over slices: axes are counted from the minor end.
        for (dim, found) in param.ty.shape.iter().rev().zip(f.ty(arg).shape.iter().rev()) {
            if let Some(s) = callee.symbols.iter().find(|s| *dim == Dim::symbol(&s.name)) {
                inner.insert(s.name.clone(), size(found, bindings)? as i64);
            }
        }
    }
    for (limit, &arg) in walk(module, callee, &inner, wanted, depth + 1)?.into_iter().zip(args) {
        note(least, arg, limit);
    }
    Ok(())
}

fn note(least: &mut BTreeMap<Value, usize>, value: Value, limit: Option<usize>) {
    if let Some(limit) = limit {
        least.entry(value).and_modify(|known| *known = limit.min(*known)).or_insert(limit);
    }
}

fn size(dim: &Dim, bindings: &Bindings) -> Result<usize, Diagnostic> {
    let size = dim.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
    Ok(usize::try_from(size).unwrap_or(0))
}

/// Whether the elements of a result are among those of its operands.
fn moves(op: &GraphOp) -> bool {
    match op {
        GraphOp::Map { op } => matches!(
            op,
            ScalarOp::Cast { .. } | ScalarOp::Select {} | ScalarOp::Max {} | ScalarOp::Min {} | ScalarOp::Abs {}
        ),
        op => op.info().family == tilewright_ir::op::Family::Movement || matches!(op, GraphOp::UpdateSlice { .. }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, bindings: &[(&str, i64)]) -> Vec<Option<usize>> {
        let module = tilewright_ir::text::parse("t.tw", text).unwrap_or_else(|d| panic!("{d}"));
        let bindings = bindings.iter().map(|(s, v)| ((*s).into(), *v)).collect();
        limits(&module, module.entry().unwrap(), &bindings).unwrap()
    }

    #[test]
    fn indices_are_found_behind_moves_casts_arithmetic_and_calls() {
        let text = "func @rows(%t: f32[k, 2], %i: i64[3]) -> f32[3, 2] where k in 1..=9 {
              %0 = take %t, %i axis=0\n return %0 }
            func @main(%x: f32[n, 2], %a: i32[3], %b: i64[1, 3], %c: i64[3], %d: i64[3]) -> (f32[3, 2], f32[3, 2], f32[3, 2], i64[3])
                where n in 1..=9 {
              %0 = cast %a to=i64\n %1 = call %x, %0 function=@rows
              %2 = reshape %b shape=[3]\n %3 = take %x, %2 axis=0
              %4 = mul %c, %c\n %5 = take %x, %4 axis=0
              %6 = neg %d
              return %1, %3, %5, %6 }";
        assert_eq!(found(text, &[("n", 5)]), [None, Some(5), Some(5), Some(2), None]);
        assert_eq!(found(text, &[("n", 1)]), [None, Some(1), Some(1), Some(1), None]);
    }

    #[test]
    fn the_least_axis_counts() {
        let text = "func @main(%x: f32[4, 7], %y: f32[3], %i: i64[2]) -> (f32[4, 2], f32[2]) {
            %0 = take %x, %i axis=1\n %1 = take %y, %i axis=0\n return %0, %1 }";
        assert_eq!(found(text, &[]), [None, None, Some(3)]);
    }
}
