//! Reverse rules of calls, conditionals and loops: the derivative of a call is a call of a shared function.

use super::super::custom;
use super::super::cut::Keeps;
use super::super::prune::Prune;
use super::super::split::{Ask, Kept, Saved, Split, split, with_cotangents, zeros};
use super::Question;
use crate::build::{Build, add, fresh};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId, Param, Role, Value};
use tilewright_ir::infer::infer;
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::{Dim, Type};

/// Derivatives that were made: the same question is answered by the same functions.
#[derive(Debug, Default)]
pub struct Shared {
    made: BTreeMap<Ask, Split>,
    /// What is being made.
    open: Vec<Ask>,
    /// What functions keep.
    pub keeps: Keeps,
    /// What they kept.
    pub kept: Vec<Kept>,
    /// Functions that take less.
    pub prune: Prune,
}

impl Shared {
    /// Nothing made yet.
    pub fn keeping(keeps: impl Into<Keeps>) -> Shared {
        Shared { keeps: keeps.into(), ..Shared::default() }
    }

    /// Errors: those of [`split`]; `custom-rule` for a derivative that needs itself.
    pub fn split(&mut self, module: &mut Module, ask: Ask) -> Result<Split, Diagnostic> {
        if let Some(known) = self.made.get(&ask) {
            return Ok(known.clone());
        }
        // Functions do not call themselves, but the rule of a function may call it.
        if self.open.contains(&ask) {
            let message = format!("the derivative of `@{}` by its custom rule needs itself", ask.function);
            return Err(Diagnostic::new("custom-rule", message)
                .note("a rule is linear in tangents: it may call its function on the parameters only"));
        }
        self.open.push(ask.clone());
        let made = split(module, self, &ask);
        self.open.pop();
        let made = made?;
        self.made.insert(ask, made.clone());
        Ok(made)
    }
}

/// Which cotangents there are.
fn present(cts: &[Option<Value>]) -> Vec<bool> {
    cts.iter().map(Option::is_some).collect()
}

/// Runs `op`, which returns what the node's op does and more after it, in the node's place. How many results it had.
pub fn replace(b: &mut Build<'_>, node: NodeId, op: GraphOp) -> Result<usize, Diagnostic> {
    let args = b.f.nodes[node.index()].args.clone();
    let types: Vec<&Type> = args.iter().map(|&a| b.f.ty(a)).collect();
    let types = infer(b.module, &op, &types)?;
    let changed = &mut b.f.nodes[node.index()];
    let old = changed.types.len();
    (changed.op, changed.types) = (op, types);
    Ok(old)
}

/// `results = f(args)`.
pub fn call(
    b: &mut Build<'_>,
    shared: &mut Shared,
    function: &Name,
    q: &Question<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    if let Some(mut given) = custom::vjp(b, shared, function, q)? {
        for (given, so_far) in given.iter_mut().zip(q.so_far) {
            *given = match (*so_far, *given) {
                (Some(so_far), Some(given)) => Some(b.add(so_far, given)?),
                (one, other) => one.or(other),
            };
        }
        return Ok(given);
    }
    let ask = Ask { cts: present(q.cts), sums: present(q.so_far), ..Ask::of(function, q.want) };
    let parts = shared.split(b.module, ask)?;
    if !parts.gives.contains(&true) {
        return Ok(q.so_far.to_vec());
    }
    let first = replace(b, q.node, GraphOp::Call { function: parts.forward.clone() })?;
    let mut args: Vec<Value> = parts.saved.iter().map(|s| saved(s, q, first)).collect();
    args.extend(q.cts.iter().flatten());
    args.extend(q.so_far.iter().zip(&parts.gives).filter(|(_, gives)| **gives).filter_map(|(so_far, _)| *so_far));
    let given = b.push_all(GraphOp::Call { function: parts.backward.clone() }, &args)?;
    let given = placed(&parts.gives, given);
    Ok(given.into_iter().zip(q.so_far).map(|(given, so_far)| given.or(*so_far)).collect())
}

/// The value that is saved.
fn saved(from: &Saved, q: &Question<'_>, first: usize) -> Value {
    match *from {
        Saved::Param(i) => q.args[i],
        Saved::Residual(k) => Value { node: q.node, index: (first + k) as u32 },
    }
}

/// `values`, each in the next place that has one.
pub fn placed(gives: &[bool], values: Vec<Value>) -> Vec<Option<Value>> {
    let mut values = values.into_iter();
    gives.iter().map(|has| if *has { values.next() } else { None }).collect()
}

