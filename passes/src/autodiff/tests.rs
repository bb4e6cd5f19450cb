//! Gradients against differences of values, and forward against reverse mode.

use super::{Form, differentiate};
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::{parse, print};
use tilewright_ir::types::{Bindings, DType};

pub(super) fn module(text: &str) -> Module {
    parse("test.tw", text).unwrap_or_else(|d| panic!("{d}"))
}

pub(super) fn results(module: &Module, inputs: &[Array]) -> Vec<Array> {
    let entry = module.entry().unwrap().name.clone();
    run(module, &entry, inputs, &Bindings::new(), Mode::Meaning).unwrap_or_else(|d| panic!("{d}\n{}", print(module)))
}

/// Numbers in -1..1 that differ.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| (((i * 37 + seed * 101 + 11) % 199) as f64 / 100.0 - 0.99) * 0.9).collect()
}

fn random(like: &Array, seed: usize) -> Array {
    Array::from_f64(like.shape(), &numbers(like.len(), seed)).unwrap()
}

fn along(x: &Array, direction: &Array, step: f64) -> Array {
    let (x_, d) = (x.to_f64().unwrap(), direction.to_f64().unwrap());
    Array::from_f64(x.shape(), &x_.iter().zip(d).map(|(x, d)| x + step * d).collect::<Vec<f64>>()).unwrap()
}

fn inner(a: &[Array], b: &[Array]) -> f64 {
    let product = |(a, b): (&Array, &Array)| -> f64 {
        a.to_f64().unwrap().iter().zip(b.to_f64().unwrap()).map(|(a, b)| a * b).sum()
    };
    a.iter().zip(b).map(product).sum()
}

fn floats(arrays: Vec<Array>) -> Vec<Array> {
    arrays.into_iter().filter(|a| a.dtype() == DType::F64).collect()
}

/// Tangents against central differences, and cotangents against tangents: `ct . (J t) = (ct J) . t`.
pub(super) fn check(module: &Module, inputs: &[Array]) {
    let f = module.entry().unwrap();
    let wrt: Vec<&str> = f.params.iter().filter(|p| p.ty.dtype == DType::F64).map(|p| &*p.name).collect();
    let moving = |i: &usize| f.params[*i].ty.dtype == DType::F64;
    let tangents: Vec<Array> = (0..inputs.len()).filter(moving).map(|i| random(&inputs[i], i + 7)).collect();
    let moved = |step: f64| {
        let mut next = tangents.iter();
        let shift = |(i, x): (usize, &Array)| if moving(&i) { along(x, next.next().unwrap(), step) } else { x.clone() };
        floats(results(module, &inputs.iter().enumerate().map(shift).collect::<Vec<Array>>()))
    };
    let push = differentiate(module, &wrt, Form::Pushforward).unwrap_or_else(|d| panic!("{d}")).module;
    let values = floats(results(module, inputs));
    let all = results(&push, &[inputs, &tangents].concat());
    let along: Vec<Array> = all[f.results.len()..].to_vec();
    let cts: Vec<Array> = values.iter().enumerate().map(|(i, y)| random(y, i + 3)).collect();
    let step = 1e-5;
    let difference = (inner(&moved(step), &cts) - inner(&moved(-step), &cts)) / (2.0 * step);
    let forward = inner(&along, &cts);
    let close = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0);
    assert!(close(forward, difference, 1e-7), "forward {forward}, differences {difference}\n{}", print(&push));
    let pull = differentiate(module, &wrt, Form::Pullback).unwrap_or_else(|d| panic!("{d}")).module;
    let all = results(&pull, &[inputs, &cts].concat());
    let reverse = inner(&all[f.results.len()..], &tangents);
    assert!(close(forward, reverse, 1e-12), "forward {forward}, reverse {reverse}\n{}", print(&pull));
    // What is differentiated is a text like any other.
    for made in [&push, &pull] {
        assert_eq!(print(&module_again(made)), print(made));
    }
}

fn module_again(m: &Module) -> Module {
    module(&print(m))
}

pub(super) fn f64s(shape: &[usize], seed: usize) -> Array {
    Array::from_f64(shape, &numbers(shape.iter().product(), seed)).unwrap()
}

const CALLS: &str = "
func @block(%x: f64[k, 3], weight %w: f64[3, 3], %n: i64[]) -> (f64[k, 3], i64[]) where k in 1..=64 {
  %0 = dot %x, %w contract=[1]x[0]
  %1 = tanh %0
  %2 = mul %1, %x
  return %2, %n
}
func @main(%x: f64[n, 3], weight %a: f64[3, 3], weight %b: f64[3, 3], %i: i64[]) -> (f64[n, 3], i64[]) where n in 1..=64 {
  %0 = call %x, %a, %i function=@block
  %1 = call %0#0, %b, %i function=@block
  %2 = call %1#0, %a, %0#1 function=@block
  return %2#0, %2#1
}
";

