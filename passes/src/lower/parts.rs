//! A product over joined operands is the sum of the products of the parts, so that nothing is joined.
//!
//! before: `%1 = concat %x, %y axis=1`, `%2 = dot %1, %w`
//! after:  `%1 = dot %x, slice %w`, `%2 = dot %y, slice %w`, `%3 = add %1, %2`
//! keeps: types, places; values but for the order of sums.    cost: O(nodes).
//!
//! It pays where nobody else reads the whole, and the sums so far are smaller than what would have been joined. Sums of halves run in
//! f32 and round once, which those of parts would not.

use super::rewrite::{Rewrite, uses};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, Value};
use tilewright_ir::op::{DotDims, GraphOp, ScalarOp};
use tilewright_ir::types::{DType, Dim};

/// Elements of the contracted axis that a part has at least.
const SHORTEST: i64 = 16;

/// A product with a joined operand.
struct Joined<'f> {
    dims: &'f DotDims,
    /// Which operand it is.
    side: usize,
    parts: &'f [Value],
}

/// `f` with such products in parts, or `None` if there is none.
pub(super) fn split(module: &Module, f: &Function) -> Result<Option<Function>, Diagnostic> {
    if !f.nodes.iter().any(|n| matches!(n.op, GraphOp::Concat { .. })) {
        return Ok(None);
    }
    let uses = uses(f);
    let found: Vec<Option<Joined<'_>>> = f.nodes.iter().map(|n| joined(f, &uses, n)).collect();
    if found.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut new = Rewrite::of(module, f);
    for (node, found) in f.nodes.iter().zip(found) {
        let made = match found {
            Some(joined) => sum(f, &mut new, node, &joined)?.node,
            None => {
                let args = new.operands(node)?;
                new.copy(node, args)?
            }
        };
        new.became(made);
    }
    new.finish(f).map(Some)
}

/// The joined operand of a product, if computing in parts pays.
fn joined<'f>(f: &'f Function, uses: &[usize], node: &'f Node) -> Option<Joined<'f>> {
    let GraphOp::Dot { dims } = &node.op else { return None };
    let over = [*dims.contract.0.first()?, *dims.contract.1.first()?];
    let batch = [&dims.batch.0, &dims.batch.1];
    let single = node.types.first().is_some_and(|ty| matches!(ty.dtype, DType::F32 | DType::F64));
    if dims.contract.0.len() != 1 || !single {
        return None;
    }
    let known = |n: &Dim| n.as_const();
    (0..2).find_map(|side| {
        let (whole, other) = (*node.args.get(side)?, *node.args.get(1 - side)?);
        let GraphOp::Concat { axis } = &f.node(whole).op else { return None };
        let parts = &f.node(whole).args;
        // Blocks are read whole.
        let encoded = |v: Value| f.ty(v).dtype.is_block();
        let plain = !encoded(other) && !f.node(other).args.iter().any(|&a| encoded(a));
        let shape = &f.ty(other).shape;
        let free = (0..shape.len()).filter(|d| *d != over[1 - side] && !batch[1 - side].contains(d));
        let columns = free.map(|d| known(&shape[d])).try_fold(1i64, |n, size| n.checked_mul(size?))?;
        let depth = known(&f.ty(whole).shape[*axis])?;
        let long = |p: &Value| known(&f.ty(*p).shape[*axis]).is_some_and(|n| n >= SHORTEST);
        let sums = columns.checked_mul(i64::try_from(parts.len()).ok()? - 1)?;
        let pays = uses[whole.node.index()] == 1 && parts.len() > 1 && sums <= depth && parts.iter().all(long);
        (*axis == over[side] && plain && pays).then_some(Joined { dims, side, parts })
    })
}

/// The sum of the products of the parts.
fn sum(f: &Function, new: &mut Rewrite<'_>, node: &Node, joined: &Joined<'_>) -> Result<Value, Diagnostic> {
    let other = node.args[1 - joined.side];
    let shape = f.ty(other).shape.clone();
    let over = if joined.side == 0 { joined.dims.contract.1[0] } else { joined.dims.contract.0[0] };
    let own = if joined.side == 0 { joined.dims.contract.0[0] } else { joined.dims.contract.1[0] };
    let overflow = || Diagnostic::new("dim-overflow", "a size does not fit in 64 bits");
    let (mut from, mut all) = (Dim::constant(0), None);
    for &part in joined.parts {
        let to = from.checked_add(&f.ty(part).shape[own]).ok_or_else(overflow)?;
        let mut start = vec![Dim::constant(0); shape.len()];
        let mut limit = shape.clone();
        start[over].clone_from(&from);
        limit[over].clone_from(&to);
        from = to;
        let (x, w) = (new.at(part)?, new.at(other)?);
        let w = new.push(GraphOp::Slice { start, limit, stride: vec![1; shape.len()] }, &[w], node)?;
        let args = if joined.side == 0 { [x, w] } else { [w, x] };
        let product = new.push(GraphOp::Dot { dims: joined.dims.clone() }, &args, node)?;
        all = Some(match all {
            None => product,
            Some(sum) => new.push(GraphOp::Map { op: ScalarOp::Add {} }, &[sum, product], node)?,
        });
    }
    all.ok_or_else(|| Diagnostic::bug("a joined operand without parts"))
}
