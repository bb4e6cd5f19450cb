//! Many examples at once against one after the other.

use super::{Count, batch, hessian, hessian_of, hvp_of, jacobian, jacobian_forward, jacobian_reverse, vmap};
use crate::autodiff::{Form, differentiate, grad};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::{parse, print};
use tilewright_ir::types::{Bindings, DType, DType::F64, SymbolDecl};

const COUNT: usize = 3;

fn module(text: &str) -> Module {
    parse("test.tw", text).unwrap_or_else(|d| panic!("{d}"))
}

fn results(module: &Module, inputs: &[Array]) -> Vec<Array> {
    let entry = module.entry().unwrap().name.clone();
    run(module, &entry, inputs, &Bindings::new(), Mode::Meaning).unwrap_or_else(|d| panic!("{d}\n{}", print(module)))
}

/// Numbers of a dtype: floats in -1..1, integers in 0..2.
fn random(dtype: DType, shape: &[usize], seed: usize) -> Array {
    let numbers = (0..shape.iter().product()).map(|i: usize| (i * 37 + seed * 101 + 11) % 199);
    match dtype {
        DType::Bool => Array::from_bool(shape, &numbers.map(|n| n % 2 == 0).collect::<Vec<bool>>()),
        DType::I64 => Array::from_i64(shape, &numbers.map(|n| n as i64 % 2).collect::<Vec<i64>>()),
        _float => Array::from_f64(shape, &numbers.map(|n| n as f64 / 100.0 - 0.99).collect::<Vec<f64>>()),
    }
    .unwrap()
}

/// The arrays one after the other along a new first axis, which is then moved to `axis`.
fn stacked(examples: &[Array], axis: usize) -> Array {
    let shape = examples[0].shape();
    let inner: usize = shape[axis..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut whole = shape.to_vec();
    whole.insert(axis, examples.len());
    let size = examples[0].bytes().len() / examples[0].len().max(1);
    let mut bytes = Vec::new();
    for o in 0..outer {
        for x in examples {
            bytes.extend_from_slice(&x.bytes()[o * inner * size..(o + 1) * inner * size]);
        }
    }
    Array::new(examples[0].dtype(), &whole, tilewright_ir::array::Bytes::new(bytes)).unwrap()
}

fn same(a: &Array, b: &Array) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * a.abs().max(1.0) || (a.is_nan() && b.is_nan());
    a.dtype() == b.dtype()
        && a.shape() == b.shape()
        && match (a.to_f64(), b.to_f64()) {
            (Some(a), Some(b)) => a.iter().zip(&b).all(near),
            _ => a.bytes()[..] == b.bytes()[..],
        }
}

/// All ways in which parameters may be batched, over axis 0 and over the last.
fn check(module: &Module) {
    let f = module.entry().unwrap();
    let shapes: Vec<Vec<usize>> = f.params.iter().map(|p| p.ty.concrete(&Bindings::new()).unwrap()).collect();
    for ways in 1..3usize.pow(f.params.len() as u32) {
        let way = |i: usize| ways / 3usize.pow(i as u32) % 3;
        let axis = |i: usize| [None, Some(0), Some(shapes[i].len())][way(i)];
        let axes: Vec<(&str, usize)> =
            f.params.iter().enumerate().filter_map(|(i, p)| Some((&*p.name, axis(i)?))).collect();
        let made =
            batch(module, &axes, &Count::Fixed(COUNT as i64)).unwrap_or_else(|d| panic!("{d}\n{}", print(module)));
        assert_eq!(print(&self::module(&print(&made))), print(&made));
        assert!(
            !made.entry().unwrap().nodes.iter().any(|n| n.op.info().name == "scan") || print(module).contains("scan")
        );
        let example = |i: usize, e: usize| random(f.params[i].ty.dtype, &shapes[i], i + axis(i).map_or(0, |_| 10 * e));
        let inputs: Vec<Array> = (0..f.params.len())
            .map(|i| match axis(i) {
                Some(axis) => stacked(&(0..COUNT).map(|e| example(i, e)).collect::<Vec<Array>>(), axis),
                None => example(i, 0),
            })
            .collect();
        let each: Vec<Vec<Array>> = (0..COUNT)
            .map(|e| results(module, &(0..f.params.len()).map(|i| example(i, e)).collect::<Vec<Array>>()))
            .collect();
        for (r, found) in results(&made, &inputs).iter().enumerate() {
            let want = stacked(&each.iter().map(|all| all[r].clone()).collect::<Vec<Array>>(), 0);
            assert!(same(&want, found), "{axes:?}, result {r}: {want:?} {found:?}\n{}", print(&made));
        }
    }
}

