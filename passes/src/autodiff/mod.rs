//! Gradients as a transformation of the Graph IR: a function becomes a function, made of the same ops.
//!
//! Reverse mode. `reverse` walks a function from its results to what the gradient is asked for and asks
//! `vjp` for the rule of each node; `split` makes a function and its derivative two functions, so that the derivative of a
//! call is a call and that of a scan a scan. What comes out is Graph IR like any other, so it can be differentiated again.
//!
//! Forward mode. `forward` gives each value that moves a tangent, by the rules of `jvp`.
//!
//! `closures` does both to graphs under construction; `custom` is for functions with rules of their own.
//!
//! A gradient exists for floats only. Where a function has no slope, or two, the rules of `vjp` say what it is; they follow
//! torch.

mod check;
mod checkpoint;
mod closures;
mod custom;
mod cut;
mod forward;
mod join;
mod jvp;
mod linear;
mod price;
mod prune;
mod reverse;
mod shift;
mod split;
mod vjp;

use crate::lower::depth;
pub use check::{GradCheck, ParameterCheck, check_grads, check_module};
pub use checkpoint::checkpoint;
pub use closures::{Linear, Pullback, grad, gradients, hvp, jvp, linearize, value_and_grad, vjp};
pub(crate) use closures::{alias, gradients_keeping, pull, push};
pub use cut::{Keep, Keeps};
pub(crate) use prune::Prune;
pub use split::{Kept, KeptValue};

use self::jvp::Moved;
use self::vjp::Shared;
use crate::build::{Build, add, fresh, kept, parameter};
use crate::extract::extract;
use custom::calling;
use forward::forward;
use reverse::reverse;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Value};
use tilewright_ir::verify::verify;

/// What the entry of a differentiated module returns, and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Returns the gradients of the first result, a scalar.
    Gradient,
    /// Returns all results, then the gradients of the first, a scalar.
    ValueAndGradient,
    /// Takes a cotangent for each float result, after the parameters; returns all results, then the cotangents of what was
    /// asked for: the gradients of `sum(result . cotangent)` over all results.
    Pullback,
    /// Takes a tangent for each parameter that was asked for, after the parameters; returns all results, then the tangents of
    /// the float results: their derivatives along the tangents. Zeros for a result that stays.
    Pushforward,
}

/// A module whose entry computes gradients.
#[derive(Clone, Debug)]
pub struct Differentiated {
    /// The module. Functions on the way have a forward and a backward form beside them.
    pub module: Module,
    /// Parameters on which the results do not depend: their gradients are zeros.
    pub unrelated: Vec<Arc<str>>,
    /// What the functions of the way forward keep for the way back.
    pub kept: Vec<Kept>,
}

/// Differentiates the entry of `module` with respect to the parameters `wrt`, in this order.
///
/// The entry keeps its name and parameters; none of them is donated.
///
/// Errors: `call-depth`; `unknown-parameter`; `no-gradient` for parameters that are not floats, and where no result is; `not-scalar` for
/// gradients of a tensor; those of type inference, such as `dim-overflow`.
pub fn differentiate(module: &Module, wrt: &[&str], form: Form) -> Result<Differentiated, Diagnostic> {
    differentiate_keeping(module, wrt, form, Keep::default())
}

/// [`differentiate`], where functions that are called or looped over keep what `keeps` says for the way back.
///
/// Errors: those of [`differentiate`].
pub fn differentiate_keeping(
    module: &Module,
    wrt: &[&str],
    form: Form,
    keeps: impl Into<Keeps>,
) -> Result<Differentiated, Diagnostic> {
    depth(module)?;
    let mut module = module.clone();
    let entry = module.entry()?.name.clone();
    let Some(f) = module.functions.shift_remove(&entry) else { return Err(Diagnostic::bug("an entry without a name")) };
    let f = entry_with_rule(&mut module, f)?;
    let wrt = wrt.iter().map(|name| float_parameter(&f, name)).collect::<Result<Vec<usize>, Diagnostic>>()?;
    let mut shared = Shared::keeping(keeps);
    let (joint, results, unrelated) = match form {
        Form::Pushforward => pushforward(&mut module, &f, &wrt)?,
        Form::Gradient | Form::ValueAndGradient | Form::Pullback => backward(&mut module, &mut shared, &f, &wrt, form)?,
    };
    let params: Vec<Value> = (0..joint.params.len()).map(|i| joint.param(i)).collect();
    let out = extract(&joint, &entry, &params, &results)?;
    add(&mut module, out);
    let module = module.part(&entry)?;
    verify(&module)?;
    depth(&module)?;
    let kept = shared.kept.into_iter().filter(|k| module.functions.contains_key(&k.backward)).collect();
    Ok(Differentiated { module, unrelated, kept })
}

/// A function with what was added, the results that it shall have, and the parameters that do not matter.
pub(crate) type Parts = (Function, Vec<Value>, Vec<Arc<str>>);

