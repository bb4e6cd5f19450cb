//! A product with one-hot rows is a lookup, and with one-hot columns a sum of rows at their places.
//!
//! before: `%1 = eq iota, broadcast %ids`, `%2 = dot cast %1, %w`      after: `%1 = take %w, clamped %ids`, 0 for ids outside
//! before: `%2 = dot transposed cast %1, %g`                           after: `%1 = scatter_add zeros, clamped %ids, %g`
//! keeps: types, places; values where all of `%w` and `%g` is finite, but for the order of sums and signs of zeros.
//! cost: O(nodes).
//!
//! It pays where there are many classes; a few are better off in the kernels around them, which lookups end. On a CPU, one thread, 65,536 rows of 64:
//! added at their places 26 ms, as a product with 64 classes 8 ms, and a product takes as much more as there are more classes. Lookups of
//! elements that lie apart were slower than products with 64 classes, too. Halves would round at each addition, where a product rounds once.

use super::rewrite::Rewrite;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, Value};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// Fewest classes where rows are read, elements that lie apart are read, and rows are added.
const FEWEST: [i64; 3] = [64, 1024, 1024];
/// Most, which any of the dtypes of ids here counts.
const MOST: i64 = 1 << 24;

/// A product with a one-hot operand.
struct Hot {
    /// Which operand it is.
    side: usize,
    /// How many classes.
    classes: i64,
    /// The class of each row: the shape of the operand without `axis`.
    ids: Value,
    /// Whether the classes are contracted, else all other axes are.
    looks: bool,
}

/// `f` with lookups for such products, or `None` if there is none.
pub(super) fn looked_up(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    let found: Vec<Option<Hot>> = f.nodes.iter().map(|n| hot(f, n)).collect();
    if found.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut new = Rewrite::of(module, f);
    for (node, found) in f.nodes.iter().zip(found) {
        let made = match found {
            Some(hot) if hot.looks => lookup(f, &mut new, node, &hot)?.node,
            Some(hot) => sums(f, &mut new, node, &hot)?.node,
            None => {
                let args = new.operands(node)?;
                new.copy(node, args)?
            }
        };
        new.became(made);
    }
    new.finish(f).map(Some)
}

/// The one-hot operand of a product without batch.
fn hot(f: &Function, node: &Node) -> Option<Hot> {
    let GraphOp::Dot { dims } = &node.op else { return None };
    if !dims.batch.0.is_empty() {
        return None;
    }
    [&dims.contract.0, &dims.contract.1].into_iter().enumerate().find_map(|(side, over)| {
        let (x, other) = (*node.args.get(side)?, *node.args.get(1 - side)?);
        let (axis, ids) = one_hot(f, x)?;
        let shape = &f.ty(x).shape;
        let classes = shape[axis].as_const().filter(|n| *n <= MOST)?;
        let rest: Vec<usize> = (0..shape.len()).filter(|d| *d != axis).collect();
        let looks = over[..] == [axis];
        let others = if side == 0 { &dims.contract.1 } else { &dims.contract.0 };
        let last = f.ty(other).shape.len() - 1;
        let [rows, apart, added] = FEWEST;
        let fewest = match looks {
            true if others[..] == [last] && last > 0 => apart,
            true => rows,
            false => added,
        };
        let plain = !f.ty(other).dtype.is_block() && f.ty(other).dtype == node.types.first()?.dtype;
        // Rows are summed in the order of the ids.
        let single = matches!(f.ty(other).dtype, DType::F32 | DType::F64);
        let sums = single && !rest.is_empty() && over[..] == rest[..] && others.iter().copied().eq(0..others.len());
        (plain && classes >= fewest && (looks || sums)).then_some(Hot { side, classes, ids, looks })
    })
}

/// The axis of the classes and the ids of a value that is 1 where the position along that axis is the id, and 0 elsewhere.
fn one_hot(f: &Function, x: Value) -> Option<(usize, Value)> {
    let GraphOp::Map { op: ScalarOp::Cast { .. } } = &f.node(x).op else { return None };
    let &truth = f.node(x).args.first()?;
    let (GraphOp::Map { op: ScalarOp::Eq {} }, &[a, b]) = (&f.node(truth).op, &f.node(truth).args[..]) else {
        return None;
    };
    if !f.ty(x).dtype.is_float() {
        return None;
    }
    [(a, b), (b, a)].into_iter().find_map(|(position, ids)| {
        let axis = along(f, position)?;
        let GraphOp::Broadcast { dims, .. } = &f.node(ids).op else { return None };
        let &ids = f.node(ids).args.first()?;
        let rest = (0..f.ty(x).shape.len()).filter(|d| *d != axis);
        let whole = || rest.clone().map(|d| &f.ty(x).shape[d]).eq(&f.ty(ids).shape);
        let integers = matches!(f.ty(ids).dtype, DType::I64 | DType::I32);
        (dims.iter().copied().eq(rest.clone()) && whole() && integers).then_some((axis, ids))
    })
}

/// The axis whose positions a value is, as an `iota` or the broadcast of one.
fn along(f: &Function, v: Value) -> Option<usize> {
    match &f.node(v).op {
        GraphOp::Iota { axis, .. } => Some(*axis),
        GraphOp::Broadcast { dims, shape } => {
            let &x = f.node(v).args.first()?;
            let axis = *dims.get(along(f, x)?)?;
            let own = f.ty(x).shape.get(dims.iter().position(|d| *d == axis)?)?;
            (shape[axis] == *own).then_some(axis)
        }
        _other => None,
    }
}

