//! Derivatives of closures over the DSL, inside the graph that is being built.
//!
//! `grad(f)` is a closure like `f`, so `grad(grad(f))` and any mixture of modes is meant to be written. The closure runs once, and
//! the nodes of its derivative are appended behind its own; what it uses beside its argument are constants for it. Arguments
//! and results are [`Tensors`]: a tensor, a list, a tuple, a struct of weights.
//!
//! Mistakes are kept in the graph, as those of the DSL are: `no-gradient` for what is no float, `not-scalar` for the gradient of
//! a tensor, `shape-mismatch` for cotangents and tangents of another type. An argument on which no result depends has
//! zeros, and [`Graph::warnings`] say so (`unrelated`).

use super::cut::Keeps;
use super::forward::forward;
use super::jvp::Moved;
use super::reverse::reverse;
use super::split::Kept;
use super::vjp::Shared;
use crate::build::Build;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Graph, Tensor, Tensors};
use tilewright_ir::graph::Value;
use tilewright_ir::op::GraphOp;

/// From cotangents of results to those of arguments.
pub type Pullback<A, B> = Box<dyn Fn(&B) -> A>;

/// From tangents of arguments to those of results.
pub type Linear<A, B> = Box<dyn Fn(&A) -> B>;

/// The gradient of a scalar function.
///
/// ```
/// use tilewright_ir::{dsl::Graph, types::DType};
/// use tilewright_passes::autodiff::grad;
///
/// let g = Graph::new("main");
/// let x = g.input("x", DType::F64, [3]);
/// let cube = |x: &tilewright_ir::dsl::Tensor| (x * x * x).sum(&[0]);
/// let second = grad(|x: &tilewright_ir::dsl::Tensor| grad(cube)(x).sum(&[0]))(&x);
/// g.finish(&[&second])?;
/// # Ok::<(), tilewright_ir::diag::Diagnostic>(())
/// ```
#[track_caller]
pub fn grad<A: Tensors>(f: impl Fn(&A) -> Tensor) -> impl Fn(&A) -> A {
    let both = value_and_grad(f);
    move |x| both(x).1
}

/// The value of a scalar function and its gradient.
#[track_caller]
pub fn value_and_grad<A: Tensors>(f: impl Fn(&A) -> Tensor) -> impl Fn(&A) -> (Tensor, A) {
    let place = Place::caller();
    move |x| {
        let arguments = alias(x);
        let y = f(&arguments);
        let gradients = gradients_at(&y, &arguments.list(), place.clone());
        (y, arguments.rebuilt(gradients))
    }
}

/// The gradients of the scalar `loss` by values that it was made of, such as weights that were declared on the way.
#[track_caller]
pub fn gradients(loss: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    gradients_at(loss, wrt, Place::caller())
}

/// The value of a function, and the closure that maps cotangents of its results to those of its arguments: each call of
/// it appends the way back.
#[track_caller]
pub fn vjp<A: Tensors + 'static, B: Tensors>(f: impl Fn(&A) -> B) -> impl Fn(&A) -> (B, Pullback<A, B>) {
    let place = Place::caller();
    move |x| {
        let arguments = alias(x);
        let y = f(&arguments);
        let (results, place) = (y.list(), place.clone());
        let back = move |cts: &B| arguments.rebuilt(pull(&results, &cts.list(), &arguments.list(), &place));
        (y, Box::new(back) as Pullback<A, B>)
    }
}

/// The value of a function, and its derivative along a tangent of its arguments.
#[track_caller]
pub fn jvp<A: Tensors + 'static, B: Tensors + Clone + 'static>(f: impl Fn(&A) -> B) -> impl Fn(&A, &A) -> (B, B) {
    let linear = linearize(f);
    move |x, tangent| {
        let (y, push) = linear(x);
        let along = push(tangent);
        (y, along)
    }
}