#[test]
fn every_op_of_the_table() {
    let ops = [
        ("%x: f64[4], %y: f64[4]", "mul %x, %y"),
        ("%x: bool[4], %y: f64[4], %z: f64[4]", "select %x, %y, %z"),
        ("%x: f64[4]", "cast %x to=i64"),
        ("%x: f64[2, 3, 4]", "sum %x axes=[0, 2]"),
        ("%x: f64[2, 3]", "reduce_max %x axes=[1]"),
        ("%x: f64[2, 3]", "prod %x axes=[0]"),
        ("%x: f64[2, 3]", "argmax %x axis=1"),
        ("%x: f64[2, 3]", "argmin %x axis=0"),
        ("%x: f64[2, 3]", "cumsum %x axis=1"),
        ("%x: f64[2, 3], %y: f64[3, 4]", "dot %x, %y contract=[1]x[0]"),
        ("%x: f64[2, 3, 5], %y: f64[3, 2, 4]", "dot %x, %y batch=[0]x[1] contract=[1]x[0]"),
        ("%x: f64[3], %y: f64[2]", "dot %x, %y contract=[]x[]"),
        ("%x: f64[3]", "broadcast %x shape=[2, 3, 2] dims=[1]"),
        ("%x: f64[1, 3]", "broadcast %x shape=[4, 3] dims=[0, 1]"),
        ("%x: f64[2, 6]", "reshape %x shape=[3, 4]"),
        ("%x: f64[2, 3, 4]", "transpose %x perm=[2, 0, 1]"),
        ("%x: f64[5, 6]", "slice %x start=[1, 0] limit=[4, 6] stride=[2, 3]"),
        ("%x: f64[2, 3], %y: f64[]", "pad %x, %y amounts=[(1, 0), (0, 2)]"),
        ("%x: f64[2, 3], %y: f64[2, 1]", "concat %x, %y, %x axis=1"),
        ("%x: f64[2, 3]", "flip %x axes=[1]"),
        ("%x: f64[2, 2, 4], %i: i64[3, 2]", "take %x, %i axis=1"),
        ("%x: f64[2, 3], %i: i64[]", "take %x, %i axis=0"),
        ("%x: f64[2, 3], %i: i64[2, 4]", "take_along %x, %i axis=1"),
        ("%x: f64[2, 3], %i: i64[4, 3], %y: f64[4, 3]", "scatter_add %x, %i, %y axis=0"),
        ("%x: f64[4, 3], %y: f64[2, 2]", "update_slice %x, %y start=[1, 1]"),
    ];
    for (params, op) in ops {
        let text = format!(
            "func @main({params}) {{\n  %0 = {op}\n  %1 = iota axis=0 shape=[2] dtype=f64\n  return %0, %1\n}}"
        );
        check(&module(&text));
    }
}

const CONTROL: &str = "
func @layer(%x: f64[k], weight %w: f64[k]) -> (f64[k], f64[k]) where k in 1..=64 {
  %0 = mul %x, %w
  %1 = tanh %0
  return %1, %w
}
func @other(%x: f64[k], %w: f64[k]) -> (f64[k], f64[k]) where k in 1..=64 {
  %0 = add %x, %w
  return %w, %0
}
func @step(%a: f64[k], %b: f64[k], %c: f64[k], %s: f64[k]) -> (f64[k], f64[k], f64[k], f64[k], f64[k]) where k in 1..=64 {
  %0 = mul %a, %s
  %1 = add %b, %a
  return %1, %b, %c, %0, %c
}
";

#[test]
fn calls_conditionals_and_loops() {
    check(&module(&format!(
        "{CONTROL}func @main(%p: bool[], %x: f64[4], %w: f64[4]) -> (f64[4], f64[4], f64[4]) {{
          %0 = call %x, %w function=@layer
          %1 = cond %p, %0#0, %w yes=@layer no=@other
          return %0#1, %1#0, %1#1
        }}"
    )));
    let scan = module(&format!(
        "{CONTROL}func @main(%a: f64[4], %b: f64[4], %c: f64[4], %s: f64[5, 4]) -> (f64[4], f64[4], f64[4], f64[5, 4], f64[5, 4]) {{
          %0 = scan %a, %b, %c, %s body=@step carries=3 length=5
          return %0#0, %0#1, %0#2, %0#3, %0#4
        }}"
    ));
    check(&scan);
    // One loop, however many examples; what all share stays as it is.
    let made = batch(&scan, &[("s", 0)], &Count::Fixed(3)).unwrap();
    let text = print(&made);
    assert_eq!(text.matches("= scan ").count(), 1, "{text}");
    assert!(text.contains("%b: f64[k], %c: f64[k], %s: f64[3, k]"), "{text}");
}

