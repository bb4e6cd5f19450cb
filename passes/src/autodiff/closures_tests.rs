//! Derivatives of closures, against numbers worked out by hand and against each other.

use super::{Form, differentiate, grad, gradients, hvp, jvp, linearize, value_and_grad, vjp};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Graph, Tensor, Tensors};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType::F64, DType::I64};

fn numbers(module: &Module, inputs: &[&[f64]]) -> Vec<Vec<f64>> {
    let again = parse("printed", &print(module)).unwrap_or_else(|d| panic!("{d}\n{}", print(module)));
    assert_eq!(difference(module, &again), None);
    let entry = module.entry().unwrap();
    let inputs: Vec<Array> = entry
        .params
        .iter()
        .zip(inputs)
        .map(|(p, x)| {
            let shape: Vec<usize> = p.ty.shape.iter().map(|d| d.as_const().unwrap() as usize).collect();
            Array::from_f64(&shape, x).unwrap()
        })
        .collect();
    let out = run(module, &entry.name, &inputs, &Bindings::new(), Mode::Meaning);
    out.unwrap_or_else(|d| panic!("{d}\n{}", print(module))).iter().map(|a| a.to_f64().unwrap()).collect()
}

fn near(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * a.abs().max(1.0)), "{a:?} {b:?}");
}

/// A struct of weights as users write it.
struct Mlp {
    up: Tensor,
    down: Tensor,
}

impl Tensors for Mlp {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Mlp {
        Mlp { up: self.up.map_tensors(f), down: self.down.map_tensors(f) }
    }
}

impl Mlp {
    fn loss(&self, x: &Tensor) -> Tensor {
        let y = x.matmul(&self.up).tanh().matmul(&self.down);
        (&y * &y).sum(&[0, 1])
    }
}

const X: [f64; 6] = [0.5, -0.25, 1.0, 0.75, -1.5, 0.125];
const UP: [f64; 6] = [0.3, -0.2, 0.9, 0.1, -0.4, 0.7];
const DOWN: [f64; 2] = [1.5, -0.75];

fn parts(g: &Graph) -> (Tensor, Mlp) {
    let x = g.input("x", F64, [2, 3]);
    (x, Mlp { up: g.weight("up", F64, [3, 2]), down: g.weight("down", F64, [2, 1]) })
}

