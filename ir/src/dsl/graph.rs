//! The graph under construction: open functions, scopes, parameters, calls.

use super::literal::{Scalar, encode};
use super::{Shape, Tensor};
use crate::array::{Array, Bytes};
use crate::diag::{Diagnostic, Place};
use crate::graph::{Function, Module, Node, NodeId, Param, Role, Value};
use crate::op::{Axis, GraphOp, Literal};
use crate::types::{DType, Dim, Symbol, SymbolDecl, Type};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

/// A module under construction; clones share it. See the [module](super) for what happens to mistakes.
#[derive(Clone)]
pub struct Graph(pub(super) Rc<RefCell<State>>);

pub(super) struct State {
    pub(super) module: Module,
    /// The innermost is the one that ops go to.
    pub(super) open: Vec<Open>,
    pub(super) symbols: Vec<SymbolDecl>,
    error: Option<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Number of the next function to be opened.
    pub(super) next: u32,
}

/// A function whose parameters may still come, between other nodes; [`close`] sorts them to the front.
pub(super) struct Open {
    pub(super) number: u32,
    pub(super) function: Function,
    pub(super) scope: Arc<str>,
    /// What a closure uses of the function around it, as values there and here; none for a function with a name.
    pub(super) captured: Option<Vec<(Value, Value)>>,
}

impl Open {
    pub(super) fn named(number: u32, name: &str) -> Open {
        Open { number, function: Function::new(name, Vec::new(), Vec::new()), scope: "".into(), captured: None }
    }

    /// Another parameter.
    pub(super) fn declare(&mut self, param: Param, places: Vec<Place>) -> Value {
        let op = GraphOp::Parameter { index: self.function.params.len() };
        let value = Value { node: NodeId(self.function.nodes.len() as u32), index: 0 };
        let node = Node { op, args: Vec::new(), types: vec![param.ty.clone()], places, scope: "".into() };
        self.function.nodes.push(node);
        self.function.params.push(param);
        value
    }

    /// The value of the function `outer` around this closure, as a parameter; none if this is no closure.
    fn capture(&mut self, outer: &Function, value: Value) -> Option<Value> {
        let known = self.captured.as_ref()?.iter().find(|(there, _)| *there == value);
        if let Some((_, own)) = known {
            return Some(*own);
        }
        let name = format!("captured{}", self.function.params.len()).into();
        let param = Param { name, ty: outer.ty(value).clone(), role: Role::Input };
        let own = self.declare(param, outer.node(value).places.clone());
        self.captured.iter_mut().for_each(|all| all.push((value, own)));
        Some(own)
    }
}

/// A value of the open function `owner` in the innermost one, which closures alone can use.
fn reach(open: &mut [Open], owner: u32, value: Value) -> Option<Value> {
    let at = open.iter().position(|o| o.number == owner)?;
    (at + 1..open.len()).try_fold(value, |value, level| {
        let (outer, inner) = open.split_at_mut(level);
        inner[0].capture(&outer[level - 1].function, value)
    })
}

impl Graph {
    /// An empty module whose entry will be called `name`.
    pub fn new(name: &str) -> Graph {
        let open = Open::named(0, name);
        let (module, symbols, warnings) = (Module::default(), Vec::new(), Vec::new());
        Graph(Rc::new(RefCell::new(State { module, open: vec![open], symbols, error: None, warnings, next: 1 })))
    }

    /// Declares a symbolic size with its range. Errors: `bad-symbol` for a range that is empty or negative, or a second
    /// declaration that differs.
    #[track_caller]
    pub fn symbol(&self, name: &str, range: RangeInclusive<i64>) -> Dim {
        self.declare(SymbolDecl::new(name, *range.start(), *range.end()))
    }

    /// As [`Graph::symbol`], with the size for which kernels are chosen and priced. Results do not depend on it, other sizes only
    /// in speed. Errors: `bad-symbol` for one outside the range, too.
    #[track_caller]
    pub fn symbol_likely(&self, name: &str, range: RangeInclusive<i64>, likely: i64) -> Dim {
        self.declare(SymbolDecl { likely: Some(likely), ..SymbolDecl::new(name, *range.start(), *range.end()) })
    }