#[test]
fn a_contraction_gets_an_axis_and_no_loop() {
    let m =
        module("func @main(%x: f64[8], %w: f64[8, 4]) -> f64[4] {\n  %0 = dot %x, %w contract=[0]x[0]\n  return %0\n}");
    let ops = |axes: &[(&str, usize)]| {
        let made = batch(&m, axes, &Count::Symbol(SymbolDecl::new("b", 1, 64))).unwrap();
        let text = print(&made);
        let line = |l: &str| l.trim().split_once(" = ").map(|(_, op)| op.to_string());
        text.lines().filter_map(line).collect::<Vec<String>>()
    };
    assert_eq!(ops(&[("x", 0)]), ["dot %x, %w batch=[]x[] contract=[1]x[0] : f64[b, 4]"]);
    assert_eq!(ops(&[("w", 0)])[0], "dot %x, %w batch=[]x[] contract=[0]x[1] : f64[b, 4]");
    assert_eq!(ops(&[("x", 0), ("w", 0)]), ["dot %x, %w batch=[0]x[0] contract=[1]x[1] : f64[b, 4]"]);
}

#[test]
fn batches_nest_and_gradients_commute_with_them() {
    let m = module(&format!(
        "{CONTROL}func @main(%x: f64[4], %w: f64[4], %s: f64[3, 4]) -> f64[] {{
          %0 = call %x, %w function=@layer
          %1 = scan %0#0, %x, %w, %s body=@step carries=3 length=3
          %2 = mul %1#0, %1#0
          %3 = sum %2 axes=[0]
          return %3
        }}"
    ));
    check(&differentiate(&m, &["x", "w"], Form::ValueAndGradient).unwrap().module);
    // The gradient of the sum over examples, which do not meet, is the gradient of each.
    let axes = [("x", 0), ("s", 0)];
    let count = Count::Fixed(3);
    let inside = batch(&differentiate(&m, &["x"], Form::Gradient).unwrap().module, &axes, &count).unwrap();
    let outside = differentiate(&batch(&m, &axes, &count).unwrap(), &["x"], Form::Pullback).unwrap().module;
    let [x, w, s] = [random(F64, &[3, 4], 1), random(F64, &[4], 2), random(F64, &[3, 3, 4], 3)];
    let ones = Array::from_f64(&[3], &[1.0; 3]).unwrap();
    let each = results(&inside, &[x.clone(), w.clone(), s.clone()]);
    let all = results(&outside, &[x, w, s, ones]);
    assert!(same(&each[0], &all[1]), "{each:?} {all:?}");
    // Twice.
    let twice = batch(&batch(&m, &[("x", 0)], &Count::Fixed(2)).unwrap(), &[("w", 0)], &Count::Fixed(3)).unwrap();
    check(&twice);
}

