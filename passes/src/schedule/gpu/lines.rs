//! Running sums: a thread walks along the axis, neighbouring threads on neighbouring lines.

use super::super::emit::tile_of;
use super::super::index::{ceil, dim, mul, zero};
use super::super::special::{running, whole};
use super::super::write::{grid, kernel, point, range};
use tilewright_ir::diag::Place;
use tilewright_ir::kernel::{Expr, Kernel, LoadMods, expr::Ident};
use tilewright_ir::types::{SymbolDecl, Type};

const THREADS: i64 = 64;

/// Running sum of `in0` along `axis` into `out`; half precision runs in f32.
pub fn cumsum(name: &str, symbols: &[SymbolDecl], ty: &Type, axis: usize, places: &[Place]) -> Kernel {
    let across = (0..ty.rank()).rev().find(|&i| i != axis);
    let (mut vars, mut dims, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, n) in ty.shape.iter().enumerate() {
        dims.push(if i == axis {
            point(Expr::name("j"))
        } else if Some(i) == across {
            let (size, open) = tile_of(n, THREADS);
            vars.push(("t".into(), ceil(dim(n), size)));
            lanes.push((format!("d{i}").into(), Expr::Int(size)));
            range(mul(Expr::name("t"), Expr::Int(size)), size, open)
        } else {
            let var: Ident = format!("i{i}").into();
            vars.push((var.clone(), dim(n)));
            point(Expr::Name(var))
        });
    }
    let mods = LoadMods { pad: Some(zero(ty.dtype)), ..LoadMods::default() };
    let body = running(ty, axis, dims, (lanes, mods));
    kernel(name, symbols, (whole(ty), Vec::new()), grid(vars, body), places)
}