/// `results = if p { yes(args) } else { no(args) }`. What is between is computed again, as the branches would save
/// different things.
pub fn cond(
    b: &mut Build<'_>,
    shared: &mut Shared,
    (yes, no): (&Name, &Name),
    q: &Question<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let (condition, args) = (q.args[0], &q.args[1..]);
    let want = q.want[1..].to_vec();
    let mut ask = |b: &mut Build<'_>, function: &Name| {
        shared.split(b.module, Ask { cts: present(q.cts), again: true, ..Ask::of(function, &want) })
    };
    let parts = [ask(b, yes)?, ask(b, no)?];
    let gives: Vec<bool> = (0..args.len()).map(|i| parts.iter().any(|p| p.gives[i])).collect();
    if !gives.contains(&true) {
        return Ok(vec![None; q.args.len()]);
    }
    let cts: Vec<bool> = present(q.cts);
    let names = [branch(b.module, yes, &parts[0], (&cts, &gives))?, branch(b.module, no, &parts[1], (&cts, &gives))?];
    let ([yes, no], reads) = shared.prune.branches(b.module, [&names[0], &names[1]])?;
    let operands = args.iter().chain(q.cts.iter().flatten()).zip(reads).filter(|(_, read)| *read);
    let all: Vec<Value> = [condition].into_iter().chain(operands.map(|(v, _)| *v)).collect();
    let given = b.push_all(GraphOp::Cond { yes, no }, &all)?;
    Ok([None].into_iter().chain(placed(&gives, given)).collect())
}

/// A function of all parameters and cotangents that returns cotangents of those that `gives` names.
fn branch(
    module: &mut Module,
    function: &Name,
    parts: &Split,
    (cts, gives): (&[bool], &[bool]),
) -> Result<Name, Diagnostic> {
    let name = fresh(module, &format!("{function}.branch"));
    let inner = &module.functions[function];
    let count = inner.params.len();
    let mut f = with_cotangents(inner, cts);
    f.name = name.clone();
    f.nodes.truncate(f.params.len());
    f.params.iter_mut().filter(|p| p.role == Role::Donated).for_each(|p| p.role = Role::Input);
    let own: Vec<Value> = (0..count).map(|i| f.param(i)).collect();
    let seeds: Vec<Value> = (count..f.params.len()).map(|i| f.param(i)).collect();
    let mut b = Build::new(module, &mut f);
    let args = parts.saved.iter().map(|s| match s {
        Saved::Param(i) => Ok(own[*i]),
        Saved::Residual(_) => Err(Diagnostic::bug("a branch that saves")),
    });
    let mut args = args.collect::<Result<Vec<Value>, Diagnostic>>()?;
    args.extend(seeds);
    let given = if parts.gives.contains(&true) {
        b.push_all(GraphOp::Call { function: parts.backward.clone() }, &args)?
    } else {
        Vec::new()
    };
    let given = placed(&parts.gives, given);
    let mut results = Vec::new();
    for i in (0..own.len()).filter(|&i| gives[i]) {
        results.push(match given[i] {
            Some(value) => value,
            None => zeros(&mut b, own[i])?,
        });
    }
    f.results = results;
    add(module, f);
    Ok(name)
}

/// `last, stacks = scan(body, carries, slices)`: a scan from the last step to the first, over what forward saved of each
/// step, the slices, and the cotangents of the stacks. Its carries are the cotangents of the carries. A carry that the body
/// returns as it got it is not saved for each step.
pub fn scan(
    b: &mut Build<'_>,
    shared: &mut Shared,
    (body, carries, length): (&Name, usize, &Dim),
    q: &Question<'_>,
) -> Result<Vec<Option<Value>>, Diagnostic> {
    let f = b.module.functions.get(body).cloned().ok_or_else(|| Diagnostic::bug("a scan without a body"))?;
    let fixed: Vec<bool> = (0..carries).map(|i| b.module.stays(&f, i)).collect();
    let want = wanted(&f, carries, q.want);
    let lost: Vec<bool> = (0..q.args.len()).map(|i| i < carries && !fixed[i]).collect();
    // Carries whose cotangent is not zero before some step.
    let mut cts = present(q.cts);
    let parts = loop {
        let ask = Ask { cts: cts.clone(), lost: lost.clone(), ..Ask::of(body, &want) };
        let parts = shared.split(b.module, ask)?;
        let more: Vec<usize> = (0..carries).filter(|&i| parts.gives[i] && !cts[i]).collect();
        if more.is_empty() {
            break parts;
        }
        more.into_iter().for_each(|i| cts[i] = true);
    };
    if !parts.gives.contains(&true) && !cts[..carries].contains(&true) {
        return Ok(vec![None; q.args.len()]);
    }
    let op = GraphOp::Scan { body: parts.forward.clone(), carries, length: length.clone() };
    let first = replace(b, q.node, op)?;
    let step = Step { f: &f, parts: &parts, cts: &cts, carries };
    let backward = step.function(b.module)?;
    let (mut args, mut slices) = (Vec::new(), Vec::new());
    for i in (0..carries).filter(|&i| cts[i]) {
        args.push(match q.cts[i] {
            Some(ct) => ct,
            None => zeros(b, Value { node: q.node, index: i as u32 })?,
        });
    }
    for s in &parts.saved {
        let value = saved(s, q, first);
        if step.is_fixed(s) { args.push(value) } else { slices.push(value) }
    }
    slices.extend(q.cts[carries..].iter().flatten());
    let moving = args.len();
    for slice in slices {
        args.push(b.push(GraphOp::Flip { axes: vec![0] }, &[slice])?);
    }
    let op = GraphOp::Scan { body: backward, carries: moving, length: length.clone() };
    let results = b.push_all(op, &args)?;
    let mut out = vec![None; q.args.len()];
    let mut next = results.iter().copied();
    for i in (0..carries).filter(|&i| cts[i]) {
        out[i] = next.next();
    }
    let stacks = results[moving..].iter().copied();
    for (i, stack) in (carries..q.args.len()).filter(|&i| parts.gives[i]).zip(stacks) {
        out[i] = Some(b.push(GraphOp::Flip { axes: vec![0] }, &[stack])?);
    }
    Ok(out)
}

