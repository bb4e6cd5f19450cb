//! Which values get a buffer of their own, and which are computed where they are read.

use crate::agree::{folds, is_identity};
use crate::region::{Builder, Region, Source, only_ones};
use crate::schedule::contraction;
use std::collections::BTreeSet;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Node, Value};
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::{Family, GraphOp, ScalarOp};

/// Most nodes of one kernel: bounds the size of kernels and the depth of recursions.
const MOST_NODES: usize = 64;

/// Whether each node has a buffer. Parameters, tensor constants and results of calls always have one; with `one_order` sums and
/// products of floats and what they read do, too, so that they add in an order that depends on nothing around them.
pub fn stored(f: &Function, opt_level: u8, one_order: bool) -> Result<Vec<bool>, Diagnostic> {
    let live = f.live();
    let mut stored = forced(f, &live);
    if one_order {
        for id in folds(f, &live) {
            stored[id.index()] = true;
            f.nodes[id.index()].args.iter().for_each(|a| stored[a.node.index()] = true);
        }
    }
    let users = users(f, &live);
    let mut kernels: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); f.nodes.len()];
    let mut sizes: Vec<usize> = f.nodes.iter().map(weight).collect();
    for i in (0..f.nodes.len()).rev().filter(|&i| live[i]) {
        for &u in &users[i] {
            let new = if stored[u] { BTreeSet::from([u]) } else { kernels[u].clone() };
            kernels[i].extend(new);
        }
        if stored[i] || always_inline(f, i) {
            continue;
        }
        let room = kernels[i].iter().all(|&k| sizes[k] < MOST_NODES);
        stored[i] = !(opt_level > 0 && room && fits(f, i, &users, &kernels[i], &stored)?);
        if !stored[i] {
            for k in kernels[i].clone() {
                sizes[k] += weight(&f.nodes[i]);
            }
        }
    }
    Ok(stored)
}

/// What a node counts in its kernel: a concat chooses between all its parts.
fn weight(node: &Node) -> usize {
    if let GraphOp::Concat { .. } = node.op { node.args.len().max(1) } else { 1 }
}

fn users(f: &Function, live: &[bool]) -> Vec<Vec<usize>> {
    let mut users = vec![Vec::new(); f.nodes.len()];
    for (u, node) in f.nodes.iter().enumerate().filter(|(u, _)| live[*u]) {
        for a in &node.args {
            users[a.node.index()].push(u);
        }
    }
    users
}

/// Scalar constants are literals, and values in block encodings exist only between load and cast.
fn always_inline(f: &Function, i: usize) -> bool {
    let node = &f.nodes[i];
    match &node.op {
        GraphOp::Constant { value } => value.0.shape().is_empty() && !value.0.dtype().is_block(),
        GraphOp::Take { .. } => node.types[0].dtype.is_block(),
        GraphOp::Map { op: ScalarOp::Cast { .. } } => {
            node.args.iter().any(|&a| f.ty(a).dtype.is_block()) && !gathers(f, i)
        }
        _other => false,
    }
}

/// Whether the node reads rows of a block encoding that data chooses. Such a kernel computes all that the graph means, and
/// nothing more: which indices are looked at must not depend on who reads the rows.
fn gathers(f: &Function, i: usize) -> bool {
    f.nodes[i].args.iter().any(|&a| f.ty(a).dtype.is_block() && matches!(f.node(a).op, GraphOp::Take { .. }))
}

fn forced(f: &Function, live: &[bool]) -> Vec<bool> {
    let mut forced = vec![false; f.nodes.len()];
    for r in &f.results {
        forced[r.node.index()] = true;
    }
    for (i, node) in f.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        match &node.op {
            GraphOp::Map { .. } if gathers(f, i) => forced[i] = true,
            GraphOp::Constant { value } => forced[i] |= !value.0.shape().is_empty() || value.0.dtype().is_block(),
            GraphOp::Take { .. } | GraphOp::TakeAlong { .. } => {
                forced[node.args[0].node.index()] = true;
                forced[i] |= !node.types[0].dtype.is_block();
            }
            GraphOp::Parameter { .. } | GraphOp::Argmax { .. } | GraphOp::Argmin { .. } => forced[i] = true,
            GraphOp::Reshape { shape } if !is_identity(f, node) && only_ones(&f.ty(node.args[0]).shape, shape) => {}
            GraphOp::Cumsum { .. }
            | GraphOp::Reshape { .. }
            | GraphOp::ScatterAdd { .. }
            | GraphOp::UpdateSlice { .. }
            | GraphOp::Call { .. }
            | GraphOp::Cond { .. }
            | GraphOp::Scan { .. } => {
                forced[i] = true;
                for a in &node.args {
                    forced[a.node.index()] = true;
                }
            }
            GraphOp::Iota { .. }
            | GraphOp::Size { .. }
            | GraphOp::Map { .. }
            | GraphOp::Reduce { .. }
            | GraphOp::Dot { .. }
            | GraphOp::Broadcast { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Slice { .. }
            | GraphOp::Pad { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Flip { .. } => {}
        }
    }
    forced
}

/// Whether node `i` may be computed inside the kernels that read it.
fn fits(
    f: &Function,
    i: usize,
    users: &[Vec<usize>],
    kernels: &BTreeSet<usize>,
    stored: &[bool],
) -> Result<bool, Diagnostic> {
    let node = &f.nodes[i];
    let into_dot = users[i].iter().any(|&u| matches!(f.nodes[u].op, GraphOp::Dot { .. }));
    let one = kernels.len() == 1;
    Ok(match &node.op {
        GraphOp::Iota { .. } | GraphOp::Size { .. } => !into_dot,
        GraphOp::Broadcast { .. } | GraphOp::Transpose { .. } | GraphOp::Reshape { .. } => {
            keeps_products(f, i, kernels, stored)?
        }
        GraphOp::Slice { .. } | GraphOp::Flip { .. } => (one || !into_dot) && keeps_products(f, i, kernels, stored)?,
        GraphOp::Pad { .. } | GraphOp::Concat { .. } => one && !into_dot,
        GraphOp::Map { op } => {
            one && !feeds_dot(f, i, users, stored)
                && (op.info().family != Family::Transcendental || !repeated(f, i, &users[i]))
        }
        GraphOp::Reduce { .. } if one => try_region(f, i, kernels, stored, false)?,
        GraphOp::Dot { .. } if one => try_region(f, i, kernels, stored, true)?,
        GraphOp::Reduce { .. } | GraphOp::Dot { .. } => false,
        GraphOp::Parameter { .. }
        | GraphOp::Constant { .. }
        | GraphOp::Argmax { .. }
        | GraphOp::Argmin { .. }
        | GraphOp::Cumsum { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. }
        | GraphOp::ScatterAdd { .. }
        | GraphOp::UpdateSlice { .. }
        | GraphOp::Call { .. }
        | GraphOp::Cond { .. }
        | GraphOp::Scan { .. } => false,
    })
}

/// Whether readers of the value hand it to a dot through nothing but movement: its elements would be computed many times.
fn feeds_dot(f: &Function, i: usize, users: &[Vec<usize>], stored: &[bool]) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![i]);
    while let Some(at) = open.pop() {
        for &u in &users[at] {
            match f.nodes[u].op.info().family {
                Family::Contraction => return true,
                Family::Movement if !stored[u] && seen.insert(u) => open.push(u),
                _other => {}
            }
        }
    }
    false
}