/// `f` with tangents of the parameters `wrt` behind its own, and its results with the tangents of those that are floats.
pub(crate) fn pushforward(module: &mut Module, f: &Function, wrt: &[usize]) -> Result<Parts, Diagnostic> {
    let more = wrt.iter().map(|&i| (format!("dot.{}", f.params[i].name), f.params[i].ty.clone())).collect();
    let mut joint = kept(split::with_parameters(f, more));
    let tangents = (f.params.len()..joint.params.len()).map(|i| joint.param(i));
    let seeds: Vec<(Value, Value)> = wrt.iter().map(|&i| joint.param(i)).zip(tangents).collect();
    let mut results = joint.results.clone();
    let tangents = forward(module, &mut Moved::default(), &mut joint, &seeds, &results)?;
    for (result, tangent) in joint.results.clone().into_iter().zip(tangents) {
        let ty = joint.ty(result).clone();
        match tangent {
            Some(tangent) => results.push(tangent),
            None if ty.dtype.is_float() => results.push(Build::new(module, &mut joint).full(&ty, 0.0)?),
            None => {}
        }
    }
    Ok((joint, results, Vec::new()))
}

fn backward(
    module: &mut Module,
    shared: &mut Shared,
    f: &Function,
    wrt: &[usize],
    form: Form,
) -> Result<Parts, Diagnostic> {
    let has_ct: Vec<bool> = f.results.iter().map(|&r| form == Form::Pullback && f.ty(r).dtype.is_float()).collect();
    let mut joint = kept(split::with_cotangents(f, &has_ct));
    let seeds = seeds(module, f, &mut joint, form)?;
    let asked: Vec<Value> = wrt.iter().map(|&i| joint.param(i)).collect();
    let found = reverse(module, shared, &mut joint, &seeds, &asked)?;
    let mut results = if form == Form::Gradient { Vec::new() } else { joint.results.clone() };
    let mut unrelated = Vec::new();
    for (&i, gradient) in wrt.iter().zip(found) {
        let ty = joint.params[i].ty.clone();
        results.push(match gradient {
            Some(value) => value,
            None => {
                unrelated.push(joint.params[i].name.clone());
                Build::new(module, &mut joint).full(&ty, 0.0)?
            }
        });
    }
    Ok((joint, results, unrelated))
}

/// An entry that says how it is differentiated becomes one that calls it.
pub(crate) fn entry_with_rule(module: &mut Module, f: Function) -> Result<Function, Diagnostic> {
    if f.derivative == Derivative::OfOps {
        return Ok(f);
    }
    let name = f.name.clone();
    let inner = Function { name: fresh(module, &format!("{name}.ruled")), ..f };
    add(module, inner.clone());
    Ok(Function { name, ..calling(module, &inner)? })
}

/// The number of a float parameter.
pub(crate) fn float_parameter(f: &Function, name: &str) -> Result<usize, Diagnostic> {
    let i = parameter(f, name)?;
    let ty = &f.params[i].ty;
    if ty.dtype.is_float() {
        return Ok(i);
    }
    let error = Diagnostic::new("no-gradient", format!("`%{name}`: {ty} has no gradient, as only floats have"));
    Err(f.nodes[i].places.iter().fold(error, |d, place| d.at(place.clone(), "declared here")))
}

/// Results with their cotangents.
fn seeds(
    module: &mut Module,
    f: &Function,
    joint: &mut Function,
    form: Form,
) -> Result<Vec<(Value, Value)>, Diagnostic> {
    let floats: Vec<Value> = joint.results.iter().copied().filter(|&r| joint.ty(r).dtype.is_float()).collect();
    if form == Form::Pullback && !floats.is_empty() {
        let cts = (f.params.len()..joint.params.len()).map(|i| joint.param(i));
        return Ok(floats.into_iter().zip(cts).collect());
    }
    let loss = joint.results.first().copied();
    let Some(loss) = loss.filter(|&r| joint.ty(r).dtype.is_float()) else {
        let found = loss.map_or_else(|| "it has none".to_string(), |r| format!("it is {}", joint.ty(r)));
        let message = format!("the result of `@{}` must be a float to have a gradient; {found}", f.name);
        return Err(Diagnostic::new("no-gradient", message));
    };
    let ty = joint.ty(loss).clone();
    if ty.rank() != 0 {
        let message = format!("the gradient of `@{}` needs a scalar as its first result, found {ty}", f.name);
        let error = Diagnostic::new("not-scalar", message).note("sum it first, or ask for a pullback");
        let places = joint.node(loss).places.clone();
        return Err(places.into_iter().fold(error, |d, place| d.at(place, "made here")));
    }
    let one = Build::new(module, joint).full(&ty, 1.0)?;
    Ok(vec![(loss, one)])
}

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod closures_tests;
#[cfg(test)]
mod custom_tests;
#[cfg(test)]
mod edges_tests;
#[cfg(test)]
mod join_tests;
#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod shift_tests;
#[cfg(test)]
mod tests;
