//! What crosses from forward to backward: values that backward reads and does not compute again.

use super::price::{self, Price};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::op::{GraphOp, Name, ScalarOp};
use tilewright_ir::types::Dim;

/// Which forward values backward computes again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Keep {
    /// Those that are cheap to make again: constants, positions, and what moves other values.
    #[default]
    Costly,
    /// Those that make the sum least of operations done again and of bytes kept, one of which costs this many operations.
    /// Elementwise ops and movement cost nothing again, as the kernel that reads them makes them.
    PerByte(f64),
    /// All.
    Nothing,
}

/// What functions keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeps {
    /// All but those of `of`.
    pub usual: Keep,
    /// These.
    pub of: BTreeMap<Name, Keep>,
}

impl From<Keep> for Keeps {
    fn from(usual: Keep) -> Keeps {
        Keeps { usual, of: BTreeMap::new() }
    }
}

impl Keeps {
    /// What the function `name` keeps.
    pub(super) fn by(&self, name: &Name) -> Keep {
        self.of.get(name).copied().unwrap_or(self.usual)
    }
}

/// A function with its derivative behind it, which [`Cut::choose`] divides.
pub(super) struct Cut<'a> {
    pub module: &'a Module,
    pub joint: &'a Function,
    /// Nodes of the way forward, parameters among them.
    pub forward_nodes: usize,
    /// Parameters of the forward function; those after them are cotangents.
    pub params: usize,
    /// Parameters that the caller does not have any more.
    pub lost: &'a [bool],
    pub keep: Keep,
}

impl Cut<'_> {
    /// The forward values that backward reads, in order, parameters among them; and the operations that it does again.
    pub fn choose(&self, results: &[Value]) -> (BTreeSet<Value>, f64) {
        let again = match self.keep {
            Keep::PerByte(price) => Price { cut: self, per_byte: price }.again(&self.read(results, |_| false).0),
            Keep::Costly | Keep::Nothing => BTreeSet::new(),
        };
        let (mut cut, run) = self.read(results, |v| match self.keep {
            Keep::Costly => self.cheap(v),
            Keep::Nothing => true,
            Keep::PerByte(_) => again.contains(&v.node),
        });
        self.bind_symbols(&mut cut, results);
        (cut, run.into_iter().map(|node| price::operations(self.module, self.joint, node)).sum())
    }

    /// Whether it is a parameter that the caller still has.
    pub fn has(&self, v: Value) -> bool {
        v.node.index() < self.params && !self.lost[v.node.index()]
    }

    /// The parameters and forward values that backward reads if those of which `again` says so are computed in it, and the nodes
    /// of the latter.
    fn read(&self, results: &[Value], again: impl Fn(Value) -> bool) -> (BTreeSet<Value>, BTreeSet<NodeId>) {
        let (mut cut, mut run) = (BTreeSet::new(), BTreeSet::new());
        let (mut seen, mut open) = (BTreeSet::new(), results.to_vec());
        while let Some(v) = open.pop() {
            let i = v.node.index();
            let cotangent = (self.params..self.joint.params.len()).contains(&i);
            if cotangent || !seen.insert(v) {
                continue;
            }
            if i < self.params || (i < self.forward_nodes && !again(v)) {
                cut.insert(v);
                continue;
            }
            if i < self.forward_nodes {
                run.insert(v.node);
            }
            open.extend(&self.joint.nodes[i].args);
        }
        (cut, run)
    }

    /// Whether a forward value costs no memory to make again: what it is made of is not larger.
    fn cheap(&self, v: Value) -> bool {
        let node = self.joint.node(v);
        match &node.op {
            GraphOp::Constant { .. } | GraphOp::Iota { .. } | GraphOp::Size { .. } => true,
            GraphOp::Broadcast { .. } | GraphOp::Reshape { .. } | GraphOp::Transpose { .. } | GraphOp::Flip { .. } => {
                true
            }
            GraphOp::Map { op: ScalarOp::Cast { .. } } | GraphOp::Slice { .. } => {
                node.args.iter().all(|&a| self.has(a))
            }
            _costly => false,
        }
    }

    /// A symbol that the types of backward use is bound by one of its parameters, if one of forward binds it.
    fn bind_symbols(&self, cut: &mut BTreeSet<Value>, results: &[Value]) {
        let binds = |v: Value, s: &Dim| self.joint.ty(v).shape.contains(s);
        let cts: Vec<Value> = (self.params..self.joint.params.len()).map(|i| self.joint.param(i)).collect();
        if results.is_empty() {
            return;
        }
        for symbol in &self.joint.symbols {
            let dim = Dim::symbol(&symbol.name);
            let bound = cut.iter().chain(&cts).any(|&v| binds(v, &dim));
            let param = (0..self.params).map(|i| self.joint.param(i)).find(|&v| binds(v, &dim));
            if let (false, Some(param)) = (bound, param) {
                cut.insert(param);
            }
        }
    }
}
