//! Tests of rules, checker and saturation.

use super::*;
use tilewright_ir::types::DType;

fn rule(text: &str) -> Rule {
    RuleSet::parse("test.rules", text).unwrap().rules.remove(0)
}

#[test]
fn shipped_rules_hold() {
    let set = shipped().unwrap();
    assert!(set.rules.len() >= 30, "{}", set.rules.len());
    for group in ["algebra", "reduction", "online", "variance", "views", "dtype", "halves"] {
        assert!(set.rules.iter().any(|r| &*r.group == group), "{group}");
    }
    for r in &set.rules {
        for seed in [1, 2] {
            if let Err(e) = check_rule(r, seed) {
                panic!("{}: {e}", r.line.number);
            }
        }
    }
}

/// Each `if` condition is needed: without it the checker finds data.
#[test]
fn truth_conditions_are_needed() {
    for r in shipped().unwrap().rules {
        for (gone, found) in without_conditions(&r) {
            assert!(found.is_err(), "{} holds without {gone}", r.name);
        }
    }
}

/// f32 in between changes no rounding: for every operand of ops on one, for operands of all exponents of ops on two.
#[test]
fn every_half_is_rounded_once_by_way_of_f32() {
    let numbers = |dtype: DType, step: usize| -> Vec<f64> {
        let of =
            |bits: usize| if dtype == DType::Bf16 { f64::from(f32::from_bits((bits as u32) << 16)) } else { f16(bits) };
        (0..1 << 16).step_by(step).map(of).collect()
    };
    let plain =
        shipped().unwrap().rules.into_iter().filter(|r| r.name.starts_with("widen-") && r.class == Class::Exact);
    let mut seen = 0;
    for rule in plain {
        let Term::Apply(Head::Scalar(op), args) = &rule.left else { continue };
        let of = |dtype: DType, x: &[f64]| {
            let args: Vec<_> = x.iter().map(|&x| eval::Bounded::exact(x)).collect();
            let exact = eval::scalar(op.kind(), &args).unwrap().value;
            let (once, twice) =
                (widths::rounded(dtype, exact), widths::rounded(dtype, widths::rounded(DType::F32, exact)));
            let same = once.to_bits() == twice.to_bits() || (once.is_nan() && twice.is_nan());
            assert!(same, "{}: {dtype}: {x:?}: {once} or {twice}", rule.name);
        };
        for dtype in [DType::Bf16, DType::F16] {
            seen += 1;
            match args.len() {
                1 => numbers(dtype, 1).into_iter().for_each(|x| of(dtype, &[x])),
                2 => {
                    let (left, right) = (numbers(dtype, 61), numbers(dtype, 67));
                    left.iter().for_each(|&x| right.iter().for_each(|&y| of(dtype, &[x, y])));
                }
                _select => {}
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

/// An f16 from its bits.
fn f16(bits: usize) -> f64 {
    let (sign, exponent, rest) = (bits >> 15, bits >> 10 & 31, (bits & 1023) as f64);
    let size = match exponent {
        0 => rest * (-24f64).exp2(),
        31 => {
            if rest == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        e => (1024.0 + rest) * (e as f64 - 25.0).exp2(),
    };
    if sign == 1 { -size } else { size }
}

#[test]
fn wrong_rules_are_refused_with_data() {
    let mut factor = shipped().unwrap().rules.into_iter().find(|r| &*r.name == "sum-factor").unwrap();
    factor.truth.clear();
    let error = check_rule(&factor, 1).unwrap_err();
    assert!(error.data.iter().any(|l| l.starts_with("?a[")), "{error}");
    let sign = rule("mul-distribute: reassociates\n  (mul ?a (add ?b ?c)) => (sub (mul ?a ?b) (mul ?a ?c))\n");
    assert!(check_rule(&sign, 1).unwrap_err().to_string().contains("?c["));
    let right = rule("mul-distribute: reassociates\n  (mul ?a (add ?b ?c)) => (add (mul ?a ?b) (mul ?a ?c))\n");
    assert!(check_rule(&right, 1).is_ok());
    // The same algebra does not keep every bit, and a sum with zero loses the sign of -0.
    let exact = rule("mul-distribute: exact\n  (mul ?a (add ?b ?c)) => (add (mul ?a ?b) (mul ?a ?c))\n");
    assert!(check_rule(&exact, 1).is_err());
    assert!(check_rule(&rule("add-zero: exact\n  (add ?a 0) => ?a\n"), 1).is_err());
    assert!(check_rule(&rule("mul-zero: exact\n  (mul ?a 0) => 0\n"), 1).is_err());
    assert!(check_rule(&rule("e: exact\n  (pow (neg ?a) 2) => (pow ?a 2)\n"), 1).is_ok());
    assert!(check_rule(&rule("e: exact\n  (pow (neg ?a) 3) => (pow ?a 3)\n"), 1).is_err());
    // What has no meaning here is refused, and so is what can match nothing.
    let error = check_rule(&rule("e: exact\n  (at ?m (neg ?a)) => (neg (at ?m ?a))\n"), 1).unwrap_err();
    assert!(error.reason.contains("does not evaluate `at`"), "{error}");
    let error = check_rule(&rule("e: exact\n  (and ?a 1) => ?a\n"), 1).unwrap_err();
    assert!(error.reason.contains("no element types"), "{error}");
}

/// An approximation that names its error has no larger one.
#[test]
fn approximations_keep_their_bound() {
    const ERF: &str = "(erf ?a) => (tanh (mul ?a (add 1.1283791670955126 (mul 0.10090614 (mul ?a ?a)))))";
    let check = |bound: &str, sides: &str| check_thoroughly(&rule(&format!("a: approx({bound})\n  {sides}\n")));
    for (bound, sides, holds) in [
        ("1e-3", ERF, true),
        ("4e-4", ERF, false),
        ("small", ERF, false),
        ("1e-3", "(mul ?a 1.002) => ?a", false),
        ("3e-3", "(mul ?a 1.002) => ?a", true),
        ("1e-3", "(exp ?a) => (add 1 ?a)", false),
        ("1e-6", "(sum ?j (mul ?a ?b)) => (mul 1.0000001 (sum ?j (mul ?a ?b)))", true),
    ] {
        let found = check(bound, sides);
        assert_eq!(found.is_ok(), holds, "{bound} {sides}: {found:?}");
        assert!(found.is_ok() || found.unwrap_err().data.iter().any(|l| l.starts_with("?a[")));
    }
}

/// Longer axes than constants of programs are: what is wrong there is found all the same.
#[test]
fn axes_are_as_long_as_literals_say() {
    for (class, sides) in [
        ("exact", "(select (eq (extent ?j) 300000) ?b ?a) => ?a"),
        ("exact", "(select (le (iota ?j) 50000) ?a 0) => (select (lt (iota ?j) 50000) ?a 0)"),
        ("reassociates", "(select (le (iota ?j) 5000) ?a 0) => (select (lt (iota ?j) 5000) ?a 0)"),
        ("reassociates", "(sum ?j (select (lt (iota ?j) 100000) ?a 0)) => (sum ?j ?a)"),
    ] {
        let found = check_rule(&rule(&format!("a: {class}\n  {sides}\n")), 1);
        assert!(found.is_err(), "{class} {sides}");
    }
}

#[test]
fn loader_says_where() {
    let cases = [
        ("a: exact\n  (foo ?a) => ?a\n", "unknown-head", 2, 4, 3),
        ("a: exact\n  (neg ?a ?b) => ?a\n", "operand-count", 2, 3, 11),
        ("a: exact\n  (neg ?a) => ?b\n", "unbound-variable", 2, 3, 14),
        ("a: exact\n  (sum ?j ?a) => ?a\n", "axis-capture", 2, 3, 17),
        ("a: nearly\n  (neg ?a) => ?a\n", "rule-syntax", 1, 4, 6),
        ("a: approx(0)\n  (neg ?a) => ?a\n", "rule-syntax", 1, 11, 1),
        ("a: approx(-1e-3)\n  (neg ?a) => ?a\n", "rule-syntax", 1, 11, 5),
        ("a: approx(inf)\n  (neg ?a) => ?a\n", "rule-syntax", 1, 11, 3),
        ("a: exact\n  (neg ?a) => ?a\n  if near(?a)\n", "unknown-condition", 3, 6, 8),
        ("a: exact\n  (neg ?a) => ?a\n  if finite(?a)\n", "unknown-condition", 3, 6, 10),
        ("a: exact\n  (neg ?a) => ?a\na: exact\n  (neg ?a) => ?a\n", "duplicate-rule", 3, 1, 1),
        ("a: exact\n  (neg ?a => ?a\n", "rule-syntax", 2, 3, 1),
        ("a: exact\n  (neg ?a) => (\n", "rule-syntax", 2, 15, 1),
        ("a: exact\n  ((neg ?a)) => ?a\n", "rule-syntax", 2, 3, 1),
        ("a: exact\n  (neg ?a) ?a\n", "rule-syntax", 2, 3, 11),
        ("a: exact\n", "rule-syntax", 1, 1, 1),
        ("  (neg ?a) => ?a\n", "rule-syntax", 1, 3, 14),
        ("a: exact\n  ?a => (neg ?a)\n", "rule-syntax", 2, 3, 14),
        ("a: exact\n  (sum 1 ?a) => ?a\n", "rule-syntax", 2, 3, 10),
        ("a: exact\n  (sum ?j (neg ?j)) => (sum ?j (iota ?j))\n", "unbound-variable", 2, 3, 39),
    ];
    for (text, code, line, column, length) in cases {
        let d = RuleSet::parse("x.rules", text).unwrap_err();
        assert_eq!(d.code, code, "{text}\n{d}");
        let want = tilewright_ir::diag::Place::Text { file: "x.rules".into(), line, column, length };
        assert_eq!(d.labels[0].0, want, "{text}\n{d}");
        assert!(d.to_string().contains('^'), "{d}");
    }
}

#[test]
fn loader_survives_damage() {
    let text = include_str!("rules/online.rules");
    for cut in (0..text.len()).step_by(7) {
        let _ = RuleSet::parse("cut", text.get(..cut).unwrap_or(""));
        let mut damaged = text.to_string();
        damaged.replace_range(cut..cut + 1, "(");
        let _ = RuleSet::parse("damaged", &damaged);
    }
    assert!(RuleSet::parse("deep", &format!("a: exact\n  {} => ?a\n", "(neg ".repeat(10_000))).is_err());
}

fn tiny() -> (Graph, egg::Id) {
    let mut g = Graph::default();
    for name in ["i", "j"] {
        g.analysis.axes.push(AxisInfo { name: name.into(), dim: 5.into() });
    }
    g.analysis.inputs.push(InputInfo { name: "x".into(), dtype: DType::F32 });
    let j = g.add(ENode::attr(Attr::Axis(1)));
    let input = g.add(ENode::attr(Attr::Input(0)));
    let map = g.add(ENode::attr(Attr::Map(vec![Affine::axis(0), Affine::axis(1)])));
    let x = g.add(ENode::new(Head::Load, vec![input, map]));
    let op = |op| Head::Scalar(op);
    let e = g.add(ENode::new(op(tilewright_ir::op::ScalarOp::Exp {}), vec![x]));
    let l = g.add(ENode::new(Head::Fold(Fold::Sum), vec![j, e]));
    let out = g.add(ENode::new(op(tilewright_ir::op::ScalarOp::Div {}), vec![e, l]));
    g.rebuild();
    (g, out)
}

#[test]
fn softmax_becomes_online_and_runs_agree() {
    let rules = shipped().unwrap();
    let run = |limits| saturate(tiny().0, &rules, Numerics::Reassociate, limits).unwrap();
    let s = run(Limits::default());
    assert_eq!(s.stop, Stop::Saturated);
    let esum = |g: &Graph| g.classes().any(|c| c.nodes.iter().any(|n| n.head == Head::Fold(Fold::Esum)));
    assert!(esum(&s.graph));
    assert_eq!(format!("{:?}", s.graph.dump()), format!("{:?}", run(Limits::default()).graph.dump()));
    // Exact numerics leave softmax as it was written; a small limit still gives a graph that can be read.
    assert!(!esum(&saturate(tiny().0, &rules, Numerics::Exact, Limits::default()).unwrap().graph));
    let small = run(Limits { iterations: 16, nodes: 9 });
    assert_eq!(small.stop, Stop::Nodes);
    assert!(small.graph.clean);
}

#[test]
fn a_contradiction_is_an_error() {
    let (g, _) = tiny();
    let wrong = RuleSet::parse("w", "w: exact\n  (exp ?a) => 1\nv: exact\n  (exp ?a) => 2\n").unwrap();
    assert_eq!(saturate(g, &wrong, Numerics::Exact, Limits::default()).unwrap_err().code, "rules-contradict");
}

/// Work is bounded by the length of a rule, not by the types and positions that it could have.
#[test]
fn rules_of_many_types_and_folds_are_checked_in_time() {
    let pairs: Vec<String> = (0..12).map(|i| format!("(lt ?a{i} ?b{i})")).collect();
    let all = pairs.iter().skip(1).fold(pairs[0].clone(), |all, pair| format!("(and {all} {pair})"));
    assert!(check_rule(&rule(&format!("r: exact\n  (not (not {all})) => {all}\n")), 1).is_ok());
    let deep = format!("{}?a{}", "(sum ?j ".repeat(24), ")".repeat(24));
    assert!(check_rule(&rule(&format!("r: reassociates\n  (neg (neg {deep})) => {deep}\n")), 1).is_ok());
}
