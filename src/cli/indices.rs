//! Which integer inputs choose places, and how many places there are: random ones must be inside.

use std::collections::BTreeMap;
use tilewright_ir::graph::{Function, Module, Value};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::{Bindings, Dim};

/// Most calls inside one another; deeper ones are refused by whoever runs them.
const MAX_DEPTH: usize = 64;
/// What is allowed of integers that reach an index through arithmetic: 0 and 1 stay small under sums and products.
const THROUGH_ARITHMETIC: usize = 2;

/// For each parameter of `f`, how many places there are where its elements choose one: elements must be below. `None`
/// for those that choose nothing. Sizes are those under `bindings`; one that these do not say limits nothing.
pub(super) fn limits(module: &Module, f: &Function, bindings: &Bindings) -> Vec<Option<usize>> {
    let wanted = vec![None; f.results.len()];
    Walk { module, known: BTreeMap::new() }.function(f, bindings, &wanted, 0)
}

/// A function, its sizes and the limits of its results.
type Call = (String, Bindings, Vec<Option<usize>>);

/// What is known of functions that were called before: blocks of a model are called many times, and functions that call
/// each other twice would take exponential time.
struct Walk<'m> {
    module: &'m Module,
    known: BTreeMap<Call, Vec<Option<usize>>>,
}

impl Walk<'_> {
    /// Backwards from the results, whose own limits are `wanted`, and from every index operand.
    fn function(
        &mut self,
        f: &Function,
        bindings: &Bindings,
        wanted: &[Option<usize>],
        depth: usize,
    ) -> Vec<Option<usize>> {
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
                    let places = f.ty(*x).shape.get(*axis).and_then(|d| size(d, bindings));
                    note(&mut least, *ids, places);
                    for arg in [x].into_iter().chain(rest) {
                        note(&mut least, *arg, own);
                    }
                }
                GraphOp::Call { function } => {
                    let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                    self.called(f, bindings, (function, &node.args), (&all, depth), &mut least);
                }
                GraphOp::Cond { yes, no } => {
                    let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                    for function in [yes, no] {
                        let args = node.args.get(1..).unwrap_or_default();
                        self.called(f, bindings, (function, args), (&all, depth), &mut least);
                    }
                }
                GraphOp::Scan { body, .. } => {
                    let all: Vec<_> = (0..node.types.len()).map(|r| least.get(&of(r)).copied()).collect();
                    self.called(f, bindings, (body, &node.args), (&all, depth), &mut least);
                }
                op => {
                    let moved = moves(op);
                    for &arg in &node.args {
                        note(&mut least, arg, own.map(|n| if moved { n } else { n.min(THROUGH_ARITHMETIC) }));
                    }
                }
            }
        }
        (0..f.params.len()).map(|i| least.get(&f.param(i)).copied()).collect()
    }

    /// The limits of a callee's parameters, for the arguments of a call.
    fn called(
        &mut self,
        f: &Function,
        bindings: &Bindings,
        (function, args): (&str, &[Value]),
        (wanted, depth): (&[Option<usize>], usize),
        least: &mut BTreeMap<Value, usize>,
    ) {
        let Some(callee) = self.module.functions.get(function).filter(|_| depth < MAX_DEPTH) else { return };
        let mut inner = bindings.clone();
        for (param, &arg) in callee.params.iter().zip(args) {
            // A scan hands over slices: axes are counted from the minor end.
            for (dim, found) in param.ty.shape.iter().rev().zip(f.ty(arg).shape.iter().rev()) {
                if let Some(s) = callee.symbols.iter().find(|s| *dim == Dim::symbol(&s.name))
                    && let Ok(size) = found.eval(bindings)
                {
                    inner.insert(s.name.clone(), size);
                }
            }
        }
        let call = (function.to_string(), inner, wanted.to_vec());
        let limits = match self.known.get(&call) {
            Some(limits) => limits.clone(),
            None => {
                let limits = self.function(callee, &call.1, wanted, depth + 1);
                self.known.entry(call).or_insert(limits).clone()
            }
        };
        for (limit, &arg) in limits.into_iter().zip(args) {
            note(least, arg, limit);
        }
    }
}

fn note(least: &mut BTreeMap<Value, usize>, value: Value, limit: Option<usize>) {
    if let Some(limit) = limit {
        least.entry(value).and_modify(|known| *known = limit.min(*known)).or_insert(limit);
    }
}

fn size(dim: &Dim, bindings: &Bindings) -> Option<usize> {
    usize::try_from(dim.eval(bindings).ok()?).ok()
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
        limits(&module, module.entry().unwrap(), &bindings)
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

    /// 2^60 calls, each looked at once.
    #[test]
    fn functions_that_call_twice_take_no_exponential_time() {
        let mut text =
            String::from("func @f0(%x: f32[7], %i: i64[2]) -> f32[2] { %0 = take %x, %i axis=0\n return %0 }\n");
        for n in 1..=60 {
            let call = format!("call %x, %i function=@f{}", n - 1);
            text += &format!(
                "func @f{n}(%x: f32[7], %i: i64[2]) -> f32[2] {{ %0 = {call}\n %1 = {call}\n %2 = add %0, %1\n return %2 }}\n"
            );
        }
        assert_eq!(found(&text, &[]), [None, Some(7)]);
    }

    #[test]
    fn the_least_axis_counts() {
        let text = "func @main(%x: f32[4, 7], %y: f32[3], %i: i64[2]) -> (f32[4, 2], f32[2]) {
            %0 = take %x, %i axis=1\n %1 = take %y, %i axis=0\n return %0, %1 }";
        assert_eq!(found(text, &[]), [None, None, Some(3)]);
    }
}
