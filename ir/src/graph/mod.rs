//! Graph IR: SSA modules of pure functions over tensors with symbolic sizes.

use crate::diag::{Diagnostic, Place};
use crate::infer;
use crate::op::{GraphOp, Literal, Name};
use crate::types::{Symbol, SymbolDecl, Type};
use indexmap::IndexMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of a node in its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index into the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its results.
    pub index: u32,
}

/// A node: op, operands, types of its results, and where it comes from.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: GraphOp,
    /// Operands.
    pub args: Vec<Value>,
    /// Types of the results.
    pub types: Vec<Type>,
    /// The lines that made it, or that made the nodes it was rewritten from.
    pub places: Vec<Place>,
    /// Name scope such as `blocks.3.attn`; empty at the top.
    pub scope: Arc<str>,
}

impl Node {
    /// The functions that the node runs.
    pub fn callees(&self) -> Vec<&Name> {
        self.op.functions()
    }

    /// Adds the symbols of its types and of its op to `out`, each once.
    pub fn collect_symbols(&self, out: &mut Vec<Symbol>) {
        self.types.iter().flat_map(|t| &t.shape).for_each(|d| d.collect_symbols(out));
        self.op.collect_symbols(out);
    }
}

/// How a parameter is used between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A new value at every call.
    Input,
    /// The same value at every call: it may be packed once, at load.
    Weight,
    /// The caller gives it away: a result may reuse its memory.
    Donated,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, unique in the function.
    pub name: Arc<str>,
    /// Type.
    pub ty: Type,
    /// Role.
    pub role: Role,
}

/// How a function is differentiated. It says nothing about what the function computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Derivative {
    /// By the rules of the ops that it is made of.
    #[default]
    OfOps,
    /// Not at all: its results count as constants. In text `stop_gradient`.
    Zero,
    /// By the rules of its ops, of which reverse mode keeps nothing: the way back takes the parameters and computes what it
    /// needs again. In text `checkpoint`.
    Checkpoint,
    /// By a reverse rule, in text `custom_vjp=[@forward, @backward]`. `forward` takes the parameters and returns the results,
    /// then residuals; `backward` takes the residuals, then a cotangent of each float result, and returns a cotangent for
    /// each float parameter.
    Reverse {
        /// Takes the place of the function.
        forward: Name,
        /// Computes the cotangents.
        backward: Name,
    },
    /// By a forward rule, in text `custom_jvp=@tangent`. It takes the parameters, then a tangent of each float parameter, in
    /// which it is linear; it returns the results, then a tangent of each float result.
    Forward {
        /// The rule.
        tangent: Name,
    },
}

impl Derivative {
    /// Whether it is a rule for the function as a whole, whatever ops that is made of.
    pub fn is_rule(&self) -> bool {
        !matches!(self, Derivative::OfOps | Derivative::Checkpoint)
    }

    /// The functions of the rule.
    pub fn functions(&self) -> Vec<&Name> {
        match self {
            Derivative::OfOps | Derivative::Zero | Derivative::Checkpoint => Vec::new(),
            Derivative::Reverse { forward, backward } => vec![forward, backward],
            Derivative::Forward { tangent } => vec![tangent],
        }
    }
}

/// A pure function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Name, unique in the module.
    pub name: Name,
    /// Symbols of its dims with their ranges.
    pub symbols: Vec<SymbolDecl>,
    /// Parameters; parameter i is node i.
    pub params: Vec<Param>,
    /// Nodes; operands precede users.
    pub nodes: Vec<Node>,
    /// Results.
    pub results: Vec<Value>,
    /// How it is differentiated.
    pub derivative: Derivative,
}

/// Named functions; which is the entry says [`Module::entry`]. A function is declared before its callers are run.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Functions by name, in order of declaration.
    pub functions: IndexMap<Name, Function>,
}

impl Module {
    /// The function that is compiled: `main` if there is one, else the last.
    pub fn entry(&self) -> Result<&Function, Diagnostic> {
        self.functions
            .get("main")
            .or_else(|| self.functions.last().map(|(_, f)| f))
            .ok_or_else(|| Diagnostic::new("empty-module", "the module has no function"))
    }

    /// Whether the body `f` of a scan returns its carry `i` as it gets it: itself, or from a scan in which it stays.
    pub fn stays(&self, f: &Function, i: usize) -> bool {
        let mut value = f.results[i];
        while let GraphOp::Scan { body, carries, .. } = &f.node(value).op {
            let inner = value.index as usize;
            if inner >= *carries || !self.functions.get(body).is_some_and(|body| self.stays(body, inner)) {
                return false;
            }
            value = f.node(value).args[inner];
        }
        value == f.param(i)
    }

