//! One call of a function: symbols, values and their last uses.

use super::Mode;
use super::value::Tensor;
use super::{eval, hunt};
use crate::array::Array;
use crate::diag::Diagnostic;
use crate::graph::{Function, Module, NodeId, Value};
use crate::op::GraphOp;
use crate::types::{Bindings, DType, Dim, Type};

/// Most functions that may be inside one another.
const MAX_DEPTH: usize = 64;

/// How many callers a function has at the moment.
#[derive(Clone, Copy)]
pub(super) struct Depth(usize);

impl Depth {
    pub(super) const ENTRY: Depth = Depth(0);
}

/// An argument; arrays are widened at their first use only.
#[derive(Clone)]
pub(super) enum Argument {
    Array(Array),
    Tensor(Tensor),
}

impl Argument {
    fn dtype(&self) -> DType {
        match self {
            Argument::Array(a) => a.dtype(),
            Argument::Tensor(t) => t.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Argument::Array(a) => a.shape(),
            Argument::Tensor(t) => &t.shape,
        }
    }
}

/// What does not change during a run.
pub(super) struct Machine<'m> {
    pub(super) module: &'m Module,
    pub(super) mode: Mode,
    /// Whether the run ends where a NaN or an infinity is made.
    pub(super) hunt: bool,
}

/// A running function.
pub(super) struct Frame<'f> {
    pub(super) bindings: Bindings,
    pub(super) depth: Depth,
    function: &'f Function,
    arguments: Vec<Argument>,
    values: Vec<Vec<Option<Tensor>>>,
}

impl Machine<'_> {
    /// What the function `name` gives for `inputs`.
    pub(super) fn results(&self, name: &str, inputs: &[Array], bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
        let arguments = inputs.iter().map(|a| Argument::Array(a.clone())).collect();
        self.call(name, arguments, bindings, Depth::ENTRY)?.iter().map(Tensor::to_array).collect()
    }

    /// Runs `name`; `outer` holds the symbols of the caller, which the callee shares where no parameter binds them.
    pub(super) fn call(
        &self,
        name: &str,
        arguments: Vec<Argument>,
        outer: &Bindings,
        depth: Depth,
    ) -> Result<Vec<Tensor>, Diagnostic> {
        if depth.0 > MAX_DEPTH {
            return Err(Diagnostic::new("call-depth", format!("more than {MAX_DEPTH} calls inside one another")));
        }
        let function = self
            .module
            .functions
            .get(name)
            .ok_or_else(|| Diagnostic::new("unknown-function", format!("there is no function `@{name}`")))?;
        let bindings = bind(function, &arguments, outer, depth.0 == 0)?;
        let values = function.nodes.iter().map(|n| vec![None; n.types.len()]).collect();
        let mut frame = Frame { bindings, depth: Depth(depth.0 + 1), function, arguments, values };
        let live = function.live();
        let last = last_uses(function, &live);
        for (i, node) in function.nodes.iter().enumerate() {
            if !live[i] || matches!(node.op, GraphOp::Parameter { .. }) {
                continue;
            }
            let args = node.args.iter().map(|&a| frame.value(a)).collect::<Result<Vec<Tensor>, Diagnostic>>();
            let results = args.and_then(|args| {
                let results = eval::node(self, &frame, &node.op, &args)?;
                if self.hunt {
                    hunt::check(name, node, &args, &results)?;
                }
                Ok(results)
            });
            let results = results.map_err(|d| {
                let label = format!("in this `{}` of `@{name}`", crate::infer::shown_name(&node.op));
                node.places.first().map_or_else(|| d.clone(), |p| d.clone().at(p.clone(), label))
            })?;
            if results.len() != node.types.len() {
                return Err(Diagnostic::bug(format!("node {i} of `@{name}` gave {} results", results.len())));
            }
            frame.values[i] = results.into_iter().map(Some).collect();
            for dead in &last[i] {
                frame.values[dead.index()].iter_mut().for_each(|v| *v = None);
            }
        }
        function.results.iter().map(|&r| frame.value(r)).collect()
    }
}

