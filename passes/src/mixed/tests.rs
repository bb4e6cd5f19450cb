//! What becomes of programs, by their texts, and that their types stay.

use super::{Class, Policy, mixed, mixed_precision};
use crate::autodiff::{Form, differentiate, value_and_grad};
use crate::build::Build;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Function, Module, Param, Role};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::{GraphOp, ReduceKind, ScalarKind, ScalarOp};
use tilewright_ir::text::{parse, print};
use tilewright_ir::types::{Bindings, DType, Dim, Type};

fn module(text: &str) -> Module {
    parse("test.tw", text).unwrap_or_else(|d| panic!("{d}"))
}

fn bf16() -> Policy {
    Policy::new(DType::Bf16).unwrap()
}

#[track_caller]
fn becomes(policy: &Policy, before: &str, after: &str) {
    let made = mixed_precision(&module(before), policy).unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(print(&made), print(&module(after)), "\n{}", print(&made));
}

fn dots(f: &Function) -> Vec<DType> {
    let dots = f.nodes.iter().filter(|n| matches!(n.op, GraphOp::Dot { .. }));
    dots.map(|n| n.types[0].dtype).collect()
}

#[test]
fn contractions_compute_in_the_dtype_and_the_rest_in_f32() {
    becomes(
        &bf16(),
        "func @main(%x: f32[4, 8], %w: f32[8, 2], %b: f32[2]) -> f32[4, 2] {
           %0 = dot %x, %w contract=[1]x[0]
           %1 = broadcast %b shape=[4, 2] dims=[1]
           %2 = add %0, %1
           %3 = exp %2
           return %3
         }",
        "func @main(%x: f32[4, 8], %w: f32[8, 2], %b: f32[2]) -> f32[4, 2] {
           %0 = cast %x to=bf16
           %1 = cast %w to=bf16
           %2 = dot %0, %1 contract=[1]x[0]
           %3 = cast %2 to=f32
           %4 = broadcast %b shape=[4, 2] dims=[1]
           %5 = add %3, %4
           %6 = exp %5
           return %6
         }",
    );
}

/// Between two products nothing is widened; what is asked for in both dtypes is moved in both.
#[test]
fn what_rounds_nothing_has_the_dtype_at_hand() {
    becomes(
        &bf16(),
        "func @main(%x: f32[4, 8], %w: f32[8, 8]) -> (f32[8, 8], f32[8, 4]) {
           %0 = dot %x, %w contract=[1]x[0]
           %1 = transpose %0 perm=[1, 0]
           %2 = neg %1
           %3 = exp %x
           %4 = transpose %3 perm=[1, 0]
           %5 = dot %2, %4 contract=[1]x[1]
           return %5, %4
         }",
        "func @main(%x: f32[4, 8], %w: f32[8, 8]) -> (f32[8, 8], f32[8, 4]) {
           %0 = cast %x to=bf16
           %1 = cast %w to=bf16
           %2 = dot %0, %1 contract=[1]x[0]
           %3 = transpose %2 perm=[1, 0]
           %4 = neg %3
           %5 = exp %x
           %6 = cast %5 to=bf16
           %7 = transpose %5 perm=[1, 0]
           %8 = transpose %6 perm=[1, 0]
           %9 = dot %4, %8 contract=[1]x[1]
           %10 = cast %9 to=f32
           return %10, %7
         }",
    );
}

/// Rows of a table are rounded, not the table; a result that is only moved is widened at the end.
#[test]
fn what_is_left_out_is_not_rounded() {
    becomes(
        &Policy::new(DType::F16).unwrap(),
        "func @main(%t: f32[100, 8], %i: i64[4], %w: f32[8, 2]) -> f32[2] {
           %0 = take %t, %i axis=0
           %1 = dot %0, %w contract=[1]x[0]
           %2 = reduce_max %1 axes=[0]
           return %2
         }",
        "func @main(%t: f32[100, 8], %i: i64[4], %w: f32[8, 2]) -> f32[2] {
           %0 = cast %w to=f16
           %1 = take %t, %i axis=0
           %2 = cast %1 to=f16
           %3 = dot %2, %0 contract=[1]x[0]
           %4 = reduce_max %3 axes=[0]
           %5 = cast %4 to=f32
           return %5
         }",
    );
}