    /// The functions that `name` needs, to be run or differentiated, itself among them, as a module whose entry it is.
    ///
    /// Errors: `no-function`; `function-entry` if it needs `main`, which would be the entry.
    pub fn part(&self, name: &str) -> Result<Module, Diagnostic> {
        let Some(start) = self.functions.get_index_of(name) else {
            let known: Vec<String> = self.functions.keys().take(8).map(|n| format!("`{n}`")).collect();
            let more = if self.functions.len() > known.len() { ", .." } else { "" };
            let message = format!("the module has no function `{name}`, only {}{more}", known.join(", "));
            return Err(Diagnostic::new("no-function", message));
        };
        let (mut needed, mut todo) = (BTreeSet::from([start]), vec![start]);
        while let Some(f) = todo.pop() {
            let f = &self.functions[f];
            for callee in f.nodes.iter().flat_map(Node::callees).chain(f.derivative.functions()) {
                todo.extend(self.functions.get_index_of(callee).filter(|&i| needed.insert(i)));
            }
        }
        // The entry is the last one, wherever it was declared.
        let order = needed.iter().copied().filter(|&i| i != start).chain([start]);
        let functions: IndexMap<Name, Function> =
            order.map(|i| (self.functions[i].name.clone(), self.functions[i].clone())).collect();
        if name != "main" && functions.contains_key("main") {
            return Err(Diagnostic::new("function-entry", format!("`{name}` calls `main`, which stays the entry")));
        }
        Ok(Module { functions })
    }
}

impl Function {
    /// A function without nodes but its parameters.
    pub fn new(name: &str, symbols: Vec<SymbolDecl>, params: Vec<Param>) -> Function {
        let scope: Arc<str> = "".into();
        let nodes = params
            .iter()
            .enumerate()
            .map(|(index, p)| Node {
                op: GraphOp::Parameter { index },
                args: Vec::new(),
                types: vec![p.ty.clone()],
                places: Vec::new(),
                scope: scope.clone(),
            })
            .collect();
        Function { name: name.into(), symbols, params, nodes, results: Vec::new(), derivative: Derivative::OfOps }
    }

    /// Whether two functions compute the same by the same ops, and are differentiated alike: all but names, places and
    /// scopes.
    pub fn same_ops(&self, other: &Function) -> bool {
        let params = |f: &Function| f.params.iter().map(|p| (p.ty.clone(), p.role)).collect::<Vec<_>>();
        let same = |(a, b): (&Node, &Node)| a.op == b.op && a.args == b.args && a.types == b.types;
        self.derivative == other.derivative
            && self.symbols == other.symbols
            && self.results == other.results
            && self.nodes.len() == other.nodes.len()
            && params(self) == params(other)
            && self.nodes.iter().zip(&other.nodes).all(same)
    }

    /// The symbols that its types and ops have: others may be declared, and nothing reads them.
    pub fn used_symbols(&self) -> Vec<Symbol> {
        let mut used = Vec::new();
        self.nodes.iter().for_each(|n| n.collect_symbols(&mut used));
        used
    }

    /// The value of parameter `index`.
    pub fn param(&self, index: usize) -> Value {
        Value { node: NodeId(index as u32), index: 0 }
    }

    /// The node that makes `value`.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.node.index()]
    }

    /// The type of `value`.
    pub fn ty(&self, value: Value) -> &Type {
        &self.node(value).types[value.index as usize]
    }

    /// Appends a node whose result types follow from its op and operands.
    ///
    /// Errors: those of [`infer::infer`], with `place` as the first label and the operands' places after it.
    pub fn push(
        &mut self,
        module: &Module,
        op: GraphOp,
        args: &[Value],
        place: Option<Place>,
        scope: &Arc<str>,
    ) -> Result<NodeId, Diagnostic> {
        let types: Vec<&Type> = args.iter().map(|&a| self.ty(a)).collect();
        let types = infer::infer(module, &op, &types).map_err(|mut d| {
            let mut labels = Vec::new();
            labels.extend(place.clone().map(|p| (p, format!("in this `{}`", infer::shown_name(&op)))));
            for (i, &a) in args.iter().enumerate() {
                labels.extend(self.node(a).places.first().map(|p| (p.clone(), format!("operand {i}: {}", self.ty(a)))));
            }
            labels.append(&mut d.labels);
            d.labels = labels;
            d
        })?;
        let id =
            NodeId(u32::try_from(self.nodes.len()).map_err(|_| Diagnostic::new("graph-size", "more than 2^32 nodes"))?);
        self.nodes.push(Node {
            op,
            args: args.to_vec(),
            types,
            places: place.into_iter().collect(),
            scope: scope.clone(),
        });
        Ok(id)
    }

    /// Whether any result of each node is needed, directly or not, by the function's results. Values that no node of
    /// the function makes are passed over: the verifier refuses them.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        let mark = |live: &mut Vec<bool>, v: &Value| live.get_mut(v.node.index()).map(|slot| *slot = true);
        for r in &self.results {
            mark(&mut live, r);
        }
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if live[i] {
                for a in &node.args {
                    mark(&mut live, a);
                }
            }
        }
        live
    }
}

impl From<crate::array::Array> for Literal {
    fn from(a: crate::array::Array) -> Literal {
        Literal(a)
    }
}
