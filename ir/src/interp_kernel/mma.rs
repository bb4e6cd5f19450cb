//! `mma`: sums of products of named axes, and packed panels as operands.

use super::exec::Machine;
use super::failed;
use super::value::{Axes, Data, Tile, joined, strides, walk};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr};

/// Panels `[nb, .., n]` (or `mb`, `m`) of an operand whose result has only `n`: position `nb * size + n`, cut to it.
fn unpack(tile: Tile, result: &Axes) -> Result<Tile, Diagnostic> {
    let mut tile = tile;
    for (block, inner) in [("nb", "n"), ("mb", "m")] {
        let find = |axes: &Axes, name: &str| axes.iter().position(|a| &*a.0 == name);
        let (Some(b), Some(n), None, Some(to)) =
            (find(&tile.axes, block), find(&tile.axes, inner), find(result, block), find(result, inner))
        else {
            continue;
        };
        let (width, size) = (tile.axes[n].1, result[to].1);
        if tile.axes[b].1.saturating_mul(width) < size {
            return Err(failed(format!("{} panels of {width} do not cover {size} positions", tile.axes[b].1)));
        }
        let mut axes = tile.axes.clone();
        axes[n].1 = size;
        axes.remove(b);
        let full = strides(&tile.axes, &tile.axes);
        let mut rest = axes.clone();
        rest.retain(|a| &*a.0 != inner);
        let out = strides(&axes, &axes);
        let inner_out = find(&axes, inner).map_or(1, |i| out[i]);
        let total: usize = axes.iter().map(|a| a.1).product();
        let mut data = Data::Float(vec![0.0; total]);
        walk(&rest, [strides(&tile.axes, &rest), strides(&axes, &rest)], |[from, to]| {
            for i in 0..size {
                let x = tile.get(from + (i / width) * full[b] + (i % width) * full[n])?;
                data.set(to + i * inner_out, x)?;
            }
            Ok(())
        })?;
        tile = Tile { axes, data };
    }
    Ok(tile)
}

impl Machine {
    /// `to = (start ? 0 : to) + sum of products`, in the order of the terms. Masked elements of operands are 0.
    pub(super) fn mma(&mut self, to: &Access, terms: &[(Access, Access)], start: bool) -> Result<(), Diagnostic> {
        let region = self.region(to)?;
        let mut total = if start {
            let n = region.places.len();
            vec![0.0; n]
        } else {
            match self.load(&region, None)?.data {
                Data::Float(v) => v,
                other => return Err(failed(format!("mma into `{to}` of {} elements", other.kind()))),
            }
        };
        for (a, b) in terms {
            let (ra, rb) = (self.region(a)?, self.region(b)?);
            let zero = Some(&Expr::Real(0.0));
            let a_tile = unpack(self.load(&ra, zero)?, &region.axes)?;
            let b_tile = unpack(self.load(&rb, zero)?, &region.axes)?;
            let all = joined([&region.axes, &a_tile.axes, &b_tile.axes])?;
            let (Data::Float(x), Data::Float(y)) = (&a_tile.data, &b_tile.data) else {
                return Err(failed(format!("mma operands `{a}` and `{b}` must be floats")));
            };
            for (name, _) in &region.axes {
                if !a_tile.axes.iter().chain(&b_tile.axes).any(|t| t.0 == *name) {
                    return Err(failed(format!("axis `{name}` of `{to}` is in no operand of the mma")));
                }
            }
            let work = all.iter().try_fold(1usize, |n, a| n.checked_mul(a.1));
            self.spend(work.ok_or_else(|| failed("an mma that is too large"))?)?;
            let outside = || Diagnostic::bug("an mma operand outside its tile");
            let operands = [strides(&region.axes, &all), strides(&a_tile.axes, &all), strides(&b_tile.axes, &all)];
            walk(&all, operands, |[c, i, j]| {
                let (x, y) = (x.get(i).ok_or_else(outside)?, y.get(j).ok_or_else(outside)?);
                *total.get_mut(c).ok_or_else(outside)? += x * y;
                Ok(())
            })?;
        }
        let tile = Tile { axes: region.axes.clone(), data: Data::Float(total) };
        self.store(&region, &tile, "mma")
    }
}