#[test]
fn other_dtypes_stay_as_they_are() {
    for text in [
        "func @main(%x: f64[4, 8], %w: f64[8, 2]) -> f64[4, 2] {\n %0 = dot %x, %w contract=[1]x[0]\n return %0 }",
        "func @main(%x: i32[4, 8], %w: i32[8, 2]) -> i32[4, 2] {\n %0 = dot %x, %w contract=[1]x[0]\n return %0 }",
        "func @main(%x: f16[4, 8], %w: f16[8, 2]) -> f16[4, 2] {\n %0 = dot %x, %w contract=[1]x[0]\n return %0 }",
        // Weights in blocks are read as they are stored.
        "func @main(%x: f32[4, 32], %w: q8_0[2, 32]) -> f32[4, 2] {
           %0 = cast %w to=f32\n %1 = dot %x, %0 contract=[1]x[1]\n return %1 }",
        "func @main(%x: f32[4]) -> i64[] {\n %0 = argmax %x axis=0\n return %0 }",
    ] {
        becomes(&bf16(), text, text);
    }
    assert_eq!(Policy::new(DType::F64).unwrap_err().code, "precision");
}

#[test]
fn a_scope_is_kept() {
    let build = |policy: &Policy| {
        let g = Graph::new("main");
        let (x, w) = (g.input("x", DType::F32, [8, 8]), g.input("w", DType::F32, [8, 8]));
        let f = |x: &Tensor| {
            let y = g.scope("blocks.1", || x.matmul(&w));
            let y = g.scope("blocks.1", || g.scope("router", || y.matmul(&w)));
            g.scope("blocks.10", || y.matmul(&w))
        };
        let y = mixed(policy, f)(&x);
        g.finish(&[&y]).unwrap()
    };
    let of = |policy: &Policy| dots(build(policy).entry().unwrap());
    assert_eq!(of(&bf16()), [DType::Bf16; 3]);
    assert_eq!(of(&bf16().keeping("blocks.1")), [DType::F32, DType::F32, DType::Bf16]);
    assert_eq!(of(&bf16().keeping("blocks.1.router")), [DType::Bf16, DType::F32, DType::Bf16]);
}

/// Products of the way back have operands in the compute dtype, and gradients are those of the master weights.
#[test]
fn the_gradient_computes_alike() {
    let text = "func @main(%x: f32[4, 8], %w: f32[8, 8], %v: f32[8, 2]) -> f32[] {
           %0 = dot %x, %w contract=[1]x[0]
           %1 = tanh %0
           %2 = dot %1, %v contract=[1]x[0]
           %3 = mul %2, %2
           %4 = sum %3 axes=[0, 1]
           return %4
         }";
    let made = mixed_precision(&module(text), &bf16()).unwrap();
    let made = differentiate(&made, &["x", "w", "v"], Form::Gradient).unwrap().module;
    let f = made.entry().unwrap();
    assert_eq!(dots(f), [DType::Bf16; 6]);
    assert!(f.results.iter().all(|&r| f.ty(r).dtype == DType::F32));
    let halves = |n: &&tilewright_ir::graph::Node| n.types[0].dtype == DType::Bf16;
    for node in f.nodes.iter().filter(halves) {
        let moved = matches!(
            node.op,
            GraphOp::Dot { .. } | GraphOp::Transpose { .. } | GraphOp::Map { op: ScalarOp::Cast { .. } }
        );
        assert!(moved, "{:?} in bf16", node.op);
    }
}

