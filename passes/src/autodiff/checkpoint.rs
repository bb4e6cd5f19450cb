//! Regions whose way back computes again what it needs, after Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
//!
//! A region is a function with [`Derivative::Checkpoint`], and what runs it is a call. Its residuals are its parameters: `split`
//! makes a backward function of these and of the cotangents, which computes the region again and goes back through it.
//!
//! Nothing merges the second computation with the first, as both are bodies of functions: rules, hash-consing and fusion look
//! at one function at a time, and calls stay calls. Nothing begins it early, as the call waits for the cotangents. JAX needs
//! an `optimization_barrier` for both, since it inlines the region into one program.

use crate::build::{Build, fresh};
use tilewright_ir::dsl::{Tensor, Tensors, Traced};
use tilewright_ir::graph::{Derivative, Function, Module, Role};
use tilewright_ir::op::{GraphOp, Name};

/// A function like `f` of which nothing is kept for the way back but its argument and what it uses beside it. Regions with
/// the same ops are one function.
///
/// ```
/// use tilewright_ir::{dsl::{Graph, Tensor}, types::DType};
/// use tilewright_passes::autodiff::{checkpoint, grad};
///
/// let g = Graph::new("main");
/// let (x, w) = (g.input("x", DType::F32, [4, 8]), g.weight("w", DType::F32, [8, 8]));
/// let layer = checkpoint(|x: &Tensor| x.matmul(&w).tanh().matmul(&w));
/// let loss = |x: &Tensor| layer(&layer(x)).sum(&[0, 1]);
/// let module = g.finish(&[&grad(loss)(&x)])?;
/// assert!(module.functions.contains_key("checkpoint.bwd"));
/// # Ok::<(), tilewright_ir::diag::Diagnostic>(())
/// ```
#[track_caller]
pub fn checkpoint<A: Tensors, B: Tensors>(f: impl Fn(&A) -> B) -> impl Fn(&A) -> B {
    move |x| {
        let all = x.list();
        let Some(graph) = all.first().map(|t| t.graph().clone()) else { return f(x) };
        let mut structure = None;
        let traced = graph.trace(|g| {
            let y = f(&x.rebuilt(all.iter().map(|t| g.free(t.ty())).collect()));
            let list = y.list();
            structure = Some(y);
            list
        });
        let results = traced.map_or_else(Vec::new, |traced| called(traced, &all));
        // `trace` ran the closure.
        structure.map_or_else(|| f(x), |y| y.rebuilt(results))
    }
}

/// The results of a call of the region whose free values are `free`; nothing after a mistake.
fn called(traced: Traced, free: &[Tensor]) -> Vec<Tensor> {
    let Traced { mut function, given } = traced;
    let mut free = free.iter();
    let all = given.iter().map(|given| given.as_ref().or_else(|| free.next())).collect::<Option<Vec<&Tensor>>>();
    let Some(all) = all else { return Vec::new() };
    let Some(graph) = all.first().map(|t| t.graph().clone()) else { return Vec::new() };
    function.derivative = Derivative::Checkpoint;
    let made = graph.extend(&all, |module, f, values| {
        for (param, &value) in function.params.iter_mut().zip(values) {
            if let GraphOp::Parameter { index } = f.node(value).op {
                param.role = if f.params[index].role == Role::Weight { Role::Weight } else { Role::Input };
            }
        }
        let function = declared(module, function);
        Build::new(module, f).push_all(GraphOp::Call { function }, values)
    });
    made.unwrap_or_default()
}

/// The name of a function with these ops, which is declared if there is none.
fn declared(module: &mut Module, mut f: Function) -> Name {
    if let Some(known) = module.functions.values().find(|known| known.same_ops(&f)) {
        return known.name.clone();
    }
    f.name = fresh(module, "checkpoint");
    let name = f.name.clone();
    crate::build::add(module, f);
    name
}