/// The value of a function, and the linear map from tangents of its arguments to those of its results: each call of it
/// appends the way forward.
#[track_caller]
pub fn linearize<A: Tensors + 'static, B: Tensors + Clone + 'static>(
    f: impl Fn(&A) -> B,
) -> impl Fn(&A) -> (B, Linear<A, B>) {
    let place = Place::caller();
    move |x| {
        let arguments = alias(x);
        let y = f(&arguments);
        let (out, place) = (y.clone(), place.clone());
        let along = move |tangents: &A| out.rebuilt(push(&out.list(), &arguments.list(), &tangents.list(), &place));
        (y, Box::new(along) as Linear<A, B>)
    }
}

/// The product of the Hessian of a scalar function with a vector, forward over reverse: it costs a few times the function.
#[track_caller]
pub fn hvp<A: Tensors + Clone + 'static>(f: impl Fn(&A) -> Tensor) -> impl Fn(&A, &A) -> A {
    let along = jvp(grad(f));
    move |x, vector| along(x, vector).1
}

/// The same values as values of their own, so that what else was made of them does not count. [`Graph::finish`] removes the
/// reshapes.
pub(crate) fn alias<A: Tensors>(x: &A) -> A {
    x.map_tensors(&mut |t| {
        let made = t.graph().extend(&[t], |module, f, values| {
            let node = f.node(values[0]).clone();
            let op = GraphOp::Reshape { shape: f.ty(values[0]).shape.clone() };
            let node = f.push(module, op, values, node.places.first().cloned(), &node.scope)?;
            Ok(vec![Value { node, index: 0 }])
        });
        made.and_then(|all| all.into_iter().next()).unwrap_or_else(|| t.poisoned())
    })
}

fn gradients_at(loss: &Tensor, wrt: &[Tensor], place: Place) -> Vec<Tensor> {
    gradients_keeping(loss, wrt, place, Keeps::default()).0
}

/// The gradients of the scalar `loss` by `wrt`, where functions keep what `keeps` says, and what they kept.
pub(crate) fn gradients_keeping(loss: &Tensor, wrt: &[Tensor], place: Place, keeps: Keeps) -> (Vec<Tensor>, Vec<Kept>) {
    let mut shared = Shared::keeping(keeps);
    let found = of_scalar(&mut shared, loss, wrt, place);
    (found, shared.kept)
}

fn of_scalar(shared: &mut Shared, loss: &Tensor, wrt: &[Tensor], place: Place) -> Vec<Tensor> {
    if loss.is_poisoned() {
        return Vec::new();
    }
    if !loss.dtype().is_float() {
        let message = format!("only floats have gradients, found {}", loss.ty());
        return refuse(loss, Diagnostic::new("no-gradient", message), place, "made here");
    }
    if loss.rank() != 0 {
        let message = format!("a gradient is that of a scalar, found {}", loss.ty());
        let error = Diagnostic::new("not-scalar", message).note("sum it first, or use `vjp` with a cotangent");
        return refuse(loss, error, place, "made here");
    }
    let one = loss.graph().extend(&[loss], |module, f, values| {
        let (node, ty) = (f.node(values[0]).clone(), f.ty(values[0]).clone());
        let mut b = Build::new(module, f);
        b.stand_for(&node);
        Ok(vec![b.full(&ty, 1.0)?])
    });
    one.map_or_else(Vec::new, |one| pull_by(shared, std::slice::from_ref(loss), &one, wrt, &place))
}

/// Cotangents of `wrt`, by those of `results`; nothing after a mistake.
pub(crate) fn pull(results: &[Tensor], cts: &[Tensor], wrt: &[Tensor], place: &Place) -> Vec<Tensor> {
    pull_by(&mut Shared::default(), results, cts, wrt, place)
}