/// Functions get a form of their own, and others go on with what they had.
#[test]
fn functions_that_are_run_compute_alike() {
    let g = Graph::new("main");
    let matrix = |g: &Graph, name: &str| g.input(name, DType::F32, [4, 4]);
    g.function("layer", |g| [matrix(g, "x").matmul(&matrix(g, "w")).tanh()]);
    g.function("pair", |g| {
        let (x, w) = (matrix(g, "x"), matrix(g, "w"));
        let [y] = g.call("layer", &[&x, &w]);
        g.call::<1>("layer", &[&y, &w])
    });
    g.checkpoint("pair");
    let (x, w) = (matrix(&g, "x"), matrix(&g, "w"));
    let [plain] = g.call("layer", &[&x, &w]);
    let policy = bf16();
    let loss = |w: &Tensor| g.call::<1>("pair", &[&x, w])[0].sum(&[0, 1]);
    let (loss, gradient) = value_and_grad(mixed(&policy, loss))(&w);
    let made = g.finish(&[&plain, &loss, &gradient]).unwrap();
    tilewright_ir::verify::verify(&made).unwrap();
    assert_eq!(dots(&made.functions["layer"]), [DType::F32]);
    assert_eq!(dots(&made.functions["layer.bf16"]), [DType::Bf16]);
    assert!(made.functions.contains_key("pair.bf16.bwd"), "{}", print(&made));
}

#[test]
fn loops_and_conditions_compute_alike() {
    let text = "func @step(%c: f32[2, 2], %w: f32[2, 2]) -> (f32[2, 2], f32[2, 2]) {
           %0 = dot %c, %w contract=[1]x[0]
           return %0, %w
         }
         func @keep(%c: f32[2, 2]) -> f32[2, 2] { return %c }
         func @square(%c: f32[2, 2]) -> f32[2, 2] { %0 = dot %c, %c contract=[1]x[0]\n return %0 }
         func @main(%c: f32[2, 2], %w: f32[2, 2], %p: bool[]) -> f32[2, 2] {
           %0 = scan %c, %w body=@step carries=2 length=3
           %1 = cond %p, %0#0 yes=@square no=@keep
           return %1
         }";
    let before = module(text);
    let made = mixed_precision(&before, &bf16()).unwrap();
    assert_eq!(dots(&made.functions["step"]), [DType::Bf16]);
    assert_eq!(dots(&made.functions["square"]), [DType::Bf16]);
    assert!(made.functions["keep"].same_ops(&before.functions["keep"]));
    assert!(made.functions["main"].same_ops(&before.functions["main"]));
}

#[test]
fn mistakes_of_the_closure_stay_mistakes() {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [4, 4]);
    let y = mixed(&bf16(), |x: &Tensor| x.matmul(&x.sum(&[0]).reshape([3, 2])))(&x);
    assert_eq!(g.finish(&[&y]).unwrap_err().code, "shape-mismatch");
}

/// Numbers in -1..1, of 24 bits.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn results(module: &Module, inputs: &[Array]) -> Vec<Vec<f64>> {
    let run = interp::run(module, "main", inputs, &Bindings::new(), Mode::Strict).unwrap_or_else(|d| panic!("{d}"));
    run.iter().map(|a| a.to_f64().unwrap()).collect()
}

