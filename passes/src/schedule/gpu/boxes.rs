//! Pointwise kernels: the grid covers the flattened output by boxes of its innermost axes.

use super::super::emit::Bind;
use super::super::index::{ceil, dim, mul};
use super::{Built, EACH, MOST_THREADS, team, threads_for};
use crate::region::{AxisId, Region};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Expr;

/// The box: axes from the innermost outward until it has enough elements, each with its size and whether the last box
/// passes the end.
fn sides(region: &Region) -> Vec<(AxisId, i64, bool)> {
    let mut room = MOST_THREADS * EACH;
    let mut found = Vec::new();
    for axis in (0..region.rank).rev() {
        let (size, open) = match region.axes[axis].1.as_const() {
            Some(1) => continue,
            // Boxes of nearly the same size.
            Some(n) => {
                let n = n.max(1);
                let boxes = (n + room - 1) / room;
                let size = (n + boxes - 1) / boxes;
                (size, n % size != 0)
            }
            None => (room, true),
        };
        if size > 1 {
            found.push((axis, size, open));
            room /= size;
        }
        if room < 2 || size == 1 {
            break;
        }
    }
    found
}

/// Folds that depend on the box run in every thread for its own elements.
pub(super) fn kernel(region: &Region) -> Result<Built<'_>, Diagnostic> {
    let sides = sides(region);
    let tiled: Vec<AxisId> = sides.iter().map(|s| s.0).collect();
    let (mut emitter, mut frame, mut vars) = team(region, &tiled);
    for &(axis, size, open) in sides.iter().rev() {
        let n = dim(&region.axes[axis].1);
        let start = if n == Expr::Int(size) {
            Expr::Int(0)
        } else {
            let var = format!("t{axis}");
            vars.push((var.as_str().into(), ceil(n, size)));
            mul(Expr::name(&var), Expr::Int(size))
        };
        frame.binds.insert(axis, Bind::Tile { start, size, open });
    }
    let threads = threads_for(sides.iter().map(|s| s.1).product(), MOST_THREADS);
    emitter.strip = threads * EACH;
    emitter.frames.push(frame);
    emitter.store_outputs()?;
    Ok(Built { emitter, vars, threads })
}
