//! What is left of functions that are run, where only some of their results are read.

use super::Prune;
use super::tests::{module, results};
use crate::vmap::{hessian_of, hvp_of};
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::print;
use tilewright_ir::verify::verify;

/// `m`, whose entry asks only for what it needs.
fn pruned(m: &Module) -> Module {
    let mut out = m.clone();
    let entry = m.entry().unwrap();
    let made = Prune::default().inside(&mut out, entry).unwrap();
    out.functions.shift_remove(&entry.name);
    out.functions.insert(made.name.clone(), made);
    let out = out.part(&entry.name).unwrap();
    verify(&out).unwrap_or_else(|d| panic!("{d}\n{}", print(&out)));
    out
}

#[test]
fn a_loop_keeps_the_carries_that_its_results_need() {
    // The third carry is made of the second and the first; the stack of the slices, which nobody reads, of the fourth.
    let m = module(
        "func @body(%a: f64[n], %b: f64[n], %c: f64[n], %d: f64[n], %s: f64[n], %u: f64[n]) -> (f64[n], f64[n], f64[n], f64[n], f64[n]) where n in 1..=8 {
           %0 = add %a, %s
           %1 = mul %b, %a
           %2 = add %c, %b
           %3 = add %d, %u
           %4 = mul %d, %s
           return %0, %1, %2, %3, %4
         }
         func @main(%x: f64[n], %y: f64[n], %w: f64[3, n]) -> (f64[n], f64[n]) where n in 1..=8 {
           %0 = scan %x, %y, %x, %y, %w, %w body=@body carries=4 length=3
           %1 = scan %x, %y, %x, %y, %w, %w body=@body carries=4 length=3
           return %0#1, %1#0
         }",
    );
    let less = pruned(&m);
    let text = print(&less);
    assert!(text.contains("scan %x, %y, %w body=@body.part carries=2"), "{text}");
    assert!(text.contains("scan %x, %w body=@body.part1 carries=1"), "{text}");
    let given = |shape: &[usize], from: f64| {
        let count: usize = shape.iter().product();
        Array::from_f64(shape, &(0..count).map(|i| from + 0.25 * i as f64).collect::<Vec<f64>>()).unwrap()
    };
    let inputs = [given(&[2], 0.5), given(&[2], -0.75), given(&[3, 2], 0.125)];
    assert_eq!(results(&less, &inputs), results(&m, &inputs));
}

#[test]
fn an_operand_that_only_says_a_size_stays() {
    let m = module(
        "func @f(%p: bool[], %x: f64[n], %y: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
           %0 = constant f64[] = 1.5
           %1 = broadcast %0 shape=[n] dims=[]
           %2 = exp %y
           return %1, %2
         }
         func @g(%p: bool[], %x: f64[n], %y: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
           return %y, %y
         }
         func @main(%p: bool[], %x: f64[n], %y: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
           %0 = call %p, %x, %y function=@f
           %1 = cond %p, %p, %x, %y yes=@f no=@g
           return %0#0, %1#0
         }",
    );
    let less = pruned(&m);
    let text = print(&less);
    assert!(text.contains("call %x function=") && text.contains("cond %p, %x, %y yes="), "{text}");
    for p in [true, false] {
        let p = Array::from_bool(&[], &[p]).unwrap();
        let inputs = [p, Array::from_f64(&[2], &[0.5, 2.0]).unwrap(), Array::from_f64(&[2], &[3.0, 4.0]).unwrap()];
        assert_eq!(results(&less, &inputs), results(&m, &inputs));
    }
}

#[test]
fn what_binds_a_size_has_its_own_bound() {
    let m = module(
        "func @f(%x: f64[n, 2*m], %y: f64[m], %z: f64[]) -> f64[n] where n in 1..=8, m in 1..=8 {
           %0 = broadcast %z shape=[n] dims=[]
           return %0
         }
         func @main(%x: f64[n, 2*m], %y: f64[m], %z: f64[]) -> f64[n] where n in 1..=8, m in 1..=8 {
           %0 = call %x, %y, %z function=@f
           return %0
         }",
    );
    let mut all = m.clone();
    let (_, reads) = Prune::default().function(&mut all, &"f".into()).unwrap();
    assert_eq!(reads, [true, true, true]);
}

#[test]
fn a_size_that_nothing_has_any_more_is_not_declared() {
    let m = module(
        "func @f(%b: f64[3], %a: f64[n]) -> f64[3] where n in 1..=4 {
           %0 = sin %b
           return %0
         }
         func @g(%b: f64[3], %a: f64[n]) -> f64[3] where n in 1..=4 {
           return %b
         }
         func @main(%p: bool[], %c: f64[3]) -> f64[3] {
           %0 = constant f64[] = 1.0
           %1 = broadcast %0 shape=[2] dims=[]
           %2 = cond %p, %c, %1 yes=@f no=@g
           return %2
         }",
    );
    let less = pruned(&m);
    assert!(print(&less).contains("cond %p, %c yes=") && !print(&less).contains("where"), "{}", print(&less));
}

#[test]
fn second_derivatives_of_calls_do_not_compute_the_first() {
    let m = module(
        "func @layer(%x: f64[4], %w: f64[4, 4]) -> f64[4] {
           %0 = dot %x, %w contract=[0]x[0]
           %1 = tanh %0
           return %1
         }
         func @main(%x: f64[4], %w: f64[4, 4], %u: f64[4, 4]) -> f64[] {
           %0 = call %x, %w function=@layer
           %1 = call %0, %u function=@layer
           %2 = sum %1 axes=[0]
           return %2
         }",
    );
    let products = |m: &Module| {
        let dot = |n: &&tilewright_ir::graph::Node| matches!(n.op, GraphOp::Dot { .. });
        m.functions.values().map(|f| f.nodes.iter().filter(dot).count()).sum::<usize>()
    };
    let hvp = hvp_of(&m, &["w", "u"]).unwrap().module;
    verify(&hvp).unwrap();
    // Of a layer back: the gradients of weights themselves are not among its products any more.
    let text = print(&hvp);
    assert!(text.contains(".part"), "{text}");
    assert!(products(&hvp) < products(&hvp_unpruned(&m)), "{text}");
    let x = |shape: &[usize], k: f64| {
        let count: usize = shape.iter().product();
        Array::from_f64(shape, &(0..count).map(|i| (k * (i as f64 + 1.0)).sin()).collect::<Vec<f64>>()).unwrap()
    };
    let inputs = [x(&[4], 0.3), x(&[4, 4], 0.7), x(&[4, 4], 1.1), x(&[4, 4], 1.3), x(&[4, 4], 1.7)];
    assert_eq!(results(&hvp, &inputs), results(&hvp_unpruned(&m), &inputs)[2..]);
    verify(&hessian_of(&m, &["w"]).unwrap()).unwrap();
}

/// With the first derivatives before the second.
fn hvp_unpruned(m: &Module) -> Module {
    use super::{Form, differentiate};
    let gradient = differentiate(m, &["w", "u"], Form::Gradient).unwrap().module;
    differentiate(&gradient, &["w", "u"], Form::Pushforward).unwrap().module
}