/// Parameters of the body that depend, at some step, on an operand that `want` names.
fn wanted(f: &Function, carries: usize, want: &[bool]) -> Vec<bool> {
    let mut want: Vec<bool> = f.params.iter().zip(want).map(|(p, w)| *w && p.ty.dtype.is_float()).collect();
    loop {
        let mut depends: Vec<bool> = Vec::with_capacity(f.nodes.len());
        for (i, node) in f.nodes.iter().enumerate() {
            let own = want.get(i).copied().unwrap_or(false);
            depends.push(own || node.args.iter().any(|a| depends[a.node.index()]));
        }
        let reached = |i: &usize| !want[*i] && depends[f.results[*i].node.index()] && f.params[*i].ty.dtype.is_float();
        let more: Vec<usize> = (0..carries).filter(reached).collect();
        if more.is_empty() {
            return want;
        }
        more.into_iter().for_each(|i| want[i] = true);
    }
}

/// One step of the scan back.
struct Step<'a> {
    f: &'a Function,
    parts: &'a Split,
    /// Results of the body that have a cotangent.
    cts: &'a [bool],
    carries: usize,
}

impl Step<'_> {
    /// Whether a saved value is the same at each step.
    fn is_fixed(&self, saved: &Saved) -> bool {
        matches!(saved, Saved::Param(i) if *i < self.carries)
    }

    /// Carries: cotangents of carries, values that stay. Slices: other saved values, cotangents of stacks. Results: the
    /// next cotangents of carries, what stays, cotangents of slices.
    fn function(&self, module: &mut Module) -> Result<Name, Diagnostic> {
        let name = fresh(module, &format!("{}.back", self.f.name));
        let back = &module.functions[&self.parts.backward];
        let saved = self.parts.saved.len();
        // Places of backward's parameters in the order of a scan.
        let (seeds, stacks): (Vec<usize>, Vec<usize>) = {
            let of = self.cts.iter().enumerate().filter(|(_, has)| **has).map(|(i, _)| i);
            let (mut seeds, mut stacks) = (Vec::new(), Vec::new());
            for (at, result) in of.enumerate() {
                if result < self.carries { seeds.push(saved + at) } else { stacks.push(saved + at) }
            }
            (seeds, stacks)
        };
        let (fixed, moving): (Vec<usize>, Vec<usize>) = (0..saved).partition(|&i| self.is_fixed(&self.parts.saved[i]));
        let order: Vec<usize> = [seeds.as_slice(), &fixed, &moving, &stacks].concat();
        let params = order.iter().map(|&i| Param { role: Role::Input, ..back.params[i].clone() }).collect();
        let mut out = Function::new(&name, back.symbols.clone(), params);
        let mut args = vec![out.param(0); order.len()];
        for (at, &i) in order.iter().enumerate() {
            args[i] = out.param(at);
        }
        let carried: Vec<Value> = (0..seeds.len()).map(|i| out.param(i)).collect();
        let stays: Vec<Value> = (seeds.len()..seeds.len() + fixed.len()).map(|i| out.param(i)).collect();
        let mut b = Build::new(module, &mut out);
        let given = b.push_all(GraphOp::Call { function: self.parts.backward.clone() }, &args)?;
        let given = placed(&self.parts.gives, given);
        let mut results = Vec::new();
        for (at, i) in (0..self.carries).filter(|&i| self.cts[i]).enumerate() {
            results.push(match given[i] {
                Some(value) => value,
                None => zeros(&mut b, carried[at])?,
            });
        }
        results.extend(stays);
        results.extend(given[self.carries..].iter().flatten());
        out.results = results;
        add(module, out);
        Ok(name)
    }
}
