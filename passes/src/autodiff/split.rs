//! A function and its derivative as two functions: forward returns, after its results, what backward needs.

use super::custom::with_rule;
use super::cut::{Cut, Keep};
use super::reverse::reverse;
use super::vjp::Shared;
use crate::build::{Build, add, fresh};
use crate::extract::{extract, unused};
use std::collections::HashSet;
use std::sync::Arc;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Derivative, Function, Module, NodeId, Param, Role, Value};
use tilewright_ir::infer::shown_name;
use tilewright_ir::op::Name;
use tilewright_ir::types::Type;

/// Most values that a function hands from forward to backward. Functions that call each other twice save twice as many at
/// each level.
const MOST_SAVED: usize = 1 << 12;

/// Where backward gets a value from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Saved {
    /// A parameter of the forward function: the caller has it.
    Param(usize),
    /// This result of the forward function, counted from its first own one.
    Residual(usize),
}

/// Both functions.
#[derive(Clone, Debug)]
pub struct Split {
    /// Takes the parameters; returns the results, then the residuals.
    pub forward: Name,
    /// Takes what `saved` says, then the cotangents of the results that have one, then those so far of the parameters that
    /// get one; returns the cotangents of the parameters that get one.
    pub backward: Name,
    /// First parameters of backward.
    pub saved: Vec<Saved>,
    /// Which parameters get a cotangent.
    pub gives: Vec<bool>,
}

/// What a way forward returns for the way back, beside its results.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The function of the way forward.
    pub forward: Name,
    /// The function of the way back, which takes them.
    pub backward: Name,
    /// Values that it computes.
    pub values: Vec<KeptValue>,
    /// Operations of the way forward that the way back does again, for usual sizes; see [`Keep::PerByte`].
    pub again: f64,
}

/// A value that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptValue {
    /// The op that makes it, as texts name it.
    pub op: &'static str,
    /// Its type.
    pub ty: Type,
    /// The name scope that it was made in.
    pub scope: Arc<str>,
    /// Where it was written, if that is known.
    pub place: Option<Place>,
}

impl KeptValue {
    fn of(f: &Function, v: Value) -> KeptValue {
        let node = f.node(v);
        let (ty, scope, place) = (f.ty(v).clone(), node.scope.clone(), node.places.first().cloned());
        KeptValue { op: shown_name(&node.op), ty, scope, place }
    }
}

/// What is asked of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ask {
    /// The function.
    pub function: Name,
    /// Parameters whose cotangents are wanted.
    pub want: Vec<bool>,
    /// Results that have a cotangent.
    pub cts: Vec<bool>,
    /// Parameters that the caller does not have any more: they are saved like other values.
    pub lost: Vec<bool>,
    /// Parameters whose cotangents so far are given to backward, which adds to them.
    pub sums: Vec<bool>,
    /// Whether backward computes everything again from the parameters.
    pub again: bool,
}

impl Ask {
    /// Of a function whose parameters the caller still has; no cotangents.
    pub fn of(function: &Name, want: &[bool]) -> Ask {
        let none = || vec![false; want.len()];
        Ask {
            function: function.clone(),
            want: want.to_vec(),
            cts: Vec::new(),
            lost: none(),
            sums: none(),
            again: false,
        }
    }
}

/// Makes the two functions and adds them to the module.
///
/// Errors: `too-many-saved` for a function whose derivative needs more values than are handed over; those of [`reverse`].
pub fn split(module: &mut Module, shared: &mut Shared, ask: &Ask) -> Result<Split, Diagnostic> {
    let f = module.functions.get(&ask.function).cloned();
    let f = f.ok_or_else(|| Diagnostic::new("no-function", format!("there is no function `{}`", ask.function)))?;
    let f = with_rule(module, f)?;
    let derivative = f.derivative.clone();
    let again = ask.again || derivative == Derivative::Checkpoint;
    let wanted: Vec<usize> = (0..f.params.len()).filter(|&i| ask.want[i]).collect();
    let summed: Vec<usize> = wanted.iter().copied().filter(|&i| ask.sums[i]).collect();
    let mut joint = with_cotangents(&f, &ask.cts);
    let results_end = joint.params.len();
    joint = with_parameters(&joint, summed.iter().map(|&i| (format!("sum{i}"), f.params[i].ty.clone())).collect());
    let given = |i: usize| summed.iter().position(|&s| s == i).map(|at| joint.param(results_end + at));
    let so_far: Vec<Option<Value>> = wanted.iter().map(|&i| given(i)).collect();
    let wrt: Vec<Value> = wanted.iter().map(|&i| joint.param(i)).collect();
    let ct_params = (f.params.len()..results_end).map(|i| joint.param(i));
    let of_results = joint.results.iter().zip(&ask.cts).filter(|(_, has)| **has).map(|(r, _)| *r).zip(ct_params);
    let of_params = wrt.iter().zip(&so_far).filter_map(|(&v, so_far)| Some((v, (*so_far)?)));
    let seeds: Vec<(Value, Value)> = of_params.chain(of_results).collect();
    let forward_nodes = joint.nodes.len();
    let mut grads = reverse(module, shared, &mut joint, &seeds, &wrt)?;
    // What nothing was added to does not pass through.
    grads.iter_mut().zip(&so_far).filter(|(grad, so_far)| grad == so_far).for_each(|(grad, _)| *grad = None);
    let mut gives = vec![false; f.params.len()];
    for (&i, grad) in wanted.iter().zip(&grads) {
        gives[i] = grad.is_some();
    }
    let sums = wanted.iter().zip(&so_far).filter(|(i, _)| gives[**i]).filter_map(|(_, so_far)| *so_far);
    let given: Vec<Value> = (f.params.len()..results_end).map(|i| joint.param(i)).chain(sums).collect();
    let results: Vec<Value> = grads.into_iter().flatten().collect();
    let keep = if again { Keep::Nothing } else { shared.keeps.by(&ask.function) };
    let (params, lost) = (f.params.len(), &ask.lost[..]);
    let (cut, again_ops) = Cut { module, joint: &joint, forward_nodes, params, lost, keep }.choose(&results);
    let residuals: Vec<Value> = cut.iter().copied().filter(|&v| saved_param(v, &f, ask).is_none()).collect();
    few(&f, residuals.len())?;
    let saved = cut.iter().map(|&v| match saved_param(v, &f, ask) {
        Some(i) => Saved::Param(i),
        None => Saved::Residual(residuals.iter().position(|r| *r == v).unwrap_or(0)),
    });
    let saved = saved.collect();
    // What is computed again is not computed to be kept.
    let forward = match again {
        true if residuals.is_empty() => f.name.clone(),
        true => way_forward(module, &f, &f, &residuals)?,
        false => way_forward(module, &f, &joint, &residuals)?,
    };
    let backward = fresh(module, &format!("{}.bwd", f.name));
    let given: Vec<Value> = cut.into_iter().chain(given).collect();
    let made = extract(&joint, &backward, &given, &results)?;
    add(module, Function { derivative, ..made });
    let values = residuals.iter().map(|&v| KeptValue::of(&joint, v)).collect();
    shared.kept.push(Kept { forward: forward.clone(), backward: backward.clone(), values, again: again_ops });
    Ok(Split { forward, backward, saved, gives })
}

