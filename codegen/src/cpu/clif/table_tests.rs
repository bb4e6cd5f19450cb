//! Every scalar op at every dtype against the reference interpreter.

use super::compile;
use crate::cpu::ukernel::Isa;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::kernel::text::parse_kernel;
use tilewright_ir::kernel::{Expr, Stmt};
use tilewright_ir::op::{Attr, GraphOp, ScalarKind, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Type};

const N: usize = 8;

/// Test values of a dtype as bytes.
fn values(dtype: DType, second: bool) -> Vec<u8> {
    let reals = [[0.5, -1.5, 2.0, -0.0, 3.25, -7.0, 100.0, f64::NAN], [2.0, 3.0, -1.5, 1.0, 0.5, 3.0, 0.0, 2.0]];
    let ints = [[7i64, -7, i64::MIN, 5, 0, 100, -1, 1], [2, 2, -1, 0, 3, 33, -3, 1]];
    let mut bytes = Vec::new();
    for at in 0..N {
        let (real, int) = (reals[usize::from(second)][at], ints[usize::from(second)][at]);
        match dtype {
            DType::F64 => bytes.extend(real.to_le_bytes()),
            DType::F32 => bytes.extend((real as f32).to_le_bytes()),
            DType::F16 => bytes.extend(half::f16::from_f64(real).to_le_bytes()),
            DType::Bf16 => bytes.extend(half::bf16::from_f64(real).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(int % 2 == 0)),
            _ => {
                let size = dtype.block().1;
                let int = if int == i64::MIN && dtype.is_signed() { int >> (64 - 8 * size) } else { int };
                bytes.extend(&int.to_le_bytes()[..size]);
            }
        }
    }
    bytes
}

/// The op's result by the interpreter; none where the dtype has no such op.
fn reference(op: &ScalarOp, dtypes: &[DType], args: &[Vec<u8>]) -> Option<Array> {
    let mut module = Module::default();
    let params = dtypes
        .iter()
        .enumerate()
        .map(|(i, d)| Param { name: format!("x{i}").into(), ty: Type::new(*d, [N as i64]), role: Role::Input })
        .collect();
    let mut f = Function::new("main", Vec::new(), params);
    let operands: Vec<Value> = (0..dtypes.len()).map(|i| f.param(i)).collect();
    let node = f.push(&module, GraphOp::Map { op: op.clone() }, &operands, None, &"".into()).ok()?;
    f.results = vec![Value { node, index: 0 }];
    module.functions.insert("main".into(), f);
    let arrays: Vec<Array> =
        dtypes.iter().zip(args).map(|(d, b)| Array::new(*d, &[N], Bytes::new(b.clone())).unwrap()).collect();
    run(&module, "main", &arrays, &Bindings::new(), Mode::Strict).ok()?.pop()
}

fn found(op: &ScalarOp, dtypes: &[DType], args: &mut [Vec<u8>], result: DType) -> Array {
    let inputs: Vec<String> = dtypes.iter().enumerate().map(|(i, d)| format!("in x{i}: {d}[e=8]")).collect();
    let loads: Vec<String> = (0..dtypes.len()).map(|i| format!("let v{i} = load x{i}[:]")).collect();
    let text = format!(
        "kernel one target cpu {{ {}; out y: {result}[e=8]; par z in 1 at grid {{ {}; store y[:] = v0 }} }}",
        inputs.join("; "),
        loads.join("; ")
    );
    let mut kernel = parse_kernel("test", &text).unwrap_or_else(|error| panic!("{error}"));
    let Some(Stmt::Par { body, .. }) = kernel.body.last_mut() else { panic!("{text}") };
    let Some(Stmt::Store { value, .. }) = body.last_mut() else { panic!("{text}") };
    *value = Expr::Scalar(op.clone(), (0..dtypes.len()).map(|i| Expr::name(&format!("v{i}"))).collect());
    let (_module, compiled) = compile(&[&kernel], Isa::best()).unwrap_or_else(|error| panic!("{op:?} {error}"));
    let mut out = vec![0u8; N * result.block().1];
    let mut pointers: Vec<*mut u8> = args.iter_mut().map(|arg| arg.as_mut_ptr()).collect();
    pointers.push(out.as_mut_ptr());
    let mut scratch = vec![0u8; compiled[0].scratch_bytes + 64];
    let offset = scratch.as_ptr().align_offset(64);
    // Safety: buffers have the declared sizes.
    unsafe { compiled[0].call(&pointers, &[], scratch.as_mut_ptr().add(offset), 0, 1) }.unwrap();
    Array::new(result, &[N], Bytes::new(out)).unwrap()
}

#[test]
fn every_scalar_op_at_every_dtype() {
    let plain: Vec<DType> = DType::ALL.iter().copied().filter(|d| !d.is_block()).collect();
    let (mut checked, mut wrong) = (0, Vec::new());
    for kind in ScalarKind::ALL {
        for dtype in &plain {
            for target in if *kind == ScalarKind::Cast { plain.as_slice() } else { &plain[..1] } {
                let attrs = if *kind == ScalarKind::Cast { vec![Attr::DType(*target)] } else { Vec::new() };
                let op = ScalarOp::from_parts(*kind, &attrs).unwrap();
                let count = (1..=3).find(|n| kind.info().arity.accepts(*n)).unwrap();
                let mut dtypes = vec![*dtype; count];
                if *kind == ScalarKind::Select {
                    dtypes[0] = DType::Bool;
                }
                let mut args: Vec<Vec<u8>> =
                    dtypes.iter().enumerate().map(|(at, d)| values(*d, at + 1 == count && count > 1)).collect();
                let Some(expected) = reference(&op, &dtypes, &args) else { continue };
                let got = found(&op, &dtypes, &mut args, expected.dtype());
                checked += 1;
                let tolerance = match expected.dtype() {
                    DType::F64 => 1e-12,
                    DType::F32 => 1e-6,
                    DType::F16 => 2e-3,
                    DType::Bf16 => 1.6e-2,
                    _ => 0.0,
                };
                let (x, y) = (got.to_f64().unwrap(), expected.to_f64().unwrap());
                let same = |x: f64, y: f64| {
                    x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * y.abs().max(1e-30)
                };
                if !x.iter().zip(&y).all(|(x, y)| same(*x, *y)) {
                    wrong.push(format!("{op:?} of {dtype}: found {x:?}, expected {y:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 300, "{checked}");
}
