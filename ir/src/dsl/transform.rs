//! What transforms of graphs under construction need, and functions with rules of their own for their derivatives.

use super::graph::{Open, close};
use super::{Graph, Tensor};
use crate::diag::{Diagnostic, Place};
use crate::graph::{Derivative, Function, Module, Param, Role, Value};
use crate::op::{GraphOp, Name};
use crate::types::Type;
use std::sync::Arc;

/// What a closure did.
pub struct Traced {
    /// A function of what it used.
    pub function: Function,
    /// Its parameters as values of the function around it; none for free ones.
    pub given: Vec<Option<Tensor>>,
}

impl Graph {
    /// Appends to the open function what `make` does, which gets the functions declared so far, the open function (whose
    /// parameters may stand between its other nodes) and the values of `args` there. It only appends nodes, or changes the op
    /// of one so that more results come after its own. None after a mistake; the error of `make` is one.
    #[track_caller]
    pub fn extend(
        &self,
        args: &[&Tensor],
        make: impl FnOnce(&mut Module, &mut Function, &[Value]) -> Result<Vec<Value>, Diagnostic>,
    ) -> Option<Vec<Tensor>> {
        let args: Vec<Tensor> = args.iter().copied().cloned().collect();
        let values = self.own_values(&args)?;
        let symbols = self.0.borrow().symbols.clone();
        let made = self.with_open(|module, function| {
            function.symbols = symbols;
            make(module, function, &values)
        })?;
        match made {
            Ok(values) => self.tensors(&values),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Runs `body`, whose ops go to a function of its own. What it uses of the function around it becomes parameters there,
    /// so it is written like any other code; parameters that it declares are those of the function around it. None after a
    /// mistake.
    #[track_caller]
    pub fn trace(&self, body: impl FnOnce(&Graph) -> Vec<Tensor>) -> Option<Traced> {
        {
            let mut state = self.0.borrow_mut();
            let (number, scope) = (state.next, state.open.last().map_or("".into(), |o| o.scope.clone()));
            state.next += 1;
            state.open.push(Open { scope, captured: Some(Vec::new()), ..Open::named(number, "closure") });
        }
        let results = body(self);
        let values = self.own_values(&results);
        let mut state = self.0.borrow_mut();
        let (closed, symbols) = (state.open.pop()?, state.symbols.clone());
        let outer = state.open.last()?;
        let mut given = vec![None; closed.function.params.len()];
        for &(there, own) in closed.captured.iter().flatten() {
            if let GraphOp::Parameter { index } = closed.function.node(own).op {
                given[index] = Some(Tensor::new(self, outer.function.ty(there).clone(), Some((outer.number, there))));
            }
        }
        Some(Traced { function: close(closed.function, &values?, symbols), given })
    }

    /// A parameter of the closure that [`Graph::trace`] runs, for which no value is given. Errors: `no-closure` outside of one.
    #[track_caller]
    pub fn free(&self, ty: &Type) -> Tensor {
        let place = Place::caller();
        let mut state = self.0.borrow_mut();
        let Some(open) = state.open.last_mut().filter(|o| o.captured.is_some()) else {
            drop(state);
            return self.fail(Diagnostic::new("no-closure", "a free value is one of a closure").at(place, "here"));
        };
        let name = format!("free{}", open.function.params.len()).into();
        let value = open.declare(Param { name, ty: ty.clone(), role: Role::Input }, vec![place]);
        Tensor::new(self, ty.clone(), Some((open.number, value)))
    }

    /// All weights that the open function has so far, with their names.
    pub fn weights(&self) -> Vec<(Arc<str>, Tensor)> {
        let weights = self.with_open(|_, function| {
            let own = function.nodes.iter().enumerate().filter_map(|(i, node)| match &node.op {
                GraphOp::Parameter { index } => Some((i as u32, &function.params[*index])),
                _other => None,
            });
            let own = own.filter(|(_, p)| p.role == Role::Weight);
            own.map(|(i, p)| (p.name.clone(), Value { node: crate::graph::NodeId(i), index: 0 })).collect::<Vec<_>>()
        });
        let (names, values): (Vec<_>, Vec<_>) = weights.unwrap_or_default().into_iter().unzip();
        names.into_iter().zip(self.tensors(&values).unwrap_or_default()).collect()
    }

    /// Gives the function `name` a reverse rule, see [`Derivative::Reverse`]: reverse mode calls `forward` instead of it, and
    /// then `backward`. All three are declared. Forward mode has no rule for it.
    ///
    /// Errors: `unknown-function`; `custom-rule` where types do not fit, when the graph is finished.
    #[track_caller]
    pub fn custom_vjp(&self, name: &str, forward: &str, backward: &str) {
        let derivative = Derivative::Reverse { forward: forward.into(), backward: backward.into() };
        self.custom(name, derivative, Place::caller());
    }

    /// Gives the function `name` a forward rule, see [`Derivative::Forward`]. Reverse mode transposes it, and computes
    /// what it needs again.
    ///
    /// Errors: `unknown-function`; `custom-rule` where types do not fit, when the graph is finished.
    #[track_caller]
    pub fn custom_jvp(&self, name: &str, tangent: &str) {
        self.custom(name, Derivative::Forward { tangent: tangent.into() }, Place::caller());
    }

    /// Keeps nothing of the function `name` for the way back, see [`Derivative::Checkpoint`]. A closure that is checkpointed is
    /// `autodiff::checkpoint`.
    ///
    /// Errors: `unknown-function`.
    #[track_caller]
    pub fn checkpoint(&self, name: &str) {
        self.custom(name, Derivative::Checkpoint, Place::caller());
    }

    fn custom(&self, name: &str, derivative: Derivative, place: Place) {
        let changed = self.with_open(|module, _| {
            let wanted = [name].into_iter().chain(derivative.functions().into_iter().map(|n| &**n));
            if let Some(missing) = wanted.into_iter().find(|n| !module.functions.contains_key(*n)) {
                return Err(Diagnostic::new("unknown-function", format!("there is no function `{missing}`")));
            }
            let before = module.functions.get_mut(name).map(|f| std::mem::replace(&mut f.derivative, derivative));
            let fits = module.functions.get(name).map_or(Ok(()), |f| crate::verify::derivative(module, f));
            if let (Err(_), Some(f), Some(before)) = (&fits, module.functions.get_mut(name), before) {
                f.derivative = before;
            }
            fits
        });
        if let Some(Err(mut error)) = changed {
            error.labels.insert(0, (place, "in this rule".into()));
            self.fail(error);
        }
    }
}

impl Tensor {
    /// The same values, which count as constants in derivatives. In the graph it is a call of a function `stop_gradient*`
    /// that returns its parameter, which costs nothing.
    #[track_caller]
    #[must_use]
    pub fn stop_gradient(&self) -> Tensor {
        let ty = self.ty().clone();
        let name = self.graph.with_open(|module, _| {
            let same = |f: &&Function| f.derivative == Derivative::Zero && f.params.len() == 1 && f.params[0].ty == ty;
            if let Some(known) = module.functions.values().find(same) {
                return known.name.clone();
            }
            let names = std::iter::once("stop_gradient".into()).chain((1u32..).map(|i| format!("stop_gradient{i}")));
            let name: Name = names.map(Name::from).find(|n| !module.functions.contains_key(n)).unwrap_or_default();
            let param = Param { name: "x".into(), ty: ty.clone(), role: Role::Input };
            let mut f = Function::new(&name, Vec::new(), vec![param]);
            (f.results, f.derivative) = (vec![f.param(0)], Derivative::Zero);
            module.functions.insert(name.clone(), f);
            name
        });
        match name {
            Some(function) => self.emit(GraphOp::Call { function }, &[]),
            None => self.poisoned(),
        }
    }
}