fn pull_by(shared: &mut Shared, results: &[Tensor], cts: &[Tensor], wrt: &[Tensor], place: &Place) -> Vec<Tensor> {
    let pairs = || results.iter().zip(cts).filter(|(y, _)| y.dtype().is_float());
    let Some(graph) = checked(pairs(), wrt, "cotangent", place) else { return Vec::new() };
    let (all, count) = operands(pairs(), wrt);
    let mut unrelated = Vec::new();
    let found = graph.extend(&all, |module, f, values| {
        let seeds: Vec<(Value, Value)> = values[..2 * count].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let asked = &values[2 * count..];
        let found = reverse(module, shared, f, &seeds, asked)?;
        let mut out = Vec::new();
        for (i, ct) in found.into_iter().enumerate() {
            out.push(match ct {
                Some(ct) => ct,
                None => {
                    unrelated.push(i);
                    let ty = f.ty(asked[i]).clone();
                    Build::new(module, f).full(&ty, 0.0)?
                }
            });
        }
        Ok(out)
    });
    for i in unrelated {
        let message = format!("no result depends on argument {i}, {}: its gradient is zeros", wrt[i].ty());
        let warning = Diagnostic::warning("unrelated", message).at(place.clone(), "differentiated here");
        graph.warn(graph.place_of(&wrt[i]).into_iter().fold(warning, |d, p| d.at(p, "the argument")));
    }
    found.unwrap_or_default()
}

/// Tangents of the float `results`, by those of `wrt`, zeros where they stay; other results as they are; nothing after a mistake.
pub(crate) fn push(results: &[Tensor], wrt: &[Tensor], tangents: &[Tensor], place: &Place) -> Vec<Tensor> {
    let Some(graph) = checked(wrt.iter().zip(tangents), wrt, "tangent", place) else { return Vec::new() };
    let (all, count) = operands(wrt.iter().zip(tangents), results);
    let found = graph.extend(&all, |module, f, values| {
        let seeds: Vec<(Value, Value)> = values[..2 * count].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let results = &values[2 * count..];
        let found = forward(module, &mut Moved::default(), f, &seeds, results)?;
        let mut out = Vec::new();
        for (&result, tangent) in results.iter().zip(found) {
            let ty = f.ty(result).clone();
            out.push(match tangent {
                Some(tangent) => tangent,
                None if ty.dtype.is_float() => Build::new(module, f).full(&ty, 0.0)?,
                None => result,
            });
        }
        Ok(out)
    });
    found.unwrap_or_default()
}

/// The pairs one after the other, then the others, and how many pairs there are.
fn operands<'t>(
    pairs: impl Iterator<Item = (&'t Tensor, &'t Tensor)>,
    others: &'t [Tensor],
) -> (Vec<&'t Tensor>, usize) {
    let mut all: Vec<&Tensor> = pairs.flat_map(|(value, moves)| [value, moves]).collect();
    let count = all.len() / 2;
    all.extend(others);
    (all, count)
}

/// The graph, if what moves has the type of its value, and all of `wrt` are floats. None after a mistake, and for nothing.
fn checked<'t>(
    pairs: impl Iterator<Item = (&'t Tensor, &'t Tensor)>,
    wrt: &'t [Tensor],
    what: &str,
    place: &Place,
) -> Option<&'t Graph> {
    for (value, moves) in pairs {
        if value.is_poisoned() || moves.is_poisoned() {
            return None;
        }
        if value.ty() != moves.ty() {
            let message = format!("the {what} of {} must have its type, found {}", value.ty(), moves.ty());
            refuse(moves, Diagnostic::new("shape-mismatch", message), place.clone(), "made here");
            return None;
        }
    }
    if let Some(x) = wrt.iter().find(|x| !x.is_poisoned() && !x.dtype().is_float()) {
        let message = format!("{} has no gradient, as only floats have", x.ty());
        let error = Diagnostic::new("no-gradient", message).note("use it in the closure without passing it");
        refuse(x, error, place.clone(), "the argument");
        return None;
    }
    wrt.first().map(Tensor::graph)
}

/// Keeps a mistake at `place`, with the line of `tensor`.
fn refuse(tensor: &Tensor, error: Diagnostic, place: Place, label: &str) -> Vec<Tensor> {
    let error = error.at(place, "differentiated here");
    let graph = tensor.graph();
    graph.fail(graph.place_of(tensor).into_iter().fold(error, |d, p| d.at(p, label)));
    Vec::new()
}