impl Frame<'_> {
    fn value(&mut self, v: Value) -> Result<Tensor, Diagnostic> {
        let bug = || Diagnostic::bug(format!("node {} is used before it has a value", v.node.0));
        let node = self.function.nodes.get(v.node.index()).ok_or_else(bug)?;
        let slot = self.values[v.node.index()].get_mut(v.index as usize).ok_or_else(bug)?;
        if let (None, GraphOp::Parameter { index }) = (&slot, &node.op) {
            let tensor = match self.arguments.get(*index).ok_or_else(bug)? {
                Argument::Array(a) => Tensor::from_array(a)?,
                Argument::Tensor(t) => t.clone(),
            };
            *slot = Some(tensor);
        }
        slot.clone().ok_or_else(bug)
    }
}

/// For each node, the nodes whose values no later node and no result needs.
fn last_uses(function: &Function, live: &[bool]) -> Vec<Vec<NodeId>> {
    let mut seen = vec![false; function.nodes.len()];
    for r in &function.results {
        seen[r.node.index()] = true;
    }
    let mut out = vec![Vec::new(); function.nodes.len()];
    for (i, node) in function.nodes.iter().enumerate().rev().filter(|(i, _)| live[*i]) {
        for a in &node.args {
            if !std::mem::replace(&mut seen[a.node.index()], true) {
                out[i].push(a.node);
            }
        }
    }
    out
}

/// Values of all symbols of a call, with every parameter checked.
fn bind(f: &Function, arguments: &[Argument], outer: &Bindings, entry: bool) -> Result<Bindings, Diagnostic> {
    if f.params.len() != arguments.len() {
        let (want, found) = (f.params.len(), arguments.len());
        return Err(Diagnostic::new("operand-count", format!("`@{}` takes {want} operands, found {found}", f.name)));
    }
    let mut bindings = outer.clone();
    // At the entry the given values are requirements; in a call the caller's symbols are hidden by the callee's own.
    let mut bound: Vec<&str> = if entry { outer.keys().map(|s| &**s).collect() } else { Vec::new() };
    for (param, argument) in f.params.iter().zip(arguments) {
        for (dim, &size) in param.ty.shape.iter().zip(argument.shape()) {
            if let Some(s) = f.symbols.iter().find(|s| *dim == Dim::symbol(&s.name))
                && !bound.contains(&&*s.name)
            {
                bound.push(&s.name);
                bindings.insert(s.name.clone(), i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
    }
    for s in &f.symbols {
        if let Some(&v) = bindings.get(&s.name)
            && (v < s.low || v > s.high || v % s.step.max(1) != 0)
        {
            let (low, high, step) = (s.low, s.high, s.step);
            let want = format!("`{}` in {low}..={high} by {step}", s.name);
            return Err(Diagnostic::new("symbol-range", format!("`@{}` needs {want}, found {v}", f.name)));
        }
    }
    for (param, argument) in f.params.iter().zip(arguments) {
        let found = Type::new(argument.dtype(), argument.shape().iter().copied());
        let code = if param.ty.dtype == found.dtype { "shape-mismatch" } else { "dtype-mismatch" };
        let want = param.ty.concrete(&bindings).map_err(|e| Diagnostic::new("unbound-symbol", e))?;
        if want != argument.shape() || param.ty.dtype != found.dtype {
            let message = format!("`@{}` needs {} for `%{}`, found {found}", f.name, param.ty, param.name);
            let values: Vec<String> = bindings.iter().map(|(s, v)| format!("{s} = {v}")).collect();
            let diag = Diagnostic::new(code, message);
            return Err(if values.is_empty() { diag } else { diag.note(format!("with {}", values.join(", "))) });
        }
    }
    Ok(bindings)
}