/// Whether a reader repeats the value along anything but a new innermost axis.
fn repeated(f: &Function, i: usize, users: &[usize]) -> bool {
    let x = &f.nodes[i].types[0];
    users.iter().any(|&u| match &f.nodes[u].op {
        GraphOp::Broadcast { shape, dims } => {
            let new_last = x.rank() + 1 == shape.len() && dims.iter().copied().eq(0..x.rank());
            let kept_last = x.rank() == shape.len() && x.shape.last().is_some_and(|d| d.is(1));
            !(new_last || kept_last || x.rank() == 0)
        }
        _other => false,
    })
}

/// What a region of kernel roots reads where: everything that is stored, by a name that does not matter here.
fn source_of(f: &Function, stored: &[bool], value: Value) -> Source {
    let i = value.node.index();
    if stored[i] && !always_inline(f, i) {
        Source::Buffer(Ident::from(format!("n{i}_{}", value.index)))
    } else {
        Source::Inline
    }
}

/// Whether the only kernel that reads reduction or dot `i` stays one good kernel with it inside. Nodes before `i` count
/// as stored: they are decided later.
fn try_region(
    f: &Function,
    i: usize,
    kernels: &BTreeSet<usize>,
    stored: &[bool],
    dot: bool,
) -> Result<bool, Diagnostic> {
    let Some(&root) = kernels.first() else { return Ok(false) };
    let family = f.nodes[root].op.info().family;
    let takes = matches!(family, Family::Elementwise | Family::Movement) || (family == Family::Reduction && !dot);
    if !takes {
        return Ok(false);
    }
    if matches!(f.nodes[root].op, GraphOp::Reshape { .. } | GraphOp::Cumsum { .. })
        || f.nodes[root].types[0].rank() == 0
    {
        return Ok(false);
    }
    let region = with_inside(f, i, (root, true), stored)?;
    Ok(if dot { contraction(&region, &|_| false).is_some() } else { region.folds_are_rows() })
}

/// Whether kernels that are products for the micro-kernels still are if movement `i` is inside.
fn keeps_products(f: &Function, i: usize, kernels: &BTreeSet<usize>, stored: &[bool]) -> Result<bool, Diagnostic> {
    for &root in kernels {
        // Only these become regions.
        let region = match &f.nodes[root].op {
            GraphOp::Map { .. } | GraphOp::Dot { .. } | GraphOp::Reduce { .. } | GraphOp::Broadcast { .. } => true,
            GraphOp::Transpose { .. } | GraphOp::Slice { .. } | GraphOp::Flip { .. } => true,
            _other => false,
        };
        if !region {
            continue;
        }
        let is_product = |inside| -> Result<bool, Diagnostic> {
            Ok(contraction(&with_inside(f, i, (root, inside), stored)?, &|_| false).is_some())
        };
        if is_product(false)? && !is_product(true)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The region of kernel `root` with node `i` inside, or as a buffer. Nodes before `i` count as stored.
fn with_inside(f: &Function, i: usize, (root, inside): (usize, bool), stored: &[bool]) -> Result<Region, Diagnostic> {
    let source = |v: Value| {
        if v.node.index() < i + usize::from(!inside) && !always_inline(f, v.node.index()) {
            Source::Buffer(Ident::from(format!("n{}_{}", v.node.index(), v.index)))
        } else if v.node.index() == i {
            Source::Inline
        } else {
            source_of(f, stored, v)
        }
    };
    let value = Value { node: tilewright_ir::graph::NodeId(u32::try_from(root).unwrap_or(u32::MAX)), index: 0 };
    Builder::region(f, &source, value)
}
