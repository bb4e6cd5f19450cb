//! Tests of the interpreter against plain arithmetic and against the `half` crate.

#![allow(clippy::cloned_ref_to_slice_refs)]

use super::value::round;
use super::{Mode, run};
use crate::array::{Array, Bytes};
use crate::diag::Diagnostic;
use crate::graph::{Function, Module, Param, Role, Value};
use crate::infer::require::requirements;
use crate::op::{DotDims, GraphOp, ReduceKind, ScalarOp};
use crate::types::{Bindings, DType, Dim, SymbolDecl, Type};
use half::{bf16, f16};

fn params(types: &[Type]) -> Vec<Param> {
    let name = |i: usize| format!("x{i}").as_str().into();
    types.iter().enumerate().map(|(i, ty)| Param { name: name(i), ty: ty.clone(), role: Role::Input }).collect()
}

/// A function of one op on its parameters, all its results returned.
fn single(module: &mut Module, name: &str, symbols: Vec<SymbolDecl>, types: &[Type], op: GraphOp) {
    let mut f = Function::new(name, symbols, params(types));
    let args: Vec<Value> = (0..types.len()).map(|i| f.param(i)).collect();
    let node = f.push(module, op, &args, None, &"".into()).unwrap();
    f.results = (0..f.nodes[node.index()].types.len() as u32).map(|index| Value { node, index }).collect();
    module.functions.insert(f.name.clone(), f);
}

fn apply(mode: Mode, op: GraphOp, args: &[Array]) -> Result<Vec<Array>, Diagnostic> {
    let mut module = Module::default();
    let types: Vec<Type> = args.iter().map(|a| Type::new(a.dtype(), a.shape().iter().copied())).collect();
    single(&mut module, "main", Vec::new(), &types, op);
    run(&module, "main", args, &Bindings::new(), mode)
}

fn one(op: GraphOp, args: &[Array]) -> Vec<f64> {
    apply(Mode::Meaning, op, args).unwrap()[0].to_f64().unwrap()
}

fn map(op: ScalarOp, args: &[Array]) -> Vec<f64> {
    one(GraphOp::Map { op }, args)
}

fn bytes(dtype: DType, values: &[u8]) -> Array {
    Array::new(dtype, &[values.len()], Bytes::new(values.to_vec())).unwrap()
}

fn i8s(values: &[i8]) -> Array {
    bytes(DType::I8, &values.iter().map(|&x| x as u8).collect::<Vec<u8>>())
}

fn floats(values: &[f64]) -> Array {
    Array::from_f64(&[values.len()], values).unwrap()
}

#[test]
fn integers_wrap_and_division_by_zero_is_zero() {
    let (x, y) = (i8s(&[127, -128, 7, -7, -128]), i8s(&[1, -1, 0, 2, -128]));
    let on = |op| map(op, &[x.clone(), y.clone()]);
    assert_eq!(on(ScalarOp::Add {}), [-128.0, 127.0, 7.0, -5.0, 0.0]);
    assert_eq!(on(ScalarOp::Mul {}), [127.0, -128.0, 0.0, -14.0, 0.0]);
    assert_eq!(on(ScalarOp::Div {}), [127.0, -128.0, 0.0, -3.0, 1.0]);
    assert_eq!(on(ScalarOp::Rem {}), [0.0, 0.0, 0.0, -1.0, 0.0]);
    assert_eq!(on(ScalarOp::Pow {}), [127.0, 0.0, 1.0, 49.0, 0.0]);
    assert_eq!(map(ScalarOp::Neg {}, &[i8s(&[-128, 5])]), [-128.0, -5.0]);
    assert_eq!(
        map(ScalarOp::Pow {}, &[i8s(&[-1, -1, 1, 0, 2]), i8s(&[-3, -2, -9, -1, 7])]),
        [-1.0, 1.0, 1.0, 0.0, -128.0]
    );
}

