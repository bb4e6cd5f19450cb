//! Forward rules of calls, conditionals and loops: functions of values and tangents.

use super::super::custom::{self, with_rule};
use super::super::forward::forward;
use super::super::split::with_parameters;
use super::{Motion, tangent_or_zero};
use crate::build::{Build, add, fresh};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Role, Value};
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::Dim;

/// A function, which of its parameters move, and which results are asked for tangents if they move or not.
type Ask = (Name, Vec<bool>, Vec<bool>);

/// Functions with tangents that were made.
#[derive(Debug, Default)]
pub struct Moved(BTreeMap<Ask, (Name, Vec<bool>)>);

impl Moved {
    /// The function that takes tangents of the parameters that `moves` names after the parameters, and returns, after the
    /// results, tangents of those that move and of those that `always` names. Its name, and which have one.
    fn function(&mut self, module: &mut Module, ask: Ask) -> Result<(Name, Vec<bool>), Diagnostic> {
        if let Some(known) = self.0.get(&ask) {
            return Ok(known.clone());
        }
        let (name, moves, always) = &ask;
        let f = module.functions.get(name).cloned().ok_or_else(|| Diagnostic::bug("a call of nothing"))?;
        let f = with_rule(module, f)?;
        let derivative = f.derivative.clone();
        let more = f.params.iter().zip(moves).enumerate().filter(|(_, (_, moves))| **moves);
        let more = more.map(|(i, (p, _))| (format!("dot{i}"), p.ty.clone())).collect();
        let mut joint = with_parameters(&f, more);
        joint.params.iter_mut().filter(|p| p.role == Role::Donated).for_each(|p| p.role = Role::Input);
        let places = (f.params.len()..joint.params.len()).map(|i| joint.param(i));
        let moving = (0..f.params.len()).filter(|&i| moves[i]).map(|i| joint.param(i));
        let seeds: Vec<(Value, Value)> = moving.zip(places).collect();
        let results = joint.results.clone();
        let tangents = forward(module, self, &mut joint, &seeds, &results)?;
        let has: Vec<bool> = tangents.iter().zip(always).map(|(t, always)| t.is_some() || *always).collect();
        for (i, tangent) in tangents.into_iter().enumerate().filter(|(i, _)| has[*i]) {
            let result = joint.results[i];
            let tangent = tangent_or_zero(&mut Build::new(module, &mut joint), result, tangent)?;
            joint.results.push(tangent);
        }
        joint.name = fresh(module, &format!("{}.jvp", f.name));
        let made = (joint.name.clone(), has);
        // The way back through tangents keeps no more than that through values.
        add(module, Function { derivative, ..joint });
        self.0.insert(ask, made.clone());
        Ok(made)
    }
}

/// Which operands move.
fn moves(m: &Motion<'_>) -> Vec<bool> {
    m.tangents.iter().map(Option::is_some).collect()
}

/// How many results a node has.
fn count(b: &Build<'_>, m: &Motion<'_>) -> usize {
    b.f.nodes[m.node.index()].types.len()
}

/// Tangents in the places that have one.
fn placed(has: &[bool], mut tangents: impl Iterator<Item = Value>) -> Vec<Option<Value>> {
    has.iter().map(|has| if *has { tangents.next() } else { None }).collect()
}

/// `results = f(args)`: values and tangents by one call, which takes the place of the first's results for what follows.
pub fn call(
    b: &mut Build<'_>,
    moved: &mut Moved,
    function: &Name,
    m: &Motion<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let results = count(b, m);
    if let Some(tangents) = custom::jvp(b, function, m)? {
        return Ok(tangents);
    }
    let (function, has) = moved.function(b.module, (function.clone(), moves(m), vec![false; results]))?;
    let args: Vec<Value> = m.args.iter().copied().chain(m.tangents.iter().copied().flatten()).collect();
    let all = b.push_all(GraphOp::Call { function }, &args)?;
    Ok(placed(&has, all.into_iter().skip(results)))
}