    #[track_caller]
    fn declare(&self, decl: SymbolDecl) -> Dim {
        let name = &*decl.name.clone();
        let outside = decl.likely.is_some_and(|n| n < decl.low || n > decl.high);
        let mut state = self.0.borrow_mut();
        let before = state.symbols.iter().find(|s| s.name == decl.name).cloned();
        let differs = before.as_ref().is_some_and(|b| *b != decl);
        if decl.low < 0 || decl.low > decl.high || outside || differs {
            let likely = |s: &SymbolDecl| s.likely.map_or(String::new(), |n| format!(", likely {n}"));
            let message = format!("symbol `{name}` cannot range over {}..={}{}", decl.low, decl.high, likely(&decl));
            let note = "ranges are not empty and start at 0 or above, and a likely value is inside".to_string();
            let note = before.map_or(note, |b| format!("it was declared over {}..={}{}", b.low, b.high, likely(&b)));
            let d = Diagnostic::new("bad-symbol", message).at(Place::caller(), "declared here").note(note);
            state.error.get_or_insert(d);
        } else if before.is_none() {
            state.symbols.push(decl);
        }
        Dim::symbol(name)
    }

    /// A parameter with a new value at every call.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Shape) -> Tensor {
        self.parameter(name, Type { dtype, shape: shape.dims() }, Role::Input)
    }

    /// A parameter with the same value at every call. It is called by its path: the scope, a dot, `name`.
    #[track_caller]
    pub fn weight(&self, name: &str, dtype: DType, shape: impl Shape) -> Tensor {
        self.parameter(&self.path(name), Type { dtype, shape: shape.dims() }, Role::Weight)
    }

    /// A parameter whose memory a result may reuse.
    #[track_caller]
    pub fn donated(&self, name: &str, dtype: DType, shape: impl Shape) -> Tensor {
        self.parameter(name, Type { dtype, shape: shape.dims() }, Role::Donated)
    }

    /// Adds a parameter to the open function, or gives the one of this name if it has the same type and role.
    #[track_caller]
    fn parameter(&self, name: &str, ty: Type, role: Role) -> Tensor {
        let place = Place::caller();
        let mut state = self.0.borrow_mut();
        let mut used = Vec::new();
        ty.shape.iter().for_each(|d| d.collect_symbols(&mut used));
        let unknown = used.into_iter().find(|u| !state.symbols.iter().any(|s| s.name == *u));
        let State { open: all, error, .. } = &mut *state;
        // Parameters are those of the function around a closure.
        let Some(home) = all.iter().rposition(|o| o.captured.is_none()) else {
            return self.poison(&Type::scalar(DType::F32));
        };
        let open = &mut all[home];
        if let Some(symbol) = unknown {
            let message = format!("`{name}` of type {ty} uses the symbol `{symbol}`, which is not declared");
            error.get_or_insert(Diagnostic::new("unknown-symbol", message).at(place, "in this parameter"));
            return self.poison(&ty);
        }
        let function = &mut open.function;
        let param = Param { name: name.into(), ty: ty.clone(), role };
        if let Some(index) = function.params.iter().position(|p| p.name == param.name) {
            let node = function.nodes.iter().position(|n| n.op == GraphOp::Parameter { index });
            if let Some(node) = node.filter(|_| function.params[index] == param && role == Role::Weight) {
                let value = Value { node: NodeId(node as u32), index: 0 };
                return self.reached(all, home, value, ty);
            }
            let d = Diagnostic::new("duplicate-parameter", format!("there is a parameter `{name}` already"));
            let before = node.and_then(|n| function.nodes[n].places.first().cloned());
            let found = format!("as {}", function.params[index].ty);
            let d = d.at(place, format!("declared again as {ty}"));
            error.get_or_insert(before.into_iter().fold(d, |d, p| d.at(p, found.clone())));
            return self.poison(&ty);
        }
        let value = open.declare(param, vec![place]);
        self.reached(all, home, value, ty)
    }

    /// The value of `all[home]` in the innermost function, as a tensor.
    fn reached(&self, all: &mut [Open], home: usize, value: Value, ty: Type) -> Tensor {
        let value = reach(all, all[home].number, value);
        Tensor::new(self, ty, all.last().map(|open| open.number).zip(value))
    }

    /// The scope, a dot, `name`.
    fn path(&self, name: &str) -> String {
        let state = self.0.borrow();
        let scope = state.open.last().map_or("", |o| &*o.scope);
        if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") }
    }

    /// Runs `body` in the scope `name` inside the present one; weights and nodes made there carry its path.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        let path: Arc<str> = self.path(name).into();
        let outer = self.0.borrow_mut().open.last_mut().map(|o| std::mem::replace(&mut o.scope, path));
        let result = body();
        if let (Some(open), Some(outer)) = (self.0.borrow_mut().open.last_mut(), outer) {
            open.scope = outer;
        }
        result
    }

    /// Declares the function `name`: what `body` computes from the parameters that it declares. Tensors of the enclosing
    /// function cannot be used in it. Scopes in it start anew. Errors: `duplicate-function`.
    #[track_caller]
    pub fn function<R: AsRef<[Tensor]>>(&self, name: &str, body: impl FnOnce(&Graph) -> R) {
        let place = Place::caller();
        {
            let mut state = self.0.borrow_mut();
            let taken =
                state.module.functions.contains_key(name) || state.open.iter().any(|o| &*o.function.name == name);
            if taken {
                let d = Diagnostic::new("duplicate-function", format!("there is a function `{name}` already"));
                state.error.get_or_insert(d.at(place, "declared again"));
                return;
            }
            let number = state.next;
            state.next += 1;
            state.open.push(Open::named(number, name));
        }
        let results = body(self);
        let values = self.own_values(results.as_ref());
        let mut state = self.0.borrow_mut();
        if let (Some(open), Some(values)) = (state.open.pop(), values) {
            let symbols = state.symbols.clone();
            state.module.functions.insert(open.function.name.clone(), close(open.function, &values, symbols));
        }
    }

    /// The `N` results of the function `name`. `args` are its inputs and donated parameters in order; its weights are
    /// weights of this function whose names are the scope here and the name there. Or `args` are all parameters.
    ///
    /// Errors: `unknown-function`, `operand-count`, `shape-mismatch`.
    #[track_caller]
    pub fn call<const N: usize>(&self, name: &str, args: &[&Tensor]) -> [Tensor; N] {
        let results = self.call_all(name, args);
        if results.len() != N && !self.failed() {
            let message = format!("`{name}` has {} results, expected {N}", results.len());
            self.fail(Diagnostic::new("operand-count", message).at(Place::caller(), "in this call"));
        }
        let mut results = results.into_iter();
        std::array::from_fn(|_| results.next().unwrap_or_else(|| self.poison(&Type::scalar(DType::F32))))
    }

    /// [`Graph::call`] with all results, however many; none after a mistake.
    #[track_caller]
    pub fn call_all(&self, name: &str, args: &[&Tensor]) -> Vec<Tensor> {
        let params = self.0.borrow().module.functions.get(name).map(|f| f.params.clone());
        let op = GraphOp::Call { function: name.into() };
        let params = params.filter(|p| p.len() != args.len()).unwrap_or_default();
        let values = params.iter().filter(|p| p.role != Role::Weight).count();
        if params.is_empty() || values != args.len() {
            return self.emit_all(&op, args).unwrap_or_default();
        }
        let mut given = args.iter().copied().cloned();
        let mut all = Vec::with_capacity(params.len());
        for p in &params {
            match p.role {
                Role::Weight => all.push(self.parameter(&self.path(&p.name), p.ty.clone(), Role::Weight)),
                Role::Input | Role::Donated => all.extend(given.next()),
            }
        }
        self.emit_all(&op, &all.iter().collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Closes the entry, which returns `results`. Errors: the first mistake that was made.
    pub fn finish(&self, results: &[&Tensor]) -> Result<Module, Diagnostic> {
        let results: Vec<Tensor> = results.iter().copied().cloned().collect();
        let values = self.own_values(&results);
        let mut state = self.0.borrow_mut();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.open.len() != 1 {
            return Err(Diagnostic::new("graph-finished", "the graph was finished before, or inside a function"));
        }
        let (Some(open), Some(values)) = (state.open.pop(), values) else {
            return Err(Diagnostic::bug("a tensor is poisoned, but no mistake was recorded"));
        };
        let symbols = std::mem::take(&mut state.symbols);
        let mut module = std::mem::take(&mut state.module);
        // A function may have been closed before the last symbols were declared.
        for f in module.functions.values_mut() {
            let own = std::mem::replace(&mut f.symbols, symbols.clone());
            f.symbols.extend(own.into_iter().filter(|s| !symbols.contains(s)));
        }
        module.functions.insert(open.function.name.clone(), close(open.function, &values, symbols));
        Ok(module)
    }

    /// Whether a mistake was made.
    pub fn failed(&self) -> bool {
        self.0.borrow().error.is_some()
    }

    /// Keeps a warning.
    pub fn warn(&self, warning: Diagnostic) {
        self.0.borrow_mut().warnings.push(warning);
    }

    /// What was built and may not be what was meant, in order.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        self.0.borrow().warnings.clone()
    }

    /// A tensor known now.
    #[track_caller]
    pub fn constant(&self, value: Array) -> Tensor {
        self.emit(&GraphOp::Constant { value: Literal(value) }, &[])
    }

    /// A scalar of `dtype`. Errors: `bad-literal` if the dtype cannot hold it.
    #[track_caller]
    pub fn scalar(&self, dtype: DType, value: impl Into<Scalar>) -> Tensor {
        let value = value.into();
        let array = encode(value, dtype).map(|b| Array::new(dtype, &[], Bytes::new(b)));
        match array {
            Some(Ok(array)) => self.constant(array),
            Some(Err(d)) => self.fail(d),
            None => self.fail(
                Diagnostic::new("bad-literal", format!("{dtype} cannot hold {value}")).at(Place::caller(), "used here"),
            ),
        }
    }

    /// `value` everywhere.
    #[track_caller]
    pub fn full(&self, dtype: DType, shape: impl Shape, value: impl Into<Scalar>) -> Tensor {
        self.scalar(dtype, value).broadcast_to(shape)
    }

    /// The position along `axis`, in every element of `shape`.
    #[track_caller]
    pub fn iota(&self, dtype: DType, shape: impl Shape, axis: Axis) -> Tensor {
        self.emit(&GraphOp::Iota { axis, shape: shape.dims(), dtype }, &[])
    }

    /// The value of a size, as an i64 scalar.
    #[track_caller]
    pub fn size(&self, dim: impl Into<Dim>) -> Tensor {
        self.emit(&GraphOp::Size { dim: dim.into() }, &[])
    }

    /// Runs `work` on the declared functions and the open one; nothing once the graph is finished.
    pub(super) fn with_open<R>(&self, work: impl FnOnce(&mut Module, &mut Function) -> R) -> Option<R> {
        let mut state = self.0.borrow_mut();
        let State { module, open, .. } = &mut *state;
        open.last_mut().map(|open| work(module, &mut open.function))
    }

    /// Values of the open function as tensors.
    pub(super) fn tensors(&self, values: &[Value]) -> Option<Vec<Tensor>> {
        let state = self.0.borrow();
        let open = state.open.last()?;
        let tensor = |&v: &Value| Tensor::new(self, open.function.ty(v).clone(), Some((open.number, v)));
        Some(values.iter().map(tensor).collect())
    }

    /// Keeps the first mistake; the result is poisoned.
    pub fn fail(&self, error: Diagnostic) -> Tensor {
        self.0.borrow_mut().error.get_or_insert(error);
        self.poison(&Type::scalar(DType::F32))
    }

    fn poison(&self, ty: &Type) -> Tensor {
        Tensor::new(self, Type::scalar(ty.dtype), None)
    }

    /// The line that made `tensor`.
    pub fn place_of(&self, tensor: &Tensor) -> Option<Place> {
        let (number, value) = tensor.value?;
        let state = self.0.borrow();
        let open = state.open.iter().find(|o| o.number == number)?;
        open.function.nodes.get(value.node.index())?.places.first().cloned()
    }

    /// The only result of `op`.
    #[track_caller]
    pub(super) fn emit(&self, op: &GraphOp, args: &[&Tensor]) -> Tensor {
        let results = self.emit_all(op, args).unwrap_or_default();
        results.into_iter().next().unwrap_or_else(|| self.poison(&Type::scalar(DType::F32)))
    }

    /// The results of `op`; `None` after a mistake.
    #[track_caller]
    pub(super) fn emit_all(&self, op: &GraphOp, args: &[&Tensor]) -> Option<Vec<Tensor>> {
        let place = Place::caller();
        let tensors: Vec<Tensor> = args.iter().copied().cloned().collect();
        let values = self.own_values(&tensors)?;
        let mut state = self.0.borrow_mut();
        let State { module, open, error, .. } = &mut *state;
        let open = open.last_mut()?;
        match open.function.push(module, op.clone(), &values, Some(place), &open.scope) {
            Ok(node) => {
                let types = open.function.nodes.last().map(|n| n.types.clone()).unwrap_or_default();
                let value = |i: usize| Value { node, index: i as u32 };
                let results = types.into_iter().enumerate();
                Some(results.map(|(i, ty)| Tensor::new(self, ty, Some((open.number, value(i))))).collect())
            }
            Err(d) => {
                error.get_or_insert(d);
                None
            }
        }
    }

    /// Values in the open function; `None`, with a mistake recorded, if one is poisoned or from elsewhere.
    #[track_caller]
    pub(super) fn own_values(&self, tensors: &[Tensor]) -> Option<Vec<Value>> {
        let place = Place::caller();
        let mut values = Vec::with_capacity(tensors.len());
        for t in tensors {
            let (owner, value) = t.value?;
            let same = Rc::ptr_eq(&self.0, &t.graph.0);
            let own = if same { reach(&mut self.0.borrow_mut().open, owner, value) } else { None };
            let Some(value) = own else {
                let message = format!("operand {} of type {} belongs to another function", values.len(), t.ty());
                let d = Diagnostic::new("foreign-tensor", message).at(place, "used here");
                let made = t.graph.place_of(t);
                let d = made.into_iter().fold(d, |d, p| d.at(p, "made here"));
                let d = d.note("pass it as an argument of `call`");
                // Both graphs are wrong where there are two: whichever is finished says so.
                t.graph.fail(d.clone());
                self.fail(d);
                return None;
            };
            values.push(value);
        }
        Some(values)
    }

    /// The declared range of a symbol.
    pub fn symbol_range(&self, name: &str) -> Option<RangeInclusive<i64>> {
        let state = self.0.borrow();
        state.symbols.iter().find(|s| s.name == Symbol::from(name)).map(|s| s.low..=s.high)
    }
}