#[test]
fn the_gradient_of_calls_is_calls_of_shared_functions() {
    let m = module(CALLS);
    let inputs = [f64s(&[2, 3], 1), f64s(&[3, 3], 2), f64s(&[3, 3], 3), Array::from_i64(&[], &[5]).unwrap()];
    check(&m, &inputs);
    let pull = differentiate(&m, &["x", "a", "b"], Form::Pullback).unwrap().module;
    let names: Vec<&str> = pull.functions.keys().map(|n| &**n).collect();
    // The second question has a cotangent of `a` already, to which it adds.
    assert_eq!(names, ["block.fwd", "block.bwd", "block.bwd1", "main"]);
}

const SCAN: &str = "
func @body(%h: f64[4], %w: f64[4, 4], %n: i64[], %x: f64[4], %k: i64[]) -> (f64[4], f64[4, 4], i64[], f64[4]) {
  %0 = dot %h, %w contract=[0]x[0]
  %1 = add %0, %x
  %2 = tanh %1
  %3 = mul %2, %h
  %4 = add %n, %k
  return %2, %w, %4, %3
}
func @main(%h: f64[4], %w: f64[4, 4], %n: i64[], %xs: f64[t, 4], %ks: i64[t]) -> (f64[4], i64[], f64[t, 4]) where t in 0..=9 {
  %0 = scan %h, %w, %n, %xs, %ks body=@body carries=3 length=t
  return %0#0, %0#2, %0#3
}
";

#[test]
fn the_gradient_of_a_scan_is_a_scan_that_saves_nothing_that_stays() {
    let m = module(SCAN);
    for t in [0usize, 1, 5] {
        let (n, ks) = (Array::from_i64(&[], &[2]).unwrap(), Array::from_i64(&[t], &vec![1; t]).unwrap());
        check(&m, &[f64s(&[4], 1), f64s(&[4, 4], 2), n, f64s(&[t, 4], 3), ks]);
    }
    let pull = differentiate(&m, &["w"], Form::Pullback).unwrap().module;
    let forward = pull.functions.values().find(|f| f.name.starts_with("body.fwd")).unwrap();
    assert!(forward.results[4..].iter().all(|&r| forward.ty(r).rank() == 1), "{}", print(&pull));
}

/// A carry that moves only from the second step on, and one whose cotangent comes from another carry.
#[test]
fn carries_that_depend_on_each_other() {
    let text = "
func @body(%a: f64[3], %b: f64[3], %c: f64[3]) -> (f64[3], f64[3], f64[3]) {
  %0 = sin %b
  %1 = mul %c, %a
  %2 = exp %a
  return %1, %0, %2
}
func @main(%a: f64[3], %b: f64[3], %c: f64[3]) -> f64[3] {
  %0 = scan %a, %b, %c body=@body carries=3 length=4
  return %0#0
}
";
    check(&module(text), &[f64s(&[3], 1), f64s(&[3], 2), f64s(&[3], 3)]);
    let only_c = differentiate(&module(text), &["c"], Form::Pushforward).unwrap();
    assert!(only_c.unrelated.is_empty());
}

#[test]
fn branches_of_a_condition() {
    let text = "
func @grow(%x: f64[4], %y: f64[4]) -> (f64[4], f64[4]) {
  %0 = exp %x
  return %0, %y
}
func @keep(%x: f64[4], %y: f64[4]) -> (f64[4], f64[4]) {
  %0 = mul %y, %y
  %1 = mul %0, %y
  return %1, %y
}
func @main(%p: bool[], %x: f64[4], %y: f64[4]) -> (f64[4], f64[4]) {
  %0 = cond %p, %x, %y yes=@grow no=@keep
  return %0#0, %0#1
}
";
    for p in [true, false] {
        check(&module(text), &[Array::from_bool(&[], &[p]).unwrap(), f64s(&[4], 1), f64s(&[4], 2)]);
    }
}

/// The Hessian times a vector, in reverse over reverse and forward over reverse; it is symmetric.
#[test]
fn second_derivatives() {
    let text = "
func @layer(%x: f64[3], %w: f64[3, 3]) -> f64[3] {
  %0 = dot %x, %w contract=[0]x[0]
  %1 = sin %0
  return %1
}
func @main(%x: f64[3], %w: f64[3, 3]) -> f64[] {
  %0 = call %x, %w function=@layer
  %1 = call %0, %w function=@layer
  %2 = exp %1
  %3 = sum %2 axes=[0]
  return %3
}
";
    let gradient = differentiate(&module(text), &["x", "w"], Form::Gradient).unwrap().module;
    let inputs = [f64s(&[3], 1), f64s(&[3, 3], 2)];
    check(&gradient, &inputs);
    let push = differentiate(&gradient, &["x", "w"], Form::Pushforward).unwrap().module;
    let times = |seed: usize| {
        let v = vec![f64s(&[3], seed), f64s(&[3, 3], seed + 1)];
        (v.clone(), results(&push, &[&inputs[..], &v].concat())[2..].to_vec())
    };
    let ((u, hu), (v, hv)) = (times(11), times(23));
    assert!((inner(&hu, &v) - inner(&u, &hv)).abs() < 1e-12);
}