#[test]
fn rules_for_derivatives_are_batched() {
    let m = module(
        "func @scale(%x: f64[4], %w: f64[4]) -> f64[4] custom_vjp=[@fwd, @bwd] {\n  %0 = mul %x, %w\n  return %0\n}
         func @fwd(%x: f64[4], %w: f64[4]) -> (f64[4], f64[4], f64[4]) {\n  %0 = mul %x, %w\n  return %0, %x, %w\n}
         func @bwd(%x: f64[4], %w: f64[4], %ct: f64[4]) -> (f64[4], f64[4]) {\n  %0 = mul %ct, %w\n  %1 = mul %ct, %x\n  %2 = add %1, %1\n  return %0, %2\n}
         func @sine(%x: f64[4]) -> f64[4] custom_jvp=@rule {\n  %0 = sin %x\n  return %0\n}
         func @rule(%x: f64[4], %t: f64[4]) -> (f64[4], f64[4]) {\n  %0 = call %x function=@sine\n  %1 = add %t, %0\n  %2 = sub %1, %0\n  return %0, %2\n}
         func @stop(%x: f64[4]) -> f64[4] stop_gradient {\n  return %x\n}
         func @main(%x: f64[4], %w: f64[4]) -> f64[] {
           %0 = call %x, %w function=@scale
           %1 = call %0 function=@sine
           %2 = call %1 function=@stop
           %3 = mul %1, %2
           %4 = sum %3 axes=[0]
           return %4
         }",
    );
    check(&differentiate(&m, &["x", "w"], Form::Gradient).unwrap().module);
    for axes in [&[("x", 0)][..], &[("w", 0)], &[("x", 0), ("w", 0)]] {
        let count = Count::Fixed(3);
        let has = |name: &str| axes.iter().any(|(n, _)| *n == name);
        let inside = batch(&differentiate(&m, &["x", "w"], Form::Gradient).unwrap().module, axes, &count).unwrap();
        let outside = differentiate(&batch(&m, axes, &count).unwrap(), &["x", "w"], Form::Pullback).unwrap().module;
        let shape = |name| if has(name) { vec![3, 4] } else { vec![4] };
        let inputs = [random(F64, &shape("x"), 1), random(F64, &shape("w"), 2)];
        let each = results(&inside, &inputs);
        let ones = Array::from_f64(&[3], &[1.0; 3]).unwrap();
        let all = results(&outside, &[&inputs[..], &[ones]].concat());
        for (i, name) in ["x", "w"].into_iter().enumerate() {
            // What all examples share has the sum of their gradients.
            let want = if has(name) { each[i].clone() } else { sum_first(&each[i]) };
            assert!(same(&want, &all[1 + i]), "{axes:?} {name}: {want:?} {:?}\n{}", all[1 + i], print(&outside));
        }
    }
}

fn sum_first(x: &Array) -> Array {
    let (all, n) = (x.to_f64().unwrap(), x.shape()[1]);
    Array::from_f64(&[n], &(0..n).map(|i| all.iter().skip(i).step_by(n).sum()).collect::<Vec<f64>>()).unwrap()
}

#[test]
fn errors_say_what_is_wrong() {
    let m = module("func @main(%x: f64[n], %w: f64[4]) -> f64[n] where n in 1..=4 {\n  return %x\n}");
    let code = |axes: &[(&str, usize)], count: Count| batch(&m, axes, &count).map(|_| "").unwrap_or_else(|d| d.code);
    assert_eq!(code(&[("y", 0)], Count::Fixed(2)), "unknown-parameter");
    assert_eq!(code(&[("x", 2)], Count::Fixed(2)), "bad-axis");
    assert_eq!(code(&[], Count::Fixed(2)), "no-batch");
    assert_eq!(code(&[("x", 0)], Count::Fixed(-1)), "bad-size");
    assert_eq!(code(&[("x", 0)], Count::Symbol(SymbolDecl::new("n", 1, 4))), "duplicate-name");
    assert_eq!(code(&[("x", 1)], Count::Symbol(SymbolDecl::new("b", 1, 4))), "");
}

/// The results of what `body` builds of inputs.
fn built(inputs: &[Array], body: impl Fn(&Graph, &[Tensor]) -> Vec<Tensor>) -> Vec<Array> {
    let g = Graph::new("main");
    let input = |(i, x): (usize, &Array)| {
        let shape: Vec<i64> = x.shape().iter().map(|n| *n as i64).collect();
        g.input(&format!("x{i}"), x.dtype(), shape)
    };
    let tensors: Vec<Tensor> = inputs.iter().enumerate().map(input).collect();
    let out = body(&g, &tensors);
    let module = g.finish(&out.iter().collect::<Vec<_>>()).unwrap_or_else(|d| panic!("{d}"));
    results(&parse("printed", &print(&module)).unwrap_or_else(|d| panic!("{d}\n{}", print(&module))), inputs)
}