/// Random programs all of whose ops take values in -1..1 to such, and errors to no larger ones: then a product, whose weights have
/// columns with sums of magnitudes of at most 1, adds the rounding of an operand, of its weights and of its result.
#[test]
fn errors_are_those_of_the_roundings() {
    const N: i64 = 8;
    for (dtype, unit) in [(DType::Bf16, 2f64.powi(-8)), (DType::F16, 2f64.powi(-11))] {
        let mut rounded = 0;
        for seed in 0..60u64 {
            let choices = numbers(14, seed + 1);
            let g = Graph::new("main");
            let (x, w) = (g.input("x", DType::F32, [N, N]), g.input("w", DType::F32, [N, N]));
            let (mut all, mut products) = (vec![(x.clone(), 0usize)], 0);
            for (i, choice) in choices.iter().enumerate() {
                let (a, n) = all[all.len() - 1].clone();
                let (b, m) = all[i / 2].clone();
                all.push(match ((choice + 1.0) * 4.5) as u8 {
                    0..=2 => {
                        products += 1;
                        (a.matmul(&w), n + 1)
                    }
                    3 => (a.tanh(), n),
                    4 => ((a + b) * 0.5, n.max(m)),
                    5 => (a.maximum(b.transpose(0, 1)), n.max(m)),
                    6 => (a.softmax(-1), n),
                    7 => (a.transpose(0, 1).reshape([2, N * N / 2]).reshape([N, N]), n),
                    _rest => (-a.slice(0, 1, N).pad(0, 0, 1, 0.0), n),
                });
            }
            let (last, depth) = all[all.len() - 1].clone();
            let module = g.finish(&[&last]).unwrap();
            let mut weights = numbers((N * N) as usize, seed + 100);
            // Columns are what the product sums over.
            for column in 0..N as usize {
                let sum: f32 = (0..N as usize).map(|row| weights[row * N as usize + column].abs()).sum();
                (0..N as usize).for_each(|row| weights[row * N as usize + column] /= sum * 1.001);
            }
            let inputs = [numbers((N * N) as usize, seed + 200), weights];
            let inputs = inputs.map(|values| Array::from_f32(&[N as usize, N as usize], &values).unwrap());
            let mixed = mixed_precision(&module, &Policy::new(dtype).unwrap()).unwrap();
            let (found, expected) = (results(&mixed, &inputs), results(&module, &inputs));
            let bound = depth as f64 * (3.0 * unit + 3.0 * unit * unit) + 1e-5;
            let error = found[0].iter().zip(&expected[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error <= bound, "{dtype}, seed {seed}: {error} of {bound}, {products} products\n{}", print(&mixed));
            rounded += usize::from(error > 0.01 * bound && depth > 0);
        }
        assert!(rounded > 5, "{dtype}: the bound is loose, {rounded}");
    }
}

/// Numbers far beyond f16 in a norm, a softmax and a log-sum-exp; only products are f16, of what these give.
#[test]
fn statistics_have_the_range_of_f32() {
    let build = |all: DType| {
        let g = Graph::new("main");
        let (x, w) = (g.input("x", DType::F32, [4, 16]), g.input("w", DType::F32, [16, 8]));
        let (x, w) = ((x * 1e6).cast(all), w.cast(all));
        let norm = x.layer_norm(None, None, 1e-5).matmul(&w);
        let soft = x.softmax(-1).matmul(&w);
        let sizes = x.logsumexp(-1);
        let squares = (&x * &x).mean(&[1]);
        g.finish(&[&norm.cast(DType::F32), &soft.cast(DType::F32), &sizes.cast(DType::F32), &squares.cast(DType::F32)])
            .unwrap()
    };
    let inputs = [([4, 16], numbers(64, 3)), ([16, 8], numbers(128, 4))];
    let inputs = inputs.map(|(shape, values)| Array::from_f32(&shape, &values).unwrap());
    let full = build(DType::F32);
    let mixed = mixed_precision(&full, &Policy::new(DType::F16).unwrap()).unwrap();
    let (found, expected) = (results(&mixed, &inputs), results(&full, &inputs));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 0.01 * b.abs().max(0.1);
        assert!(found.iter().zip(expected).all(near), "result {i}: {found:?}, expected {expected:?}");
    }
    // What the program is all in f16.
    assert!(results(&build(DType::F16), &inputs).iter().flatten().any(|x| !x.is_finite()));
}

/// Numbers of all sizes, beyond the range of f16 too, and near integers and halves.
fn sizes() -> Vec<f32> {
    let near = [2.999_9, 2.500_4, 3.000_1, -0.999_9, 1e-9, -1e-9, 65_519.0, 65_520.0, 0.0, -0.0, 1.000_5, 7e4];
    let scaled = numbers(52, 9).into_iter().enumerate().map(|(i, x)| x * 10f32.powi(i as i32 % 11 - 5));
    near.into_iter().chain(scaled).collect()
}

