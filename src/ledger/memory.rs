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
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Bindings;
use tilewright_passes::autodiff::{Form, differentiate};
use tilewright_passes::checkpoint::{Segments, segmented};

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
    /// Bytes of values that the way forward computes and the way back reads.
    pub held: Check,
    /// Bytes of the planned arena of loss and gradients, which are among its results.
    pub arena: usize,
}

/// Counts the three ways. Errors: those of the model, of differentiation and of the compiler.
pub(super) fn activations(
    config: &DecoderConfig,
    question: &Question,
    machine: &Machine,
    progress: &dyn Fn(&str),
) -> Result<Vec<Activations>, Diagnostic> {
    let plain = program::loss(&DecoderConfig { checkpoint: false, ..config.clone() }, question)?;
    let blocks = program::loss(&DecoderConfig { checkpoint: true, ..config.clone() }, question)?;
    let root = segmented(&plain, Segments::Sqrt)?;
    let mut held = [0.0; 3];
    let mut arenas = [0; 3];
    for (i, module) in [plain, blocks, root].iter().enumerate() {
        progress(&format!("planning the memory of gradients, {} of 3", i + 1));
        let made = differentiate(module, &program::learned(module)?, Form::ValueAndGradient)?.module;
        held[i] = held_bytes(&made)?;
        let programs = programs(&made, &machine.options, machine.target)?;
        arenas[i] = arena(&programs, &made.entry()?.name, &Bindings::new())?;
    }
    let element = config.float.bytes(1).unwrap_or(0) as f64;
    let checks = Sizes::new(config, question.batch, question.seq).activations(element, held);
    Ok(checks.into_iter().zip(arenas).map(|(held, arena)| Activations { held, arena }).collect())
}

/// Bytes of values that the entry of a value and its gradient computes up to the value, and reads after it; parameters are not among
/// them, and a reshape is what it reshapes.
fn held_bytes(module: &Module) -> Result<f64, Diagnostic> {
    let f = module.entry()?;
    let value = f.results.first().ok_or_else(|| Diagnostic::bug("a value and gradient without a value"))?;
    let mut held: BTreeSet<Value> = BTreeSet::new();
    for ((i, node), live) in f.nodes.iter().enumerate().zip(f.live()) {
        if live && i > value.node.index() {
            held.extend(node.args.iter().map(|a| root(f, *a)).filter(|v| kept(f, *v, value.node)));
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

fn kept(f: &Function, v: Value, last: NodeId) -> bool {
    let free = matches!(f.node(v).op, GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. });
    (f.params.len()..=last.index()).contains(&v.node.index()) && !free
}