#[test]
fn closures_nest_with_gradients_and_capture() {
    let inputs = [random(F64, &[3, 4], 1), random(F64, &[4], 2), random(F64, &[2, 4], 5)];
    let out = built(&inputs, |g, t| {
        g.function("layer", |g| [g.input("x", F64, [4]).tanh() * g.weight("s", F64, [4])]);
        let [x, w, v] = [&t[0], &t[1], &t[2]];
        let loss = |w: &Tensor, x: &Tensor| (w * x).sin().sum(&[0]);
        // Gradients of each example, by the weight that all share.
        let each = vmap(|x: &Tensor| grad(|w: &Tensor| loss(w, x))(w))(x);
        // Their sum is the gradient of the sum.
        let all = grad(|w: &Tensor| vmap(|x: &Tensor| loss(w, x))(x).sum(&[0]))(w);
        // All pairs, and a result on which the examples have no influence.
        let pairs = vmap(|x: &Tensor| vmap(|v: &Tensor| (x * v).sum(&[0]))(v))(x);
        let (same, _) = vmap(|x: &Tensor| (w.clone(), x.clone()))(x);
        let _ = g;
        vec![each, all, pairs, same]
    });
    assert_eq!(out[0].shape(), [3, 4]);
    assert!(same(&sum_first(&out[0]), &out[1]), "{out:?}");
    let (x, v) = (inputs[0].to_f64().unwrap(), inputs[2].to_f64().unwrap());
    let product = |i: usize, j: usize| (0..4).map(|k| x[4 * i + k] * v[4 * j + k]).sum::<f64>();
    let want: Vec<f64> = (0..3).flat_map(|i| (0..2).map(move |j| (i, j))).map(|(i, j)| product(i, j)).collect();
    assert!(same(&Array::from_f64(&[3, 2], &want).unwrap(), &out[2]));
    assert_eq!(out[3].to_f64().unwrap(), inputs[1].to_f64().unwrap().repeat(3));
}

#[test]
fn weights_and_functions_inside_are_those_of_the_graph() {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=8);
    g.function("layer", |g| [g.input("x", F64, [4]).tanh() * g.weight("s", F64, [4])]);
    let x = g.input("x", F64, (n, 4));
    let y = vmap(|x: &Tensor| {
        let [y] = g.scope("first", || g.call("layer", &[x]));
        y + g.weight("bias", F64, [4])
    })(&x);
    let module = g.finish(&[&y]).unwrap();
    let names: Vec<&str> = module.entry().unwrap().params.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["x", "first.s", "bias"]);
    let text = print(&module);
    assert!(text.contains("func @layer.vmap(%x: f64[examples, 4]"), "{text}");
    let module = parse("printed", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    let [x, s, bias] = [random(F64, &[3, 4], 1), random(F64, &[4], 2), random(F64, &[4], 3)];
    let want: Vec<f64> = (0..12)
        .map(|i| x.to_f64().unwrap()[i].tanh() * s.to_f64().unwrap()[i % 4] + bias.to_f64().unwrap()[i % 4])
        .collect();
    let found = results(&module, &[x, s, bias]);
    assert!(same(&Array::from_f64(&[3, 4], &want).unwrap(), &found[0]), "{found:?}");
}

#[test]
fn jacobians_of_both_modes_agree_and_hessians_are_symmetric() {
    let inputs = [random(F64, &[3], 1), random(F64, &[3, 2], 4)];
    let out = built(&inputs, |_, t| {
        let f = |x: &Tensor| x.reshape([1, 3]).matmul(&t[1]).tanh() * &t[1];
        let g = |x: &Tensor| (x.sin() * x.cumsum(0)).sum(&[0]).exp();
        vec![
            jacobian_forward(f)(&t[0]),
            jacobian_reverse(f)(&t[0]),
            hessian(g)(&t[0]),
            jacobian_reverse(grad(g))(&t[0]),
        ]
    });
    assert_eq!((out[0].shape(), out[2].shape()), (&[3, 2, 3][..], &[3, 3][..]));
    assert!(same(&out[0], &out[1]), "{out:?}");
    assert!(same(&out[2], &out[3]), "{out:?}");
    let h = out[2].to_f64().unwrap();
    assert!((0..3).all(|i| (0..3).all(|j| (h[3 * i + j] - h[3 * j + i]).abs() < 1e-12)), "{h:?}");
    assert!(h.iter().all(|x| x.abs() > 1e-6), "{h:?}");
}

