//! Memory of training: what a step holds, and what ways to checkpoint hold between the way forward and the way back.

use super::textbook::{Check, Sizes};
use super::{Machine, Question, program};
use crate::checkpoint::arena;
use crate::compile::programs;
use crate::models::DecoderConfig;
use serde::Serialize;
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops::type_bytes;
use tilewright_ir::graph::{Function, Module, NodeId, Role, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Bindings;
use tilewright_passes::autodiff::{Form, differentiate};
use tilewright_passes::checkpoint::{Segments, segmented};
use tilewright_passes::mixed::mixed_precision;

/// Bytes that a step of training needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// The weights.
    pub weights: f64,
    /// Their gradients.
    pub gradients: f64,
    /// The moments of the optimiser.
    pub optimiser: f64,
    /// What each way to checkpoint holds.
    pub activations: Vec<Activations>,
}

/// What a way to checkpoint holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Activations {
    /// Bytes of values that the way forward computes from its inputs and the way back reads.
    pub held: Check,
    /// Bytes of the planned arena of loss and gradients, which are among its results.
    pub arena: usize,
}

/// Counts the three ways; a model of one layer has no segments. Errors: those of the model, of differentiation and of the compiler.
pub(super) fn activations(
    config: &DecoderConfig,
    question: &Question,
    machine: &Machine,
    progress: &dyn Fn(&str),
) -> Result<Vec<Activations>, Diagnostic> {
    // Segments are found before casts of weights cross them.
    let full = Question { precision: None, ..question.clone() };
    let policy = question.policy()?;
    let plain = program::loss(&DecoderConfig { checkpoint: false, ..config.clone() }, &full)?;
    let blocks = program::loss(&DecoderConfig { checkpoint: true, ..config.clone() }, &full)?;
    let root = match segmented(&plain, Segments::Sqrt) {
        Err(d) if d.code == "no-chain" => None,
        found => Some(found?),
    };
    let ways: Vec<Module> = [plain, blocks].into_iter().chain(root).collect();
    let mut held = [0.0; 3];
    let mut arenas = Vec::with_capacity(ways.len());
    for (i, module) in ways.iter().enumerate() {
        progress(&format!("planning the memory of gradients, {} of {}", i + 1, ways.len()));
        let reduced = policy.as_ref().map(|policy| mixed_precision(module, policy)).transpose()?;
        let module = reduced.as_ref().unwrap_or(module);
        let made = differentiate(module, &program::learned(module)?, Form::ValueAndGradient)?.module;
        held[i] = held_bytes(&made)?;
        let programs = programs(&made, &machine.options, machine.target)?;
        arenas.push(arena(&programs, &made.entry()?.name, &Bindings::new())?);
    }
    // Formulas count what products read; counted are values in the dtypes that they have.
    let element = question.products().bytes(1).unwrap_or(0) as f64;
    let checks = Sizes::new(config, question.batch, question.seq).activations(element, held);
    Ok(checks.into_iter().zip(arenas).map(|(held, arena)| Activations { held, arena }).collect())
}

/// Bytes of values that the entry of a value and its gradient computes from inputs up to the value, and reads after it. Parameters and
/// what is made of weights alone are not among them, and a reshape is what it reshapes.
fn held_bytes(module: &Module) -> Result<f64, Diagnostic> {
    let f = module.entry()?;
    let value = f.results.first().ok_or_else(|| Diagnostic::bug("a value and gradient without a value"))?;
    let mut held: BTreeSet<Value> = BTreeSet::new();
    let mut given: Vec<bool> = Vec::with_capacity(f.nodes.len());
    for node in &f.nodes {
        let input = matches!(node.op, GraphOp::Parameter { index } if f.params[index].role == Role::Input);
        given.push(input || node.args.iter().any(|a| given[a.node.index()]));
    }
    for ((i, node), live) in f.nodes.iter().enumerate().zip(f.live()) {
        if live && i > value.node.index() {
            held.extend(
                node.args.iter().map(|a| root(f, *a)).filter(|v| given[v.node.index()] && computed(f, *v, value.node)),
            );
        }
    }
    let bytes = |v: &Value| type_bytes(f.ty(*v)).and_then(|d| d.as_const());
    let total: Option<i64> = held.iter().map(bytes).sum();
    Ok(total.ok_or_else(|| Diagnostic::new("dim-overflow", "values of no known size"))? as f64)
}

fn root(f: &Function, mut v: Value) -> Value {
    while let GraphOp::Reshape { .. } = f.node(v).op {
        v = f.node(v).args[0];
    }
    v
}

fn computed(f: &Function, v: Value, last: NodeId) -> bool {
    (f.params.len()..=last.index()).contains(&v.node.index())
}