/// Whether to round the float operands of `op` to f16 and compute in it gives what it gives in f32, rounded; none for an op that
/// makes no f32 of the parameters numbered so: `x` and `y` of f32, positions, bools.
fn commutes(op: &GraphOp, args: &[usize]) -> Option<bool> {
    const SHAPE: [usize; 2] = [8, 8];
    let of = |name: &str, dtype| Param {
        name: name.into(),
        ty: Type::new(dtype, SHAPE.map(|n| n as i64)),
        role: Role::Input,
    };
    let params = [("x", DType::F32), ("y", DType::F32), ("i", DType::I64), ("p", DType::Bool)];
    let mut module = Module::default();
    let scalar = Param { name: "scalar".into(), ty: Type::scalar(DType::F32), role: Role::Input };
    let params = params.into_iter().map(|(name, dtype)| of(name, dtype)).chain([scalar]).collect();
    let mut f = Function::new("main", Vec::new(), params);
    let args: Vec<_> = args.iter().map(|&i| f.param(i)).collect();
    let mut b = Build::new(&mut module, &mut f);
    let full = b.push(op.clone(), &args).ok().filter(|&v| b.ty(v).dtype == DType::F32)?;
    let behind = b.cast(full, DType::F16).unwrap();
    let rounded = |b: &mut Build<'_>, v| if b.ty(v).dtype == DType::F32 { b.cast(v, DType::F16).unwrap() } else { v };
    let args: Vec<_> = args.into_iter().map(|v| rounded(&mut b, v)).collect();
    let before = b.push(op.clone(), &args).unwrap();
    f.results = vec![behind, before];
    module.functions.insert("main".into(), f);
    let mut y = sizes();
    y.rotate_left(5);
    let inputs = [
        Array::from_f32(&SHAPE, &sizes()).unwrap(),
        Array::from_f32(&SHAPE, &y).unwrap(),
        Array::from_i64(&SHAPE, &(0..64).map(|i| i * 5 % 8).collect::<Vec<_>>()).unwrap(),
        Array::from_bool(&SHAPE, &(0..64).map(|i| i % 3 == 0).collect::<Vec<_>>()).unwrap(),
        Array::from_f32(&[], &[1e5 / 3.0]).unwrap(),
    ];
    let found = results(&module, &inputs);
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    Some(found[0].iter().zip(&found[1]).all(same))
}

/// The table says that of an op if and only if it is so.
#[test]
fn what_moves_values_is_what_rounding_commutes_with() {
    let dim = Dim::constant;
    let (x, y, i, p, scalar) = (0, 1, 2, 3, 4);
    let mut ops: Vec<(GraphOp, Vec<usize>)> = Vec::new();
    for op in ScalarKind::ALL.iter().filter_map(|&kind| ScalarOp::from_parts(kind, &[])) {
        let args = match &op {
            ScalarOp::Select {} => vec![p, x, y],
            _other if op.info().arity.accepts(1) => vec![x],
            _other => vec![x, y],
        };
        ops.push((GraphOp::Map { op }, args));
    }
    ops.extend(ReduceKind::ALL.iter().map(|&kind| (GraphOp::Reduce { kind, axes: vec![1] }, vec![x])));
    let (start, limit) = (vec![dim(2), dim(0)], vec![dim(8), dim(8)]);
    ops.extend([
        (GraphOp::Cumsum { axis: 1 }, vec![x]),
        (GraphOp::Broadcast { shape: vec![dim(3), dim(8), dim(8)], dims: vec![1, 2] }, vec![x]),
        (GraphOp::Reshape { shape: vec![dim(4), dim(16)] }, vec![x]),
        (GraphOp::Transpose { perm: vec![1, 0] }, vec![x]),
        (GraphOp::Slice { start, limit, stride: vec![1, 3] }, vec![x]),
        (GraphOp::Pad { amounts: vec![(dim(1), dim(0)), (dim(0), dim(2))] }, vec![x, scalar]),
        (GraphOp::Concat { axis: 0 }, vec![x, y]),
        (GraphOp::Flip { axes: vec![1] }, vec![x]),
        (GraphOp::Take { axis: 0 }, vec![x, i]),
        (GraphOp::TakeAlong { axis: 1 }, vec![x, i]),
        (GraphOp::ScatterAdd { axis: 1 }, vec![x, i, y]),
        (GraphOp::UpdateSlice { start: vec![dim(0), dim(0)] }, vec![x, y]),
    ]);
    let mut seen = [0, 0];
    for (op, args) in ops {
        if let Some(commutes) = commutes(&op, &args) {
            let moves = matches!(Class::of(&op), Class::Moves | Class::Picks);
            assert_eq!(moves, commutes, "{op:?}");
            seen[usize::from(moves)] += 1;
        }
    }
    assert_eq!(seen, [27, 17]);
}
