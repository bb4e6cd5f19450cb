//! Shifts that are taken out again: values from which results are computed and on which they do not depend.
//!
//! `softmax(x) = exp(x - m) / sum(exp(x - m))` is the same for every `m`, so the largest element of `x`, which `m` is for the
//! sake of range, has no derivative. The rule of a maximum would find that too, as a sum of terms that cancel but for
//! rounding, at the price of several passes over `x`.
//!
//! Each value on the way from `m` is followed as `v + count m` or `v exp(count m)`, whose `v` is the same for every `m`; where
//! the count becomes 0 the way ends. Everything else that uses `m`, but comparisons, which have no derivative, makes it count.

use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::graph::{Function, Node, NodeId, Value};
use tilewright_ir::op::{DotDims, GraphOp, ReduceKind, ScalarOp};
use tilewright_ir::types::Dim;

/// How a value depends on the shift.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    form: Form,
    /// Which axis of the shift each axis of the value goes along; none along which all elements have the same shift.
    along: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// `v + count m`.
    Plus(i64),
    /// `v exp(count m)`.
    Times(i64),
}

/// What a node makes of operands that depend on the shift.
enum Next {
    /// A value that depends on it.
    Depends(Way),
    /// One that does not, or has no derivative.
    Free,
    /// Nobody knows.
    Unknown,
}

/// The nodes among the first `last` on which none of `seeds` depends by its derivative, as they are shifts that are taken out
/// again: largest and smallest elements, and choices between such and a constant. O(nodes that use them, each).
pub fn shifts(f: &Function, seeds: &[Value], last: usize) -> BTreeSet<usize> {
    let candidates: Vec<usize> = (0..last).filter(|&i| is_candidate(f, &f.nodes[i])).collect();
    if candidates.is_empty() {
        return BTreeSet::new();
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); last];
    for (i, node) in f.nodes[..last].iter().enumerate() {
        node.args.iter().for_each(|a| users[a.node.index()].push(i));
    }
    candidates.into_iter().filter(|&i| is_taken_out(f, seeds, &users, i)).collect()
}

fn is_candidate(f: &Function, node: &Node) -> bool {
    match &node.op {
        GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. } => node.types[0].dtype.is_float(),
        GraphOp::Map { op: ScalarOp::Select {} } => {
            let extreme = |v: &Value| {
                matches!(f.node(viewed(f, *v)).op, GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. })
            };
            node.types[0].dtype.is_float() && node.args[1..].iter().any(extreme)
        }
        _other => false,
    }
}

/// What a reshape or broadcast shows.
fn viewed(f: &Function, mut v: Value) -> Value {
    while let GraphOp::Reshape { .. } | GraphOp::Broadcast { .. } = f.node(v).op {
        v = f.node(v).args[0];
    }
    v
}

/// Follows node `start` through its users.
fn is_taken_out(f: &Function, seeds: &[Value], users: &[Vec<usize>], start: usize) -> bool {
    let own = Value { node: NodeId(start as u32), index: 0 };
    let axes = 0..f.ty(own).shape.len();
    let first = Way { form: Form::Plus(1), along: narrowed(axes.map(Some).collect(), &f.ty(own).shape) };
    let mut ways = BTreeMap::from([(own, first)]);
    let mut open: BTreeSet<usize> = users[start].iter().copied().collect();
    if seeds.contains(&own) {
        return false;
    }
    while let Some(i) = open.pop_first() {
        let node = &f.nodes[i];
        let out = Value { node: NodeId(i as u32), index: 0 };
        match next(f, node, &ways) {
            Next::Free => {}
            Next::Depends(_) if seeds.contains(&out) => return false,
            Next::Depends(way) => {
                ways.insert(out, way);
                open.extend(&users[i]);
            }
            Next::Unknown => return false,
        }
    }
    true
}

/// Axes of one element have no direction.
fn narrowed(along: Vec<Option<usize>>, shape: &[Dim]) -> Vec<Option<usize>> {
    along.into_iter().zip(shape).map(|(a, n)| a.filter(|_| !n.is(1))).collect()
}

fn next(f: &Function, node: &Node, ways: &BTreeMap<Value, Way>) -> Next {
    if node.types.iter().all(|t| !t.dtype.is_float()) {
        return Next::Free;
    }
    let args: Vec<Option<&Way>> = node.args.iter().map(|a| ways.get(a)).collect();
    let made = match &node.op {
        GraphOp::Map { op } => return map(f, node, op, &args),
        GraphOp::Reduce { kind, axes } => args[0].and_then(|x| {
            let constant = axes.iter().all(|&a| x.along[a].is_none());
            let fits = match kind {
                ReduceKind::Sum => matches!(x.form, Form::Times(_)),
                ReduceKind::Max | ReduceKind::Min => matches!(x.form, Form::Plus(_)),
                ReduceKind::Prod => false,
            };
            let along = x.along.iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, x)| *x);
            (constant && fits).then(|| Way { form: x.form, along: along.collect() })
        }),
        GraphOp::Broadcast { shape, dims } => args[0].map(|x| {
            let mut along = vec![None; shape.len()];
            dims.iter().zip(&x.along).for_each(|(&to, &from)| along[to] = from);
            Way { form: x.form, along }
        }),
        GraphOp::Reshape { shape } => args[0].and_then(|x| {
            let long = |shape: &[Dim]| -> Vec<usize> { (0..shape.len()).filter(|&a| !shape[a].is(1)).collect() };
            let old = &f.ty(node.args[0]).shape;
            let (from, to) = (long(old), long(shape));
            let same = from.len() == to.len() && from.iter().zip(&to).all(|(&a, &b)| old[a] == shape[b]);
            let mut along = vec![None; shape.len()];
            from.iter().zip(&to).for_each(|(&a, &b)| along[b] = x.along[a]);
            same.then_some(Way { form: x.form, along })
        }),
        GraphOp::Transpose { perm } => {
            args[0].map(|x| Way { form: x.form, along: perm.iter().map(|&from| x.along[from]).collect() })
        }
        GraphOp::Dot { dims } => dot(f, node, dims, &args),
        _other => None,
    };
    made.map_or(Next::Unknown, Next::Depends)
}

