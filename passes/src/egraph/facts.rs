//! What every e-class knows: sort, free axes, exact number, attribute. Contradictions are counted, never overwritten.

use super::lang::{Attr, AxisId, AxisSet, ENode, Fold, GATHERED, Head, Number, axis_bit};
use egg::{Analysis, DidMerge, EGraph, Id};
use std::sync::Arc;
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::{DType, Dim, SymbolDecl};

/// What a class stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// A scalar function of axes with this dtype.
    Value(DType),
    /// An attribute.
    Attr,
}

/// Facts of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Value of a dtype, or attribute.
    pub sort: Sort,
    /// Axes that the value may depend on: an upper bound, so that merging intersects.
    pub free: AxisSet,
    /// The value if it is a known constant.
    pub number: Option<Number>,
    /// The attribute if it is one.
    pub attr: Option<Attr>,
}

impl Facts {
    /// The dtype of a value.
    pub fn dtype(&self) -> Option<DType> {
        match self.sort {
            Sort::Value(dtype) => Some(dtype),
            Sort::Attr => None,
        }
    }

    /// The axis if this is an axis leaf.
    pub fn axis(&self) -> Option<AxisId> {
        match self.attr {
            Some(Attr::Axis(axis)) => Some(axis),
            _ => None,
        }
    }
}

/// An axis of a function: equal axes have equal sizes, decided once at import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisInfo {
    /// A short name for reports.
    pub name: Arc<str>,
    /// Its size.
    pub dim: Dim,
}

/// A stored tensor that terms load from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// A name for reports.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: DType,
}

/// Side tables of an e-graph. Axes and inputs live here, not in nodes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Axes by number.
    pub axes: Vec<AxisInfo>,
    /// Stored tensors by number.
    pub inputs: Vec<InputInfo>,
    /// Merges whose facts contradicted each other: a wrong rule or import. Never 0 by luck of order.
    pub conflicts: usize,
    /// Classes that an import rounds to f16 or bf16 because an op does, not because the graph has a cast there.
    pub rounded: Vec<Id>,
    /// Symbols of sizes with their ranges.
    pub symbols: Vec<SymbolDecl>,
}

impl Tables {
    /// Whether a size is at least 1 whatever its symbols are.
    pub fn at_least_one(&self, dim: &Dim) -> bool {
        dim.bounds(&self.symbols).0 >= 1
    }
}

/// The e-graph.
pub type Graph = EGraph<ENode, Tables>;

/// Whether a scalar op gives a bool whatever its operands.
fn to_bool(op: &ScalarOp) -> bool {
    op.info().family == Family::Comparison
}

fn scalar_dtype(op: &ScalarOp, args: &[&Facts]) -> DType {
    let of = |i: usize| args.get(i).and_then(|f| f.dtype()).unwrap_or(DType::Bool);
    if let ScalarOp::Cast { to } = op {
        *to
    } else if to_bool(op) {
        DType::Bool
    } else if *op == (ScalarOp::Select {}) {
        of(1)
    } else {
        of(0)
    }
}

fn dtype_leaf(facts: Option<&&Facts>) -> DType {
    match facts.and_then(|f| f.attr.as_ref()) {
        Some(Attr::DType(dtype)) => *dtype,
        // A leaf that is no dtype is a broken term; bool meets no other sort, so a merge counts as a conflict.
        _ => DType::Bool,
    }
}

impl Analysis<ENode> for Tables {
    type Data = Facts;

    fn make(graph: &mut Graph, node: &ENode, _: Id) -> Facts {
        let args: Vec<&Facts> = node.children.iter().map(|&c| &graph[c].data).collect();
        let all = args.iter().fold(0, |set, f| set | f.free);
        let bound = args.first().and_then(|f| f.axis()).map_or(0, axis_bit);
        let of = |i: usize| args.get(i).map_or(Sort::Attr, |f| f.sort);
        let (sort, free) = match &node.head {
            Head::Attr(Attr::Const(number)) => {
                return Facts { sort: Sort::Value(number.dtype), free: 0, number: Some(*number), attr: None };
            }
            Head::Attr(attr) => return Facts { sort: Sort::Attr, free: 0, number: None, attr: Some(attr.clone()) },
            Head::Scalar(op) => (Sort::Value(scalar_dtype(op, &args)), all),
            Head::Iota => (Sort::Value(dtype_leaf(args.get(1))), bound),
            Head::Extent => (Sort::Value(dtype_leaf(args.get(1))), 0),
            Head::Load | Head::Gather => {
                let dtype = match args.first().and_then(|f| f.attr.as_ref()) {
                    Some(Attr::Input(i)) => graph.analysis.inputs.get(*i as usize).map_or(DType::Bool, |t| t.dtype),
                    _ => DType::Bool,
                };
                let map = match args.get(1).and_then(|f| f.attr.as_ref()) {
                    Some(Attr::Map(map)) => map.iter().fold(0, |set, e| set | (e.free() & !axis_bit(GATHERED))),
                    _ => 0,
                };
                (Sort::Value(dtype), map | args.get(2).map_or(0, |f| f.free))
            }
            Head::At => {
                let inner = args.get(1).map_or(0, |f| f.free);
                let free = match args.first().and_then(|f| f.attr.as_ref()) {
                    Some(Attr::Subst(map)) => {
                        let kept = map.iter().fold(inner, |set, (axis, _)| set & !axis_bit(*axis));
                        map.iter()
                            .filter(|(axis, _)| inner & axis_bit(*axis) != 0)
                            .fold(kept, |set, (_, with)| set | with.free())
                    }
                    _ => inner,
                };
                (of(1), free)
            }
            // The weight is the last child, and the value has its dtype.
            Head::Fold(Fold::Sum | Fold::Max | Fold::Min | Fold::Prod | Fold::M2) => (of(1), all & !bound),
            Head::Fold(Fold::Esum) => (of(2), all & !bound),
            Head::Fold(Fold::EsumIf) => (of(3), all & !bound),
        };
        Facts { sort, free, number: None, attr: None }
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        let numbers_differ = a.number.is_some() && b.number.is_some() && a.number != b.number;
        if a.sort != b.sort || a.attr != b.attr || numbers_differ {
            self.conflicts += 1;
        }
        let free = a.free & b.free;
        // On a conflict the smaller survives whatever the order, so that even a failing run is reproducible.
        let number = match (a.number, b.number) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        let sort = a.sort.min(b.sort);
        let did = DidMerge(
            (a.sort, a.free, a.number) != (sort, free, number),
            (b.sort, b.free, b.number) != (sort, free, number),
        );
        *a = Facts { sort, free, number, attr: a.attr.clone().min(b.attr) };
        did
    }
}
