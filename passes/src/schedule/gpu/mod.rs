//! Regions to kernels for the blocks of a GPU: a team of threads computes tiles that lie in its registers.
//!
//! The emitter is the one of the CPU's templates; a template here only says how axes are bound. A block reads along the
//! innermost axis, so that neighbouring threads read neighbouring elements.

mod beside;
mod boxes;
mod flash;
mod lines;
mod matmul;
mod rows;
mod split;
mod tensor;
mod tiles;

pub use beside::{Launched, kernels};
pub(crate) use flash::{LEAST_ROWS, MOST_WIDE, ROWS};
pub use lines::cumsum;
pub(crate) use rows::LONGEST_ROW;
use split::parts;

use super::cost::{cost, with_cost};
use super::emit::{Bind, Emitter, Frame};
use super::index::dim;
use crate::region::{AxisId, Index, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Expr, IndexDim, Kernel, KernelAttr, Stmt, expr::Ident};
use tilewright_ir::types::{Dim, SymbolDecl};

/// Elements that a thread holds of a tile of a pointwise kernel or of a strip.
const EACH: i64 = 4;
/// Most threads of a block, where a row does not need more.
const MOST_THREADS: i64 = 256;

/// The kernel of a region for target `sm_*`, all of whose outputs have all its axes (see [`parts`]); its arguments are the region's inputs in order, then its outputs.
///
/// Errors: broken invariants.
fn region_kernel(region: &Region, name: &str, symbols: &[SymbolDecl], target: &str) -> Result<Kernel, Diagnostic> {
    let (row, flash) = (rows::unified(region), flash::find(region));
    let built = if let Some(products) = matmul::products(region) {
        matmul::kernel(region, &products)?
    } else if let Some(flash) = &flash {
        flash::kernel(flash)?
    } else if let Some(row) = &row {
        rows::in_registers(row)?
    } else {
        match super::Schedule::choose(region) {
            super::Schedule::Point => rows::point(region)?,
            super::Schedule::Row { .. } if rows::are_apart(region) => rows::of_folds(region)?,
            super::Schedule::Row { .. } => rows::in_strips(region)?,
            _any if super::wide_online(region) => rows::of_folds(region)?,
            super::Schedule::Pointwise { .. } | super::Schedule::Scalar => boxes::kernel(region)?,
        }
    };
    let Built { mut emitter, vars, threads } = built;
    let body = emitter.pop()?.stmts;
    let attrs = vec![KernelAttr { name: "threads".into(), args: vec![Expr::Int(threads)] }];
    let mut kernel = Kernel { target: target.into(), attrs, ..emitter.kernel(name, symbols, vars, body) };
    with_cost(std::slice::from_mut(&mut kernel), cost(region).as_ref());
    Ok(kernel)
}

/// A kernel that was made for one thread, for a block: a team runs it as one, one element at a time where it has no tiles.
pub fn for_team(mut kernel: Kernel, target: &str) -> Kernel {
    if &*kernel.target == "cpu" {
        kernel.target = target.into();
        kernel.attrs.push(KernelAttr { name: "threads".into(), args: vec![Expr::Int(64)] });
    }
    kernel
}

/// A template's work: the emitter with the body in its only frame.
struct Built<'r> {
    emitter: Emitter<'r>,
    vars: Vec<(Ident, Expr)>,
    threads: i64,
}

/// Threads for tiles of so many elements.
fn threads_for(elements: i64, most: i64) -> i64 {
    let wanted = (elements / EACH).clamp(32, most);
    // A power of two, so that the warps' results are few and tiles of powers of two have no partial slot.
    1 << (63 - wanted.leading_zeros() as i64)
}

/// An emitter for teams, and a frame where all axes but `tiled` are points of the grid.
fn team<'r>(region: &'r Region, tiled: &[AxisId]) -> (Emitter<'r>, Frame, Vec<(Ident, Expr)>) {
    let mut emitter = Emitter::new(region);
    emitter.inlined = inlined(region);
    let mut frame = Frame::default();
    let mut vars = Vec::new();
    for axis in (0..region.rank).filter(|a| !tiled.contains(a)) {
        let at = if region.axes[axis].1.is(1) {
            Expr::Int(0)
        } else {
            let var: Ident = format!("i{axis}").into();
            vars.push((var.clone(), dim(&region.axes[axis].1)));
            Expr::Name(var)
        };
        frame.binds.insert(axis, Bind::Point(at));
    }
    (emitter, frame, vars)
}

/// Scalar ops with one user over the same axes: they become part of its expression, so that a kernel has no more register
/// tiles than it needs.
fn inlined(region: &Region) -> Vec<bool> {
    let mut users: BTreeMap<TermId, Vec<TermId>> = BTreeMap::new();
    let mut kept: Vec<bool> = vec![false; region.terms.len()];
    for (id, (term, _)) in region.terms.iter().enumerate() {
        match term {
            Term::Map(_, args) => args.iter().for_each(|&a| users.entry(a).or_default().push(id)),
            Term::Fold { arg, .. } => users.entry(*arg).or_default().push(id),
            // Indices are named.
            Term::Load { map, .. } => map.iter().for_each(|i| {
                if let Index::Term(t) = i {
                    kept[*t] = true;
                }
            }),
            Term::ArgFold { arg, .. } | Term::Moment { arg, .. } => kept[*arg] = true,
            Term::Online { key, weight, mask, .. } => {
                [Some(*key), Some(*weight), *mask].into_iter().flatten().for_each(|t| kept[t] = true);
            }
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Product => {}
        }
    }
    for output in &region.outputs {
        kept[output.root] |= users.contains_key(&output.root);
    }
    let one = |id: TermId| match users.get(&id).map(Vec::as_slice) {
        None => region.outputs.iter().filter(|o| o.root == id).count() == 1,
        Some([user]) => match &region.terms[*user].0 {
            Term::Fold { axis, .. } => region.free[id].contains(axis),
            _other => region.free[*user] == region.free[id],
        },
        Some(_) => false,
    };
    let scalar = |id: TermId| matches!(region.terms[id].0, Term::Map(..));
    (0..region.terms.len()).map(|id| scalar(id) && !kept[id] && one(id)).collect()
}

impl Emitter<'_> {
    /// The dim of a gather at the value of `term`: a tile of indices is named.
    pub(super) fn gathered(&mut self, term: TermId, at: Expr) -> IndexDim {
        if !self.region.free[term].iter().any(|&a| self.is_tile(a)) {
            return IndexDim::Checked { at };
        }
        if let Expr::Name(name) = at {
            return IndexDim::Gather(name);
        }
        let (name, place) = (self.fresh("g"), self.place(term));
        self.frames[place].stmts.push(Stmt::Let { names: vec![name.clone()], value: at });
        IndexDim::Gather(name)
    }
}

/// The largest of the constant sizes of folded axes; `None` where one is not constant.
fn longest_fold(region: &Region) -> Option<i64> {
    region.axes[region.rank..].iter().map(|(_, n): &(Ident, Dim)| n.as_const()).try_fold(0, |m, n| Some(m.max(n?)))
}