/// `results = if p { yes(args) } else { no(args) }`.
pub fn cond(
    b: &mut Build<'_>,
    moved: &mut Moved,
    (yes, no): (&Name, &Name),
    m: &Motion<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let (results, moves) = (count(b, m), moves(m)[1..].to_vec());
    let mut has = vec![false; results];
    for function in [yes, no] {
        let (_, own) = moved.function(b.module, (function.clone(), moves.clone(), vec![false; results]))?;
        has.iter_mut().zip(own).for_each(|(has, own)| *has |= own);
    }
    let (yes, _) = moved.function(b.module, (yes.clone(), moves.clone(), has.clone()))?;
    let (no, _) = moved.function(b.module, (no.clone(), moves, has.clone()))?;
    let args: Vec<Value> = m.args.iter().copied().chain(m.tangents.iter().copied().flatten()).collect();
    let all = b.push_all(GraphOp::Cond { yes, no }, &args)?;
    Ok(placed(&has, all.into_iter().skip(results)))
}

/// `last, stacks = scan(body, carries, slices)`: a scan whose carries are those and their tangents.
pub fn scan(
    b: &mut Build<'_>,
    moved: &mut Moved,
    (body, carries, length): (&Name, usize, &Dim),
    m: &Motion<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let (results, mut moving) = (count(b, m), moves(m));
    // A carry moves if it does at some step.
    let (inner, has) = loop {
        let always: Vec<bool> = (0..results).map(|i| i < carries && moving[i]).collect();
        let (inner, has) = moved.function(b.module, (body.clone(), moving.clone(), always))?;
        let more: Vec<usize> = (0..carries).filter(|&i| has[i] && !moving[i]).collect();
        if more.is_empty() {
            break (inner, has);
        }
        more.into_iter().for_each(|i| moving[i] = true);
    };
    let step = step(b.module, &inner, (carries, m.args.len()), (&moving, &has))?;
    let mut args = m.args[..carries].to_vec();
    for i in (0..carries).filter(|&i| moving[i]) {
        args.push(tangent_or_zero(b, m.args[i], m.tangents[i])?);
    }
    let inner_carries = args.len();
    args.extend(&m.args[carries..]);
    args.extend(m.tangents[carries..].iter().flatten());
    let op = GraphOp::Scan { body: step, carries: inner_carries, length: length.clone() };
    let all = b.push_all(op, &args)?;
    // Carries, their tangents, stacks, their tangents.
    let tangents = all[carries..inner_carries].iter().copied();
    let stacks = all[inner_carries + results - carries..].iter().copied();
    let mut out = placed(&has[..carries], tangents);
    out.extend(placed(&has[carries..], stacks));
    Ok(out)
}

/// The body with tangents in the order of a scan: carries, their tangents, slices, their tangents.
fn step(
    module: &mut Module,
    inner: &Name,
    (carries, operands): (usize, usize),
    (moving, has): (&[bool], &[bool]),
) -> Result<Name, Diagnostic> {
    let f = &module.functions[inner];
    let moving_carries = moving[..carries].iter().filter(|m| **m).count();
    // Places of the inner function's parameters: carries, slices, tangents of carries, tangents of slices.
    let tangents = operands..operands + moving_carries;
    let order: Vec<usize> =
        (0..carries).chain(tangents.clone()).chain(carries..operands).chain(tangents.end..f.params.len()).collect();
    let params = order.iter().map(|&i| f.params[i].clone()).collect();
    let name = fresh(module, &format!("{inner}.step"));
    let mut out = Function::new(&name, f.symbols.clone(), params);
    let mut args = vec![out.param(0); order.len()];
    for (at, &i) in order.iter().enumerate() {
        args[i] = out.param(at);
    }
    let all = Build::new(module, &mut out).push_all(GraphOp::Call { function: inner.clone() }, &args)?;
    // Its results: carries, stacks, tangents of carries, tangents of stacks.
    let (values, tangents) = all.split_at(has.len());
    let (carry_tangents, stack_tangents) = tangents.split_at(has[..carries].iter().filter(|h| **h).count());
    out.results = [&values[..carries], carry_tangents, &values[carries..], stack_tangents].concat();
    add(module, out);
    Ok(name)
}
