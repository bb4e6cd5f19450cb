//! Gradients of closures by plans: the bits of the plain ones, whatever stands around.

use super::tests::{bits, numbers};
use super::{Checkpointing, Mix, Plan, Segmented};
use crate::autodiff::{Keep, value_and_grad};
use crate::mixed::{Policy, mixed};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Derivative, Module};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType;
use tilewright_ir::verify::verify;

/// What a loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blocks {
    /// Ops that repeat.
    Written,
    /// Calls of one function, which something else calls, too.
    Called,
    /// Calls in a function that is called.
    Inside,
    /// None.
    Absent,
}

const LAYERS: usize = 6;

/// The loss of a perceptron, its gradient by `checkpointing` if there is one, and what `checkpointing` must not change.
fn program(blocks: Blocks, half: bool, checkpointing: Option<&Checkpointing>) -> Module {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [4, 8]);
    let weights: Vec<Tensor> = (0..LAYERS).map(|i| g.weight(&format!("w{i}"), DType::F32, [8, 8])).collect();
    let block = |x: &Tensor, w: &Tensor| x + x.matmul(w).tanh();
    let called = |g: &Graph, x: &Tensor, w: &Tensor| -> Tensor {
        let [y] = g.call("block", &[x, w]);
        y
    };
    if matches!(blocks, Blocks::Called | Blocks::Inside) {
        g.function("block", |g| [block(&g.input("x", DType::F32, [4, 8]), &g.input("w", DType::F32, [8, 8]))]);
        g.function("all", |g| {
            let x = g.input("x", DType::F32, [4, 8]);
            let weights = (0..LAYERS).map(|i| g.input(&format!("w{i}"), DType::F32, [8, 8]));
            [weights.fold(x, |x, w| called(g, &x, &w))]
        });
    }
    let all = |x: &Tensor, weights: &[Tensor]| -> Tensor {
        let args: Vec<&Tensor> = std::iter::once(x).chain(weights).collect();
        let [y] = g.call("all", &args);
        y
    };
    let loss = |weights: &Vec<Tensor>| {
        let x = match blocks {
            Blocks::Written => weights.iter().fold(x.clone(), |x, w| block(&x, w)),
            Blocks::Called => weights.iter().fold(x.clone(), |x, w| called(&g, &x, w)),
            Blocks::Inside => all(&x, weights),
            Blocks::Absent => x.matmul(&weights[0]).sin().matmul(&weights[1]),
        };
        (&x * &x).sum(&[0, 1])
    };
    let policy = Policy::new(DType::Bf16).unwrap();
    let mixed = |weights: &Vec<Tensor>| if half { mixed(&policy, loss)(weights) } else { loss(weights) };
    let (value, gradients) = match checkpointing {
        Some(checkpointing) => checkpointing.value_and_grad(mixed)(&weights),
        None => value_and_grad(mixed)(&weights),
    };
    // Functions that the plan changes are as they were for others.
    let other = if blocks == Blocks::Inside { all(&x, &weights) } else { x.tanh() };
    let results: Vec<&Tensor> = [&value, &other].into_iter().chain(&gradients).collect();
    g.finish(&results).unwrap()
}

#[test]
fn closures_by_plans_have_the_bits_of_plain_gradients() {
    let less = |keep| Plan { keep, ..Plan::PLAIN };
    let mix = Plan { first: Some(Mix { keep: Keep::Nothing, quarters: 2 }), ..Plan::PLAIN };
    let plans = [Plan::PLAIN, Plan::SQRT, less(Keep::PerByte(16.0)), less(Keep::Nothing), mix];
    for blocks in [Blocks::Written, Blocks::Called, Blocks::Inside] {
        for half in [false, true] {
            let plain = program(blocks, half, None);
            let inputs = numbers(&plain, 0.3);
            let expected = bits(&plain, &inputs);
            let mut others = 0;
            for plan in plans {
                let checkpointing = Checkpointing::by(plan);
                let made = program(blocks, half, Some(&checkpointing));
                verify(&made).unwrap();
                assert_eq!(difference(&made, &parse("t.tw", &print(&made)).unwrap()), None);
                assert_eq!(expected, bits(&made, &inputs), "{blocks:?} {half} {plan:?}\n{}", print(&made));
                let regions = made.functions.values().filter(|f| f.derivative == Derivative::Checkpoint).count();
                assert_eq!(regions > 0, plan.segments == Segmented::Sqrt, "{blocks:?} {plan:?}\n{}", print(&made));
                others += usize::from(difference(&plain, &made).is_some());
            }
            // All but the plain one.
            assert_eq!(others, plans.len() - 1, "{blocks:?} {half}");
        }
    }
}

#[test]
fn a_plan_says_what_was_kept() {
    let bytes = |plan| {
        let checkpointing = Checkpointing::by(plan);
        program(Blocks::Called, false, Some(&checkpointing));
        let kept = checkpointing.kept();
        (kept.iter().map(|k| k.values.len()).sum::<usize>(), kept.iter().map(|k| k.again).sum::<f64>())
    };
    let (plain, nothing) = (bytes(Plan::PLAIN), bytes(Plan { keep: Keep::Nothing, ..Plan::PLAIN }));
    assert!(plain.0 > 0 && plain.1 == 0.0, "{plain:?}");
    assert!(nothing.0 == 0 && nothing.1 > 0.0, "{nothing:?}");
}

#[test]
fn a_closure_without_blocks_has_no_segments() {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [4]);
    let (_, gradient) = Checkpointing::sqrt().value_and_grad(|x: &Tensor| x.sin().sum(&[0]))(&x);
    assert_eq!(g.finish(&[&gradient]).unwrap_err().code, "no-chain");
    // What functions keep is chosen for it as a whole.
    let checkpointing = Checkpointing::by(Plan { keep: Keep::Nothing, ..Plan::PLAIN });
    let (plain, made) = (program(Blocks::Absent, false, None), program(Blocks::Absent, false, Some(&checkpointing)));
    let inputs = numbers(&plain, 0.3);
    assert_eq!(bits(&plain, &inputs), bits(&made, &inputs));
    assert_eq!(checkpointing.kept().len(), 1);
}
