//! Kernels side by side: the grids of several kernels as one kernel, so that they are one launch and fill a device together.

use super::super::names::rename;
use crate::region::Region;
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Buffer, Kernel, KernelAttr, Space, Stmt};
use tilewright_ir::types::SymbolDecl;

/// A kernel and what it is launched with: for each argument the number of an input of the region, or of an output behind them.
pub struct Launched {
    /// The kernel.
    pub kernel: Kernel,
    /// By argument.
    pub arguments: Vec<usize>,
}

/// The kernels of a region: one where the parts for outputs with other axes can be grids of one, else one for each part.
///
/// Errors: broken invariants.
pub fn kernels(region: &Region, name: &str, symbols: &[SymbolDecl], target: &str) -> Result<Vec<Launched>, Diagnostic> {
    let inputs = region.inputs.len();
    let mut made = Vec::new();
    for (part, (outputs, small)) in super::parts(region).into_iter().enumerate() {
        let name = if part == 0 { name.to_string() } else { format!("{name}_{part}") };
        let kernel = super::region_kernel(&small, &name, symbols, target)?;
        let arguments = (0..inputs).chain(outputs.into_iter().map(|o| inputs + o)).collect();
        made.push(Launched { kernel, arguments });
    }
    Ok(joined(&made).map_or(made, |one| vec![one]))
}

/// Several kernels as the grids of one; `None` where their blocks differ in threads, or one is more than a grid.
fn joined(parts: &[Launched]) -> Option<Launched> {
    let [first, rest @ ..] = parts else { return None };
    let threads = |k: &Kernel| k.attrs.iter().find(|a| &*a.name == "threads").cloned();
    let is_grid = |p: &Launched| matches!(&p.kernel.body[..], [Stmt::Par { .. }]) && p.kernel.views.is_empty();
    if rest.is_empty()
        || !parts.iter().all(is_grid)
        || rest.iter().any(|p| threads(&p.kernel) != threads(&first.kernel))
    {
        return None;
    }
    let mut one = Launched { kernel: first.kernel.clone(), arguments: Vec::new() };
    (one.kernel.arguments, one.kernel.body) = (Vec::new(), Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let mut kernel = part.kernel.clone();
        let mut to: BTreeMap<Ident, Ident> = BTreeMap::new();
        for (buffer, &what) in part.kernel.arguments.iter().zip(&part.arguments) {
            if buffer.space == Space::In && !is_read(&kernel.body, &buffer.name) {
                continue;
            }
            // One that other parts read by the same names is theirs, too.
            let known = one.arguments.iter().zip(&one.kernel.arguments).find(|(w, b)| **w == what && alike(b, buffer));
            if let Some((_, known)) = known {
                to.insert(buffer.name.clone(), known.name.clone());
                continue;
            }
            let taken = |n: &str| one.kernel.arguments.iter().any(|b| &*b.name == n);
            let name =
                if taken(&buffer.name) { format!("{}_{number}", buffer.name).into() } else { buffer.name.clone() };
            to.insert(buffer.name.clone(), name.clone());
            one.kernel.arguments.push(Buffer { name, ..buffer.clone() });
            one.arguments.push(what);
        }
        rename(&mut kernel, &|name| to.get(name).unwrap_or(name).clone());
        one.kernel.body.append(&mut kernel.body);
        if number > 0 {
            one.kernel.places.extend(kernel.places.into_iter().filter(|p| !first.kernel.places.contains(p)));
        }
    }
    // What they cost together is for whoever knows the region.
    one.kernel.attrs.retain(|a: &KernelAttr| !matches!(&*a.name, "flops" | "bytes"));
    Some(one)
}

fn alike(a: &Buffer, b: &Buffer) -> bool {
    (a.space, a.dtype, &a.axes, &a.attrs) == (b.space, b.dtype, &b.axes, &b.attrs)
}

/// Whether a statement at any depth names a buffer.
fn is_read(block: &[Stmt], name: &Ident) -> bool {
    block.iter().any(|s| {
        s.accesses().iter().any(|a| a.names(name))
            || s.operands().iter().any(|e| e.reads(name))
            || s.blocks().into_iter().any(|b| is_read(b, name))
    })
}
