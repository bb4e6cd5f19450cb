//! Batching of closures over the DSL, inside the graph that is being built, and what follows: whole Jacobians and Hessians.
//!
//! The closure is written for one example. It runs once, in a function of its own, whose form for many examples is
//! appended to the graph. It nests, under and over the transforms of [`autodiff`](crate::autodiff). What it uses beside its argument,
//! weights among them, is the same for all examples.

use super::control::Batched;
use super::{Each, spread, walk};
use crate::autodiff::{alias, grad, pull, push};
use crate::build::Build;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Graph, Tensor, Tensors, Traced};
use tilewright_ir::graph::{Function, Module, Value};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};

/// The function of many examples that `f` is of one: the examples are the first axis of each argument and result.
/// [`Tensor::transpose`] and [`Tensor::permute`] bring another axis there; an argument that all examples share is captured.
///
/// ```
/// use tilewright_ir::{dsl::{Graph, Tensor}, types::DType};
/// use tilewright_passes::{autodiff::grad, vmap::vmap};
///
/// // The gradient of each example's loss.
/// let g = Graph::new("main");
/// let (x, w) = (g.input("x", DType::F32, [32, 8]), g.weight("w", DType::F32, [8]));
/// let loss = |w: &Tensor, x: &Tensor| (w * x).sum(&[0]).tanh();
/// let each = vmap(|x: &Tensor| grad(|w: &Tensor| loss(w, x))(&w))(&x);
/// assert_eq!(each.ty().to_string(), "f32[32, 8]");
/// g.finish(&[&each])?;
/// # Ok::<(), tilewright_ir::diag::Diagnostic>(())
/// ```
///
/// Errors: `shape-mismatch` where the numbers of examples differ, `bad-axis` for scalars, `no-batch` without arguments.
#[track_caller]
pub fn vmap<A: Tensors, B: Tensors>(f: impl Fn(&A) -> B) -> impl Fn(&A) -> B {
    let place = Place::caller();
    move |x| {
        let all = x.list();
        let size = match examples(&all) {
            Ok(size) => size,
            Err(error) => {
                // What the closure gives for all examples has the structure of the result.
                let y = f(x);
                let graph = all.iter().chain(&y.list()).next().map(|t| t.graph().clone());
                graph.into_iter().for_each(|g| drop(g.fail(error.clone().at(place.clone(), "batched here"))));
                return poisoned(&y);
            }
        };
        let graph = all[0].graph();
        let mut structure = None;
        let traced = graph.trace(|g| {
            let free = all.iter().map(|t| g.free(&Type { dtype: t.dtype(), shape: t.shape()[1..].to_vec() })).collect();
            let y = f(&x.rebuilt(free));
            let list = y.list();
            structure = Some(y);
            list
        });
        let results = traced.map_or_else(Vec::new, |traced| over(graph, &traced, &all, &size));
        // `trace` ran the closure.
        structure.map_or_else(|| poisoned(&f(x)), |y| y.rebuilt(results))
    }
}

/// The Jacobian of a function of one tensor by forward mode: of the result's shape, then the argument's. One pass forward
/// of all of the argument's elements at once, so it is for few arguments and many results.
#[track_caller]
pub fn jacobian_forward(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    let place = Place::caller();
    move |x| {
        let graph = x.graph();
        let mut shape = Vec::new();
        let traced = graph.trace(|g| {
            let argument = alias(x);
            let y = f(&argument);
            shape = y.shape().to_vec();
            let tangent = g.free(x.ty());
            push(&[y], &[argument], &[tangent], &place)
        });
        let Some(columns) = along_units(graph, traced, x) else { return x.poisoned() };
        let rank = columns.rank() as i64;
        let last: Vec<i64> = (1..rank).chain([0]).collect();
        columns.permute(&last).reshape([&shape, x.shape()].concat())
    }
}