#[test]
fn shifts_outside_the_width_fill() {
    let (x, y) = (i8s(&[1, -1, -1, 64, 1]), i8s(&[7, 8, -1, 1, 8]));
    assert_eq!(map(ScalarOp::Shl {}, &[x.clone(), y.clone()]), [-128.0, 0.0, 0.0, -128.0, 0.0]);
    assert_eq!(map(ScalarOp::Shr {}, &[x, y]), [0.0, -1.0, -1.0, 32.0, 0.0]);
    let (x, y) = (bytes(DType::U8, &[255, 255]), bytes(DType::U8, &[4, 9]));
    assert_eq!(map(ScalarOp::Shr {}, &[x.clone(), y]), [15.0, 0.0]);
    assert_eq!(map(ScalarOp::Not {}, &[x]), [0.0, 0.0]);
}

#[test]
fn casts_saturate_floats_and_wrap_integers() {
    let x = floats(&[300.9, -129.9, f64::NAN, -1.9, f64::INFINITY]);
    assert_eq!(map(ScalarOp::Cast { to: DType::I8 }, &[x.clone()]), [127.0, -128.0, 0.0, -1.0, 127.0]);
    assert_eq!(map(ScalarOp::Cast { to: DType::U8 }, &[x.clone()]), [255.0, 0.0, 0.0, 0.0, 255.0]);
    assert_eq!(map(ScalarOp::Cast { to: DType::Bool }, &[x]), [1.0; 5]);
    let wide = Array::from_i64(&[3], &[300, -1, i64::MIN]).unwrap();
    assert_eq!(map(ScalarOp::Cast { to: DType::U8 }, &[wide.clone()]), [44.0, 255.0, 0.0]);
    assert_eq!(map(ScalarOp::Cast { to: DType::U64 }, &[wide]), [300.0, u64::MAX as f64, 2f64.powi(63)]);
    // 2^24 + 1 + a bit far below: rounding by way of f64 would fall on the half-way case and go down.
    let near = Array::from_i64(&[1], &[(1 << 54) + (1 << 30) + 1]).unwrap();
    let up = map(ScalarOp::Cast { to: DType::F32 }, &[near]);
    assert_eq!(up, [2f64.powi(54) + 2f64.powi(31)]);
}

#[test]
fn halves_round_as_the_half_crate_and_once() {
    // Every f16 and bf16, the points half way to the next one, and those a hair beside: from f32 the crate is right.
    for bits in 0..=u16::MAX {
        let (a, b) = (f64::from(f16::from_bits(bits)), f64::from(bf16::from_bits(bits)));
        for (dtype, x, next) in [
            (DType::F16, a, f64::from(f16::from_bits(bits.wrapping_add(1)))),
            (DType::Bf16, b, f64::from(bf16::from_bits(bits.wrapping_add(1)))),
        ] {
            if !x.is_finite() || !next.is_finite() {
                continue;
            }
            assert_eq!(round(dtype, x).to_bits(), x.to_bits(), "{dtype} {x}");
            let middle = f64::midpoint(x, next);
            let even = if bits % 2 == 0 { x } else { next };
            if bits & 0x7fff == 0x7fff || (x < 0.0) != (next < 0.0) {
                continue;
            }
            assert_eq!(round(dtype, middle), even, "{dtype} {middle}");
            let above = f64::from_bits(middle.to_bits() + 1);
            assert_eq!(round(dtype, above), next, "{dtype} {above}");
        }
    }
    assert_eq!((round(DType::F16, 65519.9), round(DType::F16, 65520.0)), (65504.0, f64::INFINITY));
}

#[test]
fn nan_wins_and_empty_folds_give_the_identity() {
    let x = Array::from_f64(&[2, 2], &[1.0, f64::NAN, -3.0, 2.0]).unwrap();
    let reduce = |kind, axes: &[usize], x: &Array| one(GraphOp::Reduce { kind, axes: axes.to_vec() }, &[x.clone()]);
    let found = reduce(ReduceKind::Max, &[1], &x);
    assert!(found[0].is_nan() && found[1] == 2.0);
    assert!(reduce(ReduceKind::Min, &[0, 1], &x)[0].is_nan());
    assert_eq!(one(GraphOp::Argmax { axis: 1 }, &[x.clone()]), [1.0, 1.0]);
    assert_eq!(one(GraphOp::Argmin { axis: 1 }, &[x]), [1.0, 0.0]);
    let empty = Array::from_f64(&[0, 2], &[]).unwrap();
    let all = ReduceKind::ALL.iter().map(|&k| reduce(k, &[0], &empty)[1]).collect::<Vec<f64>>();
    assert_eq!(all, [0.0, f64::NEG_INFINITY, f64::INFINITY, 1.0]);
    let none = Array::from_i64(&[0], &[]).unwrap();
    assert_eq!(reduce(ReduceKind::Max, &[0], &none), [i64::MIN as f64]);
    // The verifier refuses an axis that is known to be empty; one that turns out to be is found here.
    let mut module = Module::default();
    let (n, ty) = (SymbolDecl::new("n", 0, 4), Type::new(DType::I64, [Dim::symbol("n")]));
    single(&mut module, "main", vec![n], &[ty], GraphOp::Argmax { axis: 0 });
    let error = run(&module, "main", &[none], &Bindings::new(), Mode::Meaning).unwrap_err();
    assert_eq!(error.code, "empty-axis");
    let found = requirements(&module.functions["main"]).unwrap();
    assert_eq!(found.iter().map(|r| r.size.to_string()).collect::<Vec<_>>(), ["n - 1"]);
}