/// Puts parameters first, in order, as [`Function`] wants them. A reshape to the same shape is its operand: transforms
/// leave such, as values of their own.
pub(super) fn close(mut function: Function, results: &[Value], symbols: Vec<SymbolDecl>) -> Function {
    let is_param = |n: &Node| matches!(n.op, GraphOp::Parameter { .. });
    let same = |f: &Function, n: &Node| matches!(n.op, GraphOp::Reshape { .. }) && f.ty(n.args[0]) == &n.types[0];
    let (mut param, mut other) = (0u32, function.params.len() as u32);
    let mut places: Vec<Value> = Vec::with_capacity(function.nodes.len());
    let mut kept = Vec::with_capacity(function.nodes.len());
    let moved =
        |places: &[Value], v: Value| Value { index: places[v.node.index()].index + v.index, ..places[v.node.index()] };
    for node in &function.nodes {
        if same(&function, node) {
            places.push(moved(&places, node.args[0]));
            continue;
        }
        let next = if is_param(node) { &mut param } else { &mut other };
        places.push(Value { node: NodeId(*next), index: 0 });
        kept.push((*next, node.clone()));
        *next += 1;
    }
    kept.sort_by_key(|(place, _)| *place);
    function.nodes = kept.into_iter().map(|(_, n)| n).collect();
    for node in &mut function.nodes {
        node.args.iter_mut().for_each(|a| *a = moved(&places, *a));
    }
    function.results = results.iter().map(|&r| moved(&places, r)).collect();
    function.symbols = symbols;
    function
}
