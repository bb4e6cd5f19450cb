//! Calls, conditionals and loops of many examples: of functions that have a form for many examples.

use super::{Each, from_front, spread, to_front, walk};
use crate::build::{Build, add, fresh};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Role, Value};
use tilewright_ir::op::{GraphOp, Name, ReduceKind, ScalarOp};
use tilewright_ir::types::{Dim, SymbolDecl};

/// A function, which of its parameters are batched, and which results shall be if they need it or not.
type Ask = (Name, Vec<bool>, Vec<bool>);

/// Forms of functions for many examples that were made.
#[derive(Debug)]
pub(super) struct Batched {
    /// The number of examples inside functions.
    size: Dim,
    /// Its declaration if it is a symbol.
    symbol: Option<SymbolDecl>,
    made: BTreeMap<Ask, (Name, Vec<bool>)>,
}

impl Batched {
    /// Functions get `size` examples, a constant or the symbol that is declared, which no function has.
    pub fn new(size: Dim, symbol: Option<SymbolDecl>) -> Batched {
        Batched { size, symbol, made: BTreeMap::new() }
    }

    /// The symbols of the form of `f` for many examples.
    pub fn symbols(&self, f: &Function) -> Vec<SymbolDecl> {
        f.symbols.iter().cloned().chain(self.symbol.clone()).collect()
    }

    /// The form of a function, and which of its results are batched.
    fn function(&mut self, module: &mut Module, ask: Ask) -> Result<(Name, Vec<bool>), Diagnostic> {
        if let Some(known) = self.made.get(&ask) {
            return Ok(known.clone());
        }
        let (name, mask, always) = &ask;
        let f = module.functions.get(name).cloned().ok_or_else(|| Diagnostic::bug("a call of nothing"))?;
        // A rule is for results that all have the new axis.
        let ruled = !f.derivative.functions().is_empty();
        let mut params = f.params.clone();
        for (param, batched) in params.iter_mut().zip(mask) {
            param.role = if param.role == Role::Donated { Role::Input } else { param.role };
            if *batched {
                param.ty.shape.insert(0, self.size.clone());
            }
        }
        let mut out = Function::new(name, self.symbols(&f), params);
        for (made, node) in out.nodes.iter_mut().zip(&f.nodes) {
            (made.places, made.scope) = (node.places.clone(), node.scope.clone());
        }
        let given: Vec<Each> =
            mask.iter().enumerate().map(|(i, &batched)| Each { value: out.param(i), batched }).collect();
        let size = self.size.clone();
        let results = walk(module, self, (&f, &mut out), &given, &size)?;
        let mut has = Vec::new();
        for (each, always) in results.into_iter().zip(always) {
            let batched = each.batched || *always || ruled;
            let mut b = Build::new(module, &mut out);
            let value = if batched { spread(&mut b, each, &size)? } else { each.value };
            out.results.push(value);
            has.push(batched);
        }
        out.name = fresh(module, &format!("{name}.vmap"));
        if !ruled {
            out.derivative = f.derivative.clone();
        }
        let made = (out.name.clone(), has);
        add(module, out);
        self.made.insert(ask.clone(), made.clone());
        // After it is known, as the functions of a rule may call it.
        if ruled {
            let rule = self.rule(module, &f, (&ask.1, &made.1))?;
            module.functions.get_mut(&made.0).into_iter().for_each(|f| f.derivative = rule.clone());
        }
        Ok(made)
    }

    /// The rule for the derivative of the form of `f` whose parameters and results are batched as `mask` and `has` say.
    pub fn rule(
        &mut self,
        module: &mut Module,
        f: &Function,
        (mask, has): (&[bool], &[bool]),
    ) -> Result<Derivative, Diagnostic> {
        let float_params = (0..f.params.len()).filter(|&i| f.params[i].ty.dtype.is_float());
        let float_params: Vec<bool> = float_params.map(|i| mask[i]).collect();
        let float_results = (0..has.len()).filter(|&i| f.ty(f.results[i]).dtype.is_float());
        let float_results: Vec<bool> = float_results.map(|i| has[i]).collect();
        match &f.derivative {
            plain @ (Derivative::OfOps | Derivative::Zero | Derivative::Checkpoint) => Ok(plain.clone()),
            Derivative::Forward { tangent } => {
                let mask = [mask, &float_params].concat();
                let has = [has, &float_results].concat();
                let (tangent, _) = self.function(module, (tangent.clone(), mask, has))?;
                Ok(Derivative::Forward { tangent })
            }
            Derivative::Reverse { forward, backward } => {
                let all = module.functions.get(forward).map_or(0, |f| f.results.len());
                let mut always = has.to_vec();
                always.resize(all, false);
                let (forward, given) = self.function(module, (forward.clone(), mask.to_vec(), always))?;
                let mask = [&given[has.len()..], &float_results].concat();
                let none = vec![false; float_params.len()];
                let (inner, given) = self.function(module, (backward.clone(), mask, none))?;
                let backward = self.summed(module, &inner, (&given, &float_params))?;
                Ok(Derivative::Reverse { forward, backward })
            }
        }
    }