#[test]
fn modes_round_where_they_say() {
    // 1 + 2^-24 is lost in f32, and kept in the meaning.
    let x = Array::from_f32(&[3], &[1.0, 2f32.powi(-24), 2f32.powi(-24)]).unwrap();
    let sum = GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![0] };
    let on = |mode| apply(mode, sum.clone(), &[x.clone()]).unwrap()[0].to_f64().unwrap()[0];
    assert_eq!((on(Mode::Strict), on(Mode::Meaning)), (1.0, 1.0 + 2f64.powi(-23)));
}

/// A sum of 1024 ones in bf16 would stop at 256 if every addition were rounded to bf16.
#[test]
fn halves_are_folded_in_f32_and_rounded_once() {
    let ones = Array::new(DType::Bf16, &[1024], Bytes::new(half::bf16::ONE.to_le_bytes().repeat(1024))).unwrap();
    let sum = GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![0] };
    let product = GraphOp::Dot { dims: DotDims { contract: (vec![0], vec![0]), ..DotDims::default() } };
    for (op, args) in [(sum, vec![ones.clone()]), (product, vec![ones.clone(), ones.clone()])] {
        let out = apply(Mode::Strict, op, &args).unwrap();
        assert_eq!(out[0].to_f64().unwrap(), [1024.0]);
    }
    let running = apply(Mode::Strict, GraphOp::Cumsum { axis: 0 }, &[ones]).unwrap()[0].to_f64().unwrap();
    // Each is 1 to 1024, rounded to 8 bits.
    assert_eq!((running[256], running[257], running[1023]), (256.0, 258.0, 1024.0));
}

#[test]
fn dot_is_the_sum_of_products_whatever_the_tiles() {
    let (m, k, n) = (3, 270, 515);
    let value = |i: usize| ((i * 7919) % 37) as f64 - 18.0;
    let x: Vec<f64> = (0..2 * m * k).map(value).collect();
    let y: Vec<f64> = (0..2 * n * k).map(|i| value(i + 11)).collect();
    // x [k, b, m], y [b, n, k]: both operands must be reordered.
    let dims = DotDims { batch: (vec![1], vec![0]), contract: (vec![0], vec![2]) };
    let args = [Array::from_f64(&[k, 2, m], &x).unwrap(), Array::from_f64(&[2, n, k], &y).unwrap()];
    let out = apply(Mode::Meaning, GraphOp::Dot { dims }, &args).unwrap();
    assert_eq!(out[0].shape(), [2, m, n]);
    let mut expected = Vec::new();
    for b in 0..2 {
        for i in 0..m {
            for j in 0..n {
                expected.push((0..k).map(|q| x[(q * 2 + b) * m + i] * y[(b * n + j) * k + q]).sum::<f64>());
            }
        }
    }
    // Small integers: every order gives the same sum.
    assert_eq!(out[0].to_f64().unwrap(), expected);
}

#[test]
fn few_rows_give_the_bits_of_many() {
    // The same row five times takes the tiles, once the columns where they are.
    let (k, n) = (131, 7);
    let value = |i: usize| (i as f64 * 0.37).sin();
    let row: Vec<f64> = (0..k).map(value).collect();
    let y = Array::from_f64(&[n, k], &(0..n * k).map(|i| value(i + 5)).collect::<Vec<f64>>()).unwrap();
    let dims = DotDims { batch: (vec![], vec![]), contract: (vec![1], vec![1]) };
    let on = |m: usize| {
        let x = Array::from_f64(&[m, k], &row.repeat(m)).unwrap();
        one(GraphOp::Dot { dims: dims.clone() }, &[x, y.clone()])
    };
    assert_eq!(on(5)[4 * n..], on(1)[..]);
    assert_eq!(on(2), on(1).repeat(2));
}

