//! A function and its derivative as two functions: forward returns, after its results, what backward needs.

use super::custom::with_rule;
use super::reverse::reverse;
use super::vjp::Shared;
use crate::build::{Build, add, fresh};
use crate::extract::{extract, unused};
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, NodeId, Param, Role, Value};
use tilewright_ir::op::{GraphOp, Name, ScalarOp};
use tilewright_ir::types::{Dim, Type};

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
    let cut = Cut { joint: &joint, forward_nodes, params: f.params.len(), lost: &ask.lost, again }.choose(&results);
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
    for (wanted, ty) in more {
        let names: BTreeSet<&str> = params.iter().map(|p| &*p.name).collect();
        let name = unused(&names, &wanted).into();
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

/// Decides what crosses from forward to backward.
struct Cut<'a> {
    joint: &'a Function,
    forward_nodes: usize,
    /// Parameters of the forward function; those after them are cotangents.
    params: usize,
    /// Parameters that the caller does not have any more.
    lost: &'a [bool],
    /// Whether backward computes everything again.
    again: bool,
}

impl Cut<'_> {
    /// The forward values that backward reads, in order; parameters among them.
    fn choose(&self, results: &[Value]) -> BTreeSet<Value> {
        let (mut cut, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), results.to_vec());
        while let Some(v) = open.pop() {
            let i = v.node.index();
            let cotangent = (self.params..self.joint.params.len()).contains(&i);
            if cotangent || !seen.insert(v) {
                continue;
            }
            if i < self.params || (i < self.forward_nodes && !self.cheap(v)) {
                cut.insert(v);
            } else {
                open.extend(&self.joint.nodes[i].args);
            }
        }
        self.bind_symbols(&mut cut, results);
        cut
    }

    /// Whether backward computes the forward value again, as it costs no memory: what it is made of is not larger.
    fn cheap(&self, v: Value) -> bool {
        let node = self.joint.node(v);
        let from_param = |v: &Value| v.node.index() < self.params && !self.lost[v.node.index()];
        self.again
            || match &node.op {
                GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => true,
                GraphOp::Broadcast { .. }
                | GraphOp::Reshape { .. }
                | GraphOp::Transpose { .. }
                | GraphOp::Flip { .. } => true,
                GraphOp::Map { op: ScalarOp::Cast { .. } } | GraphOp::Slice { .. } => node.args.iter().all(from_param),
                _costly => false,
            }
    }

    /// A symbol that the types of backward use is bound by one of its parameters, if one of forward binds it.
    fn bind_symbols(&self, cut: &mut BTreeSet<Value>, results: &[Value]) {
        let binds = |v: Value, s: &Dim| self.joint.ty(v).shape.contains(s);
        let cts: Vec<Value> = (self.params..self.joint.params.len()).map(|i| self.joint.param(i)).collect();
        if results.is_empty() {
            return;
        }
        for symbol in &self.joint.symbols {
            let dim = Dim::symbol(&symbol.name);
            let bound = cut.iter().chain(&cts).any(|&v| binds(v, &dim));
            let param = (0..self.params).map(|i| self.joint.param(i)).find(|&v| binds(v, &dim));
            if let (false, Some(param)) = (bound, param) {
                cut.insert(param);
            }
        }
    }
}

/// A value of `ty`'s dtype that is zero everywhere, for a cotangent that a function must return though it has none.
pub fn zeros(b: &mut Build<'_>, like: Value) -> Result<Value, Diagnostic> {
    let ty = b.ty(like);
    b.full(&ty, 0.0)
}