#[test]
fn a_struct_of_weights_has_the_gradient_of_the_module() {
    let g = Graph::new("main");
    let (x, mlp) = parts(&g);
    let (loss, d) = value_and_grad(|mlp: &Mlp| mlp.loss(&x))(&mlp);
    let made = g.finish(&[&loss, &d.up, &d.down]).unwrap();
    let plain = Graph::new("main");
    let (x, mlp) = parts(&plain);
    let plain = plain.finish(&[&mlp.loss(&x)]).unwrap();
    let plain = differentiate(&plain, &["up", "down"], Form::ValueAndGradient).unwrap().module;
    let inputs: [&[f64]; 3] = [&X, &UP, &DOWN];
    assert_eq!(numbers(&made, &inputs), numbers(&plain, &inputs));
    // No trace of how it was made.
    assert!(!print(&made).contains("reshape"), "{}", print(&made));
    // The same by values.
    let g = Graph::new("main");
    let (x, mlp) = parts(&g);
    let weights: Vec<Tensor> = g.weights().into_iter().map(|(_, t)| t).collect();
    let all = gradients(&mlp.loss(&x), &weights);
    let values = g.finish(&all.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(numbers(&values, &inputs), numbers(&made, &inputs)[1..]);
}

#[test]
fn derivatives_nest_to_any_depth() {
    let g = Graph::new("main");
    let x = g.input("x", F64, [2]);
    let f = |x: &Tensor| (x.sin() * x).sum(&[0]);
    let first = grad(f);
    let second = grad(|x: &Tensor| grad(f)(x).sum(&[0]));
    let third = grad(|x: &Tensor| grad(|x: &Tensor| grad(f)(x).sum(&[0]))(x).sum(&[0]));
    let fourth = jvp(grad(|x: &Tensor| grad(|x: &Tensor| grad(f)(x).sum(&[0]))(x).sum(&[0])));
    let ones = g.full(F64, [2], 1.0);
    let module = g.finish(&[&first(&x), &second(&x), &third(&x), &fourth(&x, &ones).1]).unwrap();
    let at = [0.7, -1.3];
    let out = numbers(&module, &[&at]);
    let each = |f: fn(f64) -> f64| at.map(f);
    near(&out[0], &each(|x| x.sin() + x * x.cos()));
    near(&out[1], &each(|x| 2.0 * x.cos() - x * x.sin()));
    near(&out[2], &each(|x| -3.0 * x.sin() - x * x.cos()));
    near(&out[3], &each(|x| -4.0 * x.cos() + x * x.sin()));
}

#[test]
fn forward_over_reverse_is_reverse_over_forward() {
    let g = Graph::new("main");
    let (x, mlp) = parts(&g);
    let v = g.input("v", F64, [2, 3]);
    let f = |x: &Tensor| mlp.loss(&x.sin());
    let forward = hvp(f)(&x, &v);
    let reverse = grad(|x: &Tensor| jvp(f)(x, &v).1)(&x);
    let twice = grad(|x: &Tensor| (grad(f)(x) * &v).sum(&[0, 1]))(&x);
    let module = g.finish(&[&forward, &reverse, &twice]).unwrap();
    let out = numbers(&module, &[&X, &UP, &DOWN, &[1.0, 0.5, -0.5, 0.25, 2.0, -1.0]]);
    assert!(out[0].iter().any(|x| x.abs() > 0.1));
    near(&out[0], &out[1]);
    near(&out[0], &out[2]);
}

#[test]
fn what_a_closure_uses_beside_its_argument_is_constant() {
    let g = Graph::new("main");
    let x = g.input("x", F64, [2]);
    let z = &x * &x;
    let d = grad(|x: &Tensor| (x * &z).sum(&[0]))(&x);
    let module = g.finish(&[&d]).unwrap();
    assert_eq!(numbers(&module, &[&[3.0, -2.0]]), [[9.0, 4.0]]);
}

#[test]
fn a_pullback_and_a_linear_map_may_be_used_twice() {
    let g = Graph::new("main");
    let (x, y) = (g.input("x", F64, [2]), g.input("y", F64, [2]));
    let f = |(x, y): &(Tensor, Tensor)| vec![x * y, x.exp()];
    let (values, back) = vjp(f)(&(x.clone(), y.clone()));
    let (one, none) = (g.full(F64, [2], 1.0), g.full(F64, [2], 0.0));
    let a = back(&vec![one.clone(), none.clone()]);
    let b = back(&vec![none.clone(), one.clone()]);
    let (_, along) = linearize(f)(&(x, y));
    let c = along(&(one.clone(), none.clone()));
    let d = along(&(none, one));
    let module = g.finish(&[&values[0], &a.0, &a.1, &b.0, &c[0], &c[1], &d[0], &d[1]]).unwrap();
    let (x, y) = ([1.0, 2.0], [3.0, 5.0]);
    let e = x.map(f64::exp);
    let want = [[3.0, 10.0], y, x, e, y, e, x, [0.0, 0.0]];
    numbers(&module, &[&x, &y]).iter().zip(want).for_each(|(a, b)| near(a, &b));
}

#[test]
fn gradients_pass_through_functions_loops_and_branches() {
    let g = Graph::new("main");
    g.function("layer", |g| [g.input("x", F64, [2]).sin() * g.weight("w", F64, [2])]);
    g.function("same", |g| [g.input("x", F64, [2])]);
    g.function("step", |g| {
        let (x, s) = (g.input("x", F64, [2]), g.input("s", F64, [2]));
        let next = &x * &s + x.sin();
        [next.clone(), next.exp()]
    });
    let (x, s) = (g.input("x", F64, [2]), g.input("s", F64, [3, 2]));
    let f = |(x, s): &(Tensor, Tensor)| {
        let [y] = g.call("layer", &[x]);
        let up = g.cond(&x.sum(&[0]).gt(0.0), "same", "same", &[&y]);
        let out = g.scan("step", &[&up[0]], &[s], 3);
        out[0].sum(&[0]) + out[1].sum(&[0, 1])
    };
    let inner = |x: &(Tensor, Tensor)| {
        let (dx, ds) = grad(f)(x);
        (dx * 0.5).sum(&[0]) + (ds * 0.25).sum(&[0, 1])
    };
    let (y, d) = value_and_grad(f)(&(x.clone(), s.clone()));
    let (dx, ds) = grad(inner)(&(x, s));
    let module = g.finish(&[&y, &d.0, &inner_sum(&d), &dx, &ds]).unwrap();
    let w = [0.5, -0.75];
    let (x, s) = ([0.4, -0.3], [0.2, 0.1, -0.5, 0.3, 0.25, 0.6]);
    let order: Vec<String> = module.entry().unwrap().params.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(order, ["x", "s", "w"]);
    let at = |x: [f64; 2]| numbers(&module, &[&x, &s, &w]);
    let out = at(x);
    let step = 1e-5;
    for i in 0..2 {
        let shifted = |by: f64| {
            let mut x = x;
            x[i] += by;
            at(x)
        };
        let (up, down) = (shifted(step), shifted(-step));
        let slope = |result: usize| (up[result][0] - down[result][0]) / (2.0 * step);
        assert!((slope(0) - out[1][i]).abs() < 1e-8, "{} {}", slope(0), out[1][i]);
        assert!((slope(2) - out[3][i]).abs() < 1e-8, "{} {}", slope(2), out[3][i]);
    }
}

fn inner_sum((dx, ds): &(Tensor, Tensor)) -> Tensor {
    (dx * 0.5).sum(&[0]) + (ds * 0.25).sum(&[0, 1])
}

fn lines(d: &Diagnostic) -> Vec<u32> {
    let line = |(p, _): &(Place, String)| match p {
        Place::Rust { line, .. } => Some(*line),
        Place::Text { .. } | Place::Named(_) => None,
    };
    d.labels.iter().filter_map(line).collect()
}

#[test]
fn mistakes_name_the_closure_and_the_tensor() {
    type Mistake = fn(&Tensor, &Tensor) -> Tensor;
    let line = line!();
    let mistakes: [(&str, Mistake, [u32; 2]); 5] = [
        ("not-scalar", |x, _| grad(|x: &Tensor| x.exp())(x), [line + 2, line + 2]),
        ("no-gradient", |x, i| grad(|(x, _): &(Tensor, Tensor)| x.sum(&[0]))(&(x.clone(), i.clone())).0, [line + 3, 0]),
        ("no-gradient", |x, _| grad(|x: &Tensor| x.argmax(0))(x), [line + 4, line + 4]),
        ("shape-mismatch", |x, _| vjp(|x: &Tensor| x.sum(&[0]))(x).1(x), [line + 5, 0]),
        ("shape-mismatch", |x, _| jvp(|x: &Tensor| x.exp())(x, &x.sum(&[0])).1, [line + 6, line + 6]),
    ];
    for (code, mistake, at) in mistakes {
        let g = Graph::new("main");
        let made = line!() + 1;
        let (x, i) = (g.input("x", F64, [2]), g.input("i", I64, [2]));
        let wrong = mistake(&x, &i);
        assert!(wrong.is_poisoned());
        let d = g.finish(&[&wrong]).unwrap_err();
        let at = at.map(|line| if line == 0 { made } else { line });
        assert_eq!((d.code, lines(&d)), (code, at.to_vec()), "{d}");
    }
}

#[test]
fn what_no_result_depends_on_has_zeros_and_a_warning() {
    let g = Graph::new("main");
    let (x, y) = (g.input("x", F64, [2]), g.input("y", F64, [2]));
    let line = line!() + 1;
    let (_, d) = grad(|(x, _): &(Tensor, Tensor)| x.sum(&[0]))(&(x, y));
    let module = g.finish(&[&d]).unwrap();
    assert_eq!(numbers(&module, &[&[1.0, 2.0], &[3.0, 4.0]]), [[0.0, 0.0]]);
    let [warning] = g.warnings().try_into().unwrap();
    assert_eq!((warning.code, lines(&warning)), ("unrelated", vec![line, line - 2]), "{warning}");
}

#[test]
fn no_cotangents_are_made_toward_a_stopped_gradient() {
    let g = Graph::new("main");
    let x = g.input("x", F64, [2]);
    let d = grad(|x: &Tensor| (x.exp().stop_gradient().tanh() * x).sum(&[0]))(&x);
    let module = g.finish(&[&d]).unwrap();
    near(&numbers(&module, &[&[0.5, -1.0]])[0], &[0.5f64.exp().tanh(), (-1.0f64).exp().tanh()]);
    // Nothing of the rule of tanh, which no result would need: the graph under construction keeps what is appended.
    assert!(!print(&module).contains("= sub "), "{}", print(&module));
}

#[test]
fn nodes_of_a_gradient_have_the_lines_of_the_closure() {
    let g = Graph::new("main");
    let x = g.input("x", F64, [2]);
    let line = line!() + 2;
    let d = grad(|x: &Tensor| {
        let y = x.tanh();
        y.sum(&[0])
    })(&x);
    let module = g.finish(&[&d]).unwrap();
    let f = module.entry().unwrap();
    let at = |node: usize| match f.nodes[node].places.first() {
        Some(Place::Rust { line, .. }) => *line,
        _ => panic!("{}", print(&module)),
    };
    // All but the parameter: the tanh, the sum, the cotangent of the sum, its repetition, and the rule of tanh.
    let mut found: Vec<u32> = (1..f.nodes.len()).map(at).collect();
    found.dedup();
    assert_eq!(found, [line, line + 1, line], "{}", print(&module));
    assert!(!f.nodes.iter().any(|n| matches!(n.op, GraphOp::Reshape { .. })));
}
