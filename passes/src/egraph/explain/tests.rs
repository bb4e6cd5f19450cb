//! Chains of small graphs, and that a wrong step or a missing one is noticed.

use super::super::testing::samples;
use super::Texts;
use crate::lower::{Explained, Options, Target, explained};
use tilewright_ir::graph::Module;
use tilewright_ir::text::parse;
use tilewright_ir::types::Bindings;

const ATTENTION: &str =
    "func @main(%q: f32[2, n, 4], %k: f32[2, n, 4], %v: f32[2, n, 4]) -> f32[2, n, 4] where n in 1..=512 {
  %0 = dot %q, %k batch=[0]x[0] contract=[2]x[2]
  %1 = reduce_max %0 axes=[2]
  %2 = broadcast %1 shape=[2, n, n] dims=[0, 1]
  %3 = sub %0, %2
  %4 = exp %3
  %5 = sum %4 axes=[2]
  %6 = broadcast %5 shape=[2, n, n] dims=[0, 1]
  %7 = div %4, %6
  %8 = dot %7, %v batch=[0]x[0] contract=[2]x[1]
  return %8
}
";

fn explain(text: &str) -> (Module, Explained) {
    let module = parse("test", text).unwrap();
    let options = Options { verify: true, ..2.into() };
    let target = Target { isa: "avx512" };
    let found = explained(&module, options, &target, &Bindings::new()).unwrap().remove(0).unwrap();
    (module, found)
}

fn replay(module: &Module, found: &Explained) -> Result<super::Replay, tilewright_ir::diag::Diagnostic> {
    let bindings = Bindings::from([("n".into(), 3)]);
    let f = &found.function;
    found.replay(module, &bindings, &samples(f, &bindings))
}

#[test]
fn attention_comes_from_softmax_by_rules_that_replay() {
    let (module, found) = explain(ATTENTION);
    let [kernel] = found.kernels.as_slice() else { panic!("{} kernels", found.kernels.len()) };
    let chain = kernel.reason.stored[0].chain.as_ref().unwrap();
    let rules: Vec<&str> = chain.steps.iter().map(|s| &*s.rule).collect();
    for rule in ["esum-weighted", "esum-plain"] {
        assert!(rules.contains(&rule), "{rules:?}");
    }
    assert!(chain.steps.iter().all(|s| s.forward && !s.nodes.is_empty()), "{:?}", chain.steps);
    // All nodes but the parameters.
    assert_eq!(kernel.reason.replaces.len(), 9);
    let looked = replay(&module, &found).unwrap();
    assert!(looked.steps == chain.steps.len() && looked.values > looked.steps, "{looked:?}");
}

#[test]
fn a_wrong_step_and_a_missing_step_are_noticed() {
    let (module, found) = explain(ATTENTION);
    for at in 0..found.kernels[0].reason.stored[0].chain.as_ref().unwrap().steps.len() {
        let mut cut = found.clone();
        let chain = cut.kernels[0].reason.stored[0].chain.as_mut().unwrap();
        let step = chain.steps.remove(at);
        assert_eq!(replay(&module, &cut).unwrap_err().code, "replay", "without {step:?}");
        let mut wrong = found.clone();
        let chain = wrong.kernels[0].reason.stored[0].chain.as_mut().unwrap();
        let operands = &found.chains.terms.id_to_node(chain.steps[at].before).children;
        chain.steps[at].before = *operands.last().unwrap();
        assert_eq!(replay(&module, &wrong).unwrap_err().code, "replay", "{:?}", wrong.kernels[0].reason);
    }
}

#[test]
fn steps_are_shown_as_their_rules_have_them() {
    let (_, found) = explain(ATTENTION);
    let texts = Texts::new(&found.function, &found.chains, &found.rules);
    let chain = found.kernels[0].reason.stored[0].chain.as_ref().unwrap();
    let shown: Vec<String> = chain.steps.iter().map(|s| texts.step(s).join(" => ")).collect();
    let first = "(div %4[a0 a1 a3] %5[a0 a1]) => (mul %4[a0 a1 a3] (div 1 %5[a0 a1]))";
    assert_eq!(shown[0], first);
    let last = "(sum a3 (mul (exp (sub %0[a0 a1 a3] (fold-max a3 %0[a0 a1 a3]))) v[a0, a3, a4])) \
                => (esum a3 %0[a0 a1 a3] v[a0, a3, a4])";
    assert_eq!(shown[3], last);
}

#[test]
fn nothing_to_rewrite_is_a_chain_without_steps() {
    let (module, found) = explain(
        "func @main(%x: f32[n], %y: f32[n]) -> f32[n] where n in 1..=64 {
  %0 = mul %x, %y
  return %0
}
",
    );
    let chain = found.kernels[0].reason.stored[0].chain.as_ref().unwrap();
    assert!(chain.steps.is_empty() && chain.from == chain.to);
    assert_eq!(replay(&module, &found).unwrap().steps, 0);
}