#[test]
fn every_movement_and_index_op() {
    let text = "
func @main(%x: f64[n, 7], %s: f64[], %ids: i64[2, 2], %along: i64[n, 3], %b: f64[1, 7]) -> (f64[n, 4], f64[9, n], f64[2, 2, 7], f64[n, 3], f64[n, 14], f64[n, 7], f64[n, 7], f64[n, 7]) where n in 2..=9 {
  %0 = slice %x start=[0, 1] limit=[n, 7] stride=[1, 2]
  %1 = pad %0, %s amounts=[(0, 0), (1, 0)]
  %2 = transpose %x perm=[1, 0]
  %3 = pad %2, %s amounts=[(2, 0), (0, 0)]
  %4 = take %x, %ids axis=0
  %5 = take_along %x, %along axis=1
  %6 = concat %x, %x axis=1
  %7 = flip %6 axes=[0, 1]
  %8 = scatter_add %x, %along, %5 axis=1
  %9 = update_slice %x, %5 start=[0, 3]
  %10 = broadcast %b shape=[n, 7] dims=[0, 1]
  %11 = mul %10, %8
  %12 = cumsum %11 axis=1
  %13 = mul %12, %9
  return %1, %3, %4, %5, %7, %8, %9, %13
}
";
    let ids = Array::from_i64(&[2, 2], &[0, 2, 2, 1]).unwrap();
    let along = Array::from_i64(&[3, 3], &[0, 0, 6, 1, 2, 3, 5, 5, 5]).unwrap();
    check(&module(text), &[f64s(&[3, 7], 1), f64s(&[], 2), ids, along, f64s(&[1, 7], 4)]);
}

/// Slices by steps whose last group ends in the middle, behind the end and at the end.
#[test]
fn slices_by_steps() {
    for (start, limit, step) in [(0, 7, 3), (1, 7, 3), (2, 3, 4), (0, 7, 7), (1, 2, 5), (3, 3, 2)] {
        let text = format!(
            "func @main(%x: f64[7]) -> f64[{}] {{\n %0 = slice %x start=[{start}] limit=[{limit}] stride=[{step}]\n %1 = mul %0, %0\n return %1\n}}",
            (limit - start + step - 1) / step
        );
        check(&module(&text), &[f64s(&[7], 5)]);
    }
}

