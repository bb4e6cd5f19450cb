//! One function: in which dtypes each value is needed, and then the nodes that make it in these.
//!
//! A value of f32 has two forms, the full one and one rounded to the compute dtype. A sweep forward finds which form each node
//! has at hand, one back which forms are asked for, and the last forward makes those and no others.

use super::{Class, Policy, named};
use crate::build::{Build, renamed};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, Value};
use tilewright_ir::op::{GraphOp, Name, ScalarOp};
use tilewright_ir::types::{DType, Type};

/// One thing for each form of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Forms<T> {
    /// In f32, or in the dtype that the graph has, if that is another.
    full: T,
    /// In the compute dtype.
    reduced: T,
}

const FULL: Forms<bool> = Forms { full: true, reduced: false };
const REDUCED: Forms<bool> = Forms { full: false, reduced: true };

/// A node with what the forward sweep knows of it.
struct Known<'a> {
    node: &'a Node,
    class: Class,
    /// Whether its value is in the compute dtype wherever it is needed.
    reduced: bool,
}

/// Whether a value has two forms.
fn mixes(ty: &Type) -> bool {
    ty.dtype == DType::F32
}

/// Appends to `target` what `source` does, by the forms of functions that `names` has, where its parameters are `given`. Its
/// results, of the same types.
pub(super) fn append(
    module: &mut Module,
    policy: &Policy,
    names: &BTreeMap<Name, Name>,
    (source, target): (&Function, &mut Function),
    given: &[Value],
) -> Result<Vec<Value>, Diagnostic> {
    let known = at_hand(source, policy);
    let wanted = asked_for(source, &known);
    let mut made: Vec<Vec<Forms<Option<Value>>>> = Vec::with_capacity(known.len());
    for (known, wanted) in known.iter().zip(&wanted) {
        let node = known.node;
        let mut b = Build::new(module, target);
        b.stand_for(node);
        let mut results = vec![Forms::default(); node.types.len()];
        let runs = known.runs(wanted);
        if runs.full {
            let values = match &node.op {
                GraphOp::Parameter { index } => vec![given[*index]],
                op => b.push_all(
                    renamed(op, &|name| named(names, name).cloned())?,
                    &operands(source, &made, node, FULL)?,
                )?,
            };
            results.iter_mut().zip(values).for_each(|(result, value)| result.full = Some(value));
        }
        if runs.reduced {
            let value = b.push(node.op.clone(), &operands(source, &made, node, REDUCED)?)?;
            results[0].reduced = Some(value);
        }
        for (result, wanted) in results.iter_mut().zip(wanted) {
            match (result.full, result.reduced) {
                (Some(value), None) if wanted.reduced => result.reduced = Some(b.cast(value, policy.compute)?),
                (None, Some(value)) if wanted.full => result.full = Some(b.cast(value, DType::F32)?),
                _complete => {}
            }
        }
        made.push(results);
    }
    source.results.iter().map(|&r| form(source, &made, r, FULL)).collect()
}

/// The class of each node where it stands, and which values are in the compute dtype.
fn at_hand<'a>(f: &'a Function, policy: &Policy) -> Vec<Known<'a>> {
    let mut known: Vec<Known<'a>> = Vec::with_capacity(f.nodes.len());
    for node in &f.nodes {
        // The micro-kernels of encoded weights read them as they are stored, beside operands in f32.
        let encoded = |v: &Value| {
            let made = f.node(*v);
            matches!(made.op, GraphOp::Map { op: ScalarOp::Cast { .. } }) && f.ty(made.args[0]).dtype.is_block()
        };
        let class = match Class::of(&node.op) {
            _any if !node.types.iter().all(mixes) => Class::Full,
            Class::Compute if policy.keeps(&node.scope) || node.args.iter().any(encoded) => Class::Full,
            class => class,
        };
        let operand = |v: &Value| !mixes(f.ty(*v)) || known[v.node.index()].reduced;
        let reduced = match class {
            Class::Compute => true,
            Class::Full => false,
            Class::Moves | Class::Picks => node.args.iter().all(operand),
        };
        known.push(Known { node, class, reduced });
    }
    known
}

impl Known<'_> {
    /// The forms in which the op itself runs where its results are wanted so; others are casts.
    fn runs(&self, wanted: &[Forms<bool>]) -> Forms<bool> {
        let any = wanted.iter().any(|w| w.full || w.reduced);
        match self.class {
            _unused if !any => Forms::default(),
            _at_hand if self.reduced => REDUCED,
            Class::Moves => wanted[0],
            Class::Compute | Class::Full | Class::Picks => FULL,
        }
    }
}

/// Which forms of each result of each node are needed.
fn asked_for(f: &Function, known: &[Known<'_>]) -> Vec<Vec<Forms<bool>>> {
    let mut wanted: Vec<Vec<Forms<bool>>> = f.nodes.iter().map(|n| vec![Forms::default(); n.types.len()]).collect();
    let ask = |wanted: &mut Vec<Vec<Forms<bool>>>, v: Value, forms: Forms<bool>| {
        let forms = if mixes(f.ty(v)) { forms } else { FULL };
        let slot = &mut wanted[v.node.index()][v.index as usize];
        *slot = Forms { full: slot.full || forms.full, reduced: slot.reduced || forms.reduced };
    };
    f.results.iter().for_each(|&r| ask(&mut wanted, r, FULL));
    for (i, known) in known.iter().enumerate().rev() {
        let runs = known.runs(&wanted[i]);
        if runs.full || runs.reduced {
            known.node.args.iter().for_each(|&a| ask(&mut wanted, a, runs));
        }
    }
    wanted
}

/// The operands of a node in one form.
fn operands(
    f: &Function,
    made: &[Vec<Forms<Option<Value>>>],
    node: &Node,
    which: Forms<bool>,
) -> Result<Vec<Value>, Diagnostic> {
    node.args.iter().map(|&a| form(f, made, a, which)).collect()
}

/// A value in one form.
fn form(f: &Function, made: &[Vec<Forms<Option<Value>>>], v: Value, which: Forms<bool>) -> Result<Value, Diagnostic> {
    let forms = &made[v.node.index()][v.index as usize];
    let found = if which.reduced && mixes(f.ty(v)) { forms.reduced } else { forms.full };
    found.ok_or_else(|| Diagnostic::bug("a value in a form that nobody asked for"))
}