/// The ids inside the classes, and which of them were.
fn inside(new: &mut Rewrite<'_>, hot: &Hot, of: &Node) -> Result<(Value, Value), Diagnostic> {
    let ids = new.at(hot.ids)?;
    let Type { dtype, shape } = new.out.ty(ids).clone();
    let mut number = |n: i64| {
        // Fewer than 2^24, see `MOST`.
        let bytes = if dtype == DType::I32 { (n as i32).to_le_bytes().to_vec() } else { n.to_le_bytes().to_vec() };
        let value = Array::new(dtype, &[], Bytes::new(bytes))?;
        let scalar = new.push(GraphOp::Constant { value: value.into() }, &[], of)?;
        new.push(GraphOp::Broadcast { shape: shape.clone(), dims: Vec::new() }, &[scalar], of)
    };
    let (first, last) = (number(0)?, number(hot.classes - 1)?);
    let map = |new: &mut Rewrite<'_>, op, args: &[Value]| new.push(GraphOp::Map { op }, args, of);
    let clamped = map(new, ScalarOp::Max {}, &[ids, first])?;
    let clamped = map(new, ScalarOp::Min {}, &[clamped, last])?;
    let same = map(new, ScalarOp::Eq {}, &[clamped, ids])?;
    Ok((clamped, same))
}

/// `x` where `truth` holds, whose axes are `dims` of `x`, and 0 elsewhere.
fn where_holds(
    new: &mut Rewrite<'_>,
    truth: Value,
    dims: Vec<usize>,
    x: Value,
    of: &Node,
) -> Result<Value, Diagnostic> {
    let ty = new.out.ty(x).clone();
    let zero = Array::from_number(ty.dtype, 0.0)?;
    let zero = new.push(GraphOp::Constant { value: zero.into() }, &[], of)?;
    let zero = new.push(GraphOp::Broadcast { shape: ty.shape.clone(), dims: Vec::new() }, &[zero], of)?;
    let truth = new.push(GraphOp::Broadcast { shape: ty.shape, dims }, &[truth], of)?;
    new.push(GraphOp::Map { op: ScalarOp::Select {} }, &[truth, x, zero], of)
}

/// Rows of the other operand at the ids.
fn lookup(f: &Function, new: &mut Rewrite<'_>, node: &Node, hot: &Hot) -> Result<Value, Diagnostic> {
    let GraphOp::Dot { dims } = &node.op else { return Err(Diagnostic::bug("a product that is none")) };
    let axis = if hot.side == 0 { dims.contract.1[0] } else { dims.contract.0[0] };
    let (ids, truth) = inside(new, hot, node)?;
    let rank = f.ty(hot.ids).shape.len();
    let rows = new.at(node.args[1 - hot.side])?;
    let rows = new.push(GraphOp::Take { axis }, &[rows, ids], node)?;
    let rows = where_holds(new, truth, (axis..axis + rank).collect(), rows, node)?;
    // The axes of the left operand come first.
    let all = new.out.ty(rows).shape.len();
    let (looked, rest) =
        ((axis..axis + rank).collect::<Vec<_>>(), (0..axis).chain(axis + rank..all).collect::<Vec<_>>());
    let perm: Vec<usize> = if hot.side == 0 { [looked, rest].concat() } else { [rest, looked].concat() };
    if perm.iter().copied().eq(0..all) {
        return Ok(rows);
    }
    new.push(GraphOp::Transpose { perm }, &[rows], node)
}

/// Rows of the other operand, added at their ids.
fn sums(f: &Function, new: &mut Rewrite<'_>, node: &Node, hot: &Hot) -> Result<Value, Diagnostic> {
    let other = node.args[1 - hot.side];
    let (ids, truth) = inside(new, hot, node)?;
    let rank = f.ty(hot.ids).shape.len();
    let rows = new.at(other)?;
    let rows = where_holds(new, truth, (0..rank).collect(), rows, node)?;
    // One axis for all rows, and one for what they hold.
    let product = |shape: &[Dim]| {
        let all = shape.iter().try_fold(Dim::constant(1), |n, size| n.checked_mul(size));
        all.ok_or_else(|| Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"))
    };
    let rest = f.ty(other).shape[rank..].to_vec();
    let (count, width) = (product(&f.ty(hot.ids).shape)?, product(&rest)?);
    let flat = vec![count.clone(), width.clone()];
    let rows = new.push(GraphOp::Reshape { shape: flat.clone() }, &[rows], node)?;
    let ids = new.push(GraphOp::Reshape { shape: vec![count] }, &[ids], node)?;
    let ids = new.push(GraphOp::Broadcast { shape: flat, dims: vec![0] }, &[ids], node)?;
    let zero = Array::from_number(new.out.ty(rows).dtype, 0.0)?;
    let zero = new.push(GraphOp::Constant { value: zero.into() }, &[], node)?;
    let shape = vec![Dim::constant(hot.classes), width];
    let zeros = new.push(GraphOp::Broadcast { shape, dims: Vec::new() }, &[zero], node)?;
    let sums = new.push(GraphOp::ScatterAdd { axis: 0 }, &[zeros, ids, rows], node)?;
    let shape: Vec<Dim> = [vec![Dim::constant(hot.classes)], rest.clone()].concat();
    let sums = new.push(GraphOp::Reshape { shape }, &[sums], node)?;
    if hot.side == 0 {
        return Ok(sums);
    }
    let perm: Vec<usize> = (1..=rest.len()).chain([0]).collect();
    new.push(GraphOp::Transpose { perm }, &[sums], node)
}