    /// The function `inner` whose results are batched as `given` says, with results that are as `want` says: the cotangent of
    /// what all examples share is the sum of theirs.
    fn summed(&self, module: &mut Module, inner: &Name, (given, want): (&[bool], &[bool])) -> Result<Name, Diagnostic> {
        if given == want {
            return Ok(inner.clone());
        }
        let f = module.functions.get(inner).ok_or_else(|| Diagnostic::bug("a call of nothing"))?;
        let mut out = Function::new(&fresh(module, &format!("{inner}.sum")), f.symbols.clone(), f.params.clone());
        let args: Vec<Value> = (0..out.params.len()).map(|i| out.param(i)).collect();
        let mut b = Build::new(module, &mut out);
        let results = b.push_all(GraphOp::Call { function: inner.clone() }, &args)?;
        let mut summed = Vec::new();
        for ((value, &batched), want) in results.into_iter().zip(given).zip(want) {
            summed.push(match (batched, want) {
                (true, false) => b.fold(ReduceKind::Sum, value, vec![0])?,
                (false, true) => spread(&mut b, Each { value, batched }, &self.size)?,
                (true, true) | (false, false) => value,
            });
        }
        out.results = summed;
        let name = out.name.clone();
        add(module, out);
        Ok(name)
    }
}

fn masks(x: &[Each]) -> Vec<bool> {
    x.iter().map(|x| x.batched).collect()
}

fn results(values: Vec<Value>, has: &[bool]) -> Vec<Each> {
    values.into_iter().zip(has).map(|(value, &batched)| Each { value, batched }).collect()
}

/// `results = f(x)`.
pub(super) fn call(
    b: &mut Build<'_>,
    batched: &mut Batched,
    function: &Name,
    x: &[Each],
) -> Result<Vec<Each>, Diagnostic> {
    let count = b.module.functions.get(function).map_or(0, |f| f.results.len());
    let (function, has) = batched.function(b.module, (function.clone(), masks(x), vec![false; count]))?;
    let args: Vec<Value> = x.iter().map(|x| x.value).collect();
    Ok(results(b.push_all(GraphOp::Call { function }, &args)?, &has))
}

/// `results = if p { yes(x) } else { no(x) }`: both branches and a choice at each element where the condition is batched.
pub(super) fn cond(
    b: &mut Build<'_>,
    batched: &mut Batched,
    (yes, no): (&Name, &Name),
    x: &[Each],
    size: &Dim,
) -> Result<Vec<Each>, Diagnostic> {
    let (condition, x) = (x[0], &x[1..]);
    if condition.batched {
        let (yes, no) = (branch(b, batched, yes, x)?, branch(b, batched, no, x)?);
        let mut out = Vec::new();
        for (yes, no) in yes.into_iter().zip(no) {
            let (yes, no) = (spread(b, yes, size)?, spread(b, no, size)?);
            let shape = b.ty(yes).shape;
            let mask = b.broadcast(condition.value, shape, vec![0])?;
            let value = b.map(ScalarOp::Select {}, &[mask, yes, no])?;
            out.push(Each { value, batched: true });
        }
        return Ok(out);
    }
    let count = b.module.functions.get(yes).map_or(0, |f| f.results.len());
    let mut has = vec![false; count];
    for name in [yes, no] {
        let (_, own) = batched.function(b.module, (name.clone(), masks(x), vec![false; count]))?;
        has.iter_mut().zip(own).for_each(|(has, own)| *has |= own);
    }
    let (yes, _) = batched.function(b.module, (yes.clone(), masks(x), has.clone()))?;
    let (no, _) = batched.function(b.module, (no.clone(), masks(x), has.clone()))?;
    let args: Vec<Value> = [condition].iter().chain(x).map(|x| x.value).collect();
    Ok(results(b.push_all(GraphOp::Cond { yes, no }, &args)?, &has))
}

/// What a branch gives, whatever the condition is.
fn branch(b: &mut Build<'_>, batched: &mut Batched, name: &Name, x: &[Each]) -> Result<Vec<Each>, Diagnostic> {
    if x.iter().any(|x| x.batched) {
        return call(b, batched, name, x);
    }
    super::one_for_all(b, &GraphOp::Call { function: name.clone() }, x)
}

/// `last, stacks = scan(body, carries, slices)`: one scan whose steps are those of all examples. A carry is batched if it
/// is at some step.
pub(super) fn scan(
    b: &mut Build<'_>,
    batched: &mut Batched,
    (body, carries, length): (&Name, usize, &Dim),
    x: &[Each],
    size: &Dim,
) -> Result<Vec<Each>, Diagnostic> {
    let count = b.module.functions.get(body).map_or(0, |f| f.results.len());
    let mut mask = masks(x);
    let (function, has) = loop {
        let always = (0..count).map(|i| i < carries && mask[i]).collect();
        let (function, has) = batched.function(b.module, (body.clone(), mask.clone(), always))?;
        let more: Vec<usize> = (0..carries).filter(|&i| has[i] && !mask[i]).collect();
        if more.is_empty() {
            break (function, has);
        }
        more.into_iter().for_each(|i| mask[i] = true);
    };
    let mut args = Vec::new();
    for (i, &each) in x.iter().enumerate() {
        args.push(match (mask[i], i < carries) {
            (false, _) => each.value,
            (true, true) => spread(b, each, size)?,
            // A scan takes slices of the first axis.
            (true, false) => from_front(b, each.value, 1)?,
        });
    }
    let all = b.push_all(GraphOp::Scan { body: function, carries, length: length.clone() }, &args)?;
    let mut out = results(all, &has);
    for stack in out[carries..].iter_mut().filter(|stack| stack.batched) {
        stack.value = to_front(b, stack.value, 1)?;
    }
    Ok(out)
}