#[test]
fn movement_by_hand() {
    let x = Array::from_i64(&[2, 3], &[0, 1, 2, 3, 4, 5]).unwrap();
    let dims = |v: &[i64]| v.iter().map(|&d| Dim::constant(d)).collect::<Vec<Dim>>();
    assert_eq!(one(GraphOp::Transpose { perm: vec![1, 0] }, &[x.clone()]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(one(GraphOp::Flip { axes: vec![0, 1] }, &[x.clone()]), [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
    let slice = GraphOp::Slice { start: dims(&[1, 0]), limit: dims(&[2, 3]), stride: vec![i64::MAX, 2] };
    assert_eq!(one(slice, &[x.clone()]), [3.0, 5.0]);
    let amounts = vec![(0.into(), 1.into()), (1.into(), 0.into())];
    let value = Array::from_i64(&[], &[9]).unwrap();
    let padded = one(GraphOp::Pad { amounts }, &[x.clone(), value]);
    assert_eq!(padded, [9.0, 0.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 9.0, 9.0, 9.0, 9.0]);
    assert_eq!(one(GraphOp::Cumsum { axis: 0 }, &[x.clone()]), [0.0, 1.0, 2.0, 3.0, 5.0, 7.0]);
    let two = Array::from_i64(&[2, 1], &[7, 8]).unwrap();
    let updated = one(GraphOp::UpdateSlice { start: dims(&[0, 2]) }, &[x.clone(), two.clone()]);
    assert_eq!(updated, [0.0, 1.0, 7.0, 3.0, 4.0, 8.0]);
    assert_eq!(one(GraphOp::Concat { axis: 1 }, &[two, x]), [7.0, 0.0, 1.0, 2.0, 8.0, 3.0, 4.0, 5.0]);
    let iota = GraphOp::Iota { axis: 1, shape: dims(&[2, 3]), dtype: DType::I64 };
    assert_eq!(one(iota, &[]), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
}

#[test]
fn indices_outside_are_refused() {
    let x = Array::from_f64(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let ids = |v: &[i64]| Array::from_i64(&[v.len()], v).unwrap();
    assert_eq!(one(GraphOp::Take { axis: 1 }, &[x.clone(), ids(&[1, 1, 0])]), [2.0, 2.0, 1.0, 4.0, 4.0, 3.0]);
    for bad in [2, -1, i64::MAX] {
        let error = apply(Mode::Meaning, GraphOp::Take { axis: 1 }, &[x.clone(), ids(&[0, bad])]).unwrap_err();
        assert!(error.code == "index-out-of-range" && error.message.contains(&bad.to_string()), "{error}");
    }
    let along = Array::from_i64(&[2, 1], &[1, 0]).unwrap();
    assert_eq!(one(GraphOp::TakeAlong { axis: 1 }, &[x.clone(), along.clone()]), [2.0, 3.0]);
    let source = Array::from_f64(&[2, 1], &[10.0, 20.0]).unwrap();
    assert_eq!(one(GraphOp::ScatterAdd { axis: 1 }, &[x, along, source]), [1.0, 12.0, 23.0, 4.0]);
}

#[test]
fn rows_of_blocks_are_taken_and_decoded() {
    // Two rows of one q8_0 block each: scales 1 and 2, elements i and -i.
    let mut stored = Vec::new();
    for (scale, sign) in [(1.0f32, 1i8), (2.0, -1)] {
        stored.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
        stored.extend((0..32i8).map(|i| (i * sign) as u8));
    }
    let table = Array::new(DType::Q8_0, &[2, 32], Bytes::new(stored)).unwrap();
    let ids = Array::from_i64(&[2], &[1, 0]).unwrap();
    let rows = apply(Mode::Meaning, GraphOp::Take { axis: 0 }, &[table, ids]).unwrap();
    let values = map(ScalarOp::Cast { to: DType::F32 }, &rows);
    assert_eq!((values[3], values[31], values[32 + 31]), (-6.0, -62.0, 31.0));
}

#[test]
fn symbols_are_bound_and_checked() {
    let mut module = Module::default();
    let ty = Type { dtype: DType::F64, shape: vec!["n".into()] };
    single(
        &mut module,
        "main",
        vec![SymbolDecl::new("n", 1, 4)],
        &[ty.clone(), ty],
        GraphOp::Map { op: ScalarOp::Add {} },
    );
    let call =
        |a: &[f64], b: &[f64], given: &Bindings| run(&module, "main", &[floats(a), floats(b)], given, Mode::Meaning);
    let none = Bindings::new();
    assert_eq!(call(&[1.0, 2.0], &[3.0, 4.0], &none).unwrap()[0].to_f64().unwrap(), [4.0, 6.0]);
    assert_eq!(call(&[1.0], &[3.0, 4.0], &none).unwrap_err().code, "shape-mismatch");
    assert_eq!(call(&[0.0; 5], &[0.0; 5], &none).unwrap_err().code, "symbol-range");
    let given = Bindings::from([("n".into(), 3)]);
    assert_eq!(call(&[1.0], &[3.0], &given).unwrap_err().code, "shape-mismatch");
    let halves = [floats(&[1.0]), Array::from_f32(&[1], &[1.0]).unwrap()];
    assert_eq!(run(&module, "main", &halves, &none, Mode::Meaning).unwrap_err().code, "dtype-mismatch");
    assert_eq!(run(&module, "other", &halves, &none, Mode::Meaning).unwrap_err().code, "unknown-function");
}

#[test]
fn scans_calls_and_conditionals() {
    let mut module = Module::default();
    let scalar = Type::scalar(DType::F64);
    // body(carry, x) = (carry * x, carry + x)
    let mut body = Function::new("body", Vec::new(), params(&[scalar.clone(), scalar.clone()]));
    let args = [body.param(0), body.param(1)];
    for op in [ScalarOp::Mul {}, ScalarOp::Add {}] {
        let node = body.push(&module, GraphOp::Map { op }, &args, None, &"".into()).unwrap();
        body.results.push(Value { node, index: 0 });
    }
    module.functions.insert(body.name.clone(), body);
    let rows = Type { dtype: DType::F64, shape: vec!["n".into()] };
    let scan = GraphOp::Scan { body: "body".into(), carries: 1, length: "n".into() };
    single(&mut module, "main", vec![SymbolDecl::new("n", 0, 9)], &[scalar.clone(), rows], scan);
    let on = |x: &[f64]| {
        let first = Array::from_f64(&[], &[2.0]).unwrap();
        let out = run(&module, "main", &[first, floats(x)], &Bindings::new(), Mode::Meaning).unwrap();
        (out[0].to_f64().unwrap(), out[1].to_f64().unwrap())
    };
    assert_eq!(on(&[3.0, 5.0]), (vec![30.0], vec![5.0, 11.0]));
    assert_eq!(on(&[]), (vec![2.0], vec![]));
    for (name, op) in [("negate", ScalarOp::Neg {}), ("root", ScalarOp::Sqrt {})] {
        single(&mut module, name, Vec::new(), &[scalar.clone()], GraphOp::Map { op });
    }
    let cond = GraphOp::Cond { yes: "negate".into(), no: "root".into() };
    single(&mut module, "choose", Vec::new(), &[Type::scalar(DType::Bool), scalar], cond);
    for (p, expected) in [(true, -9.0), (false, 3.0)] {
        let args = [Array::from_bool(&[], &[p]).unwrap(), Array::from_f64(&[], &[9.0]).unwrap()];
        let out = run(&module, "choose", &args, &Bindings::new(), Mode::Meaning).unwrap();
        assert_eq!(out[0].to_f64().unwrap(), [expected]);
    }
}

#[test]
fn huge_values_are_refused_before_they_are_allocated() {
    for shape in [vec![Dim::constant(1 << 33)], vec![Dim::constant(i64::MAX), Dim::constant(3)]] {
        let op = GraphOp::Broadcast { dims: Vec::new(), shape };
        let error = apply(Mode::Meaning, op, &[Array::from_f64(&[], &[1.0]).unwrap()]).unwrap_err();
        assert_eq!(error.code, "too-large");
    }
}
