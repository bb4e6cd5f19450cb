//! Whether a kernel may write an output over an input: every element is read for the last time before it is written.
//!
//! Asked of kernels for the CPU, where a grid point runs as one thread. The form of the body tells what runs before the
//! store of a grid point; the walk over bounds tells that no other point, and no later turn of a loop, reads what it wrote.

use super::bounds;
use super::context::Context;
use super::linear::Unknown;
use super::race::Written;
use crate::kernel::expr::{Access, Expr, Ident, IndexDim};
use crate::kernel::tree::{Block, Buffer, Kernel, Space, Stmt};

/// Whether argument number `output` of `kernel` may be the memory of argument number `input`. `false` is "not proved".
pub fn may_overwrite(kernel: &Kernel, input: usize, output: usize) -> bool {
    let (Some(from), Some(to)) = (kernel.arguments.get(input), kernel.arguments.get(output)) else { return false };
    let alike = from.space == Space::In && to.space == Space::Out && from.dtype == to.dtype && from.axes == to.axes;
    if &*kernel.target != "cpu" || !alike || from.dtype.is_block() || !from.attrs.is_empty() || !to.attrs.is_empty() {
        return false;
    }
    reads_come_first(kernel, from, to) && bounds::watched(kernel, Watch::new(&from.name, &to.name))
}

/// Whether the one store to `to` ends its grid point, with the reads of `from` in loops that end before it, or beside it
/// and at the same place.
fn reads_come_first(kernel: &Kernel, from: &Buffer, to: &Buffer) -> bool {
    let mut grids = kernel.body.iter().filter(|s| !matches!(s, Stmt::Buffer(_)));
    let (Some(Stmt::Par { body, .. }), None) = (grids.next(), grids.next()) else { return false };
    let mut around: Vec<&Block> = Vec::new();
    let mut inner = body;
    while let Some(Stmt::For { body, .. }) = inner.last() {
        around.push(inner);
        inner = body;
    }
    let Some(Stmt::Store { access, add: false, .. }) = inner.last() else { return false };
    let views = kernel.views.iter();
    if *access.buffer != *to.name || !is_plain(access) || views.clone().any(|v| *v.buffer == *to.name) {
        return false;
    }
    let names: Vec<&Ident> =
        views.filter(|v| *v.buffer == *from.name).map(|v| &v.name).chain(std::iter::once(&from.name)).collect();
    let reads = |s: &Stmt| s.accesses().iter().any(|a| names.iter().any(|n| ***n == *a.buffer));
    let (mut stores, mut loads) = (0, 0);
    let only_loads = all(body, &mut |s| {
        stores += usize::from(s.accesses().iter().any(|a| *a.buffer == *to.name));
        loads += usize::from(reads(s));
        !reads(s) || matches!(s, Stmt::Load { access, mods, .. } if is_plain(access) && mods.on.is_none())
    });
    // A tile is read where it is used: one from outside the loop could be read after a store inside it.
    let outside = around.iter().any(|block| block.iter().any(reads));
    // What is beside the store must be element by element.
    let beside = inner.iter().all(|s| {
        let same = matches!(s, Stmt::Load { access: a, .. } if *a.buffer == *from.name && a.dims == access.dims);
        (!reads(s) || same) && !s.operands().into_iter().any(folds)
    });
    only_loads && stores == 1 && loads > 0 && !outside && beside
}

fn is_plain(access: &Access) -> bool {
    let dims = || access.dims.iter().flatten();
    let plain = |d: &IndexDim| !matches!(d, IndexDim::Checked { .. } | IndexDim::Gather(_));
    access.back == 0 && access.field.is_none() && dims().all(plain)
}

fn folds(e: &Expr) -> bool {
    matches!(e, Expr::Reduce(..)) || e.operands().into_iter().any(folds)
}

/// Whether `holds` for every statement, at any depth; asks all of them.
fn all(block: &Block, holds: &mut impl FnMut(&Stmt) -> bool) -> bool {
    block.iter().fold(true, |so_far, s| {
        let here = holds(s);
        s.blocks().into_iter().fold(so_far && here, |so_far, inside| all(inside, holds) && so_far)
    })
}

/// What the walk over bounds notes of an input and of the output that may be its memory.
pub(super) struct Watch {
    pub(super) input: Ident,
    pub(super) output: Ident,
    /// Boxes of a load, and the variables around it, outermost first.
    loads: Vec<(Vec<Written>, Vec<Unknown>)>,
    pub(super) proved: bool,
}

impl Watch {
    fn new(input: &Ident, output: &Ident) -> Watch {
        Watch { input: input.clone(), output: output.clone(), loads: Vec::new(), proved: false }
    }

    pub(super) fn load(&mut self, boxes: Vec<Written>, around: &[Unknown]) {
        self.loads.push((boxes, around.to_vec()));
    }

    /// No other value of the variables around both a load and the store may read what is stored. Dims that are the same
    /// in both tell such values apart.
    pub(super) fn store(&mut self, context: &mut Context, boxes: &[Written], around: &[Unknown]) {
        self.proved = self.loads.iter().all(|(read, scope)| {
            let shared = scope.iter().zip(around).take_while(|(a, b)| a == b).map(|(u, _)| *u).collect::<Vec<_>>();
            let same: Vec<Written> = boxes.iter().zip(read).filter(|(w, r)| w == r).map(|(w, _)| w.clone()).collect();
            context.tells_apart(&same, &shared)
        });
    }
}
