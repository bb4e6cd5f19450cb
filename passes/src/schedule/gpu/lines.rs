//! Running sums: a thread walks along the axis, neighbouring threads on neighbouring lines.

use super::super::emit::tile_of;
use super::super::index::{ceil, dim, mul};
use tilewright_ir::diag::Place;
use tilewright_ir::kernel::{Access, Buffer, Expr, IndexDim, Kernel, Level, LoadMods, Space, Stmt, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{DType, SymbolDecl, Type};

const THREADS: i64 = 64;

/// Running sum of `in0` along `axis` into `out`; half precision runs in f32.
pub fn cumsum(name: &str, symbols: &[SymbolDecl], ty: &Type, axis: usize, places: &[Place]) -> Kernel {
    let wide = if matches!(ty.dtype, DType::F16 | DType::Bf16) { DType::F32 } else { ty.dtype };
    let convert = |to: DType, from: DType, e: Expr| if to == from { e } else { Expr::cast(to, e) };
    let axis_name = |i: usize| -> Ident { format!("d{i}").into() };
    let across = (0..ty.rank()).rev().find(|&i| i != axis);
    let (mut vars, mut dims, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, n) in ty.shape.iter().enumerate() {
        dims.push(if i == axis {
            IndexDim::Point { at: Expr::name("j"), open: false }
        } else if Some(i) == across {
            let (size, open) = tile_of(n, THREADS);
            vars.push(("t".into(), ceil(dim(n), size)));
            lanes.push((axis_name(i), Expr::Int(size)));
            IndexDim::Range { start: mul(Expr::name("t"), Expr::Int(size)), size: Expr::Int(size), open, upto: None }
        } else {
            let var: Ident = format!("i{i}").into();
            vars.push((var.clone(), dim(n)));
            IndexDim::Point { at: Expr::Name(var), open: false }
        });
    }
    if vars.is_empty() {
        vars.push(("z".into(), Expr::Int(1)));
    }
    let argument = |space, name: &str| Buffer {
        space,
        name: name.into(),
        dtype: ty.dtype,
        axes: ty.shape.iter().enumerate().map(|(i, n)| (axis_name(i), dim(n))).collect(),
        attrs: Vec::new(),
    };
    let sum = Expr::scalar(ScalarOp::Add {}, [Expr::name("s"), convert(wide, ty.dtype, Expr::name("v"))]);
    let mods = LoadMods { pad: Some(Expr::Int(0)), ..LoadMods::default() };
    let steps = vec![
        Stmt::Load { name: "v".into(), access: Access::new("in0", dims.clone()), mods },
        Stmt::Set { name: "s".into(), value: sum },
        Stmt::Store {
            access: Access::new("out", dims),
            mods: LoadMods::default(),
            value: convert(ty.dtype, wide, Expr::name("s")),
            add: false,
        },
    ];
    let high = dim(&ty.shape[axis]);
    let body = vec![
        Stmt::Buffer(Buffer { space: Space::Reg, name: "s".into(), dtype: wide, axes: lanes, attrs: Vec::new() }),
        Stmt::Set { name: "s".into(), value: Expr::cast(wide, Expr::Int(0)) },
        Stmt::For { var: "j".into(), low: Expr::Int(0), high, step: None, unroll: false, body: steps },
    ];
    Kernel {
        name: name.into(),
        target: "cpu".into(),
        attrs: vec![],
        constants: Vec::new(),
        symbols: symbols.to_vec(),
        arguments: vec![argument(Space::In, "in0"), argument(Space::Out, "out")],
        views: Vec::new(),
        body: vec![Stmt::Par { vars, level: Level::Grid, body }],
        places: places.to_vec(),
    }
}
