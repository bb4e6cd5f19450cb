//! Batching as a transformation of the Graph IR: a function of one example becomes one of many, without a loop.
//!
//! The new axis is axis 0 of each value that depends on it; values that do not stay as they are, and are computed once. `rules`
//! says of each op what it becomes: a contraction gets a batch or a free axis, a reduction other axis numbers. `control` does the same
//! for calls, conditionals and loops, whose functions get a form for many examples beside them.
//!
//! before: `func @main(%x: f32[8], %w: f32[8, 4])`, `%0 = dot %x, %w contract=[0]x[0] : f32[4]`, of which `%x` is batched
//! after:  `func @main(%x: f32[32, 8], %w: f32[8, 4])`, `%0 = dot %x, %w contract=[1]x[0] : f32[32, 4]`
//! keeps: the results of each example, but for the order of sums inside contractions; places.    cost: O(nodes).

mod closures;
mod control;
mod programs;
mod rules;

pub use closures::{hessian, jacobian_forward, jacobian_reverse, vmap};
pub use programs::{hessian_of, hvp_of, jacobian};

use crate::build::{Build, add, kept, parameter};
use crate::extract::extract;
use crate::lower::depth;
use control::Batched;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Value};
use tilewright_ir::op::{Axis, GraphOp};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};
use tilewright_ir::verify::verify;

/// How many examples there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Count {
    /// This many.
    Fixed(i64),
    /// A size of its own, which no function has yet.
    Symbol(SymbolDecl),
}

/// A value of a function of many examples: with the new axis, its first, or one for all examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Each {
    value: Value,
    batched: bool,
}

/// Batches the entry of `module` over the parameters `axes`, which get the new axis in the given place. It is the first axis
/// of each result; a result that is the same for all examples is repeated.
///
/// The entry keeps its name and the order of its parameters; none of them is donated. A gradient is that of each example:
/// `vmap` of a gradient has one of its own for each. A conditional whose condition is batched runs both branches and selects,
/// so an index outside in either is an error. Random numbers are functions of their counters, so each example has the
/// stream of its own counter, and all have the same stream if the counter is not batched.
///
/// Errors: `unknown-parameter`; `bad-axis`; `no-batch` without `axes`; `duplicate-name` for a size that some function
/// has; `call-depth`; those of type inference, such as `dim-overflow`.
pub fn batch(module: &Module, axes: &[(&str, Axis)], count: &Count) -> Result<Module, Diagnostic> {
    depth(module)?;
    let mut module = module.clone();
    let entry = module.entry()?.name.clone();
    let Some(f) = module.functions.shift_remove(&entry) else { return Err(Diagnostic::bug("an entry without a name")) };
    let f = kept(f);
    let size = size(&module, &f, count)?;
    let places = places(&f, axes)?;
    let symbol = if let Count::Symbol(decl) = count { Some(decl.clone()) } else { None };
    let mut batched = Batched::new(size.clone(), symbol);
    let mut params = f.params.clone();
    for (param, axis) in params.iter_mut().zip(&places) {
        axis.iter().for_each(|&axis| param.ty.shape.insert(axis, size.clone()));
    }
    let mut out = Function::new(&entry, batched.symbols(&f), params);
    let mut given = Vec::new();
    for (i, axis) in places.iter().enumerate() {
        out.nodes[i].places.clone_from(&f.nodes[i].places);
        out.nodes[i].scope = f.nodes[i].scope.clone();
        let mut b = Build::new(&mut module, &mut out);
        b.stand_for(&f.nodes[i]);
        let value = b.f.param(i);
        let value = axis.map_or(Ok(value), |axis| to_front(&mut b, value, axis))?;
        given.push(Each { value, batched: axis.is_some() });
    }
    let results = walk(&mut module, &mut batched, (&f, &mut out), &given, &size)?;
    for each in results {
        let mut b = Build::new(&mut module, &mut out);
        let value = spread(&mut b, each, &size)?;
        out.results.push(value);
    }
    if f.derivative != Derivative::OfOps {
        let all = vec![true; out.results.len()];
        let mask: Vec<bool> = places.iter().map(Option::is_some).collect();
        out.derivative = batched.rule(&mut module, &f, (&mask, &all))?;
    }
    // What is turned twice leaves the first turn behind.
    let params: Vec<Value> = (0..out.params.len()).map(|i| out.param(i)).collect();
    let derivative = out.derivative.clone();
    add(&mut module, Function { derivative, ..extract(&out, &entry, &params, &out.results)? });
    let module = module.part(&entry)?;
    verify(&module)?;
    depth(&module)?;
    Ok(module)
}