/// A function of `f`'s parameters that returns its results and `residuals`, all values of `joint`. Other questions about `f` may
/// have the same.
fn way_forward(module: &mut Module, f: &Function, joint: &Function, residuals: &[Value]) -> Result<Name, Diagnostic> {
    let own: Vec<Value> = (0..f.params.len()).map(|i| joint.param(i)).collect();
    let results: Vec<Value> = joint.results.iter().chain(residuals).copied().collect();
    let wanted = format!("{}.fwd", f.name);
    let made = Function { derivative: f.derivative.clone(), ..extract(joint, &wanted, &own, &results)? };
    let known = module.functions.values().find(|known| known.name.starts_with(&wanted) && known.same_ops(&made));
    if let Some(known) = known {
        return Ok(known.name.clone());
    }
    let name = fresh(module, &wanted);
    add(module, Function { name: name.clone(), ..made });
    Ok(name)
}

/// Errors: `too-many-saved`.
fn few(f: &Function, residuals: usize) -> Result<(), Diagnostic> {
    if residuals <= MOST_SAVED {
        return Ok(());
    }
    let name = &f.name;
    let message =
        format!("the derivative of `@{name}` needs {residuals} values of its run, expected at most {MOST_SAVED}");
    let places = f.nodes[f.params.len()..].iter().filter_map(|n| n.places.first()).take(1);
    let d = Diagnostic::new("too-many-saved", message);
    Err(places.fold(d, |d, p| d.at(p.clone(), "the function begins here")))
}

/// The parameter that `value` is, if the caller still has it.
fn saved_param(value: Value, f: &Function, ask: &Ask) -> Option<usize> {
    Some(value.node.index()).filter(|&i| i < f.params.len() && !ask.lost[i])
}

/// `f` with more parameters: a cotangent for each result that has one.
pub fn with_cotangents(f: &Function, cts: &[bool]) -> Function {
    let with = f.results.iter().zip(cts).enumerate().filter(|(_, (_, has))| **has);
    with_parameters(f, with.map(|(i, (result, _))| (format!("ct{i}"), f.ty(*result).clone())).collect())
}

/// `f` with more parameters after its own; the names are wishes.
pub fn with_parameters(f: &Function, more: Vec<(String, Type)>) -> Function {
    let mut params = f.params.clone();
    let mut names: HashSet<Name> = params.iter().map(|p| p.name.clone()).collect();
    for (wanted, ty) in more {
        let name = unused(&names, &wanted);
        names.insert(name.clone());
        params.push(Param { name, ty, role: Role::Input });
    }
    let mut joint = Function::new(&f.name, f.symbols.clone(), params);
    let more = (joint.params.len() - f.params.len()) as u32;
    let moved = |v: Value| {
        let by = if v.node.index() < f.params.len() { 0 } else { more };
        Value { node: NodeId(v.node.0 + by), index: v.index }
    };
    for (made, node) in joint.nodes.iter_mut().zip(&f.nodes[..f.params.len()]) {
        made.places.clone_from(&node.places);
    }
    joint.nodes.extend(f.nodes[f.params.len()..].iter().map(|node| {
        let mut node = node.clone();
        node.args.iter_mut().for_each(|a| *a = moved(*a));
        node
    }));
    joint.results = f.results.iter().map(|&r| moved(r)).collect();
    joint
}

/// A value of `ty`'s dtype that is zero everywhere, for a cotangent that a function must return though it has none.
pub fn zeros(b: &mut Build<'_>, like: Value) -> Result<Value, Diagnostic> {
    let ty = b.ty(like);
    b.full(&ty, 0.0)
}
