//! Kernels of ops with a sequential loop of their own: cumsum, scatter_add, update_slice.

use super::emit::tile_of;
use super::index::{add, ceil, dim, mul, zero};
use super::write::{buffer, grid, kernel, load, point, range, repeat, store};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::kernel::{Access, Block, Buffer, Expr, IndexDim, Kernel, LoadMods, Space, Stmt, View, expr::Ident};
use tilewright_ir::op::ReduceKind;
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};

fn argument(space: Space, name: &str, ty: &Type) -> Buffer {
    let axes = ty.shape.iter().enumerate().map(|(i, d)| (format!("d{i}").into(), dim(d))).collect();
    buffer(space, name, ty.dtype, axes)
}

/// Positions `i0, i1, ..` with `at` in place of `axis`.
fn points(rank: usize, axis: usize, at: &Expr) -> Vec<IndexDim> {
    (0..rank).map(|i| point(if i == axis { at.clone() } else { Expr::name(&format!("i{i}")) })).collect()
}

/// A grid over all axes of `shape` but `axis`.
fn lines(shape: &[Dim], axis: usize, body: Block) -> Stmt {
    let size = |i: usize| (format!("i{i}").into(), dim(&shape[i]));
    grid((0..shape.len()).filter(|&i| i != axis).map(size).collect(), body)
}

/// Running sum of `in0` along `axis` into `out`; half precision runs in f32.
pub fn cumsum(name: &str, symbols: &[SymbolDecl], ty: &Type, axis: usize, places: &[Place]) -> Kernel {
    let here = points(ty.rank(), axis, &Expr::name("j"));
    let steps = running(ty, axis, here, (Vec::new(), LoadMods::default()));
    kernel(name, symbols, (whole(ty), Vec::new()), lines(&ty.shape, axis, steps), places)
}

/// The arguments of an op from a tensor to one of its type.
pub(super) fn whole(ty: &Type) -> Vec<Buffer> {
    vec![argument(Space::In, "in0", ty), argument(Space::Out, "out", ty)]
}

/// The loop of a running sum at positions `here`, which are `j` along `axis`, for a tile of `lanes` at a time.
pub(super) fn running(
    ty: &Type,
    axis: usize,
    here: Vec<IndexDim>,
    (lanes, mods): (Vec<(Ident, Expr)>, LoadMods),
) -> Block {
    let wide = ty.dtype.folded();
    let convert = |to: DType, from: DType, e: Expr| if to == from { e } else { Expr::cast(to, e) };
    let sum = Expr::scalar(ReduceKind::Sum.combine(wide), [Expr::name("s"), convert(wide, ty.dtype, Expr::name("v"))]);
    let steps = vec![
        Stmt::Load { name: "v".into(), access: Access::new("in0", here.clone()), mods },
        Stmt::Set { name: "s".into(), value: sum },
        store(Access::new("out", here), convert(ty.dtype, wide, Expr::name("s"))),
    ];
    vec![
        Stmt::Buffer(buffer(Space::Reg, "s", wide, lanes)),
        Stmt::Set { name: "s".into(), value: Expr::cast(wide, Expr::Int(0)) },
        repeat("j", dim(&ty.shape[axis]), steps),
    ]
}

/// `out = in0` with `in2` added at `in1` along `axis`, in order; one grid point owns a whole line along `axis`.
pub fn scatter_add(name: &str, symbols: &[SymbolDecl], types: [&Type; 3], axis: usize, places: &[Place]) -> Kernel {
    let [base, ids, source] = types;
    let here = points(base.rank(), axis, &Expr::name("j"));
    let there = points(base.rank(), axis, &Expr::name("at"));
    let mut checked = there.clone();
    checked[axis] = IndexDim::Checked { at: Expr::name("at") };
    let copy =
        vec![load("b", Access::new("in0", here.clone())), store(Access::new("out", here.clone()), Expr::name("b"))];
    let add = ReduceKind::Sum.combine(base.dtype);
    let scatter = vec![
        load("id", Access::new("in1", here.clone())),
        Stmt::Let { names: vec!["at".into()], value: Expr::cast(DType::I64, Expr::name("id")) },
        load("v", Access::new("in2", here)),
        load("o", Access::new("out", checked)),
        store(Access::new("out", there), Expr::scalar(add, [Expr::name("o"), Expr::name("v")])),
    ];
    let body = vec![repeat("j", dim(&base.shape[axis]), copy), repeat("j", dim(&ids.shape[axis]), scatter)];
    let arguments = vec![
        argument(Space::In, "in0", base),
        argument(Space::In, "in1", ids),
        argument(Space::In, "in2", source),
        argument(Space::InOut, "out", base),
    ];
    kernel(name, symbols, (arguments, Vec::new()), lines(&base.shape, axis, body), places)
}

/// Writes `in0` into the box of `out` at `start`. Errors: a broken invariant where the ranks differ.
pub fn update_slice(
    name: &str,
    symbols: &[SymbolDecl],
    out: &Type,
    update: &Type,
    start: &[Dim],
    places: &[Place],
) -> Result<Kernel, Diagnostic> {
    if out.rank() != update.rank() || start.len() != out.rank() {
        return Err(Diagnostic::bug("an update of another rank"));
    }
    let last = update.rank().saturating_sub(1);
    let at = |i: usize| Expr::name(&format!("d{i}"));
    let source = argument(Space::In, "in0", update);
    let mut target = argument(Space::InOut, "out", out);
    for (i, axis) in target.axes.iter_mut().enumerate() {
        axis.0 = format!("x{i}").into();
    }
    let view = View {
        name: "box".into(),
        axes: source.axes.clone(),
        buffer: "out".into(),
        dims: start.iter().enumerate().map(|(i, s)| (add(dim(s), at(i)), false)).collect(),
    };
    let mut dims: Vec<IndexDim> = (0..last).map(|i| point(Expr::name(&format!("i{i}")))).collect();
    let mut body = Vec::new();
    let mut vars: Vec<(Ident, Expr)> = (0..last).map(|i| (format!("i{i}").into(), dim(&update.shape[i]))).collect();
    let mut open = false;
    if let Some(n) = update.shape.last() {
        let (size, clipped) = tile_of(n, super::TILE);
        open = clipped;
        vars.push(("t".into(), ceil(dim(n), size)));
        let start = mul(Expr::name("t"), Expr::Int(size));
        dims.push(range(start, size, open));
    }
    let mods = LoadMods { pad: open.then_some(zero(out.dtype)), ..LoadMods::default() };
    body.push(Stmt::Load { name: "v".into(), access: Access::new("in0", dims.clone()), mods });
    body.push(store(Access::new("box", dims), Expr::name("v")));
    Ok(kernel(name, symbols, (vec![source, target], vec![view]), grid(vars, body), places))
}
