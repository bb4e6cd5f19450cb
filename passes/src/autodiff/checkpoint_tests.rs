//! Regions that are computed again on the way back: the same numbers, and nothing is kept.

use super::tests::{module, results};
use super::{Form, checkpoint, differentiate, grad, hvp, jvp, value_and_grad};
use crate::vmap::vmap;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Derivative, Module, Node};
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType::F64;

const STEP: &str = "
func @step(%x: f64[3], %w: f64[3]) -> (f64[3], f64[3]) checkpoint {
  %0 = mul %x, %w
  %1 = sin %0
  %2 = exp %1
  %3 = tanh %2
  return %3, %w
}
";

fn scanned(derivative: &str) -> Module {
    module(&format!(
        "{}func @main(%x: f64[3], %w: f64[3]) -> f64[] {{
          %0 = scan %x, %w body=@step carries=2 length=5
          %1 = mul %0#0, %0#0
          %2 = sum %1 axes=[0]
          return %2
        }}",
        STEP.replace("checkpoint", derivative)
    ))
}

fn f64s(shape: &[usize], by: f64) -> Array {
    let count: usize = shape.iter().product();
    Array::from_f64(shape, &(0..count).map(|i| (i as f64 * 0.7 + by).sin()).collect::<Vec<_>>()).unwrap()
}

fn bits(m: &Module, inputs: &[Array]) -> Vec<Vec<u8>> {
    results(m, inputs).iter().map(|a| a.bytes().to_vec()).collect()
}

fn runs(m: &Module) -> Vec<&Node> {
    m.entry().unwrap().nodes.iter().filter(|n| !n.callees().is_empty()).collect()
}

#[test]
fn a_scan_keeps_its_carries_only() {
    let [plain, again] = ["", "checkpoint"].map(|derivative| {
        let m = scanned(derivative);
        assert_eq!(difference(&m, &parse("again", &print(&m)).unwrap()), None);
        differentiate(&m, &["x", "w"], Form::ValueAndGradient).unwrap().module
    });
    // The carries, then what is stacked: the carry before each step alone, as the other stays.
    let found: Vec<usize> = [&plain, &again].map(|m| runs(m)[0].types.len()).to_vec();
    assert_eq!(found, [6, 3], "{}", print(&again));
    let inputs = [f64s(&[3], 0.1), f64s(&[3], 0.9)];
    assert_eq!(bits(&plain, &inputs), bits(&again, &inputs));
}

#[test]
fn derivatives_of_a_region_are_regions() {
    let [plain, again] = ["", "checkpoint"].map(scanned);
    let both = |form, inner| {
        [&plain, &again].map(|m| {
            let first = differentiate(m, &["x", "w"], inner).unwrap().module;
            differentiate(&first, &["x", "w"], form).unwrap().module
        })
    };
    let inputs = |n: usize| (0..n).map(|i| f64s(&[3], i as f64)).collect::<Vec<Array>>();
    for (form, inner) in [(Form::Pushforward, Form::Pullback), (Form::Pullback, Form::Pushforward)] {
        let [plain, again] = both(form, inner);
        let params = &plain.entry().unwrap().params;
        let inputs: Vec<Array> = inputs(params.len())
            .iter()
            .zip(params)
            .map(|(a, p)| if p.ty.rank() == 0 { f64s(&[], 0.3) } else { a.clone() })
            .collect();
        assert_eq!(bits(&plain, &inputs), bits(&again, &inputs), "{}", print(&again));
        let regions = again.functions.values().filter(|f| f.derivative == Derivative::Checkpoint).count();
        assert!(regions >= 2, "{}", print(&again));
    }
}

fn layer(x: &Tensor, w: &Tensor) -> Tensor {
    (x.matmul(w).tanh() * 0.5).exp().matmul(w) + x
}

#[test]
fn closures_are_regions_and_equal_ones_are_one_function() {
    let built = |region: bool| {
        let g = Graph::new("main");
        let (x, w) = (g.input("x", F64, [4, 3]), g.weight("w", F64, [3, 3]));
        let loss = |(x, w): &(Tensor, Tensor)| {
            let one = |x: &Tensor| if region { checkpoint(|x: &Tensor| layer(x, w))(x) } else { layer(x, w) };
            one(&one(&one(x))).sin().sum(&[0, 1])
        };
        let all = (x, w);
        let (y, d) = value_and_grad(loss)(&all);
        let second = hvp(loss)(&all, &all);
        let along = jvp(loss)(&all, &all).1;
        g.finish(&[&y, &d.0, &d.1, &second.0, &second.1, &along]).unwrap()
    };
    let inputs = [f64s(&[4, 3], 0.2), f64s(&[3, 3], 0.6)];
    let (plain, again) = (built(false), built(true));
    for (a, b) in results(&plain, &inputs).iter().zip(results(&again, &inputs)) {
        let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
        assert!(a.to_f64().unwrap().into_iter().zip(b.to_f64().unwrap()).all(near), "{a:?} {b:?}");
    }
    let named = |n: &str| again.functions.keys().filter(|k| ***k == *n).count();
    assert_eq!((named("checkpoint"), named("checkpoint1")), (1, 0), "{}", print(&again));
    // The first pass keeps nothing.
    let forward =
        runs(&again).into_iter().filter(|n| matches!(&n.op, GraphOp::Call { function } if &**function == "checkpoint"));
    assert!(forward.inspect(|n| assert_eq!(n.types.len(), 1)).count() >= 3);
}

#[test]
fn many_examples_of_a_region_are_one() {
    let built = |region: bool| {
        let g = Graph::new("main");
        let (x, w) = (g.input("x", F64, [5, 4, 3]), g.weight("w", F64, [3, 3]));
        let loss = |x: &Tensor| {
            let one = |x: &Tensor| if region { checkpoint(|x: &Tensor| layer(x, &w))(x) } else { layer(x, &w) };
            one(x).sin().sum(&[0, 1])
        };
        let inside = vmap(|x: &Tensor| grad(loss)(x))(&x);
        let outside = grad(|x: &Tensor| vmap(loss)(x).sum(&[0]))(&x);
        g.finish(&[&inside, &outside]).unwrap()
    };
    let inputs = [f64s(&[5, 4, 3], 0.2), f64s(&[3, 3], 0.6)];
    let again = built(true);
    assert_eq!(bits(&built(false), &inputs), bits(&again, &inputs));
    let regions = again.functions.iter().filter(|(n, f)| n.contains(".vmap") && f.derivative == Derivative::Checkpoint);
    assert!(regions.count() >= 2, "{}", print(&again));
}

#[test]
fn a_function_is_a_region_by_name() {
    let g = Graph::new("main");
    g.function("f", |g| [g.input("x", F64, [2]).exp().sin()]);
    g.checkpoint("f");
    let x = g.input("x", F64, [2]);
    let d = grad(|x: &Tensor| g.call::<1>("f", &[x])[0].sum(&[0]))(&x);
    let m = g.finish(&[&d]).unwrap();
    assert_eq!(runs(&m)[0].types.len(), 1, "{}", print(&m));
    let x = results(&m, &[f64s(&[2], 0.5)])[0].to_f64().unwrap()[0];
    let e = 0.5f64.sin().exp();
    assert!((x - e.cos() * e).abs() < 1e-12);
    let g = Graph::new("main");
    g.checkpoint("f");
    assert_eq!(g.finish(&[]).unwrap_err().code, "unknown-function");
}
