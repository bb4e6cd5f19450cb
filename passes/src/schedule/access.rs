//! Where terms read: the buffer itself, or a view over the region's axes.

use super::emit::{Bind, Emitted, Emitter};
use super::index::{add, affine, dim, mul, zero};
use super::write::point;
use crate::region::{Affine, AxisId, Index, TermId};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Access, Expr, IndexDim, LoadMods, Stmt, View, expr::Ident};

impl Emitter<'_> {
    pub(super) fn iota(&mut self, a: &Affine) -> Emitted {
        let mut sum = dim(&a.base);
        for &(axis, c) in &a.terms {
            let at = match self.bind(axis)?.clone() {
                Bind::Point(at) => at,
                Bind::Tile { start, size, .. } => {
                    Expr::Iota(self.region.axes[axis].0.clone(), Box::new(start), Box::new(Expr::Int(size)))
                }
            };
            sum = add(sum, mul(Expr::Int(c), at));
        }
        Ok(sum)
    }

    pub(super) fn load(&mut self, term: TermId, input: usize, map: &[Index], open: bool, place: usize) -> Emitted {
        let mut points = BTreeMap::new();
        for (i, index) in map.iter().enumerate() {
            if let Index::Term(t) = index {
                let at = self.operand(*t)?;
                let at = if self.by_team() { self.gathered(*t, at) } else { IndexDim::Checked { at } };
                points.insert(i, at);
            }
        }
        let access = self.access(input, map, &points, open)?;
        let name = self.fresh("v");
        let mods = LoadMods { pad: Some(zero(self.region.inputs[input].1.dtype)), ..LoadMods::default() };
        let clipped = open || access.dims.iter().flatten().any(|d| matches!(d, IndexDim::Range { open: true, .. }));
        let mods = if clipped { mods } else { LoadMods::default() };
        self.frames[place].stmts.push(Stmt::Load { name: name.clone(), access, mods });
        Ok(self.remember(term, place, Expr::Name(name)))
    }

    pub(super) fn is_tile(&self, axis: AxisId) -> bool {
        matches!(self.bind(axis), Ok(Bind::Tile { .. }))
    }

    /// The access of a load: the buffer itself where its map is plain or has only points, else a view over the region's
    /// axes.
    pub(super) fn access(
        &mut self,
        input: usize,
        map: &[Index],
        points: &BTreeMap<usize, IndexDim>,
        open: bool,
    ) -> Result<Access, Diagnostic> {
        let shape = &self.region.inputs[input].1.shape;
        let axes_of = |index: &Index| match index {
            Index::Affine(a) => a.terms.iter().map(|t| t.0).collect::<Vec<_>>(),
            Index::Term(_) => Vec::new(),
        };
        let tiled = map.iter().any(|i| axes_of(i).iter().any(|&a| self.is_tile(a)))
            || points.values().any(|d| matches!(d, IndexDim::Gather(_)));
        let gathered = |at: Option<&IndexDim>| at.cloned().unwrap_or(IndexDim::Checked { at: Expr::Int(0) });
        if !tiled && !open {
            let mut dims = Vec::new();
            for (i, index) in map.iter().enumerate() {
                dims.push(match index {
                    Index::Affine(a) => point(self.iota(a)?),
                    Index::Term(_) => gathered(points.get(&i)),
                });
            }
            return Ok(Access::new(&format!("in{input}"), dims));
        }
        let plain: Option<Vec<AxisId>> = map
            .iter()
            .zip(shape)
            .map(|(index, n)| match index {
                Index::Affine(a) => a.plain_axis().filter(|&x| self.region.axes[x].1 == *n),
                Index::Term(_) => None,
            })
            .collect();
        if let Some(axes) = plain.filter(|a| !open && (1..a.len()).all(|i| !a[..i].contains(&a[i]))) {
            let names: Vec<Ident> = axes.iter().map(|&a| self.region.axes[a].0.clone()).collect();
            let argument = &mut self.arguments[input];
            if !self.named[input] {
                for (slot, name) in argument.axes.iter_mut().zip(&names) {
                    slot.0 = name.clone();
                }
                self.named[input] = true;
            }
            if argument.axes.iter().map(|a| &a.0).eq(names.iter()) {
                let dims = axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
                return Ok(Access::new(&format!("in{input}"), dims));
            }
        }
        let mut axes: Vec<AxisId> = map.iter().flat_map(axes_of).collect();
        axes.sort_unstable();
        axes.dedup();
        let mut view_axes: Vec<(Ident, Expr)> =
            axes.iter().map(|&a| (self.region.axes[a].0.clone(), dim(&self.region.axes[a].1))).collect();
        let mut dims = axes.iter().map(|&a| self.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
        let mut exprs = Vec::new();
        for (i, index) in map.iter().enumerate() {
            match index {
                Index::Affine(a) => {
                    // A known position inside a known size needs no mask; the position 0 of an empty input does.
                    let known = a.base.as_const().zip(shape[i].as_const()).filter(|_| a.terms.is_empty());
                    let whole = a.plain_axis().is_some_and(|x| self.region.axes[x].1 == shape[i]);
                    let inside = whole || known.is_some_and(|(at, n)| (0..n).contains(&at));
                    exprs.push((affine(a, |x| Expr::Name(self.region.axes[x].0.clone())), open && !inside));
                }
                Index::Term(_) => {
                    let name: Ident = format!("g{i}").into();
                    view_axes.push((name.clone(), dim(&shape[i])));
                    dims.push(gathered(points.get(&i)));
                    exprs.push((Expr::Name(name), false));
                }
            }
        }
        let buffer: Ident = format!("in{input}").into();
        let same = |v: &View| v.buffer == buffer && v.axes == view_axes && v.dims == exprs;
        let name = match self.views.iter().find(|v| same(v)) {
            Some(v) => v.name.clone(),
            None => {
                let name: Ident = format!("w{}", self.views.len()).into();
                self.views.push(View { name: name.clone(), axes: view_axes, buffer, dims: exprs });
                name
            }
        };
        Ok(Access::new(&name, dims))
    }
}
