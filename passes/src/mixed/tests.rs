//! What becomes of programs, by their texts, and that their types stay.

use super::{Policy, mixed, mixed_precision};
use crate::autodiff::{Form, differentiate, value_and_grad};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::text::{parse, print};
use tilewright_ir::types::DType;

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