/// Jacobians and Hessians of programs, columns by pushforwards along units; through calls and loops, by symbolic sizes.
#[test]
fn jacobians_of_programs() {
    let text = "
func @step(%c: f64[n], %w: f64[n]) -> f64[n] where n in 1..=9 {
  %0 = mul %c, %w
  %1 = sin %0
  return %1
}
func @main(%x: f64[n], %w: f64[2, n], %k: i64[]) -> (f64[], i64[], f64[2, n]) where n in 1..=9 {
  %0 = scan %x, %w body=@step carries=1 length=2
  %1 = call %0, %x function=@step
  %2 = mul %1, %x
  %3 = sum %2 axes=[0]
  %4 = broadcast %2 shape=[2, n] dims=[1]
  %5 = mul %4, %w
  return %3, %k, %5
}
";
    let m = module(text);
    let inputs = [random(F64, &[3], 1), random(F64, &[2, 3], 4), Array::from_i64(&[], &[2]).unwrap()];
    let found = results(&jacobian(&m, &["x", "w"]).unwrap(), &inputs);
    let shapes: Vec<&[usize]> = found.iter().map(Array::shape).collect();
    assert_eq!(shapes, [&[3][..], &[2, 3], &[2, 3, 3], &[2, 3, 2, 3]]);
    let pushed = differentiate(&m, &["x", "w"], Form::Pushforward).unwrap().module;
    for (at, size) in [(0, 3), (1, 6)] {
        for unit in 0..size {
            let ones: Vec<f64> = (0..9).map(|i| f64::from(u8::from(i == 3 * at + unit))).collect();
            let along = [Array::from_f64(&[3], &ones[..3]).unwrap(), Array::from_f64(&[2, 3], &ones[3..]).unwrap()];
            let want = results(&pushed, &[&inputs[..], &along].concat());
            for (block, tangent) in [(&found[at], &want[3]), (&found[2 + at], &want[4])] {
                let columns = block.to_f64().unwrap();
                let column: Vec<f64> = columns.into_iter().skip(unit).step_by(size).collect();
                assert!(same(&Array::from_f64(tangent.shape(), &column).unwrap(), tangent), "{at} {unit}");
            }
        }
    }
    let second = results(&hessian_of(&m, &["x", "w"]).unwrap(), &inputs);
    let shapes: Vec<&[usize]> = second.iter().map(Array::shape).collect();
    assert_eq!(shapes, [&[3, 3][..], &[3, 2, 3], &[2, 3, 3], &[2, 3, 2, 3]]);
    let along = [random(F64, &[3], 7), random(F64, &[2, 3], 8)];
    let product = results(&hvp_of(&m, &["x", "w"]).unwrap().module, &[&inputs[..], &along].concat());
    let [x, w] = [along[0].to_f64().unwrap(), along[1].to_f64().unwrap()];
    for (i, rows) in [3, 6].into_iter().enumerate() {
        let (by_x, by_w) = (second[2 * i].to_f64().unwrap(), second[2 * i + 1].to_f64().unwrap());
        let sum = |m: &[f64], v: &[f64], row: usize| -> f64 {
            m[row * v.len()..][..v.len()].iter().zip(v).map(|(a, b)| a * b).sum()
        };
        let want: Vec<f64> = (0..rows).map(|row| sum(&by_x, &x, row) + sum(&by_w, &w, row)).collect();
        let found = product[i].to_f64().unwrap();
        assert!(want.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-12 * (1.0 + a.abs())), "{want:?} {found:?}");
    }
}

#[test]
fn mistakes_are_kept_in_the_graph() {
    let code = |body: fn(&Tensor, &Tensor) -> Tensor| {
        let g = Graph::new("main");
        let (x, s) = (g.input("x", F64, [3, 2]), g.input("s", F64, ()));
        let wrong = body(&x, &s);
        assert!(wrong.is_poisoned());
        g.finish(&[&wrong]).unwrap_err().code
    };
    assert_eq!(code(|_, s| vmap(|s: &Tensor| s.exp())(s)), "bad-axis");
    assert_eq!(
        code(|x, _| vmap(|(x, y): &(Tensor, Tensor)| x.sum(&[0]) + y.sum(&[0]))(&(x.clone(), x.transpose(0, 1)))),
        "shape-mismatch"
    );
    assert_eq!(code(|x, _| vmap(|_: &Vec<Tensor>| x.exp())(&Vec::new())), "no-batch");
    assert_eq!(code(|x, _| vmap(|x: &Tensor| x.sum(&[1]))(x)), "bad-axis");
    // A value of one example means nothing outside.
    let leak = |x: &Tensor, _: &Tensor| {
        let inner = std::cell::RefCell::new(None);
        let _ = vmap(|x: &Tensor| inner.replace(Some(x.clone())).map_or_else(|| x.exp(), |_| x.exp()))(x);
        inner.take().map_or_else(|| x.clone(), |x| x.exp())
    };
    assert_eq!(code(leak), "foreign-tensor");
}
