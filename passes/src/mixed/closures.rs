//! Mixed precision of closures over the DSL, inside the graph that is being built.

use super::{Policy, forms, function, needed};
use crate::build::{add, fresh};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Tensor, Tensors, Traced};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::Name;

/// A function like `f`, of the same types, whose contractions compute as `policy` says. Functions that it calls get such a form
/// beside them. It stands inside the gradient, which then computes alike.
///
/// ```
/// use tilewright_ir::{dsl::{Graph, Tensor}, types::DType};
/// use tilewright_passes::{autodiff::grad, mixed::{Policy, mixed}};
///
/// let g = Graph::new("main");
/// let (x, w) = (g.input("x", DType::F32, [4, 8]), g.weight("w", DType::F32, [8, 8]));
/// let policy = Policy::new(DType::Bf16)?;
/// let loss = |w: &Tensor| x.matmul(w).tanh().sum(&[0, 1]);
/// let gradient = grad(mixed(&policy, loss))(&w);
/// assert_eq!(gradient.dtype(), DType::F32);
/// # g.finish(&[&gradient])?;
/// # Ok::<(), tilewright_ir::diag::Diagnostic>(())
/// ```
#[track_caller]
pub fn mixed<A: Tensors, B: Tensors>(policy: &Policy, f: impl Fn(&A) -> B) -> impl Fn(&A) -> B {
    move |x| {
        let Some(graph) = x.list().first().map(|t| t.graph().clone()) else { return f(x) };
        let mut structure = None;
        let traced = graph.trace(|_| {
            let y = f(x);
            let list = y.list();
            structure = Some(y);
            list
        });
        let results = traced.map_or_else(Vec::new, |traced| appended(policy, &traced));
        // `trace` ran the closure.
        structure.map_or_else(|| f(x), |y| y.rebuilt(results))
    }
}

/// The results of a closure; nothing after a mistake.
fn appended(policy: &Policy, traced: &Traced) -> Vec<Tensor> {
    let Some(given) = traced.given.iter().map(Option::as_ref).collect::<Option<Vec<&Tensor>>>() else {
        return Vec::new();
    };
    let Some(graph) = given.first().map(|t| t.graph().clone()) else { return Vec::new() };
    let made = graph.extend(&given, |module, target, values| {
        let names = functions(module, policy, &traced.function)?;
        forms::append(module, policy, &names, (&traced.function, target), values)
    });
    made.unwrap_or_default()
}

/// Forms of the functions that `f` needs, by their names: others may call these as they are.
fn functions(module: &mut Module, policy: &Policy, f: &Function) -> Result<BTreeMap<Name, Name>, Diagnostic> {
    let needed = needed(module, f);
    let mut names = BTreeMap::new();
    for name in &needed {
        let form = fresh(module, &format!("{name}.{}", policy.compute));
        names.insert(name.clone(), form);
    }
    for name in &needed {
        let made = function(module, policy, &names, name)?;
        add(module, made);
    }
    Ok(names)
}
