//! Functions with a rule of their own: a call of one is differentiated by the rule, not by what the function is made of.
//!
//! Wherever a derivative is made of a function itself, as of the body of a scan, [`with_rule`] makes it a call.

use super::jvp::Motion;
use super::linear::{check, not_linear};
use super::split::{Ask, Saved, zeros};
use super::vjp::control::{placed, replace};
use super::vjp::{Question, Shared};
use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Param, Value};
use tilewright_ir::op::{GraphOp, Name};

/// Whether no derivative passes through `op`.
pub fn stops(module: &Module, op: &GraphOp) -> bool {
    let GraphOp::Call { function } = op else { return false };
    module.functions.get(function).is_some_and(|f| f.derivative == Derivative::Zero)
}

/// `f`, or if it has a rule a function that calls it and has none.
pub fn with_rule(module: &mut Module, f: Function) -> Result<Function, Diagnostic> {
    if f.derivative.is_rule() { calling(module, &f) } else { Ok(f) }
}

/// A function like `f` that calls it.
pub fn calling(module: &mut Module, f: &Function) -> Result<Function, Diagnostic> {
    let mut out = Function::new(&f.name, f.symbols.clone(), f.params.clone());
    for (made, node) in out.nodes.iter_mut().zip(&f.nodes) {
        made.places.clone_from(&node.places);
    }
    let args: Vec<Value> = (0..f.params.len()).map(|i| out.param(i)).collect();
    let results = Build::new(module, &mut out).push_all(GraphOp::Call { function: f.name.clone() }, &args)?;
    out.results = results;
    Ok(out)
}

/// Cotangents of the operands of a call of `function` by its rule; none if it has no rule.
///
/// Errors: `custom-rule` for a forward rule that is not linear in its tangents.
pub fn vjp(
    b: &mut Build<'_>,
    shared: &mut Shared,
    function: &Name,
    q: &Question<'_>,
) -> Result<Option<Vec<Option<Value>>>, Diagnostic> {
    let Some(f) = b.module.functions.get(function) else { return Ok(None) };
    let moves = floats(&f.params);
    match f.derivative.clone() {
        Derivative::OfOps | Derivative::Checkpoint => Ok(None),
        Derivative::Zero => Ok(Some(vec![None; q.args.len()])),
        Derivative::Reverse { forward, backward } => {
            let first = replace(b, q.node, GraphOp::Call { function: forward })?;
            let all = b.f.nodes[q.node.index()].types.len();
            let result = |i: usize| Value { node: q.node, index: i as u32 };
            let mut args: Vec<Value> = (first..all).map(result).collect();
            for i in 0..first {
                match q.cts[i] {
                    Some(ct) => args.push(ct),
                    None if b.ty(result(i)).dtype.is_float() => args.push(zeros(b, result(i))?),
                    None => {}
                }
            }
            let given = b.push_all(GraphOp::Call { function: backward }, &args)?;
            Ok(Some(placed(&moves, given)))
        }
        Derivative::Forward { tangent } => transposed(b, shared, (&tangent, &moves), q).map(Some),
    }
}

/// The cotangents by a rule for tangents: as it is linear in them, those of its tangents at any tangents.
fn transposed(
    b: &mut Build<'_>,
    shared: &mut Shared,
    (tangent, moves): (&Name, &[bool]),
    q: &Question<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let count = q.args.len();
    check(b.module, tangent, count, q.cts.len())?;
    let moving: Vec<usize> = (0..count).filter(|&i| moves[i]).collect();
    let mut want = vec![false; count];
    want.extend(moving.iter().map(|&i| q.want[i]));
    let results = (0..q.cts.len()).filter(|&i| b.f.nodes[q.node.index()].types[i].dtype.is_float());
    let mut cts = vec![false; q.cts.len()];
    cts.extend(results.map(|i| q.cts[i].is_some()));
    let parts = shared.split(b.module, Ask { cts, again: true, ..Ask::of(tangent, &want) })?;
    let mut out = vec![None; count];
    if !parts.gives.contains(&true) {
        return Ok(out);
    }
    // Loops and branches pass tangents on also where what is asked for is not made of them.
    let (backward, reads) = shared.prune.function(b.module, &parts.backward)?;
    let mut made_of = shared.prune.values(b.module, &backward)?.into_iter();
    let mut args = Vec::new();
    for (saved, _) in parts.saved.iter().zip(&reads).filter(|(_, read)| **read) {
        let is_value = made_of.next().unwrap_or(true);
        args.push(match *saved {
            Saved::Param(i) if i < count => q.args[i],
            // Its shape is read, which is that of what it is a tangent of.
            Saved::Param(i) if !is_value => q.args[moving[i - count]],
            Saved::Param(_) | Saved::Residual(_) => return Err(not_linear(tangent, "its derivative takes a tangent")),
        });
    }
    let cts = q.cts.iter().flatten().zip(&reads[parts.saved.len()..]);
    args.extend(cts.filter(|(_, read)| **read).map(|(ct, _)| *ct));
    let given = b.push_all(GraphOp::Call { function: backward }, &args)?;
    let given = placed(&parts.gives[count..], given);
    moving.into_iter().zip(given).for_each(|(i, ct)| out[i] = ct);
    Ok(out)
}

/// Tangents of the results of a call of `function` by its rule; none if it has no rule.
///
/// Errors: `custom-rule` if its rule is for reverse mode only.
pub fn jvp(b: &mut Build<'_>, function: &Name, m: &Motion<'_>) -> Result<Option<Vec<Option<Value>>>, Diagnostic> {
    let Some(f) = b.module.functions.get(function) else { return Ok(None) };
    let moves = floats(&f.params);
    let has: Vec<bool> = f.results.iter().map(|&r| f.ty(r).dtype.is_float()).collect();
    match f.derivative.clone() {
        Derivative::OfOps | Derivative::Checkpoint => Ok(None),
        Derivative::Zero => Ok(Some(vec![None; has.len()])),
        Derivative::Reverse { .. } => {
            let message = format!("forward mode meets `@{function}`, which has a rule for reverse mode only");
            let error = Diagnostic::new("custom-rule", message).note("a `custom_jvp` serves both modes");
            let places = b.f.nodes[m.node.index()].places.clone();
            Err(places.into_iter().fold(error, |d, place| d.at(place, "called here")))
        }
        Derivative::Forward { tangent } => {
            let mut args = m.args.to_vec();
            for i in (0..m.args.len()).filter(|&i| moves[i]) {
                args.push(match m.tangents[i] {
                    Some(tangent) => tangent,
                    None => zeros(b, m.args[i])?,
                });
            }
            let all = b.push_all(GraphOp::Call { function: tangent }, &args)?;
            Ok(Some(placed(&has, all[has.len()..].to_vec())))
        }
    }
}

fn floats(params: &[Param]) -> Vec<bool> {
    params.iter().map(|p| p.ty.dtype.is_float()).collect()
}