#[test]
fn every_scalar_op_and_fold() {
    let unary =
        ["neg", "abs", "sign", "floor", "ceil", "round", "trunc", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log"];
    let more = ["log2", "log1p", "tanh", "erf", "sin", "cos"];
    for op in unary.into_iter().chain(more) {
        let text = format!("func @main(%x: f64[6]) -> f64[6] {{\n %0 = mul %x, %x\n %1 = {op} %0\n return %1\n}}");
        check(&module(&text), &[f64s(&[6], 3)]);
    }
    for op in ["add", "sub", "mul", "div", "rem", "pow", "max", "min"] {
        let text = format!(
            "func @main(%x: f64[6], %y: f64[6]) -> f64[6] {{\n %0 = mul %x, %x\n %1 = {op} %0, %y\n return %1\n}}"
        );
        check(&module(&text), &[f64s(&[6], 3), f64s(&[6], 9)]);
    }
    for op in ["sum", "prod", "reduce_max", "reduce_min"] {
        let text = format!("func @main(%x: f64[4, 3, 2]) -> f64[3] {{\n %0 = {op} %x axes=[0, 2]\n return %0\n}}");
        check(&module(&text), &[f64s(&[4, 3, 2], 3)]);
    }
    let text = "
func @main(%p: bool[4], %x: f64[4], %y: f64[4], %h: f32[4]) -> f64[4] {
  %0 = select %p, %x, %y
  %1 = cast %0 to=f64
  %2 = cast %h to=f64
  %3 = mul %1, %2
  return %3
}
";
    let p = Array::from_bool(&[4], &[true, false, true, false]).unwrap();
    let h = Array::from_f32(&[4], &[0.5, 0.25, 1.5, 2.0]).unwrap();
    check(&module(text), &[p, f64s(&[4], 1), f64s(&[4], 2), h]);
}

/// Gradient of a scalar function of one vector, at a point.
fn gradient(text: &str, x: &[f64]) -> Vec<f64> {
    let g = differentiate(&module(text), &["x"], Form::Gradient).unwrap().module;
    results(&g, &[Array::from_f64(&[x.len()], x).unwrap()])[0].to_f64().unwrap()
}

/// The Hessian of a product is that of torch where an element is 0, too.
#[test]
fn second_derivatives_of_a_product() {
    let text = "func @main(%x: f64[n]) -> f64[] where n in 0..=9 {\n %r = prod %x axes=[0]\n return %r\n}";
    let g = differentiate(&module(text), &["x"], Form::Gradient).unwrap().module;
    let h = differentiate(&g, &["x"], Form::Pushforward).unwrap().module;
    let x = Array::from_f64(&[3], &[0.0, 2.0, 3.0]).unwrap();
    for (along, column) in [([1.0, 0.0, 0.0], [0.0, 3.0, 2.0]), ([0.0, 1.0, 0.0], [3.0, 0.0, 0.0])] {
        let along = Array::from_f64(&[3], &along).unwrap();
        assert_eq!(results(&h, &[x.clone(), along])[1].to_f64().unwrap(), column);
    }
}

/// What torch gives at these places.
#[test]
fn edges() {
    let of = |body: &str| format!("func @main(%x: f64[n]) -> f64[] where n in 0..=9 {{\n{body}\n return %r\n}}");
    let top = of(" %r = reduce_max %x axes=[0]");
    assert_eq!(gradient(&top, &[1.0, 3.0, 3.0]), [0.0, 0.5, 0.5]);
    let abs = of(" %0 = abs %x\n %r = sum %0 axes=[0]");
    assert_eq!(gradient(&abs, &[0.0, -2.0]), [0.0, -1.0]);
    let root = of(" %0 = sqrt %x\n %r = sum %0 axes=[0]");
    assert_eq!(gradient(&root, &[0.0]), [f64::INFINITY]);
    let product = of(" %r = prod %x axes=[0]");
    assert_eq!(gradient(&product, &[2.0, 0.0, 3.0]), [0.0, 6.0, 0.0]);
    assert_eq!(gradient(&product, &[0.0, 0.0, 3.0]), [0.0, 0.0, 0.0]);
    let beside_infinity = gradient(&product, &[0.0, 1.0, f64::INFINITY, 3.0]);
    assert!(beside_infinity[0] == f64::INFINITY && beside_infinity[2] == 0.0);
    assert!(beside_infinity[1].is_nan() && beside_infinity[3].is_nan());
    let tie = of(" %0 = max %x, %x\n %r = sum %0 axes=[0]");
    assert_eq!(gradient(&tie, &[1.0]), [1.0]);
    // The branch that is not taken is NaN, the gradient is not.
    let hidden = of(
        " %0 = log %x\n %c = constant f64[] = 0.0\n %z = broadcast %c shape=[n] dims=[]\n %p = gt %x, %z\n %1 = select %p, %0, %z\n %r = sum %1 axes=[0]",
    );
    assert_eq!(gradient(&hidden, &[-1.0, 2.0]), [-0.0, 0.5]);
    let power =
        of(" %c = constant f64[] = 0.0\n %z = broadcast %c shape=[n] dims=[]\n %0 = pow %x, %z\n %r = sum %0 axes=[0]");
    assert_eq!(gradient(&power, &[0.0, 2.0]), [0.0, 0.0]);
    assert_eq!(gradient(&top, &[]), [0.0; 0]);
}

#[test]
fn errors_say_what_is_wrong() {
    let code = |text: &str, wrt: &[&str], form| differentiate(&module(text), wrt, form).err().map(|d| d.code);
    let vector = "func @main(%x: f64[3], %i: i64[3]) -> f64[3] {\n return %x\n}";
    assert_eq!(code(vector, &["x"], Form::Gradient), Some("not-scalar"));
    assert_eq!(code(vector, &["x"], Form::Pullback), None);
    assert_eq!(code(vector, &["y"], Form::Pullback), Some("unknown-parameter"));
    assert_eq!(code(vector, &["i"], Form::Pullback), Some("no-gradient"));
    let integers = "func @main(%x: f64[3], %i: i64[]) -> i64[] {\n return %i\n}";
    assert_eq!(code(integers, &["x"], Form::Gradient), Some("no-gradient"));
    let other = "func @main(%x: f64[], %y: f64[3]) -> f64[] {\n return %x\n}";
    let d = differentiate(&module(other), &["y", "x"], Form::ValueAndGradient).unwrap();
    assert_eq!(d.unrelated.iter().map(|n| &**n).collect::<Vec<&str>>(), ["y"]);
    let out = results(&d.module, &[f64s(&[], 1), f64s(&[3], 2)]);
    assert_eq!(out[1].to_f64().unwrap(), [0.0; 3]);
    assert_eq!(out[2].to_f64().unwrap(), [1.0]);
}