/// The size of the new axis. Errors: `duplicate-name`, `bad-size`.
fn size(module: &Module, f: &Function, count: &Count) -> Result<Dim, Diagnostic> {
    match count {
        Count::Fixed(n) if *n < 0 => {
            Err(Diagnostic::new("bad-size", format!("expected a number of examples, found {n}")))
        }
        Count::Fixed(n) => Ok(Dim::constant(*n)),
        Count::Symbol(decl) => {
            let taken = module.functions.values().chain([f]).find(|f| f.symbols.iter().any(|s| s.name == decl.name));
            match taken {
                None => Ok(Dim::symbol(&decl.name)),
                Some(f) => {
                    let message = format!("`@{}` has a size `{}` already", f.name, decl.name);
                    Err(Diagnostic::new("duplicate-name", message)
                        .note("the number of examples needs a name of its own"))
                }
            }
        }
    }
}

/// Where each parameter gets the new axis.
fn places(f: &Function, axes: &[(&str, Axis)]) -> Result<Vec<Option<Axis>>, Diagnostic> {
    let mut places = vec![None; f.params.len()];
    for &(name, axis) in axes {
        let i = parameter(f, name)?;
        let ty = &f.params[i].ty;
        if axis > ty.rank() {
            let message = format!("`%{name}`: {ty} can get an axis at 0 to {}, found {axis}", ty.rank());
            return Err(Diagnostic::new("bad-axis", message));
        }
        if places[i].replace(axis).is_some() {
            return Err(Diagnostic::new("bad-axis", format!("`%{name}` gets an axis twice")));
        }
    }
    if axes.is_empty() {
        let message = format!("no parameter of `@{}` is batched, so there are no examples", f.name);
        return Err(Diagnostic::new("no-batch", message));
    }
    Ok(places)
}

/// Appends to `target` what `source` does for many examples, where its parameters are `given`. Its results.
fn walk(
    module: &mut Module,
    batched: &mut Batched,
    (source, target): (&Function, &mut Function),
    given: &[Each],
    size: &Dim,
) -> Result<Vec<Each>, Diagnostic> {
    let mut values: Vec<Vec<Each>> = given.iter().map(|&each| vec![each]).collect();
    let live = source.live();
    for (node, live) in source.nodes.iter().zip(live).skip(given.len()) {
        if !live {
            values.push(Vec::new());
            continue;
        }
        let args: Vec<Each> = node.args.iter().map(|a| values[a.node.index()][a.index as usize]).collect();
        let mut b = Build::new(module, target);
        b.stand_for(node);
        values.push(if args.iter().any(|a| a.batched) {
            rules::batch(&mut b, batched, &node.op, &args, size)?
        } else {
            one_for_all(&mut b, &node.op, &args)?
        });
    }
    Ok(source.results.iter().map(|r| values[r.node.index()][r.index as usize]).collect())
}

/// A node on which the examples have no influence.
fn one_for_all(b: &mut Build<'_>, op: &GraphOp, args: &[Each]) -> Result<Vec<Each>, Diagnostic> {
    let args: Vec<Value> = args.iter().map(|a| a.value).collect();
    let results = b.push_all(op.clone(), &args)?;
    Ok(results.into_iter().map(|value| Each { value, batched: false }).collect())
}

/// The value with the new axis, which it gets if it has none.
fn spread(b: &mut Build<'_>, each: Each, size: &Dim) -> Result<Value, Diagnostic> {
    if each.batched {
        return Ok(each.value);
    }
    let Type { mut shape, .. } = b.ty(each.value);
    let dims = (1..=shape.len()).collect();
    shape.insert(0, size.clone());
    let value = plain(b, each.value)?;
    b.push(GraphOp::Broadcast { shape, dims }, &[value])
}

/// The value, with blocks as the numbers that they stand for: only casts and `take` know blocks.
fn plain(b: &mut Build<'_>, x: Value) -> Result<Value, Diagnostic> {
    if b.f.ty(x).dtype.is_block() { b.cast(x, DType::F32) } else { Ok(x) }
}

/// `axis` becomes the first.
fn to_front(b: &mut Build<'_>, x: Value, axis: Axis) -> Result<Value, Diagnostic> {
    let rank = b.f.ty(x).rank();
    let perm = [axis].into_iter().chain((0..rank).filter(|&a| a != axis)).collect();
    b.transpose(x, perm)
}

/// The first axis becomes `axis`.
fn from_front(b: &mut Build<'_>, x: Value, axis: Axis) -> Result<Value, Diagnostic> {
    let rank = b.f.ty(x).rank();
    let perm = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
    b.transpose(x, perm)
}

#[cfg(test)]
mod tests;