/// A product of which one operand has a factor that is the same along what is summed.
fn dot(f: &Function, node: &Node, dims: &DotDims, args: &[Option<&Way>]) -> Option<Way> {
    let (x, side) = match args {
        [Some(x), None] => (x, 0),
        [None, Some(x)] => (x, 1),
        _both => return None,
    };
    let (batch, contract) =
        if side == 0 { (&dims.batch.0, &dims.contract.0) } else { (&dims.batch.1, &dims.contract.1) };
    let fits = matches!(x.form, Form::Times(_)) && contract.iter().all(|&a| x.along[a].is_none());
    let free = |rank: usize, batch: &[usize], contract: &[usize]| -> Vec<usize> {
        (0..rank).filter(|a| !batch.contains(a) && !contract.contains(a)).collect()
    };
    let rank = |i: usize| f.ty(node.args[i]).rank();
    let left = free(rank(0), &dims.batch.0, &dims.contract.0);
    let right = free(rank(1), &dims.batch.1, &dims.contract.1);
    let own = |axes: &[usize], mine: bool| -> Vec<Option<usize>> {
        axes.iter().map(|&a| if mine { x.along[a] } else { None }).collect()
    };
    let along = [own(batch, true), own(&left, side == 0), own(&right, side == 1)].concat();
    fits.then_some(Way { form: x.form, along })
}

fn map(f: &Function, node: &Node, op: &ScalarOp, args: &[Option<&Way>]) -> Next {
    use Form::{Plus, Times};
    let constant = |i: usize| constant(f, node.args[i]);
    let form = |i: usize| args[i].map(|x| x.form);
    let made = match op {
        ScalarOp::Neg {} => form(0).and_then(|x| match x {
            Plus(n) => n.checked_neg().map(Plus),
            Times(n) => Some(Times(n)),
        }),
        ScalarOp::Cast { .. } => form(0),
        ScalarOp::Exp {} => form(0).and_then(|x| if let Plus(n) = x { Some(Times(n)) } else { None }),
        ScalarOp::Log {} => form(0).and_then(|x| if let Times(n) = x { Some(Plus(n)) } else { None }),
        ScalarOp::Add {} | ScalarOp::Sub {} => {
            let minus = *op == (ScalarOp::Sub {});
            match (form(0), form(1)) {
                (Some(Plus(a)), Some(Plus(b))) => joined(a, b, minus).map(Plus),
                (Some(Plus(a)), None) => Some(Plus(a)),
                (None, Some(Plus(b))) => joined(0, b, minus).map(Plus),
                (Some(Times(a)), Some(Times(b))) if a == b => Some(Times(a)),
                _other => None,
            }
        }
        ScalarOp::Mul {} | ScalarOp::Div {} => {
            let minus = *op == (ScalarOp::Div {});
            match (form(0), form(1)) {
                (Some(Times(a)), Some(Times(b))) => joined(a, b, minus).map(Times),
                (Some(Times(a)), None) => Some(Times(a)),
                (None, Some(Times(b))) => joined(0, b, minus).map(Times),
                _other => None,
            }
        }
        // What masks: an infinity stays one whatever is added, a zero whatever it is multiplied with.
        ScalarOp::Select {} => match (form(1), form(2)) {
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(Plus(n)), None) if constant(2).is_some_and(f64::is_infinite) => Some(Plus(n)),
            (None, Some(Plus(n))) if constant(1).is_some_and(f64::is_infinite) => Some(Plus(n)),
            (Some(Times(n)), None) if constant(2) == Some(0.0) => Some(Times(n)),
            (None, Some(Times(n))) if constant(1) == Some(0.0) => Some(Times(n)),
            (None, None) => return Next::Free,
            _other => None,
        },
        _other => None,
    };
    let values = if *op == (ScalarOp::Select {}) { &args[1..] } else { args };
    let mut alongs = values.iter().flatten().map(|x| &x.along);
    let first = alongs.next().filter(|&along| alongs.all(|other| other == along));
    match (made, first) {
        (Some(Plus(0) | Times(0)), Some(_)) => Next::Free,
        (Some(form), Some(along)) => Next::Depends(Way { form, along: along.clone() }),
        _other => Next::Unknown,
    }
}

/// The sum of two counts, or their difference.
fn joined(a: i64, b: i64, minus: bool) -> Option<i64> {
    if minus { a.checked_sub(b) } else { a.checked_add(b) }
}

/// The number that `v` is everywhere.
fn constant(f: &Function, v: Value) -> Option<f64> {
    let GraphOp::Constant { value } = &f.node(viewed(f, v)).op else { return None };
    let values = value.0.to_f64()?;
    values.first().copied().filter(|x| values.iter().all(|y| y == x))
}
