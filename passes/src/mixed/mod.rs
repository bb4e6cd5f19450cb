//! Mixed precision as a transformation of the Graph IR: contractions in bf16 or f16, everything that rounds otherwise in f32.
//!
//! before: `%0 = dot %x, %w`, `%1 = tanh %0`, all in f32
//! after:  `%0 = cast %x to=bf16`, `%1 = cast %w to=bf16`, `%2 = dot %0, %1`, `%3 = cast %2 to=f32`, `%4 = tanh %3`
//! keeps: types of parameters and results, places, scopes.    cost: O(nodes).
//!
//! [`Class`] is the table of what each op does; `forms` is the walk over one function, `closures` does it in graphs under
//! construction. It runs before differentiation: parameters stay in f32, the master copies of Micikevicius et al. (Mixed
//! Precision Training, 2018), and are cast inside, so that the derivative of the cast brings their gradients back to f32, and the
//! products of the way back have operands in the compute dtype, as those of the way forward do.
//!
//! Where torch's autocast has lists of layers, this has three sentences on ops: a contraction computes in the compute dtype;
//! what rounds computes in f32; what rounds nothing has the dtype that is at hand. Elementwise work in f32 costs nothing
//! in a compiler that fuses it, as only operands and results of products are stored, and those are cast.

mod closures;
mod forms;
mod table;

pub use closures::mixed;
pub use table::Class;

use crate::build::renamed_rule;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node};
use tilewright_ir::op::Name;
use tilewright_ir::types::DType;
use tilewright_ir::verify::verify;

/// In which dtype contractions compute, and where they do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    compute: DType,
    kept: Vec<Arc<str>>,
}

impl Policy {
    /// Contractions in `compute`, f16 or bf16.
    ///
    /// Errors: `precision` for another dtype.
    pub fn new(compute: DType) -> Result<Policy, Diagnostic> {
        match compute {
            DType::F16 | DType::Bf16 => Ok(Policy { compute, kept: Vec::new() }),
            other => {
                let message = format!("mixed precision computes in f16 or bf16, found {other}");
                Err(Diagnostic::new("precision", message).note("without the pass everything is in f32"))
            }
        }
    }

    /// The dtype of contractions.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// Contractions of the scope `path`, and of those inside it, stay in f32: `blocks.0` keeps `blocks.0.mlp`, not `blocks.01`.
    #[must_use]
    pub fn keeping(mut self, path: &str) -> Policy {
        self.kept.push(path.into());
        self
    }

    fn keeps(&self, scope: &str) -> bool {
        let inside = |path: &Arc<str>| match scope.strip_prefix(&**path) {
            Some(rest) => rest.is_empty() || rest.starts_with('.'),
            None => false,
        };
        self.kept.iter().any(inside)
    }
}

/// The module with contractions of f32 in the compute dtype of `policy`, in all functions. Types of parameters and results stay;
/// so do values in other dtypes than f32, and contractions with weights in a block encoding, which are read as they are stored.
///
/// Errors: those of type inference.
pub fn mixed_precision(module: &Module, policy: &Policy) -> Result<Module, Diagnostic> {
    let mut module = module.clone();
    let names: Vec<Name> = module.functions.keys().cloned().collect();
    let same: BTreeMap<Name, Name> = names.iter().map(|name| (name.clone(), name.clone())).collect();
    for name in names {
        let made = function(&mut module, policy, &same, &name)?;
        module.functions.insert(name, made);
    }
    verify(&module)?;
    Ok(module)
}

/// The form of the function `name`, which runs those that `names` has for the functions that it runs.
fn function(
    module: &mut Module,
    policy: &Policy,
    names: &BTreeMap<Name, Name>,
    name: &Name,
) -> Result<Function, Diagnostic> {
    let f = module.functions.get(name).cloned().ok_or_else(|| Diagnostic::bug("a name without a function"))?;
    let mut out = Function::new(named(names, name)?, f.symbols.clone(), f.params.clone());
    for (made, node) in out.nodes.iter_mut().zip(&f.nodes) {
        (made.places, made.scope) = (node.places.clone(), node.scope.clone());
    }
    let given: Vec<_> = (0..out.params.len()).map(|i| out.param(i)).collect();
    out.results = forms::append(module, policy, names, (&f, &mut out), &given)?;
    // A rule of the user's is for the same mathematics, and computes it alike.
    out.derivative = renamed_rule(&f.derivative, &|name| named(names, name).cloned())?;
    Ok(out)
}

fn named<'n>(names: &'n BTreeMap<Name, Name>, name: &Name) -> Result<&'n Name, Diagnostic> {
    names.get(name).ok_or_else(|| Diagnostic::bug(format!("`@{name}` has no form")))
}

/// The functions that `f` needs, to be run or differentiated, in the order in which they are declared.
fn needed(module: &Module, f: &Function) -> Vec<Name> {
    let of = |f: &Function| {
        let run = f.nodes.iter().flat_map(Node::callees).chain(f.derivative.functions());
        run.filter_map(|name| module.functions.get_index_of(name)).collect::<Vec<usize>>()
    };
    let (mut open, mut seen) = (of(f), BTreeSet::new());
    while let Some(i) = open.pop() {
        if seen.insert(i) {
            open.extend(of(&module.functions[i]));
        }
    }
    seen.into_iter().map(|i| module.functions[i].name.clone()).collect()
}

#[cfg(test)]
mod tests;
