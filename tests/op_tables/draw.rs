//! Graph ops with random attributes and operands that type inference takes.

use super::data::{Data, values};
use crate::random::Random;
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::infer::infer;
use tilewright_ir::op::{Attr, DotDims, Family, GraphKind, GraphOp, Literal, ReduceKind, ScalarKind, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};

/// Shapes of first operands.
pub const SHAPES: &[&[i64]] = &[&[5], &[3, 4], &[2, 3, 4], &[], &[1, 37], &[0, 3], &[3, 0], &[19, 33]];

/// An op on operands of these types.
pub struct Case {
    pub op: GraphOp,
    /// What the helpers are made for.
    pub x: Type,
    pub types: Vec<Type>,
    pub bindings: Bindings,
}

fn scalar(r: &mut Random) -> ScalarOp {
    let kind = r.of(ScalarKind::ALL);
    ScalarOp::from_parts(kind, &[]).unwrap_or(ScalarOp::Cast { to: r.of(&DType::ALL[..13]) })
}

fn dims(r: &mut Random, x: &Type) -> Vec<Dim> {
    let small = |r: &mut Random| Dim::from(r.below(3));
    match r.below(7) {
        0 => x.shape.clone(),
        1 => x.elements().into_iter().collect(),
        2 => std::iter::once(small(r)).chain(x.shape.iter().cloned()).collect(),
        3 => x.shape.iter().cloned().chain([Dim::constant(1)]).collect(),
        4 => x.shape.iter().rev().cloned().collect(),
        5 => x.shape.iter().map(|d| d.checked_sub(&small(r)).unwrap()).collect(),
        _other => x.shape.iter().map(|_| small(r)).collect(),
    }
}

/// A random attribute of the named type, likely to fit an operand of type `x`.
fn attribute(r: &mut Random, ty: &str, x: &Type, dtype: DType) -> Attr {
    let rank = x.rank();
    match ty {
        "Axis" => Attr::Axis(r.below(rank.max(1) + 1)),
        "Axes" => Attr::Axes(match r.below(4) {
            0 => (0..rank).collect(),
            1 => (0..rank).rev().collect(),
            2 => (1..=rank).collect(),
            _some => (0..rank).filter(|_| r.below(2) == 0).collect(),
        }),
        "Dim" => Attr::Dim(x.shape.first().cloned().unwrap_or(3.into())),
        "Dims" => Attr::Dims(dims(r, x)),
        "Strides" => Attr::Strides((0..rank).map(|_| 1 + r.below(3) as i64).collect()),
        "DType" => Attr::DType(dtype),
        "Name" => Attr::Name(r.of(&["same", "swap", "slice"]).into()),
        "PadAmounts" => Attr::PadAmounts((0..rank).map(|_| (r.below(3).into(), r.below(4).into())).collect()),
        "ReduceKind" => Attr::ReduceKind(r.of(ReduceKind::ALL)),
        "DotDims" => {
            let contract: Vec<usize> = (0..rank).filter(|_| r.below(2) == 0).collect();
            let batch: Vec<usize> = (0..rank).filter(|i| !contract.contains(i) && r.below(2) == 0).collect();
            let other = |v: &[usize], r: &mut Random| {
                if r.below(2) == 0 { v.to_vec() } else { v.iter().map(|i| rank - 1 - i).collect() }
            };
            let (c, b) = (other(&contract, r), other(&batch, r));
            Attr::DotDims(DotDims { batch: (batch, b), contract: (contract, c) })
        }
        "Literal" => {
            let shape: Vec<usize> = (0..r.below(3)).map(|_| r.below(7)).collect();
            Attr::Literal(Literal(values(r, dtype, &shape, Data::Wild)))
        }
        "ScalarOp" => Attr::ScalarOp(scalar(r)),
        other => panic!("attributes of type {other} are not drawn yet"),
    }
}

/// The type of a further operand.
fn operand(r: &mut Random, x: &Type) -> Type {
    let integer = [DType::I64, DType::I32, DType::U8, DType::I8, DType::U32];
    let changed = |r: &mut Random, ty: &Type| {
        let mut ty = ty.clone();
        let at = r.below(ty.rank().max(1));
        if let Some(d) = ty.shape.get_mut(at) {
            *d = Dim::from(r.below(3) + 1);
        }
        ty
    };
    match r.below(9) {
        0..=2 => x.clone(),
        3 => Type::scalar(x.dtype),
        4 => changed(r, x),
        5 => Type { dtype: r.of(&integer), shape: x.shape.clone() },
        6 => {
            let ty = changed(r, x);
            Type { dtype: r.of(&integer), ..ty }
        }
        7 => Type::scalar(DType::Bool),
        _reversed => Type { dtype: x.dtype, shape: x.shape.iter().rev().cloned().collect() },
    }
}

/// Functions to call, whose operands are like `x`.
pub fn helpers(x: &Type) -> Module {
    let mut module = Module::default();
    let slice = Type { dtype: x.dtype, shape: x.shape.iter().skip(1).cloned().collect() };
    for (name, types) in [("same", vec![x]), ("swap", vec![x, x]), ("slice", vec![x, &slice])] {
        let named =
            |(i, ty): (usize, &&Type)| Param { name: format!("x{i}").into(), ty: (*ty).clone(), role: Role::Input };
        let mut f =
            Function::new(name, vec![SymbolDecl::new("n", 0, 4096)], types.iter().enumerate().map(named).collect());
        let args: Vec<Value> = (0..types.len()).map(|i| f.param(i)).collect();
        let first = super::itself(&module, &mut f, args[0]);
        f.results = match name {
            "swap" => vec![args[1], first],
            _first => std::iter::once(first).chain(args[1..].iter().copied()).collect(),
        };
        module.functions.insert(name.into(), f);
    }
    module
}

/// A case of this kind whose first operand has this dtype and shape, if one is found; `symbolic`: its first size is `n`.
pub fn case(r: &mut Random, kind: GraphKind, dtype: DType, shape: &[Dim], symbolic: bool) -> Option<Case> {
    let mut shape = shape.to_vec();
    let mut bindings = Bindings::new();
    if let (true, Some(first)) = (symbolic, shape.first_mut()) {
        bindings.insert("n".into(), first.as_const().unwrap());
        *first = Dim::symbol("n");
    } else {
        bindings.insert("n".into(), 5);
    }
    let x = Type { dtype, shape };
    let module = helpers(&x);
    for _ in 0..400 {
        let attrs: Vec<Attr> = kind.info().attrs.iter().map(|(_, ty)| attribute(r, ty, &x, dtype)).collect();
        let op = GraphOp::from_parts(kind, &attrs)?;
        let info = if let GraphOp::Map { op } = &op { op.info() } else { op.info() };
        let least = (0..5).find(|n| info.arity.accepts(*n))?;
        let count = (least + r.below(3)).min(if info.arity.accepts(least + 1) { least + 2 } else { least });
        let first =
            if r.below(4) == 0 && info.family == Family::Control { Type::scalar(DType::Bool) } else { x.clone() };
        let mut types = vec![first; count.min(1)];
        while types.len() < count {
            types.push(operand(r, &x));
        }
        let fits = infer(&module, &op, &types.iter().collect::<Vec<_>>()).is_ok_and(|results| {
            results.iter().all(|t| t.concrete(&bindings).is_ok_and(|s| s.iter().product::<usize>() < 1 << 16))
        });
        if fits {
            return Some(Case { op, x, types, bindings });
        }
    }
    None
}
