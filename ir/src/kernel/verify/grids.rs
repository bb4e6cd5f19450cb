//! Several grids of one launch: nothing orders them, so none may touch what another one writes.

use crate::diag::Diagnostic;
use crate::kernel::expr::Ident;
use crate::kernel::tree::{Kernel, Level, Stmt};
use std::collections::BTreeSet;

/// What a grid names, and what it writes, as buffers; views stand for theirs.
#[derive(Default)]
struct Touched {
    named: BTreeSet<Ident>,
    written: BTreeSet<Ident>,
}

impl Touched {
    fn stmt(&mut self, kernel: &Kernel, s: &Stmt) {
        let root = |name: &Ident| kernel.views.iter().find(|v| v.name == *name).map_or(name, |v| &v.buffer).clone();
        self.named.extend(s.accesses().into_iter().map(|a| root(&a.buffer)));
        self.written.extend(s.writes().map(root));
        s.blocks().into_iter().flatten().for_each(|s| self.stmt(kernel, s));
    }
}

/// Errors: `kernel-race` for a buffer that one grid writes and another one touches.
pub(super) fn check(kernel: &Kernel) -> Result<(), Diagnostic> {
    let is_grid = |s: &&Stmt| matches!(s, Stmt::Par { level: Level::Grid, .. });
    let mut grids: Vec<Touched> = Vec::new();
    for s in kernel.body.iter().filter(is_grid) {
        let mut touched = Touched::default();
        touched.stmt(kernel, s);
        // What a grid declares inside has its own name there.
        let known: BTreeSet<&Ident> = kernel.arguments.iter().map(|b| &b.name).chain(outside(kernel)).collect();
        touched.written.retain(|name| known.contains(name));
        grids.push(touched);
    }
    for (i, grid) in grids.iter().enumerate() {
        for (j, other) in grids.iter().enumerate().filter(|(j, _)| *j != i) {
            if let Some(name) = grid.written.iter().find(|n| other.named.contains(*n) || other.written.contains(*n)) {
                let message = format!(
                    "grid {} writes `{name}`, which grid {} touches: grids of one kernel run side by side",
                    i + 1,
                    j + 1
                );
                return Err(Diagnostic::new("kernel-race", message));
            }
        }
    }
    Ok(())
}

/// Buffers beside the grids.
fn outside(kernel: &Kernel) -> impl Iterator<Item = &Ident> {
    kernel.body.iter().filter_map(|s| match s {
        Stmt::Buffer(b) => Some(&b.name),
        _other => None,
    })
}
