//! Whole Jacobians and Hessians of programs, as programs: forward mode along all units of a parameter at once.
//!
//! before: `func @main(%x: f32[8]) -> f32[4]`
//! after:  `func @main(%x: f32[8]) -> f32[4, 8]`
//! keeps: values, up to the order of sums inside contractions; places.    cost: O(nodes) for each parameter.

use super::closures::inside;
use super::{Each, spread, walk};
use crate::autodiff::{Differentiated, Form, Prune, differentiate, entry_with_rule, float_parameter, pushforward};
use crate::build::{Build, add, kept, overflow};
use crate::extract::extract;
use crate::lower::depth;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Value};
use tilewright_ir::op::{Axes, Dims, GraphOp, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};
use tilewright_ir::verify::verify;

/// The Jacobian of each float result of the entry of `module` by each of the parameters `wrt`: of the result's shape, then
/// the parameter's; first all of the first result. It is made by forward mode, so a program is run for each element of `wrt`
/// at once: for few parameters and many results. By reverse mode it is the pullback, batched over cotangents (`batch`).
///
/// The entry keeps its name and parameters; none of them is donated.
///
/// Errors: those of [`differentiate`].
pub fn jacobian(module: &Module, wrt: &[&str]) -> Result<Module, Diagnostic> {
    depth(module)?;
    let mut module = module.clone();
    let entry = module.entry()?.name.clone();
    let Some(f) = module.functions.shift_remove(&entry) else { return Err(Diagnostic::bug("an entry without a name")) };
    let f = entry_with_rule(&mut module, kept(f))?;
    let mut out = Function::new(&entry, f.symbols.clone(), f.params.clone());
    for (made, node) in out.nodes.iter_mut().zip(&f.nodes) {
        (made.places, made.scope) = (node.places.clone(), node.scope.clone());
    }
    let mut blocks = Vec::new();
    for name in wrt {
        blocks.push(by_one(&mut module, &f, float_parameter(&f, name)?, &mut out)?);
    }
    let results = blocks.first().map_or(0, Vec::len);
    let results: Vec<Value> = (0..results).flat_map(|r| blocks.iter().map(move |block| block[r])).collect();
    let params: Vec<Value> = (0..out.params.len()).map(|i| out.param(i)).collect();
    let asked = extract(&out, &entry, &params, &results)?;
    let asked = Prune::default().inside(&mut module, &asked)?;
    add(&mut module, asked);
    let module = module.part(&entry)?;
    verify(&module)?;
    depth(&module)?;
    Ok(module)
}

/// The second derivatives of the entry's first result, a scalar, by each pair of the parameters `wrt`, forward over reverse:
/// of the first one's shape, then the second's; first all with the first parameter.
///
/// Errors: those of [`differentiate`].
pub fn hessian_of(module: &Module, wrt: &[&str]) -> Result<Module, Diagnostic> {
    jacobian(&differentiate(module, wrt, Form::Gradient)?.module, wrt)
}

/// The Hessian of the entry's first result, a scalar, times tangents of the parameters `wrt`, which the entry takes behind
/// its parameters, by the names that the pushforward has; forward over reverse. One result for each of `wrt`, of its shape.
///
/// Errors: those of [`differentiate`].
pub fn hvp_of(module: &Module, wrt: &[&str]) -> Result<Differentiated, Diagnostic> {
    let gradient = differentiate(module, wrt, Form::Gradient)?;
    let mut made = differentiate(&gradient.module, wrt, Form::Pushforward)?;
    let entry = made.module.entry()?.clone();
    let params: Vec<Value> = (0..entry.params.len()).map(|i| entry.param(i)).collect();
    let results = entry.results.get(wrt.len()..).unwrap_or_default();
    // Functions that move still return the gradients, which nobody reads.
    let asked = extract(&entry, &entry.name, &params, results)?;
    let asked = Prune::default().inside(&mut made.module, &asked)?;
    add(&mut made.module, asked);
    Ok(Differentiated { module: made.module.part(&entry.name)?, unrelated: gradient.unrelated, ..made })
}

/// Appends the derivatives of the float results of `f` by one parameter to `out`.
fn by_one(module: &mut Module, f: &Function, wrt: usize, out: &mut Function) -> Result<Vec<Value>, Diagnostic> {
    let (mut moved, results, _) = pushforward(module, f, &[wrt])?;
    moved.results = results;
    let ty = &f.params[wrt].ty;
    let size = ty.elements().ok_or_else(overflow)?;
    let unit = units(&mut Build::new(module, out), ty, &size)?;
    let same = (0..f.params.len()).map(|i| Each { value: out.param(i), batched: false });
    let given: Vec<Each> = same.chain([Each { value: unit, batched: true }]).collect();
    let mut forms = inside(module, out, &size);
    let found = walk(module, &mut forms, (&moved, out), &given, &size)?;
    let mut b = Build::new(module, out);
    let tangents = found.into_iter().skip(f.results.len());
    tangents.map(|each| units_last(&mut b, each, ty, &size)).collect()
}

/// All tensors of type `ty` with one 1 and else 0, along a new first axis.
fn units(b: &mut Build<'_>, ty: &Type, size: &Dim) -> Result<Value, Diagnostic> {
    let square: Dims = vec![size.clone(), size.clone()];
    let position = |axis| GraphOp::Iota { axis, shape: square.clone(), dtype: DType::I64 };
    let (row, column) = (b.push(position(0), &[])?, b.push(position(1), &[])?);
    let one = b.compare(ScalarOp::Eq {}, row, column)?;
    let one = b.cast(one, ty.dtype)?;
    b.reshape(one, [size.clone()].into_iter().chain(ty.shape.iter().cloned()).collect())
}

/// The axis of units behind the others, as the shape of the parameter.
fn units_last(b: &mut Build<'_>, each: Each, ty: &Type, size: &Dim) -> Result<Value, Diagnostic> {
    let columns = spread(b, each, size)?;
    let shape: Dims = b.ty(columns).shape.iter().skip(1).chain(&ty.shape).cloned().collect();
    let rank = b.ty(columns).rank();
    let perm: Axes = (1..rank).chain([0]).collect();
    let columns = b.transpose(columns, perm)?;
    b.reshape(columns, shape)
}