/// The Jacobian of a function of one tensor by reverse mode: of the result's shape, then the argument's. One pass back of all
/// of the result's elements at once, so it is for many arguments and few results.
#[track_caller]
pub fn jacobian_reverse(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    let place = Place::caller();
    move |x| {
        let graph = x.graph();
        let mut result = None;
        let traced = graph.trace(|g| {
            let argument = alias(x);
            let y = f(&argument);
            let ct = g.free(y.ty());
            result = Some(y.clone());
            pull(&[y], &[ct], &[argument], &place)
        });
        let Some(y) = result else { return x.poisoned() };
        let Some(rows) = along_units(graph, traced, &y) else { return x.poisoned() };
        rows.reshape([y.shape(), x.shape()].concat())
    }
}

/// The Hessian of a scalar function of one tensor, forward over reverse: of the argument's shape twice.
#[track_caller]
pub fn hessian(f: impl Fn(&Tensor) -> Tensor) -> impl Fn(&Tensor) -> Tensor {
    jacobian_forward(grad(f))
}

/// What a closure of one free value of the type of `like` gives for all units of it: the first axis says which.
fn along_units(graph: &Graph, traced: Option<Traced>, like: &Tensor) -> Option<Tensor> {
    let traced = traced?;
    let size = like.ty().elements()?;
    let (row, column) = (0, 1);
    let index = |axis| graph.iota(DType::I64, [size.clone(), size.clone()], axis);
    let shape: Vec<Dim> = [size.clone()].into_iter().chain(like.shape().iter().cloned()).collect();
    let units = index(row).eq(index(column)).cast(like.dtype()).reshape(shape);
    over(graph, &traced, &[units], &size).into_iter().next()
}

/// How many examples there are.
fn examples(all: &[Tensor]) -> Result<Dim, Diagnostic> {
    let Some(first) = all.first() else {
        return Err(Diagnostic::new("no-batch", "no argument is batched, so there are no examples"));
    };
    if let Some(scalar) = all.iter().find(|t| t.rank() == 0) {
        let message = format!("a batched argument needs an axis of examples, found {}", scalar.ty());
        return Err(Diagnostic::new("bad-axis", message));
    }
    let size = &first.shape()[0];
    if let Some(other) = all.iter().find(|t| t.shape()[0] != *size) {
        let message = format!("all arguments must have as many examples, found {} and {}", first.ty(), other.ty());
        return Err(Diagnostic::new("shape-mismatch", message));
    }
    Ok(size.clone())
}

fn poisoned<B: Tensors>(like: &B) -> B {
    like.map_tensors(&mut |t| t.poisoned())
}

/// Appends what a closure does for `size` examples, where its free values are `batched`; nothing after a mistake.
fn over(graph: &Graph, traced: &Traced, batched: &[Tensor], size: &Dim) -> Vec<Tensor> {
    let mut free = batched.iter();
    let mask: Vec<bool> = traced.given.iter().map(Option::is_none).collect();
    let Some(all) = traced.given.iter().map(|given| given.as_ref().or_else(|| free.next())).collect::<Option<Vec<_>>>()
    else {
        return Vec::new();
    };
    let made = graph.extend(&all, |module, target, values| {
        let given: Vec<Each> = values.iter().zip(&mask).map(|(&value, &batched)| Each { value, batched }).collect();
        let mut forms = inside(module, target, size);
        let results = walk(module, &mut forms, (&traced.function, target), &given, size)?;
        let mut b = Build::new(module, target);
        results.into_iter().map(|each| spread(&mut b, each, size)).collect::<Result<Vec<Value>, Diagnostic>>()
    });
    made.unwrap_or_default()
}

/// Functions that are called get a size of their own for the number of examples, as a size of the caller's may have another
/// meaning there.
pub(super) fn inside(module: &Module, f: &Function, size: &Dim) -> Batched {
    if size.as_const().is_some() {
        return Batched::new(size.clone(), None);
    }
    let taken = |name: &str| module.functions.values().chain([f]).any(|f| f.symbols.iter().any(|s| *s.name == *name));
    let names = std::iter::once("examples".to_string()).chain((1u32..).map(|i| format!("examples{i}")));
    let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
    let (low, high) = size.bounds(&f.symbols);
    Batched::new(Dim::symbol(&name), Some(SymbolDecl::new(&name, low.max(0), high)))
}
